"""``python -m jwt_events.cli``: the same as ``jwt-events``."""

from __future__ import annotations

from jwt_events.cli import app

if __name__ == "__main__":
    app(prog_name="jwt-events")
