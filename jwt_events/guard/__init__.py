"""From the Authorization header to claims that are verified and live."""

from jwt_events.guard._guard import Admission, Guard, readiness_of, until_revoked
from jwt_events.guard._refusal import Refused

__all__ = ["Admission", "Guard", "Refused", "readiness_of", "until_revoked"]
