"""Invalid events: the error names the field and the limit, and does not repeat the value."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from jwt_events import Event, KeyRotated, SessionCreated, SessionDestroyed, TokenExpired, TokenRevoked, UnknownEvent
from tests.support.examples import COMPACT_JWT, FIELDS, all_that_is_said

_classes = pytest.mark.parametrize("cls", list(FIELDS), ids=lambda cls: cls.__name__)

_IDENTIFIERS = [
    (cls, name)
    for cls in FIELDS
    for name in cls.model_fields
    if name.endswith("_id") or name in {"id", "source", "issuer", "algorithm"}
]
_INSTANTS = [(cls, name) for cls in FIELDS for name in FIELDS[cls] if isinstance(FIELDS[cls][name], datetime)]
_identifiers = pytest.mark.parametrize(("cls", "field"), _IDENTIFIERS, ids=str)
_instants = pytest.mark.parametrize(("cls", "field"), _INSTANTS, ids=str)


def _refusal(cls: type[Event], **changes: Any) -> ValidationError:
    """Construct an event with these invalid fields, and return the error."""
    with pytest.raises(ValidationError) as caught:
        cls(**(FIELDS[cls] | changes))
    return caught.value


def _nested(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"deeper": value}
    return value


class TestIdentifiers:
    """Identifiers are 1 to 512 characters, and never a token."""

    @_identifiers
    @pytest.mark.parametrize("value", ["", " ", "\t\n", "\u2003"], ids=repr)
    def test_empty_or_blank(self, cls: type[Event], field: str, value: str) -> None:
        """An empty or blank identifier is rejected."""
        assert field in str(_refusal(cls, **{field: value}))

    @_identifiers
    def test_too_long(self, cls: type[Event], field: str) -> None:
        """512 characters are accepted, one more is not, and the error names the limit."""
        others = FIELDS[cls] | ({"token_id": None, "session_id": None} if field == "except_session_id" else {})
        assert getattr(cls(**(others | {field: "é" * 512})), field) == "é" * 512
        assert "512" in str(_refusal(cls, **{field: "é" * 513}))

    @_identifiers
    @pytest.mark.parametrize("value", [5, 1.5, True, b"bytes", ["list"], {"a": "b"}], ids=repr)
    def test_not_text(self, cls: type[Event], field: str, value: object) -> None:
        """An identifier is text; nothing is converted."""
        assert field in str(_refusal(cls, **{field: value}))

    @_identifiers
    @pytest.mark.parametrize(
        "token",
        [
            COMPACT_JWT,
            f"Bearer {COMPACT_JWT}",
            f" {COMPACT_JWT}\n",
            COMPACT_JWT.rpartition(".")[0] + ".",
            "eyJhbGciOiJSU0EifQ.a.b.c.d",
        ],
        ids=["signed", "bearer", "spaces", "unsigned", "encrypted"],
    )
    def test_whole_token(self, cls: type[Event], field: str, token: str) -> None:
        """A token in place of an identifier is rejected with advice, and not repeated."""
        error = _refusal(cls, **{field: token})
        assert "publish its jti" in str(error)
        assert "eyJ" not in all_that_is_said(error)

    @pytest.mark.parametrize("cls", [TokenRevoked, TokenExpired])
    @pytest.mark.parametrize("token", ["x.y.z", "abc.def.", " a_b.c-d.e "], ids=repr)
    def test_three_segments_as_token_id(self, cls: type[Event], token: str) -> None:
        """A token_id of the form x.y.z is rejected as a token, whatever its encoding."""
        error = _refusal(cls, token_id=token)
        assert "publish its jti" in str(error)
        assert token.strip() not in str(error).replace("(x.y.z)", "")

    @pytest.mark.parametrize("jti", ["a.b", "a.b.c.d", "urn:uuid:01961f7e", "7f/8+9==", "x y.z w.v", "..", "Bearer"])
    def test_what_only_resembles_a_token(self, jti: str) -> None:
        """An identifier with dots is not always taken for a token."""
        assert TokenRevoked(token_id=jti).token_id == jti

    @pytest.mark.parametrize("host", ["auth.eu.example", "10.0.0.1"])
    def test_three_segments_elsewhere(self, host: str) -> None:
        """Only a token_id is rejected for having two dots, because host names have dots."""
        assert TokenRevoked(user_id=host, source=host).source == host

    @_identifiers
    def test_lone_surrogate(self, cls: type[Event], field: str) -> None:
        """Text that UTF-8 cannot encode is rejected on construction, not on publishing."""
        assert field in str(_refusal(cls, **{field: "half \ud83d"}))

    def test_no_target(self) -> None:
        """A revocation without a target is rejected."""
        with pytest.raises(ValidationError, match="at least one of token_id, session_id, user_id, client_id"):
            TokenRevoked(reason="because")

    @pytest.mark.parametrize(
        ("cls", "field"),
        [
            (TokenExpired, "token_id"),
            (KeyRotated, "key_id"),
            (SessionCreated, "session_id"),
            (SessionCreated, "user_id"),
            (SessionDestroyed, "session_id"),
        ],
    )
    def test_required(self, cls: type[Event], field: str) -> None:
        """An event without a required identifier is rejected, and the error names the field."""
        fields = {name: value for name, value in FIELDS[cls].items() if name != field}
        with pytest.raises(ValidationError, match=f"(?s){field}.*required"):
            cls(**fields)


class TestTexts:
    """Reasons are short texts."""

    @pytest.mark.parametrize("cls", [TokenRevoked, SessionDestroyed])
    def test_reason(self, cls: type[Event]) -> None:
        """A reason has 1 to 1,024 characters and is not a token."""
        assert cls(**(FIELDS[cls] | {"reason": "é" * 1_024})) is not None
        assert "1024" in str(_refusal(cls, reason="é" * 1_025))
        assert "reason" in str(_refusal(cls, reason=""))
        assert "reason" in str(_refusal(cls, reason=5))
        assert "eyJ" not in all_that_is_said(_refusal(cls, reason=COMPACT_JWT))


class TestInstants:
    """Instants are aware datetimes or seconds."""

    @_instants
    def test_naive(self, cls: type[Event], field: str) -> None:
        """A datetime without a timezone is ambiguous, so it is rejected."""
        error = _refusal(cls, **{field: datetime(2026, 3, 1)})  # noqa: DTZ001 - the point of the test
        assert field in str(error)
        assert "timezone" in str(error)

    @_instants
    @pytest.mark.parametrize("value", [1_772_366_400_000, 1_772_366_400_000.0, 10**11, 10**30, 10**400], ids=repr)
    def test_milliseconds(self, cls: type[Event], field: str, value: float) -> None:
        """Numbers as large as milliseconds are rejected with a hint."""
        assert "milliseconds" in str(_refusal(cls, **{field: value}))

    @_instants
    @pytest.mark.parametrize(
        "value",
        [
            *(float("nan"), float("inf"), float("-inf"), -1, -0.5, -(10**400), True, False),
            *("2026-03-01T12:00:00Z", "1772366400", b"1772366400", [1_772_366_400]),
        ],
        ids=repr,
    )
    def test_no_instant(self, cls: type[Event], field: str, value: object) -> None:
        """Other values are rejected, even if they could be converted to an instant."""
        assert field in str(_refusal(cls, **{field: value}))

    def test_outside_the_calendar(self) -> None:
        """An instant outside the range of UTC is rejected."""
        edge = datetime.fromisoformat("0001-01-01T00:00:00+14:00")
        assert "1 to 9999" in str(_refusal(TokenRevoked, expires_at=edge))


class TestMetadata:
    """Metadata is JSON with limits."""

    @_classes
    def test_deepest(self, cls: type[Event]) -> None:
        """Eight levels are accepted, nine are not, and the error names the limit."""
        assert cls(**(FIELDS[cls] | {"metadata": _nested(8)})).metadata == _nested(8)
        assert "8 levels" in str(_refusal(cls, metadata=_nested(9)))

    def test_far_too_deep(self) -> None:
        """Depth is measured without recursion."""
        assert "8 levels" in str(_refusal(TokenRevoked, metadata=_nested(100_000)))

    @pytest.mark.parametrize("kind", ["object", "list"])
    def test_circular(self, kind: str) -> None:
        """Metadata that contains itself is rejected."""
        circle: dict[str, Any] = {}
        circle["again"] = circle if kind == "object" else [circle]
        assert "metadata" in str(_refusal(TokenRevoked, metadata=circle))

    @pytest.mark.parametrize(
        "value",
        [
            *(object(), b"bytes", (1, 2), {1, 2}, 1j, datetime.now(UTC)),
            *(float("nan"), float("inf"), 2**63, -(2**63), "half \ud83d", COMPACT_JWT),
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("place", ["top", "object", "list"])
    def test_not_json(self, value: object, place: str) -> None:
        """Values that JSON cannot express exactly are rejected in every place."""
        part: Any = {"top": value, "object": {"a": value}, "list": [1, value]}[place]
        assert "metadata" in str(_refusal(TokenRevoked, metadata={"key": part}))

    @pytest.mark.parametrize("key", [5, None, True, b"bytes", ("a",), "half \ud83d", COMPACT_JWT], ids=repr)
    def test_keys(self, key: Any) -> None:
        """Keys must be text and must not be tokens."""
        error = _refusal(TokenRevoked, metadata={key: 1})
        assert "metadata" in str(error)
        assert "eyJ" not in all_that_is_said(error)

    @pytest.mark.parametrize("value", [[], "text", 5, None, [("a", 1)]], ids=repr)
    def test_no_object(self, value: object) -> None:
        """Metadata must be an object."""
        assert "metadata" in str(_refusal(TokenRevoked, metadata=value))

    def test_largest_integers(self) -> None:
        """Integers of 64 bits are accepted."""
        limits: dict[str, Any] = {"low": -(2**63) + 1, "high": 2**63 - 1}
        assert TokenRevoked(token_id="a", metadata=limits).metadata == limits


class TestShape:
    """Events have exactly their fields."""

    @_classes
    def test_unknown_field(self, cls: type[Event]) -> None:
        """An unknown field is rejected, because it is probably misspelt."""
        assert "tokenid" in str(_refusal(cls, tokenid="a"))

    @_classes
    @pytest.mark.parametrize("value", ["nonsense", "", None, 5])
    def test_wrong_type(self, cls: type[Event], value: object) -> None:
        """The type must be that of the class."""
        assert "type" in str(_refusal(cls, type=value))

    @_classes
    def test_type_of_another_class(self, cls: type[Event]) -> None:
        """The type of another class is rejected."""
        for other in FIELDS.keys() - {cls}:
            assert "type" in str(_refusal(cls, type=other.model_fields["type"].default))

    @pytest.mark.parametrize("value", [1, 0, "true", None])
    def test_compromised(self, value: object) -> None:
        """Only True and False are accepted for compromised."""
        assert "compromised" in str(_refusal(KeyRotated, compromised=value))

    @pytest.mark.parametrize(
        "data", [5, "text", [1], {1: 2}, {"a": object()}, {"a": float("nan")}], ids=lambda data: str(data)[:9]
    )
    def test_unknown_event(self, data: Any) -> None:
        """The data of an unknown event is a JSON object."""
        with pytest.raises(ValidationError, match="data"):
            UnknownEvent(type="jwt.other.v1", data=data)


class TestSecrets:
    """No error repeats a value."""

    @_classes
    def test_no_error_shows_a_value(self, cls: type[Event]) -> None:
        """With a secret in each field in turn, in every wrong form, no error contains it."""
        secret = "-".join(["the", "secret", "itself"])
        forms = [secret * 200, [secret], {secret}, secret.encode(), object.__new__(type(secret, (), {}))]
        forms += [f"eyJ{secret}.{secret}.{secret}", f"{secret}.{secret}.{secret}\ud800", secret + "\ud800"]
        for field in cls.model_fields:
            for value in [*forms, {"key": forms[2]}] if field == "metadata" else forms:
                assert secret not in all_that_is_said(_refusal(cls, **{field: value}))

    @_classes
    def test_no_error_shows_the_other_fields(self, cls: type[Event]) -> None:
        """An error about one field does not show the values of others."""
        secret = "-".join(["the", "secret", "itself"])
        texts = {name: f"{secret}-{name}" for name, value in FIELDS[cls].items() if isinstance(value, str)}
        error = _refusal(cls, **texts, metadata={"key": secret}, nonsense=secret)
        assert "nonsense" in str(error)
        assert secret not in all_that_is_said(error)
