"""What decoding costs against the length of the context: the state, and the least time that one step takes on a device. Free of torch."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from archdsl.cost.devices import Device
from archdsl.cost.model import Cost, cost
from archdsl.dims import evaluate
from archdsl.elaborate.model import Elaborated
from archdsl.ops.registry import LENGTH
from archdsl.records import record
from archdsl.streaming import in_form, source

LENGTHS = tuple(2**k for k in range(10, 18))
"""Positions of context that are shown unless others are asked for."""


@record(frozen=True)
class Context:
    """One step behind `length - 1` others, for all rows of the batch. state_bytes: what is kept then. per_token: how many bytes the last position
    added. macs: of the step. seconds: the larger of the times that reading all weights and the state once, and computing, take; `bound`: which of
    both that is, `memory` or `compute`. None without a device."""

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
    wanted = sorted({n for n in (*lengths, step.sizes[streamed.axis]) if most is None or n <= most})
    others = {n: s for n, s in step.sizes.items() if n != streamed.axis}

    def figure(name: str, length: int) -> int:
        size = step.formulas[name]
        return size if isinstance(size, int) else evaluate(size, {**others, streamed.axis: 1, LENGTH: length})

    found: list[Context] = []
    for n in wanted:
        state, macs = figure("state_bytes", n), figure("macs", n)
        seconds, bound = (None, None) if device is None else least_time(step.weight_bytes + state, macs, dtype, device)
        found.append(Context(n, state, state - figure("state_bytes", n - 1), macs, seconds, bound))
    return Decoding(step, device, tuple(found))


def least_time(moved: int, macs: int, dtype: str, device: Device) -> tuple[float, str]:
    """The roofline: seconds below which a step that reads so many bytes and multiplies so often cannot be, and what bounds it."""
    memory, compute = moved / device.bandwidth, 2 * macs / device.flops[dtype]
    return max(memory, compute), "memory" if memory >= compute else "compute"
