"""Every public name, and what its constructor takes, is on a page of the documents."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.documents import DOCS, README, ROOT, blocks

PAGES = [README, *(page for page in sorted(DOCS.glob("*.md")) if page.stem != "architecture")]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))

# What is described elsewhere, and where.
EXEMPT = {
    "StreamConfiguration": "the fields are those of the Shared Signals Framework, which the page names",
    "TransmitterConfiguration": "the fields are those of the Shared Signals Framework, which the page names",
}


def _public_modules() -> list[str]:
    """Return the modules that are public by the promise of the changelog: those that the documents import from."""
    sources = [block.text for block in blocks(*PAGES, language="python")] + [path.read_text() for path in EXAMPLES]
    imported = re.compile(r"^from (jwt_events[\w.]*) import", re.MULTILINE)
    return sorted({name for text in sources for name in imported.findall(text)})


def _public_names() -> Iterator[tuple[str, Any]]:
    """Yield each name and what it stands for; once where two modules offer the same."""
    seen = set()
    for module in map(importlib.import_module, _public_modules()):
        for name in module.__all__:
            thing = getattr(module, name)
            if (name, id(thing)) not in seen:
                seen.add((name, id(thing)))
                yield name, thing


def _code(page: Path) -> frozenset[str]:
    """Return the words of a page that are marked as code."""
    return frozenset(re.findall(r"\w+", " ".join(re.findall(r"```.*?```|`[^`]+`", page.read_text(), re.DOTALL))))


CODE = {page: _code(page) for page in PAGES}
NAMES = list(_public_names())


def _options(thing: Any) -> set[str]:
    """Return what may be given to it and may be left out; of a record the fields, as programs read them.

    Those of errors are held by a test of their page.
    """
    if not callable(thing) or getattr(thing, "_is_protocol", False):
        return set()
    if isinstance(thing, type) and issubclass(thing, enum.Enum | BaseException):
        return set()
    try:
        parameters = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):  # an alias of types
        return set()
    is_record = hasattr(thing, "__dataclass_fields__") or hasattr(thing, "_fields")
    named = {one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return {one.name for one in named if is_record or one.default is not one.empty or one.kind is one.KEYWORD_ONLY}


def test_modules() -> None:
    """The documents import from these modules, so these are public, and each of them lists its names."""
    modules = _public_modules()
    assert {"jwt_events", "jwt_events.fastapi", "jwt_events.signals", "jwt_events.testing"} <= {*modules}
    assert [name for name in modules if not hasattr(importlib.import_module(name), "__all__")] == []


@pytest.mark.parametrize(("name", "thing"), NAMES, ids=[name for name, _ in NAMES])
def test_each(name: str, thing: Any) -> None:
    """A public name is on a page, and what it takes is on a page with the name, or with that of its public base."""
    pages = [page for page, words in CODE.items() if name in words]
    assert pages, f"no page of the documents has {name}"
    if name in EXEMPT:
        return
    public = {one for _, one in NAMES if isinstance(one, type)}
    inherited = set[str]().union(*(_options(base) for base in getattr(thing, "__mro__", ())[1:] if base in public))
    there = frozenset[str]().union(*(CODE[page] for page in pages))
    missing = sorted(_options(thing) - inherited - there)
    assert missing == [], f"no page that has {name} has its {', '.join(missing)}"


def test_exemptions() -> None:
    """None is left of a name that is gone, or whose options are all there."""
    there = {name: thing for name, thing in NAMES if name in EXEMPT}
    assert {*there} == {*EXEMPT}
    assert [name for name, thing in there.items() if not _options(thing) - frozenset[str]().union(*CODE.values())] == []
