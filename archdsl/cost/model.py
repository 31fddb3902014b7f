"""`cost`: what a model costs, as numbers at some sizes and as formulas in all run-time sizes."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

from archdsl.alone import alone
from archdsl.cost.bits import quantized_bytes
from archdsl.cost.greatest import highest
from archdsl.cost.layers import Layer, count_params, layers
from archdsl.cost.memory import BYTES
from archdsl.cost.run import Simulator
from archdsl.cost.sizes import Spans, model_sizes, unfit
from archdsl.cost.summary import Mode, Sizes, Summary, nbytes, whole
from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import NotInteger, Size, maximum, product, substitute, sym
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.model import Elaborated, InputSpec
from archdsl.graph import Graph, TensorType
from archdsl.lower.plan import Definition, plan
from archdsl.ops.registry import LENGTH, OpError
from archdsl.records import field, record, replace
from archdsl.source import Source, Span
from archdsl.streaming import FORMS, in_form, source
from archdsl.streaming.model import DOCUMENTS

if TYPE_CHECKING:
    from archdsl.streaming import Slot, Streamed

DTYPES = {"f32": "float32", "f64": "float64", "bf16": "bfloat16", "f16": "float16"}
LENGTHS = InputSpec("lengths", TensorType("int", (sym(DOCUMENTS),)))  # an input of the packed form
FIGURES = ("params", "weight_bytes", "macs", "saved_bytes", "peak_bytes", "state_bytes")


@record(frozen=True, slots=False)
class Cost:
    """What one model costs at `sizes`.

    params: numbers in all parameters, shared ones once, frozen ones included, buffers not. weight_bytes: parameters, buffers and consts.
    macs: multiply-accumulates of one forward pass in evaluation (matrix products and convolutions). saved_bytes: what autograd keeps of one
    forward pass in training for the backward pass, parameters left out. peak_bytes: the most bytes alive at once in evaluation without
    gradients, inputs included, weights and the insides of ops left out; a block keeps its inputs until it returns. state_bytes: 0 for the
    parallel and the packed form; in `extend` and `step` what is kept between calls, for T positions and the delay (`Length` in formulas). A step
    costs what one token costs behind T - 1 others. Bytes are those of `dtype` where the spec pins nothing, with torch's CPU kernels.
    `unknown`: addresses of blocks whose cost is not known (`extern`): everything but the parameters elsewhere leaves them out.
    """

    params: int
    weight_bytes: int
    macs: int
    saved_bytes: int
    peak_bytes: int
    state_bytes: int
    sizes: dict[str, int]
    dtype: str
    form: str
    unknown: tuple[str, ...]
    _run: _Runs = field(repr=False, compare=False)

    @cached_property
    def formulas(self) -> dict[str, Size]:
        """The figures as polynomials in the run-time sizes. Where a size of 1 would save a copy, they count the copy: they hold from 2 up."""
        forward, training = self._run.formulas()
        return {"params": self.params, "weight_bytes": self.weight_bytes, "macs": forward.macs, "saved_bytes": self._run.saved(training),
                "peak_bytes": self._run.peak(forward), "state_bytes": self._run.state({n: sym(n) for n in self._run.sizes})}

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Rows by address, outer blocks before inner ones, the model itself (with the path "") first."""
        return self._run.layers()

    @property
    def rewritten(self) -> tuple[str, ...]:
        """By what a form with state differs from the text: see `build(rewrites = …)`."""
        return tuple(map(str, self._run.streamed.rewritten)) if self._run.streamed is not None else ()

    @property
    def delay(self) -> int:
        """How many positions late a form with state gives its results, where an op looks ahead."""
        return self._run.streamed.delay if self._run.streamed is not None else 0

    def to_json(self, by_layer: bool = False) -> dict[str, Any]:
        """Figures, sizes and formulas as plain data; with `by_layer` the rows too."""
        data: dict[str, Any] = {k: getattr(self, k) for k in FIGURES}
        data |= {"sizes": self.sizes, "dtype": self.dtype, "form": self.form, "unknown": list(self.unknown), "rewritten": list(self.rewritten),
                 "delay": self.delay}
        data["formulas"] = {k: v if isinstance(v, int) else str(v) for k, v in self.formulas.items()}
        if by_layer:
            data["layers"] = [{"path": r.path, "block": r.block, "params": r.params, "macs": r.macs, "saved_bytes": r.saved_bytes,
                               "output": list(r.output), "calls": r.calls} for r in self.layers]
        return data


@alone
def cost(made: Elaborated, at: Mapping[str, int] | None = None, form: str | None = None, dtype: str = "f32", spans: Spans | None = None,
         rewrites: Iterable[str] | None = None) -> Cost:
    """What a model costs at the sizes in `at` (else the spec's examples, else 1), without torch and without a tensor.

    form: the spec's own (packed where an axis is ragged, else parallel) unless given. dtype: f32, f64, bf16 or f16, of everything that the spec
    does not pin. spans: where the sizes were written. rewrites: those that a form with state may use, all unless given. Raises ArchError A0501 for a
    form that is not built, A0641 to A0644 for sizes and types that the model does not take.
    """
    runs = _runs(made, at, form, dtype, spans, rewrites)
    forward, training = runs.at(runs.sizes)
    macs, saved, peak = whole(forward.macs), whole(runs.saved(training)), whole(runs.peak(forward))
    return Cost(count_params(made.graph), runs.weight_bytes, macs, saved, peak, whole(runs.state(runs.sizes)), runs.given, dtype, runs.form,
                _unknown(forward), runs)


def figure(made: Elaborated, name: str, at: Mapping[str, int] | None = None, form: str | None = None, dtype: str = "f32") -> int | None:
    """One figure of `cost` by itself; None where the cost of a block is not known. Two more, of quantised models: `bops`, the
    multiply-accumulates, each times the bits of its two factors; `quantized_bytes`, of weights stored as `fake_quantize` says. Raises as `cost`."""
    if name == "params":
        return count_params(made.graph)
    runs = _runs(made, at, form, dtype)
    if name == "state_bytes":  # what has a form with state holds nothing unknown
        return whole(runs.state(runs.sizes))
    forward = runs.run(runs.forward, runs.sizes)
    if _unknown(forward):
        return None
    if name == "saved_bytes":
        return whole(runs.saved(runs.run(runs.training, runs.sizes)))
    return {"macs": lambda: whole(forward.macs), "bops": lambda: whole(forward.bops), "weight_bytes": lambda: runs.weight_bytes,
            "quantized_bytes": lambda: runs.quantized_bytes, "peak_bytes": lambda: whole(runs.peak(forward))}[name]()


def inside(made: Elaborated, graph: Graph, name: str, at: Mapping[str, int] | None = None, dtype: str = "f32") -> int | None:
    """`macs` or `bops` of a graph inside of a model in its parallel form, which is run once by itself at the model's sizes; None where that does not
    tell what it adds to the model's."""
    if made.form != "parallel":
        return None
    try:
        forward = Simulator(Mode(training=False, grad=False, dtype=dtype)).model(program(graph), Sizes(model_sizes(made, at or {})))
    except (ArchError, NotInteger, OpError, KeyError):
        return None
    found = {"macs": forward.macs, "bops": forward.bops}[name]
    return found if isinstance(found, int) and not _unknown(forward) else None


def state(made: Elaborated, at: Mapping[str, int] | None = None, dtype: str = "f32") -> tuple[Streamed, list[int], dict[str, int]]:
    """The model in the form `step`, the bytes of each of its slots, and the sizes that they are for. Raises ArchError as `cost`."""
    runs = _runs(made, at, "step", dtype)
    assert runs.streamed is not None
    return runs.streamed, [whole(runs.slot(slot, runs.sizes)) for slot in runs.streamed.slots], runs.sizes


def rows(graph: Graph, sizes: dict[str, int], dtype: str, opaque: frozenset[str] = frozenset()) -> tuple[tuple[Layer, ...], int]:
    """Costs by address of a graph in itself, as `Cost.layers`, and the most bytes alive at once in evaluation. `sizes`: a number for every run-time
    size; `opaque`: ops that keep their operands alone. Raises OpError, NotInteger or KeyError for sizes that the graph does not take."""
    forward, training = (Simulator(Mode(t, t, dtype, opaque)).model(program(graph), Sizes(sizes)) for t in (False, True))
    inputs = [whole(nbytes(p)) for p in forward.inputs]
    kept = sum(whole(nbytes(training.inputs[i])) for i in training.kept_slots)
    return layers(graph, forward, training, kept), sum(inputs) + max((whole(p) for p in forward.peak), default=0)


def _unknown(forward: Summary) -> tuple[str, ...]:
    return tuple(dict.fromkeys(forward.unknown()))


def _runs(made: Elaborated, at: Mapping[str, int] | None, form: str | None, dtype: str, spans: Spans | None = None,
          rewrites: Iterable[str] | None = None) -> _Runs:
    form = form or made.form
    if form not in FORMS:
        raise error("A0501", f"costs are those of the forms {', '.join(FORMS)}, not of `{form}`", made.decl.name_span)
    streamed = in_form(source(made, rewrites), form)
    if dtype not in DTYPES:
        raise error("A0644", f"`{dtype}` is no float type to count with", Span(Source("dtype", dtype), 0, len(dtype)), "not known",
                    help=did_you_mean(dtype, DTYPES) or (f"it is one of {', '.join(DTYPES)}",))
    counted = made if form != "packed" else replace(made, inputs=(*made.inputs, LENGTHS))
    sizes = model_sizes(counted, at or {}, spans)
    return _Runs(made, dtype, sizes, streamed)


def _in_call(sizes: dict[str, int], streamed: Streamed | None) -> dict[str, int]:
    """The sizes of one call behind which the state is full."""
    if streamed is None:
        return sizes
    if streamed.form == "packed":
        return sizes
    length = sizes[streamed.axis] + streamed.delay
    return {**{n: s for n, s in sizes.items() if n != streamed.axis or streamed.form != "step"}, LENGTH: length}


class _Runs:
    """The lowered program and its runs: forward in evaluation, and training with gradients."""

    def __init__(self, made: Elaborated, dtype: str, sizes: dict[str, int], streamed: Streamed | None):
        self.made = made if streamed is None else replace(made, graph=streamed.graph)
        self.form = "parallel" if streamed is None else streamed.form
        self.weights, self.dtype, self.given, self.sizes, self.streamed = made.graph, dtype, sizes, _in_call(sizes, streamed), streamed
        self.definition = program(self.made.graph)
        self.forward, self.training = (Simulator(Mode(training=t, grad=t, dtype=dtype)) for t in (False, True))

    @property
    def weight_bytes(self) -> int:
        return sum(self._bytes(p.type) for _, p in self.weights.parameters())

    @property
    def quantized_bytes(self) -> int:
        return quantized_bytes(self.weights, self._bytes)

    def _bytes(self, type: TensorType) -> int:
        return prod(map(whole, type.shape)) * BYTES[self.forward.mode.concrete(type.dtype)]

    def at(self, sizes: dict[str, int], formula: Mapping[str, Size] | None = None) -> tuple[Summary, Summary]:
        return self.run(self.forward, sizes, formula), self.run(self.training, sizes, formula)

    def run(self, simulator: Simulator, sizes: dict[str, int], formula: Mapping[str, Size] | None = None) -> Summary:
        try:
            return simulator.model(self.definition, Sizes(sizes, formula))
        except (NotInteger, OpError) as e:
            raise unfit(self.made, sizes, e) from None

    def formulas(self) -> tuple[Summary, Summary]:
        """Runs with polynomials; copies are decided at sizes above 1, where the model takes those."""
        names = {n: sym(n) for n in self.sizes}
        try:
            return self.at({n: max(s, 2) for n, s in self.sizes.items()}, names)
        except ArchError:
            return self.at(self.sizes, names)

    def state(self, sizes: Mapping[str, Size]) -> Size:
        """Bytes of the state."""
        total: Size = 0
        for slot in self.streamed.slots if self.streamed is not None else ():
            total = total + self.slot(slot, sizes)
        return total

    def slot(self, slot: Slot, sizes: Mapping[str, Size]) -> Size:
        """Bytes of one tensor of the state."""
        return product([substitute(s, sizes) for s in slot.type.shape]) * BYTES[self.forward.mode.concrete(slot.type.dtype)]

    def inputs(self, s: Summary) -> dict[int, Size]:
        """Bytes of the inputs by storage, in the terms of that run."""
        return {i: nbytes(p) for i, p in enumerate(s.inputs)}

    def saved(self, s: Summary) -> Size:
        inputs, total = self.inputs(s), s.private
        for size in (*(inputs[i] for i in s.kept_slots), *(s.bytes[i] for i in s.news if i in s.kept)):
            total = total + size
        return total

    def peak(self, s: Summary) -> Size:
        inputs: Size = 0
        for size in self.inputs(s).values():
            inputs = inputs + size
        return maximum(*highest(inputs + p for p in s.peak))

    def layers(self) -> tuple[Layer, ...]:
        forward, training = self.at(self.sizes)
        inputs = self.inputs(training)
        return layers(self.made.graph, forward, training, sum(whole(inputs[i]) for i in training.kept_slots))


@lru_cache(16)
def program(graph: Graph) -> Definition:
    """The lowered program of a graph. The build's dtype only names its classes."""
    return plan(graph, dtype="float")


__all__ = ["DTYPES", "FIGURES", "FORMS", "Cost", "Layer", "cost", "figure", "inside", "state"]
