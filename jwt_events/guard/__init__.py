"""Guards: from the Authorization header of a request to verified, unrevoked claims, or to a refusal."""

from jwt_events.guard._admissions import Admission
from jwt_events.guard._admissions import Admissions as Admissions
from jwt_events.guard._admissions import T as T
from jwt_events.guard._guard import Guard, until_revoked
from jwt_events.guard._guard import Item as Item
from jwt_events.guard._overdue import OverdueClose as OverdueClose
from jwt_events.guard._readiness import readiness_of
from jwt_events.guard._readiness import report_end as report_end
from jwt_events.guard._refusal import Refused

# Names imported "as" themselves are for the framework modules of this package only.
__all__ = ["Admission", "Guard", "Refused", "readiness_of", "until_revoked"]
