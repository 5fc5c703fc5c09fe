"""Where an event is in force: instances announce themselves, and publishers wait for them or for their leases."""

from jwt_events._internal.receipt import Propagation
from jwt_events.fleet._announcement import CLOSED, Announcement, parse
from jwt_events.fleet._announcer import Announcer, Condition
from jwt_events.fleet._standing import Standing, Status, standings
from jwt_events.fleet._waits import Fleet, InForce, Lease, check_in_force

__all__ = [
    "CLOSED",
    "Announcement",
    "Announcer",
    "Condition",
    "Fleet",
    "InForce",
    "Lease",
    "Propagation",
    "Standing",
    "Status",
    "check_in_force",
    "parse",
    "standings",
]
