# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportReturnType=false, reportOptionalMemberAccess=false, reportIndexIssue=false
# pyright: reportOptionalSubscript=false, reportAssignmentType=false
# (what a node is given may be a node, a number, a tuple of these; which it is follows from what the node calls)
"""What a step computes along with a recurrence, whose state is then changed where it lies: rates in front of it, gates and norms of heads behind."""
from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from archdsl.decoding import patterns as p
from archdsl.decoding import states as _states  # noqa: F401  (registers the torch ops)

if TYPE_CHECKING:
    from archdsl.decoding.stages import Stage
    from archdsl.lower.module import ArchModule

RANK = 64
"""The most numbers of a low-rank rate that each program maps by itself."""
OF_ANY_TYPE = ("decode_gla", "decode_ssd")
"""Our ops that change a memory in place, whatever type it is kept in."""


def fuse_states(graph: fx.Graph, module: ArchModule) -> None:
    """Rewrites a graph in place, whatever the number of rows."""
    target = type(module).definition.target
    for node in list(graph.nodes):
        rewrite = {"gla": _gla, "ssd": _ssd, "causal_conv": _conv}.get(p.ours(node))
        if rewrite is not None and p.ASKED not in node.meta and len(node.args) >= 4 and not node.kwargs:
            rewrite(graph, module, node)
    if not p.asked(target, "swiglu"):
        for node in list(graph.nodes):
            _head_norm(graph, node)
    graph.eliminate_dead_code(p.stays)


def memories(stage: Stage) -> list[str]:
    """The addresses of the state that nothing but ops of OF_ANY_TYPE reads."""
    comes = [n for n in stage.graph.nodes if n.target is operator.getitem and isinstance(n.args[1], str) and n.args[0].op == "placeholder"]
    readers = {n.args[1]: [*_readers(stage, n)] for n in comes}
    return [address for address, found in readers.items() if found and all(p.ours(n) in OF_ANY_TYPE for n in found)]


def _readers(stage: Any, value: fx.Node) -> Iterator[fx.Node]:
    """The nodes that compute something of a value, in the stages that it is given to too."""
    for node in value.users:
        if node.op == "call_module" and hasattr(inner := stage.get_submodule(str(node.target)), "graph"):
            inputs = [n for n in inner.graph.nodes if n.op == "placeholder"]
            for given, within in zip(node.args, inputs, strict=True):
                if given is value:
                    yield from _readers(inner, within)
        elif node.op != "output":
            yield node


def convolve(graph: fx.Graph, module: ArchModule) -> None:
    """Of few rows: a short convolution of some columns of a linear map is computed with it."""
    for node in list(graph.nodes):
        if p.ours(node) != "decode_conv":
            continue
        u, taps, bias, tail, act = node.args
        split = u.args[0] if u.target is operator.getitem else None
        if split is None or split.target is not torch.split or split.kwargs != {"dim": -1} or len(u.users) != 1:
            continue
        whole, sizes = split.args
        if p.ours(whole) != "decode_linears" or len(whole.users) != 1 or len(whole.args[1]) != 1 or p.shape(module, taps)[1] < 2:
            continue
        x, (weight,), (with_bias,), norm, eps, activation, residual = whole.args
        if activation != "identity" or residual is not None:
            continue
        p.bring(whole, [v for v in (taps, bias, tail) if v is not None])
        with graph.inserting_before(whole):
            made = p.call(graph, "decode_convolved", x, weight, with_bias, norm, eps, taps, bias, tail, sum(sizes[:u.args[1]]), act)
        whole.replace_all_uses_with(made)
        node.replace_all_uses_with(u)
        graph.erase_node(node)
    graph.eliminate_dead_code(p.stays)


# ---------------------------------------------------------------- gated linear attention
def _gla(graph: fx.Graph, module: nn.Module, node: fx.Node) -> None:
    q, k, v, decay, value_decay, memory, scale, before = node.args
    found = _results(node, memory)
    if found is None or value_decay is not None or decay is None or p.dims(v) != 4:
        return
    (u, tau), up, up_bias = _log_sigmoid(decay), None, None
    low = _by_low_rank(module, u, k)
    if low is not None:
        u, up, up_bias = low
    with graph.inserting_before(node):
        made = p.call(graph, "decode_gla", q, k, v, u, up, up_bias, memory, tau, scale, before)
    _instead(found, made, memory)


def _log_sigmoid(decay: fx.Node) -> tuple[fx.Node, float | None]:
    """(u, tau) where -softplus(-u) / tau is computed in float32 or wider; else (decay, None)."""
    tau, x = 1.0, decay
    if x.target is operator.truediv and isinstance(x.args[0], fx.Node) and isinstance(x.args[1], (int, float)):
        x, tau = x.args[0], float(x.args[1])
    for target in (operator.neg, F.softplus, operator.neg):
        if x.target is not target or len(x.args) != 1 or x.kwargs:
            return decay, None
        x = x.args[0]
    u = p.uncast(x)
    return (decay, None) if u is x else (u, tau)


def _by_low_rank(module: nn.Module, u: fx.Node, k: Any) -> tuple[fx.Node, fx.Node, fx.Node | None] | None:
    """(x, weight, bias) where u is a linear map of few numbers, one head's behind the other's."""
    if u.target != "transpose" or u.args[1:] != (1, 2) or u.args[0].target is not torch.unflatten:
        return None
    flat, axis, sizes = u.args[0].args
    found, known = p.linear(flat), k.meta.get("type")
    if found is None or axis != 2 or known is None or list(sizes) != [known.shape[1], known.shape[3]]:
        return None
    return found if p.shape(module, found[1])[1] <= RANK else None


# ---------------------------------------------------------------- state spaces
def _ssd(graph: fx.Graph, module: nn.Module, node: fx.Node) -> None:
    x, dt, a, b, c, skip, memory = node.args
    found = _results(node, memory)
    if found is None or p.dims(x) != 4 or not p.dims(b) == p.dims(c) == 4 or p.dims(dt) != 3:
        return
    bias, softplus = None, dt.target is F.softplus and len(dt.args) == 1 and not dt.kwargs
    if softplus:
        dt = dt.args[0]
        parts = dt.args if dt.target is operator.add else ()
        if len(parts) == 2 and p.dims(parts[1]) == 1 and p.dims(parts[0]) == 3:
            dt, bias = parts
        dt = p.uncast(dt)
    gated = _gate_behind(graph, found[0], node) if not p.asked(type(module).definition.target, "swiglu") else None
    flat, product, gate = gated or (None, None, None)
    with graph.inserting_before(node):
        if gate is not None:
            gate = graph.call_function(torch.unflatten, (gate, 2, list(x.meta["type"].shape[2:])))
        made = p.call(graph, "decode_ssd", x, dt, bias, a, b, c, skip, gate, memory, softplus)
    if product is not None and flat is not None:
        product.replace_all_uses_with(flat)
    _instead(found, made, memory)


def _gate_behind(graph: fx.Graph, y: fx.Node | None, before: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node] | None:
    """(heads behind each other, their product with silu(gate), gate) where nothing else reads the result, and the gate is there before a node."""
    if y is None or len(y.users) != 1:
        return None
    flat = next(iter(y.users))
    if flat.target != "flatten" or flat.args[1:] != (2, 3):
        return None
    readers = [n for n in flat.users if n.target is not getattr]
    while len(readers) == 1 and p.is_cast(readers[0]) and p.uncast(readers[0]) is flat:
        readers = list(readers[0].users)
    found = p.swiglu(readers[0]) if len(readers) == 1 else None
    order = {n: i for i, n in enumerate(graph.nodes)}
    if found is None or p.uncast(found[1]) is not flat:
        return None
    gate = p.uncast(found[0])
    return (flat, readers[0], gate) if order[gate] < order[before] and p.dims(gate) == 3 else None


# ---------------------------------------------------------------- convolutions along time
def _conv(graph: fx.Graph, module: nn.Module, node: fx.Node) -> None:
    u, taps, bias, tail = node.args
    found = _results(node, tail)
    if found is None or found[0] is None or p.dims(u) != 3:
        return
    y, act = found[0], "identity"
    reader = next(iter(y.users)) if len(y.users) == 1 else None
    known = p.act(reader)
    if reader is not None and known is not None and known[0] == "silu":
        y, act = reader, "silu"
    with graph.inserting_before(node):
        made = p.call(graph, "decode_conv", u, taps, bias, tail, act)
    _instead((y, found[1]), made, tail)


# ---------------------------------------------------------------- norms of heads
def _head_norm(graph: fx.Graph, node: fx.Node) -> None:
    """silu(gate) ⊙ norm(heads), the heads behind each other."""
    found = p.swiglu(node)
    if found is None:
        return
    gate, y = found
    chain = [y]
    for target, rest in (("flatten", (2, 3)), ("transpose", (1, 2))):
        if chain[-1].target != target or chain[-1].args[1:] != rest or len(chain[-1].users) != 1:
            return
        chain.append(chain[-1].args[0])
    norm = p.norm(chain[-1])
    if norm is None or len(chain[-1].users) != 1 or p.dims(norm[0]) != 4 or p.dims(gate) != 3:
        return
    with graph.inserting_before(node):
        made = p.call(graph, "decode_head_norm", *norm, gate)
    made.meta.update(node.meta)
    node.replace_all_uses_with(made)


# ---------------------------------------------------------------- in place
def _results(node: fx.Node, state: Any) -> tuple[fx.Node | None, fx.Node | None] | None:
    """The nodes that read the result and the new state of a recurrence; None where its state is read elsewhere too, or is none that comes in."""
    comes = isinstance(state, fx.Node) and (state.op == "placeholder" or (
        state.target is operator.getitem and state.args[0].op == "placeholder" and isinstance(state.args[1], str)))
    if not comes or len(state.users) != 1 or any(n.target is not operator.getitem for n in node.users):
        return None
    by = {n.args[1]: n for n in node.users}
    return (by.get(0), by.get(1)) if len(by) == len(node.users) else None


def _instead(found: tuple[fx.Node | None, fx.Node | None], made: fx.Node, state: fx.Node) -> None:
    y, new = found
    if y is not None:
        made.meta.update(y.meta)
        y.replace_all_uses_with(made)
    if new is not None:
        new.replace_all_uses_with(state)
