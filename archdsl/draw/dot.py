"""The picture as Graphviz text, and through the program `dot` as SVG and PNG."""
from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from archdsl.cost.units import short
from archdsl.diagnostics.model import error
from archdsl.draw.view import Item, View
from archdsl.source import Source, Span

SECONDS = 60.0  # that `dot` may take: what it lays out in a minute nobody would read
Place = tuple[int, ...]
_PORT, _PLAIN, _BLOCK = (f'shape=box, style="{s},filled"' for s in ("rounded,dashed", "dotted", "rounded"))
_STYLES = {"input": _PORT, "output": _PORT, "op": _PLAIN, "ops": _PLAIN}


def dot_text(view: View) -> str:
    """A digraph: open blocks are clusters, folded ones have a second edge; colour is the share of the parameters."""
    return "\n".join(["digraph {", *("  " + line for line in _Writer(view).lines()), "}", ""])


def rendered(view: View, kind: str, path: str) -> bytes:
    """SVG or PNG. `path`: the file that was asked for, for messages. Raises A0662 without the program, A0663 when it fails."""
    return laid_out(dot_text(view), kind, path)


def laid_out(text: str, kind: str, path: str) -> bytes:
    """The same of any text for `dot`, which has SECONDS."""
    span = Span(Source("-o", path), 0, len(path))
    page = f"`-o {path.rpartition('.')[0] or path}.html` needs no program"
    program = shutil.which("dot")
    if program is None:
        raise error("A0662", f"{kind.upper()} needs the program `dot`, which is not on the PATH", span, "laid out by Graphviz",
                    help=("`apt install graphviz`, `brew install graphviz` or `winget install graphviz`", page))
    try:
        done = subprocess.run([program, f"-T{kind}"], input=text.encode(), capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise error("A0663", f"`dot` has not laid this out in {SECONDS:g} s", span, "too much for one picture",
                    help=("with a smaller `--nodes` fewer blocks are open, so that there is less to lay out", f"{page}, and opens at once")) from None
    except OSError as fault:
        raise error("A0663", f"`dot` could not be started: {fault.strerror or fault}", span, help=page) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[:400]
        raise error("A0663", f"`dot` could not draw this: {said or f'it ended with {done.returncode}'}", span, help=page)
    return done.stdout


class _Writer:
    def __init__(self, view: View):
        self.view, self.whole = view, max(view.root.params, 1)

    def lines(self) -> Iterator[str]:
        yield f"graph [compound=true, rankdir=TB, nodesep=0.3, ranksep=0.35, labelloc=t, fontname=Helvetica, label={_quoted(self.head())}]"
        yield 'node [fontname=Helvetica, fontsize=11, color="#8a8f98", fillcolor="#ffffff", margin="0.14,0.06", height=0.32]'
        yield 'edge [fontname=Courier, fontsize=9, color="#646b76", fontcolor="#646b76", arrowsize=0.6]'
        yield from self.inside(self.view.root, (), 1)

    def head(self) -> str:
        cost = self.view.cost
        sizes = ", ".join(f"{k}={v}" for k, v in cost.sizes.items())
        return f"{self.view.name}: {short(cost.params)} parameters, {short(cost.macs)} MACs at {sizes or 'its only size'}\n"

    def inside(self, item: Item, at: Place, times: int) -> Iterator[str]:
        for i, below in enumerate(item.below):
            place = (*at, i)
            if place in self.view.opened:
                yield f"subgraph {_quoted('cluster_' + _id(place))} {{"
                yield f'  graph [label={_left(self.label(below))}, labeljust=l, fontsize=11, style="rounded,filled", color="#8a8f98", ' \
                      f'fillcolor={_quoted(self.colour(below, times, 0.15))}]'
                yield from ("  " + line for line in self.inside(below, place, times * below.count))
                yield "}"
            else:
                yield self.node(below, place, times)
        for e in item.edges:
            if e.source is not None and e.target is not None:
                pairs = [(self.seen((*at, e.source), start, -1), self.seen((*at, e.target), end, 0)) for start, end in e.ends]
                for source, target in dict.fromkeys(pairs):
                    yield self.edge(source, target, e.label)

    def node(self, item: Item, place: Place, times: int) -> str:
        style = _STYLES.get(item.kind, _BLOCK) + (", peripheries=2" if item.count > 1 else "")
        return f"{_id(place)} [label={_quoted(self.label(item))}, tooltip={_quoted(self.told(item))}, {style}, " \
               f"fillcolor={_quoted(self.colour(item, times, 0.8))}]"

    def edge(self, source: Place, target: Place, label: str) -> str:
        ends = [f"label={_quoted(' ' + label)}"]
        first, last = self.leaf(source, -1), self.leaf(target, 0)
        if first != source:
            ends.append(f"ltail={_quoted('cluster_' + _id(source))}")
        if last != target:
            ends.append(f"lhead={_quoted('cluster_' + _id(target))}")
        return f"{_id(first)} -> {_id(last)} [{', '.join(ends)}]"

    def seen(self, place: Place, path: Place, end: int) -> Place:
        """A place, or the layer inside of it at the end of a path, as far as lists on the way are open. Whatever goes to the first layer, or comes
        from the last (`end` 0, -1), ends at the border of the list."""
        whole = place
        for i in path:
            if place not in self.view.opened:
                break
            place = (*place, i)
            if i != end % len(self.item(place[:-1]).below):
                whole = place
        return whole

    def leaf(self, place: Place, end: int) -> Place:
        """A node that is drawn: the first or the last one inside an open item."""
        while place in self.view.opened:
            item = self.item(place)
            place = (*place, end % len(item.below))
        return place

    def item(self, place: Place) -> Item:
        item = self.view.root
        for i in place:
            item = item.below[i]
        return item

    def label(self, item: Item) -> str:
        name = item.name + (f"  × {item.count}" if item.count > 1 else "")
        title = item.title if item.title != item.name else ""
        figures = [f"{short(item.params)} params{', shared' * item.shared}"] if item.params else []
        figures += [f"{short(item.macs)} MACs"] if item.macs else []
        each = " each" if item.count > 1 and figures else ""
        return "\n".join(line for line in (name, title, " · ".join(figures) + each) if line)

    def told(self, item: Item) -> str:
        saved = "" if item.saved_bytes is None else f", {short(item.saved_bytes, 'B')} kept for the backward pass"
        return f"{item.path or item.name}: {item.output}, here {item.shape}{saved}"

    def colour(self, item: Item, times: int, depth: float) -> str:
        """White to orange by the root of the share of all parameters."""
        share = min(item.params * item.count * times / self.whole, 1) ** 0.5 * depth
        return "#" + "".join(f"{round(255 + (hot - 255) * share):02x}" for hot in (0xE4, 0x63, 0x2B))


def _id(place: Place) -> str:
    return "n" + "_".join(map(str, place))


def _left(text: str) -> str:
    """A label whose lines begin at the left."""
    return _quoted(text + "\n").replace("\\n", "\\l")


def _quoted(text: Any) -> str:
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
