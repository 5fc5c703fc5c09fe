"""The documents of the project, taken apart: blocks of code, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = (README, *sorted(DOCS.glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md")

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: the page.
        section: the heading that it stands under.
        language: the word after the fence.
        text: what is in it.
    """

    page: Path
    section: str
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name to save it under, which its first line may give: ``# service.py``."""
        found = re.match(r"# (\w+\.py)\n", self.text)
        return None if found is None else found[1]


def blocks(*pages: Path, language: str = "") -> list[Block]:
    """Return the fenced blocks of pages, in order; all of them, or those in a language."""
    return [block for page in pages for block in _blocks(page) if language in ("", block.language)]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _FENCED.finditer(text):
        before = _HEADING.findall(_FENCED.sub("", text[: found.start()]))
        yield Block(page, before[-1] if before else "", found[1], found[2])


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return _FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return what a link into a page may name, as GitHub makes it of the headings."""
    headings = _HEADING.findall(prose(page))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Return the targets of all links and pictures of a page."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def granted(role: str) -> list[str]:
    """Return the rights that the page about operations grants somebody: ``revocation list``, ``subscriber, group``."""
    (row,) = re.findall(rf"^\| {role} \|(.*)\|$", (DOCS / "operations.md").read_text(), re.MULTILINE)
    return re.findall(r"\+[a-z|]+", row.replace(r"\|", "|"))
