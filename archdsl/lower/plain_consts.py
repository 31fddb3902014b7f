"""Values of consts in written models: the expression of a const as statements of plain torch. A const is outside the state dict, so `__init__` has to
compute it."""
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.fx.proxy import GraphAppendingTracer

from archdsl.graph import InitExpr, Param, TensorType
from archdsl.lower.codegen import Writer, generate
from archdsl.lower.init import fixed, plain_torch
from archdsl.ops.initializers import INITIALIZERS, sample
from archdsl.ops.registry import find
from archdsl.ops.rules import dtype_name, torch_dtype

INSIDE = 64
"""Of so many characters at most, a leaf stands inside of an expression; a longer one is a line of its own."""
Leaf = Callable[[str, dict[str, Any], str], str | None]
"""The text of an initialiser of the const's own shape, by name, arguments, and what says the dtype at the end of the call."""


def statements(p: Param, dtype: torch.dtype, leaf: Leaf) -> list[str] | None:
    """Lines of which the last is the value, the others set variables called `NAME_…`; None where part of it has no form in plain torch. `dtype`: of
    the built model."""
    made = _Expression(p, dtype, leaf)
    try:
        with plain_torch():
            made.finish()
    except _Unwritten:
        return None
    code = generate(made.graph, free=False, special=made.special)
    if any(name not in ("torch", "F", "math") for name in code.globals):
        return None
    lines = [line.removeprefix("return ") for line in code.statements]
    own = {found[1] for line in lines[:-1] if (found := re.match(r"(\w+) = ", line))}
    prefix = p.path.rpartition(".")[2]
    return [re.sub(rf"(?<![\w.])({'|'.join(own)})\b(?!=)", rf"{prefix}_\1", line) for line in lines] if own else lines


class _Unwritten(Exception):
    pass


class _Expression:
    """An initial value computed and traced at once: bodies of ops ask proxies for their types, which the values tell."""

    def __init__(self, p: Param, dtype: torch.dtype, leaf: Leaf):
        self.p, self.leaf, self.graph = p, leaf, fx.Graph()
        self.wide = torch.promote_types(dtype, torch.float32)  # as initial values are computed
        self.dtype = torch.promote_types(self.wide, torch_dtype(p.type.dtype, self.wide)) if p.type.is_float else torch_dtype(p.type.dtype)
        self.kept = torch_dtype(p.type.dtype, dtype)
        self.tracer = GraphAppendingTracer(self.graph)
        self.known: dict[InitExpr, tuple[Any, Any]] = {}
        self.texts: dict[fx.Node, str] = {}

    def finish(self) -> None:
        """The value in the dtype and the shape of the weight."""
        proxy, value = self.of(self.p.init)
        if not isinstance(proxy, fx.Proxy):
            raise _Unwritten
        if value.dtype != self.kept:
            proxy = proxy.to(self.kept)
        if value.shape != fixed(self.p.type):  # repeated along axes of the weight
            proxy = proxy.expand(fixed(self.p.type)).clone()
        self.graph.output(proxy.node)

    def of(self, init: Any) -> tuple[Any, Any]:
        """A proxy and the value; of a number the number twice."""
        if isinstance(init, tuple):
            both = [self.of(v) for v in init]
            return tuple(b[0] for b in both), tuple(b[1] for b in both)
        if not isinstance(init, InitExpr):
            return init, init
        if init not in self.known:
            self.known[init] = self._leaf(init) if init.op in INITIALIZERS else self._op(init)
        return self.known[init]

    def _leaf(self, init: InitExpr) -> tuple[Any, Any]:
        attrs = dict(init.attrs)
        text = None if "shape" in attrs else self.leaf(init.op, attrs, "" if self.dtype == torch.float32 else f", dtype={self.dtype}")
        if text is None:
            raise _Unwritten
        value = sample(init.op, fixed(self.p.type), self.dtype, None, **attrs) if not isinstance(attrs.get("value"), tuple) \
            else torch.tensor(attrs["value"], dtype=self.dtype)
        proxy = self.tracer.create_proxy("call_function", torch.empty, (), {})
        proxy.node.meta.update(hint=init.op, soft=len(text) <= INSIDE)
        self.texts[proxy.node] = text
        return self._typed(proxy, value)

    def _op(self, init: InitExpr) -> tuple[Any, Any]:
        op = find(init.op)
        if op is None or op.phase or init.op == "param":
            raise _Unwritten
        attrs = dict(init.attrs)
        if isinstance(attrs.get("dtype"), str) and init.op != "at_least":
            attrs["dtype"] = torch_dtype(attrs["dtype"], self.wide)
        both = [self.of(a) for a in init.args]
        value = op.body(*(b[1] for b in both), **attrs)
        proxy = op.body(*(b[0] for b in both), **attrs) if init.op != "at_least" else both[0][0].to(value.dtype)
        if isinstance(proxy, torch.Tensor):  # of no operand: an index
            proxy = self._counted(proxy)
        if not isinstance(proxy, fx.Proxy) or not isinstance(value, torch.Tensor):
            raise _Unwritten
        return self._typed(proxy, value)

    def _counted(self, value: torch.Tensor) -> fx.Proxy:
        """What an op gives that takes numbers alone, where it counts from 0."""
        n = value.numel()
        if value.dtype != torch.int64 or value.dim() != 1 or not torch.equal(value, torch.arange(n)):
            raise _Unwritten
        return self.tracer.create_proxy("call_function", torch.arange, (n,), {})

    @staticmethod
    def _typed(proxy: fx.Proxy, value: torch.Tensor) -> tuple[Any, Any]:
        proxy.node.meta["type"] = TensorType(dtype_name(value.dtype), tuple(value.shape))
        return proxy, value

    def special(self, node: fx.Node, _: Writer) -> tuple[str, int] | None:
        return (self.texts[node], 16) if node in self.texts else None
