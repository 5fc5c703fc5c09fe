"""From the Authorization header to claims that are verified and live."""

from jwt_events.guard._guard import Admission, Guard, readiness_of, until_revoked
from jwt_events.guard._guard import Item as Item
from jwt_events.guard._guard import T as T
from jwt_events.guard._overdue import OverdueClose as OverdueClose
from jwt_events.guard._refusal import Refused

# What is imported "as" itself is for the packages that stand on this one.
__all__ = ["Admission", "Guard", "Refused", "readiness_of", "until_revoked"]
