"""What shape, dtype and saved-tensor rules share, and the two questions a body may ask about a traced operand: `rank` and `size`."""
from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from archdsl.dims import Size, product, symbols
from archdsl.graph import FLOATS, TensorType
from archdsl.ops.registry import OpError
from archdsl.records import record

INTS = ("u8", "i8", "i32", "int")
DTYPES = {"f64": "float64", "f32": "float32", "bf16": "bfloat16", "f16": "float16", "int": "int64", "i32": "int32", "i8": "int8", "u8": "uint8",
          "bool": "bool"}
LARGEST = {"f64": 1.7976931348623157e308, "f32": 3.4028234663852886e38, "bf16": 3.3895313892515355e38, "f16": 65504.0, "int": 2**63 - 1,
           "i32": 2**31 - 1, "i8": 127, "u8": 255}
"""The largest number of each type; the model's own `float` may be f64."""
_FLOAT_RANK = {"f16": 0, "bf16": 1, "float": 2, "f32": 3, "f64": 4}


def torch_dtype(name: str, model: Any = None) -> Any:
    """The torch dtype of a dtype name. `float` is `model`, the build's dtype; pinned floats widen to float64 in a float64 build."""
    import torch

    if name in FLOATS and model is not None:
        return model if name == "float" else torch.promote_types(getattr(torch, DTYPES[name]), model) if model == torch.float64 \
            else getattr(torch, DTYPES[name])
    if name not in DTYPES:
        raise ValueError(f"`{name}` names no torch dtype before the model's own is chosen")
    return getattr(torch, DTYPES[name])


def dtype_name(dtype: Any) -> str:
    """The name of a torch dtype that the language has."""
    return next(name for name, torch_name in DTYPES.items() if torch_name == str(dtype).removeprefix("torch."))


def misfit(value: Any, dtype: str) -> str:
    """Why a tensor of a type cannot hold a number, or ''."""
    if dtype == "bool":
        return "" if value in (0, 1) else f"{value} is no truth value"
    if isinstance(value, float) and not math.isfinite(value):
        return "" if dtype in FLOATS else f"{value} is no whole number"
    if dtype not in FLOATS and value != int(value):
        return f"{float(value):g} is no whole number"
    largest = LARGEST["f64" if dtype == "float" else dtype]
    least = 0 if dtype == "u8" else -largest if dtype in FLOATS else -largest - 1
    if type(value) is Fraction and dtype in FLOATS and value.numerator.bit_length() - value.denominator.bit_length() < 15:
        return ""  # below 2 ** 15, which each of them holds: long lists of fractions are compared with floats slowly
    if least <= value <= largest:
        return ""
    shown = str(value) if isinstance(value, float) or abs(value) < 10**24 else f"a number of {len(str(abs(int(value))))} digits"
    return f"{shown} lies outside of {least:g} to {largest:g}" if dtype in FLOATS else f"{shown} lies outside of {least:,} to {largest:,}"


# ---------------------------------------------------------------- questions of bodies
def traced(x: Any) -> bool:
    """Whether a body is being traced: the operand stands for a tensor to come."""
    return _traced_type(x) is not None


def is_tensor(x: Any) -> bool:
    """True for a tensor or a traced tensor, False for a number, a run-time size or None."""
    return _traced_type(x) is not None or hasattr(x, "dim") and not _is_proxy(x)


def is_float(x: Any) -> bool:
    """True for a float tensor, traced or not."""
    t = _traced_type(x)
    return t.is_float if t is not None else is_tensor(x) and x.is_floating_point()


def rank(x: Any) -> int:
    t = _traced_type(x)
    return x.dim() if t is None else len(t.shape)


def size(x: Any, axis: int) -> Any:
    """The size as an int where it is fixed, else as the traced `x.shape[axis]`."""
    t = _traced_type(x)
    return t.shape[axis] if t is not None and isinstance(t.shape[axis], int) else x.shape[axis]


def chosen(**options: tuple[Any, Any]) -> dict[str, Any]:
    """Keyword arguments of a body's call: name = (value, torch's default), those at their default left out, so that lowered code is short."""
    return {k: value for k, (value, default) in options.items() if value is not default and (hasattr(value, "dim") or value != default)}


def same_size(a: Any, b: Any) -> bool:
    """Whether two sizes are known to be one and the same number."""
    return isinstance(a, int) and isinstance(b, int) and a == b


def _is_proxy(x: Any) -> bool:
    return hasattr(type(x), "__torch_function__") and type(x).__module__.startswith("torch.fx")


def _traced_type(x: Any) -> TensorType | None:
    return x.node.meta.get("type") if _is_proxy(x) else None


# ---------------------------------------------------------------- dtypes
def promote_types(a: str, b: str) -> str:
    """torch.promote_types with `float` between the 16-bit types and f32 (a pinned dtype is a minimum)."""
    if a == b:
        return a
    if a in FLOATS and b in FLOATS:
        return "f32" if {a, b} == {"f16", "bf16"} else max(a, b, key=_FLOAT_RANK.__getitem__)
    if a in FLOATS or b in FLOATS:
        return a if a in FLOATS else b
    if a == "bool" or b == "bool":
        return a if b == "bool" else b
    if {a, b} == {"u8", "i8"}:
        raise OpError("u8 and i8 have no common type here", help="cast one of them to int")
    return max(a, b, key=INTS.index)


def _kind(dtype: str) -> int:
    return 0 if dtype == "bool" else 1 if dtype in INTS else 2


def promote(*operands: Any, about: str | None = None) -> str:
    """The dtype of an elementwise result, by torch's rules: tensors with axes, then tensors without, then numbers; a later group only
    counts when it is of a higher kind (bool < integers < floats). An integer tensor and a fractional number have no result: torch would
    take its global default there, which is not the model's dtype."""
    groups: list[str | None] = [None, None, None]
    for x in operands:
        if x is None:
            continue
        i, dtype = (0 if x.shape else 1, x.dtype) if isinstance(x, TensorType) else (2, number_dtype(x))
        known = groups[i]
        groups[i] = dtype if known is None else _number if _number in (dtype, known) else promote_types(known, dtype)
    result: str | None = None
    for dtype in groups:
        if dtype is None:
            continue
        if result is None:
            result = dtype
        elif dtype == _number:
            result = result if _kind(result) == 2 else _number
        elif _kind(dtype) > _kind(result):
            result = dtype
    if result == _number or result is None:
        tensors = ", ".join(str(x) for x in operands if isinstance(x, TensorType))
        raise OpError(f"a fractional number meets {tensors or 'no tensor'}: the result has no float type to take", about,
                      help=f"cast the tensor first, as in {cast_to('float')}")
    return result


_number = "number"


def number_dtype(x: Any) -> str:
    return "bool" if isinstance(x, bool) else _number if isinstance(x, (float, Fraction)) else "int"


def cast_to(dtype: str, name: str = "x") -> str:
    """How a text casts an operand, for help."""
    return f'`cast({name}, "{dtype}")`'


def need_float(x: Any, about: str = "x") -> None:
    if isinstance(x, TensorType) and not x.is_float:
        raise OpError(f"a float tensor is needed, and this one is {x}", about, help=f"cast it first: {cast_to('float', about)}")


def need_dtype(x: Any, dtypes: Iterable[str], about: str, what: str) -> None:
    if isinstance(x, TensorType) and x.dtype not in dtypes:
        raise OpError(f"{what} is needed, and this one is {x}", about)


def need_number(x: Any, about: str = "x") -> None:
    if isinstance(x, bool) or isinstance(x, TensorType) and x.dtype == "bool":
        raise OpError(f"numbers are needed, and this is {x if isinstance(x, TensorType) else 'a truth value'}", about,
                      help=f"cast it first: {cast_to('int', about)}")


def need_index(x: Any, about: str = "index") -> None:
    need_dtype(x, ("int", "i32"), about, "an integer tensor (int or i32)")


def need_table(weight: TensorType) -> None:
    """Rows that an index can choose from."""
    need_rank(weight, (2,), "weight")
    if weight.shape[0] == 0:
        raise OpError(f"`weight` is {weight}: there is no row that an index could choose", "weight")


def need_position(position: TensorType, start: TensorType | None = None, end: TensorType | None = None) -> None:
    """How many positions came before: one number for all rows. `start`: a number for each; `end`: one for all, with `start` one for each."""
    for name, x, axes in (("position", position, 0), ("start", start, 1), ("end", end, int(start is not None))):
        if x is not None:
            need_index(x, name)
            need_rank(x, (axes,), name)
    if start is not None and end is not None:
        need_equal(start.shape[0], end.shape[0], "the rows of `start` and of `end`", "end")


def wider(dtype: str) -> str:
    """The type 16-bit floats are computed in."""
    return "f32" if dtype in ("bf16", "f16") else dtype


def same_dtype(**operands: Any) -> str:
    """The one dtype of all tensors (matrix products convert nothing)."""
    given = {k: v for k, v in operands.items() if isinstance(v, TensorType)}
    (first, a), *rest = given.items()
    for name, b in rest:
        if b.dtype != a.dtype:
            raise OpError(f"`{first}` is {a} and `{name}` is {b}: the element types differ", name,
                          help=f"cast one of them, as in {cast_to(a.dtype, name)}", mixed=(first, name))
    need_float(a, first)
    return a.dtype


# ---------------------------------------------------------------- sizes
def equal(a: Size, b: Size) -> bool | None:
    if a is b or type(a) is int and type(b) is int:
        return a == b
    from archdsl.shapes import same

    return same(a, b)


def need_equal(a: Size, b: Size, what: str, about: str | None = None) -> None:
    """`what` names the two sizes: "the width of `x` and of `weight`"."""
    verdict = equal(a, b)
    if verdict is False:
        raise OpError(f"{what} differ: {a} and {b}", about)
    if verdict is None:
        raise OpError(f"{what} are not known to be equal: {a} and {b}", about, **_state(a, b))


def _state(a: Size, b: Size) -> dict[str, Any]:
    from archdsl.shapes import facts

    condition = facts().suggest(a, b)
    if condition is None and not symbols(a) & symbols(b):
        condition = f"{a} == {b}"
    return {} if condition is None else {"require": condition, "help": f"state it: `require {condition}`"}


def need_rank(x: TensorType, ranks: Iterable[int], about: str = "x") -> None:
    if len(x.shape) not in tuple(ranks):
        raise OpError(f"{' or '.join(map(str, ranks))} axes are needed, and this has {len(x.shape)}: {x}", about)


def broadcast(*shapes: tuple[Size, ...], about: str | None = None) -> tuple[Size, ...]:
    """Numpy's rule, aligned at the last axis; an axis of size 1 stretches."""
    out: list[Size] = []
    for i in range(1, max((len(s) for s in shapes), default=0) + 1):
        size: Size = 1
        for s in shapes:
            if i > len(s) or s[-i] == 1:
                continue
            if isinstance(size, int) and size == 1:
                size = s[-i]
                continue
            verdict = equal(size, s[-i])
            if verdict is not True:
                texts = " and ".join("[" + ", ".join(map(str, s)) + "]" for s in shapes)
                fixed = isinstance(size, int) and isinstance(s[-i], int)
                known = "do not fit" if fixed else "are not known to fit"
                raise OpError(f"the shapes {texts} {known}: axis {-i} has {size} and {s[-i]}", about,
                              **({} if fixed else _state(size, s[-i])))
            size = size if isinstance(size, int) else s[-i]
        out.append(size)
    return tuple(reversed(out))


def shape_of(x: Any) -> tuple[Size, ...]:
    return x.shape if isinstance(x, TensorType) else ()


def elementwise(*operands: Any, dtype: str | None = None) -> TensorType:
    return TensorType(dtype or promote(*operands), broadcast(*(shape_of(x) for x in operands)))


def axis_of(axis: int, rank: int, about: str = "axis") -> int:
    """A non-negative axis."""
    if not isinstance(axis, int):
        raise OpError(f"an axis is a number known at build, not {axis}", about, help="axes are counted: 0 is the first, -1 the last")
    if not -rank <= axis < rank:
        raise OpError(f"there is no axis {axis} in a tensor of {rank} axes", about)
    return axis % rank


def axes_of(axis: int | tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(rank))
    if axis == ():
        raise OpError("at least one axis is needed", "axis")
    axes = tuple(axis_of(a, rank) for a in (axis if isinstance(axis, tuple) else (axis,)))
    if len(set(axes)) < len(axes):
        raise OpError(f"an axis is named twice in {tuple(axes)}", "axis")
    return axes


def replaced(shape: tuple[Size, ...], axis: int, *sizes: Size) -> tuple[Size, ...]:
    return (*shape[:axis], *sizes, *shape[axis + 1:])


def each(value: Any, n: int, about: str, least: int = 1, known: bool = False) -> tuple[int, ...]:
    """An attribute for n axes: one number for all, or one per axis; none is below `least`, all are `known` when the model is built."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * n
    if len(values) != n:
        raise OpError(f"`{about}` has {len(values)} numbers for {n} axes", about)
    for v in values:
        if known and not isinstance(v, int):
            raise OpError(f"`{about}` has to be known when the model is built, this is {v}", about)
        if isinstance(v, int) and v < least:
            raise OpError(f"`{about}` is at least {least}, not {v}", about)
    return values


def need_count(value: Any, about: str, least: int = 1) -> None:
    """A number from `least` up that is known when the model is built."""
    if not isinstance(value, int):
        raise OpError(f"`{about}` has to be known when the model is built, this is {value}", about)
    if value < least:
        raise OpError(f"`{about}` is at least {least}, not {value}", about)


def volume(shape: Iterable[Size]) -> Size:
    return product(tuple(shape))


# ---------------------------------------------------------------- samples for the registry test
@record(frozen=True, slots=False)
class Sample(TensorType):
    """A sample operand: its values lie in [low, high) (integers too), or are a permutation along the last axis."""

    low: float = -2.0
    high: float = 2.0
    permutation: bool = False

    __hash__ = TensorType.__hash__


def floats(*shape: int, low: float = -2.0, high: float = 2.0, dtype: str = "float") -> Sample:
    return Sample(dtype, shape, low, high)


def ints(high: int, *shape: int) -> Sample:
    return Sample("int", shape, 0, high)


def bools(*shape: int) -> Sample:
    return Sample("bool", shape, 0, 2)


def order(*shape: int) -> Sample:
    return Sample("int", shape, 0, math.inf, permutation=True)
