"""Draws examples/demo.svg: what a terminal shows during ``make demo``, recorded from a real run by rich.

All frames stand below one another, and CSS draws them past a window like a film. What plays nothing shows the last one,
which has the outcome.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
import time
from itertools import chain
from pathlib import Path
from string import Template

from rich.align import Align
from rich.console import Console, RenderableType
from rich.segment import Segment, Segments
from rich.terminal_theme import TerminalTheme

from jwt_events.cli.demo import _acts, _display
from jwt_events.cli.demo._board import Board

TARGET = Path(__file__).parent.parent / "examples" / "demo.svg"
TRANSPORT = "stream"
COLUMNS = 82

INTERVAL = 0.6
"""Seconds between two frames while the same thing goes on."""
MIN_SECONDS = 0.25
"""Seconds for which a frame can be seen, however short it was."""
LAST = 8.0
"""Seconds for the last frame."""

# What rich draws with: a character is 12.2 wide, a line 24.4 high.
_WIDTH, _HEIGHT, _BAR = 12.2, 24.4, 44
_THEME = TerminalTheme(
    (22, 24, 33),
    (205, 211, 230),
    [
        (40, 42, 54),  # black
        (255, 110, 122),  # red
        (120, 220, 130),  # green
        (245, 200, 100),  # yellow
        (110, 165, 255),  # blue
        (205, 145, 255),  # magenta
        (100, 215, 235),  # cyan
        (205, 211, 230),  # white
    ],
)
# The ends of lines, and what cuts characters that stick out.
_LEFT_OUT = re.compile(r'<text[^>]*>\n</text>| clip-path="[^"]*"')
_PICTURE = Template("""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" role="img">
<title>make demo: events cross between processes, tokens stop working, the server dies and returns</title>
<style>
text { font: 20px "Fira Code", "Cascadia Code", Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre }
$styles
.film { animation: film ${seconds}s step-end infinite }
@keyframes film { $moves }
@media (prefers-reduced-motion: reduce) { .film { animation: none } }
</style>
<rect width="$width" height="$height" rx="10" fill="$ground"/>
<circle cx="26" cy="24" r="7" fill="#ff5f57"/><circle cx="48" cy="24" r="7" fill="#febc2e"/>
<circle cx="70" cy="24" r="7" fill="#28c840"/><text x="96" y="31" fill="$ink">$$ make demo</text>
<svg y="$bar" width="$width" height="$window"><g class="film" transform="translate(0,-$last)">
$texts
</g></svg>
</svg>
""")


class Film:
    """Takes frames of what there is to see."""

    def __init__(self) -> None:
        self._frames: list[RenderableType] = []
        self._times: list[float] = []
        self._phase = ""

    def watch(self, board: Board) -> None:
        """Take a frame when something new begins, and now and then, from the first event on."""
        now = time.monotonic()
        if board.published and (board.phase != self._phase or now - self._times[-1] >= INTERVAL):
            self._phase = board.phase
            self.take(_display.frame(board, TRANSPORT), now)

    def take(self, seen: RenderableType, now: float) -> None:
        """Take a frame at this moment."""
        self._frames.append(seen)
        self._times.append(now)

    def develop(self) -> str:
        """Make the picture."""
        strip = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True, color_system="truecolor")
        rows = max(len(strip.render_lines(frame)) for frame in self._frames)
        for frame in self._frames:
            lines = strip.render_lines(Align(frame, vertical="top", height=rows), pad=False, new_lines=True)
            strip.print(Segments(Segment.simplify(chain.from_iterable(lines))), end="")
        drawn = strip.export_svg(theme=_THEME, code_format="{styles}\0{backgrounds}{matrix}", unique_id="film")
        styles, _, texts = drawn.partition("\0")
        window = rows * _HEIGHT
        moves, seconds = self._moves(window)
        return _PICTURE.substitute(
            width=round(COLUMNS * _WIDTH),
            height=round(window + _BAR),
            window=round(window),
            bar=_BAR,
            last=round((len(self._frames) - 1) * window),
            seconds=round(seconds, 1),
            moves=moves,
            styles=styles,
            texts=_LEFT_OUT.sub("", texts).replace("&#160;", "\u00a0").replace("><text", ">\n<text"),
            ground=_THEME.background_color.hex,
            ink=_THEME.foreground_color.hex,
        )

    def _moves(self, window: float) -> tuple[str, float]:
        """Return when to move how far, and how long it all takes."""
        shown = [max(MIN_SECONDS, after - before) for before, after in zip(self._times, self._times[1:], strict=False)]
        total, begins, moves = sum(shown) + LAST, 0.0, []
        for number, seconds in enumerate([*shown, LAST]):
            moves.append(f"{begins / total:.2%} {{ transform: translateY(-{number * window:.0f}px) }}")
            begins += seconds
        return " ".join(moves), total


async def main() -> None:
    """Record a run."""
    film = Film()
    board = await _acts.run_demo(
        events=2_000,
        rate=1_000,
        subscribers=3,
        transport=TRANSPORT,
        revocations=12,
        url=None,
        draw=film.watch,
        dwell=1.0,
    )
    film.take(_display.summary(board, TRANSPORT), time.monotonic())
    if board.failed:
        sys.exit("the run went wrong: nothing was drawn")
    TARGET.write_text(film.develop())
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    asyncio.run(main())
