"""archdsl cost: what a model costs, before any tensor exists."""
from __future__ import annotations

from collections.abc import Iterator

from archdsl.cli.output import show_json, show_table
from archdsl.cli.source import open_source, read_settings
from archdsl.cost import FIGURES, Cost, Layer
from archdsl.cost import cost as count
from archdsl.cost.sizes import parse_sizes
from archdsl.cost.units import short
from archdsl.records import field, record


def cost(source: str, at: list[str], settings: list[str], by: str | None, form: str, dtype: str, json: bool) -> int:
    """Prints the figures and their formulas, or with `by` one row a layer."""
    sizes, spans = parse_sizes(",".join(at)) if at else ({}, {})
    opened = open_source(source)
    made, sizes = opened.spec.sized(opened.variant, sizes, read_settings(settings))
    found = count(made, sizes, form, dtype, spans)
    if json:
        show_json(found.to_json(by_layer=by is not None))
    elif by is None:
        _show_total(found, f"{opened.spec.name}{f'.{opened.variant}' if opened.variant else ''}")
    else:
        _show_layers(found)
    return 0


def _show_total(found: Cost, name: str) -> None:
    sizes = ", ".join(f"{k}={v}" for k, v in found.sizes.items())
    print(f"{name} at {sizes or 'its only size'}, {found.dtype}, {found.form}\n")
    rows: list[tuple[str, str, str, str]] = []
    for figure in FIGURES:
        number, formula = getattr(found, figure), found.formulas[figure]
        unit = "B" if figure.endswith("bytes") else ""
        rows.append((figure.replace("_", " "), f"{number:,}", short(number, unit), "" if isinstance(formula, int) else str(formula)))
    show_table(("", "exactly", "", "formula"), rows, right=(1, 2))
    if found.unknown:
        print(f"\nnot counted but for their parameters: {', '.join(found.unknown)}")


# ---------------------------------------------------------------- by layer
@record()
class Branch:
    """A row with those below it; `last` is the name of the last of the equal siblings that it stands for."""

    name: str
    row: Layer
    below: list[Branch] = field(default_factory=list["Branch"])
    last: str = ""

    def figures(self) -> tuple[object, ...]:
        r = self.row
        return r.block, r.params, r.macs, r.saved_bytes, r.output, r.calls, tuple((b.name, b.last, *b.figures()) for b in self.below)


def branches(rows: tuple[Layer, ...]) -> Branch:
    """The rows as a tree in which equal neighbours of one list (layers.3, layers.4, …) are one branch."""
    root = Branch("", rows[0])
    at = {"": root}
    for row in rows[1:]:
        above = row.path
        while above not in at:
            above = above.rpartition(".")[0]
        branch = at[row.path] = Branch(row.path[len(above):].lstrip("."), row)
        at[above].below.append(branch)
    _fold(root)
    return root


def _fold(branch: Branch) -> None:
    for b in branch.below:
        _fold(b)
    kept: list[Branch] = []
    for b in branch.below:
        if kept and _is_next(kept[-1].last or kept[-1].name, b.name) and kept[-1].figures() == b.figures():
            kept[-1].last = b.name
        else:
            kept.append(b)
    branch.below = kept


def _is_next(name: str, other: str) -> bool:
    (a, _, i), (b, _, j) = name.rpartition("."), other.rpartition(".")
    return a == b and i.isdecimal() and j.isdecimal() and int(j) == int(i) + 1


def _show_layers(found: Cost) -> None:
    root = branches(found.layers)
    rows = [("total", root.row.block, *_cells(root.row)), *_rows(root, 0)]
    show_table(("layer", "block", "params", "MACs", "saved", "output"), rows, right=(2, 3, 4))


def _rows(branch: Branch, depth: int) -> Iterator[tuple[str, ...]]:
    for b in branch.below:
        name = f"{b.name} to {b.last.rpartition('.')[2]}, each" if b.last else b.name
        yield ("  " * depth + name, b.row.block if b.row.block != b.name.partition(".")[0] else "", *_cells(b.row))
        yield from _rows(b, depth + 1)


def _cells(row: Layer) -> tuple[str, str, str, str]:
    times = f" ×{row.calls}" if row.calls > 1 else ""
    return f"{row.params:,}", short(row.macs), short(row.saved_bytes, "B"), f"{list(row.output)}{times}"
