"""`Report`: rows by address, columns with units, a source that the others are compared with. As text and as JSON."""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from archdsl.records import field, record

Cell = int | float | str | None
_PREFIXES = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1), ("m", 1e-3), ("µ", 1e-6), ("n", 1e-9))


@record(frozen=True)
class Column:
    """`unit`: s, B, FLOP, …; numbers without one are plain. `shown`: whether the text has it; JSON has all."""

    name: str
    unit: str = ""
    shown: bool = True


@record(frozen=True)
class Row:
    """What is told of one address of a source; "" is the whole of it. `cells` are in the order of the columns."""

    source: str
    address: str
    cells: tuple[Cell, ...]


@record(frozen=True)
class Report:
    """`options`: those in force. `baseline`: the source that ratios refer to. `notes`: what the reader has to know, one sentence each."""

    name: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    options: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"{row.address or row.source} has {len(row.cells)} cells for {len(self.columns)} columns")

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.source for row in self.rows))

    def of(self, source: str, address: str = "") -> dict[str, Any]:
        """The cells of one row by column. Raises KeyError."""
        for row in self.rows:
            if (row.source, row.address) == (source, address):
                return dict(zip((c.name for c in self.columns), row.cells))
        raise KeyError((source, address))

    def to_json(self) -> dict[str, Any]:
        """Plain data: `columns` name the units, each row holds its source, its address and a value for each column."""
        names = [c.name for c in self.columns]
        return {"report": self.name, "options": self.options, "baseline": self.baseline, "notes": list(self.notes),
                "columns": [{"name": c.name, "unit": c.unit} for c in self.columns],
                "rows": [{"source": r.source, "address": r.address, **dict(zip(names, r.cells))} for r in self.rows]}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows as text. Rows of one source that differ in one number of their address alone, and look the same, are one row."""
        shown = [i for i, c in enumerate(self.columns) if c.shown]
        several = len(self.sources) > 1
        heads = [*(["source"] if several else []), "", *(self.columns[i].name for i in shown)]
        lines: list[list[str]] = []
        before = None
        for row, address, texts in self._folded(shown):
            lines.append([*([row.source if row.source != before else ""] if several else []), address, *texts])
            before = row.source
        return heads, lines

    def _folded(self, shown: list[int]) -> Iterator[tuple[Row, str, list[str]]]:
        groups: dict[Any, list[Row]] = {}
        for row in self.rows:
            texts = [_pattern(str(c)) if isinstance(c, str) else cell(c, self.columns[i].unit) for i, c in enumerate(row.cells) if i in shown]
            groups.setdefault((row.source, _pattern(row.address), tuple(texts)), []).append(row)
        for rows in groups.values():
            first, last = rows[0], rows[-1]
            texts = [_span(first.cells[i], last.cells[i], self.columns[i].unit) for i in shown]
            yield first, (_joined(first.address, last.address) or "total") + (f" ×{len(rows)}" if len(rows) > 1 else ""), texts


def cell(value: Cell, unit: str = "") -> str:
    """Three digits and a decimal prefix: 1.25 ms."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not unit:
        return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"
    if value == 0:
        return f"0 {unit}"
    prefix, scale = next(((p, s) for p, s in _PREFIXES if abs(value) >= 0.9995 * s), _PREFIXES[-1])
    return f"{value / scale:.3g} {prefix}{unit}"


def _span(first: Cell, last: Cell, unit: str) -> str:
    return _joined(first, last) if isinstance(first, str) and isinstance(last, str) else cell(first, unit)


def _pattern(address: str) -> str:
    """An address without its numbers, if it has one index; else as it is."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", address, count=1)


def _joined(first: str, last: str) -> str:
    """layers.0.mlp and layers.7.mlp as layers.0..7.mlp."""
    if first == last:
        return first
    a, b = re.search(r"(?<![^.])\d+(?![^.])", first), re.search(r"(?<![^.])\d+(?![^.])", last)
    assert a and b, (first, last)
    return f"{first[: a.end()]}..{b[0]}{first[a.end():]}"
