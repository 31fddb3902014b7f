"""How much a spec may take. Reading one from a stranger ends soon and within some hundred megabytes: whatever could grow is counted here.

A step is some 3 µs of work. Values are weighed as the trees that they stand for, since whoever walks one (to compare, print or key it) meets a part
as often as it is mentioned: `v = [v, v]` sixty times over is a small object and an endless list.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from fractions import Fraction
from functools import wraps
from time import process_time
from types import FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from archdsl.alone import ALONE
from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import TooLarge
from archdsl.elaborate.values import Compose, RecordValue, Share, Template
from archdsl.graph import InitExpr, Mask
from archdsl.source import Span
from archdsl.wording import with_article

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Session

MAX_STEPS = 300_000  # of one elaboration, and of all that checking one file of a few lines needs
LINE_STEPS = 30  # more for each line of a file that is checked: models take 10 to 60
MAX_LINES = 10_000  # that count so
MAX_ITEMS = 200_000  # of a list with the lists inside it, of a block with the blocks inside it; characters of a string
MAX_BITS = 4_096  # of a number; of each half of a fraction
MAX_DEPTH = 64  # of values inside values
MAX_CALLS = 60  # of blocks and functions inside each other
MAX_FAULTS = 50  # of one body; who has seen these has enough to do
PIECE = 140_000  # words of Python's stack: more than 1 MB, so it is taken from 2 MB, of which pages are real when they are used
FRAMES = 5_000  # of Python's stack: MAX_CALLS bodies with the expressions in them
MAX_GUARDS = 500  # conditions on run-time sizes
MAX_ADDRESS = 1_000  # characters of an address inside one block
MAX_WEIGHTS = 200_000  # of a model, each copy counted
MAX_NODES = 1_000_000  # ops that a model runs, each as often as it runs
NODE_STEPS = 5  # of copying a node
CLOCK = 50  # steps, after which a ration looks at the clock
MAX_AXES = 64  # torch has no tensors of more
MAX_ELEMENTS = 2**62  # of a tensor
MAX_SIZE = 2**48  # of an axis at a run


P = ParamSpec("P")
T = TypeVar("T")


class Spent(Exception):
    """A ration is used up."""


class Ration:
    """How much work may go into what could as well be left undone, as trying out fixes: `steps` of elaboration and, far beyond what these take, as
    not all work is counted in them, `seconds` of this process's CPU."""

    __slots__ = ("_next", "steps", "until")

    def __init__(self, steps: int, seconds: float):
        self.steps, self.until = steps, process_time() + seconds
        self._next = steps - CLOCK

    def pay(self, steps: int) -> None:
        """Raises Spent when there is not so much left."""
        self.steps -= steps
        if self.steps <= self._next:
            self._next = self.steps - CLOCK
            if self.steps < 0 or process_time() > self.until:
                raise Spent

    @contextmanager
    def part(self, most: int) -> Generator[None, None, None]:
        """Work that may take so many steps: beyond them it raises Spent, and the rest is there as before."""
        rest = max(self.steps - most, 0)
        self.steps -= rest
        self._next = self.steps - CLOCK
        try:
            yield
        finally:
            self.steps += rest
            self._next = self.steps - CLOCK


class TooMuch(ValueError):
    """A limit met where no place in the text is known: a sentence in the user's words."""


_COMPOUND = frozenset((tuple, RecordValue, Mask, InitExpr, Template, Compose, Share))


def limit(message: str, span: Span, label: str = "", help: str = "") -> ArchError:
    """A0602."""
    return error("A0602", message, span, label, help=(help,) if help else ())


@contextmanager
def room(span: Span) -> Generator[None, None, None]:
    """Stack for the deepest spec that is allowed; one that needs more gets A0602, as do numbers that no limit above has stopped."""
    with ALONE:  # Python has one limit for all threads
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(max(before, FRAMES))
        try:
            yield
        except (RecursionError, OverflowError) as fault:
            raise beyond(fault, span) from None
        finally:
            sys.setrecursionlimit(before)


def _call(f: Callable[..., T], args: Any, kwargs: Any) -> T:
    return f(*args, **kwargs)


_unbroken: Callable[..., Any] = FunctionType(_call.__code__.replace(co_stacksize=PIECE), {})


def in_one_piece(f: Callable[P, T]) -> Callable[P, T]:
    """`f`, with room for it and what it calls in one piece of CPython's stack. That comes in pieces of 16 KB, a new one is mapped and unmapped
    whenever a call crosses a border, and a loop at a depth just below one pays this each time. A frame that asks for much gets a large piece."""
    @wraps(f)
    def runs(*args: P.args, **kwargs: P.kwargs) -> T:
        return _unbroken(f, args, kwargs)

    return runs


def beyond(fault: RecursionError | OverflowError, span: Span) -> ArchError:
    """A0602 for what Python's stack and our sizes did not hold, A0221 for what its floats did not."""
    if isinstance(fault, RecursionError):
        return limit("this nests too deeply", span, help="bind the inner parts to names, or nest fewer blocks")
    if isinstance(fault, TooLarge):
        return limit(str(fault), span)
    return error("A0221", "a number here is out of the range of floats", span, "beyond 1.8e308")


def checked(session: Session, value: Any, span: Span) -> Any:
    """The value, its making paid for in steps. Raises A0602 when it is larger than a value may be."""
    kind = value.__class__
    if kind is int:
        if value.bit_length() > MAX_BITS:
            raise too_wide(value.bit_length(), span)
    elif kind is float:
        if not math.isfinite(value):
            raise error(
                "A0221",
                "this number is out of range",
                span,
                f"no float is {'defined here' if value != value else 'that large'}",
                help="the largest float is about 1.8e308",
            )
    elif kind is Fraction:
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if bits > MAX_BITS:
            raise too_wide(bits, span)
    elif kind is str:
        if len(value) > MAX_ITEMS:
            raise limit(f"a string of {len(value):,} characters is too large", span, help=f"at most {MAX_ITEMS:,} are allowed")
        session.step(span, len(value) >> 6)
    elif kind in _COMPOUND:
        weight, depth = weigh(session, value)
        what = (
            "list"
            if kind is tuple
            else "record"
            if kind is RecordValue
            else "mask"
            if kind is Mask
            else "initialiser"
            if kind is InitExpr
            else "block"
        )
        if weight > MAX_ITEMS + 1:
            extent = f"of {_about(weight - 1)} items" if kind is tuple else f"with {_about(weight)} parts"
            raise limit(f"{with_article(what)} {extent} is too large", span,
                        help=f"at most {MAX_ITEMS:,} are allowed, those inside of others included")
        if depth > MAX_DEPTH:
            raise limit(f"{with_article(what)} lies inside others more than {MAX_DEPTH} deep", span)
        exact = kind is tuple and value and type(value[0]) is Fraction
        session.step(span, weight if exact else weight >> 2 if kind is tuple else weight >> 4)
    return value


def _about(n: int) -> str:
    return f"{n:,}" if n < 10**12 else f"more than {10**12:,}"


def too_wide(bits: int, span: Span) -> ArchError:
    return limit(f"a number of {bits:,} bits is too large", span, help=f"at most {MAX_BITS:,} bits are allowed")


def weigh(session: Session, value: Any) -> tuple[int, int]:
    """(parts, depth) of a value written out; long numbers and strings count for several. What is inside others is remembered, so this takes time
    for one level alone."""
    known = session.weights.get(id(value))
    if known is not None and known[0] is value:
        return known[1]
    weight, depth = 1, 0
    parts = _parts(value)
    for part in parts:
        if type(part) in _COMPOUND:
            w, d = weigh(session, part)
            weight += w
            depth = max(depth, d)
        elif type(part) is int:
            weight += 1 + (part.bit_length() >> 6)
        elif type(part) is str:
            weight += 1 + (len(part) >> 4)
        elif type(part) is Fraction:
            weight += 1 + (part.numerator.bit_length() + part.denominator.bit_length() >> 6)
        else:
            weight += 1
    if depth or len(parts) > 16:
        session.weights[id(value)] = value, (weight, depth + 1)
    return weight, depth + 1


def _parts(value: Any) -> tuple[Any, ...]:
    kind = value.__class__
    if kind is tuple:
        return value
    if kind is RecordValue:
        return tuple(v for _, v in value.items)
    if kind is Mask:
        return value.args
    if kind is InitExpr:
        return (*value.args, *(v for _, v in value.attrs))
    if kind is Template:
        return tuple(b.value for b in value.args.values())
    return value.parts if kind is Compose else (value.template,)
