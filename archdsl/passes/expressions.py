"""Weight expressions: which values depend on weights alone, weights left in their place, and their numbers."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from typing import Any

from archdsl.dims import Dim
from archdsl.elaborate.builder import addresses_above
from archdsl.graph import InitExpr, Mask, Node, Param, Value
from archdsl.ops.registry import find
from archdsl.passes.flat import Flat, Scope, ordered
from archdsl.source import NOWHERE

CLOSED, WEIGHT, DATA = range(3)


def stages(flat: Flat) -> dict[int, int]:
    """The stage of each node by id: computed from nothing, from weights, or from data (inputs, draws, run-time sizes, the phase)."""
    out: dict[int, int] = {}
    for n in flat.order():
        if n.op == "param":
            out[id(n)] = WEIGHT
            continue
        highest = CLOSED
        for v in flat.reads(n):
            highest = max(highest, out[id(v.node)])
        out[id(n)] = highest if highest == DATA or own_stage(n) == CLOSED else DATA
    return out


def own_stage(n: Node) -> int:
    """CLOSED for a pure op at fixed sizes, whose result is of the stage of its operands; DATA for others."""
    op = find(n.op)
    pure = op is not None and not op.random and not op.phase
    return CLOSED if pure and _static(n.attrs.values()) and _static(n.args) else DATA


def _static(values: Iterable[Any]) -> bool:
    """Whether no run-time size is among these values, those in lists included."""
    for v in values:
        kind = v.__class__
        if kind is Dim or (kind is tuple or kind is list) and not _static(v):
            return False
    return True


def leaves(value: Value) -> list[str]:
    """The addresses of the weights that an expression reads, in the order in which they are met."""
    return list(dict.fromkeys(n.attrs["path"] for n in below(value.node) if n.op == "param"))


def below(*nodes: Node) -> Iterator[Node]:
    """Nodes and all that they are computed from."""
    seen: set[int] = set()
    stack = [*reversed(nodes)]
    while stack:
        n = stack.pop()
        if id(n) not in seen:
            seen.add(id(n))
            yield n
            stack += [v.node for v in reversed(n.operands())]


# ---------------------------------------------------------------- weights in place of expressions
def leave_weights(flat: Flat, values: list[Value]) -> dict[str, Value]:
    """Replaces each expression by a weight where data reads it; returns address -> the expression that the weight holds.

    A weight takes the address of one that it stands for and that nothing else reads any more: of its own block first.
    """
    stage = stages(flat)
    wanted = {v: [u for u in flat.users(v) if stage[id(u)] == DATA or u.op == "update"] for v in dict.fromkeys(values)}
    wanted = {v: users for v, users in wanted.items() if users or flat.given(v)}
    still = _read_directly(flat, stage, set(wanted))
    names = _Names(flat, still, stage, {v: leaves(v) for v in wanted})
    made: dict[str, Value] = {}
    homes = {v: common([flat.scope(u) for u in users] if not flat.given(v) else [flat.root]) for v, users in wanted.items()}
    for value in sorted(wanted, key=lambda v: not names.own(v, homes[v])):  # first those that stay where they are
        users, scope = wanted[value], homes[value]
        address = names.choose(value, scope, users)
        flat.own(address, _param(flat, address, value, names.read[value]), scope.path)
        made[address] = value
        fresh = flat.weight(address, scope, value.node.span)
        outside = {id(u) for u in users}
        inside = [n for n in flat.users(value) if id(n) not in outside]
        flat.replace(value, fresh, keep=inside)
    return made


def _read_directly(flat: Flat, stage: dict[int, int], wanted: set[Value]) -> set[str]:
    """Weights that data still reads once the wanted expressions are gone."""
    read = [v for n in flat.live() if stage[id(n)] == DATA or n.op == "update" for v in flat.reads(n)]
    read = [v.node for v in (*read, *flat.outputs, *flat.root.emits.values()) if stage[id(v.node)] == WEIGHT and v not in wanted]
    return {n.attrs["path"] for n in below(*read) if n.op == "param"} | {n.attrs["path"] for n in flat.live() if n.op == "update"}


def common(scopes: list[Scope]) -> Scope:
    """The innermost scope around all of them."""
    chains = [list(s.chain()) for s in scopes]
    return next(s for s in chains[0] if all(s in c for c in chains))


class _Names:
    """Addresses for new weights. `read`: those that each expression reads, which stay the same while weights take the places of others."""

    def __init__(self, flat: Flat, still: set[str], stage: dict[int, int], read: dict[Value, list[str]]):
        self.flat, self.read = flat, read
        self.taken: set[str] = set()
        self.above: set[str] = set()  # what is taken
        for a in (*still, *(a for a in flat.params if a not in flat.was_read)):
            self._take(a)
        self.owners = {s.path for s in flat.scopes}
        homes = {id(s): s for n in flat.live() if stage[id(n)] == DATA for s in (flat.scope(n),)}
        self.busy = {s.path for home in homes.values() for s in home.chain()}

    def own(self, value: Value, scope: Scope) -> list[str]:
        """The weights of a scope that an expression could stand for, those of its shape first, then those with as many axes."""
        params = self.flat.params
        found = [a for a in self.read[value] if self.flat.owner[a] == scope.path and len(params[a].type.shape) == len(value.type.shape)]
        return sorted(found, key=lambda a: params[a].type.shape != value.type.shape)

    def choose(self, value: Value, scope: Scope, users: list[Node]) -> str:
        params, owner = self.flat.params, self.flat.owner
        others = [a for a in self.read[value] if scope.owns(a) and owner[a] not in self.busy and params[a].type.shape == value.type.shape]
        for address in (*self.own(value, scope), *others):
            if self._free(address):
                return self._take(address)
        operand, hint = _operand(users[0], value) if users and scope.path else "", _hint(users, value)
        names = chain([operand] if operand else [], [hint], (f"{hint}_{k}" for k in count(2)))
        return self._take(next(a for n in names if self._free(a := scope.prefix + n) and a not in self.owners))

    def _free(self, address: str) -> bool:
        return address not in self.taken and address not in self.above and self.taken.isdisjoint(addresses_above(address))

    def _take(self, address: str) -> str:
        self.taken.add(address)
        self.above.update(addresses_above(address))
        return address


def _operand(user: Node, value: Value) -> str:
    """The name of the operand through which a node reads a value."""
    from archdsl.elaborate.ops import parameters

    if find(user.op) is None:
        return ""
    names = [p.name for p in parameters(user.op) if p.operand]
    return next((n for n, a in zip(names, user.args) if a == value and n in ("weight", "bias")), "")


def _hint(users: list[Node], value: Value) -> str:
    user = users[0] if users else value.node
    name = value.node.result_name(value.index)
    base = name or (f"{user.name or user.op}_{_operand(user, value)}" if users and _operand(user, value) else value.node.op)
    return f"{base}_baked" if base == name or base == value.node.op else base


def _param(flat: Flat, address: str, value: Value, addresses: list[str]) -> Param:
    """The declaration of a weight that holds an expression of those. Drawn anew, it has the initial values of the weight that it stands for."""
    read = [flat.params[a] for a in addresses]
    old = flat.params.get(address)
    like = [p for p in ([old] if old is not None else []) + read if len(p.type.shape) == len(value.type.shape) and _plain(p.init)]
    kind = "param" if any(p.kind == "param" for p in read) else "frozen"
    span = old.span if old is not None else value.node.span or NOWHERE
    return Param(address, kind, value.type, like[0].init if like else InitExpr("zeros"), span=span)


def _plain(init: Any) -> bool:
    """Whether an initialiser fits any shape and reads no other weight."""
    if not isinstance(init, InitExpr):
        return not isinstance(init, tuple)
    attrs = dict(init.attrs)
    return init.op != "param" and "shape" not in attrs and not any(isinstance(v, tuple) for v in attrs.values()) and all(map(_plain, init.args))


# ---------------------------------------------------------------- numbers
def evaluate(value: Value, weights: Mapping[str, Any], dtype: Any) -> Any:
    """The tensor that an expression of weights gives; computed in float64 where the weights are narrower. `dtype`: the model's."""
    import torch

    wide = torch.float64 if dtype.is_floating_point else dtype
    known: dict[Value, Any] = {}

    def operand(a: Any) -> Any:
        if isinstance(a, Value):
            return known[a]
        if isinstance(a, Mask):
            return a.replace(operand)
        return tuple(map(operand, a)) if isinstance(a, tuple) else a

    with torch.no_grad():
        for n in ordered(list(below(value.node))):
            known.update(zip(n.values, _run(n, operand, weights, wide)))
    return known[value]


def _run(n: Node, operand: Any, weights: Mapping[str, Any], wide: Any) -> Iterable[Any]:
    from archdsl.ops.rules import torch_dtype

    if n.op == "param":
        w = weights[n.attrs["path"]].detach()
        return (w.to(wide) if w.is_floating_point() else w,)
    op = find(n.op)
    assert op is not None, n.op
    attrs = {k: operand(v) for k, v in n.attrs.items()}
    if isinstance(attrs.get("dtype"), str) and n.op != "at_least":
        attrs["dtype"] = torch_dtype(attrs["dtype"], wide)
    result = op.body(*map(operand, n.args), **attrs)
    return result if isinstance(result, tuple) else (result,)
