"""From a `Definition` to a torch.fx graph: op bodies called with proxies, sizes read from shapes, phases and buffer commits as small modules."""
from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate
from torch.fx.proxy import GraphAppendingTracer

from archdsl.dims import Dim, Size, sym, symbols, terms
from archdsl.graph import Mask, Node, TensorType, Value
from archdsl.lower import parts
from archdsl.lower.body_names import body_names, split_names
from archdsl.lower.folded import Folded, is_table
from archdsl.lower.init import plain_torch
from archdsl.lower.plan import Definition
from archdsl.lower.recipes import Shared, recorded, rewritten, traced
from archdsl.lower.shared_tables import SHARED
from archdsl.lower.sizes import Axes, Unknown
from archdsl.ops.recurrent import signature_of
from archdsl.ops.registry import Op, find
from archdsl.ops.rules import dtype_name, torch_dtype

_ARITHMETIC = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "neg": operator.neg, "floordiv": operator.floordiv, "mod": operator.mod,
               "min": torch.sym_min, "max": torch.sym_max}


@dataclass
class Traced:
    """`parts`: private modules and constant tensors by name."""

    graph: fx.Graph
    parts: dict[str, parts.Part] = field(default_factory=dict)


def trace(definition: Definition, fold: bool = True) -> Traced:
    """The fx graph of one class. `fold`: tables of whole numbers that depend on nothing are computed here, once; without, it is written as text."""
    with plain_torch(), torch.inference_mode(False):
        return _Tracer(definition, fold).run()


class _Tracer:
    def __init__(self, definition: Definition, fold: bool):
        self.definition, self.fold = definition, fold
        self.folded = Folded()
        self.traced = Traced(fx.Graph())
        self.graph = self.traced.graph
        self.tracer = GraphAppendingTracer(self.graph)
        self.values: dict[Value, Any] = {}
        self.axes = Axes(self._measure, self._arithmetic)
        self.arms = iter(definition.arms)
        self.span: Any = definition.source.span
        self._device: Any = None

    def run(self) -> Traced:
        nodes = self.definition.graph.nodes
        self._inputs([n for n in nodes if n.op == "input"])
        if self.definition.root:
            self._fit()
        for g in self.definition.graph.guards:
            self.span = g.span
            check = (self.axes(g.left), g.op, self.axes(g.right), g.message)
            self._mark(self.tracer.create_proxy("call_function", parts.require, check, {}))
        for node in nodes:
            if node.op == "call":
                self._call(node)
            elif node.op != "input" and not self._written(node) and not (self.fold and self.folded.add(node)):
                self.span = node.span
                self._node(node)
        self._output()
        self._drop_dead()
        del self.axes  # it holds this tracer: what is left is gone without a search for garbage
        return self.traced

    # ---------------------------------------------------------------- proxies
    def _proxy(self, node: fx.Node) -> fx.Proxy:
        return fx.Proxy(node, self.tracer)

    def _mark(self, proxy: fx.Proxy, hint: str = "", soft: bool = False) -> fx.Proxy:
        proxy.node.meta["arch"] = self.span
        if hint:
            proxy.node.meta["hint"] = hint
            if soft:
                proxy.node.meta["soft"] = True
            if not proxy.node.name.startswith(hint):
                proxy.node._rename(hint)
        return proxy

    def _measure(self, value: Value, axis: int) -> fx.Proxy:
        size = self.tracer.create_proxy("call_method", "size", (self.values[value], axis), {})
        name = str(value.shape[axis])
        return self._mark(size, name if name.isidentifier() else "size", soft=True)

    def _arithmetic(self, op: str, *operands: Any) -> Any:
        if not any(isinstance(o, fx.Proxy) for o in operands):
            return _ARITHMETIC[op](*operands)
        return self._mark(self.tracer.create_proxy("call_function", _ARITHMETIC[op], operands, {}), "size", soft=True)

    def _resolve(self, value: Any) -> Any:
        """Operands and attributes with proxies for tensors and run-time sizes."""
        if isinstance(value, Value):
            return self._value(value)
        if isinstance(value, Dim):
            return self.axes(value)
        if isinstance(value, Mask):
            return Mask(value.kind, tuple(self._resolve(a) for a in value.args))
        if type(value) in (tuple, list):
            return tuple(self._resolve(v) for v in value)
        return value

    def _value(self, value: Value) -> Any:
        """The proxy of a value. That of a folded one is made when something that is not folded reads it."""
        if value not in self.values and value in self.folded.tables:
            tensor, node, steps = self.folded.tables[value]
            before, self.span = self.span, node.span
            if steps > 1:
                self._bind_one(value, self._constant(node, tensor), node.name)
            elif not self._written(node):  # a lone count is as cheap as reading it
                self._node(node)
            self.span = before
        return self.values[value]

    # ---------------------------------------------------------------- tables of many models
    def _written(self, node: Node) -> bool:
        """Writes a node that models share as it was written before; False where it has not been, or is more than functions of its operands."""
        value = Value(node)
        if not SHARED.keeps(node) or len(node.types) != 1 or not (self.fold and self.definition.target.plain):
            return False
        if value not in self.folded.tables and is_table(node):
            return False  # it may be folded
        key = id(node), self.definition.dtype
        of, recipe = SHARED.written.get(key, (None, None))
        if of is not node:
            SHARED.written[key] = node, self._recorded(node)
            return True
        if recipe is None:
            return False
        self.span = node.span
        self.values[value] = self._proxy(rewritten(self.graph, recipe, [self._needed(o).node for o in recipe.operands]))
        self.axes.add(value)
        return True

    def _recorded(self, node: Node) -> Shared | None:
        """Writes the node, and tells how."""
        op = find(node.op)
        self.span = node.span
        operands: list[Any] = list(dict.fromkeys(_reads((node.args, *node.attrs.values()))))
        if op is not None and "device" in _parameters(op) and node.attrs.get("seed") is None:
            operands.append(None)
        given = [self._needed(o) for o in operands]
        before = next(iter(reversed(self.graph.nodes)), None)
        self._node(node)
        return recorded(self.graph, before, self.values[Value(node)], operands, given)

    def _needed(self, operand: Value | Dim | None) -> Any:
        """What an op is given: a tensor, a run-time size, or the device."""
        return self._where() if operand is None else self._resolve(operand)

    # ---------------------------------------------------------------- nodes
    def _inputs(self, nodes: list[Node]) -> None:
        """The inputs of `forward`; those of a state come in one dict, and so do draws that are fed."""
        addresses, draws = self.definition.state, self.definition.draws
        nodes, last = nodes[:len(nodes) - len(draws)], nodes[len(nodes) - len(draws):]
        own = len(nodes) - len(addresses)
        for node in nodes[:own]:
            self._input(node)
        if addresses:
            state = self._mark(self._proxy(self.graph.placeholder("state")), "state")
            checks = tuple((a, tuple(map(self._expected, n.types[0].shape)), self._torch_dtype(n.types[0])) for a, n in zip(addresses, nodes[own:]))
            new, longest = self.definition.moves
            self._mark(self.tracer.create_proxy("call_function", parts.holds, (state, checks, self.axes(new), longest), {}))
            for address, node in zip(addresses, nodes[own:]):
                self._bind_one(Value(node), self.tracer.create_proxy("call_function", operator.getitem, (state, address), {}), node.name)
        if draws:
            given = self._mark(self._proxy(self.graph.placeholder("draws")), "draws")
            kinds = tuple((a, self._torch_dtype(n.types[0])) for a, n in zip(draws, last))
            self._mark(self.tracer.create_proxy("call_function", parts.draws_given, (given, kinds), {}))
            for address, node in zip(draws, last):
                self._bind_one(Value(node), self.tracer.create_proxy("call_function", operator.getitem, (given, address), {}), node.name)

    def _torch_dtype(self, t: TensorType) -> torch.dtype:
        return torch_dtype(t.dtype, getattr(torch, self.definition.dtype))

    def _input(self, node: Node) -> None:
        proxy = self._proxy(self.graph.placeholder(_identifier(node.attrs["name"])))
        proxy.node.meta.update(arch=node.span, hint=node.name or node.attrs["name"], type=node.types[0], op="input")
        if "size" in node.attrs:
            self.axes.give(sym(str(node.attrs["size"])), proxy)
            proxy.node.meta["soft"] = True
        else:
            self.values[Value(node)] = proxy
            self.axes.add(Value(node))

    def _fit(self) -> None:
        """Checks the shapes of the inputs: a wrong one might broadcast unnoticed."""
        inputs = [v for v in self.definition.graph.inputs if v in self.values]
        fed = self.definition.draws
        names = dict(zip(inputs[-len(fed):] if fed else (), (f'draws["{address}"]' for address in fed)))
        kept = self.definition.state
        names |= dict(zip(inputs[len(inputs) - len(fed) - len(kept):], (f'state["{address}"]' for address in kept)))
        names = {v: names.get(v, v.node.attrs["name"]) for v in inputs}
        checks = [(self.values[v], names[v], str(v.type).removeprefix(v.type.dtype), tuple(map(self._expected, v.shape))) for v in inputs]
        if checks:
            made = self.graph.create_node("call_function", parts.fit)
            made.args = tuple([(tensor.node, name, shape, map_aggregate(size, _node_of)) for tensor, name, shape, size in checks])
            made.meta["arch"] = self.span
        shown = {str(s) for v in inputs for s in v.shape}
        for _, name, shape, size in [(*c[:3], s) for v, c in zip(inputs, checks) for s in v.shape if isinstance(s, Dim)]:
            for symbol in sorted(symbols(size) - shown) if any(not factors for _, factors in terms(size)) else ():  # `T + 3` alone tells T
                with contextlib.suppress(Unknown):  # `T + S + 3` tells neither
                    said = (self.axes(sym(symbol)), ">=", 0, f"the input `{name}` is {shape}: `{symbol}` would be negative")
                    self._mark(self.tracer.create_proxy("call_function", parts.require, said, {}))

    def _expected(self, size: Size) -> Any:
        """What `fit` holds an axis against: a number, a name, the size computed from others, or nothing."""
        if isinstance(size, int) or str(size).isidentifier():
            return size if isinstance(size, int) else str(size)
        return self.axes.computed(size)

    def _node(self, node: Node) -> None:
        last = next(iter(reversed(self.graph.nodes)), None)
        result = getattr(self, _STRUCTURAL.get(node.op, "_op"))(node)
        named = iter(split_names(node)) if node.op == "rearrange" else None
        for made in reversed(self.graph.nodes):
            if made is last:
                break
            made.meta.setdefault("arch", node.span)
            if named is not None and made.target is torch.unflatten:
                made.meta["sizes"] = next(named, ())
        self._bind(node, result)

    def _bind(self, node: Node, result: Any) -> None:
        """Gives the node's values their proxies, types and names."""
        if not node.types:
            return
        if len(node.types) == 1 and not isinstance(result, (tuple, list)) and node.op != "split":
            results = [result]
        else:
            if not isinstance(result, (tuple, list)) and isinstance(result, fx.Proxy):
                result.node.meta["results"] = len(node.types)
            several: Any = result
            results = [several[i] for i in range(len(node.types))]
        names = node.attrs.get("names") or tuple(map(node.result_name, range(len(results))))
        for value, proxy, name in zip(node.values, results, names):
            self._bind_one(value, proxy, name)

    def _bind_one(self, value: Value, proxy: Any, name: str) -> None:
        if isinstance(proxy, fx.Proxy):
            proxy.node.meta.setdefault("arch", value.node.span)
            proxy.node.meta.setdefault("type", value.type)
            proxy.node.meta.setdefault("op", value.node.op)
            if name and proxy.node.op not in ("placeholder", "get_attr") and (proxy.node.meta.get("soft") or "hint" not in proxy.node.meta):
                proxy.node.meta.pop("soft", None)
                self._mark(proxy, _identifier(name))
        self.values[value] = proxy
        self.axes.add(value)

    def _op(self, node: Node) -> Any:
        op = find(node.op)
        assert op is not None, node.op
        args = tuple(self._resolve(a) for a in node.args)
        attrs = {k: self._resolve(v) for k, v in node.attrs.items()}
        if node.op == "documents" and self.definition.root:
            self._mark(self.tracer.create_proxy("call_function", parts.sums, (*args, attrs["n"]), {}))
        if isinstance(attrs.get("dtype"), str) and node.op != "at_least":
            attrs["dtype"] = torch_dtype(attrs["dtype"], getattr(torch, self.definition.dtype))
        if "device" in _parameters(op) and attrs.get("seed") is None:
            attrs["device"] = self._where()
        with contextlib.nullcontext() if self.fold else body_names():
            if op.phase:
                result = self._phase_op(node, op, args, attrs)
            elif self.fold and self.definition.target.plain:
                result = traced(self.graph, self._proxy, op.body, args, attrs)
            else:
                result = self._body(node, op)(*args, **attrs)
        return self._constant(node, result) if isinstance(result, torch.Tensor) else result

    def _body(self, node: Node, op: Op) -> Callable[..., Any]:
        if self.definition.target.plain:
            return op.body
        from archdsl.lower.kernels import body_for

        return body_for(node, op, self.definition.target, dtype_name(getattr(torch, self.definition.dtype)), written=not self.fold)

    def _constant(self, node: Node, value: torch.Tensor) -> fx.Proxy:
        """A tensor that is known now becomes a buffer outside the state dict, so that it moves with the model."""
        target = self._private(_identifier(node.name) if node.name else node.op)
        self.traced.parts[target] = parts.Part("constant", value=value)
        return self._proxy(self.graph.get_attr(target))

    def _phase_op(self, node: Node, op: Op, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        if node.op in ("dropout", "drop_path") and attrs["rate"] == 0:
            return args[0]
        if any(isinstance(a, fx.Proxy) for v in attrs.values() for a in (v if isinstance(v, tuple) else (v,))):
            raise NotImplementedError(f"{node.op} takes a run-time size as an attribute")
        return self._part(node.op, parts.Part("op", node.op, attrs), args)

    def _part(self, name: str, part: parts.Part, args: tuple[Any, ...]) -> fx.Proxy:
        """A call of a private module `_name_0`."""
        target = self._private(name)
        self.traced.parts[target] = part
        return self._mark(self.tracer.create_proxy("call_module", target, args, {}), name, soft=True)

    def _private(self, name: str) -> str:
        return f"_{name}_{sum(p.startswith(f'_{name}_') for p in self.traced.parts)}"

    def _where(self) -> fx.Proxy:
        """The device of the model's inputs, else of its weights."""
        if self._device is None:
            tensor = next((p for v, p in self.values.items() if v.node.op == "input"), None)
            if tensor is None:
                path, _ = next(self.definition.source.parameters())
                tensor = self._proxy(self.graph.get_attr(path))
            self._device = self._mark(tensor.device, "device", soft=True)
        return self._device

    def _param(self, node: Node) -> fx.Proxy:
        return self._proxy(self.graph.get_attr(node.attrs["path"]))

    def _read(self, node: Node) -> fx.Proxy:
        buffer = self._proxy(self.graph.get_attr(node.attrs["path"]))
        return self._part("read", parts.Part("read"), (buffer,))

    def _call(self, node: Node) -> None:
        """Most of what a root is made of: the node is written without the detours of a tracer."""
        self.span = node.span
        made = self._applied(node)
        if len(node.types) != 1:
            made.meta["arch"] = node.span
            return self._bind(node, self._proxy(made))
        (value,), name = node.values, (node.attrs.get("names") or (node.result_name(0),))[0]
        made.meta.update(arch=node.span, type=node.types[0], op="call")
        if name:
            made.meta["hint"] = _identifier(name)
        self.values[value] = self._proxy(made)
        self.axes.add(value)

    def _extern(self, node: Node) -> fx.Proxy:
        return self._proxy(self._applied(node))

    def _applied(self, node: Node) -> fx.Node:
        """What an address holds, called."""
        found = [self._resolve(a) for a in node.args]
        args: Any = tuple([a.node if type(a) is fx.Proxy else self.tracer.create_arg(a) for a in found])
        name = _identifier(node.name) if node.name and len(node.types) == 1 else None
        made = self.graph.create_node("call_module", node.attrs["path"], name=name)
        made.args = args  # `create_node` walks them once more, in Python
        return made

    def _phase(self, node: Node) -> fx.Proxy:
        args = tuple(self._resolve(a) for a in node.args)
        return self._part("phase", parts.Part("phase", arms=next(self.arms)), args)

    def _scan(self, node: Node) -> fx.Proxy:
        args = tuple(self._resolve(a) for a in node.args)
        attrs = {"axes": node.attrs["axes"], "carries": len(node.attrs["carries"])}
        return self._part("scan", parts.Part("scan", attrs=attrs, arms=next(self.arms)), args)

    def _commit(self, node: Node) -> fx.Proxy:
        buffer = self._proxy(self.graph.get_attr(node.attrs["path"]))
        return self._part("commit", parts.Part("commit"), (buffer, self._resolve(node.args[0])))

    # ---------------------------------------------------------------- finishing
    def _output(self) -> None:
        d = self.definition
        found = [self._value(v).node for v in d.graph.outputs]
        own = found[0] if d.outputs == 1 else tuple(found[:d.outputs])
        if d.state:
            own = own, dict(zip(d.state, found[d.outputs:]))
        if d.hands_out:
            result: Any = (own, dict(zip(d.emits, found[d.outputs + len(d.state):])))
        elif d.state:
            result = own
        else:
            result = found[0] if len(found) == 1 else tuple(found)
        self.span = d.source.span
        self.graph.output(result).meta["arch"] = d.graph.outputs[0].node.span if d.graph.outputs else self.span

    def _drop_dead(self) -> None:
        """Bodies and sizes may have made nodes that nothing reads; modules and checks stay."""
        for node in reversed(list(self.graph.nodes)):
            keeps = node.op in ("placeholder", "output", "call_module") or node.target in _CHECKS
            if not node.users and not keeps:
                self.graph.erase_node(node)


_STRUCTURAL = {"param": "_param", "read": "_read", "extern": "_extern", "phase": "_phase", "scan": "_scan", "commit": "_commit"}
_CHECKS = (parts.require, parts.fit, parts.sums, parts.holds, parts.draws_given)


def _node_of(value: Any) -> Any:
    return value.node if isinstance(value, fx.Proxy) else value


def _reads(value: Any) -> Iterator[Value | Dim]:
    """The tensors and run-time sizes in an argument, in the order in which they are resolved."""
    if isinstance(value, (Value, Dim)):
        yield value
    elif isinstance(value, (tuple, list, Mask)):
        for v in value.args if isinstance(value, Mask) else value:
            yield from _reads(v)


@lru_cache(None)
def _parameters_of(body: Any) -> frozenset[str]:
    return frozenset(signature_of(body).parameters)


def _parameters(op: Op) -> frozenset[str]:
    return _parameters_of(op.body)


@lru_cache(4096)
def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name) or "x"
