"""``jwt-events ledger``, at real servers."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from jwt_events import KeyRotated, RedisStream, RevocationList, SessionDestroyed, TokenRevoked, Verdict
from tests.revocation.test_ledger import Scene
from tests.support.commands import Outcome, run_apart
from tests.support.handling import publish
from tests.support.raw import call

LATER = datetime.now(UTC) + timedelta(hours=2)


@pytest.fixture
async def scene(url: str, key: str, client: Redis) -> Scene:
    """Return a stream that was folded, with some rules in its ledger."""
    scene = Scene(url, key, client)
    await scene.fold(
        TokenRevoked(token_id="t", expires_at=LATER),
        TokenRevoked(user_id="u"),
        TokenRevoked(user_id="u", client_id="c"),
        SessionDestroyed(session_id="s", expires_at=LATER),
        KeyRotated(key_id="k", compromised=True),
    )
    await client.delete(f"{scene.ledger}:lock")
    return scene


async def told(scene: Scene, url: str, *words: str) -> tuple[int, str, str]:
    """Run the command; return its code, its output and its complaint."""
    outcome = await asyncio.to_thread(run_apart, "ledger", *words, "--key", scene.key, "--url", url)
    return outcome.code, outcome.output, outcome.errors


class TestShow:
    """What there is."""

    async def test_json(self, scene: Scene, url: str) -> None:
        """Rules by kind, those without an end, and when the others end."""
        code, output, _ = await told(scene, url, "--json")
        found = json.loads(output)
        assert code == 0
        assert found["rules"] == {"key": 1, "session": 1, "token": 1, "user": 1, "user_at_client": 1}
        assert (found["entries"], found["endless"], found["keys"], found["lost"]) == (5, 2, 1, 0)
        assert found["ends"] == {"1.0 h": 0, "1.0 d": 2, "7.0 d": 2, "30.0 d": 2}

    async def test_plain(self, scene: Scene, url: str) -> None:
        """The same for people; no identifier is shown."""
        code, output, _ = await told(scene, url)
        assert code == 0
        assert "rules without an end\t2" in output

    async def test_none(self, scene: Scene, url: str) -> None:
        """Without a ledger it ends with 1."""
        await scene.client.delete(scene.ledger)
        code, output, _ = await told(scene, url)
        assert code == 1
        assert "is not there" in output


class TestFold:
    """Now."""

    async def test_fold(self, scene: Scene, url: str) -> None:
        """It folds what is older than the longest retention of the publishers."""
        await publish(scene.stream, TokenRevoked(token_id="new"))
        await scene.until_old()
        code, output, _ = await told(scene, url, "fold", "--json")
        assert (code, json.loads(output)) == (0, {"folded": 1})
        assert not await scene.client.exists(f"{scene.ledger}:lock")

    async def test_while_another_folds(self, scene: Scene, url: str) -> None:
        """It leaves it to a publisher that folds."""
        await call(scene.client, "SET", f"{scene.ledger}:lock", "another", "PX", 30_000)
        code, _, complaint = await told(scene, url, "fold")
        await scene.client.delete(f"{scene.ledger}:lock")
        assert code == 1
        assert "a publisher folds" in complaint

    async def test_a_lock_of_somebody_else(self, scene: Scene, url: str) -> None:
        """What no publisher holds does not keep it from folding, and is shown until then."""
        await call(scene.client, "SET", f"{scene.ledger}:lock", "another")
        await publish(scene.stream, TokenRevoked(token_id="new"))
        await scene.until_old()
        _, output, _ = await told(scene, url)
        assert "folds now\tno; its lock is held by no publisher" in output
        code, output, _ = await told(scene, url, "fold", "--json")
        assert (code, json.loads(output)) == (0, {"folded": 1})
        assert not await scene.client.exists(f"{scene.ledger}:lock")

    @pytest.mark.parametrize(("marker", "code"), [("inf", 0), ("1e300", 0), ("-inf", 2), ("-1", 2), ("0", 2)])
    async def test_a_retention_of_somebody_else(self, scene: Scene, url: str, marker: str, code: int) -> None:
        """What no publisher can have announced keeps all events, or counts as none; nothing is folded by it."""
        await publish(RedisStream(url, scene.key), TokenRevoked(token_id="new"))
        await scene.client.delete(f"{scene.key}:retention")
        await call(scene.client, "ZADD", f"{scene.key}:retention", marker, "longest")
        found, _, errors = await told(scene, url, "fold")
        assert found == code, errors
        assert "Traceback" not in errors
        assert await scene.client.xlen(scene.key) == 1

    async def test_unknown_retention(self, scene: Scene, url: str) -> None:
        """Without a publisher that has told its retention, nothing is trimmed."""
        await publish(scene.stream, TokenRevoked(token_id="new"))
        await call(scene.client, "ZREM", f"{scene.key}:retention", "longest")
        code, _, complaint = await told(scene, url, "fold")
        assert (code, await scene.client.xlen(scene.key)) == (2, 1)
        assert "retention" in complaint


class TestRemove:
    """Take back a mistake."""

    @pytest.mark.parametrize(
        ("words", "claims"),
        [
            (["--token-id", "t"], {"jti": "t"}),
            (["--session-id", "s"], {"sid": "s"}),
            (["--user-id", "u"], {"sub": "u"}),
        ],
        ids=str,
    )
    async def test_remove(self, scene: Scene, url: str, words: list[str], claims: dict[str, object]) -> None:
        """Lists that start afterwards do not know it, and miss nothing; lists that run keep it."""
        async with RevocationList(RedisStream(url, scene.key)) as running:
            code, output, _ = await told(scene, url, "remove", *words, "--reason", "a slip", "--json")
            assert (code, json.loads(output)) == (0, {"removed": 1, "reason": "a slip"})
            assert running.check(claims | {"iat": 1}) is Verdict.REVOKED
        async with RevocationList(RedisStream(url, scene.key)) as later:
            assert later.check(claims | {"iat": 1}) is Verdict.ALLOW
            assert later.check({"sub": "u", "azp": "c", "iat": 1}) is Verdict.REVOKED
            assert later.stats.gaps == 0

    async def test_no_such_rule(self, scene: Scene, url: str) -> None:
        """It ends with 1 if there is none."""
        code, _, complaint = await told(scene, url, "remove", "--client-id", "c", "--reason", "a slip")
        assert code == 1
        assert "no such rule" in complaint

    async def test_a_later_version(self, scene: Scene, url: str) -> None:
        """Of a ledger that this version does not understand nothing is removed, and none of it is said to be absent."""
        await call(scene.client, "ZREMRANGEBYSCORE", scene.ledger, "-inf", "-inf")
        await call(scene.client, "ZADD", scene.ledger, "-inf", b"\x002 whatever comes")
        code, _, errors = await told(scene, url, "remove", "--user-id", "u", "--reason", "a mistake")
        assert code == 2
        assert "upgrade it" in errors

    async def test_another_type(self, scene: Scene, url: str) -> None:
        """The advice names the option that chooses another ledger."""
        await scene.client.set(scene.ledger, "text")
        code, _, errors = await told(scene, url)
        assert code == 2
        assert "--ledger" in errors

    async def test_still_in_the_stream(self, scene: Scene, url: str) -> None:
        """An event in the stream would bring it back, so nothing is removed."""
        await publish(scene.stream, TokenRevoked(user_id="u"))
        code, _, complaint = await told(scene, url, "remove", "--user-id", "u", "--reason", "a slip")
        assert code == 1
        assert "in 1 event;" in complaint

    @pytest.mark.parametrize("words", [[], ["--token-id", "t", "--session-id", "s"], ["--everyone", "--token-id", "t"]])
    async def test_one_rule(self, scene: Scene, url: str, words: list[str]) -> None:
        """It has to be told which rule, exactly."""
        code, _, complaint = await told(scene, url, "remove", *words, "--reason", "a slip")
        assert code == 2
        assert "name one of" in complaint


async def test_check_with_another_name(scene: Scene, url: str) -> None:
    """``check`` reads the ledger that publishers named; the one by the usual name may be something else."""
    await call(scene.client, "RENAME", scene.ledger, f"{scene.key}:rules")
    await call(scene.client, "SET", scene.ledger, "of another program")

    def checked(*words: str) -> Outcome:
        return run_apart("check", "--key", scene.key, *words, "--url", url, given='{"jti": "t"}')

    named = await asyncio.to_thread(checked, "--ledger", f"{scene.key}:rules")
    assert (named.code, "verdict=revoked" in named.output) == (1, True)
    usual = await asyncio.to_thread(checked)
    assert (usual.code, scene.ledger in usual.complaint) == (2, True)
