"""The names of all keys of one stream. Pure.

On one server they are plain: the key of the stream, a colon and a word. In a cluster, commands reach several keys at
once only if all of these are in one slot. So there the key of a stream that has no hash tag becomes the tag of all
keys beside it, which is the slot of the stream itself: ``jwt:events`` and ``{jwt:events}:dead`` are neighbours.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ "Hash tags"
"""

from __future__ import annotations

from typing import Literal

from jwt_events._internal import options
from jwt_events.errors import InvalidOption
from jwt_events.transport._redis.slots import hash_tag, slot_of


class StreamKeys:
    """The names of all keys of one stream, or of what lies beside a channel.

    Args:
        stream: the key of the stream.
        in_cluster: whether the server is a cluster.
        ledger: the key of the ledger; ``None`` for the one beside the stream, ``False`` for none.
        dead_letter: the key of the stream of dead letters; ``None`` for the one beside the stream.

    Attributes:
        stream: the key of the stream.
        ledger: the key of the ledger; also where there is none, the name that it would have.
        has_ledger: whether there is a ledger.
        ledger_lock: which publisher folds now.
        retention: the longest retention of the publishers.
        dead_letter: the stream of dead letters.
        fleet: what the instances say about themselves.
        plain: the names that one server gave these keys, where they are other ones: in a cluster, beside a stream
            without a hash tag. ``None`` elsewhere.

    Raises:
        InvalidOption: a name is invalid, or the same as another one; or, in a cluster, not in the slot of the stream.
    """

    def __init__(
        self,
        stream: str,
        *,
        in_cluster: bool = False,
        ledger: str | Literal[False] | None = None,
        dead_letter: str | None = None,
    ) -> None:
        self.stream: str = options.name("key", stream)
        is_tagged = hash_tag(stream) is not None
        if in_cluster and not is_tagged and "}" in stream:
            problem = "has a '}' but no hash tag, so in a cluster no other key can be beside it; choose another name"
            raise InvalidOption("key", problem)
        self._in_cluster = in_cluster
        beside = stream if is_tagged or not in_cluster else f"{{{stream}}}"
        self._leases = beside if in_cluster or "{" in stream else f"{{{stream}}}"
        self.has_ledger: bool = ledger is not False
        self.ledger: str = f"{beside}:ledger"
        if ledger is not None and ledger is not False:
            self.ledger = self._given("ledger", ledger)
        self.ledger_lock: str = f"{self.ledger}:lock"
        self.retention: str = f"{beside}:retention"
        self.dead_letter: str = f"{beside}:dead" if dead_letter is None else self._given("dead_letter", dead_letter)
        self.fleet: str = f"{beside}:fleet"
        self.plain: StreamKeys | None = None if is_tagged or not in_cluster else StreamKeys(stream)
        names = [stream, self.ledger, self.ledger_lock, self.retention, self.dead_letter, self.fleet]
        for option, name in (("ledger", self.ledger), ("dead_letter", self.dead_letter)):
            if names.count(name) > 1:
                raise InvalidOption(option, "must differ from the key of the stream, and from all that lie beside it")

    def __repr__(self) -> str:
        return f"<StreamKeys {self.stream!r}{' in a cluster' if self._in_cluster else ''}>"

    def lease(self, name: str) -> str:
        """Return the key of a lease, in the slot of the stream on every server.

        Raises:
            InvalidOption: it is too long.
        """
        return options.name("key", f"{self._leases}:{name}", maximum=2 * options.MAX_NAME_LENGTH)

    def dead_letter_marker(self, position: str | None) -> str:
        """Return the key that remembers that bytes which are not an event were kept."""
        return f"{self.dead_letter}:{position}"

    def _given(self, option: str, name: str) -> str:
        """Check a name that was given by hand: the keys beside it must be in the slot of the stream, too."""
        options.name(option, name)
        if not self._in_cluster:
            return name
        if hash_tag(name) is None or slot_of(name) != slot_of(self.stream):
            tag = hash_tag(self.stream) or self.stream
            problem = (
                f"is {name!r}, which a cluster keeps in another slot than the stream {self.stream!r}; give it the hash"
                f" tag of the stream: {{{tag}}}:{name.translate(_NO_BRACES)}"
            )
            raise InvalidOption(option, problem)
        return name


_NO_BRACES = str.maketrans("", "", "{}")
