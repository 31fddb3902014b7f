"""What one way of calling a block comes to, and in what it is counted: modes, sizes, values that lie somewhere."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from archdsl.cost.memory import BYTES, Placed
from archdsl.dims import Size, evaluate, product, substitute
from archdsl.graph import FLOATS, TensorType
from archdsl.lower.plan import Definition
from archdsl.records import record


@record(frozen=True)
class Mode:
    """`training` chooses the arms of phases; `grad` records what autograd keeps (and no live bytes). `dtype`: that of the build's floats. `opaque`:
    ops that keep their operands alone, because a kernel computes them."""

    training: bool
    grad: bool
    dtype: str
    opaque: frozenset[str] = frozenset()

    def concrete(self, dtype: str) -> str:
        """The dtype in this build: pinned floats are a minimum."""
        return self.dtype if dtype == "float" or self.dtype == "f64" and dtype in FLOATS else dtype


@record(frozen=True)
class Sizes:
    """The run-time sizes of one block: as numbers, and as its caller's polynomials where formulas are wanted."""

    numbers: Mapping[str, int]
    formula: Mapping[str, Size] | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(self.numbers.items()), None if self.formula is None else tuple(self.formula.items())

    def number(self, size: Size) -> int:
        return size if isinstance(size, int) else evaluate(size, self.numbers)

    def amount(self, size: Size) -> Size:
        if isinstance(size, int) or self.formula is None:
            return self.number(size)
        return substitute(size, {n: self.formula[n] for n in size.symbols if n in self.formula})

    def inner(self, given: Iterable[tuple[str, int, Size]]) -> Sizes:
        """For a block that is called with these sizes."""
        new = tuple(given)
        if self.formula is None:
            return Sizes({**self.numbers, **{n: i for n, i, _ in new}})
        return Sizes({**self.numbers, **{n: i for n, i, _ in new}}, {**self.formula, **{n: s for n, _, s in new}})


@record(frozen=True)
class Tensor:
    """A value: how it lies, the number of its storage in this block, and whether it needs a gradient."""

    place: Placed
    storage: int
    grad: bool


@record(frozen=True)
class Out:
    """A result of a block: in the memory of its input number `slot`, or in the block's own `new`-th storage, or neither: a weight's."""

    place: Placed
    grad: bool
    slot: int | None = None
    new: int | None = None


@record(frozen=True)
class Call:
    """One application of a block. `slots`, `news`: the caller's storages for the block's inputs and for what it gives back."""

    path: str
    summary: Summary
    slots: tuple[int, ...]
    news: tuple[int, ...]


@record(frozen=True)
class Summary:
    """What one way of calling a block comes to. Its first `slots` storages are the caller's; `bytes[i]` is 0 for them and for weights.

    `news`: the storages that it gives back. `peak`: candidates for the most bytes that are alive inside at once, inputs left out.
    `bops`: each product times the bits of its factors. `kept`: storages that autograd keeps, weights left out; `private`: bytes of those kept here
    and below that nobody else sees.
    """

    definition: Definition
    inputs: tuple[Placed, ...]
    outputs: tuple[Out, ...]
    slots: int
    news: tuple[int, ...]
    bytes: tuple[Size, ...]
    weights: frozenset[int]
    macs: Size
    bops: Size
    peak: tuple[Size, ...]
    kept: frozenset[int]
    private: Size
    calls: tuple[Call, ...]
    own_unknown: tuple[str, ...]

    @property
    def kept_slots(self) -> list[int]:
        return [i for i in range(self.slots) if i in self.kept]

    def unknown(self, prefix: str = "") -> Iterator[str]:
        """Addresses of blocks whose cost nobody knows."""
        yield from (prefix + p for p in self.own_unknown)
        for call in self.calls:
            yield from call.summary.unknown(f"{prefix}{call.path}.")


def whole(size: Size) -> int:
    """An amount that is known to be a number."""
    assert isinstance(size, int), size
    return size


def nbytes(t: TensorType) -> Size:
    return product(t.shape) * BYTES[t.dtype]
