"""The words of the language that are no ops: functions of hyper values, masks, initialisers, `identity`, `zero`, `collect`."""
from __future__ import annotations

import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from archdsl import dims, shapes
from archdsl.diagnostics.model import error
from archdsl.dims import Dim
from archdsl.elaborate.limits import MAX_BITS, MAX_ITEMS, TooMuch
from archdsl.elaborate.values import Builtin, InitRef, MaskRef, OpRef, describe, is_hyper_number, is_list, show
from archdsl.graph import Mask
from archdsl.ops.registry import OPS, of_function
from archdsl.ops.registry import find as find_op
from archdsl.ops.registry import load as load_ops

MASKS = {"window": 1, "causal_by": 1, "own_block": 1, "keys": 1, "equal_labels": 1}
FUNCTIONS: dict[str, Builtin] = {}


class HyperError(ValueError):
    """A fault in a stage-1 call: a sentence in the user's words."""


class Broken(HyperError):
    """A number that breaks a rule of a function: the number is wrong, whatever the call."""


def function(f: Callable[..., Any]) -> Callable[..., Any]:
    name = f.__name__.rstrip("_")
    FUNCTIONS[name] = Builtin(name, f, (f.__doc__ or "").strip())
    return f


@function
def pi() -> Fraction:
    """π, to the digits of a double."""
    return Fraction("3.141592653589793")


def number(value: Any) -> Any:
    if not is_hyper_number(value):
        raise HyperError(f"a number was expected, this is {describe(value)}")
    return value


def items(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(value)
    if not is_list(value):
        raise HyperError(f"a list was expected, this is {describe(value)}")
    return value


def count(value: Any) -> int:
    if type(value) is not int:
        raise HyperError(f"a whole number was expected, this is {describe(value)}")
    return value


def few(n: int) -> int:
    """The length of a list to be made. Raises TooMuch."""
    if n > MAX_ITEMS:
        raise TooMuch(f"{n:,} items are too many: at most {MAX_ITEMS:,} are allowed")
    return n


def _steps(a: Fraction, b: Fraction, n: int, last: int) -> list[Fraction]:
    """a, a + (b - a) / last, … of n numbers."""
    wide = max(x.bit_length() for f in (a, b) for x in f.as_integer_ratio())
    if few(n) * (wide + 32) > MAX_BITS * MAX_ITEMS // 8:
        raise TooMuch(f"{n:,} numbers of {wide:,} bits are too many")
    low, high, below = a.numerator * b.denominator, b.numerator * a.denominator, a.denominator * b.denominator
    return [Fraction(low * last + (high - low) * i, below * last) for i in range(n)]


def _sized(*values: Any) -> bool:
    """Whether run-time sizes are among the values."""
    return any(isinstance(v, Dim) for v in values)


def _of_sizes(f: Callable[..., Any], *values: Any) -> Any:
    """`f` on sizes: whole numbers and run-time ones. The facts that requirements have stated apply, as they do to `//`."""
    for v in values:
        if not isinstance(v, Dim) and type(v) is not int:
            raise HyperError(f"a size was expected, this is {describe(v)}")
    return shapes.normal(f(*values))


@function
def range_(*bounds: Any) -> Any:
    """range(n), range(a, b), range(a, b, step): whole numbers from a (0) to b (excluded). n is not negative."""
    r = range(*map(count, bounds))
    if len(bounds) == 1 and r.stop < 0:
        raise Broken(f"`range(n)` counts n numbers from 0 on, and n is {r.stop}")
    few(-((r.start - r.stop) // r.step))
    return tuple(r)


@function
def enumerate_(xs: Any) -> Any:
    """[(0, first), (1, second), …]"""
    return tuple(enumerate(items(xs)))


@function
def zip_(*lists: Any) -> Any:
    """Items of several lists of one length, paired."""
    ls = [items(x) for x in lists]
    if len({len(x) for x in ls}) > 1:
        raise HyperError(f"lists of different lengths cannot be paired: {', '.join(str(len(x)) for x in ls)}")
    return tuple(zip(*ls))


@function
def len_(xs: Any) -> Any:
    """The number of items."""
    return len(items(xs))


@function
def sum_(xs: Any) -> Any:
    """The sum of a list of numbers."""
    total: Any = 0
    for x in items(xs):
        total = total + number(x)
        if isinstance(total, Fraction) and total.denominator.bit_length() > MAX_BITS:
            raise TooMuch(f"a fraction of more than {MAX_BITS:,} bits is too large")
    return total


@function
def min_(*xs: Any) -> Any:
    """The smallest of a list or of the arguments."""
    values = items(xs[0]) if len(xs) == 1 else xs
    return _of_sizes(dims.minimum, *values) if _sized(*values) else min(map(number, values))


@function
def max_(*xs: Any) -> Any:
    """The largest of a list or of the arguments."""
    values = items(xs[0]) if len(xs) == 1 else xs
    return _of_sizes(dims.maximum, *values) if _sized(*values) else max(map(number, values))


@function
def sorted_(xs: Any) -> Any:
    """The list in ascending order."""
    return tuple(sorted(items(xs)))


@function
def reversed_(xs: Any) -> Any:
    """The list backwards."""
    return tuple(reversed(items(xs)))


@function
def repeat_(x: Any, n: Any) -> Any:
    """A list of n times x."""
    return (x,) * few(count(n))


@function
def abs_(x: Any) -> Any:
    """|x|"""
    return abs(number(x))


@function
def floor_(x: Any) -> Any:
    """The largest whole number ≤ x."""
    return math.floor(number(x))


@function
def ceil_(x: Any) -> Any:
    """The smallest whole number ≥ x."""
    return math.ceil(number(x))


@function
def round_(x: Any) -> Any:
    """The nearest whole number, halves to even."""
    return round(number(x))


@function
def floordiv_(a: Any, b: Any) -> Any:
    """⌊a / b⌋"""
    return _of_sizes(dims.floordiv, a, b) if _sized(a, b) else number(a) // number(b)


@function
def ceildiv_(a: Any, b: Any) -> Any:
    """⌈a / b⌉"""
    return _of_sizes(dims.ceildiv, a, b) if _sized(a, b) else -(-number(a) // number(b))


@function
def mod_(a: Any, b: Any) -> Any:
    """a - b ⌊a / b⌋"""
    return _of_sizes(dims.mod, a, b) if _sized(a, b) else number(a) % number(b)


@function
def sqrt_(x: Any) -> Any:
    """The square root; exact when it is a whole number."""
    root = math.isqrt(x) if isinstance(number(x), int) and x >= 0 else None
    return root if root is not None and root * root == x else math.sqrt(x)


@function
def exp_(x: Any) -> Any:
    """eˣ"""
    return math.exp(number(x))


@function
def log_(x: Any) -> Any:
    """The natural logarithm."""
    return math.log(number(x))


@function
def linspace_(a: Any, b: Any, n: Any) -> Any:
    """n evenly spaced numbers from a to b, both included."""
    n = count(n)
    a, b = Fraction(number(a)), Fraction(number(b))
    return tuple(_steps(a, b, n, n - 1)) if n > 1 else (a,) * n


@function
def ramp_(a: Any, b: Any, depths: Any, end: Any = True) -> Any:
    """Numbers from a to b over all blocks, nested as `depths`: [[…], […]]. Without `end` the last one stays below b."""
    sizes = [count(d) for d in items(depths)]
    if any(d < 0 for d in sizes):
        raise HyperError("no list has a negative length")
    total = sum(sizes)
    flat = _steps(Fraction(number(a)), Fraction(number(b)), total, max(total - 1 if end else total, 1))
    out: list[tuple[Any, ...]] = []
    at = 0
    for d in sizes:
        out.append(tuple(flat[at : at + d]))
        at += d
    return tuple(out)


@function
def multiples_(k: Any, low: Any, high: Any) -> Any:
    """The multiples of k from low to high, both included."""
    first = -(-number(low) // count(k)) * k
    return range_(math.ceil(first), math.floor(number(high)) + 1, k)


@function
def divisors_(n: Any) -> Any:
    """The whole numbers that divide n, ascending."""
    n = count(n)
    if n > 10**9:
        raise TooMuch("the number is too large to list its divisors")
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return tuple(small + [n // d for d in reversed(small) if d * d != n])


@function
def int_(x: Any) -> Any:
    """A whole number from a number (cut towards zero), a bool or a string of digits."""
    if isinstance(x, str):
        if not re.fullmatch(r"\s*-?[0-9]+\s*", x) or len(x) > 1000:
            raise HyperError(f'"{x[:40]}" is no whole number')
        return int(x)
    return int(x) if isinstance(x, bool) else int(number(x))


@function
def float_(x: Any) -> Any:
    """The number as an exact rational, so that `/` does not have to be whole."""
    return Fraction(number(x))


@function
def str_(x: Any) -> Any:
    """The value as the language writes it; a string as it is."""
    return x if isinstance(x, str) else show(x)


@function
def split_(text: Any, by: Any) -> Any:
    """The parts of a string between separators."""
    if not isinstance(text, str) or not isinstance(by, str) or not by:
        raise HyperError("split takes a string and a separator")
    return tuple(text.split(by))


@function
def starts_with_(text: Any, start: Any) -> Any:
    """Whether a string begins so."""
    return isinstance(text, str) and text.startswith(start)


@function
def all_(xs: Any) -> Any:
    """Whether every item is true."""
    return all(items(xs))


@function
def any_(xs: Any) -> Any:
    """Whether some item is true."""
    return any(items(xs))


def work(name: str, args: list[Any]) -> int:
    """The steps of a call: what it reads; `divisors` looks further than its argument is long."""
    if name == "divisors" and args and type(args[0]) is int:
        return math.isqrt(min(abs(args[0]), 10**9)) >> 4
    return sum(len(a) for a in args if is_list(a) or isinstance(a, str)) >> 4


def call_mask(name: str, args: list[Any], named: dict[str, Any], span: Any) -> Mask:
    """`window(64)`, `causal_by(8)`, `own_block(16, previous = 1)`, `keys(valid)`, `equal_labels(region)`."""
    values = [*args, *named.values()]
    allowed = {"own_block": (1, 2)}.get(name, (1, 1))
    if not allowed[0] <= len(values) <= allowed[1] or any(k != "previous" for k in named) or not args:
        raise error("A0202", f"the mask {name} takes {'one argument' if allowed[1] == 1 else 'a size and `previous`'}", span)
    if name in ("window", "causal_by", "own_block"):
        for v in values:
            if not isinstance(v, (int, Dim)) or isinstance(v, bool) or isinstance(v, int) and v < (0 if v is not values[0] else 1):
                raise error("A0204", f"the mask {name} takes sizes, this is {describe(v)}", span)
            if dims.largest(v) >= 2**63:
                raise error("A0221", "this number is out of range", span, f"no positions are as far apart as {show(v)}")
    if name == "own_block" and len(values) == 1:
        values.append(0)
    return Mask(name, tuple(values))


def find(name: str) -> Any:
    """The builtin of that name, or None. A name may be a function of numbers and an op at once (`sqrt`): the function comes first
    and gives way to the op when an argument is a tensor."""
    if name in ("full", "causal"):
        return Mask(name)
    if name in MASKS:
        return MaskRef(name)
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    from archdsl.ops.initializers import INITIALIZERS

    if name in INITIALIZERS:
        return InitRef(name)
    if name in ("collect", "bank", "routed"):
        return Builtin(name, lambda *a: None)
    op = find_op(name)
    return OpRef(op) if op is not None else None


def is_op(name: str) -> bool:
    """Whether it is an op, or a function of numbers that is one of tensors as well."""
    found = find(name)
    return isinstance(found, OpRef) or isinstance(found, Builtin) and of_function(name) is not None


def installed_op(name: str) -> bool:
    """Whether an installed package adds an op of that name; asked before a name is called unknown."""
    from archdsl.ops.registry import installed

    return name.islower() and module_of(name) is None and installed(name)


def names() -> list[str]:
    load_ops()
    from archdsl.ops.initializers import INITIALIZERS

    return ["full", "causal", *MASKS, *FUNCTIONS, *sorted(OPS), *INITIALIZERS, "collect"]


_exports: dict[str, str] | None = None


def module_of(name: str) -> str | None:
    """The library module that declares a block of this name."""
    global _exports
    if _exports is None:
        from archdsl.modules import library_exports

        _exports = library_exports()
    return _exports.get(name)
