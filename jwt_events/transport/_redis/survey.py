"""What the Sentinels of a service said, when all were asked at the same time. Pure: no I/O, no clock.

A failover needs a majority of the Sentinels that know one another, and a quorum of them that call the primary down. So
as long as a majority name an address, and fewer than a quorum speak against it, no other server was promoted. Both
numbers are those of the Sentinels, which may know more of one another than the program does.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Address = tuple[str, int]
"""Host and port."""

_DOWN = frozenset({"s_down", "o_down"})
_FAILING_OVER = frozenset({"failover_in_progress", "force_failover"})


@dataclass(frozen=True, slots=True)
class SentinelReply:
    """What one Sentinel said about a service.

    Attributes:
        address: the primary that it names; ``None`` if it did not reply, or not about this service.
        is_down: whether it calls that server down.
        is_failing_over: whether it is replacing that server.
        replaced: the server in whose place it promoted that one, while it tells the others; ``None`` for none.
        epoch: of what it knows: what has a greater one is newer.
        quorum: how many Sentinels must call a primary down before it is replaced.
        voters: how many Sentinels there are, as it knows.
        down_after: seconds without a reply after which it calls a server down.
        replicas: how many replicas it knows, also those that are down.
        problem: why there is no address.
    """

    address: Address | None = None
    is_down: bool = False
    is_failing_over: bool = False
    replaced: Address | None = None
    epoch: int = 0
    quorum: int = 1
    voters: int = 1
    down_after: float = 0.0
    replicas: int = 0
    problem: str = ""

    @classmethod
    def parse(cls, service: str, address: Any, state: Any) -> SentinelReply:
        """Parse the replies to SENTINEL GET-MASTER-ADDR-BY-NAME and SENTINEL MASTER.

        Args:
            service: the service that was asked about.
            address: the first reply: host and port, or nil.
            state: the second reply: names and values in turn.
        """
        if address is None:
            return cls(problem=f"knows no service {service!r}")
        try:
            host, port = address[0].decode(), int(address[1])
            fields = _fields(state)
            # While it replaces a server it names the new one already, and what else it says is about the old one.
            about = fields["ip"], int(fields["port"])
            flags = set(fields["flags"].split(",")) if about == (host, port) else set[str]()
            if fields.get("name") != service:
                return cls(problem=f"replied about another service than {service!r}")
            return cls(
                address=(host, port),
                is_down=not flags.isdisjoint(_DOWN),
                is_failing_over=not flags.isdisjoint(_FAILING_OVER),
                replaced=None if about == (host, port) else about,
                epoch=int(fields.get("config-epoch", 0)),
                quorum=max(1, int(fields["quorum"])),
                voters=1 + max(0, int(fields["num-other-sentinels"])),
                down_after=int(fields.get("down-after-milliseconds", 0)) / 1000,
                replicas=int(fields.get("num-slaves", 0)),
            )
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return cls(problem="sent a reply that is not that of a Sentinel")


def parse_priorities(reply: Any) -> Sequence[int]:
    """Parse the reply to SENTINEL REPLICAS: the priority of each replica; 0 for one that is never promoted.

    Raises:
        ValueError: it is not that of a Sentinel.
    """
    try:
        return [int(_fields(replica)["slave-priority"]) for replica in reply]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("no reply of a Sentinel") from error


def _fields(reply: Any) -> Mapping[str, str]:
    words = [word.decode(errors="replace") for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


@dataclass(frozen=True, slots=True)
class Survey:
    """What all Sentinels of a service said.

    Attributes:
        service: the name of the service.
        replies: by Sentinel; ``None`` for one that may still reply.
    """

    service: str
    replies: Mapping[str, SentinelReply | None]

    @property
    def _told(self) -> Sequence[SentinelReply]:
        return [reply for reply in self.replies.values() if reply is not None and reply.address is not None]

    @property
    def size(self) -> int:
        """How many Sentinels there are: those that were asked, or more, if one of them knows more."""
        return max([len(self.replies), *(reply.voters for reply in self._told)])

    @property
    def majority(self) -> int:
        """How many of them are more than half."""
        return self.size // 2 + 1

    @property
    def quorum(self) -> int:
        """How many of them must call a primary down before it is replaced; the least that one of them says."""
        return min([reply.quorum for reply in self._told], default=1)

    @property
    def primary(self) -> Address | None:
        """The address that a majority names; ``None`` if there is none."""
        named = Counter(reply.address for reply in self._told).most_common(1)
        return named[0][0] if named and named[0][1] >= self.majority else None

    @property
    def replicas(self) -> int:
        """How many replicas one of them knows, also those that are down."""
        return max([reply.replicas for reply in self._told], default=0)

    @property
    def outstanding(self) -> int:
        """How many may still reply."""
        return sum(reply is None for reply in self.replies.values())

    def supporting(self, address: Address | None) -> int:
        """How many name this address; ``None`` for the one that most of them name."""
        named = Counter(reply.address for reply in self._told)
        return max(named.values(), default=0) if address is None else named[address]

    def opposing(self, address: Address) -> int:
        """How many call this server down, or name another one, as the first do that know of a failover."""
        return sum(reply.is_down or reply.address != address for reply in self._told)

    def is_failing_over(self, address: Address) -> bool:
        """Whether a Sentinel is replacing this server, or has, and those that name it have not heard of it yet."""
        known = max([reply.epoch for reply in self._told if reply.address == address], default=0)
        return any(
            reply.is_failing_over if reply.address == address else reply.replaced == address or reply.epoch > known
            for reply in self._told
        )

    def is_conclusive(self, address: Address) -> bool:
        """Whether no reply that is outstanding can change what the others say about this address."""
        left = self.outstanding
        return not left or (self.primary == address and self.opposing(address) + left < self.quorum)

    @property
    def problems(self) -> str:
        """What is wrong with those that named no address; empty if nothing is."""
        found = [
            f"{name} {'does not reply' if reply is None else reply.problem}"
            for name, reply in self.replies.items()
            if reply is None or reply.address is None
        ]
        missing = self.size - len(self.replies)
        if missing > 0:
            found.append(f"{missing} more of them {'is' if missing == 1 else 'are'} not listed")
        return ", ".join(found)
