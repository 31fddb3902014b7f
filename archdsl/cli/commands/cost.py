"""archdsl cost: what a model costs, before any tensor exists."""
from __future__ import annotations

from collections.abc import Iterator

from archdsl.cli.output import show_json, show_table
from archdsl.cli.source import open_source, read_settings
from archdsl.cost import FIGURES, Cost, Decoding, Layer, decode
from archdsl.cost import cost as count
from archdsl.cost.devices import device as named_device
from archdsl.cost.sizes import parse_sizes
from archdsl.cost.units import seconds, short
from archdsl.diagnostics.model import error
from archdsl.files import write_whole
from archdsl.records import field, record, replace
from archdsl.repeats import fold
from archdsl.source import Source, Span


def cost(source: str, at: list[str], settings: list[str], by: str | None, form: str | None, dtype: str, json: bool,
         device: str | None = None, plot: str | None = None) -> int:
    """Prints the figures and their formulas, or with `by` one row a layer. With `device` or `plot` the cost of a step, and of decoding."""
    sizes, spans = parse_sizes(",".join(at)) if at else ({}, {})
    on = named_device(device) if device is not None else None
    if plot is not None and not plot.lower().endswith(".svg"):
        raise error("A0647", f"`{plot}` does not end in .svg", Span(Source("--plot", plot), 0, len(plot)), "another kind of file")
    opened = open_source(source)
    made, sizes = opened.spec.sized(opened.variant, sizes, read_settings(settings))
    name = f"{opened.spec.name}{f'.{opened.variant}' if opened.variant else ''}"
    if device is not None or plot is not None:
        _decoding(decode(made, sizes, dtype, on), name, plot, json)
        return 0
    found = count(made, sizes, form, dtype, spans)
    if json:
        show_json(found.to_json(by_layer=by is not None))
    elif by is None:
        _show_total(found, name)
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
    if found.delay:
        print(f"\nresults come {found.delay} position{'s' * (found.delay > 1)} late: an op looks ahead")
    for line in found.rewritten:
        print(f"\n{line}")
    if found.unknown:
        print(f"\nnot counted but for their parameters: {', '.join(found.unknown)}")


# ---------------------------------------------------------------- decoding
def _decoding(found: Decoding, name: str, plot: str | None, json: bool) -> None:
    if plot is not None:
        from archdsl.cost.plot import svg

        write_whole(plot, svg(found, name).encode())
    if json:
        show_json({**found.step.to_json(), "decoding": found.to_json()})
        return
    _show_total(found.step, name)
    print()
    timed = found.device is not None
    rows = [(f"{c.length:,}", short(c.state_bytes, "B"), f"{c.per_token:,} B", short(c.macs), *([seconds(c.seconds or 0), c.bound or ""] * timed))
            for c in found.contexts]
    show_table(("context", "state", "added by a token", "MACs", *(("least time", "bound by") if timed else ())), rows, right=(0, 1, 2, 3, 4))
    if found.device is not None:
        d = found.device
        print(f"\n{d.title}: {d.bandwidth / 1e9:,.0f} GB/s, {d.flops[found.step.dtype] / 1e12:,.1f} TFLOP/s in {found.step.dtype} ({d.source})")
    if plot is not None:
        print(f"\n{plot} written")


# ---------------------------------------------------------------- by layer
@record()
class Branch:
    """A row with those below it. One that stands for several siblings: `last` is the name of the last of them, `period` how many of them the row is
    of and stand below it, where they are not all equal."""

    name: str
    row: Layer
    below: list[Branch] = field(default_factory=list["Branch"])
    last: str = ""
    period: int = 1

    def figures(self) -> tuple[object, ...]:
        r = self.row
        return r.block, r.params, r.macs, r.saved_bytes, r.output, r.calls, tuple((b.name, b.last, *b.figures()) for b in self.below)

    def look(self) -> tuple[object, ...]:
        """Equal for siblings of one list that are the same but for their numbers."""
        inside = tuple(b.look() for b in self.below) if self.period > 1 else self.figures()
        return self.period, self.ends[1] - self.ends[0], inside

    @property
    def ends(self) -> tuple[int, int]:
        """The numbers of the first and the last in the list."""
        return _place(self.name)[1], _place(self.last or self.name)[1]


def branches(rows: tuple[Layer, ...]) -> Branch:
    """The rows as a tree in which equal neighbours of one list (layers.3, layers.4, …), and patterns of them that repeat, are one branch."""
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
    lists: list[list[Branch]] = []
    for b in branch.below:
        label, at = _place(b.name)
        if not (lists and at > 0 and (label, at - 1) == _place(lists[-1][-1].name)):
            lists.append([])
        lists[-1].append(b)
    branch.below = [b for of in lists for b in fold(of, Branch.look, _repeat)]


def _place(name: str) -> tuple[str, int]:
    """(label, index) of an item of a list; -1 for what is none."""
    label, _, index = name.rpartition(".")
    return (label, int(index)) if index.isdecimal() else (name, -1)


def _repeat(group: list[Branch], period: int, count: int) -> Branch:
    """`count` times the same `period` siblings: one of them, or a row of their sums."""
    first, last = group[:period], group[-1].last or group[-1].name
    if period == 1:
        return replace(first[0], last=last)
    times = [b.ends[1] - b.ends[0] + 1 if b.period == 1 else (b.ends[1] - b.ends[0] + 1) // b.period for b in first]
    sums = {f: sum(n * getattr(b.row, f) for b, n in zip(first, times)) for f in ("params", "macs", "saved_bytes")}
    blocks = list(dict.fromkeys(b.row.block for b in first))
    row = replace(first[-1].row, block=blocks[0] if len(blocks) == 1 else "", calls=1, **sums)
    return Branch(first[0].name, row, fold(first, Branch.look, _repeat), last, first[-1].ends[1] - first[0].ends[0] + 1)


def _show_layers(found: Cost) -> None:
    root = branches(found.layers)
    rows = [("total", root.row.block, *_cells(root.row)), *_rows(root, 0)]
    show_table(("layer", "block", "params", "MACs", "saved", "output"), rows, right=(2, 3, 4))


def _rows(branch: Branch, depth: int) -> Iterator[tuple[str, ...]]:
    for b in branch.below:
        name = f"{b.name} to {b.last.rpartition('.')[2]}, each{f' {b.period}' if b.period > 1 else ''}" if b.last else b.name
        yield ("  " * depth + name, b.row.block if b.row.block != b.name.partition(".")[0] else "", *_cells(b.row))
        yield from _rows(b, depth + 1)


def _cells(row: Layer) -> tuple[str, str, str, str]:
    times = f" ×{row.calls}" if row.calls > 1 else ""
    return f"{row.params:,}", short(row.macs), short(row.saved_bytes, "B"), f"{list(row.output)}{times}"
