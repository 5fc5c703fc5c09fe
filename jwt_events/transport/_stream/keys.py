"""The names of all keys of one stream. Pure.

On one server they are plain: the key of the stream, a colon and a word. In a cluster, commands reach several keys at
once only if all of these are in one slot. So there the key of a stream that has no hash tag becomes the tag of all
keys beside it, which is the slot of the stream itself: ``jwt:events`` and ``{jwt:events}:dead`` are neighbours.

Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/ "Hash tags"
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jwt_events._internal import options
from jwt_events.errors import InvalidOption
from jwt_events.transport._redis.slots import hash_tag, slot_of


class StreamKeys:
    """The names of all keys of one stream, or of what lies beside a channel.

    Args:
        stream: the key of the stream.
        in_cluster: whether the server is a cluster, or what says so: a server can turn out to be a node of one.
        ledger: the key of the ledger; ``None`` for the one beside the stream, ``False`` for none.
        dead_letter: the key of the stream of dead letters; ``None`` for the one beside the stream.

    Attributes:
        stream: the key of the stream.
        has_ledger: whether there is a ledger.

    Raises:
        InvalidOption: a name is invalid, or the same as another one; or, in a cluster, not in the slot of the stream.
    """

    def __init__(
        self,
        stream: str,
        *,
        in_cluster: bool | Callable[[], bool] = False,
        ledger: str | Literal[False] | None = None,
        dead_letter: str | None = None,
    ) -> None:
        self.stream: str = options.name("key", stream)
        self.has_ledger: bool = ledger is not False
        self._in_cluster = in_cluster if callable(in_cluster) else lambda: in_cluster
        self._is_tagged = hash_tag(stream) is not None
        self._ledger = None if ledger is None or ledger is False else options.name("ledger", ledger)
        self._dead_letter = None if dead_letter is None else options.name("dead_letter", dead_letter)
        self.check()
        names = [stream, self.ledger, self.ledger_lock, self.retention, self.dead_letter, self.fleet]
        for option, name in (("ledger", self.ledger), ("dead_letter", self.dead_letter)):
            if names.count(name) > 1:
                raise InvalidOption(option, "must differ from the key of the stream, and from all that lie beside it")

    def check(self) -> None:
        """Check that a cluster has all keys in one slot; again when a server turns out to be a node of one.

        Raises:
            InvalidOption: a name that was given is not in the slot of the stream.
        """
        if not self.in_cluster:
            return
        if not self._is_tagged and "}" in self.stream:
            problem = "has a '}' but no hash tag, so in a cluster no other key can be beside it; choose another name"
            raise InvalidOption("key", problem)
        self._check_slot("ledger", self._ledger)
        self._check_slot("dead_letter", self._dead_letter)

    @property
    def in_cluster(self) -> bool:
        """Whether the server is a cluster, as far as is known."""
        return self._in_cluster()

    @property
    def ledger(self) -> str:
        """The key of the ledger; also where there is none, the name that it would have."""
        return f"{self._beside}:ledger" if self._ledger is None else self._ledger

    @property
    def ledger_lock(self) -> str:
        """Which publisher folds now."""
        return f"{self.ledger}:lock"

    @property
    def retention(self) -> str:
        """The longest retention of the publishers."""
        return f"{self._beside}:retention"

    @property
    def dead_letter(self) -> str:
        """The stream of dead letters."""
        return f"{self._beside}:dead" if self._dead_letter is None else self._dead_letter

    @property
    def fleet(self) -> str:
        """What the instances say about themselves."""
        return f"{self._beside}:fleet"

    @property
    def plain(self) -> StreamKeys | None:
        """The names that one server gave these keys, where they are other ones: in a cluster, without a hash tag."""
        return None if self._beside == self.stream else StreamKeys(self.stream)

    @property
    def _beside(self) -> str:
        """What the names of all other keys begin with."""
        return self.stream if self._is_tagged or not self.in_cluster else f"{{{self.stream}}}"

    def __repr__(self) -> str:
        return f"<StreamKeys {self.stream!r}{' in a cluster' if self.in_cluster else ''}>"

    def lease(self, name: str) -> str:
        """Return the key of a lease, in the slot of the stream on every server.

        Raises:
            InvalidOption: it is too long.
        """
        beside = self._beside if self.in_cluster or "{" in self.stream else f"{{{self.stream}}}"
        return options.name("key", f"{beside}:{name}", maximum=2 * options.MAX_NAME_LENGTH)

    def dead_letter_marker(self, position: str | None) -> str:
        """Return the key that remembers that bytes which are not an event were kept."""
        return f"{self.dead_letter}:{position}"

    def _check_slot(self, option: str, name: str | None) -> None:
        if name is not None and (hash_tag(name) is None or slot_of(name) != slot_of(self.stream)):
            tag = hash_tag(self.stream) or self.stream
            problem = (
                f"is {name!r}, which a cluster keeps in another slot than the stream {self.stream!r}; give it the hash"
                f" tag of the stream: {{{tag}}}:{name.translate(_NO_BRACES)}"
            )
            raise InvalidOption(option, problem)


_NO_BRACES = str.maketrans("", "", "{}")
