"""A difference as text, and as rows that a page shows side by side."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from archdsl.cost.units import short
from archdsl.diffing.model import Difference
from archdsl.diffing.structure import Change, looks

MARKS = {"same": " ", "changed": "~", "removed": "-", "added": "+"}


def text_of(d: Difference) -> str:
    """All sections that say something; one line when there is nothing to say."""
    a, b = d.sides
    out = [f"{a.name} → {b.name}"]
    if d.empty:
        return "\n".join([*out, "", "no difference" + (": the graphs have one hash" if d.same_graph else ""), *d.notes, ""])
    lines = list(structure_lines(d.structure))
    out += ["", "structure", *(lines or ["  the same graph, with the same hash" if d.same_graph else "  nothing but names of layers"])]
    out += ["", "parameters", *_parameters(d)]
    out += ["", "cost", *_costs(d)]
    for title, rows in (("knobs", [(k, *v) for k, v in d.knobs.items()]), ("claims", [("", *v) for v in d.claims])):
        if rows:
            out += ["", title, *(f"  {_written(*row)}" for row in rows)]
    return "\n".join([*out, *(f"\n{n}" for n in d.notes), ""])


# ---------------------------------------------------------------- structure
def structure_lines(root: Change) -> Iterator[str]:
    """Blocks that differ, below those that hold them."""
    for note in root.notes:
        yield f"  {note}"
    for c, others in _alike(root.below):
        yield from _lines(c, others, 1)


def _alike(changes: list[Change]) -> list[tuple[Change, list[Change]]]:
    """Changes that say something, each with those of its list that say the same: `layers.0, 2, 4 and 40 others`."""
    out: dict[Any, tuple[Change, list[Change]]] = {}
    for c in changes:
        if not c.silent:
            address = c.before or c.after or ""
            label, _, index = address.rpartition(".")
            key = (label, c.before is None, looks(c)) if label and index.isdecimal() else address + c.kind
            if key in out:
                out[key][1].append(c)
            else:
                out[key] = c, []
    return list(out.values())


def _lines(c: Change, others: list[Change], depth: int, several: bool = False) -> Iterator[str]:
    """`others`: layers of which the same is to say; `several`: what is around it stands for several layers."""
    several = several or bool(others) or c.count > 1
    block = next(n for n in reversed(c.blocks) if n)
    name = addresses(c, others)
    yield "  " * depth + f"{MARKS[c.kind] if c.place in ('kept', 'shifted') else '>'} {name}" + (f"  {block}" if block not in name.split(".") else "")
    if c.resized:
        (a, b) = c.graphs
        assert a is not None and b is not None
        types = [f"{x.type} → {y.type}" for x, y in zip((*a.outputs, *a.inputs), (*b.outputs, *b.inputs)) if x.type != y.type]
        yield "  " * depth + "    sizes" + (f": {types[0]}" if types else "")
        return
    for note in c.notes:
        yield "  " * depth + f"    {note.of(several)}"
    if c.kind in ("changed", "same") or any(b.kind not in ("removed", "added") for b in c.walk()):
        for b, more in _alike(c.below):
            yield from _lines(b, more, depth + 1, several)


def addresses(c: Change, others: Sequence[Change] = ()) -> str:
    """`layers.0 to 3, 8 → blocks.0 to 3, 8`; one address where both are equal."""
    every = [c, *others]
    before, after = (_joined([_range(*ends, k.count) for ends, k in zip(side, every) if ends[0] is not None])
                     for side in ([(k.before, k.last_before) for k in every], [(k.after, k.last_after) for k in every]))
    name = before or after if not before or not after or before == after else f"{before} → {after}"
    return name + (f" × {c.count}" if c.count > 1 and not others else "") + (" moved" if c.place == "moved" else "") \
        + (", changed" if c.kind == "changed" and c.place in ("moved", "renamed") else "")


def _joined(places: list[str]) -> str:
    """An address, and the indices of further layers."""
    more = [p.rpartition(".")[2] for p in places[1:]]
    return ", ".join(places[:1] + more[:3]) + (f" and {len(more) - 3} other{'s' * (len(more) > 4)}" if len(more) > 3 else "")


def _range(first: str | None, last: str | None, count: int) -> str:
    return "" if first is None else f"{first} to {(last or first).rpartition('.')[2]}" if count > 1 else first


# ---------------------------------------------------------------- figures
def _parameters(d: Difference) -> Iterator[str]:
    counts = d.counts()
    for kind in ("same", "renamed", "changed", "removed", "added"):
        if kind in counts:
            tensors, numbers = counts[kind]
            yield f"  {kind:<8} {tensors:>6,} tensors  {numbers:>15,} numbers"


def _costs(d: Difference) -> Iterator[str]:
    a, b = (", ".join(f"{k}={v}" for k, v in s.cost.sizes.items()) for s in d.sides)
    yield f"  at {a or 'its only size'}" + ("" if a == b else f"; the second at {b or 'its only size'}")
    for figure, (x, y) in d.costs.items():
        unit = "B" if figure.endswith("bytes") else ""
        yield f"  {figure.replace('_', ' '):<12} {short(x, unit):>9} → {short(y, unit):>9}  {change_of(x, y)}".rstrip()


def change_of(x: int, y: int) -> str:
    """`+12.5 %`, `× 4.2`; nothing where both are equal."""
    if x == y:
        return ""
    if not x or y >= 2 * x:
        return f"× {y / x:.3g}" if x else "new"
    return f"{100 * (y - x) / x:+.3g} %"


def _written(name: str, before: str | None, after: str | None) -> str:
    name = f"{name}: " if name else ""
    if before is None or after is None:
        return f"{'-' if after is None else '+'} {name}{before if after is None else after}"
    return f"~ {name}{before} → {after}"
