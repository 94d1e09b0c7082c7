"""Record a command in a terminal as docs/images/run.svg, an animation that needs no script and no font of its own.

    python docs/scripts/record.py
    python docs/scripts/record.py --out other.svg -- kmnist-search status

The command runs in an empty folder, in a pseudo-terminal that `pyte` (of the extra `test`) draws. The frames are
switched by CSS keyframes, fast enough to be over after `--seconds`.
"""

import argparse
import os
import pty
import select
import shlex
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from html import escape
from itertools import groupby
from pathlib import Path

import pyte

OUT = Path(__file__).parents[1] / "images" / "run.svg"
COMMAND = ["kmnist-search", "run", "quickstart", "--trials", "20"]
COLUMNS, ROWS = 100, 24
FRAME_SECONDS, LAST_FRAME_SECONDS = 0.25, 5.0

#: Frames that would be seen for less are left out.
SHORTEST_SECONDS = 0.25
HIDDEN = ' opacity="0"'

CHAR, LINE, PAD, BAR = 8.4, 18, 14, 30
BACKGROUND, FOREGROUND = "#1b1e2b", "#d6d9e6"
COLOURS = {
    "default": FOREGROUND,
    "black": "#5c6370",
    "red": "#f07178",
    "green": "#a5d76e",
    "brown": "#ffcb6b",
    "blue": "#82aaff",
    "magenta": "#f78fb3",
    "cyan": "#89ddff",
    "white": "#eeffff",
}

#: The number of a line on the screen, and its markup.
Frame = tuple[tuple[int, str], ...]


@dataclass
class Recording:
    """What was on the screen, and for how many seconds: the markup of each line, without repetitions in a row."""

    frames: list[tuple[Frame, float]] = field(default_factory=list)

    def add(self, frame: Frame, seconds: float) -> None:
        if self.frames and self.frames[-1][0] == frame:
            frame, before = self.frames.pop()
            seconds += before
        self.frames.append((frame, seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seconds", type=float, default=16.0)
    parser.add_argument("command", nargs="*", default=COMMAND)
    arguments = parser.parse_args()
    recording = record(arguments.command)
    arguments.out.write_text(svg(recording, seconds=arguments.seconds), encoding="utf-8")


def record(command: list[str]) -> Recording:
    """Run a command in a pseudo-terminal until it ends, and return what was seen."""
    screen = pyte.Screen(COLUMNS, ROWS)
    pyte.ByteStream(screen).feed(f"$ {shlex.join(command)}\r\n".encode())
    recording = Recording()
    recording.add(_markup(screen), 1.0)
    ours, theirs = pty.openpty()
    settings = {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS), "COLORTERM": ""}
    environment = {**os.environ, **settings}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment, start_new_session=True
        )
        os.close(theirs)
        try:
            _watch(ours, process, screen, recording)
        finally:
            process.terminate()
            process.wait()
    recording.add(_markup(screen), LAST_FRAME_SECONDS)
    return recording


def _watch(output: int, process: subprocess.Popen[bytes], screen: pyte.Screen, recording: Recording) -> None:
    """Add frames until the process has ended."""
    stream, before = pyte.ByteStream(screen), time.monotonic()
    while True:
        ready, _, _ = select.select([output], [], [], FRAME_SECONDS)
        try:
            content = os.read(output, 65536) if ready else b""
        except OSError:  # Linux says so when the other side is closed
            return
        if not content and process.poll() is not None:
            return
        stream.feed(content)
        now = time.monotonic()
        if now - before >= FRAME_SECONDS:
            recording.add(_markup(screen), now - before)
            before = now


def _markup(screen: pyte.Screen) -> Frame:
    """Return the lines on the screen that are not empty, with a `tspan` for what looks alike."""
    lines = []
    for row in range(ROWS):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        spans, column = [], 0
        for (colour, is_bold), group in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            text = "".join(cell.data for cell in group)
            if shown := text.strip():
                left = PAD + (column + len(text) - len(text.lstrip())) * CHAR
                weight = ' font-weight="bold"' if is_bold else ""
                fill = COLOURS.get(colour, f"#{colour}")
                spans.append(f'<tspan x="{left:.1f}" fill="{fill}"{weight}>{escape(shown)}</tspan>')
            column += len(text)
        if spans:
            lines.append((row, "".join(spans)))
    return tuple(lines)


def svg(recording: Recording, *, seconds: float) -> str:
    """Return the recording as an SVG that plays for ever. It begins with the last frame, also the still one."""
    width, height = COLUMNS * CHAR + 2 * PAD, BAR + ROWS * LINE + PAD
    frames = _shortened(recording.frames, seconds)
    total = sum(length for _, length in frames)
    rules, groups, begin = [], [], 0.0
    lines: dict[str, int] = {}
    for number, (frame, length) in enumerate(frames):
        start, end = 100 * begin / total, 100 * (begin + length) / total
        steps = f"0%{{opacity:{int(not number)}}}{start:.2f}%{{opacity:1}}{end:.2f}%{{opacity:0}}"
        rules.append(f"@keyframes k{number}{{{steps}}}#f{number}{{animation-name:k{number}}}")
        used = "".join(
            f'<use href="#l{lines.setdefault(markup, len(lines))}" y="{BAR + (row + 1) * LINE}"/>'
            for row, markup in frame
        )
        groups.append(f'<g id="f{number}"{HIDDEN if number else ""}>{used}</g>')
        begin += length
    texts = (f'<text id="l{number}">{markup}</text>' for markup, number in lines.items())
    dots = "".join(
        f'<circle cx="{20 + 18 * i}" cy="16" r="5.5" fill="{c}"/>'
        for i, c in enumerate(("#f07178", "#ffcb6b", "#a5d76e"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
        'font-size="14" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace">\n'
        f"<style>text{{white-space:pre}}g[id]{{animation:{total:.2f}s step-end infinite}}{''.join(rules)}"
        "@media(prefers-reduced-motion){g[id]{animation:none}}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>{dots}\n<defs>\n'
        + "\n".join((*texts, "</defs>", *groups, "</svg>\n"))
    )


def _shortened(frames: list[tuple[Frame, float]], seconds: float) -> list[tuple[Frame, float]]:
    """Return the last frame, then the others with what they take on the page, `seconds` in all."""
    *others, last = frames
    faster = max(1.0, sum(length for _, length in others) / seconds)
    shown: list[tuple[Frame, float]] = []
    waited = 0.0
    for frame, length in others:
        waited += length / faster
        if waited >= SHORTEST_SECONDS:
            shown.append((frame, waited))
            waited = 0.0
    return [last, *shown]


if __name__ == "__main__":
    main()
