"""Public paths: no way to write a path so that the guard takes it for a public one and the framework does not."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette._utils import get_route_path

from jwt_events import InvalidOption
from jwt_events.guard import PublicPaths

PATTERNS = ("/health", "/static/*", "/docs/", "/")


def scope_of(raw: str, root_path: str = "", *, has_raw: bool = True, has_root: bool = True) -> dict[str, Any]:
    """Return the scope of a request as a server makes it.

    Args:
        raw: the path as the client wrote it.
        root_path: where the application is mounted.
        has_raw: whether the server passes the path as it was written.
        has_root: whether the server puts the root before the path.
    """
    root = root_path if has_root else ""
    scope = {"type": "http", "path": root + unquote(raw), "root_path": root_path}
    return scope | {"raw_path": (root + raw).encode()} if has_raw else scope


class TestExamples:
    """Paths that are public, and others."""

    @pytest.mark.parametrize(
        "path", ["/health", "/static/a", "/static/a/b.css", "/static/a/", "/static/logo@2x.png", "/docs/", "/"]
    )
    @pytest.mark.parametrize("root_path", ["", "/api", "/api/v1"])
    @pytest.mark.parametrize("has_root", [True, False])
    def test_public(self, path: str, root_path: str, has_root: bool) -> None:
        """Exact paths, and what is below, wherever the application is mounted."""
        assert PublicPaths(PATTERNS).cover(scope_of(path, root_path, has_root=has_root))
        assert PublicPaths(PATTERNS).cover(scope_of(path, root_path, has_root=has_root, has_raw=False))

    @pytest.mark.parametrize(
        "path",
        [
            *("", "/health/", "//health", "/health//", "/Health", "/health%2F", "/health%00", "/health/.."),
            *("/static", "/static/", "/static//", "/static//a", "/static/../private", "/static/%2e%2e/private"),
            *("/static/..%2fprivate", "/static/%2e./private", "/static/%252e%252e/private", "/static/.."),
            *("/static\\..\\private", "/static/%5c../private", "/static/a;b", "/static/a%3bb", "/static/."),
            *("/docs", "/docs//", "/private", "/private/health", "health", "http://here/health", "/staticx"),
            *("/static/a%0ab", "/static/%3f", "/static/a%23", "*", "/health\n", "/./health"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("has_raw", [True, False])
    def test_not_public(self, path: str, has_raw: bool) -> None:
        """Whatever is written in another way needs a token."""
        assert not PublicPaths(PATTERNS).cover(scope_of(path, has_raw=has_raw))

    def test_encoded_slashes(self) -> None:
        """A slash that was encoded may be none for what comes later."""
        for path in ("/static/a%2fb", "/static/a%2Fb", "/static%2fa"):
            assert not PublicPaths(PATTERNS).cover(scope_of(path))

    @pytest.mark.parametrize(
        ("path", "root_path"),
        [
            ("/static/api/private", "/api"),  # one framework cuts the root off wherever it stands
            ("/apihealth", "/api"),
            ("/api", "/api"),
            ("/api/static", "/api"),
            ("/api//health", "/api"),
            ("/static/a", "/static"),
            ("/health", "api"),
            ("/api/health", "/api/"),
            ("/health", "/"),
        ],
    )
    def test_roots(self, path: str, root_path: str) -> None:
        """Where it is not certain where the root of the application ends, a token is needed."""
        if root_path == "/static":
            assert not PublicPaths(["/static/*"]).cover({"path": path, "root_path": root_path})
        else:
            assert not PublicPaths(PATTERNS).cover({"path": path, "root_path": root_path})

    def test_nothing_is_public(self) -> None:
        """Without patterns no path is."""
        assert not PublicPaths(()).cover(scope_of("/"))


class TestPatterns:
    """Patterns that cannot be meant."""

    @pytest.mark.parametrize(
        "pattern",
        [
            *("", "health", "/*", "*", "/static*", "/*/a", "/a//b", "/a/../b", "/.", "/a?b", "/a#b", "/a%20b", "/a//*"),
            *("/a\\b", "/a;b", "/a\n", "/a/**", 7, None, b"/a", re.compile("/a")),
        ],
    )
    def test_refused(self, pattern: Any) -> None:
        """The error says how a pattern is written."""
        with pytest.raises(InvalidOption, match="public: must be paths"):
            PublicPaths([pattern])

    @pytest.mark.parametrize("patterns", ["/health", b"/health", 7, None])
    def test_not_a_list(self, patterns: Any) -> None:
        """Text is no list, although it could be read as one of letters."""
        with pytest.raises(InvalidOption, match="a list, not"):
            PublicPaths(patterns)


def readings(scope: dict[str, Any]) -> set[str]:
    """Return how frameworks, and what stands behind them, may read a path."""
    path, root = scope["path"], scope["root_path"]
    found = {get_route_path(scope), path.split(root, maxsplit=1)[-1] if root else path}
    if path.startswith(root) and path != root:
        found.add(path.removeprefix(root))
    found |= {unquote(one) for one in found}
    found |= {re.sub("/+", "/", one) for one in found}
    found |= {one.partition(";")[0].partition("?")[0] for one in found}
    return found | {"/" + one.strip("/") for one in found}


def leads_to_public(path: str) -> bool:
    """Return whether a path, as it is read in the end, is one of those that are meant to be public."""
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return parts in ([], ["health"], ["docs"]) or (len(parts) > 1 and parts[0] == "static")


_parts = st.sampled_from(
    [
        "/",
        "/",
        "/",
        "health",
        "static",
        "docs",
        "private",
        "api",
        ".",
        "..",
        "%2f",
        "%2e",
        "%252f",
        "%5c",
        ";",
        "a",
        "%61",
    ]
)


@given(
    st.lists(_parts, max_size=8).map("".join), st.sampled_from(["", "/api", "/a", "/static", "/api/v1"]), st.booleans()
)
@example("/static/api/private", "/api", False)
@settings(max_examples=1_000)
def test_no_path_is_read_as_another(raw: str, root_path: str, has_root: bool) -> None:
    """Of a path that is public, every reading is public."""
    scope = scope_of(raw, root_path, has_root=has_root)
    if PublicPaths(PATTERNS).cover(scope):
        assert {one for one in readings(scope) if not leads_to_public(one)} == set()
