"""Words: the library, the benchmarks and the examples call things by the terms of the field.

The tables map each word that is not used to the one that is. A failure shows the place, the word and its replacement.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for tree in ("jwt_events", "bench", "examples") for path in (ROOT / tree).rglob("*.py"))

Table = Mapping[str, Mapping[str, str]]
"""Replacements by word, by the prefix of the paths in which the word is not used. An empty prefix means everywhere."""

# Names of classes, without leading underscores. Also what a docstring refers to in backticks.
CLASSES: Table = {
    "": {
        "AbsentKids": "NegativeCache",
        "Audience": "fields of Subscriber",
        "Calendar": "SteadyClock",
        "Calm": "_QuietExporter",
        "Departure": "FetchRequest",
        "Dock": "part of Publisher",
        "Filed": "PackedRule",
        "Flight": "Fetch",
        "Handout": "Job",
        "Intake": "Reader",
        "Interpreter": "ReplyDecoder",
        "Interruption": "HostCancellation",
        "Lanes": "OrderingQueues",
        "Life": "Subscription",
        "Maker": "_InstrumentFactory",
        "Meters": "MessagingMetrics",
        "Page": "Batch",
        "Patience": "Deadlines",
        "Question": "Request",
        "Shelf": "RuleSet",
        "Shipment": "PublishCall",
        "Tally": "Counters",
        "Upkeep": "Maintenance",
        "View": "RevocationView or ViewObserver",
        "Wire": "RespProtocol",
    },
    "jwt_events/keys": {"Moment": "Now"},
    "jwt_events/subscriber": {"Call": "HandlerCall", "Caller": "HandlerInvoker", "Work": "Job"},
    "jwt_events/transport": {
        "Group": "ConsumerGroup",
        "History": "StreamInfo",
        "Link": "ReconnectingConnection",
        "Pipeline": "Multiplexer",
        "Place": "StreamCursor",
        "Refusal": "ErrorReply",
    },
}

# Names of functions and methods, without leading underscores.
FUNCTIONS: Table = {
    "": {
        "call_off": "disarm",
        "counting": "the class MessagingMetrics",
        "distrust": "mark_out_of_sync",
        "forsake_if_unwanted": "abort_if_abandoned",
        "have_room": "has_room",
        "instruments_of": "instruments_for",
        "is_taken": "is_busy",
        "line_up": "enqueue",
        "may_ask": "can_send",
        "meters": "the class MessagingMetrics",
        "plain_reader": "fast_builder",
        "take_back": "absorb",
    },
    "bench": {
        "alone": "micro",
        "contend": "worker",
        "contenders": "competitors",
        "crowd": "subscribers",
        "race": "run_round",
        "stages": "layers",
    },
    "jwt_events/_internal/cancellation": {"send": "cancel"},
    "jwt_events/keys": {"opening": "next_allowed"},
    "jwt_events/revocation": {"tick": "expiry_tick"},
    "jwt_events/subscriber": {"leave": "release", "take": "acquire"},
    "jwt_events/transport": {
        "answers": "replies",
        "anything": "unchanged",
        "before": "previous",
        "distinct": "reserve_consumer_name",
        "frames": "pushed",
        "greet": "on_connect",
        "lose": "drop",
        "news": "wait_for_data",
        "order": "sort_key",
        "pipeline": "execute_many",
        "translate": "map_error",
    },
    "jwt_events/transport/_redis": {"ask": "send"},
}

# Names of modules, without leading underscores.
MODULES: Table = {
    "": {
        "burial": "dead_letter",
        "counting": "_fast",
        "dock": "_publisher",
        "fetchplan": "_schedule",
        "intake": "_reader",
        "interpreter": "replies",
        "interruption": "cancellation",
        "lanes": "_ordering",
        "meters": "_otel_metrics",
        "patience": "deadlines",
        "shelf": "_packed",
        "shipment": "_call",
        "submission": "_validation",
        "upkeep": "multiplexer",
    },
    "bench": {
        "alone": "micro",
        "contend": "worker",
        "contenders": "competitors",
        "crowd": "subscribers",
        "race": "run_round",
        "stages": "layers",
    },
    "jwt_events/events": {"plain": "_fast_path"},
    "jwt_events/subscriber": {"calls": "_invoker", "life": "_subscription", "work": "_job"},
    "jwt_events/transport": {
        "failures": "replies",
        "history": "cursor",
        "letters": "dead_letter",
        "link": "reconnecting",
        "wire": "protocol",
    },
}

# Names of constants, without leading underscores. An asterisk stands for the rest of the name.
CONSTANTS: Table = {
    "": {"LEAST_*": "MIN_*", "LONGEST_*": "MAX_*", "MOST_*": "MAX_*"},
    "jwt_events/keys": {"AGED": "REFRESH", "AWAITED": "REQUESTED"},
}

# Names of parameters, attributes and variables.
VARIABLES: Table = {
    "": {"buried_at": "dead_lettered_at", "most": "maximum", "pulse": "poll_timeout"},
    "jwt_events/transport": {"link": "connection", "wire": "protocol"},
}

# Words that are not part of any name. The exception is `in_flight`, which is the field's word.
PARTS: Table = {
    "": {
        "burial": "dead_letter",
        "buried": "dead_lettered",
        "bury": "dead_letter",
        "calendar": "clock",
        "contend": "compete",
        "contender": "competitor",
        "contenders": "competitors",
        "crowd": "subscribers",
        "departure": "request",
        "dock": "publisher",
        "flight": "fetch",
        "forsake": "abort",
        "handout": "pulled",
        "intake": "reader",
        "interpreter": "decoder",
        "interruption": "cancellation",
        "lanes": "ordering_queues",
        "patience": "deadline, or timeout",
        "rigour": "an explicit tie-break",
        "shelf": "rules",
        "shipment": "call",
        "tally": "counters",
        "upkeep": "maintenance",
    },
    "jwt_events/revocation": {"filed": "packed", "page": "batch", "pages": "batches"},
    # elsewhere it is the claim of a JWT
    "jwt_events/subscriber": {"audience": "subscriber", "life": "subscription", "page": "batch", "pages": "batches"},
    "jwt_events/testing": {"page": "batch", "pages": "batches"},
    "jwt_events/transport": {
        "answer": "reply",
        "answers": "replies",
        "page": "batch",
        "pages": "batches",
        "question": "request",
        "questions": "requests",
    },
}

# The beginnings of sentences, in docstrings, comments and texts.
SENTENCES = {
    "Ask it: is this token still good": "`RevocationList`: a local replica that answers whether a token is revoked.",
    "Cancels the task that is inside a block when what the block": (
        "Cancels the task inside an `async with` block when its background work ends (as `asyncio.timeout` does)."
    ),
    "Delivery skipped, it is no event": "Delivery skipped: not an event",
    "Know it: the rules that are in force": (
        "State of a revocation replica: rules in force, freshness, and listeners."
    ),
    "Return what the answers say": "Decode all replies; an error takes the place of each command that failed.",
    "Take an answer as it is": "Return the reply unchanged; raise if it is an error reply.",
    "What is no JWT has none": "a token that is not a JWT has no `kid`, and the claims are returned unchanged.",
    "What may be published. Pure": "Validation of events before they are published. Pure: …",
    "Whether anybody reads the lines": "Cheap check: would a DEBUG line from this module be emitted?",
    "Whether to ask so many things more": (
        "Whether `count` more commands may be sent, given the limit on outstanding replies."
    ),
    "Who may not run beside whom": "Serialises handlers whose events share an ordering key.",
    "Whoever asks now says how the answer is read": "Each request names the parser of its reply.",
}

# The beginnings of docstrings.
OPENINGS = {
    "Ask it:": "the name of the thing, and what it does",
    "Nobody": "the rule: what must not happen, or what does not",
    "What is no": "what the thing is, or what is rejected",
    "Who may": "what is allowed, or what is serialised",
    "Whoever": "the caller, the peer, the task",
}


class Definition(NamedTuple):
    """Name that a module defines.

    Attributes:
        kind: the table that it is looked up in: ``CLASSES``, ``FUNCTIONS``, ``CONSTANTS`` or ``VARIABLES``.
        name: the name.
        line: the line of its definition.
    """

    kind: str
    name: str
    line: int


def definitions(tree: ast.Module) -> Iterator[Definition]:
    """Find the names that a module defines, and those of the keyword arguments that it passes."""
    constants = {id(name) for scope in ast.walk(tree) for name in _constants(scope)}
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name):
                yield Definition("CLASSES", name, node.lineno)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield Definition("FUNCTIONS", name, node.lineno)
            case ast.arg(arg=name) | ast.keyword(arg=str(name)) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield Definition("VARIABLES", name, node.lineno)
            case ast.Name(id=name, ctx=ast.Store()):
                yield Definition("CONSTANTS" if id(node) in constants else "VARIABLES", name, node.lineno)


def _constants(scope: ast.AST) -> Iterator[ast.Name]:
    """Find the names that a module or a class assigns, as these are constants or fields."""
    if isinstance(scope, ast.Module | ast.ClassDef):
        for statement in scope.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            yield from (target for target in targets if isinstance(target, ast.Name))


def replacement(table: Table, name: str, where: str) -> str | None:
    """Return the replacement of a name at a path; ``None`` if the name may be used."""
    bare = name.lstrip("_")
    for prefix, words in table.items():
        if where.startswith(prefix):
            for old, new in words.items():
                if old == bare or (old.endswith("*") and bare.startswith(old[:-1])):
                    return new.replace("*", bare.removeprefix(old[:-1]))
    return None


def parts(name: str) -> list[str]:
    """Return the words of a name, in lower case."""
    plain = re.sub(r"(?i)in_?flight", "", name)
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", plain)]


def wrong_names(where: str, source: str) -> Iterator[str]:
    """Describe each name of a module that the tables replace.

    Args:
        where: the path of the module, from the root of the project.
        source: its text.
    """
    tables = {"CLASSES": CLASSES, "FUNCTIONS": FUNCTIONS, "VARIABLES": VARIABLES}
    stem = Path(where).stem
    if new := replacement(MODULES, stem, where):
        yield f"{where}: the module {stem} is called {new}"
    for kind, name, line in definitions(ast.parse(source)):
        looked_up = (CONSTANTS, VARIABLES) if kind == "CONSTANTS" else (tables[kind],)
        found = [new for table in looked_up if (new := replacement(table, name, where))]
        if found:
            yield f"{where}:{line}: in place of {name}, write {found[0]}"
        else:
            for part in parts(name):
                if new := replacement(PARTS, part, where):
                    yield f"{where}:{line}: in place of {part} in {name}, write {new}"
    for line, text in enumerate(source.splitlines(), start=1):
        for name in re.findall(r"(?<!`)`(\w+)`(?!`)", text):
            if new := replacement(CLASSES, name, where):
                yield f"{where}:{line}: in place of `{name}`, write {new}"


def wrong_sentences(where: str, source: str) -> Iterator[str]:
    """Describe each sentence of a module that has a better form."""
    text = re.sub(r"\s*\n[\s#]*", " ", source).casefold()
    for old, new in SENTENCES.items():
        if old.casefold() in text:
            yield f"{where}: in place of “{old} …”, write “{new}”"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node) or ""
            for old, new in OPENINGS.items():
                if docstring.startswith(old):
                    first = docstring.splitlines()[0]
                    yield f"{where}:{getattr(node, 'lineno', 1)}: begin “{first}” with {new}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
class TestSources:
    """The modules of the library, the benchmarks and the examples."""

    def test_names(self, path: Path) -> None:
        """No module, class, function, constant, parameter, attribute or variable has a word of the tables."""
        assert list(wrong_names(str(path.relative_to(ROOT)), path.read_text())) == []

    def test_sentences(self, path: Path) -> None:
        """No text has a sentence of the table, and no docstring one of the openings."""
        assert list(wrong_sentences(str(path.relative_to(ROOT)), path.read_text())) == []


class TestRules:
    """The rules find the words of the tables, and leave other meanings alone."""

    @pytest.mark.parametrize(
        ("where", "source", "found"),
        [
            ("jwt_events/a.py", "class _Tally: pass", "in place of _Tally, write Counters"),
            ("jwt_events/transport/a.py", "class Link: pass", "in place of Link, write ReconnectingConnection"),
            ("jwt_events/transport/a.py", "async def _greet(): pass", "in place of _greet, write on_connect"),
            ("jwt_events/a.py", "_MOST_BYTES = 1", "in place of _MOST_BYTES, write MAX_BYTES"),
            ("jwt_events/keys/a.py", "class Reason:\n    AGED = 1", "in place of AGED, write REFRESH"),
            ("bench/a.py", "def read(*, most): pass", "in place of most, write maximum"),
            ("bench/a.py", "read(pulse=1)", "in place of pulse, write poll_timeout"),
            ("jwt_events/a.py", "class A:\n    buried_at: int", "in place of buried_at, write dead_lettered_at"),
            ("jwt_events/a.py", "self._dock = 1", "in place of dock in _dock, write publisher"),
            ("jwt_events/a.py", "for flight in flights: pass", "in place of flight in flight, write fetch"),
            ("jwt_events/a.py", '"""See `Shelf`."""', "in place of `Shelf`, write RuleSet"),
            ("jwt_events/a/_dock.py", "", "the module _dock is called _publisher"),
            ("bench/crowd.py", "", "the module crowd is called subscribers"),
        ],
        ids=lambda value: value.replace("\n", " ")[:40],
    )
    def test_names(self, where: str, source: str, found: str) -> None:
        """A word of the tables is found, with its replacement."""
        (message,) = wrong_names(where, source)
        assert message.endswith(found)

    @pytest.mark.parametrize(
        ("where", "source"),
        [
            ("jwt_events/tracing/a.py", "from opentelemetry.trace import Link\nspan.add_link(Link(context))"),
            ("jwt_events/tracing/a.py", "class Links: pass\nlink = 1"),
            ("jwt_events/cli/a.py", 'print({"buried_at": letter.dead_lettered_at})'),
            ("jwt_events/cli/a.py", "class Group: pass"),
            ("jwt_events/metrics/a.py", "class InFlight: pass\nin_flight = 1\ndef in_flight_count(): pass"),
            ("jwt_events/a.py", "MAX_WIRE_BYTES = 1\nwire_type = 2"),
            ("jwt_events/transport/base.py", "def send(): pass"),
            ("jwt_events/testing/faults.py", "def lose(count): pass"),
            ("jwt_events/a.py", "almost = 1\nmost_recent = 2\nfarthest = 3\nprint(most)"),
            ("jwt_events/a.py", '"""A page of ``Page`` text about a link, whoever reads it."""'),
        ],
        ids=lambda value: value.replace("\n", " ")[:40],
    )
    def test_other_meanings(self, where: str, source: str) -> None:
        """A word in another meaning, or in another place, is not found."""
        assert list(wrong_names(where, source)) == []

    @pytest.mark.parametrize(
        "source",
        [
            '"""Who may not run beside\n    whom."""',
            "# Whoever asks now\n# says how the answer is read.",
            'logger.error("delivery skipped, it is no event")',
            'def read():\n    """What is no event is skipped."""',
            'class A:\n    """Nobody asks."""',
        ],
    )
    def test_sentences(self, source: str) -> None:
        """A sentence of the table is found, also across lines, and so is an opening."""
        assert list(wrong_sentences("a.py", source))

    def test_other_sentences(self) -> None:
        """An opening in the middle of a docstring is not found."""
        source = textwrap.dedent('''
            """The caller must not know what is no secret."""

            def read():
                """Return what nobody else has."""
        ''')
        assert list(wrong_sentences("a.py", source)) == []

    def test_one_direction(self) -> None:
        """No replacement is itself replaced."""
        for table in (CLASSES, FUNCTIONS, CONSTANTS, VARIABLES):
            for where, words in table.items():
                assert [new for new in words.values() if replacement(table, new, f"{where}/")] == []
