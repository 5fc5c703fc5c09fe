"""Send events."""

from jwt_events._internal.receipt import Receipt
from jwt_events.publisher._publisher import Publisher

__all__ = ["Publisher", "Receipt"]
