"""Drives a text through every stage. What is wrong with it is an ArchError; anything else is a fault of ours and raised as it is."""

from __future__ import annotations

import contextlib
import gc
import resource
import signal
import sys
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from archdsl.claims import verify
from archdsl.diagnostics.model import ArchError
from archdsl.diagnostics.render import render
from archdsl.dims import evaluate
from archdsl.elaborate.model import Elaborated
from archdsl.graph import TensorType
from archdsl.inputs import sample_inputs
from archdsl.lints import lint
from archdsl.lower.emit_python import python_source
from archdsl.ops.rules import torch_dtype
from archdsl.printer import print_graph
from archdsl.source import Source
from archdsl.spec import Spec, loads
from archdsl.syntax.fmt import format_module
from archdsl.syntax.parser import parse
from archdsl.weights import export_weights, import_weights
from tests.bad.client import HANGS, REFERENCE
from tests.bad.server import speed

SECONDS = 2.0  # for each stage of one text
BYTES = 700_000_000  # that one text may take beyond what the process has had
DATA = ("out of bounds", "its table has", "index out of range", "Expected idx >= 0", "an index lies beyond", "the lengths of the documents")
"""What is told of values that do not fit, which are data."""
SMALL = 3_000_000  # numbers in weights, and multiply-accumulates by hundreds, of what is run


class Hangs(Exception):
    """A stage that takes longer than it may."""


@cache
def allowed() -> float:
    """Seconds on this machine, when everything that is loaded once has been."""
    spec = loads("use std.linear { Linear }\nmodel M()(x: [B, T, 8]) -> y: [B, T, 8] stream T { return Linear(8)(x) as a }\nclaim { causal(y, x) }")
    costs_and_closes(spec.elaborate(), spec, None)
    runs(spec.elaborate(), spec, None)
    verify(spec)
    return HANGS * SECONDS * max(1.0, speed() / REFERENCE)


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """Stops what would take the machine; what takes too long is told by its traceback. Garbage is collected between the stages: to look through
    what earlier tests left in this process takes seconds, and is no work of the stage."""

    def stop(*_: Any) -> None:
        raise Hangs(f"more than {3 * most_seconds:.0f} s")

    most_seconds = allowed()
    collecting = gc.isenabled()
    gc.disable()
    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, 3 * most_seconds)
    start, most = time.process_time(), _resident()
    try:
        yield
    finally:
        took = time.process_time() - start
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        if collecting:
            gc.enable()
    if took >= most_seconds:  # processes beside this one share its caches and cores: is the machine slower now than when it was measured?
        most_seconds = max(most_seconds, HANGS * SECONDS * speed() / REFERENCE)
    assert took < most_seconds, f"{took:.1f} s of {most_seconds:.1f}"
    assert _resident() - most < BYTES, f"{_resident() - most:,} bytes"


def _resident() -> int:
    """The largest resident size so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def formats(text: str) -> bool:
    """Formatting keeps the tree and the comments, and what it wrote. Whether the text parses."""
    try:
        before = parse(Source("before.arch", text))
    except ArchError:
        return False
    once = format_module(Source("before.arch", text))
    after = parse(Source("after.arch", once))
    assert after == before, "formatting changes the tree"
    assert sorted(c.text for c in after.comments) == sorted(c.text for c in before.comments)
    assert format_module(Source("after.arch", once)) == once, "formatting is not idempotent"
    return True


def checked(text: str) -> Spec | None:
    """The spec, when it has no faults; what is wrong with it can be shown."""
    try:
        spec = loads(text, "fuzzed.arch")
        assert all(render(d) for d in lint(spec.module))
        return spec
    except ArchError as fault:
        if not fault.diagnostics or not str(fault):
            raise
        return None


def costs_and_closes(made: Elaborated, spec: Spec, variant: str | None) -> int:
    """Counts, prints, and reads back. Returns how many numbers a run takes."""
    cost = spec.cost(variant)
    cost.to_json(by_layer=True)
    printed = print_graph(made)
    again = loads(printed, "graph.arch").elaborate()
    assert again.graph.hash == made.graph.hash, "the printed graph is another one"
    return cost.params + cost.macs // 100 + cost.peak_bytes // 8


class EachDrawAlike(TorchDispatchMode):
    """Every draw begins with the same seed, however many were made before it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            torch.manual_seed(0)
        return func(*args, **(kwargs or {}))


def seeded(model: Any, inputs: Any) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """What a call gives, and the state in which it leaves the generator."""
    torch.manual_seed(0)
    return outputs(model(*inputs)), torch.get_rng_state()


def runs(made: Elaborated, spec: Spec, variant: str | None) -> None:
    """Forward and backward in both phases: results of the types that they were said to have, and the same without modules."""
    sizes = made.example_sizes(small=True)
    model = spec.build(variant, seed=1, dtype=torch.float64)
    assert sum(p.numel() for p in model.parameters()) == spec.cost(variant).params
    inputs = sample_inputs(made, sizes, dtype=torch.float64)
    flat = spec.build(variant, seed=1, dtype=torch.float64, flat=True)
    for train in (True, False):
        model.train(train)
        flat.train(train)
        try:
            found, state = seeded(model, inputs)
        except (IndexError, RuntimeError, ValueError) as fault:
            if any(told in str(fault) for told in DATA):
                return  # an index that is computed
            raise
        for out, value in zip(found, made.graph.outputs, strict=True):
            _is_of(out, value.type, sizes)
        others, other_state = seeded(flat, inputs)
        if not torch.equal(state, other_state):  # a block gives all its results; without modules, what nothing reads is not even drawn
            with EachDrawAlike():
                found, others = outputs(model(*inputs)), outputs(flat(*inputs))
        for a, b in zip(found, others, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True)
        total = [o.sum() for o in found if o.requires_grad]
        if total:
            torch.stack(total).sum().backward()
    writes(model, inputs)
    foreign(model)


def writes(model: Any, inputs: Any) -> None:
    """The written `model.py` holds the same weights and computes the same."""
    namespace: dict[str, Any] = {}
    exec(compile(python_source(model), "model.py", "exec", dont_inherit=True), namespace)
    other = namespace[type(model).__name__]().to(torch.float64)
    other.load_state_dict(model.state_dict())
    results = []
    for m in (model.eval(), other.eval()):
        torch.manual_seed(0)
        results.append(outputs(m(*inputs)))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def foreign(model: Any) -> None:
    """Weights that go out under foreign names come back."""
    for source in model.archdsl.names:
        before = {k: v.clone() for k, v in model.state_dict().items()}
        given = {k: v.clone() for k, v in export_weights(model, source=source).items()}
        with torch.no_grad():
            for v in model.state_dict().values():
                v.zero_()
        import_weights(model, given, source=source)
        for k, v in model.state_dict().items():
            torch.testing.assert_close(v, before[k], equal_nan=True)


def outputs(result: Any) -> tuple[torch.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _is_of(x: torch.Tensor, t: TensorType, sizes: dict[str, int]) -> None:
    shape = tuple(s if isinstance(s, int) else evaluate(s, sizes) for s in t.shape)
    assert tuple(x.shape) == shape, f"the result is {list(x.shape)}, not {t} at {sizes}"
    assert x.dtype == torch_dtype(t.dtype, torch.float64), f"the result holds {x.dtype}, not {t}"


def drive(text: str, run: bool = True, most: int = 9) -> str:
    """How far a text gets: "", "parsed", "checked", "run". Models are looked at in `most` variants."""
    with limits():
        parsed = formats(text)
    with limits():
        spec = checked(text)
    if spec is None:
        return "parsed" if parsed else ""
    reached = "checked"
    for model in spec.models.values():
        for variant in (None, *model.variants)[:most]:
            with limits():
                made = model.elaborate(variant)
                try:
                    size = costs_and_closes(made, model, variant)
                except ArchError as fault:
                    if told(fault):
                        continue
                    raise
            if run and size < SMALL:
                try:
                    with limits():
                        runs(made, model, variant)
                except ValueError as fault:
                    if NO_FIT not in str(fault):
                        raise
                    continue
                reached = "run"
    if run and most > 1:
        with limits():
            verify(spec)
    return reached


NO_FIT = "does not fit these inputs"
"""What a call is told whose sizes are too small for an op: `x[7]` of three rows."""


def told(fault: ArchError) -> bool:
    """What a sound spec may still be refused for: sizes beyond limits, sizes that do not fit."""
    return all(d.code in ("A0602", "A0604", "A0642", "A0643", "A0644") for d in fault.diagnostics)
