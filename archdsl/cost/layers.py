"""Costs by address: the tree of blocks as rows. What a block comes to is found once for each way it is called."""
from __future__ import annotations

from collections.abc import Iterable
from math import prod

from archdsl.cost.summary import Summary, whole
from archdsl.elaborate.builder import join
from archdsl.graph import Graph
from archdsl.records import record, replace

COUNTED = ("param", "frozen")


@record(frozen=True)
class Layer:
    """A block and all below it. `saved_bytes`: of the tensors made there, those that autograd keeps, for whichever op; the model's kept inputs
    are in its own row. `output`: the shape of the first result. `calls`: how often the block is applied: shared weights count once, the
    rest for all calls."""

    path: str
    block: str
    params: int
    macs: int
    saved_bytes: int
    output: tuple[int, ...]
    calls: int = 1


def layers(graph: Graph, forward: Summary, training: Summary, kept_inputs: int) -> tuple[Layer, ...]:
    """Rows in order of application, the model itself first. `kept_inputs`: bytes of its inputs that autograd keeps."""
    params, saved = _params(graph), _Saved().rows(training, frozenset())
    rows = {p: replace(r, params=params.get(p, 0), saved_bytes=saved.get(p, 0)) for p, r in _Forward().rows(forward).items()}
    rows[""] = replace(rows[""], saved_bytes=rows[""].saved_bytes + kept_inputs)
    return tuple(rows.values())


# ---------------------------------------------------------------- parameters
def count_params(graph: Graph, memo: dict[int, int] | None = None) -> int:
    """Numbers in the parameters that a graph owns, frozen ones included, buffers not."""
    memo = {} if memo is None else memo
    found = memo.get(id(graph))
    if found is None:
        own = sum(prod(map(whole, p.type.shape)) for p in graph.params if p.kind in COUNTED)
        found = memo[id(graph)] = own + sum(count_params(c, memo) for c in graph.children.values())
    return found


def _params(graph: Graph) -> dict[str, int]:
    memo: dict[int, int] = {}
    found: dict[str, int] = {}

    def visit(g: Graph, path: str) -> None:
        found[path] = count_params(g, memo)
        for name, child in g.children.items():
            visit(child, join(path, name))

    visit(graph, "")
    return found


# ---------------------------------------------------------------- runs
class _Forward:
    """Rows below a block in its own addresses, without parameters and saved bytes. The arms of a phase have no address of their own."""

    def __init__(self) -> None:
        self.known: dict[int, dict[str, Layer]] = {}

    def rows(self, s: Summary) -> dict[str, Layer]:
        if id(s) not in self.known:
            found = {"": Layer("", s.definition.source.name, 0, whole(s.macs), 0, s.outputs[0].place.extent)}
            for call in s.calls:
                for inner, row in self.rows(call.summary).items():
                    path = join(call.path, inner)
                    if path:
                        macs, calls = (found[path].macs, found[path].calls) if path in found else (0, 0)
                        found[path] = replace(row, path=path, macs=row.macs + macs, calls=row.calls + calls)
            self.known[id(s)] = found
        return self.known[id(s)]


class _Saved:
    """Bytes made and kept in a block and in those below, by address. `outside`: its results that are kept further up, by number."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, frozenset[int]], dict[str, int]] = {}

    def rows(self, s: Summary, outside: frozenset[int]) -> dict[str, int]:
        key = id(s), outside
        if key not in self.known:
            kept = s.kept | {s.news[j] for j in outside}
            inner = {i for call in s.calls for i in call.news}
            found = {"": self._bytes(s, (i for i in kept if i >= s.slots and i not in inner))}
            for call in s.calls:
                below = self.rows(call.summary, frozenset(j for j, i in enumerate(call.news) if i in kept))
                found[""] += below[""]
                for path, size in below.items():
                    if path or call.path:
                        found[join(call.path, path)] = found.get(join(call.path, path), 0) + size
            self.known[key] = found
        return self.known[key]

    @staticmethod
    def _bytes(s: Summary, storages: Iterable[int]) -> int:
        return sum(whole(s.bytes[i]) for i in storages if i not in s.weights)
