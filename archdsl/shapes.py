"""Shapes written in the language against shapes of values: binding axis names, evaluating axis expressions, deciding equality."""
from __future__ import annotations

from _thread import _local  # pyright: ignore[reportPrivateUsage]  (of `threading`, which a check does not load)
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from archdsl import dims
from archdsl.diagnostics.poison import POISON, Poisoned
from archdsl.dims import Dim, Facts, Size
from archdsl.graph import TensorType
from archdsl.ops.registry import Op, OpError
from archdsl.syntax import tree

MAX_BITS = 4_096  # of a power


class _Here(_local):
    """Of this thread."""

    facts = Facts()


_here = _Here()


def facts() -> Facts:
    """What is known of the run-time sizes of the model being elaborated."""
    return _here.facts


@contextmanager
def use_facts(new: Facts) -> Generator[Facts, None, None]:
    old, _here.facts = _here.facts, new
    try:
        yield new
    finally:
        _here.facts = old


def same(a: Size, b: Size) -> bool | None:
    """True: equal for all run-time sizes; False: not; None: undecided."""
    if a is b or (type(a) is int and type(b) is int):
        return a == b
    return _here.facts.equal(a, b)


def divide(a: Size, b: Size) -> Size | None:
    """a / b when that is a whole number for all run-time sizes."""
    if type(a) is int and type(b) is int:
        return a // b if b and a % b == 0 else None
    return _here.facts.divide(a, b)


def normal(size: Size) -> Size:
    return size if type(size) is int else _here.facts.normal(size)


class ShapeError(Exception):
    """A shape that does not fit its pattern. `about` names the operand; `require` is a condition that would mend it; `division`: the two numbers of
    one that does not come out even."""

    def __init__(self, message: str, axis: tree.Axis | None = None, require: str | None = None, about: str | None = None,
                 division: tuple[int, int] | None = None):
        super().__init__(message)
        self.message, self.axis, self.require, self.about, self.division = message, axis, require, about, division


def _no_size(name: str, value: Any, axis: tree.Axis | None) -> Exception:
    from archdsl.elaborate.values import describe

    return Poisoned() if value is POISON else ShapeError(f"`{name}` is no size: it is {describe(value)}", axis)


def inexact(size: Size, factor: Size, axis: tree.Axis, message: str = "") -> ShapeError:
    """A `size` was to be a multiple of `factor`."""
    message = message or f"{size} is not a multiple of {factor}"
    if type(size) is int and type(factor) is int:
        return ShapeError(message, axis, division=(size, factor))
    return ShapeError(message, axis, require=f"{size} % {factor} == 0")


Hyper = Callable[[tree.Expr], Any]


class Binding:
    """Axis names bound so far. `sizes`: name -> size; `sequences`: `...` and `*s` -> tuple of sizes; `hyper` evaluates `widths[0]`."""

    def __init__(self, sizes: dict[str, Any] | None = None, hyper: Hyper | None = None):
        self.sizes: dict[str, Any] = sizes if sizes is not None else {}
        self.sequences: dict[str, tuple[Size, ...]] = {}
        self.hyper = hyper

    # ---------------------------------------------------------------- evaluation
    def size(self, axis: tree.Axis) -> Size:
        """The size an axis expression stands for. Raises ShapeError for an unbound name or an inexact division."""
        if isinstance(axis, tree.AxisName):
            try:
                value = self.sizes[axis.id]
            except KeyError:
                raise ShapeError(f"the size `{axis.id}` is not bound", axis) from None
            if type(value) is int or isinstance(value, Dim):
                return value
            raise _no_size(axis.id, value, axis)
        if isinstance(axis, tree.AxisInt):
            return axis.value
        if isinstance(axis, tree.AxisOp):
            return self._operate(axis)
        if isinstance(axis, tree.AxisFactors):
            return dims.product([self.size(a) for a in axis.items])
        if isinstance(axis, tree.AxisField):
            value = self.hyper(axis.expr) if self.hyper else None
            if type(value) is int or isinstance(value, Dim):
                return value
            raise ShapeError("this is no size: a whole number was expected", axis)
        if isinstance(axis, (tree.AxisSized, tree.Ragged)):
            return self.size(tree.AxisName(axis.span, axis.id))
        raise ShapeError("this cannot stand here as one size", axis)

    def _operate(self, axis: tree.AxisOp) -> Size:
        values = [self.size(a) for a in axis.operands]
        op = axis.op
        if op in ("+", "-", "*"):
            a, b = values
            return a + b if op == "+" else a - b if op == "-" else a * b
        if op == "**":
            base, exponent = values
            return self._power(base, exponent, axis)
        if op in ("min", "max"):
            return (dims.minimum if op == "min" else dims.maximum)(*values)
        if len(values) != 2:
            raise ShapeError(f"`{op}` takes 2 sizes, not {len(values)}", axis)
        a, b = values
        if b == 0:
            raise ShapeError("division by zero", axis)
        if op == "/":
            exact = divide(a, b)
            if exact is None:
                raise inexact(a, b, axis, f"{a} / {b} is not a whole number")
            return exact
        return normal({"//": dims.floordiv, "floordiv": dims.floordiv, "%": dims.mod, "mod": dims.mod, "ceildiv": dims.ceildiv}[op](a, b))

    @staticmethod
    def _power(base: Size, exponent: Size, axis: tree.Axis) -> Size:
        if not isinstance(exponent, int) or exponent < 0:
            raise ShapeError(f"the exponent {exponent} is not a whole number from 0 that is known when the spec is built", axis)
        if isinstance(base, int) and abs(base) > 1 and base.bit_length() * exponent > MAX_BITS:
            raise dims.TooLarge(f"{base} ** {exponent} has more than {MAX_BITS:,} bits")
        return base**exponent

    def shape(self, shape: tree.Shape) -> tuple[Size, ...]:
        """The sizes of a shape whose names are all bound."""
        out: list[Size] = []
        for axis in shape.axes:
            if isinstance(axis, tree.AnyAxes):
                out += self._sequence("...", axis)
            elif isinstance(axis, tree.AxesVar):
                out += self._sequence(axis.id, axis)
            else:
                out.append(normal(self.size(axis)))
        return tuple(out)

    def _sequence(self, name: str, axis: tree.Axis) -> tuple[Size, ...]:
        if name not in self.sequences:
            raise ShapeError(f"the axes `{name}` are not bound by an input", axis)
        return self.sequences[name]

    # ---------------------------------------------------------------- matching
    def match(self, shape: tree.Shape, actual: tuple[Size, ...]) -> None:
        """Binds the names of a pattern to the sizes of a value. Raises ShapeError where they disagree."""
        pairs = self._align(shape, actual)
        later: list[tuple[tree.Axis, Size]] = []
        for axis, size in pairs:
            if isinstance(axis, tree.Ragged):
                raise ShapeError(f"`ragged` stands at an input of a model; here it is `{axis.id}`", axis)
            if type(axis) in (tree.AxisName, tree.AxisSized):
                self.bind(axis.id, size, axis)  # type: ignore[attr-defined]
            else:
                later.append((axis, size))
        for axis, size in later:
            self._solve(axis, size)

    def _align(self, shape: tree.Shape, actual: tuple[Size, ...]) -> list[tuple[tree.Axis, Size]]:
        axes = shape.axes
        for k, axis in enumerate(axes):
            if isinstance(axis, (tree.AnyAxes, tree.AxesVar)):
                after = len(axes) - k - 1
                if len(actual) < k + after:
                    raise ShapeError(f"at least {k + after} axes are needed, it has {len(actual)}", shape.axes[k])
                name = "..." if isinstance(axis, tree.AnyAxes) else axis.id
                self._bind_sequence(name, tuple(actual[k : len(actual) - after]), axis)
                return list(zip(axes[:k], actual[:k])) + list(zip(axes[k + 1 :], actual[len(actual) - after :]))
        if len(axes) != len(actual):
            raise ShapeError(f"{len(axes)} axes are expected, it has {len(actual)}")
        return list(zip(axes, actual))

    def _bind_sequence(self, name: str, sizes: tuple[Size, ...], axis: tree.Axis) -> None:
        old = self.sequences.setdefault(name, sizes)
        if len(old) != len(sizes) or any(not same(a, b) for a, b in zip(old, sizes)):
            raise ShapeError(f"`{name}` was [{', '.join(map(str, old))}], here it is [{', '.join(map(str, sizes))}]", axis)

    def bind(self, name: str, size: Size, axis: tree.Axis | None = None) -> None:
        if name == "_":
            return
        if name not in self.sizes:
            self.sizes[name] = size
            return
        known = self.sizes[name]
        if known is size:
            return
        if not isinstance(known, (int, Dim)) or isinstance(known, bool):
            raise _no_size(name, known, axis)
        self.agree(known, size, axis, f"`{name}`")

    def agree(self, expected: Size, size: Size, axis: tree.Axis | None, what: str) -> None:
        """Raises ShapeError unless both sizes are provably equal."""
        verdict = same(expected, size)
        if verdict:
            return
        if type(expected) is int and type(size) is int:
            raise ShapeError(f"{what} is {expected}, here it is {size}", axis)
        witness = facts().counterexample(expected, size)
        shown = f" (with {', '.join(f'{k} = {v}' for k, v in witness.items())} they are " \
                f"{dims.evaluate(expected, witness)} and {dims.evaluate(size, witness)})" if witness else ""
        require = facts().suggest(expected, size)
        told = f"{what} is {expected}, here it is {size}" if what != f"`{expected}`" else f"{what} is a size of its own, here it is {size}"
        raise ShapeError(f"{told}: they cannot be shown to be equal{shown}", axis, require=require)

    def _solve(self, axis: tree.Axis, size: Size) -> None:
        unknown = [n for n in axis_names(axis) if n not in self.sizes]
        if not unknown:
            expected = self.size(axis)
            self.agree(expected, size, axis, f"`{axis.span.text}`" if axis.span.source.text else f"{expected}")
            return
        if len(unknown) > 1:
            raise ShapeError(f"{' and '.join(f'`{n}`' for n in unknown)} cannot both be found from {size}: give one of them", axis)
        self._solve_one(axis, size, unknown[0])

    def _solve_one(self, axis: tree.Axis, size: Size, name: str) -> None:
        """Inverts products, quotients, sums and differences down to the one unknown name."""
        while not isinstance(axis, tree.AxisName):
            if isinstance(axis, tree.AxisFactors):
                known = dims.product([self.size(a) for a in axis.items if name not in axis_names(a)])
                rest = divide(size, known)
                if rest is None:
                    raise inexact(size, known, axis)
                size, axis = rest, next(a for a in axis.items if name in axis_names(a))
                continue
            if not isinstance(axis, tree.AxisOp) or axis.op not in "+-*/" or len(axis.operands) != 2:
                raise ShapeError(f"`{name}` cannot be found from this expression", axis)
            left, right = axis.operands
            inside, other = (left, self.size(right)) if name in axis_names(left) else (right, self.size(left))
            if axis.op == "+":
                size = size - other
            elif axis.op == "-":
                size = size + other if inside is left else other - size
            elif axis.op == "/" and inside is left:
                size = size * other
            else:
                rest = divide(size, other) if axis.op == "*" else divide(other, size)
                if rest is None:
                    raise ShapeError(f"{size} is not a multiple of {other}", axis)
                size = rest
            axis = inside
        self.bind(name, normal(size), axis)


def axis_names(axis: tree.Axis) -> list[str]:
    """The names an axis expression mentions, in order, each once."""
    if type(axis) is tree.AxisName:
        return [axis.id]
    out: dict[str, None] = {}

    def visit(a: Any) -> None:
        if isinstance(a, (tree.AxisName, tree.AxisSized, tree.Ragged)):
            out[a.id] = None
        elif isinstance(a, tree.AxisOp):
            for o in a.operands:
                visit(o)
        elif isinstance(a, tree.AxisFactors):
            for o in a.items:
                visit(o)

    visit(axis)
    return list(out)


def promote(dtypes: list[str]) -> str:
    """The dtype of a result computed from operands of these dtypes: floats win over ints, a pinned wider float over the model's own."""
    floats = [d for d in dtypes if d in ("float", "f64", "f32", "bf16", "f16")]
    if not floats:
        order = ["bool", "u8", "i8", "i32", "int"]
        return max(dtypes, key=order.index) if dtypes else "float"
    for d in ("f64", "f32", "float", "bf16", "f16"):
        if d in floats:
            return d
    return "float"


def infer_by_signature(op: Op, arguments: dict[str, Any]) -> tuple[TensorType, ...]:
    """Result types of an op from its signature alone. Raises OpError naming the operand that does not fit."""
    binding = Binding({k: v for k, v in arguments.items() if type(v) is int or isinstance(v, Dim)})
    used: list[str] = []
    for p in op.decl.params:
        kind = p.type.item if isinstance(p.type, tree.OptionalType) else p.type
        value = arguments.get(p.name)
        if isinstance(kind, tree.TensorType) and isinstance(value, TensorType):
            try:
                binding.match(kind.shape, value.shape)
            except ShapeError as e:
                raise OpError(e.message, p.name, require=e.require) from None
            if kind.dtype is None:
                used.append(value.dtype)
            elif kind.dtype in ("int", "bool") and value.dtype not in ({"int", "i32", "i8", "u8"} if kind.dtype == "int" else {"bool"}):
                raise OpError(f"`{p.name}` of {op.name} holds {kind.dtype}, not {value.dtype}", p.name)
    try:
        return tuple(TensorType(o.type.dtype or promote(used), binding.shape(o.type.shape)) for o in op.decl.outs)  # type: ignore[union-attr]
    except ShapeError as e:
        raise OpError(e.message, require=e.require) from None
