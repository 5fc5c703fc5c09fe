"""Guards never open: whatever is odd in claims, rules, options and requests ends in a refusal.

A naive model says when a request may be let in, and when as anonymous, without code of the library. All else must
be 400, 401, 403 or 503, and no other error. `BearerMiddleware` must decide the same.
"""

from __future__ import annotations

import base64
import functools
import json
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jwt_events import KeyRotated, MemoryTransport, RevocationList, SessionDestroyed, TokenRevoked, Unavailable
from jwt_events.asgi import BearerMiddleware
from jwt_events.guard import Guard, PositionFrom, Refused
from tests.support.strategies import json_values
from tests.support.waiting import scaled

KINDS = ("token", "user", "session", "client", "user at client", "session destroyed", "key")
NAMES = ("a", "b", "")
IDENTIFIERS = ("jti", "sub", "sid", "client_id", "azp", "kid")
CUTOFF = 1_700_000_000


@dataclass
class Trial:
    """One request, the rules in force, and how the guard is made.

    Attributes:
        header: the header of the token, as bytes; ``None`` for a token that is no JWT.
        payload: what ``decode`` returns.
        shape: the way in which ``decode`` returns it.
        rules: kind and name of what is revoked.
        is_open: whether the list can prove that it is current.
        claims_of: the name of a function in `CLAIMS_OF`.
        optional: whether the guard lets anonymous requests in.
        scopes: what the token must grant.
        place: the header that the guard reads.
        cookie: the cookie that the guard reads; ``None`` for none.
        sent: the headers of the request by name; ``T`` in them stands for the token.
        at_least: the values of the header that names a position.
    """

    header: bytes | None
    payload: Any
    shape: str
    rules: list[tuple[str, str]] = field(default_factory=list)
    is_open: bool = True
    claims_of: str = "identity"
    optional: bool = False
    scopes: tuple[str, ...] = ()
    place: str = "authorization"
    cookie: str | None = None
    sent: dict[str, list[str]] = field(default_factory=lambda: {"authorization": ["Bearer T"]})
    at_least: list[str] = field(default_factory=list)

    def values_of(self, name: str) -> list[str]:
        """Return the values of the headers that the client sends."""
        return [value.replace("T", self.token) for value in self.sent.get(name, [])]

    @property
    def token(self) -> str:
        """The token that the client sends."""
        if self.header is None:
            return "opaque"
        return base64.urlsafe_b64encode(self.header).decode().rstrip("=") + ".e30.c2ln"


async def _later(value: Any) -> Any:
    return value


def _decode(shape: str, payload: Any) -> Callable[[str], Any]:
    async def coroutine(token: str) -> Any:
        return payload

    async def nested(token: str) -> Any:
        return _later(payload)

    def fails(token: str) -> Any:
        raise {"bug": TypeError, "bad": ValueError, "away": Unavailable, "deep": RecursionError}[shape]("x")

    shapes: dict[str, Callable[[str], Any]] = {
        "plain": lambda token: payload,
        "coroutine": coroutine,
        "partial": functools.partial(coroutine),
        "lambda": lambda token: coroutine(token),  # noqa: PLW0108 - a plain function is wanted
        "nested": nested,
        "generator": lambda token: (one for one in [payload]),
        "none": lambda token: None,
        "false": lambda token: False,
    }
    return shapes.get(shape, fails)


GOOD_SHAPES = {"plain", "coroutine", "partial", "lambda"}
SHAPES = [*GOOD_SHAPES, *GOOD_SHAPES, "nested", "generator", "none", "false", "bug", "bad", "away", "deep"]

CLAIMS_OF: dict[str, Callable[[Any], Any]] = {
    "identity": lambda value: value,
    "coroutine": _later,
    "inside": lambda value: value["payload"],
    "none": lambda value: None,
    "text": lambda value: "claims",
    "nested": lambda value: _later(_later(value)),
}

_identifier = st.sampled_from(NAMES) | st.none() | st.sampled_from([7, True, ["a"], {"a": 1}, 1.5, b"a"])
_iat = st.none() | st.sampled_from(
    [CUTOFF - 1, CUTOFF, CUTOFF + 0.5, CUTOFF + 1, CUTOFF + 10, "1", True, math.nan, math.inf, -1, 10**30, [1]]
)


_scope = st.sampled_from(
    ["r", "r w", "w", "w  r", "", "R", "rw", "r,w", ["r", "w"], ["r w"], ["r", 7], 7, {"r": 1}, None]
)
_scopes = dict.fromkeys(("scope", "scp"), _scope)
_members = st.fixed_dictionaries({}, optional=dict.fromkeys(IDENTIFIERS, _identifier) | {"iat": _iat} | _scopes)
_plain = st.fixed_dictionaries(
    {"iat": st.just(CUTOFF + 10)}, optional=dict.fromkeys(IDENTIFIERS, st.sampled_from(["a", "b"])) | _scopes
)
_sent = st.just({"authorization": ["Bearer T"]}) | st.fixed_dictionaries(
    {},
    optional={
        "authorization": st.sampled_from(
            [
                ["Bearer T"],
                ["bearer  T"],
                ["Basic T"],
                ["Bearer"],
                [""],
                ["T"],
                ["Bearer T", "Bearer T"],
                ["Bearer T T"],
            ]
        ),
        "x-token": st.sampled_from([["T"], ["Bearer T"], [""], ["T", "T"], ["T,T"]]),
        "cookie": st.sampled_from(
            [["t=T"], ["a=1", "t=T"], ["t=T; t=T"], ["t=T", "t="], ["t="], ["T=T"], ["at=T"], ["t"]]
        ),
    },
)
_payloads = _plain | _members | _members.map(lambda claims: {"payload": claims}) | json_values
_headers = st.one_of(
    st.none(),
    st.sampled_from(["a", "b"]).map(lambda kid: json.dumps({"alg": "HS256", "kid": kid}).encode()),
    st.sampled_from(
        [
            b"{}",
            b'{"kid":null}',
            b'{"kid":7}',
            b'{"kid":"a","kid":"b"}',
            b'{"kid":"a","k\\u0069d":"b"}',
            b"[]",
            b'{"kid":"a","x":' + b"[" * 2000,
            '{"kid":"a"}'.encode("utf-16"),
            b'{"kid":"a","x":NaN}',
            b"",
        ]
    ),
    st.binary(max_size=20),
)
trials = st.builds(
    Trial,
    header=_headers,
    payload=_payloads,
    shape=st.sampled_from(SHAPES),
    rules=st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(["a", "b"])), max_size=3),
    is_open=st.sampled_from([True, True, True, False]),
    claims_of=st.sampled_from(["identity", "identity", *CLAIMS_OF]),
    optional=st.booleans(),
    scopes=st.sampled_from([(), (), ("r",), ("r", "w")]),
    place=st.sampled_from(["authorization", "authorization", "x-token"]),
    cookie=st.sampled_from([None, "t"]),
    sent=_sent,
    at_least=st.sampled_from([[], [], ["0-0"], [""], ["0-0, 0-0"], ["x"], ["0-0", "x"], ["0-0 0-0"], ["0"]]),
)


CUTOFF_AT = datetime.fromtimestamp(CUTOFF, UTC)
EVENTS: dict[str, Callable[[str], TokenRevoked | SessionDestroyed | KeyRotated]] = {
    "token": lambda name: TokenRevoked(token_id=name),
    "user": lambda name: TokenRevoked(user_id=name, issued_before=CUTOFF_AT),
    "session": lambda name: TokenRevoked(session_id=name, issued_before=CUTOFF_AT),
    "client": lambda name: TokenRevoked(client_id=name, issued_before=CUTOFF_AT),
    "user at client": lambda name: TokenRevoked(user_id=name, client_id=name, issued_before=CUTOFF_AT),
    "session destroyed": lambda name: SessionDestroyed(session_id=name, occurred_at=CUTOFF_AT),
    "key": lambda name: KeyRotated(key_id=name, compromised=True),
}


def outcome(trial: Trial) -> str:
    """The model: whether a request may be let in, as whom, or must be refused. If in doubt, refused."""
    in_header = trial.sent.get(trial.place, [])
    crumbs = "; ".join(trial.sent.get("cookie", [])).split("; ") if trial.cookie is not None else []
    in_cookie = [crumb for crumb in crumbs if crumb.startswith("t=")]
    if len(in_header) > 1 or len(in_cookie) > 1:
        return "refused"
    header = in_header[0].lower().split() if in_header else []
    if header and header[0] != "bearer":
        header = [] if trial.place == "authorization" else ["bearer", *header]
    tokens = [*([header[1:]] if header else []), *([["t"]] if in_cookie == ["t=T"] else [])]
    if not tokens:
        return "anonymous" if trial.optional and not trial.scopes else "refused"
    if tokens != [["t"]]:
        return "refused"
    names_positions = all(one == "0-0" for value in trial.at_least if value for one in value.split(", "))
    return "let in" if may_be_let_in(trial) and names_positions else "refused"


def may_be_let_in(trial: Trial) -> bool:
    """Whether a request with one token may be let in."""
    if not trial.is_open or trial.shape not in GOOD_SHAPES or trial.payload in (None, False):
        return False
    if trial.claims_of in ("none", "text", "nested"):
        return False
    claims = trial.payload
    if trial.claims_of == "inside":
        claims = claims.get("payload") if isinstance(claims, dict) else None
    if not isinstance(claims, dict) or not claims or not _grants(claims, trial.scopes):
        return False
    kids = _kids(trial, claims)
    return kids is not None and _is_readable(claims) and not any(_covers(rule, claims, kids) for rule in trial.rules)


def _grants(claims: Mapping[str, Any], scopes: tuple[str, ...]) -> bool:
    if not scopes:
        return True
    said = [claims[name] for name in ("scope", "scp") if claims.get(name) is not None]
    lists = [one.split() if isinstance(one, str) else one if isinstance(one, list) else [] for one in said]
    return bool(lists) and all(scope in one for one in lists for scope in scopes)


def _kids(trial: Trial, claims: Mapping[str, Any]) -> set[str] | None:
    """Return all keys that anything names; ``None`` if the header may be read in more than one way."""
    kids = [claims.get("kid")]
    if trial.header is not None:
        try:
            text = trial.header.decode()
            pairs = json.loads(text, object_pairs_hook=list)
            header = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not text.lstrip().startswith("{") or len({name for name, _ in pairs}) < len(pairs) or "NaN" in text:
            return None
        if not isinstance(header.get("kid"), str | None):
            return None
        kids.append(header.get("kid"))
    return {kid for kid in kids if isinstance(kid, str)}


def _is_readable(claims: Mapping[str, Any]) -> bool:
    iat = claims.get("iat")
    is_number = isinstance(iat, int | float) and not isinstance(iat, bool) and math.isfinite(iat) and iat < 10**11
    named = all(isinstance(claims.get(name), str | None) for name in IDENTIFIERS)
    return named and (iat is None or is_number)


def _covers(rule: tuple[str, str], claims: Mapping[str, Any], kids: set[str]) -> bool:
    kind, name = rule
    clients = {claims.get("client_id"), claims.get("azp")}
    is_named = {
        "token": claims.get("jti") == name,
        "user": claims.get("sub") == name,
        "session": claims.get("sid") == name,
        "session destroyed": claims.get("sid") == name,
        "client": name in clients,
        "user at client": claims.get("sub") == name and name in clients,
        "key": name in kids,
    }[kind]
    is_old = claims.get("iat") is None or claims["iat"] <= CUTOFF
    return is_named and (kind in ("token", "key") or is_old)


async def judge(trial: Trial, revocations: RevocationList) -> None:
    """Send the request of a trial, and compare with the model."""
    guard: Guard[Any] = Guard(
        revocations,
        _decode(trial.shape, trial.payload),
        claims_of=CLAIMS_OF[trial.claims_of],
        optional=trial.optional,
        header=trial.place,
        cookie=trial.cookie,
        at_least=PositionFrom(header="at"),
    )
    expected, found = outcome(trial), "refused"
    statuses: list[int] = []
    try:
        admission = await guard.admit(
            trial.values_of(trial.place),
            cookie=trial.values_of("cookie"),
            scopes=trial.scopes,
            at_least=trial.at_least,
        )
    except Refused as refused:
        statuses.append(refused.status)
    else:
        found = "anonymous" if admission.is_anonymous else "let in"
        assert admission.is_anonymous or bool(revocations.check(admission.claims))
        assert (admission.value is None) == admission.is_anonymous
    assert {*statuses} <= {400, 401, 403, 503}
    assert found == expected
    assert await _through_middleware(trial, guard) == expected


async def _through_middleware(trial: Trial, guard: Guard[Any]) -> str:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"]["claims"])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        assert message.get("status", 401) in (400, 401, 403, 503)

    headers = [(name.encode(), value.encode()) for name in trial.sent for value in trial.values_of(name)]
    headers += [(b"at", value.encode()) for value in trial.at_least]
    scope = {"type": "http", "method": "GET", "path": "/a/b", "headers": headers}
    await BearerMiddleware(app, guard, scopes=trial.scopes, public=["/a/b/*", "/b"])(scope, receive, send)
    if not seen:
        return "refused"
    return "anonymous" if seen == [None] else "let in"


async def run(trial: Trial, *others: Trial) -> None:
    """Make a list, open or not, and judge what guards of it do with requests under the same rules."""
    revocations = RevocationList(MemoryTransport(), max_staleness=scaled(30))
    for kind, name in trial.rules:
        revocations.apply(EVENTS[kind](name))
    async with revocations if trial.is_open else nullcontext():
        for one in (trial, *others):
            await judge(one, revocations)


@given(trials)
@settings(max_examples=300)
async def test_some(trial: Trial) -> None:
    """The guard and the model agree in some hundred cases; a million are in the stress lane."""
    await run(trial)
