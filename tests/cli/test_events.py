"""The commands publish, tail, check, dead and groups."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jwt_events import EventType, RevocationList, Verdict
from jwt_events.cli._check import claims_from
from jwt_events.cli._options import duration, instant
from jwt_events.cli.publish._parsing import event_from_line
from jwt_events.errors import InvalidClaims, InvalidEvent, InvalidOption
from jwt_events.revocation import Explanation
from tests.support.commands import Outcome, pipe, run, run_apart, run_in_terminal, running
from tests.support.examples import COMPACT_JWT
from tests.support.servers import Server
from tests.support.waiting import block_until, scaled

SOON = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)

CLAIMS = '{"jti": "token-1"}'

# For each type: options, and the fields that the event must then have.
EVENTS = {
    "token-revoked": (
        ("--token-id", "t", "--user-id", "u", "--expires-at", str(int(SOON.timestamp())), "--reason", "lost  laptop"),
        {
            "token_id": "t",
            "user_id": "u",
            "expires_at": SOON.isoformat().replace("+00:00", "Z"),
            "reason": "lost  laptop",
        },
    ),
    "token-expired": (
        ("--token-id", "t", "--expired-at", "2026-03-01T13:00:00+01:00"),
        {"token_id": "t", "expired_at": "2026-03-01T12:00:00Z"},
    ),
    "key-rotated": (("--key-id", "k", "--compromised"), {"key_id": "k", "compromised": True}),
    "session-created": (
        ("--session-id", "s", "--user-id", "u", "--metadata", '{"ip": "192.0.2.1"}'),
        {"session_id": "s", "user_id": "u", "metadata": {"ip": "192.0.2.1"}},
    ),
    "session-destroyed": (("--session-id", "s"), {"session_id": "s"}),
}


def on_the_stream(url: str, key: str, *options: str) -> Outcome:
    """Return the events of a stream, as JSON."""
    return run("tail", "--start", "all", "--until-current", "--json", "--key", key, *options, url=url)


class TestPublish:
    """``jwt-events publish``."""

    @pytest.mark.parametrize("name", EVENTS)
    def test_every_type(self, url: str, key: str, name: str) -> None:
        """Every type has a subcommand with the fields of its model as options."""
        options, data = EVENTS[name]
        done = run("publish", name, *options, "--key", key, "--json", "--id", "an-id", "--source", "cli", url=url)
        assert (done.code, done.errors) == (0, "")
        (receipt,) = done.records
        (shown,) = on_the_stream(url, key).records
        assert shown["data"] == data
        assert (shown["id"], shown["source"], shown["position"]) == ("an-id", "cli", receipt["position"])
        assert shown["type"] == f"jwt.{name.replace('-', '_')}.v1"

    def test_every_type_is_there(self) -> None:
        """The table has every type."""
        assert {name.replace("-", "_") for name in EVENTS} == set(EventType)

    @pytest.mark.parametrize(
        ("options", "option"),
        [
            (("--key-id", "new", "--previous-key-id", "leaked", "--compromised"), "--compromised"),
            (("--key-id", "old", "--retire-at", str(int(SOON.timestamp()))), "--retire-at"),
            (("--key-id", "one", "--previous-key-id", "one"), "--previous-key-id"),
        ],
    )
    def test_a_rotation_that_can_be_misunderstood(
        self, url: str, key: str, options: tuple[str, ...], option: str
    ) -> None:
        """It is refused, with the option and the ways to say it right, in options; nothing is published."""
        refused = run("publish", "key-rotated", *options, "--key", key, url=url)
        assert refused.code == 2
        assert refused.complaint.startswith(f"jwt-events: {option}: is ")
        assert "as --key-id" in refused.complaint
        assert run("tail", "--start", "all", "--until-current", "--json", "--key", key, url=url).records == []

    def test_a_cutoff_in_the_future(self, url: str, key: str) -> None:
        """It is refused with the option and what to do instead; nothing is published."""
        refused = run(
            "publish",
            "token-revoked",
            "--user-id",
            "u",
            "--issued-before",
            "2100-01-01T00:00:00Z",
            "--key",
            key,
            url=url,
        )
        assert refused.code == 2
        assert refused.complaint.startswith("jwt-events: --issued-before: is more than five minutes ahead")
        assert run("tail", "--start", "all", "--until-current", "--json", "--key", key, url=url).records == []

    def test_retention(self, url: str, key: str) -> None:
        """An event that outlives the retention is refused, and the message names both options."""
        words = ("publish", "token-revoked", "--token-id", "t", "--expires-at", SOON.isoformat(), "--key", key)
        refused = run(*words, "--retention", "30m", url=url)
        assert refused.code == 2
        assert "--expires-at" in refused.complaint
        assert "--retention" in refused.complaint
        assert run(*words, "--retention", "2h", url=url).code == 0
        assert run(*words, url=url).code == 0  # beside a ledger, nothing outlives the stream

    def test_file(self, url: str, key: str, tmp_path: Path) -> None:
        """Lines that tail prints as JSON are published unchanged; other lines may contain a type and its fields."""
        for name, (options, _) in EVENTS.items():
            assert run("publish", name, *options, "--key", key, url=url).code == 0
        before = on_the_stream(url, key)
        path = tmp_path / "events.jsonl"
        path.write_text(f'{before.output}\n{{"type": "token_expired", "token_id": "x", "expired_at": 1767225600}}\n')
        done = run("publish", "--file", str(path), "--batch-size", "2", "--key", f"{key}:again", "--json", url=url)
        assert (done.code, done.errors, done.records) == (0, "", [{"published": 6, "next_line": 8}])
        *same, other = on_the_stream(url, f"{key}:again").records
        assert [_without_position(one) for one in same] == [_without_position(one) for one in before.records]
        assert other["data"] == {"token_id": "x", "expired_at": "2026-01-01T00:00:00Z"}

    @pytest.mark.parametrize("batch_size", ["1", "2", "500"])
    def test_resuming(self, url: str, key: str, tmp_path: Path, batch_size: str) -> None:
        """When a line is not an event, those before it are published, and the message names the line to resume with."""
        path = tmp_path / "events.jsonl"
        lines = [f'{{"type": "token_expired", "token_id": "{number}"}}' for number in range(1, 5)]
        path.write_text("\n".join([*lines[:2], '{"type": "token_expired", "token": "secret"}', lines[3]]))
        words = ("publish", "--file", str(path), "--batch-size", batch_size, "--key", key)
        failed = run(*words, url=url)
        assert failed.code == 2
        assert "line 3: token_id: Field required" in failed.complaint
        assert "published: 2; go on with --from-line 3" in failed.complaint
        assert "secret" not in failed.complaint
        path.write_text("\n".join(lines))
        assert run(*words, "--from-line", "3", url=url).code == 0
        assert [record["subject"] for record in on_the_stream(url, key).records] == ["1", "2", "3", "4"]

    def test_a_line_that_is_refused_later(self, url: str, key: str, tmp_path: Path) -> None:
        """A line whose event the publisher refuses is found within its batch, and those before it are published."""
        path = tmp_path / "events.jsonl"
        late = (SOON + timedelta(days=3)).timestamp()
        lines = [
            '{"type": "token_revoked", "token_id": "1"}',
            f'{{"type":"token_revoked","token_id":"2","expires_at":{late}}}',
        ]
        path.write_text("\n".join(lines))
        failed = run("publish", "--file", str(path), "--key", key, "--retention", "1d", url=url)
        assert failed.code == 2
        assert "line 2: expires_at: expires" in failed.complaint
        assert [record["subject"] for record in on_the_stream(url, key).records] == ["1"]

    def test_long_line(self, url: str, key: str, tmp_path: Path) -> None:
        """A line that is too long for an event is refused, and counts as one line, however long."""
        path = tmp_path / "events.jsonl"
        path.write_text("x" * 3_000_000 + '\n{"type": "token_expired", "token_id": "t"}')
        words = ("publish", "--file", str(path), "--key", key)
        assert "line 1: is longer than" in run(*words, url=url).complaint
        assert run(*words, "--from-line", "2", url=url).lines == ["published=1 next_line=3"]

    def test_empty_file(self, url: str, key: str, tmp_path: Path) -> None:
        """An empty file is published: zero events."""
        path = tmp_path / "events.jsonl"
        path.touch()
        assert run("publish", "--file", str(path), "--key", key, url=url).lines == ["published=0 next_line=1"]

    def test_standard_input(self, url: str, key: str) -> None:
        """A dash stands for standard input."""
        done = run_apart(
            "publish", "--file", "-", "--key", key, url=url, given='{"type": "token_expired", "token_id": "t"}'
        )
        assert (done.code, done.lines) == (0, ["published=1 next_line=2"])

    def test_server_refuses(self, server: Server, key: str, tmp_path: Path) -> None:
        """When the server refuses a batch, the line to resume with is the first that it did not confirm."""
        server.inspector.set(key, "no stream")
        path = tmp_path / "events.jsonl"
        path.write_text('\n{"type": "token_expired", "token_id": "t"}\n')
        failed = run("publish", "--file", str(path), "--key", key, url=server.url)
        assert failed.code == 2
        assert "WRONGTYPE" in failed.complaint
        assert "published: 0; go on with --from-line 2" in failed.complaint

    @pytest.mark.parametrize(
        "line",
        [
            b"{",
            b"[]",
            b"\xff",
            b'{"type": 1}',
            b'{"type": "token_lost"}',
            b'{"type": "token_expired", "type": "x"}',
            b'{"type": "token_expired", "token_id": "t", "user_id": false}',
            b'{"specversion": "1.0"}',
            b'{"type": "token_revoked", "user_id": "u", "expires_at": "soon"}',
            b"[" * 100_000,
        ],
    )
    def test_bad_lines(self, line: bytes) -> None:
        """A line that is not an event is refused."""
        with pytest.raises(InvalidEvent):
            event_from_line(line)

    def test_values(self) -> None:
        """Durations and instants are parsed in their usual forms; other forms are refused."""
        assert duration("retention", "1.5h") == timedelta(minutes=90)
        assert instant("start", "1767225600") == datetime(2026, 1, 1, tzinfo=UTC)
        for text in ("", "1w", "-1h", "1e400d", "9" * 400):
            with pytest.raises(InvalidOption):
                duration("retention", text)
        for text in ("", "12", "1767225600000", "nan", "2026-01-01T00:00:00", "9999-12-31T23:59:60Z"):
            with pytest.raises(InvalidOption):
                instant("start", text)


def _without_position(record: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in record.items() if name != "position"}


class TestTail:
    """``jwt-events tail``."""

    @pytest.fixture
    def positions(self, url: str, key: str) -> list[str]:
        """Publish three events; return their positions."""
        published = [
            run("publish", name, *options, "--key", key, "--json", url=url)
            for name, options in [
                ("session-created", ("--session-id", "s", "--user-id", "u")),
                ("token-revoked", ("--user-id", "u", "--client-id", "c")),
                ("token-expired", ("--token-id", "t", "--session-id", "s")),
            ]
        ]
        return [done.records[0]["position"] for done in published]

    def test_filters(self, url: str, key: str, positions: list[str]) -> None:
        """Only events that pass all filters are shown."""

        def shown(*options: str) -> list[int]:
            return [positions.index(record["position"]) for record in on_the_stream(url, key, *options).records]

        assert shown() == [0, 1, 2]
        assert shown("--type", "token_revoked", "--type", "token_expired") == [1, 2]
        assert shown("--user-id", "u") == [0, 1]
        assert shown("--user-id", "u", "--session-id", "s") == [0]
        assert shown("--client-id", "c") == [1]
        assert shown("--token-id", "t") == [2]
        assert shown("--token-id", "nobody") == []
        assert shown("--count", "2") == [0, 1]

    def test_starts(self, url: str, key: str, positions: list[str]) -> None:
        """It starts with new events, after a position, or at an instant."""

        def since(start: str) -> int:
            return len(run("tail", "--start", start, "--until-current", "--key", key, url=url).lines)

        began = int(positions[0].partition("-")[0]) / 1000
        assert (since("new"), since(positions[0]), since(str(began)), since("all")) == (0, 2, 3, 3)
        assert since(datetime.fromtimestamp(began, UTC).isoformat()) == 3

    def test_plain(self, url: str, key: str, positions: list[str]) -> None:
        """An event is one line with its fields."""
        line = run("tail", "--start", "all", "--until-current", "--key", key, url=url).lines[1]
        assert " token_revoked user_id=u client_id=c source=" in line

    def test_entries_that_are_not_events(self, server: Server, key: str) -> None:
        """Entries that are not events are reported on standard error; tokens and control characters are not shown."""
        unknown = {"specversion": "1.0", "id": "1", "source": "s", "type": "jwt.x.v1", "time": SOON.isoformat()}
        unknown["data"] = {"a": COMPACT_JWT, "b": "\x1b[2J\u202e"}  # type: ignore[assignment]  # JSON
        server.inspector.xadd(key, {"event": "no event"})
        server.inspector.xadd(key, {"event": json.dumps(unknown)})
        for options in ((), ("--json",)):
            told = run("tail", "--start", "all", "--until-current", "--key", key, *options, url=server.url)
            assert "no event at " in told.errors
            assert "(a token)" in told.output
            assert COMPACT_JWT not in told.output
            assert "\x1b" not in told.output
            assert "\u202e" not in told.output

    def test_pubsub(self, server: Server, key: str) -> None:
        """On a channel it shows events that are published while it is subscribed."""
        with running("tail", "--transport", "pubsub", "--channel", key, "--count", "1", url=server.url) as tail:
            block_until(lambda: server.inspector.pubsub_numsub(key)[0][1] == 1, what="the subscription")
            words = ("publish", "token-revoked", "--token-id", "t", "--transport", "pubsub", "--channel", key)
            (receipt,) = run(*words, "--json", url=server.url).records
            assert receipt["receivers"] == 1
            assert tail.wait(scaled(10)) == 0
            assert "token_id=t" in pipe(tail.stdout).read()


class TestCheck:
    """``jwt-events check``."""

    @pytest.fixture(autouse=True)
    def _revoked(self, url: str, key: str) -> None:
        for options in (
            ("token-revoked", "--token-id", "gone"),
            ("key-rotated", "--key-id", "leaked", "--compromised"),
        ):
            assert run("publish", *options, "--key", key, url=url).code == 0

    @pytest.mark.parametrize(
        ("jti", "code", "expected"), [("good", 0, ("allow", None)), ("gone", 1, ("revoked", "token"))]
    )
    def test_claims(self, url: str, key: str, *, jti: str, code: int, expected: tuple[str, str | None]) -> None:
        """The verdict is printed with the rule that decided, and decides the exit code."""
        told = run("check", "--key", key, "--json", url=url, given=json.dumps({"jti": jti}))
        assert (told.code, told.errors) == (code, "")
        (record,) = told.records
        assert (record["verdict"], record["rule"]) == expected
        assert 0 <= record["staleness"] < scaled(5)

    @pytest.mark.parametrize("prefix", ["", "Bearer "])
    def test_token(self, url: str, key: str, prefix: str) -> None:
        """A token is decoded without verification, as a line says; it is not shown; its ``kid`` counts."""
        token = ".".join(_encoded(part) for part in ({"alg": "none", "kid": "leaked"}, {"jti": "good", "sub": "alice"}))
        told = run("check", "--key", key, url=url, given=f"{prefix}{token}.c2ln\n")
        assert told.code == 1
        assert "verdict=revoked rule=key" in told.output
        assert "not verified" in told.errors
        assert token not in told.output + told.errors
        assert "alice" not in told.output + told.errors

    def test_claim_names(self, url: str, key: str) -> None:
        """Claims are read by the names that are given, and a rule about claims is one that it names."""
        run("publish", "token-revoked", "--user-id", "u", "--except-session-id", "s", "--key", key, url=url)
        run("publish", "token-revoked", "--claims", '{"tenant": "acme"}', "--key", key, url=url)
        for claims, kind in (
            ({"uid": "u", "app": "x"}, "user"),
            ({"uid": "u", "sid": "s"}, None),
            ({"sub": "u", "jti": "t"}, None),
            ({"tenant": ["acme"]}, "claims"),
        ):
            names = "user=uid,client=app,client=azp"
            told = run("check", "--claim-names", names, "--key", key, "--json", url=url, given=json.dumps(claims))
            assert [record["rule"] for record in told.records] == [kind]

    @pytest.mark.parametrize("names", ["user", "who=uid", "user=", "user=a,user=b"])
    def test_bad_claim_names(self, url: str, names: str) -> None:
        """What is no list of roles and names is refused in one line."""
        told = run("check", "--claim-names", names, url=url, given="{}")
        assert told.code == 2
        assert "--claim-names" in told.errors or "claim_names" in told.errors

    def test_stale(self, url: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the verdict is stale, the exit code is 3."""
        monkeypatch.setattr(RevocationList, "explain", lambda *_: Explanation(Verdict.STALE, None, 7.5))
        told = run("check", "--key", key, url=url, given='{"jti": "good"}')
        assert (told.code, told.lines) == (3, ["verdict=stale staleness=7.5"])

    @pytest.mark.parametrize(
        "given", ["", "x", "{", "[]", "a.b", "a.b.c", "é.é.é", "a.b.c.d.e", "{" * 70_000, '{"jti": 1}', "{}"]
    )
    def test_bad_input(self, url: str, key: str, given: str) -> None:
        """Input that is neither claims nor a token is refused."""
        told = run("check", "--key", key, url=url, given=given)
        assert told.code == 2
        assert told.complaint

    @pytest.mark.parametrize(
        "claims", [{}, {"iss": "i", "iat": 1}, {"token": {"jti": "gone"}}, {"jti": "", "sub": None}]
    )
    def test_claims_that_name_nothing(self, url: str, key: str, claims: dict[str, Any]) -> None:
        """Claims without an identifier that no rule covers end with 2: most revocations cannot reach such a token."""
        run("publish", "token-revoked", "--token-id", "t", "--key", key, url=url)
        for given in (json.dumps(claims), ".".join([_encoded({"alg": "none"}), _encoded(claims), "c2ln"])):
            told = run("check", "--key", key, url=url, given=given)
            assert told.code == 2
            assert told.output == ""
            assert "name nothing that could be revoked" in told.errors.splitlines()[-1]

    @pytest.mark.parametrize("name", ["jti", "sub", "sid", "client_id", "azp", "kid"])
    def test_each_identifier_is_enough(self, url: str, key: str, name: str) -> None:
        """One claim that a rule can name is enough."""
        assert run("check", "--key", key, url=url, given=json.dumps({name: "x"})).code == 0

    def test_stream_without_events(self, server: Server, key: str) -> None:
        """A stream that is not there, or in which no entry is an event, is reported; an empty one is not."""
        told = run("check", "--key", f"{key}:other", url=server.url, given=CLAIMS)
        assert (told.code, told.lines[0].startswith("verdict=allow")) == (0, True)
        assert f"there is no stream '{key}:other' yet" in told.errors
        server.inspector.xadd(f"{key}:other", {"item": "book"})
        told = run("check", "--key", f"{key}:other", url=server.url, given=CLAIMS)
        assert f"no entry of the stream '{key}:other' is an event" in told.errors
        server.inspector.xtrim(f"{key}:other", 0, approximate=False)
        assert run("check", "--key", f"{key}:other", url=server.url, given=CLAIMS).errors == ""

    def test_encrypted(self) -> None:
        """An encrypted token is refused."""
        with pytest.raises(InvalidClaims, match="encrypted"):
            claims_from(b"a.b.c.d.e")


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


class TestDead:
    """``jwt-events dead``."""

    @pytest.fixture
    def letters(self, server: Server, key: str) -> list[str]:
        """Add three dead letters, one of which is not an event; return their ids."""
        assert run("publish", "token-revoked", "--token-id", "t", "--key", key, url=server.url).code == 0
        inspector: Any = server.inspector
        ((_, fields),) = inspector.xrange(key)
        inspector.delete(key)
        reason = {"error": "ValueError", "handler": "h", "attempts": 3, "consumer": "c", "position": "1-1", "time": 1}
        payloads = [fields[b"event"], fields[b"event"], b"no event"]
        return [inspector.xadd(f"{key}:dead", {"event": payload, **reason}).decode() for payload in payloads]

    def test_list(self, url: str, key: str, letters: list[str]) -> None:
        """Dead letters are listed, oldest first, up to a limit, as JSON or as columns."""
        told = run("dead", "list", "--key", key, "--json", url=url)
        assert [record["id"] for record in told.records] == letters
        assert [record["type"] for record in told.records] == ["token_revoked", "token_revoked", None]
        assert list(told.records[0]) == ["id", "buried_at", "type", "event_id", "handler", "attempts", "error"]
        told = run("dead", "list", "--key", key, "--limit", "1", url=url)
        assert f"--after {letters[0]}" in told.errors
        head, row = told.lines
        assert dict(zip(head.split("\t"), row.split("\t"), strict=True))["handler"] == "h"
        assert "no dead letters after" in run("dead", "list", "--key", key, "--after", letters[2], url=url).complaint

    def test_in_a_terminal(self, url: str, key: str, letters: list[str]) -> None:
        """An id is shown whole, however narrow the terminal, and so is a payload."""
        code, written = run_in_terminal("dead", "list", "--key", key, url=url)
        assert code == 0
        assert [letter in written for letter in letters] == [True] * 3
        _, written = run_in_terminal("dead", "show", letters[0], "--key", key, url=url)
        assert "…" not in written

    def test_show(self, url: str, key: str, letters: list[str]) -> None:
        """One is shown with its payload; for one that is not there the exit code is 1."""
        (record,) = run("dead", "show", letters[0], "--key", key, "--json", url=url).records
        assert json.loads(record["payload"])["subject"] == "t"
        names = [
            "id",
            "payload",
            "error",
            "handler",
            "attempts",
            "consumer",
            "position",
            "fields",
            "missing",
            "buried_at",
        ]
        assert list(record) == names
        assert record["buried_at"] == "1970-01-01T00:00:00.001Z"
        assert "payload\tno event" in run("dead", "show", letters[2], "--key", key, url=url).lines
        missing = run("dead", "show", "1-1", "--key", key, url=url)
        assert (missing.code, "1-1" in missing.complaint) == (1, True)

    def test_replay(self, url: str, key: str, letters: list[str]) -> None:
        """One, some or all are appended to the stream and removed; for one that is not there the exit code is 1."""
        done = run("dead", "replay", letters[0], "1-1", "--key", key, "--json", url=url)
        assert (done.code, "1-1" in done.errors) == (1, True)
        assert [record["replayed"] for record in done.records] == [letters[0]]
        done = run("dead", "replay", "--all", "--key", key, url=url)
        assert (len(done.lines), done.errors) == (2, "jwt-events: replayed: 2 of 2\n")
        assert len(on_the_stream(url, key).records) == 2
        for words in (("list",), ("replay", "--all"), ("purge", "--all", "--yes")):
            told = run("dead", *words, "--key", key, url=url)
            assert (told.code, told.complaint) == (0, "jwt-events: there are no dead letters")

    def test_purge(self, url: str, key: str, letters: list[str]) -> None:
        """One is removed, and all with --yes."""
        assert run("dead", "purge", letters[0], "--key", key, url=url).lines == [f"purged={letters[0]}"]
        assert run("dead", "purge", letters[0], "--key", key, url=url).code == 1
        done = run("dead", "purge", "--all", "--yes", "--key", key, "--json", url=url)
        assert (done.code, len(done.records), done.errors) == (0, 2, "jwt-events: purged: 2 of 2\n")
        assert run("dead", "list", "--key", key, url=url).output == ""


class TestGroups:
    """``jwt-events groups``."""

    def test_groups(self, server: Server, key: str) -> None:
        """Lag, pending events and idle consumers are shown."""
        assert run("groups", "--key", key, url=server.url).complaint.endswith("it comes with the first event")
        assert run("publish", "token-revoked", "--token-id", "t", "--key", key, url=server.url).code == 0
        assert "no group reads" in run("groups", "--key", key, url=server.url).complaint
        server.inspector.xgroup_create(key, "mailer", "0")
        server.inspector.xreadgroup("mailer", "one", {key: ">"})
        assert run("publish", "token-revoked", "--token-id", "t", "--key", key, url=server.url).code == 0
        told = run("groups", "--key", key, "--json", "--idle-after", "0", url=server.url)
        (record,) = told.records
        lag = None if server.inspector.info("server")["redis_version"].startswith("6.") else 1  # it does not count
        assert (record["name"], record["lag"], record["pending"], record["idle"]) == ("mailer", lag, 1, ["one"])
        head, row = run("groups", "--key", key, url=server.url).lines
        shown = dict(zip(head.split("\t"), row.split("\t"), strict=True))
        assert (shown["name"], shown["lag"], shown["pending"], shown["idle"]) == ("mailer", str(lag or "-"), "1", "-")
        assert told.code == 1

    def test_dead_consumer(self, server: Server, key: str) -> None:
        """The exit code is 1 if an idle consumer has pending events; neither is enough alone."""
        assert run("publish", "token-revoked", "--token-id", "t", "--key", key, url=server.url).code == 0
        inspector: Any = server.inspector
        inspector.xgroup_create(key, "mailer", "0")
        inspector.xgroup_createconsumer(key, "mailer", "idle")

        def code(*options: str) -> int:
            return run("groups", "--key", key, *options, url=server.url).code

        assert code("--idle-after", "0") == 0
        inspector.xreadgroup("mailer", "one", {key: ">"})
        assert code() == 0
        assert code("--idle-after", "0") == 1
        assert code("--idle-after", "0", "--json") == 1

    def test_wrong_type(self, server: Server, key: str) -> None:
        """A key that holds something else is one line."""
        server.inspector.set(key, "no stream")
        assert "WRONGTYPE" in run("groups", "--key", key, url=server.url).complaint
