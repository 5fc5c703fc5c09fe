"""Local replicas that answer whether a token is revoked."""

from jwt_events.revocation._claims import KeyedClaims as KeyedClaims
from jwt_events.revocation._claims import expiry_of as expiry_of
from jwt_events.revocation._claims import is_reachable as is_reachable
from jwt_events.revocation._entries import Folding as Folding
from jwt_events.revocation._entries import ForeignEntry as ForeignEntry
from jwt_events.revocation._entries import count_kinds as count_kinds
from jwt_events.revocation._entries import rule_of as rule_of
from jwt_events.revocation._list import RevocationList
from jwt_events.revocation._verdict import Explanation, RevocationStats, Verdict
from jwt_events.revocation._view import ViewState
from jwt_events.revocation._watch import Watch

# Names imported "as" themselves are for the guard, the publisher and the command line only.
__all__ = ["Explanation", "RevocationList", "RevocationStats", "Verdict", "ViewState", "Watch"]
