"""Which paths need no token, without a way to write another path so that it looks like one of them. Pure.

Frameworks read paths differently: some merge slashes, drop one at the end, or cut ``root_path`` off wherever it stands.
So a path is public only if all of them read it alike; whatever is odd needs a token.

Sources: the ASGI specification (``path``, ``raw_path``, ``root_path``), RFC 3986 §3.3 and §6.2.2 (paths and their
normalization).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jwt_events.errors import InvalidOption

# Segments that are not empty, without what a second decoding or another reader may take for something else.
_PLAIN = re.compile(r"/|(?:/(?!\.{1,2}(?:/|$))[^/\\%;?#*\x00-\x1f\x7f]+)+/?")

# The same characters in percent-encoding.
_ENCODED = re.compile(rb"%(?:2[35aef]|[01][0-9a-f]|3[bf]|5c|7f)", re.IGNORECASE)

_HOW = 'must be paths: "/health" for this path, "/static/*" for all below it'


class PublicPaths:
    """The paths that need no token.

    Args:
        patterns: a path, which is meant exactly, or with ``/*`` at the end all paths below it, without itself.

    Raises:
        InvalidOption: a pattern that matches nothing, or everything.
    """

    def __init__(self, patterns: Iterable[Any]) -> None:
        if isinstance(patterns, str | bytes) or not isinstance(patterns, Iterable):
            raise InvalidOption("public", f"{_HOW}; a list, not {type(patterns).__name__}")
        found = [_checked(pattern) for pattern in patterns]
        self._exact = frozenset(one for one in found if not one.endswith("/*"))
        self._below = tuple(one.removesuffix("*") for one in found if one.endswith("/*"))

    def cover(self, scope: Mapping[str, Any]) -> bool:
        """Return whether a request needs no token.

        Args:
            scope: its ASGI scope.
        """
        if not self._exact and not self._below:
            return False
        raw = scope.get("raw_path")
        path = _path_of(scope["path"], scope.get("root_path") or "")
        if path is None or (raw is not None and _ENCODED.search(raw.partition(b"?")[0])):
            return False
        return path in self._exact or any(path.startswith(root) and path != root for root in self._below)


def _path_of(path: str, root_path: str) -> str | None:
    """Return a path within an application; ``None`` if it is odd, or frameworks do not agree where its root ends."""
    if _PLAIN.fullmatch(path) is None:
        return None
    if not root_path:
        return path
    if _PLAIN.fullmatch(root_path) is None or root_path.endswith("/"):
        return None
    if path.startswith(f"{root_path}/"):
        return path.removeprefix(root_path)
    return None if root_path in path else path


def _checked(pattern: Any) -> str:
    if not isinstance(pattern, str):
        raise InvalidOption("public", f"{_HOW}, not {type(pattern).__name__}")
    if pattern == "/*":
        raise InvalidOption("public", f'{_HOW}; "/*" would make all public')
    path = pattern.removesuffix("/*")
    if _PLAIN.fullmatch(path) is None or (path != pattern and path.endswith("/")):
        raise InvalidOption("public", f"{_HOW}, as they are after decoding, without dots, double slashes and queries")
    return pattern
