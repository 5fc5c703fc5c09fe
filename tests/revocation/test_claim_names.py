"""Claims under other names: the list, ``from_claims`` and the guards read them by the same names."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jwt_events import ClaimNames, InvalidClaims, InvalidOption, MemoryTransport, RevocationList, TokenRevoked, Verdict
from jwt_events.events import STANDARD
from jwt_events.guard._reach import missing_claims
from jwt_events.revocation._rules import Rules

OWN = ClaimNames(
    token="tid", user="user_id", session="session_id", client=("app", "azp", "cid"), issued_at="at", expires_at="until"
)
CLAIMS = {"tid": "t", "user_id": "u", "session_id": "s", "app": "c", "at": 5, "until": 4_000_000_000}


@pytest.mark.parametrize(
    "fields", [{"token_id": "t"}, {"user_id": "u"}, {"session_id": "s"}, {"client_id": "c"}], ids=str
)
async def test_the_list(fields: dict[str, Any]) -> None:
    """The list looks at these names and at no others."""
    async with RevocationList(MemoryTransport(), claim_names=OWN) as revocations:
        assert revocations.claim_names == OWN
        revocations.apply(TokenRevoked(**fields))
        assert revocations.check(CLAIMS) is Verdict.REVOKED
        assert revocations.explain(CLAIMS).verdict is Verdict.REVOKED
        async with revocations.watch(CLAIMS) as watch:
            assert watch.revoked.is_set()
        assert (
            revocations.check({"jti": "t", "sub": "u", "sid": "s", "client_id": "c", "iat": 5}) is not Verdict.REVOKED
        )
        with pytest.raises(InvalidClaims) as error:
            revocations.check({**CLAIMS, "user_id": 5})
        assert error.value.claim == "user_id"


def test_from_claims() -> None:
    """The event is the same as for claims with the standard names."""
    event = TokenRevoked.from_claims(CLAIMS, claim_names=OWN)
    assert (event.token_id, event.user_id, event.session_id, event.client_id) == ("t", "u", "s", "c")
    assert event.expires_at is not None
    others = TokenRevoked.from_claims(CLAIMS, claim_names=OWN, everywhere_else=True)
    assert (others.user_id, others.except_session_id) == ("u", "s")
    with pytest.raises(InvalidClaims) as error:
        TokenRevoked.from_claims({"user_id": "u"}, claim_names=OWN, everywhere_else=True)
    assert error.value.claim == "session_id"


@given(st.integers(0, 3), st.sampled_from(["a", "b", "long" * 200]), st.booleans())
def test_any_number_of_clients(count: int, client: str, is_plain: bool) -> None:
    """Each claim that names a client is looked at, however many there are, in tokens with odd identifiers, too."""
    names = ClaimNames(client=[f"c{number}" for number in range(count)])  # type: ignore[arg-type]  # any iterable
    rules = Rules(epoch=0.0, retention=timedelta(hours=1), claim_names=names)
    event = TokenRevoked.from_claims({"c": client}, claim_names=ClaimNames(client="c"))
    rules.apply(event, now=0.0)
    for number in range(3):
        claims: dict[str, object] = {f"c{number}": client, "sub": "u" if is_plain else "x.y.z" * 200, "iat": 5}
        assert rules.revokes(claims) is (number < count)


@pytest.mark.parametrize(
    "names", [{"user": ""}, {"session": 5}, {"client": 5}, {"client": ("a", None)}, {"token": " "}], ids=str
)
def test_refused(names: dict[str, Any]) -> None:
    """A name is text."""
    with pytest.raises(InvalidOption) as error:
        ClaimNames(**names)
    assert error.value.option == "claim_names"


def test_something_else() -> None:
    """Where claim names are expected, nothing else is accepted."""
    with pytest.raises(InvalidOption, match="ClaimNames"):
        RevocationList(MemoryTransport(), claim_names={"user": "user_id"})  # type: ignore[arg-type]  # the error
    with pytest.raises(InvalidOption, match="ClaimNames"):
        TokenRevoked.from_claims(CLAIMS, claim_names="user_id")  # type: ignore[arg-type]  # the error


def test_guards_report_what_is_missing() -> None:
    """A guard warns of what the list does not find under its names."""
    assert missing_claims({"user_id": "u", "jti": "t"}, STANDARD) == ("sub",)
    assert missing_claims({"user_id": "u", "jti": "t"}, ClaimNames(user="user_id")) == ()
    assert missing_claims({"sub": "u"}, ClaimNames(user="user_id")) == ("jti", "user_id", "sid", "client_id")
