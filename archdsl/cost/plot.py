"""The state of a model against the length of its context as an SVG picture, both axes logarithmic."""
from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

from archdsl.cost.decode import Context, Decoding
from archdsl.cost.units import seconds, short

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 76, 34, 48, 52
STATE, WEIGHTS, TIME = "#1f5fa8", "#8a8a8a", "#b4501e"


def svg(found: Decoding, name: str) -> str:
    """The picture: bytes of the state, the weights as a line to compare with, and with a device the time of a step below."""
    contexts = found.contexts
    panels = [_panel(contexts, lambda c: c.state_bytes, "B", "state", STATE, 0, found.step.weight_bytes)]
    if found.device is not None:
        panels.append(_panel(contexts, lambda c: c.seconds or 0, "s", f"least time of a step, {found.device.title}", TIME, HEIGHT, None))
    height = HEIGHT * len(panels)
    sizes = ", ".join(f"{k} = {v}" for k, v in found.step.sizes.items() if k != _axis(found))
    title = f'<text x="{LEFT}" y="20" font-weight="bold">{escape(name)}</text><text x="{WIDTH - RIGHT}" y="20" text-anchor="end">' \
            f"{escape(', '.join(p for p in (sizes, found.step.dtype) if p))}</text>"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#222">\n<rect width="100%" height="100%" fill="white"/>\n{title}\n'
            + "\n".join(panels) + "\n</svg>\n")


def _axis(found: Decoding) -> str:
    return next((n for n, s in found.step.sizes.items() if any(c.length == s for c in found.contexts) and n != "B"), "")


def _panel(contexts: tuple[Context, ...], value: Callable[[Context], float], unit: str, label: str, color: str, top: int, line: int | None) -> str:
    values = [max(float(value(c)), 1e-9) for c in contexts]
    low, high = _decades([*values, *([float(line)] if line else [])])
    first, last = math.log2(contexts[0].length), math.log2(contexts[-1].length)

    def x(length: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((math.log2(length) - first) / (last - first) if last > first else 0.5)

    def y(v: float) -> float:
        return top + HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(v) - low) / (high - low)

    parts = [f'<text x="{LEFT}" y="{top + 38}" fill="{color}">{escape(label)}</text>']
    for k in range(low, high + 1):
        at = y(10.0**k)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_number(10.0**k, unit)}</text>')
    for c in contexts:
        parts.append(f'<line x1="{x(c.length):.1f}" x2="{x(c.length):.1f}" y1="{top + TOP}" y2="{top + HEIGHT - BOTTOM + 4}" stroke="#eee"/>')
    for c in _spread(contexts):
        parts.append(f'<text x="{x(c.length):.1f}" y="{top + HEIGHT - BOTTOM + 18}" text-anchor="middle">{c.length:,}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{top + HEIGHT - 12}" text-anchor="middle">positions of context</text>')
    if line:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(line):.1f}" y2="{y(line):.1f}" stroke="{WEIGHTS}" stroke-dasharray="5 4"/>'
                     f'<text x="{WIDTH - RIGHT}" y="{y(line) - 5:.1f}" text-anchor="end" fill="{WEIGHTS}">weights, {short(line, "B")}</text>')
    points = " ".join(f"{x(c.length):.1f},{y(v):.1f}" for c, v in zip(contexts, values))
    parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
    parts += [f'<circle cx="{x(c.length):.1f}" cy="{y(v):.1f}" r="3" fill="{color}"><title>{c.length:,}: {_number(v, unit)}</title></circle>'
              for c, v in zip(contexts, values)]
    return "\n".join(parts)


def _decades(values: list[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _number(value: float, unit: str) -> str:
    return short(round(value), unit) if unit == "B" else seconds(value)


def _spread(contexts: tuple[Context, ...]) -> list[Context]:
    """Those of which the numbers have room below the axis."""
    kept: list[Context] = []
    for c in contexts:
        if not kept or math.log2(c.length / kept[-1].length) >= 0.7 * max(1.0, math.log2(contexts[-1].length / contexts[0].length) / 8):
            kept.append(c)
    return kept
