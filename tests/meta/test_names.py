"""Names: what ``import jwt_events`` exports, and that one thing has one name everywhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics import MetricWrapperBase
from typer.main import get_command

import jwt_events
from jwt_events import (
    DeadLetters,
    Gap,
    Metrics,
    Publisher,
    RedisPubSub,
    RedisStream,
    RevocationList,
    TokenRevoked,
    errors,
)
from jwt_events.cli import app
from jwt_events.cli._options import DEFAULT_NAME, TransportName, duration
from jwt_events.embedded import EmbeddedServer
from jwt_events.events import EVENT_CLASSES
from jwt_events.signals import SetStream
from jwt_events.subscriber._job import Job
from tests.support.documents import DOCS, PAGES, prose

ROOT = Path(__file__).parents[2]
COMMAND_LINE, OBSERVABILITY = DOCS / "command-line.md", DOCS / "observability.md"
DOCUMENTS = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "bench").glob("*.md")),
]
SOURCE = sorted((ROOT / "jwt_events").rglob("*.py"))


def words(text: str) -> set[str]:
    """Return the words of a text."""
    return set(text.split())


# The callables whose parameters are the options of the command line.
SOURCES = (
    *(DeadLetters.list, EmbeddedServer, Publisher, RedisPubSub, RedisStream, RevocationList),
    *(SetStream, SetStream.create, SetStream.set_status, SetStream.verify, SetStream.add_subject),
)

# Options without a counterpart in the library: the output of a command, what it reads, and when it ends.
OWN = words(
    "all count events file from_line help host idle_after in_force install_completion json rate revocations seconds "
    "serve show_completion subscribers transport until_current url version wait within yes"
)

# `serve` starts on the well-known port, the embedded server on a free one.
# With a retention, `publish` is for streams without a ledger.
DIFFERENT = {(("serve",), "port"), (("publish",), "retention"), (("publish", "token-revoked"), "retention")}

LOG_CALL = r"(logger|self\._log)\.(bind|contextualize|debug|info|warning|error)|(self\.(\w+\.)*(_?notices\.|_)?)?tell"
LOG_FIELDS = words(
    "address attempt attempts callback cause claim compromised count destination detail error event_id event_type "
    "failures handler kid limit longest lost position problem reason region removed retention seconds services since "
    "size span_id staleness state trace_id transport"
)

ENVIRONMENT = {
    f"JWT_EVENTS_{name}"
    for name in words("AUTHORIZATION URL TEST_LOOP TEST_PROVIDER TEST_REPEAT TEST_TIMEOUT_FACTOR TEST_URL")
}

# Names that the documents print as code and that are not of this library.
FOREIGN = words(
    "CancelScope HttpOnly RedisCluster SameSite StaticFiles add_middleware allow_origins asgi_app cancel_scope "
    "data_base64 move_on_after"
)


def _commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, group
    for name in group.list_commands(None) if hasattr(group, "list_commands") else ():
        yield from _commands(group.get_command(None, name), *words, name)


COMMANDS = dict(_commands(get_command(app)))


class TestPackage:
    """The names of the package are imported on first use."""

    @pytest.mark.parametrize("name", jwt_events.__all__)
    def test_every_name_resolves(self, name: str) -> None:
        """Every public name resolves to the object of that name, and is listed."""
        assert getattr(jwt_events, name).__name__ == name
        assert name in dir(jwt_events)

    def test_one_list(self) -> None:
        """The names for type checkers, the lazily imported names and the public names are the same."""
        source = (ROOT / "jwt_events" / "__init__.py").read_text()
        block = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
        for_checkers = {
            alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        at_run_time = {name: f"jwt_events.{home}" for name, home in jwt_events._MODULE_OF.items()}
        assert for_checkers == at_run_time
        assert sorted(jwt_events.__all__) == sorted(at_run_time)

    def test_unknown_names(self) -> None:
        """An unknown name is an AttributeError; the modules of the public names are reachable."""
        with pytest.raises(AttributeError, match="has no attribute 'Revoker'"):
            _ = jwt_events.Revoker  # type: ignore[attr-defined]  # its absence is what is tested
        assert jwt_events.errors.Closed is jwt_events.Closed

    def test_importing_does_nothing_else(self) -> None:
        """Importing the package imports none of its dependencies but loguru, and disables the logs."""
        program = textwrap.dedent("""
            import sys

            import jwt_events
            from loguru import logger

            libraries = ("redis", "pydantic", "prometheus_client", "opentelemetry", "uuid_utils", "jiter", "msgspec")
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


class TestCommandLine:
    """An option that corresponds to a parameter or field has its name and its default."""

    def test_options(self) -> None:
        """Every option is named after a parameter or field, or is listed as one of the command line alone."""
        parameters = {name for source in SOURCES for name in signature(source).parameters} | {
            field for event in EVENT_CLASSES.values() for field in event.model_fields
        }
        unknown = {
            f"{' '.join(words)} {option}"
            for words, command in COMMANDS.items()
            for option in options(command)
            if option.replace("-", "_") not in parameters | OWN
        }
        assert unknown == set()

    @pytest.mark.parametrize(
        ("path", "source"),
        [
            (("check",), RevocationList),
            (("check",), RedisStream),
            (("doctor",), RedisStream),
            (("publish",), RedisStream),
            (("publish",), Publisher),
            (("publish", "token-revoked"), Publisher),
            (("publish", "token-revoked"), RedisStream),
            (("tail",), RedisStream),
            (("dead", "list"), DeadLetters.list),
            (("signals", "create"), SetStream),
            (("serve",), EmbeddedServer),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else value.__qualname__,
    )
    def test_defaults(self, path: tuple[str, ...], source: Callable[..., object]) -> None:
        """A default is the same on the command line and in a program."""
        given = {option.replace("-", "_"): default for option, default in options(COMMANDS[path]).items()}
        for name, parameter in signature(source).parameters.items():
            if name in given and parameter.default is not Parameter.empty and (path, name) not in DIFFERENT:
                default = duration(name, given[name]) if name == "retention" else given[name]
                if not (name == "key" and default is None):  # its help says what the default is
                    assert default == parameter.default, name

    def test_default_name(self) -> None:
        """The default stream and the default channel have the same name everywhere."""
        url = "redis://localhost"
        assert {RedisStream(url).destination, RedisPubSub(url).destination} == {DEFAULT_NAME}

    def test_transports(self) -> None:
        """A transport has the same name on the command line as in logs and metrics."""
        assert list(TransportName) == [RedisStream.name, RedisPubSub.name]

    @pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
    def test_documents(self, path: Path) -> None:
        """Every command that a document shows is there, with every option that it shows; one page shows all."""
        text = path.read_text()
        shown = [span.split() for span in re.findall(r"[`\s]jwt-events ([^`\n]*)", text) if path.suffix != ".py"]
        for words in shown:
            names = [word for word in words if re.fullmatch(r"[a-z][a-z-]+", word)]
            found = next(COMMANDS[tuple(names[:length])] for length in (2, 1, 0) if tuple(names[:length]) in COMMANDS)
            assert {word[2:] for word in words if word.startswith("--")} <= options(found).keys(), words
        if path == COMMAND_LINE:
            assert {words[0] for words in COMMANDS if words} <= {words[0] for words in shown}
            assert list(dict.fromkeys(words[0] for words in _in_table(text))) == COMMANDS[()].list_commands(None)
            everywhere = {option for command in COMMANDS.values() for option in options(command)}
            assert set(re.findall(r"`--([a-z-]+)", text)) <= everywhere


def _in_table(text: str) -> list[list[str]]:
    """Return the commands in the first column of the table."""
    return [found.split() for found in re.findall(r"^\| `jwt-events ([^`]+)`", text, re.MULTILINE)]


class TestLogs:
    """A field has one name in all log lines."""

    def test_fields(self) -> None:
        """The fields of all log lines are these."""
        assert set(_log_fields()) == LOG_FIELDS

    def test_documents(self) -> None:
        """The documents name some that exist."""
        (named,) = re.findall(r"are bound fields \(([^)]*)\)", OBSERVABILITY.read_text())
        assert set(re.findall(r"`(\w+)`", named)) <= LOG_FIELDS


class TestDocuments:
    """A name that is not spelled as in the code leads nowhere."""

    def test_metrics(self) -> None:
        """They list every metric, with its labels."""
        registry = CollectorRegistry()
        Metrics(registry)
        (table,) = re.findall(r"^\| `jwt_events_…` \|.*?\n\n", OBSERVABILITY.read_text(), re.MULTILINE | re.DOTALL)
        listed = {
            name: set(labels.split(",")) - {""}
            for name, labels in re.findall(r"[|,] `([a-z_]+)(?:\{([a-z_,]+)\})?`", table)
        }
        there = {
            f"jwt_events_{name}" + ("_total" if isinstance(instrument, Counter) else ""): set(instrument._labelnames)
            for name, instrument in ((one._name.removeprefix("jwt_events_"), one) for one in _instruments(registry))
        }
        assert {f"jwt_events_{name}": labels for name, labels in listed.items()} == there

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_words(self, page: Path) -> None:
        """Every name in the text that has two words occurs in the code, or is somebody else's."""
        known = {word for path in SOURCE for word in re.findall(r"\w+", path.read_text())} | FOREIGN | ENVIRONMENT
        known |= {f"jwt_events_{word}" for word in known}  # the names of metrics
        spans = [
            span
            for span in re.findall(r"`([^`\n]+)`", prose(page))
            if not span.startswith(("pip ", "make", "docker ", "jwt-events", "tests/", "+", "-", "."))
        ]
        assert {
            word for span in spans for word in re.findall(r"\b(?:[A-Z][a-z]+[A-Z]\w+|[a-z]+_\w+)", span)
        } - known == set()

    def test_errors(self) -> None:
        """The tree of errors that it points to is complete."""
        drawn = re.findall(r"^    [ │├└─]*([A-Z]\w+)", str(errors.__doc__), re.MULTILINE)
        there = [
            name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
        ]
        assert sorted(drawn) == sorted(there)


def test_environment() -> None:
    """Every environment variable is spelled in one way."""
    paths = [
        path for path in ROOT.rglob("*") if path.suffix in {".py", ".md", ".yml", ".yaml"} or path.name == "Makefile"
    ]
    ours = [path for path in paths if not path.relative_to(ROOT).parts[0].startswith(".")]
    named = {name for path in ours for name in re.findall(r"\bJWT_EVENTS_[A-Z_]+", path.read_text())}
    assert named == ENVIRONMENT


def options(command: Any) -> dict[str, Any]:
    """Return the options of a command without leading dashes, and their defaults."""
    found = {name: one.default for one in command.params for name in one.opts if name.startswith("--")}
    return {name.removeprefix("--"): default for name, default in found.items()} | {"help": None}


def _log_fields() -> Iterator[str]:
    """Iterate over the fields that are bound to log lines."""
    for path in SOURCE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.fullmatch(LOG_CALL, ast.unparse(node.func)):
                yield from (keyword.arg for keyword in node.keywords if keyword.arg not in (None, "once"))
    for subject in (Gap("1-1", "trimmed"), TokenRevoked(token_id="t")):
        yield from Job(subject, 1).fields


def _instruments(registry: CollectorRegistry) -> set[MetricWrapperBase]:
    return {one for one in registry._names_to_collectors.values() if isinstance(one, MetricWrapperBase)}
