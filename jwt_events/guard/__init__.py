"""Guards: from the Authorization header of a request to verified, unrevoked claims, or to a refusal."""

from jwt_events.guard._admissions import Admission
from jwt_events.guard._admissions import Admissions as Admissions
from jwt_events.guard._admissions import T_co as T_co
from jwt_events.guard._connection import Connections as Connections
from jwt_events.guard._connection import OpenConnection as OpenConnection
from jwt_events.guard._connection import refused_by as refused_by
from jwt_events.guard._guard import Guard
from jwt_events.guard._overdue import GRACE as GRACE
from jwt_events.guard._overdue import OverdueClose as OverdueClose
from jwt_events.guard._parameters import GuardOptions as GuardOptions
from jwt_events.guard._parameters import M as M
from jwt_events.guard._parameters import ModelOptions as ModelOptions
from jwt_events.guard._parameters import OptionalGuardOptions as OptionalGuardOptions
from jwt_events.guard._parameters import OptionalModelOptions as OptionalModelOptions
from jwt_events.guard._parameters import V as V
from jwt_events.guard._paths import PublicPaths as PublicPaths
from jwt_events.guard._position import PositionFrom
from jwt_events.guard._readiness import Reporting as Reporting
from jwt_events.guard._readiness import readiness_of
from jwt_events.guard._refusal import Refused
from jwt_events.guard._refusal import is_refusal as is_refusal
from jwt_events.guard._requirement import requirement_of as requirement_of
from jwt_events.guard._resources import check_resources as check_resources
from jwt_events.guard._resources import opened as opened
from jwt_events.guard._stream import Item as Item
from jwt_events.guard._stream import all_of as all_of
from jwt_events.guard._stream import until_revoked

# Names imported "as" themselves are for the framework modules of this package only.
__all__ = ["Admission", "Guard", "PositionFrom", "Refused", "readiness_of", "until_revoked"]
