"""Send events."""

from jwt_events.publisher._call import Receipt
from jwt_events.publisher._publisher import Publisher

__all__ = ["Publisher", "Receipt"]
