"""Names: what ``import jwt_events`` offers, and that one thing has one name wherever somebody meets it."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import jwt_events

ROOT = Path(__file__).parent.parent


class TestPackage:
    """What is imported when it is asked for."""

    @pytest.mark.parametrize("name", jwt_events.__all__)
    def test_every_name_is_there(self, name: str) -> None:
        """A name leads to what bears it, and is listed."""
        assert getattr(jwt_events, name).__name__ == name
        assert name in dir(jwt_events)

    def test_one_list(self) -> None:
        """What a type checker is told, what is imported and what is public are the same."""
        source = (ROOT / "jwt_events" / "__init__.py").read_text()
        told = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
        for_checkers = {
            alias.name: node.module for node in told.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        at_run_time = {name: f"jwt_events.{home}" for name, home in jwt_events._HOMES.items()}
        assert for_checkers == at_run_time
        assert sorted(jwt_events.__all__) == sorted(at_run_time)

    def test_what_is_not_there(self) -> None:
        """A name that is not there is an AttributeError; the modules of the names that are there can be reached."""
        with pytest.raises(AttributeError, match="has no attribute 'Revoker'"):
            _ = jwt_events.Revoker  # type: ignore[attr-defined]  # that it is not there is what is tested
        assert jwt_events.errors.Closed is jwt_events.Closed

    def test_importing_does_nothing_else(self) -> None:
        """Importing the package imports none of the libraries that it builds on but loguru, and silences the logs."""
        program = textwrap.dedent("""
            import sys

            import jwt_events
            from loguru import logger

            libraries = ("redis", "pydantic", "prometheus_client", "opentelemetry", "uuid_utils", "jiter")
            print([name for name in libraries if name in sys.modules])
            print([name for name in sys.modules if name.startswith("jwt_events.")])
            logger.remove()
            logger.add(sys.stdout, format="{message}")
            exec(compile("from loguru import logger; logger.error('heard')", "x", "exec"), {"__name__": "jwt_events.x"})
            logger.enable("jwt_events")
            exec(compile("from loguru import logger; logger.error('heard')", "x", "exec"), {"__name__": "jwt_events.x"})
        """)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
        assert done.stdout.splitlines() == ["[]", "[]", "heard"]
