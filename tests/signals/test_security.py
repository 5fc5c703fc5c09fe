"""Security event tokens: what each type becomes, for each form of subject."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from jwt_events import Event, InvalidOption, SessionCreated, SessionDestroyed, TokenRevoked
from jwt_events.signals import (
    CAEP,
    DEFAULT_MAPPING,
    RISC,
    SSF,
    Effect,
    SecurityEvents,
    Signal,
    SignalRefused,
    Subject,
    SubjectId,
    Unless,
)
from jwt_events.testing import Transmitter

ISSUER, RECEIVER = "https://idp.example.com/123456789/", "https://sp.example.com/caep"
IDP = Transmitter(ISSUER, RECEIVER)
ALICE = IDP.subject("alice")
SESSION = {"format": "opaque", "id": "dMTlD|1600802906337.16|16008.16"}
REVOKED = f"{CAEP}session-revoked"


def known(subject: SubjectId) -> str | None:
    """Know the user of every address and telephone number, and take the ids of sessions as they are."""
    return subject.value if subject.role == "session" else f"user of {subject.value}"


def receiver(**options: Any) -> SecurityEvents:
    """Return a receiver of the transmitter's tokens."""
    return SecurityEvents(ISSUER, RECEIVER, IDP.keys(), **options)


async def one(kind: str, about: Any = ALICE, payload: Mapping[str, Any] | None = None, **options: Any) -> Event:
    """Return the only event that a token becomes."""
    (event,) = await receiver(**options).events(IDP.security_event(kind, about, payload))
    return event


async def nothing(kind: str, payload: Mapping[str, Any] | None = None, **options: Any) -> bool:
    """Return whether a token is accepted and becomes no event."""
    return await receiver(**options).events(IDP.security_event(kind, ALICE, payload)) == []


class TestMapping:
    """What each type does."""

    @pytest.mark.parametrize("kind", [uri for uri, entry in DEFAULT_MAPPING.items() if entry is Effect.REVOKE_USER])
    async def test_users(self, kind: str) -> None:
        """These revoke all tokens of the user that were issued up to then."""
        event = await one(kind, payload={"event_timestamp": 1615304991})
        assert isinstance(event, TokenRevoked)
        assert (event.user_id, event.token_id, event.session_id) == ("alice", None, None)
        assert event.issued_before is not None
        assert event.issued_before.timestamp() == 1615304991

    @pytest.mark.parametrize("kind", [uri for uri, entry in DEFAULT_MAPPING.items() if entry is Effect.IGNORE])
    async def test_ignored(self, kind: str) -> None:
        """These are accepted and do nothing, and nothing enables."""
        assert await nothing(kind)

    @pytest.mark.parametrize(
        ("kind", "payload", "revokes"),
        [
            ("credential-change", {"credential_type": "fido2-roaming", "change_type": "create"}, False),
            ("credential-change", {"credential_type": "fido2-roaming", "change_type": "revoke"}, True),
            ("credential-change", {"credential_type": "password", "change_type": "update"}, True),
            ("credential-change", {"credential_type": "password", "change_type": "delete"}, True),
            ("credential-change", {}, True),
            ("credential-change", {"change_type": ["create"]}, True),
            ("assurance-level-change", {"current_level": "nist-aal1", "change_direction": "decrease"}, True),
            ("assurance-level-change", {"current_level": "nist-aal2", "change_direction": "increase"}, False),
            ("device-compliance-change", {"previous_status": "compliant", "current_status": "not-compliant"}, True),
            ("device-compliance-change", {"previous_status": "not-compliant", "current_status": "compliant"}, False),
            ("risk-level-change", {"principal": "USER", "current_level": "HIGH"}, True),
            ("risk-level-change", {"principal": "USER", "current_level": "LOW"}, False),
            ("token-claims-change", {"claims": {"role": "ro-admin"}}, True),
        ],
    )
    async def test_conditions(self, kind: str, payload: dict[str, Any], revokes: bool) -> None:
        """What does not say that all is well revokes."""
        if revokes:
            event = await one(CAEP + kind, payload=payload)
            assert isinstance(event, TokenRevoked)
            assert event.user_id == "alice"
        else:
            assert await nothing(CAEP + kind, payload)

    async def test_types_that_are_not_known(self) -> None:
        """They are accepted and do nothing, also if their subject is not known."""
        token = IDP.security_event("https://new.example/type", {"format": "email", "email": "a@b.example"})
        assert await receiver().events(token) == []

    async def test_a_mapping_of_ones_own(self) -> None:
        """An entry is an effect, a condition or a function, and the other types stay as they are."""
        seen: list[Signal] = []

        async def policy(signal: Signal) -> Effect:
            seen.append(signal)
            return Effect.REVOKE if signal.payload["current_level"] != "LOW" else Effect.IGNORE

        mapping = {
            f"{CAEP}risk-level-change": policy,
            f"{RISC}account-disabled": Effect.IGNORE,
            "https://new.example/type": Unless("well", frozenset({"yes"})),
        }
        assert (await one(f"{CAEP}risk-level-change", payload={"current_level": "MEDIUM"}, mapping=mapping)).id
        assert await nothing(f"{CAEP}risk-level-change", {"current_level": "LOW"}, mapping=mapping)
        assert await nothing(f"{RISC}account-disabled", mapping=mapping)
        assert (await one("https://new.example/type", payload={"well": "no"}, mapping=mapping)).id
        assert (await one(f"{RISC}account-purged", mapping=mapping)).id
        assert [signal.type for signal in seen] == [f"{CAEP}risk-level-change"] * 2

    async def test_functions_that_return_something_else(self) -> None:
        """True is not an effect: the program is told."""
        with pytest.raises(InvalidOption, match="must return an Effect"):
            await one(REVOKED, mapping={REVOKED: lambda signal: True})

    @pytest.mark.parametrize("mapping", [{REVOKED: "revoke"}, {7: Effect.REVOKE}, [REVOKED]], ids=str)
    def test_mappings_that_cannot_work(self, mapping: Any) -> None:
        """They are refused when they are given."""
        with pytest.raises(InvalidOption, match=r"^mapping"):
            receiver(mapping=mapping)


class TestSubjects:
    """Subject identifiers of RFC 9493 §3.2 and SSF 1.0 §3."""

    @pytest.mark.parametrize(
        ("subject", "user"),
        [
            (
                {"format": "account", "uri": "acct:example.user@service.example.com"},
                "acct:example.user@service.example.com",
            ),
            ({"format": "email", "email": "user@example.com"}, "user@example.com"),
            ({"format": "iss_sub", "iss": "https://issuer.example.com/", "sub": "145234573"}, "145234573"),
            ({"format": "opaque", "id": "11112222333344445555"}, "11112222333344445555"),
            ({"format": "phone_number", "phone_number": "+12065550100"}, "+12065550100"),
            ({"format": "did", "url": "did:example:123456"}, "did:example:123456"),
            ({"format": "uri", "uri": "https://user.example.com/"}, "https://user.example.com/"),
            ({"format": "aliases", "identifiers": [{"format": "email", "email": "a@b.example"}]}, "a@b.example"),
        ],
        ids=lambda value: value["format"] if isinstance(value, dict) else "",
    )
    async def test_resolved(self, subject: dict[str, Any], user: str) -> None:
        """Each goes to the resolver; without one, or if it does not know the subject, the token is refused."""
        event = await one(REVOKED, subject, subject=known)
        assert isinstance(event, TokenRevoked)
        assert event.user_id == f"user of {user}"
        for resolver in (None, lambda subject: None):
            with pytest.raises(SignalRefused, match=r"^invalid_request: the subject is unknown"):
                await one(REVOKED, subject, subject=resolver)

    async def test_a_coroutine_function(self) -> None:
        """The resolver may be async, and may return a subject in full."""

        async def resolve(subject: SubjectId) -> Subject:
            return Subject(user_id="alice", session_id=subject.value)

        event = await one(REVOKED, SESSION, subject=resolve)
        assert isinstance(event, SessionDestroyed)
        assert (event.user_id, event.session_id) == ("alice", SESSION["id"])

    async def test_other_ids(self) -> None:
        """Where the tokens have ids of their own, the transmitter's users and tokens are asked of the resolver too."""
        event = await one(REVOKED, subject=lambda found: {"alice": "user-7"}.get(found.value), same_ids=False)
        assert isinstance(event, TokenRevoked)
        assert event.user_id == "user-7"
        for resolver in (None, lambda subject: None):
            with pytest.raises(SignalRefused, match="the subject is unknown"):
                await one(REVOKED, subject=resolver, same_ids=False)

    async def test_a_session_of_a_user(self) -> None:
        """The narrowest counts, unless the type is about the user."""
        subject = {"format": "complex", "user": ALICE, "session": SESSION}
        event = await one(REVOKED, subject, subject=known)
        assert isinstance(event, SessionDestroyed)
        assert (event.session_id, event.user_id) == (SESSION["id"], "alice")
        event = await one(f"{RISC}account-disabled", subject, subject=known)
        assert isinstance(event, TokenRevoked)
        assert (event.session_id, event.user_id) == (None, "alice")

    async def test_a_session_that_is_not_known(self) -> None:
        """A session in a form that tokens do not carry is refused without a resolver, not guessed."""
        with pytest.raises(SignalRefused, match="a part of the subject is unknown"):
            await one(REVOKED, {"format": "complex", "user": ALICE, "session": SESSION})

    async def test_other_parts(self) -> None:
        """A device narrows the subject: without it more is revoked; a critical one must be resolved."""
        device = {"format": "iss_sub", "iss": "https://mdm.example", "sub": "d"}
        subject = {"format": "complex", "user": ALICE, "device": device}
        event = await one(f"{CAEP}device-compliance-change", subject, {"current_status": "not-compliant"})
        assert isinstance(event, TokenRevoked)
        assert event.user_id == "alice"
        with pytest.raises(SignalRefused, match="a part of the subject is unknown"):
            await one(REVOKED, subject, critical=["device"])
        with pytest.raises(SignalRefused, match="neither a user nor a session"):
            await one(REVOKED, {"format": "complex", "device": device})

    async def test_a_token(self) -> None:
        """The jti of a token of the same issuer revokes this token."""
        event = await one(REVOKED, {"format": "jwt_id", "iss": ISSUER, "jti": "B70BA622-9515-4353"})
        assert isinstance(event, TokenRevoked)
        assert event.token_id == "B70BA622-9515-4353"

    async def test_a_new_session(self) -> None:
        """A session that was established is announced if the subject names it and its user."""
        subject = {"format": "complex", "user": ALICE, "session": SESSION}
        event = await one(f"{CAEP}session-established", subject, subject=known)
        assert isinstance(event, SessionCreated)
        assert await nothing(f"{CAEP}session-established")

    @pytest.mark.parametrize(
        "subject",
        [
            "alice",
            {},
            {"format": "email"},
            {"format": "iss_sub", "iss": ISSUER},
            {"format": "iss_sub", "iss": ISSUER, "sub": 7},
            {"format": "aliases", "identifiers": []},
            {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [ALICE]}]},
            {"format": "complex"},
            {"format": "complex", "user": {"format": "complex", "user": ALICE}},
            {"format": "complex", "user": "alice"},
        ],
        ids=str,
    )
    async def test_malformed(self, subject: Any) -> None:
        """What is no subject identifier is refused, whatever the resolver would say."""
        with pytest.raises(SignalRefused, match=r"^invalid_request"):
            await receiver(subject=known).events(IDP.security_event(REVOKED, None, sub_id=subject))

    async def test_the_resolver_returns_something_else(self) -> None:
        """A resolver that returns neither text nor a subject is an error of the program; an empty one knows nothing."""
        with pytest.raises(InvalidOption, match=r"^subject"):
            await one(REVOKED, SESSION, subject=lambda subject: 7)
        with pytest.raises(SignalRefused, match="unknown"):
            await one(REVOKED, SESSION, subject=lambda subject: Subject())
        with pytest.raises(SignalRefused):
            await one(REVOKED, SESSION, subject=lambda subject: "")


class TestContent:
    """What an event carries."""

    async def test_metadata(self) -> None:
        """Issuer, type, txn and reason, cut to a bounded length."""
        payload = {
            "reason_admin": {
                "de": "Landspeed-Richtlinienverstoß: C076E82F",
                "en": "Landspeed Policy Violation: C076E82F" + "!" * 600,
            }
        }
        (event,) = await receiver().events(IDP.security_event(REVOKED, ALICE, payload, txn="8675309"))
        assert event.metadata["issuer"] == ISSUER
        assert event.metadata["signal"] == REVOKED
        assert event.metadata["txn"] == "8675309"
        assert str(event.metadata["reason"]).startswith("Landspeed Policy Violation")
        assert len(str(event.metadata["reason"])) <= 256

    @pytest.mark.parametrize(
        ("payload", "claims", "expected"),
        [
            ({"event_timestamp": 1615304991}, {"toe": 1615305159, "iat": 1615305160}, 1615304991),
            ({"event_timestamp": 1615304991643}, {"iat": 1615305160}, 1615304991.643),  # drafts of CAEP
            ({}, {"toe": 1615305159, "iat": 1615305160}, 1615305159),
            ({}, {"iat": 1615305160}, 1615305160),
        ],
    )
    async def test_when(self, payload: dict[str, Any], claims: dict[str, Any], expected: float) -> None:
        """The time of the event, else that of the token."""
        (event,) = await receiver().events(IDP.security_event(REVOKED, ALICE, payload, **claims))
        assert event.occurred_at.timestamp() == expected

    async def test_ids(self) -> None:
        """A redelivery is equal, and several events of one token have different ids."""
        events: dict[str, Any] = {REVOKED: {}, f"{RISC}account-disabled": {}}
        token = IDP.security_event(REVOKED, ALICE, events=events)
        first, again = await receiver().events(token), await receiver().events(token)
        assert first == again
        assert len({event.id for event in first}) == 2


class TestStream:
    """Events about the stream itself."""

    async def test_verification(self) -> None:
        """It makes no event, and its state is there."""
        received = await receiver().receive(IDP.verification("VGhpcyBpcyBhbiBleGFtcGxlIHN0YXRlIHZhbHVlLgo="))
        assert (received.events, received.verification, received.kind) == ((), True, "verification")
        assert received.state == "VGhpcyBpcyBhbiBleGFtcGxlIHN0YXRlIHZhbHVlLgo="

    async def test_updated(self) -> None:
        """It makes no event, and the status is there."""
        received = await receiver().receive(IDP.stream_updated("paused"))
        assert (received.events, received.status) == ((), "paused")

    async def test_beside_others(self) -> None:
        """An event about the stream stands alone."""
        token = IDP.security_event(REVOKED, ALICE, events={REVOKED: {}, f"{SSF}verification": {}})
        with pytest.raises(SignalRefused, match="alone"):
            await receiver().events(token)


class TestOlderForms:
    """What Google and Apple send."""

    GOOGLE = Transmitter("https://accounts.google.com/", "123456789-abcedfgh.apps.googleusercontent.com")
    APPLE = Transmitter("https://appleid.apple.com", "com.mytest.app")

    async def test_google(self) -> None:
        """The subject is in the event, in a form with hyphens."""
        subject = {"subject_type": "iss-sub", "iss": self.GOOGLE.issuer, "sub": "7375626A656374"}
        token = self.GOOGLE.sign(
            {
                "iss": self.GOOGLE.issuer,
                "aud": self.GOOGLE.audience,
                "iat": 1508184845,
                "jti": "756E69717565206964656E746966696572",
                "events": {f"{RISC}account-disabled": {"subject": subject, "reason": "hijacking"}},
            },
            typ="JWT",
        )
        (event,) = await SecurityEvents(self.GOOGLE.issuer, self.GOOGLE.audience, self.GOOGLE.keys()).events(token)
        assert isinstance(event, TokenRevoked)
        assert event.user_id == "7375626A656374"
        assert event.metadata["reason"] == "hijacking"

    async def test_verification_of_google(self) -> None:
        """It has a type of its own, and no subject."""
        claims = {"iss": self.GOOGLE.issuer, "aud": self.GOOGLE.audience, "iat": 1508184845, "jti": "j"}
        token = self.GOOGLE.sign(claims | {"events": {f"{RISC}verification": {"state": "s1"}}}, typ="JWT")
        google = SecurityEvents(self.GOOGLE.issuer, self.GOOGLE.audience, self.GOOGLE.keys())
        received = await google.receive(token)
        assert (received.events, received.state, received.kind) == ((), "s1", "verification")

    async def test_a_refresh_token_of_google(self) -> None:
        """It is in a form of its own, is nothing that a service sees, and is accepted."""
        claims = {"iss": self.GOOGLE.issuer, "aud": self.GOOGLE.audience, "iat": 1508184845, "jti": "j"}
        subject = {"subject_type": "oauth_token", "token_type": "refresh_token", "token": "0a1b2c"}
        kind = "https://schemas.openid.net/secevent/oauth/event-type/token-revoked"
        google = SecurityEvents(self.GOOGLE.issuer, self.GOOGLE.audience, self.GOOGLE.keys())
        assert await google.events(self.GOOGLE.sign(claims | {"events": {kind: {"subject": subject}}}, typ="JWT")) == []

    @pytest.mark.parametrize("kind", ["consent-revoked", "account-delete", "email-disabled"])
    async def test_apple(self, kind: str) -> None:
        """The events are JSON in a text."""
        inside = {"type": kind, "sub": "820417.faa325acbc78e1be1668ba852d492d8a.0219", "event_time": 1508184845}
        claims = {"iss": self.APPLE.issuer, "aud": self.APPLE.audience, "iat": 1508184845, "jti": "abede...67890"}
        token = self.APPLE.sign(claims | {"events": json.dumps(inside)}, typ=None)
        made = await SecurityEvents(self.APPLE.issuer, self.APPLE.audience, self.APPLE.keys()).events(token)
        if kind == "email-disabled":
            assert made == []
        else:
            assert isinstance(made[0], TokenRevoked)
            assert made[0].user_id == inside["sub"]

    async def test_only_theirs(self) -> None:
        """Events in a text are refused from every other issuer."""
        claims = {"iss": ISSUER, "aud": RECEIVER, "iat": int(time.time()), "jti": "j", "events": '{"type": "x"}'}
        with pytest.raises(SignalRefused, match="events must be an object"):
            await receiver().events(IDP.sign(claims, typ="secevent+jwt"))


@pytest.mark.parametrize("name", IDP.bad_security_events())
async def test_bad_tokens(name: str) -> None:
    """Each of the transmitter's bad tokens is refused with its code, in words that quote nothing."""
    token, err = IDP.bad_security_events()[name]
    with pytest.raises(SignalRefused) as caught:
        await receiver().events(token)
    assert caught.value.err == err
    assert "evil" not in str(caught.value)
