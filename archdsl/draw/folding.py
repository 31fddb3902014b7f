"""Equal neighbours as one: runs of equal layers, patterns that repeat, plain ops in a row."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from archdsl.elaborate.values import is_list
from archdsl.graph import Graph, Mask, Node, Value
from archdsl.ops.registry import find
from archdsl.records import field, record, replace
from archdsl.repeats import fold
from archdsl.source import Span

if TYPE_CHECKING:
    from archdsl.draw.view import Item

FEW = 3  # plain ops in a row become one from here on; and so many names are told
Container = Callable[..., Any]


@record(eq=False)
class Part:
    """An item while it is made: the nodes that it stands for, and what it will hold. `key`: equal for what looks the same; None: never folded."""

    item: Item
    nodes: list[Node]
    key: Any = None
    below: list[Part] = field(default_factory=list["Part"])
    reads: list[Value] = field(default_factory=list[Value])

    def operands(self) -> Iterator[Value]:
        yield from self.reads
        for n in self.nodes:
            yield from n.operands()


class Looks:
    """One number for all definitions that a picture shows alike: drop rates may differ, and so may initial values."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}
        self.numbers: dict[Any, int] = {}

    def of(self, graph: Graph) -> int:
        if id(graph) not in self.known:
            places = {id(n): i for i, n in enumerate(graph.nodes)}

            def wire(a: Any) -> Any:
                if isinstance(a, Value):
                    return ("@", a.node.attrs["path"]) if a.node.op == "param" else ("%", places[id(a.node)], a.index)
                if isinstance(a, Graph):
                    return "graph", self.of(a)
                if isinstance(a, Mask):
                    return a.kind, *map(wire, a.args)
                return tuple(map(wire, a)) if is_list(a) else (type(a).__name__, a)

            nodes = tuple((n.op, wire(n.args), _shape_of(n, wire), n.types) for n in graph.nodes if n.op != "param")
            weights = tuple((p.path, p.kind, p.type) for p in graph.params)
            form = graph.name, nodes, weights, wire(graph.outputs)
            self.known[id(graph)] = self.numbers.setdefault(form, len(self.numbers))
        return self.known[id(graph)]


def _shape_of(n: Node, wire: Callable[[Any], Any]) -> tuple[Any, ...]:
    """The attributes of a node but its drop rate, and the name of an input."""
    op = find(n.op)
    rate = {"rate"} if op is not None and op.random and op.phase else set[str]()
    return tuple((k, wire(v)) for k, v in sorted(n.attrs.items()) if k not in rate and not (n.op == "input" and k == "name"))


def folded(parts: list[Part], container: Container) -> list[Part]:
    """Parts in order of evaluation, folded. Only neighbours join, so a picture of the result has no circles."""
    while (found := _passes(parts, container)) is not parts:
        parts = found
    out: list[Part] = []
    at = 0
    while at < len(parts):
        end = _list_end(parts, at)
        if end - at > 1:
            out.append(_layers(parts[at:end], container))
            at = end
            continue
        end = _plain_end(parts, at)
        if end - at >= FEW:
            out.append(_ops(parts[at:end], container))
            at = end
            continue
        out.append(parts[at])
        at += 1
    return out


# ---------------------------------------------------------------- layers
def _place(part: Part) -> tuple[str, int] | None:
    """(label, index) of an item of a list."""
    label, _, index = part.item.path.rpartition(".")
    return (label, int(index)) if part.item.kind in ("block", "list") and label and index.isdecimal() else None


def _pass(part: Part) -> tuple[str, int] | None:
    """(label, index) of the outermost loop that a block is applied in: of `layers.6.link` (layers, 6)."""
    steps = part.item.path.split(".") if part.item.kind == "block" else []
    at = next((i for i, s in enumerate(steps) if i and s.isdecimal()), 0)
    return (".".join(steps[:at]), int(steps[at])) if at else None


def _passes(parts: list[Part], container: Container) -> list[Part]:
    """The passes of a loop that stand in the graph itself, as they reach blocks that are shared further out, each as one item. What has no address
    in the loop is of the pass around it; where the text does not tell where one ends, that between two passes is of the one that is no block of its
    own. Of one loop at a time; the same list where there is none."""
    places = [_pass(p) for p in parts]
    label = next((place[0] for p, place in zip(parts, places) if place and place != _place(p) and _pass_of(parts, places, place[0])), None)
    if label is None:
        return parts
    own = [place[1] if place and place[0] == label else None for place in places]
    at = [i for i, n in enumerate(own) if n is not None]
    body = _body(parts[at[0] : at[-1] + 1])
    for a, b in pairwise(at):
        whole = parts[b].item.path == f"{label}.{own[b]}"
        if body and own[a] != own[b]:
            begins = min(range(a + 1, b + 1), key=lambda i: _end(parts[i]))  # of a pass, what is first ends first
            own[a + 1 : b] = [own[a]] * (begins - a - 1) + [own[b]] * (b - begins)
        else:
            own[a + 1 : b] = [own[a] if own[a] == own[b] or whole and parts[a].item.path != f"{label}.{own[a]}" else own[b]] * (b - a - 1)
    first, last = at[0] - 1, at[-1] + 1
    while first >= 0 and parts[first].nodes[:1] and parts[first].nodes[0].span in body and _end(parts[first]) <= _end(parts[first + 1]):
        own[first] = own[at[0]]
        first -= 1
    while last < len(parts) and parts[last].nodes[:1] and parts[last].nodes[0].span in body and _end(parts[last - 1]) <= _end(parts[last]):
        own[last] = own[at[-1]]
        last += 1
    out: list[Part] = []
    for i, (part, n) in enumerate(zip(parts, own)):
        if n is None or part.item.path == f"{label}.{n}" and own.count(n) == 1:
            out.append(part)
        elif i == 0 or own[i - 1] != n:
            mine = [p for p, m in zip(parts, own) if m == n]
            inside = folded([replace(p) for p in mine], container)
            item = container("list", f"{label}.{n}", listed(t for p in mine for t in [p.item.title] if p.item.kind == "block"),
                             [p.item for p in inside], f"{label}.{n}", f"{label}.{n}")
            out.append(Part(item, [x for p in mine for x in p.nodes], None, inside))
    return out


def _end(part: Part) -> int:
    """Where what a part stands for ends in the text: later parts of one pass of a loop end later, or at the same place."""
    return part.nodes[0].span.end if part.nodes else 0


def _body(parts: list[Part]) -> set[Span]:
    """The places of a loop's statements, where several passes are evaluated from the same ones; empty where each has a text of its own."""
    spans = [p.nodes[0].span for p in parts if p.nodes]
    return set(spans) if len(set(spans)) < len(spans) and len({s.source for s in spans}) == 1 else set()


def _pass_of(parts: list[Part], places: list[tuple[str, int] | None], label: str) -> bool:
    """Whether a loop has several passes that follow each other."""
    found = [place[1] for place in places if place and place[0] == label]
    return found == sorted(found) and len(set(found)) > 1


def _list_end(parts: list[Part], at: int) -> int:
    """The end of the items of one list that start here, one directly behind the other."""
    end = at + 1
    while end < len(parts) and (here := _place(parts[end - 1])) and (there := _place(parts[end])) and there == (here[0], here[1] + 1):
        end += 1
    return end


def _layers(parts: list[Part], container: Container) -> Part:
    """The layers of a loop: one item `× n` where all are equal, else a list of what is left after folding."""
    label, first, last = parts[0].item.path.rpartition(".")[0], parts[0].item.path, parts[-1].item.path
    inside = repeats(parts, container)
    if len(inside) == 1:
        return inside[0]
    item = container("list", label, f"{len(parts)} layers", [p.item for p in inside], first, last)
    if not item.shares:  # rounded means of folded ones lose some bytes
        item.saved_bytes = sum(p.item.saved_bytes or 0 for p in parts)
    return Part(item, [n for p in parts for n in p.nodes], None, inside)


def repeats(parts: list[Part], container: Container) -> list[Part]:
    """Neighbours that look the same, and patterns of them, as one."""
    return fold(parts, lambda p: p.key, lambda group, period, count: _repeat(group, period, count, container))


def _repeat(group: list[Part], period: int, count: int, container: Container) -> Part:
    """`count` times the same `period` neighbours as one."""
    first, nodes = [_mean(group[i::period]) for i in range(period)], [n for p in group for n in p.nodes]
    key = (count, *(p.key for p in first))
    start, end = first[0].item.path, group[-1].item.last or group[-1].item.path
    name = f"{start} to {end.rpartition('.')[2]}"
    if period == 1 and first[0].item.kind == "block":
        return Part(replace(first[0].item, name=name, last=end, count=count), nodes, key, first[0].below)
    title = listed(p.item.title for p in first)
    return Part(container("repeat", name, title, [p.item for p in first], start, end, count), nodes, key, first)


def listed(names: Iterable[str]) -> str:
    """Different names, the first ones of many."""
    found = [n for n in dict.fromkeys(names) if n != "…"]
    return " · ".join(found[:FEW]) + (" · …" if len(found) > FEW else "")


def _mean(parts: list[Part]) -> Part:
    """The first of parts that look the same. The first and the last layer of a list may keep more or fewer bytes than the others."""
    saved = [p.item.saved_bytes for p in parts if p.item.saved_bytes is not None]
    if len(set(saved)) < 2:
        return parts[0]
    return replace(parts[0], item=replace(parts[0].item, saved_bytes=round(sum(saved) / len(saved))))


# ---------------------------------------------------------------- plain ops
def _plain_end(parts: list[Part], at: int) -> int:
    end = at
    while end < len(parts) and parts[end].item.kind == "op" and not parts[end].item.macs and not parts[end].item.unknown:
        end += 1
    return end


def _ops(parts: list[Part], container: Container) -> Part:
    item = container("ops", listed(p.item.name for p in parts), f"{len(parts)} ops", [p.item for p in parts])
    return Part(item, [n for p in parts for n in p.nodes], None, parts)
