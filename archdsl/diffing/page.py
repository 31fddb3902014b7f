"""A difference side by side, as one HTML page that needs neither a network nor JavaScript."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from archdsl.cost.layers import count_params
from archdsl.cost.units import short
from archdsl.diffing.model import Difference
from archdsl.diffing.structure import Change, looks
from archdsl.diffing.text import change_of
from archdsl.draw.page import filled, parts
from archdsl.graph import Graph

Cells = tuple[str, str, str, str]  # class, before, after, what is to say


def html_page(d: Difference) -> str:
    """The page: UTF-8 text."""
    a, b = (escape(s.name) for s in d.sides)
    return filled("diff.html", title=f"{a} → {b}", css=parts("diff.css"), body=html_body(d))


def html_body(d: Difference, heading: str = "h2") -> str:
    """What is on it: headings and tables, whose rows `draw/diff.css` colours."""
    def table(title: str, left: str, right: str, rows: Iterable[Cells]) -> str:
        return f"<{heading}>{title}</{heading}>\n{_table(left, right, rows)}"

    a, b = (escape(s.name) for s in d.sides)
    found = [table("Structure", a, b, _structure(d.structure))]
    found.append(table("Cost", a, b, _costs(d)))
    found.append(table("Weights", "tensors", "numbers", ((kind, f"{n:,}", f"{m:,}", kind) for kind, (n, m) in d.counts().items())))
    if d.knobs:
        found.append(table("Knobs", a, b, (_written(*v, k) for k, v in d.knobs.items())))
    if d.claims:
        found.append(table("Claims", a, b, (_written(*v) for v in d.claims)))
    found += [f"<p>{escape(n)}</p>" for n in d.notes]
    if d.same_graph:
        found.insert(0, "<p>Both graphs have one hash: they compute the same, with weights at the same addresses.</p>")
    return "\n".join(found)


def _table(left: str, right: str, rows: Iterable[Cells]) -> str:
    lines = [f'<tr class="{kind}"><td>{x}</td><td>{y}</td><td>{note}</td></tr>' for kind, x, y, note in rows]
    head = f"<thead><tr><th>{left}</th><th>{right}</th><th></th></tr></thead>"
    return "\n".join([f"<table>{head}<tbody>", *lines, "</tbody></table>"])


def _structure(root: Change) -> Iterator[Cells]:
    if root.notes:
        yield "changed", "the model", "the model", _notes(root)
    yield from _below(root, 0, False)


def _below(change: Change, depth: int, several: bool) -> Iterator[Cells]:
    """Rows of what a block holds. A layer that differs as an earlier one of its list does is one row, which names that one."""
    told: dict[Any, Change] = {}
    for c in change.below:
        label = (c.before or c.after or "").rpartition(".")[0]
        first = told.setdefault((label, c.before is None, looks(c)), c)
        yield from _rows(c, depth, several, None if first is c or c.silent else first)


def _rows(c: Change, depth: int, several: bool, like: Change | None) -> Iterator[Cells]:
    """`several`: the rows stand for several layers; `like`: an earlier one to which the same happened."""
    several = several or c.count > 1
    kind = c.kind if c.place in ("kept", "shifted") or c.kind != "same" else c.place
    a, b = c.graphs
    note = _notes(c, several) if like is None or not c.below else f"as <code>{escape(like.before or like.after or '')}</code>"
    yield kind, _block(c.before, c.last_before, c.count, a, depth), _block(c.after, c.last_after, c.count, b, depth), note
    if like is None:
        yield from _below(c, depth + 1, several)


def _block(first: str | None, last: str | None, count: int, graph: Graph | None, depth: int) -> str:
    """The address, the block, and how many parameters one has."""
    if first is None or graph is None:
        return ""
    params = count_params(graph)
    name = graph.name if graph.name not in first.split(".") else ""  # a loop's layers are called as their label
    told = ", ".join(filter(None, (name, f"{short(params)} parameters" + (" each" if count > 1 else "") if params else "")))
    address = f"{first} to {(last or first).rpartition('.')[2]}" if count > 1 else first
    times = f" <b>× {count}</b>" if count > 1 else ""
    return f'<span class="block" style="padding-left:{1.2 * depth:.1f}em"><code>{escape(address)}</code>{times} <small>{escape(told)}</small></span>'


def _notes(c: Change, several: bool = False) -> str:
    place = {"moved": "moved", "renamed": "renamed"}.get(c.place, "")
    return "<br>".join(escape(n) for n in ([place] if place else []) + [n.of(several) for n in c.notes])


def _costs(d: Difference) -> Iterator[Cells]:
    a, b = (escape(", ".join(f"{k}={v}" for k, v in s.cost.sizes.items())) for s in d.sides)
    yield "same" if a == b else "changed", a, b, "sizes"
    for figure, (x, y) in d.costs.items():
        unit = "B" if figure.endswith("bytes") else ""
        left, right = (f"{short(n, unit)} <small>{n:,}</small>" for n in (x, y))
        yield "same" if x == y else "changed", left, right, f"{figure.replace('_', ' ')} <b>{escape(change_of(x, y))}</b>"


def _written(before: str | None, after: str | None, name: str = "") -> Cells:
    kind = "removed" if after is None else "added" if before is None else "changed"
    return kind, escape(before or ""), escape(after or ""), escape(name)
