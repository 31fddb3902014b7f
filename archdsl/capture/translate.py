"""From the nodes of torch.export to a flat program, op by op, by the table in rules/."""
from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from archdsl import shapes
from archdsl.capture import opaque, rules
from archdsl.capture.conditions import Condition, Learned, learn, read
from archdsl.capture.export import Exported, place
from archdsl.capture.flat import Flat
from archdsl.capture.formulas import pattern
from archdsl.capture.provenance import scope_of, variables_of
from archdsl.capture.regions import laid_open
from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import Dim, Facts, Size
from archdsl.graph import FLOATS, Guard, InitExpr, Param, TensorType, Value
from archdsl.lazy import torch
from archdsl.ops.registry import OpError
from archdsl.ops.rules import DTYPES
from archdsl.records import field, record
from archdsl.source import NOWHERE, Source, Span

TABLE = 1 << 22  # elements of a buffer that is looked at for a pattern
LITERAL = 4096  # elements of a table that is written into the text; a larger one is a buffer


@record(slots=False, eq=False)
class Program:
    """A translated module. `weights`: address -> tensor. `names`: foreign key -> address, aliases included. `ranges`: input -> (low, high)."""

    flat: Flat
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str | None, ...]
    weights: dict[str, torch.Tensor]
    names: dict[str, str]
    guards: tuple[Guard, ...]
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)


def translate(exported: Exported) -> Program:
    """The program of an exported module. Raises ArchError A0551 to A0553."""
    conditions = exported.conditions
    while True:
        try:
            return Translation(exported, conditions).run()
        except Learned as found:
            conditions = [*conditions, *found.conditions]


class Translation:
    """One run over an exported program. The rules use its small methods."""

    def __init__(self, exported: Exported, conditions: list[Condition]):
        self.conditions = conditions
        self.exported, self.program = exported, _functional(exported.program)
        self.float = exported.float
        self.facts = Facts()
        self.flat = Flat(self.facts, _names()[exported.float])
        self.values: dict[str, Any] = {}
        self.params: dict[str, Callable[[], Value]] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.names: dict[str, str] = {}
        self.guards: list[Guard] = []
        self.ranges: dict[str, tuple[int, int]] = {}
        self.node: Any = None

    # ---------------------------------------------------------------- the run
    def run(self) -> Program:
        """Raises ArchError A0551 to A0553 with the node and its place in the foreign source."""
        with shapes.use_facts(self.facts):
            self.guards = [g for c in self.conditions if (g := learn(self.facts, c)) is not None]
            inputs = self._inputs()
            for node in self.program.graph.nodes:
                if node.op == "call_function":
                    self._at(node)
                    self.values[node.name] = self._call(node)
            outputs, names = self._outputs()
        return Program(self.flat, inputs, outputs, names, self.weights, self.names, tuple(self.guards), self.ranges)

    def _at(self, node: Any) -> None:
        self.node = node
        self.flat.at = scope_of(node)
        self.flat.name = variables_of(node)
        results = node.meta.get("val")
        if "," in self.flat.name and (not isinstance(results, (list, tuple)) or len(results) != self.flat.name.count(",") + 1):
            self.flat.name = ""
        self.flat.span = place(node) or NOWHERE

    def _call(self, node: Any) -> Any:
        target = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            raise self.refused(f"`{target.name()}` runs a part of the module in a way of its own",
                               "write this part without it: `torch.where` chooses values, casts choose types")
        if not isinstance(target, torch._ops.OpOverload):
            return self._on_sizes(node)
        name = opaque.short_name(target)
        rule = rules.find(name)
        given = self._given(node, target)
        if rule is None and target._schema.is_mutable:
            return self._in_place(node, target)
        result = NotImplemented if rule is None else self._apply(name, rule, target, given)
        if result is not NotImplemented:
            return result
        return opaque.node(self, target, given)

    def _given(self, node: Any, target: Any) -> dict[str, Any]:
        return opaque.by_name(target, [self.value(a) for a in node.args], {k: self.value(v) for k, v in node.kwargs.items()})

    def _in_place(self, node: Any, target: Any) -> Any:
        """`silu_(x)` is `silu(x)`, read by whoever reads x afterwards."""
        name = re.sub(r"_(\.\w+)$", r"\1", opaque.short_name(target))
        rule = rules.find(name)
        if rule is None:
            raise self.refused(f"aten.{opaque.short_name(target)} changes a tensor in place")
        op, _, overload = name.partition(".")
        target = getattr(getattr(torch.ops.aten, op, None), overload, target)  # which may name its arguments otherwise
        result = self._apply(name, rule, target, self._given(node, target))
        self.values[node.args[0].name] = result
        return result

    def _apply(self, name: str, rule: Any, target: Any, given: dict[str, Any]) -> Any:
        """What a rule makes of an op. Sizes that would have to fit have done so in the foreign code: the condition is learned."""
        try:
            return rule(self, **opaque.for_rule(rule, target, given))
        except OpError as fault:
            if fault.require:
                new = [c for c in read(fault.require) if learn(self.facts.copy(), c) is not None]
                if new:
                    raise Learned(*new) from None
            raise self.refused(f"aten.{name}: {fault.message}", fault.help) from None

    def _on_sizes(self, node: Any) -> Any:
        name = getattr(node.target, "__name__", str(node.target)).lstrip("_")
        args = [self.value(a) for a in node.args]
        if name == "getitem":
            return args[0][args[1]]
        if name in rules.CONDITIONS:
            return (rules.CONDITIONS[name], *args)
        if name in rules.SIZES and not any(isinstance(a, Value) for a in args):
            return shapes.normal(rules.SIZES[name](*args)) if all(isinstance(a, (int, Dim)) for a in args) else rules.SIZES[name](*args)
        if name in ("sym_float", "truediv") and all(isinstance(a, (int, float)) for a in args):
            return float(args[0]) if name == "sym_float" else args[0] / args[1]
        raise self.refused(f"`{name}` of a size that varies at run time has no counterpart")

    def value(self, a: Any) -> Any:
        """An argument of an fx node in our terms."""
        if isinstance(a, torch.fx.Node):
            if a.name in self.params:
                return self.params[a.name]()
            return self.values[a.name]
        if isinstance(a, (list, tuple)):
            return [self.value(v) for v in a]
        if isinstance(a, torch.SymInt):
            return self.size(a)
        return a

    # ---------------------------------------------------------------- sizes
    def size(self, s: Any) -> Size:
        """A size of torch in our names."""
        if isinstance(s, int):
            return s
        return self._expression(s.node.expr)

    def _expression(self, e: Any) -> Size:
        kind = type(e).__name__
        if e.is_Integer:
            return int(e)
        if e.is_Symbol:
            if str(e) not in self.exported.symbols:
                raise self.refused(f"a size here depends on the values of a tensor ({e})", "choose values with `torch.where`, and keep the shape")
            return self.exported.symbols[str(e)]
        parts = [self._expression(a) for a in e.args] if not e.is_Rational else []
        if kind == "Add":
            return sum(parts[1:], parts[0])
        if kind == "Mul":
            total: Size = 1
            for p in parts:
                total = total * p
            return total
        if kind == "Pow":
            return parts[0] ** int(e.args[1])
        if kind in ("FloorDiv", "CleanDiv"):
            return shapes.normal(parts[0] // parts[1])
        if kind in ("Mod", "PythonMod"):
            return shapes.normal(parts[0] % parts[1])
        raise self.refused(f"the size {e} is no expression of the language")

    def require(self, condition: Any) -> None:
        """A condition that the module itself checks: (word, a, b). Raises Learned where it is new."""
        if not isinstance(condition, tuple) or condition[0] == "!=":
            return
        word, a, b = condition
        if learn(self.facts.copy(), Condition(a, word, b)) is not None:
            raise Learned(Condition(a, word, b))

    def fixed(self, size: Size, what: str) -> int:
        if not isinstance(size, int):
            raise OpError(f"{what} varies at run time ({size})")
        return size

    def fixed_number(self, v: Any) -> float:
        if not isinstance(v, (int, float)):
            raise OpError(f"a range of fractions whose end varies at run time ({v}) has no op")
        return v

    # ---------------------------------------------------------------- element types
    def dtype(self, torch_dtype: Any) -> str:
        """The name of a torch dtype: `float` for the module's own float type."""
        if torch_dtype is self.float:
            return "float"
        names = _names()
        if torch_dtype not in names:
            raise self.refused(f"the element type {torch_dtype} is not one of the language")
        return names[torch_dtype]

    def cast(self, x: Any, to: Any) -> Any:
        """x in another element type. Whole numbers become float32 rather than the module's own float type; a cast to the same type does nothing."""
        if to is None or type(x) is not Value:
            return x
        name = self.dtype(to)
        if name == x.dtype or name == "float" and x.dtype == self.flat.float_name and (x.node.op == "literal" or _from_integers(x.node)):
            return x
        if not x.type.is_float and name == "float":
            return self.floated(x)
        if x.type.is_float and name == "f32" and x.dtype in ("float", "bf16", "f16") and self.float in (torch.bfloat16, torch.float16):
            return self.flat.op("at_least", x, dtype="f32")
        return self.flat.op("cast", x, dtype=name)

    def cast_like(self, x: Value, like: Value) -> Value:
        return x if x.dtype == like.dtype else self.flat.op("cast", x, dtype=like.dtype)

    def floated(self, x: Any) -> Any:
        """Whole numbers as floats: positions would not survive 16 bits."""
        return self.flat.op("cast", x, dtype="f32" if self.float is torch.float32 else "float")

    def one_float(self, *tensors: Any) -> list[Any]:
        """Operands of a product in one element type: torch had them equal, and `float32` may be the model's type here and a pinned one there."""
        kinds = {x.dtype for x in tensors if x is not None}
        if len(kinds) == 1:
            return list(tensors)
        return [x if x is None or x.dtype == "float" else self.flat.op("cast", x, dtype="float") for x in tensors]

    def alike(self, tensors: Any) -> list[Any]:
        kinds = {x.dtype for x in tensors}
        return self.one_float(*tensors) if len(kinds) > 1 and all(k in FLOATS for k in kinds) else list(tensors)

    def number_type(self, v: Any) -> str:
        return "bool" if isinstance(v, bool) else "float" if isinstance(v, float) else "int"

    def one(self, dtype: Any, like: Any) -> Any:
        """1 in the type that a new tensor gets."""
        name = self.dtype(dtype) if dtype is not None else like.dtype if like is not None else "float"
        return True if name == "bool" else 1.0 if name in FLOATS else 1

    def finite(self, v: Any) -> Any:
        """A number as an operand; infinities, which the language does not write, are logarithms of 0."""
        if not isinstance(v, float) or abs(v) != float("inf"):
            return v
        least = self.flat.op("log", self.flat.op("literal", value=0.0, dtype="float"))
        return least if v < 0 else self.flat.op("neg", least)

    def tokens(self, indices: Value, weight: Value) -> None:
        """An input that indexes a table holds numbers below its length."""
        v = indices
        while v.node.op == "rearrange":
            v = v.node.args[0]
        if v.node.op == "input":
            name, high = v.node.attrs["name"], self.fixed(weight.shape[0], "the length of a table") - 1
            self.ranges[name] = (0, min(high, self.ranges.get(name, (0, high))[1]))

    # ---------------------------------------------------------------- inputs, weights, outputs
    def _inputs(self) -> tuple[Value, ...]:
        inputs: list[Value] = []
        for spec, node in zip(self.program.graph_signature.input_specs, (n for n in self.program.graph.nodes if n.op == "placeholder")):
            kind = spec.kind.name
            if kind == "USER_INPUT":
                tensor = node.meta.get("val")
                if not isinstance(tensor, torch.Tensor):
                    self.values[node.name] = tensor
                    continue
                self.flat.name = node.name
                type = TensorType(self.dtype(tensor.dtype), tuple(self.size(s) for s in tensor.shape))
                value = Value(self.flat.put("input", (), {"name": node.name}, (type,)))
                inputs.append(value)
                self.values[node.name] = value
            elif kind in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
                self._tensor(node, spec)
            else:
                raise self.refused(f"`{node.name}` is an input of the kind {kind.lower()}")
        return tuple(inputs)

    def _tensor(self, node: Any, spec: Any) -> None:
        """A parameter, a buffer, or a table that is not saved."""
        key, kind = spec.target, spec.kind.name
        tensor = self.exported.tensors[key]
        saved = kind == "PARAMETER" or kind == "BUFFER" and spec.persistent is not False
        if not saved and tensor.numel() <= LITERAL and bool(torch.isfinite(tensor).all() if tensor.is_floating_point() else True) and tensor.numel():
            self.params[node.name] = lambda: self._table(tensor)
            return
        address = self.exported.addresses[key]
        frozen = kind == "PARAMETER" and not tensor.requires_grad
        shape = tuple(tensor.shape)
        type = TensorType(self.dtype(tensor.dtype), shape)
        param = Param(address, "frozen" if frozen else "param" if kind == "PARAMETER" else "buffer", type, _initial(tensor, key, kind))
        if kind != "PARAMETER" and 0 < tensor.numel() <= TABLE and (not tensor.is_floating_point() or tensor.unique().numel() <= 2):
            element = pattern(_nested(tensor.tolist()))
            if element is not None and len(shape) > 0:
                self.flat.tables[address] = element
        self.weights[address] = tensor.detach()
        self.names[key] = address
        self.params[node.name] = lambda: self._read(param)

    def _read(self, param: Param) -> Value:
        name, self.flat.name = self.flat.name, param.path.rsplit(".", 1)[-1]
        value = self.flat.weight(param)
        self.flat.name = name
        return value

    def _table(self, tensor: torch.Tensor) -> Value:
        dtype = self.dtype(tensor.dtype)
        kind = "f32" if dtype == "float" and self.float is torch.float32 and tensor.dim() == 1 else dtype  # rates would not survive 16 bits
        return self.flat.op("literal", value=_nested(tensor.tolist()), dtype=kind)

    def _outputs(self) -> tuple[tuple[Value, ...], tuple[str | None, ...]]:
        outputs: list[Value] = []
        names: list[str | None] = []
        keys = self.exported.output_names
        self.flat.at = ()
        for at, spec in enumerate(self.program.graph_signature.output_specs):
            if spec.kind.name == "USER_OUTPUT" and getattr(spec.arg, "name", None) is not None and type(self.values.get(spec.arg.name)) is Value:
                value = self.values[spec.arg.name]
                outputs.append(self.flat.op("cast", value, dtype="float") if value.dtype == self.flat.float_name else value)
                names.append(keys[at] if at < len(keys) else None)
            elif spec.kind.name == "BUFFER_MUTATION":
                raise error("A0553", f"the module changes its buffer `{spec.target}` as it runs", self.exported.span, "not captured",
                            help="capture it in evaluation mode, without caches")
        if not outputs:
            raise error("A0553", "the module returns no tensor", self.exported.span, "not captured")
        return tuple(outputs), tuple(names)

    def refused(self, message: str, help: str | None = None, code: str = "A0551") -> ArchError:
        """A fault with the node's module and its place in the foreign source."""
        span = place(self.node) if self.node is not None else None
        stack = scope_of(self.node) if self.node is not None else ()
        where = f"in the module `{stack[-1].path}` ({stack[-1].kind})" if stack else "in the module itself"
        return error(code, message, span or self.exported.span, "from here" if span else "", notes=(where,), help=help or ())


@cache
def _names() -> dict[Any, str]:
    return {getattr(torch, t): n for n, t in DTYPES.items()}


def _from_integers(node: Any) -> bool:
    return node.op == "cast" and not node.args[0].type.is_float


def _nested(v: Any) -> Any:
    return tuple(_nested(w) for w in v) if isinstance(v, list) else v


def _initial(tensor: torch.Tensor, key: str, kind: str) -> InitExpr:
    """What a fresh model starts from; captured values are saved beside the graph."""
    name = key.rsplit(".", 1)[-1]
    if kind != "PARAMETER":
        return InitExpr("ones") if "var" in name else InitExpr("zeros")
    if tensor.dim() < 2:
        return InitExpr("zeros") if "bias" in name or tensor.dim() == 0 else InitExpr("ones")
    return InitExpr("trunc_normal", (), (("cut", 2.0), ("mean", 0.0), ("std", 0.02)))


def _is_view(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)


def _writes(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _functional(program: Any) -> Any:
    """The program without writes into tensors that other values look into. Torch rewrites all of them at once, and forgets dropout then; a write
    that nothing else sees is taken as it is."""
    laid_open(program)
    for node in program.graph.nodes:
        if node.op == "call_function" and _writes(node):
            base = node.args[0]
            alone = base.op == "call_function" and not _is_view(base) and not any(_is_view(u) for u in base.users if u is not node)
            if not alone or rules.find(re.sub(r"_(\.\w+)$", r"\1", opaque.short_name(node.target))) is None:
                return program.run_decompositions({})
    return program


__all__ = ["Program", "Source", "Span", "Translation"]
