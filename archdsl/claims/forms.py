"""Claims about forms with state: that they give what the parallel form gives, and that a state does not grow."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

from archdsl.claims.run import (
    LONGEST,
    TOLERANCE,
    affordable,
    axis_of_stream,
    cheap,
    draws,
    first_positions,
    random_model,
    seeded,
    shortened,
    small_sizes,
)
from archdsl.cost.sizes import require
from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import Dim, symbols
from archdsl.elaborate.model import Elaborated
from archdsl.elaborate.values import is_list
from archdsl.inputs import sample_inputs
from archdsl.lazy import torch
from archdsl.ops.registry import LENGTH
from archdsl.records import replace
from archdsl.streaming import Streamed, in_form, source


def largest_gap(made: Elaborated, output: str) -> tuple[float, str]:
    """The largest difference of an output between the forms, relative to the largest output above 1, and what was seen: all positions at once against
    parts of random lengths and against single ones, with the same random weights in float64. Raises A0404 for a model that draws random
    numbers, A0501 for one without these forms."""
    made = replace(made, graph=shortened(made.graph))
    if draws(made):
        raise error("A0404", "forms are not compared: the model draws random numbers, others in each call", made.decl.name_span)
    forms = source(made)
    for form in ("extend", "step"):
        in_form(forms, form)
    sizes = _two_rows(made, small_sizes(made))
    affordable(made, sizes)
    model = random_model(made.graph)
    model.__dict__["_source"] = forms
    gap, _ = first = _gap(made, model, output, sizes)
    longer = {**sizes, made.stream or "": min(made.sizes.get(made.stream or "", 0), LONGEST)}
    if longer[made.stream or ""] <= sizes[made.stream or ""] or not cheap(made, longer):
        return first
    more, seen = _gap(made, model, output, longer)
    return (more, seen) if gap <= more or gap <= TOLERANCE else first


def _gap(made: Elaborated, model: Any, output: str, sizes: dict[str, int]) -> tuple[float, str]:
    """The same for given sizes."""
    from archdsl.lower.forms import sibling

    inputs = list(sample_inputs(made, sizes, dtype=torch.float64))
    which, stream = made.graph.output_names.index(output), made.stream or ""
    (expected,) = _chosen(seeded(model, inputs), which)
    gap = 0.0
    length = sizes[stream]
    extend, step = sibling(model, "extend"), sibling(model, "step")
    late = extend.delay
    for form, calls in (("extend", [(extend, length), *([(extend, late)] * bool(late))]),
                        ("extend", [(extend, n) for n in (*_parts(length), *([late] * bool(late)))]),
                        ("step", [(extend if _has_kept(step) and not t else step, 1) for t in range(length + late)])):
        found = _in_parts(made, calls, inputs, which, sizes)
        if found.shape != expected.shape:
            return math.inf, f"the form `{form}` gives {list(found.shape)}, the parallel one {list(expected.shape)}"
        gap = max(gap, float((found - expected).abs().amax() / expected.abs().amax().clamp(min=1)))
    return (gap if math.isfinite(gap) else math.inf), f"differ by {gap:.2g} at {stream} = {length}"


def _two_rows(made: Elaborated, sizes: dict[str, int]) -> dict[str, int]:
    """With two rows, where the model takes them: what one row does must not depend on others."""
    try:
        require(made, {**sizes, "B": 2})
    except ArchError:
        return sizes
    return {**sizes, "B": 2} if "B" in sizes else sizes


def _parts(length: int) -> Iterator[int]:
    """Random lengths with that sum, one alone among them."""
    draw = random.Random(length)
    at, first = 0, True
    while at < length:
        n = 1 if first and length > 1 else min(draw.randint(1, max(length // 3, 1)), length - at)
        first = False
        yield n
        at += n


def _has_kept(step: Any) -> bool:
    """Whether a call of the form `extend` comes first, which sets what is kept of inputs without positions."""
    return any(slot.kept for slot in step.__dict__["_streamed"].slots)


def _in_parts(made: Elaborated, calls: list[tuple[Any, int]], inputs: list[Any], which: int, sizes: dict[str, int]) -> Any:
    """An output of forms with state, that of all calls behind each other; of the last one where it has no positions. Of a model that looks ahead
    the calls are longer by its delay, by which the results are late."""
    model = calls[0][0]
    stream, streamed = made.stream or "", model.__dict__["_streamed"]
    needed = {n for slot in streamed.slots for s in slot.type.shape for n in symbols(s)} - {LENGTH, str(streamed.batch)}
    batch = sizes[str(streamed.batch)] if streamed.batch is not None else 1
    late = model.delay
    state = model.init_state(batch, sizes[stream] + late, **{n: sizes[n] for n in needed})
    inputs = [_longer(x, i.type.shape, stream, late) for x, i in zip(inputs, made.inputs)]
    found: list[Any] = []
    at = 0
    for model, n in calls:
        taken = model.__dict__["_streamed"].takes
        now = [_behind(first_positions(x, i.type.shape, stream, at + n), i.type.shape, stream, at)
               for x, i in zip(inputs, made.inputs) if i.name in taken]
        state = model.end_state(state) if at == sizes[stream] else state
        out, state = seeded(model, [*now, state])
        found += _chosen(out, which)
        at += n
    shape = made.graph.outputs[which].type.shape
    moves = any(isinstance(s, Dim) and str(s) == stream for s in shape)
    if not moves:
        return found[-1]
    axis = axis_of_stream(shape, stream)
    return torch.cat(found, axis).narrow(axis, late, sizes[stream])


def _behind(x: Any, shape: tuple[Any, ...], stream: str, at: int) -> Any:
    """An input without its first `at` positions."""
    for axis, size in enumerate(shape):
        if isinstance(size, Dim) and str(size) == stream:
            x = x.narrow(axis, at, x.shape[axis] - at)
    return x


def _longer(x: Any, shape: tuple[Any, ...], stream: str, late: int) -> Any:
    """An input with so many positions more, which hold its first."""
    for axis, size in enumerate(shape):
        if late and isinstance(size, Dim) and str(size) == stream:
            x = torch.cat([x, *([x.narrow(axis, 0, 1)] * late)], axis)
    return x


def _chosen(out: Any, which: int) -> list[Any]:
    return [out[which] if is_list(out) else out]


def growth(made: Elaborated) -> tuple[bool, str]:
    """Whether the state has the same size however many positions came before, and what was seen. Raises A0501 for a model without a state."""
    streamed: Streamed | None = in_form(source(made), "step")
    assert streamed is not None
    grows = [slot for slot in streamed.slots if any(LENGTH in symbols(s) for s in slot.type.shape)]
    if not grows:
        return True, f"{len(streamed.slots)} tensors, none of which grows"
    return False, f"`{grows[0].address}` is {grows[0].type}"
