"""Two typed graphs side by side. Blocks are recognised by their structural hash, then by how alike they are: a block under another name is renamed,
one below another parent is moved, neither is removed and added."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from archdsl.diffing.align import aligned
from archdsl.diffing.notes import Note, notes_on
from archdsl.elaborate.builder import join
from archdsl.graph import Graph
from archdsl.records import field, record, replace

ALIKE = 0.5  # from here on two blocks of different names are one that was renamed
MOVED = 0.8  # from here on a block below another parent is one that was moved


@record(eq=False)
class Change:
    """One block before and after. `kind`: same, changed, removed, added. `place`: kept, renamed (below the same parent), shifted (another place in
    its list), moved (below another parent). `before`, `after`: full addresses, None where there is none. `notes`: what differs in the block
    itself. It stands for `count` equal neighbours, the last of them at `last_before`, `last_after`."""

    kind: str
    place: str
    before: str | None
    after: str | None
    graphs: tuple[Graph | None, Graph | None]
    notes: tuple[Note, ...] = ()
    below: list[Change] = field(default_factory=list["Change"])
    count: int = 1
    last_before: str | None = None
    last_after: str | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing differs here or below but indices in lists."""
        return self.kind == "same" and self.place in ("kept", "shifted")

    @property
    def blocks(self) -> tuple[str, str]:
        """The names of the blocks; empty where there is none."""
        a, b = self.graphs
        return a.name if a else "", b.name if b else ""

    @property
    def resized(self) -> bool:
        """Whether sizes, and the numbers of initialisers that may follow from them, are all that differs, here and below."""
        return self.kind == "changed" and all(n.size for n in self.notes) and all(b.silent or b.resized and b.place == "kept" for b in self.below)

    def walk(self) -> Iterator[Change]:
        yield self
        for b in self.below:
            yield from b.walk()


def compare(a: Graph, b: Graph, printed: tuple[bool, bool] = (False, False)) -> Change:
    """What happened between two models, all blocks in order, not folded. `printed`: which of them was read from a printed graph."""
    comparison = Comparison(_written_names(a) if printed[0] else {}, _written_names(b) if printed[1] else {})
    return _with_moves(comparison.pair(a, b, "", ""), comparison)


class Comparison:
    """Pairs blocks. Equal pairs of definitions are compared once."""

    def __init__(self, before: dict[str, str] | None = None, after: dict[str, str] | None = None) -> None:
        self.written = before or {}, after or {}
        self.features: dict[int, tuple[Counter[Any], Counter[Any]]] = {}
        self.parts: dict[int, set[str]] = {}
        self.scores: dict[tuple[str, str], float] = {}

    def pair(self, a: Graph, b: Graph, before: str, after: str, place: str = "kept") -> Change:
        if a.hash == b.hash:
            return Change("same", place, before, after, (a, b))
        pairs = self.children(_calls(a), _calls(b))
        names: dict[str, str] = {}
        below: list[Change] = []
        for x, y in pairs:
            if x is not None and y is not None:
                names[y[0]] = x[0]
                below.append(self.pair(x[1], y[1], join(before, x[0]), join(after, y[0]), _place(x[0], y[0])))
            elif x is not None:
                below.append(one_sided("removed", x[1], join(before, x[0])))
            elif y is not None:
                below.append(one_sided("added", y[1], join(after, y[0])))
        labels = a.name in before.split(".") and b.name in after.split(".")
        return Change("changed", place, before, after, (a, b), notes_on(a, b, names, not labels and not self.called_alike(a, b)), below)

    def called_alike(self, a: Graph, b: Graph) -> bool:
        """Whether two blocks have one name but for what printing a graph makes of it: a capital in front, a number behind."""
        left, right = self.written
        if not left and not right:
            return a.name == b.name
        x, y = left.get(a.name, a.name), right.get(b.name, b.name)
        return x[:1].upper() + x[1:] == y[:1].upper() + y[1:]

    # ---------------------------------------------------------------- which child is which
    def children(self, a: dict[str, Graph], b: dict[str, Graph]) -> list[tuple[Any, Any]]:
        """(before, after) pairs of (path, graph), in the order of the text; None for what has no counterpart."""
        left, right = _groups(a), _groups(b)
        matched = self.match(left, right)
        out: list[tuple[Any, Any]] = []
        done: set[str] = set()
        for label, items in left.items():
            other = matched.get(label)
            if other is not None:
                done.add(other)
                out += aligned(items, right[other], self.alike)
            else:
                out += [(item, None) for item in items]
        for i, (label, items) in enumerate(right.items()):
            if label not in done:
                out[_behind(out, list(right.values())[:i]):0] = [(None, item) for item in items]
        return out

    def match(self, left: dict[str, Any], right: dict[str, Any]) -> dict[str, str]:
        """Label before -> label after: what is equal, by label if it can be; then what has the same label; then what is alike, of several such the
        one that stands at the like place: a norm behind a branch is that behind the other branch, not the one in front of it."""
        scores = [(self.group_score(xs, ys), x == y, -abs(i / len(left) - j / len(right)), -i, -j, x, y)
                  for i, (x, xs) in enumerate(left.items()) for j, (y, ys) in enumerate(right.items())]
        scores.sort(key=lambda s: (s[0] == 1.0, s[1], *s), reverse=True)
        scores = [s for s in scores if not self.wraps(left[s[-2]], right[s[-1]])]
        found: dict[str, str] = {}
        for score, same, *_, x, y in scores:
            if (score >= ALIKE or same) and x not in found and y not in found.values():
                found[x] = y
        return found

    def group_score(self, xs: list[tuple[str, Graph]], ys: list[tuple[str, Graph]]) -> float:
        """Of two lists: that of their best pair; single blocks are lists of one."""
        if _is_list(xs) != _is_list(ys):
            return 0.0
        kinds_x, kinds_y = ({g.hash: g for _, g in items}.values() for items in (xs, ys))
        return max(self.alike(x, y) for x in list(kinds_x)[:8] for y in list(kinds_y)[:8])

    def wraps(self, xs: list[tuple[str, Graph]], ys: list[tuple[str, Graph]]) -> bool:
        """Whether one block is a part of the other: it was moved into it, or out of it, rather than changed to it."""
        (_, a), (_, b) = xs[0], ys[0]
        return len(xs) == len(ys) == 1 and any(x.children and x.hash in self.inside(y) for x, y in ((a, b), (b, a)))

    def inside(self, g: Graph) -> set[str]:
        """The hashes of the blocks below a block."""
        if id(g) not in self.parts:
            self.parts[id(g)] = {d.hash for d in g.definitions() if d is not g}
        return self.parts[id(g)]

    def alike(self, a: Graph, b: Graph) -> float:
        """From 0 to 1: ops, weights and blocks in common, a fifth of it for equal sizes."""
        if a.hash == b.hash:
            return 1.0
        key = a.hash, b.hash
        if key not in self.scores:
            (free_a, sized_a), (free_b, sized_b) = self.of(a), self.of(b)
            self.scores[key] = min(0.8 * _common(free_a, free_b) + 0.2 * _common(sized_a, sized_b), 0.999)
        return self.scores[key]

    def of(self, g: Graph) -> tuple[Counter[Any], Counter[Any]]:
        """What a definition and all below it consist of, without sizes and with them."""
        if id(g) not in self.features:
            free: Counter[Any] = Counter([("block", g.name)])
            sized: Counter[Any] = Counter()
            for p in g.params:
                name = p.path.rpartition(".")[2]
                free[("weight", name, len(p.type.shape))] += 1
                sized[(name, p.type)] += 1
            for n in g.nodes:
                if n.op not in ("input", "param", "call", "phase"):
                    free[n.op] += 1
            for inner in (g for n in g.nodes for g in n.attrs.values() if isinstance(g, Graph)):
                below = self.of(inner)
                free.update(below[0])
                sized.update(below[1])
            self.features[id(g)] = free, sized
        return self.features[id(g)]


def _common(a: Counter[Any], b: Counter[Any]) -> float:
    either = (a | b).total()
    return (a & b).total() / either if either else 1.0


def _written_names(graph: Graph) -> dict[str, str]:
    """Of a printed graph: the name of each definition -> that without the number which tells it from others of its name."""
    names = {g.name for g in graph.definitions()}
    return {n: base if n != (base := re.sub(r"_\d+$", "", n)) and base in names else n for n in names}


def _calls(graph: Graph) -> dict[str, Graph]:
    """Path -> the block that is first called there."""
    found: dict[str, Graph] = {}
    for n in graph.nodes:
        if n.op == "call":
            found.setdefault(n.attrs["path"], n.attrs["graph"])
    return found


def _groups(calls: dict[str, Graph]) -> dict[str, list[tuple[str, Graph]]]:
    """Blocks by label: the layers of a loop are one group, in order."""
    out: dict[str, list[tuple[str, Graph]]] = {}
    for path, graph in calls.items():
        label, _, index = path.rpartition(".")
        out.setdefault(f"{label}.*" if label and index.isdecimal() else path, []).append((path, graph))
    return out


def _is_list(items: list[tuple[str, Graph]]) -> bool:
    return items[0][0].rpartition(".")[2].isdecimal()


def _behind(out: list[tuple[Any, Any]], before: list[list[tuple[str, Graph]]]) -> int:
    """Where in `out` a new group belongs: behind the last of those that stand before it in the text."""
    paths = {path for items in before for path, _ in items}
    return max((i + 1 for i, (_, y) in enumerate(out) if y is not None and y[0] in paths), default=0)


def _place(x: str, y: str) -> str:
    if x == y:
        return "kept"
    (a, _, i), (b, _, j) = x.rpartition("."), y.rpartition(".")
    return "shifted" if a == b and i.isdecimal() and j.isdecimal() else "renamed"


# ---------------------------------------------------------------- what is on one side alone
def one_sided(kind: str, g: Graph, address: str) -> Change:
    """A block and all below it, removed or added."""
    below = [one_sided(kind, c, join(address, path)) for path, c in _calls(g).items()]
    ends = (address, None) if kind == "removed" else (None, address)
    return Change(kind, "kept", *ends, (g, None) if kind == "removed" else (None, g), (), below)


def _with_moves(root: Change, comparison: Comparison) -> Change:
    """Removed blocks that were added below another parent are moves, at their new place: equal ones first, then those that are alike."""
    every = list(root.walk())
    removed = [c for c in every if c.kind == "removed" and c.graphs[0] is not None and c.graphs[0].owns_weights]
    added = [c for c in every if c.kind == "added" and c.graphs[1] is not None and c.graphs[1].owns_weights]
    scored = sorted(((comparison.alike(x.graphs[0], y.graphs[1]), x.graphs[0].weight_count, -i, -j)  # type: ignore[union-attr, arg-type]
                     for i, x in enumerate(removed) for j, y in enumerate(added) if _may_move(x, y)), reverse=True)
    gone: set[int] = set()
    moved: dict[int, Change] = {}
    for score, _, i, j in scored:
        old, new = removed[-i], added[-j]
        (a, _), (_, b) = old.graphs, new.graphs
        inside = {id(c) for c in (*old.walk(), *new.walk())}
        if score >= MOVED and not inside & gone and a is not None and b is not None:
            gone |= inside
            moved[id(new)] = comparison.pair(a, b, old.before or "", new.after or "", "moved")

    def rebuilt(c: Change) -> Change:
        return replace(c, below=[moved[id(b)] if id(b) in moved else rebuilt(b) for b in c.below if id(b) in moved or id(b) not in gone])

    return rebuilt(root)


def _may_move(x: Change, y: Change) -> bool:
    """Blocks of one name or content. One that calls no other has no face of its own: it has to keep the end of its address as well."""
    a, b = x.graphs[0], y.graphs[1]
    if a is None or b is None or not (a.hash == b.hash or a.name == b.name and a.children and b.children):
        return False
    return bool(a.children) or (x.before or "").rpartition(".")[2] == (y.after or "").rpartition(".")[2]


# ---------------------------------------------------------------- folding
def folded(change: Change) -> Change:
    """The same with equal neighbours of one list as one."""
    out: list[Change] = []
    for c in map(folded, change.below):
        if out and _continues(out[-1], c):
            out[-1] = replace(out[-1], count=out[-1].count + 1, last_before=c.before, last_after=c.after)
        else:
            out.append(c)
    return replace(change, below=out)


def _continues(a: Change, b: Change) -> bool:
    return (_next(a.last_before or a.before, b.before) and _next(a.last_after or a.after, b.after) and _looks(a, a) == _looks(b, b))


def _next(x: str | None, y: str | None) -> bool:
    if x is None or y is None:
        return x is y
    (a, _, i), (b, _, j) = x.rpartition("."), y.rpartition(".")
    return a == b and i.isdecimal() and j.isdecimal() and int(j) == int(i) + 1


def looks(c: Change) -> tuple[Any, ...]:
    """What is seen of a change, whichever layer of its list it is. A layer that stands elsewhere in the list looks as one that does not."""
    return ("" if c.place in ("kept", "shifted") else c.place, *_looks(c, c)[:1], *_looks(c, c)[2:])


def _looks(c: Change, top: Change) -> tuple[Any, ...]:
    """What is seen of a change, addresses relative to `top`."""
    ends = ((c.before or "")[len(top.before or ""):], (c.after or "")[len(top.after or ""):]) if c is not top else ("", "")
    notes = tuple([n.of(True) for n in c.notes])
    return c.kind, c.place, ends, c.blocks, notes, c.count if c is not top else 1, tuple(_looks(b, top) for b in c.below)
