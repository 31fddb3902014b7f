"""What decoding costs against the length of the context: the state, and the least time that one step takes on a device. Free of torch."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from archdsl.cost.devices import Device
from archdsl.cost.memory import BYTES
from archdsl.cost.model import Cost, cost
from archdsl.cost.summary import Mode
from archdsl.dims import Size, evaluate
from archdsl.elaborate.model import Elaborated
from archdsl.flatten import flatten
from archdsl.graph import Graph, Value
from archdsl.ops.registry import LENGTH
from archdsl.records import record, replace
from archdsl.streaming import in_form, source

CHOOSE = {"embedding": (0, (1,)), "grouped_linear": (1, (2, 3)), "embedding_bag": (0, (1,))}
"""Ops that read some rows of a weight -> which operand chooses them, which operands are such weights."""
LENGTHS = tuple(2**k for k in range(10, 18))
"""Positions of context that are shown unless others are asked for."""


@record(frozen=True)
class Context:
    """One step behind `length - 1` others, for all rows of the batch. state_bytes: what is kept then. per_token: how many bytes the last position
    added. macs: of the step. seconds: the larger of the times that reading the weights (of tables and experts the rows that are chosen, at most) and
    the state once, and computing, take; `bound`: which of both that is, `memory` or `compute`. None without a device."""

    length: int
    state_bytes: int
    per_token: int
    macs: int
    seconds: float | None = None
    bound: str | None = None


@record(frozen=True)
class Decoding:
    """`step`: the cost of one step at the sizes that were asked for, with formulas in `Length`. `contexts`: by increasing length."""

    step: Cost
    device: Device | None
    contexts: tuple[Context, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        rows = [{"length": c.length, "state_bytes": c.state_bytes, "per_token": c.per_token, "macs": c.macs, "seconds": c.seconds, "bound": c.bound}
                for c in self.contexts]
        of = None if self.device is None else {"name": self.device.name, "title": self.device.title, "bandwidth": self.device.bandwidth,
                                               "flops": self.device.flops[self.step.dtype], "source": self.device.source}
        return {"device": of, "contexts": rows}


def decode(made: Elaborated, at: Mapping[str, int] | None = None, dtype: str = "f32", device: Device | None = None,
           lengths: Iterable[int] = LENGTHS) -> Decoding:
    """A model's decoding at the sizes in `at` (else the spec's examples), for contexts of these lengths and of that in `at`; lengths beyond what the
    model takes are left out. Raises ArchError A0501 for a model without the form `step`, A0641 to A0644 for sizes that it does not take."""
    streamed = in_form(source(made), "step")
    assert streamed is not None
    step = cost(made, at, "step", dtype)
    most = streamed.longest
    wanted = sorted({n for n in (*lengths, step.sizes[streamed.axis]) if most is None or n <= most - streamed.delay})
    others = {n: s for n, s in step.sizes.items() if n != streamed.axis}

    def figure(name: str, length: int) -> int:
        size = step.formulas[name]
        return size if isinstance(size, int) else evaluate(size, {**others, streamed.axis: 1, LENGTH: length + streamed.delay})

    chosen = _chosen(streamed.graph, dtype) if device is not None else []
    found: list[Context] = []
    for n in wanted:
        state, macs = figure("state_bytes", n), figure("macs", n)
        left = sum(size * max(0, rows - evaluate(read, {**others, streamed.axis: 1, LENGTH: n + streamed.delay})) for read, rows, size in chosen)
        seconds, bound = (None, None) if device is None else least_time(step.weight_bytes - left + state, macs, dtype, device)
        found.append(Context(n, state, state - figure("state_bytes", n - 1), macs, seconds, bound))
    return Decoding(step, device, tuple(found))


def _chosen(graph: Graph, dtype: str) -> list[tuple[Size, int, int]]:
    """Of the weights of which a step reads rows alone, tables and experts: how many are chosen at most, how many there are, the bytes of each."""
    flat = flatten(graph)
    addresses = {Value(n): n.attrs["path"] for n in flat.nodes if n.op == "param"}
    chosen: dict[str, Size] = {}  # of weights that nothing reads but by their rows, how many are read
    whole: set[str] = {addresses[v] for v in (*flat.outputs, *flat.emits.values()) if v in addresses}
    for node in flat.nodes:
        by_rows = CHOOSE.get(node.op)
        for place, arg in enumerate(node.args):
            if by_rows is not None and place in by_rows[1] and arg in addresses:
                chosen[addresses[arg]] = chosen.get(addresses[arg], 0) + node.args[by_rows[0]].type.numel
        free = [a for i, a in enumerate(node.args) if by_rows is None or i not in by_rows[1]]
        whole |= {addresses[v] for v in replace(node, args=tuple(free)).operands() if v in addresses}
    mode = Mode(False, False, dtype)
    return [(chosen[address], p.sizes[0], prod(p.sizes[1:]) * BYTES[mode.concrete(p.type.dtype)])
            for address, p in graph.parameters() if address in chosen and address not in whole]


def least_time(moved: int, macs: int, dtype: str, device: Device) -> tuple[float, str]:
    """The roofline: seconds below which a step that reads so many bytes and multiplies so often cannot be, and what bounds it."""
    memory, compute = moved / device.bandwidth, 2 * macs / device.flops[dtype]
    return max(memory, compute), "memory" if memory >= compute else "compute"
