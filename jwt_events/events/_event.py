"""`Event`: what all events have in common, and what one remembers of its validation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

import uuid_utils
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from jwt_events._internal.event_type import EventType
from jwt_events.events._coverage import cutoff_problem, fingerprint
from jwt_events.events._fields import FROM_WIRE, Identifier, Instant, Metadata, is_uri_reference


def _new_id() -> str:
    return str(uuid_utils.uuid7())


def _now() -> datetime:
    return datetime.now(UTC)


def is_received(info: ValidationInfo) -> bool:
    """Return whether the event came from elsewhere, and is not constructed here."""
    return info.context is FROM_WIRE


new_instance = object.__new__
# An event is frozen, so these descriptors set its attributes directly.
set_values = BaseModel.__dict__["__dict__"].__set__
set_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_fields_set = BaseModel.__dict__["__pydantic_fields_set__"].__get__

_FIXED = frozenset({str, EventType, datetime, bool, type(None)})  # types of values that cannot be changed

_HEADER = frozenset({"id", "occurred_at", "source"})  # fields that every message gives

# Functions of the validators that `of_constructor` has made.
_of_constructor: set[object] = set()


def of_constructor(check: Callable[[Any, Any, ValidationInfo], None]) -> Callable[[Any, Any, ValidationInfo], Any]:
    """Make a validator of a field from a check that only the constructor makes: what was received passes."""

    @functools.wraps(check)
    def validate(cls: Any, value: Any, info: ValidationInfo) -> Any:
        if not is_received(info):
            check(cls, value, info)
        return value

    _of_constructor.add(validate)
    return validate


def is_of_constructor(validator: object) -> bool:
    """Return whether `of_constructor` has made a validator, so that it accepts everything that was received."""
    return getattr(validator, "__func__", validator) in _of_constructor


def first_given(names: Iterable[str], values: Mapping[str, Any]) -> str | None:
    """Return the first of these fields that says something: that is not missing, ``None`` or ``False``."""
    for name in names:
        if values.get(name):
            return name
    return None


def require_past(cutoff: datetime, info: ValidationInfo, field: str = "") -> None:
    """Raise if an event that is constructed here would revoke tokens that are not issued yet."""
    if not is_received(info) and (problem := cutoff_problem(cutoff, _now())) is not None:
        raise ValueError(field + problem)


def fixed_values(event: Event) -> dict[str, Any] | None:
    """Return the values of an event that was just decoded; ``None`` if some of them can be changed.

    There are none, either, of an event that was not decoded in the quickest way: it also knows which fields were given.
    """
    try:
        _fields_set(event)
    except AttributeError:
        values = event.__dict__
        if not values["metadata"]:
            values = values | {"metadata": None}
            return values if _FIXED.issuperset(map(type, values.values())) else None
    return None


def from_fixed_values(cls: type[Event], values: dict[str, Any]) -> Event:
    """Return an event with the values of another one, which `fixed_values` has returned."""
    event: Event = new_instance(cls)
    own = values.copy()
    own["metadata"] = {}
    set_values(event, own)
    return event


class Event(BaseModel):
    """Base class of all events. Construct one of its subclasses.

    Instants accept an aware datetime or a NumericDate (seconds since 1970, as in JWT claims); milliseconds and naive
    datetimes are rejected. Identifiers have 1 to 512 characters. A whole JWT is rejected in every field.

    Attributes:
        type: type of the event; fixed by the class.
        id: globally unique id, by default a new UUIDv7. Publishing the same object again keeps it.
        occurred_at: when the event happened, in UTC; by default now.
        source: name of the service that reports the event; ``None`` means the name of the publisher. To be published it
            must be a URI-reference (RFC 3986): a host name, a path, a URL.
        metadata: additional data of the application: JSON, nested at most 8 levels.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        allow_inf_nan=False,
        revalidate_instances="always",
    )

    # The values as the constructor left them, if they can be published and a change of them can be seen. A copy, an
    # unpickled and a decoded event do not have it.
    __slots__ = ("_validated",)

    # Of other classes, what compares as equal may have changed: 1 equals True, data stays the same object.
    _IS_COMPARABLE: ClassVar[bool] = False
    _ONE_OF: ClassVar[tuple[str, ...]] = ()  # if there are any, one of these fields must be given
    _SUBJECT: ClassVar[tuple[str, ...]] = ()  # of these fields, the first that is given is the subject
    _SHOWN_IN_REPR: ClassVar[frozenset[str]] = frozenset({"type", "id", "occurred_at"})

    type: str
    id: Identifier = Field(default_factory=_new_id)
    occurred_at: Instant = Field(default_factory=_now)
    source: Identifier | None = None
    metadata: Metadata = Field(default_factory=dict)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Let each class say so itself: one that is derived elsewhere adds what is not known here."""
        super().__pydantic_init_subclass__(**kwargs)
        cls._IS_COMPARABLE = cls.__dict__.get("_IS_COMPARABLE", False)

    @model_validator(mode="after")
    def _remember(self) -> Self:
        if not self._IS_COMPARABLE or self.metadata or not self._is_comparable():
            return self
        if self.source is None or is_uri_reference(self.source):
            _set_validated(self, {**self.__dict__, "metadata": {}})  # not the same dictionary, which can be changed
        return self

    def _is_comparable(self) -> bool:
        return True

    @property
    def subject(self) -> str | None:
        """Narrowest identifier of the token, session, user, client or key concerned: the CloudEvents ``subject``."""
        for name in self._SUBJECT:
            subject: str | None = self.__dict__.get(name)
            if subject:
                return subject
        return None

    @property
    def needed_until(self) -> datetime | None:
        """Until when a service that starts later must still receive this event; ``None`` if the event does not say."""
        return None

    if not TYPE_CHECKING:  # or every name would be an attribute

        def __getattr__(self, name: str) -> Any:
            """Return what pydantic keeps beside the values: decoders leave it out, as it is rarely asked for.

            A field of a decoded event was given if it says something: messages that say nothing are decoded otherwise.
            """
            if name == "__pydantic_fields_set__":
                fields = self.__dict__.items()
                given = {field for field, value in fields if field in _HEADER or (value and field != "type")}
                set_fields_set(self, given)
                return given
            if name in {"__pydantic_extra__", "__pydantic_private__"}:
                return None
            return super().__getattr__(name)

    def __hash__(self) -> int:
        """Hash the id: equal events have equal ids."""
        return hash(self.id)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield values that are not secret, and fingerprints of identifiers; omit text and metadata."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name in self._SHOWN_IN_REPR or isinstance(value, datetime | bool):
                yield name, str(value)
            elif name.endswith("_id") and value is not None:
                yield name, f"#{fingerprint(value)}"

    def __str__(self) -> str:
        return repr(self)


validated_values: Callable[[object], Mapping[str, Any]] = Event.__dict__["_validated"].__get__
"""Return the values that an event had when its constructor validated them; equal to those now if nothing has changed.

Raises `AttributeError` where that is not known, and `TypeError` for anything but an event.
"""

_set_validated = Event.__dict__["_validated"].__set__  # an event is frozen
