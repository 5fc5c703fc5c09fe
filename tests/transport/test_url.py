"""URLs: what can be read in one way only is accepted; the rest is refused with advice and never repeated."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from jwt_events import InvalidOption, RedisPubSub, RedisStream, TokenRevoked
from jwt_events.embedded import EmbeddedServer
from jwt_events.transport._redis.connection import Connector
from jwt_events.transport._redis.url import canonical_url
from tests.support.handling import publish
from tests.support.raw import call

SECRET = "Topsecret"


def options(url: str) -> dict[str, Any]:
    """Return what redis-py connects with."""
    connector = Connector(url)
    names = ("username", "password", "host", "port", "path", "db")
    return {name: connector._options[name] for name in names if name in connector._options}


def refused(url: str) -> str:
    """Return the message with which every transport refuses a URL."""
    messages = set[str]()
    for make in (RedisStream, RedisPubSub):
        with pytest.raises(InvalidOption) as caught:
            make(url)
        assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert caught.value.option == "client_or_url"
        messages.add(str(caught.value))
    (message,) = messages
    return message


class TestAccepted:
    """URLs with one meaning."""

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("redis://", {}),
            ("redis:///3", {"db": 3}),
            ("redis://h", {"host": "h"}),
            ("redis://h/", {"host": "h"}),
            ("redis://h:1", {"host": "h", "port": 1}),
            ("redis://h:65535/15", {"host": "h", "port": 65535, "db": 15}),
            ("redis://redis_cache-1.internal.", {"host": "redis_cache-1.internal."}),
            ("redis://127.0.0.1:6380", {"host": "127.0.0.1", "port": 6380}),
            ("redis://[::1]:6380/2", {"host": "::1", "port": 6380, "db": 2}),
            ("redis://[fe80::1%25eth0]", {"host": "fe80::1%eth0"}),
            ("redis://me@h", {"username": "me", "host": "h"}),
            ("redis://me:pw@h", {"username": "me", "password": "pw", "host": "h"}),
            ("redis://:p:w@h", {"password": "p:w", "host": "h"}),
            ("redis://:p%40%2F%3F%23%25:w@h", {"password": "p@/?#%:w", "host": "h"}),
            ("redis://me:[pw]@h", {"username": "me", "password": "[pw]", "host": "h"}),
            ("redis://me:pä%C3%A4@h", {"username": "me", "password": "pää", "host": "h"}),
            ("redis://h?db=7", {"host": "h", "db": 7}),
            ("redis://h/0?password=p%40w", {"host": "h", "password": "p@w", "db": 0}),
            ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
            ("unix:///run/user@1000/a b.sock", {"path": "/run/user@1000/a b.sock"}),
            ("unix:///run/a%3Fb.sock?db=2", {"path": "/run/a?b.sock", "db": 2}),
            ("unix://me:pw@/run/redis.sock", {"username": "me", "password": "pw", "path": "/run/redis.sock"}),
        ],
    )
    def test_as_redis_py_reads_it(self, url: str, expected: dict[str, Any]) -> None:
        """Every part arrives where it belongs, and what the URL does not say is not made up."""
        assert options(url) == expected

    @pytest.mark.parametrize("character", "@:/?#[]%&=;+ ä!$'(),*\\\"<>^`{|}~")
    def test_any_encoded_character(self, character: str) -> None:
        """Percent-encoded, every character can be in a user and a password."""
        word = f"a{character}b{character}"
        found = options(f"redis://{quote(word, safe='')}:{quote(word, safe='')}@h")
        assert found == {"username": word, "password": word, "host": "h"}

    @pytest.mark.parametrize(("scheme", "same"), [("valkey", "redis"), ("valkeys", "rediss")])
    def test_valkeys_schemes(self, scheme: str, same: str) -> None:
        """The schemes of Valkey mean the same as those of Redis."""
        rest = "://me:pw@h:6380/2"
        assert options(scheme + rest) == options(same + rest)
        assert Connector(scheme + rest)._connection_class is Connector(same + rest)._connection_class
        assert canonical_url(scheme + rest) == same + rest

    async def test_a_server_is_reached_by_valkeys_scheme(self, own_server: Callable[..., EmbeddedServer]) -> None:
        """An event arrives at the server of a ``valkey://`` URL."""
        async with own_server(port=0) as server:
            await publish(RedisStream(server.url.replace("redis://", "valkey://"), "k"), TokenRevoked(token_id="t"))
            async with Redis.from_url(server.url) as client:
                assert await call(client, "XLEN", "k") == 1

    def test_an_ipv6_address_is_shown_in_brackets(self) -> None:
        """Where an address ends and its port begins can be seen."""
        assert repr(RedisStream("redis://[::1]:6380")).endswith(" at [::1]:6380>")


class TestRefused:
    """URLs with a part of which it is unclear what it is."""

    @pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
    @pytest.mark.parametrize(
        "secret",
        [
            f"Ab9@{SECRET}/zz",
            f"Ab9@{SECRET}?zz",
            f"Ab9@{SECRET}#zz",
            f"Ab9/{SECRET}@zz",
            f"Ab9?{SECRET}@zz",
            f"Ab9#{SECRET}@zz",
            f"Ab9@{SECRET}",
            f"{SECRET}/",
            f"{SECRET}?",
            f"{SECRET}#",
            f"6380/{SECRET}",
            f"6380?db=1&client_name={SECRET}",
            f"Ab9@{SECRET}?client_name=x",
            f"Ab9@{SECRET}/0?client_name=x",
            f"[{SECRET}/]",
            f"{SECRET} x",
            f"{SECRET}\tx",
            f"{SECRET}\nx",
        ],
    )
    @pytest.mark.parametrize("rest", ["127.0.0.1:6399/0", "h", "h?db=1"])
    def test_a_password_that_is_not_encoded(self, scheme: str, secret: str, rest: str) -> None:
        """No part of it becomes the host, the port, the path or an option; the advice is to encode it."""
        for user in ("svc", ""):
            assert "percent-encode special characters in user and" in refused(f"{scheme}://{user}:{secret}@{rest}")
        assert "percent-encode" in refused(f"{scheme}://{secret}:pw@{rest}")

    @pytest.mark.parametrize(
        "rest",
        [
            *("/prod", "/3 # staging", "/0/1", "/-1", "/3/", "/3x", "/\u0663", "/+3", "/0x1", "/%33", "/99999999999"),
            *(
                "?db=prod",
                "?db=-1",
                "?db=\u0663",
                "?db=1&db=2",
                "?db=",
                "?db",
                "?=1",
                "?&",
                "?db=1&",
                "#",
                "#x",
                "/0#x",
            ),
            *(":", ":0", ":99999", ":-1", ":+1", ":x", ":\uff16", ":6379:6379", ":6379 ", "#", "#x", "/0#x"),
        ],
    )
    def test_what_follows_the_host(self, rest: str) -> None:
        """A path or a database that is no number, a port that is none, options without a value, a fragment."""
        assert "is no valid Redis URL" in refused(f"redis://me:{SECRET}@h{rest}")

    @pytest.mark.parametrize(
        "place",
        ["", ":6379", "h h", "h%20h", "%2Frun%2Fredis", "a,b", "::1", "[::1", "::1]", "[::1]x", "[h]", "[]", "$HOST"],
    )
    def test_no_host(self, place: str) -> None:
        """A host that is none, or an empty one after a user and a password that are meant for some server."""
        assert "is no valid Redis URL" in refused(f"redis://me:{SECRET}@{place}")
        assert "is no valid Redis URL" in refused(f"redis://me:{SECRET}@{place}/0")

    @pytest.mark.parametrize("url", [f"redis://:{SECRET}", "redis://:6379", "redis://:12345/0"])
    def test_what_could_be_a_password_or_a_port(self, url: str) -> None:
        """What follows a colon, with no host before it."""
        assert "is no valid Redis URL" in refused(url)

    @pytest.mark.parametrize(
        "rest",
        [
            "",
            "/",
            "redis.sock",
            "localhost/redis.sock",
            f"me:{SECRET}@h/redis.sock",
            f"me:a@{SECRET}@/redis.sock",
            f"me:a/{SECRET}@/redis.sock",
            f"me:a@/{SECRET}@/redis.sock",
            f"me:a#{SECRET}@/redis.sock",
            "/run/re\ndis.sock",
            "/run/re%00dis.sock",
            "/redis.sock?db=x",
        ],
    )
    def test_a_socket_without_a_path(self, rest: str) -> None:
        """A unix URL names the path of a socket, and nothing before it but a user and a password."""
        assert "is no valid Redis URL" in refused(f"unix://{rest}")

    @pytest.mark.parametrize(
        "option",
        [
            *("retry=1", "host=other", "port=1", "path=/x", "credential_provider=x", "connection_class=x"),
            *("parser_class=x", "encoder_class=x", "redis_connect_func=x", "socket_keepalive_options=x", "shade=blue"),
        ],
    )
    def test_options(self, option: str) -> None:
        """An option that redis-py does not know, or not from a URL."""
        assert "has an option that redis-py does not accept" in refused(f"redis://me:{SECRET}@h?{option}")

    @pytest.mark.parametrize("scheme", ["http", "REDIS", "valkey+tls", "redis:", "", " redis"])
    def test_schemes(self, scheme: str) -> None:
        """Another scheme; the message lists those that there are."""
        message = refused(f"{scheme}://me:{SECRET}@h")
        assert (
            "must start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://, or with valkey:// or"
            " valkeys://" in message
        )
