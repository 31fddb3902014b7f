"""What forms are derived from and what they are: the parallel graph with its axis, the tensors of a state, the graph that goes on from it."""
from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.dims import Size, sym, symbols
from archdsl.graph import Graph, TensorType
from archdsl.ops.registry import LENGTH
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.source import Span
    from archdsl.streaming.absorb import Absorbed

DOCUMENTS = "Documents"
"""How many documents lie behind each other in a call of the form `packed`."""


REWRITES = ("absorb",)
"""By what a form with state may differ from the text, for a smaller state: see absorb.py."""


@record(frozen=True)
class Source:
    """What forms are derived from: the graph of all positions at once, the name of its streaming axis if it has one, the axis' example size.
    `rewrites`: which of `REWRITES` forms with state may use; all unless given."""

    graph: Graph
    axis: str | None
    example: int | None = None
    rewrites: tuple[str, ...] = REWRITES


@record(frozen=True)
class Slot:
    """One tensor of the state: its address, and its type in the sizes of the model's inputs and `Length`; it begins as zeros. `kept`: made of inputs
    without positions alone; each call of the form `extend` sets it anew, steps read it."""

    address: str
    type: TensorType
    kept: bool = False


@record(frozen=True)
class Streamed:
    """A model in a form with state. `graph`: its inputs are the model's, then those named in `slots`, in that order; so are its outputs.
    `axis`: the streaming one, `example` its size where the spec gives one; `batch`: the size of the first axis before it, if there is one.
    `rows`: rows may begin at different positions. `longest`: how many positions there may be in all, where the model says so. `rewritten`: where
    the form differs from the text. `delay`: how many positions later than their own results come, where an op looks ahead."""

    graph: Graph
    form: str
    axis: str
    batch: Size | None
    slots: tuple[Slot, ...]
    rows: bool
    longest: int | None
    example: int | None = None
    rewritten: tuple[Absorbed, ...] = ()
    delay: int = 0
    ahead: Span | None = None
    given: tuple[tuple[str, int | None], ...] = ()
    results: tuple[int | None, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the state's inputs, in the order of the slots."""
        return tuple(v.node.attrs["name"] for v in self.graph.inputs[len(self.graph.inputs) - len(self.slots):])

    @property
    def takes(self) -> tuple[str, ...]:
        """The names of its other inputs."""
        return tuple(v.node.attrs["name"] for v in self.graph.inputs[:len(self.graph.inputs) - len(self.slots)])

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(s.address for s in self.slots)

    @property
    def step(self) -> Size:
        """How many positions a call has."""
        return 1 if self.form == "step" else sym(self.axis)

    @property
    def has_length(self) -> bool:
        return any(LENGTH in symbols(s) for slot in self.slots for s in slot.type.shape)
