"""Pictures of a study: one objective over the trials, two against each other, more in pairs. A picture is a list of marks, written as SVG or for
Graphviz (which makes PNG of it)."""
from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from html import escape
from itertools import combinations, pairwise

from archdsl.records import field, record
from archdsl.study.errors import named
from archdsl.study.shown import number
from archdsl.study.store import Entry
from archdsl.study.study import Study

KINDS = (".svg", ".png")
WIDTH, HEIGHT = 460, 340  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 78, 20, 40, 52
INK, FAINT, LINES, FRONT = "#222222", "#9db7d3", "#dddddd", "#b4501e"
MOST = 3000  # trials drawn beside the front
PANELS = 6


@record()
class Picture:
    """`dots`: x, y, radius, colour, title. `lines`: points, colour, width. `words`: x, y, text, where x is (start, middle, end), colour."""

    width: float
    height: float
    dots: list[tuple[float, float, float, str, str]] = field(default_factory=list)
    lines: list[tuple[list[tuple[float, float]], str, float]] = field(default_factory=list)
    words: list[tuple[float, float, str, str, str]] = field(default_factory=list)

    def svg(self) -> str:
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}" '
                 f'font-family="Helvetica, Arial, sans-serif" font-size="12">', '<rect width="100%" height="100%" fill="white"/>']
        for points, color, width in self.lines:
            text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{text}" fill="none" stroke="{color}" stroke-width="{width}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{color}"><title>{escape(title)}</title></circle>'
                  for x, y, r, color, title in self.dots]
        parts += [f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'
                  for x, y, text, anchor, color in self.words]
        return "\n".join([*parts, "</svg>\n"])

    def dot(self) -> str:
        """For `dot`: nodes at given places, y upwards. Widths of words are estimated."""
        parts = ["graph {", f'layout=nop2; bb="0,0,{self.width},{self.height}"; node [label="", fixedsize=true, fontname="Helvetica", fontsize=11]']
        ends = 0
        for points, color, width in self.lines:
            for x, y in points:
                parts.append(f'e{ends} [pos="{x:.1f},{self.height - y:.1f}", shape=none, width=0, height=0]')
                ends += 1
            parts += [f'e{i} -- e{i + 1} [color="{color}", penwidth={width}]' for i in range(ends - len(points), ends - 1)]
        for i, (x, y, r, color, _) in enumerate(self.dots):
            parts.append(f'd{i} [pos="{x:.1f},{self.height - y:.1f}", shape=circle, style=filled, color="{color}", width={r / 36:.4f}]')
        for i, (x, y, text, anchor, color) in enumerate(self.words):
            half = len(text) * 2.9
            x += {"start": half, "middle": 0, "end": -half}[anchor]
            safe = text.replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'w{i} [pos="{x:.1f},{self.height - y + 4:.1f}", shape=none, label="{safe}", fontcolor="{color}"]')
        return "\n".join([*parts, "}"])


def write_plot(study: Study, path: str) -> None:
    """Writes the picture; the end of the path says which kind. Raises A0832 for another one, A0662 for PNG without Graphviz."""
    from archdsl.files import write_whole

    kind = os.path.splitext(path)[1].lower()
    if kind not in KINDS:
        raise named("A0832", f"`{path}` does not say which kind of picture is wanted", path, what="-o",
                    help=f"a name that ends in {', '.join(KINDS)}, or in .html for the report")
    picture = drawn(study)
    if kind == ".png":
        from archdsl.draw.dot import laid_out

        data = laid_out(picture.dot(), "png", path)
    else:
        data = picture.svg().encode()
    write_whole(path, data)


def drawn(study: Study) -> Picture:
    """All full-fidelity trials that are done (a sample where there are many), the front in colour."""
    goals = study.objectives
    front = study.front()
    done = [e for e in _sample(study) if e.status == "done" and e.fidelity == 1]
    if len(goals) == 1:
        return _course(study, done)
    pairs = list(combinations([o.name for o in goals], 2))[:PANELS]
    columns = 1 if len(pairs) == 1 else 2
    picture = Picture(WIDTH * columns, HEIGHT * math.ceil(len(pairs) / columns))
    for at, (a, b) in enumerate(pairs):
        panel = _Panel(picture, at % columns * WIDTH, at // columns * HEIGHT, a, b, [e.values[a] for e in done], [e.values[b] for e in done])
        for e in done:
            panel.dot(e.values[a], e.values[b], 2, FAINT, _title(e))
        if len(goals) == 2:
            panel.line(_steps([(e.values[a], e.values[b]) for e in front]), FRONT)
        for name, e in zip((f"p{i}" for i in range(len(front))), front):
            panel.dot(e.values[a], e.values[b], 3.5, FRONT, f"{name}, {_title(e)}")
    return picture


def _steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The edge of what is dominated: from a point on, the second objective stays until the next one."""
    corners = [c for (_, before), (x, y) in pairwise(points) for c in ((x, before), (x, y))]
    return [*points[:1], *corners]


def _course(study: Study, done: Sequence[Entry]) -> Picture:
    """One objective over the numbers of trials, and the best so far."""
    goal = study.objectives[0]
    picture = Picture(WIDTH * 1.5, HEIGHT)
    panel = _Panel(picture, 0, 0, "trial", goal.name, [e.number for e in done], [e.values[goal.name] for e in done], WIDTH * 1.5)
    best: list[tuple[float, float]] = []
    for e in done:
        value = e.values[goal.name]
        panel.dot(e.number, value, 2, FAINT, _title(e))
        if not best or goal.sign * value < goal.sign * best[-1][1]:
            best += [(e.number, best[-1][1])] if best else []
            best.append((e.number, value))
            panel.dot(e.number, value, 3.5, FRONT, _title(e))
    panel.line([*best, (done[-1].number, best[-1][1])] if best else [], FRONT)
    return picture


def _sample(study: Study) -> list[Entry]:
    """Trials at equal distances, the front among them."""
    step = max(1, study.store.next // MOST)
    wanted = {*range(0, study.store.next, step), *(n for n, _ in study.store.front.members)}
    return study.store.entries(sorted(wanted))


def _title(e: Entry) -> str:
    return f"trial {e.number}: " + ", ".join(f"{n} = {number(v)}" for n, v in e.values.items())


class _Panel:
    """Axes with a title each, and a place on the picture for each pair of values."""

    def __init__(self, picture: Picture, left: float, top: float, x: str, y: str, xs: Sequence[float], ys: Sequence[float], width: float = WIDTH):
        self.picture = picture
        self.right, self.bottom, self.left, self.top = left + width - RIGHT, top + HEIGHT - BOTTOM, left + LEFT, top + TOP
        self.x, x_ticks = _scale(xs, self.left, self.right)
        self.y, y_ticks = _scale(ys, self.bottom, self.top)
        for v in x_ticks:
            picture.lines.append(([(self.x(v), self.top), (self.x(v), self.bottom)], LINES, 1))
            picture.words.append((self.x(v), self.bottom + 18, short(v), "middle", INK))
        for v in y_ticks:
            picture.lines.append(([(self.left, self.y(v)), (self.right, self.y(v))], LINES, 1))
            picture.words.append((self.left - 6, self.y(v) + 4, short(v), "end", INK))
        picture.words.append(((self.left + self.right) / 2, self.bottom + 38, x, "middle", INK))
        picture.words.append((self.left, self.top - 14, y, "start", INK))

    def dot(self, x: float, y: float, radius: float, color: str, title: str) -> None:
        self.picture.dots.append((self.x(x), self.y(y), radius, color, title))

    def line(self, points: Sequence[tuple[float, float]], color: str) -> None:
        if len(points) > 1:
            self.picture.lines.append(([(self.x(a), self.y(b)) for a, b in points], color, 1.5))


def _scale(values: Sequence[float], start: float, end: float) -> tuple[Callable[[float], float], list[float]]:
    """From a value to its place between start and end, and the ticks: logarithmic where values above 0 span more than two decades."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low > 0 and high / low > 100:
        first, last = math.log10(low), math.log10(high)
        ticks = [10.0**k for k in range(math.ceil(first), math.floor(last) + 1)]
        return lambda v: start + (end - start) * (math.log10(v) - first) / (last - first), ticks
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    raw = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= raw)
    ticks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return lambda v: start + (end - start) * (v - low) / (high - low), ticks


def short(value: float) -> str:
    """`12.5M`, `0.03`."""
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"
