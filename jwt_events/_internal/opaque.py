"""`OpaqueStruct`: for what holds secrets, such as events and commands, and must be quick to make."""

from __future__ import annotations

from typing import Any

import msgspec


class OpaqueStruct(msgspec.Struct, eq=False):
    """A struct that equals only itself, and whose representations show no field."""

    def __repr__(self) -> str:
        return object.__repr__(self)

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show no field where rich prints it, such as in a traceback with local variables."""
        return []
