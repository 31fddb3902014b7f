"""Costs by address: the tree of blocks as rows, each block's figures computed once."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archdsl.cost.run import Call, Summary
from archdsl.dims import product
from archdsl.graph import Graph

COUNTED = ("param", "frozen")


@dataclass(frozen=True, slots=True)
class Layer:
    """A block and all below it. `saved_bytes`: what is kept there first (a tensor that several ops keep counts once, where it is first kept).
    `output`: the shape of its first result at these sizes. `calls`: how often it is applied; shared weights count once, the rest for all calls."""

    path: str
    block: str
    params: int
    macs: int
    saved_bytes: int
    output: tuple[int, ...]
    calls: int = 1


def count_params(graph: Graph, memo: dict[int, int] | None = None) -> int:
    """Numbers in the parameters that a graph owns, frozen ones included, buffers not."""
    memo = {} if memo is None else memo
    found = memo.get(id(graph))
    if found is None:
        own = sum(int(product(p.type.shape)) for p in graph.params if p.kind in COUNTED)
        found = memo[id(graph)] = own + sum(count_params(c, memo) for c in graph.children.values())
    return found


def layers(graph: Graph, forward: Summary, training: Summary, inputs: Mapping[int, int]) -> tuple[Layer, ...]:
    """Rows in order of application, the model itself first. `inputs`: bytes of the model's inputs by storage."""
    params = _params_by_path(graph)
    saved: dict[str, int] = {}
    saved[""] = _saved(training, "", dict(inputs), saved)
    rows: dict[str, Layer] = {"": Layer("", graph.name, params[""], _int(forward.macs), 0, forward.outputs[0].place.extent)}
    _forward(forward, "", params, rows)
    return tuple(Layer(r.path, r.block, r.params, r.macs, saved.get(p, 0), r.output, r.calls) for p, r in rows.items())


def _int(size: object) -> int:
    assert isinstance(size, int)
    return size


def _params_by_path(graph: Graph) -> dict[str, int]:
    memo: dict[int, int] = {}
    found: dict[str, int] = {}

    def visit(g: Graph, path: str) -> None:
        found[path] = count_params(g, memo)
        for name, child in g.children.items():
            visit(child, f"{path}.{name}" if path else name)

    visit(graph, "")
    return found


def _forward(summary: Summary, path: str, params: dict[str, int], rows: dict[str, Layer]) -> None:
    for call in summary.calls:
        s = call.summary
        if call.path:  # the arms of a phase have no address of their own
            inner = f"{path}.{call.path}" if path else call.path
            before = rows.get(inner)
            macs, calls = (before.macs, before.calls) if before else (0, 0)
            rows[inner] = Layer(inner, s.definition.source.name, params.get(inner, 0), macs + _int(s.macs), 0, s.outputs[0].place.extent, calls + 1)
            _forward(s, inner, params, rows)
        else:
            _forward(s, path, params, rows)


def _saved(summary: Summary, path: str, free: dict[int, int], rows: dict[str, int]) -> int:
    """Bytes that a block and those below keep first. `free`: its input storages that nothing has kept yet, with their bytes; those it keeps
    are taken out."""
    waiting = {i: _int(b) for i, b in enumerate(summary.bytes) if i >= summary.slots and i not in summary.weights} | free
    total = 0
    for item in summary.kept:
        if not isinstance(item, Call):
            total += sum(waiting.pop(i, 0) for i in item)
            continue
        inside = {k: waiting[i] for k, i in enumerate(item.slots) if i in waiting}
        given = set(inside)
        inner = (f"{path}.{item.path}" if path else item.path) if item.path else path
        kept = _saved(item.summary, inner, inside, rows)
        total += kept
        if item.path:
            rows[inner] = rows.get(inner, 0) + kept
        for i in (*(item.slots[k] for k in given - inside.keys()), *(item.news[j] for j in item.summary.kept_news)):
            waiting.pop(i, None)
    for i in [i for i in free if i not in waiting]:
        del free[i]
    return total
