"""Claims that need tensors: models with random weights in float64, run in evaluation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

from archdsl.cost.sizes import require
from archdsl.diagnostics.model import ArchError
from archdsl.dims import Dim, evaluate, symbols
from archdsl.elaborate.limits import limit
from archdsl.elaborate.model import Elaborated
from archdsl.elaborate.values import is_list
from archdsl.flatten import flatten
from archdsl.graph import Graph, Mask, Node, Value
from archdsl.inputs import sample_inputs
from archdsl.lazy import torch
from archdsl.lower.memory import physical
from archdsl.ops.registry import find
from archdsl.records import replace

PERIOD = 1_048_573  # a prime: a weight of more numbers repeats them
MAX_MACS = 2 * 10**12  # a minute or two
LONGEST = 192  # of the stream
FEW = 24  # of other axes
TOLERANCE = 1e-9  # of float64 results of size 1
ROUND_OFF = 1e-13  # of what a change made of the outputs: an FFT spreads it over all positions
LARGE = 1e4  # a change that shows through a small weight, and moves every maximum
CHEAP = 2 * 10**9  # multiply-accumulates of the second run of a causal claim


# ---------------------------------------------------------------- causality
def causality(made: Elaborated, output: str, input: str) -> tuple[bool, str]:
    """Whether no position of an output depends on a later position of an input, nor on how many there are: a position of the input is changed, a
    little and a lot, and the outputs before it must stay while some other changes; and the first positions alone must give the same outputs.
    At a length that shows every window, and at the example length where that is cheap. Returns that, and what was seen."""
    made = replace(made, graph=shortened(made.graph))
    sizes = small_sizes(made)
    affordable(made, sizes)
    stream = made.stream or ""
    probe = _Probe(made, random_model(made.graph), stream, output, input)
    good, seen = probe.run(sizes)
    longer = {**sizes, stream: min(made.sizes.get(stream, 0), LONGEST)}
    if not good or longer[stream] <= sizes[stream] or not cheap(made, longer):
        return good, seen
    return probe.run(longer)


class _Probe:
    """One output and one input of a model along its stream."""

    def __init__(self, made: Elaborated, model: Any, stream: str, output: str, input: str):
        self.made, self.model, self.stream, self.output, self.input = made, model, stream, output, input
        self.at = [i.name for i in made.inputs].index(input)
        self.which = made.graph.output_names.index(output)
        self.axis = axis_of_stream(made.graph.outputs[self.which].shape, stream)

    def run(self, sizes: dict[str, int]) -> tuple[bool, str]:
        length, made = sizes[self.stream], self.made
        inputs = list(sample_inputs(made, sizes, dtype=torch.float64))
        axis = axis_of_stream(made.inputs[self.at].type.shape, self.stream)
        amounts = (1.0, LARGE) if inputs[self.at].is_floating_point() else (1.0,)
        changes = [(p, much) for p in dict.fromkeys((length - 1, length // 2, 1)) for much in amounts]
        runs = [inputs]
        for position, much in changes:
            x = _changed(inputs[self.at], made.inputs[self.at], axis, position, much)
            runs.append([*inputs[: self.at], x, *inputs[self.at + 1 :]])
        before, *after = _outputs(made, self.model, runs, self.which)
        depends = False
        for (position, much), y in zip(changes, after):
            along = self._along(y, before, length)
            if not bool(torch.isfinite(along[:position] if much > 1 else along).all()):
                return False, "the outputs are not finite with random weights"
            leak = along[:position] > TOLERANCE + ROUND_OFF * along.max()
            if bool(leak.any()):
                first = int(leak.nonzero()[0, 0])
                return False, f"position {first} of `{self.output}` depends on position {position} of `{self.input}` ({self._at(length)})"
            depends = depends or much == 1 and bool((along[position:] > TOLERANCE).any())
        if not depends:
            return False, f"`{self.output}` does not depend on `{self.input}` at all"
        return self._prefix(sizes, inputs, before) or (True, f"holds at {self._at(length)}")

    def _at(self, length: int) -> str:
        return f"{self.stream} = {length}"

    def _along(self, y: Any, before: Any, length: int) -> Any:
        """The largest difference at each position, relative to the largest output above 1."""
        return (y - before).abs().movedim(self.axis, 0).reshape(length, -1).amax(1) / before.abs().amax().clamp(min=1)

    def _prefix(self, sizes: dict[str, int], inputs: list[Any], before: Any) -> tuple[bool, str] | None:
        """What is wrong when the first positions are all there are. A model that draws is left out: fewer positions draw other numbers."""
        if draws(self.made):
            return None
        length = sizes[self.stream]
        for shorter in range(length - 1, 0, -1):
            try:
                require(self.made, {**sizes, self.stream: shorter})
            except ArchError:
                continue
            cut = [first_positions(x, i.type.shape, self.stream, shorter) for x, i in zip(inputs, self.made.inputs)]
            (y,) = _outputs(self.made, self.model, [cut], self.which)
            along = self._along(y, before.narrow(self.axis, 0, y.shape[self.axis]), y.shape[self.axis])
            leak = along > TOLERANCE
            if bool(leak.any()):
                return False, f"position {int(leak.nonzero()[0, 0])} of `{self.output}` depends on how many follow ({self._at(length)} and {shorter})"
            return None
        return None


def draws(made: Elaborated) -> bool:
    """Whether a forward pass in evaluation draws random numbers."""
    ops = (find(n.op) for g in made.graph.definitions() for n in g.nodes)
    return any(op is not None and op.random and not op.phase for op in ops)


def first_positions(x: Any, shape: tuple[Any, ...], stream: str, length: int) -> Any:
    """The first positions of an input along the stream."""
    for axis, size in enumerate(shape):
        if isinstance(size, Dim) and str(size) == stream:
            x = x.narrow(axis, 0, length)
    return x


def cheap(made: Elaborated, sizes: dict[str, int]) -> bool:
    from archdsl.cost import cost

    try:
        require(made, sizes)
    except ArchError:
        return False
    return cost(made, sizes, "parallel", "f64").macs <= CHEAP


def _outputs(made: Elaborated, model: Any, runs: list[list[Any]], which: int) -> list[Any]:
    """One output for each list of inputs. They run as one batch where the model has a batch axis and keeps its rows apart."""

    def run(inputs: list[Any]) -> Any:
        out = seeded(model, inputs)
        return out[which] if is_list(out) else out

    first = {
        str(t.shape[0]) if t.shape and isinstance(t.shape[0], Dim) else "" for t in (*(i.type for i in made.inputs), made.graph.outputs[which].type)
    }
    if not draws(made) and len(first) == 1 and "" not in first and first != {made.stream} and all(x.shape[0] == 1 for x in runs[0]):
        alone = run(runs[0])
        together = run([torch.cat(column) for column in zip(*runs)])
        if together.shape[0] == len(runs) and bool(torch.allclose(together[:1], alone, rtol=1e-9, atol=1e-9)):
            return list(together.split(1))
    return [run(inputs) for inputs in runs]


def seeded(model: Any, inputs: Iterable[Any]) -> Any:
    """The outputs, with the same draws in every run."""
    generator: Any = torch.random
    with torch.no_grad(), generator.fork_rng(devices=[]):
        generator.manual_seed(0)
        return model(*inputs)


def axis_of_stream(shape: tuple[Any, ...], stream: str | None) -> int:
    return next(i for i, s in enumerate(shape) if isinstance(s, Dim) and str(s) == stream)


def _changed(x: Any, spec: Any, axis: int, position: int, much: float) -> Any:
    """The input with other values at one position, `much` times as far away."""
    x = x.clone()
    there = x.select(axis, position)
    if x.dtype == torch.bool:
        there.logical_not_()
    elif x.is_floating_point():
        there.add_(much * torch.randn(there.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype))
    else:
        low, high = int(spec.low or 0), int(spec.high if spec.high is not None else 1)
        there.copy_((there - low + max((high - low + 1) // 2, 1)) % (high - low + 1) + low)
    return x


def affordable(made: Elaborated, sizes: dict[str, int]) -> None:
    """Raises A0602 for a model whose run would take hours, or more memory than a claim is worth."""
    from archdsl.cost import cost

    found = cost(made, sizes, "parallel", "f64")
    windows: dict[Any, int] = {}  # as random_model lays them out
    for address, p in made.graph.parameters():
        size = math.prod(p.sizes)
        key = math.prod(p.sizes[1:]) if size > PERIOD and len(p.type.shape) > 1 and p.kind in ("param", "frozen") else address
        windows[key] = max(windows.get(key, 0), size)
    needed, room = found.peak_bytes + 8 * sum(windows.values()), physical()
    steps = found.macs + sum(evaluate(v.type.numel, sizes) for n in flatten(made.graph).nodes for v in (*n.values, *n.operands()))
    if steps > MAX_MACS or room is not None and needed > room:
        raise limit(f"the run that this claim needs is too large: {steps:,} numbers to compute, {needed:,} bytes", made.decl.name_span)


# ---------------------------------------------------------------- two models with the same weights
def largest_difference(a: Elaborated, b: Elaborated) -> float:
    """The largest difference of the outputs of two models with the same random weights and inputs, relative to the largest output above 1."""
    sizes = {**small_sizes(a), **a.sizes}
    for made in (a, b):
        affordable(made, sizes)
    inputs = sample_inputs(a, sizes, dtype=torch.float64)
    gap = 0.0
    outs = [seeded(model, inputs) for model in (comparable(a), comparable(b))]
    first, second = (o if is_list(o) else (o,) for o in outs)
    for x, y in zip(first, second):
        if x.shape != y.shape:
            return math.inf
        gap = max(gap, float((x - y).abs().amax() / x.abs().amax().clamp(min=1)))
    return gap if math.isfinite(gap) else math.inf


# ---------------------------------------------------------------- models
def comparable(made: Elaborated) -> Any:
    """The model with random weights; behind `transform`s, with what they make of the random weights of the model before."""
    if made.source is None:
        return random_model(made.graph)
    from archdsl.lower import lower
    from archdsl.passes.manager import undecided
    from archdsl.passes.model import state_of
    from archdsl.passes.weights import Rewritten

    weights: Any = state_of(random_model(made.source.graph), made.source.graph)
    for done in made.rewrites:
        if done.undecided is not None:
            raise undecided(done.undecided)
        weights = Rewritten(weights, done, lambda: torch.float64)
    model = lower(made.graph, dtype=torch.float64)
    for address, held in state_of(model, made.graph).items():
        held.copy_(weights[address])
    return model.eval()


def random_model(graph: Graph, seed: int = 0) -> Any:
    """The lowered model in float64 and evaluation. Every parameter is random, so that nothing is hidden behind a zero or a one; large ones are
    windows of a few buffers, so that a model of any size fits. Buffers and consts have their initial values."""
    from archdsl.lower import lower
    from archdsl.lower.init import Initial, seed_of
    from archdsl.lower.module import with_tables

    model = lower(graph, device="meta", dtype=torch.float64)
    initial = Initial(graph, seed, torch.float64)
    random = {a: p.sizes for a, p in initial.params.items() if p.kind == "param" or p.kind == "frozen" and p.type.is_float}
    windows = _Windows(random.values(), seed)
    with torch.no_grad():
        for address, param in initial.params.items():
            path, _, name = address.rpartition(".")
            owner = model.get_submodule(path)
            if address in random:
                value = windows.weight(random[address], seed_of(seed, address))  # the same address has the same values in another model
            else:
                value = initial.value(address).clone()
            value = value.to(_dtype_of(owner, name))
            if param.kind in ("param", "frozen"):
                value = torch.nn.Parameter(value, requires_grad=False)
            setattr(owner, name, value)
    with_tables(model)
    assert not any(t.is_meta for t in itertools.chain(model.parameters(), model.buffers())), "a tensor without a value"
    return model.eval()


def _dtype_of(owner: Any, name: str) -> Any:
    return (owner._parameters.get(name) if owner._parameters.get(name) is not None else owner._buffers[name]).dtype


class _Windows:
    """Random weights. A large one is a contiguous window of a buffer that repeats `PERIOD` random numbers (a prime, so that no two rows are
    alike); all of one fan-in share the buffer, which is as long as the largest needs."""

    def __init__(self, shapes: Iterable[tuple[int, ...]], seed: int):
        self.numbers: Any = None
        self.seed = seed
        self.longest: dict[int, int] = {}
        self.buffers: dict[int, Any] = {}
        for shape in shapes:
            if math.prod(shape) > PERIOD:
                fan = math.prod(shape[1:])
                self.longest[fan] = max(self.longest.get(fan, 0), math.prod(shape))

    def weight(self, shape: tuple[int, ...], number: int) -> Any:
        """Normal numbers with the variance of 1 / fan-in; single axes lie around 1. `number` chooses them."""
        g = torch.Generator().manual_seed(number)
        if len(shape) < 2:
            return 1 + 0.3 * torch.randn(shape, generator=g, dtype=torch.float64)
        fan, size = math.prod(shape[1:]), math.prod(shape)
        if size <= PERIOD:
            return torch.randn(shape, generator=g, dtype=torch.float64) / math.sqrt(max(fan, 1))
        start = number % PERIOD
        return self._buffer(fan)[start : start + size].view(shape)

    def _buffer(self, fan: int) -> Any:
        if fan not in self.buffers:
            if self.numbers is None:
                self.numbers = torch.randn(PERIOD, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
            self.buffers[fan] = (self.numbers / math.sqrt(fan)).repeat(self.longest[fan] // PERIOD + 2)
        return self.buffers[fan]


def shortened(graph: Graph) -> Graph:
    """The same graph with equal layers in a row (one definition, each fed by the one before) cut to as many as they pass values on.

    That many are enough for causality: a layer that lets the future in does so at once, or a value later through one of the others.
    """
    replaced: dict[Value, Value] = {}
    kept: list[Node] = []
    dropped: set[str] = set()
    run = 0
    last: Node | None = None
    for node in graph.nodes:
        if last is not None and _follows(last, node):
            run += 1
            if run >= len(node.types):
                dropped.add(node.attrs["path"])
                replaced.update({v: replaced.get(a) or a for v, a in zip(node.values, node.args)})
                last = node
                continue
        elif node.op == "call":
            run = 0
        last = node if node.op == "call" else last
        kept.append(node)
    if not dropped:
        return graph
    return _rebuilt(graph, kept, replaced, dropped)


def _follows(a: Node, b: Node) -> bool:
    """b applies the definition of a to a's results, in a's places, with the other operands of a; nothing is emitted."""
    if (
        b.op != "call"
        or a.attrs["graph"] is not b.attrs["graph"]
        or a.attrs["path"] == b.attrs["path"]
        or len(a.types) != len(a.attrs["graph"].outputs)
    ):
        return False
    outs = a.values
    return (
        len(a.args) == len(b.args)
        and b.args[: len(outs)] == outs
        and a.args[len(outs) :] == b.args[len(outs) :]
        and [v.type for v in a.args[: len(outs)]] == list(a.types)
    )


def _rebuilt(graph: Graph, kept: list[Node], replaced: dict[Value, Value], dropped: set[str]) -> Graph:
    new: dict[Value, Value] = {}

    def there(v: Value) -> Value:
        v = replaced.get(v, v)
        return new.get(v, v)

    def mapped(a: Any) -> Any:
        return there(a) if isinstance(a, Value) else tuple(map(mapped, a)) if is_list(a) else a.replace(there) if isinstance(a, Mask) else a

    nodes: list[Node] = []
    for node in kept:
        copy = node if node.op == "input" else replace(node, args=mapped(node.args), attrs={k: mapped(v) for k, v in node.attrs.items()})
        new.update(zip(node.values, copy.values))
        nodes.append(copy)
    return replace(
        graph,
        nodes=tuple(nodes),
        outputs=tuple(map(there, graph.outputs)),
        emits={k: there(v) for k, v in graph.emits.items()},
        children={p: c for p, c in graph.children.items() if p not in dropped},
    )


# ---------------------------------------------------------------- sizes
def small_sizes(made: Elaborated) -> dict[str, int]:
    """Sizes for a quick run that the model's conditions allow: the stream a little longer than its windows, beside it few positions of other axes,
    which each call of a form computes again, where the model allows few; the example sizes elsewhere."""
    free = sorted({n for i in made.inputs for s in i.type.shape for n in symbols(s)})
    wanted = {n: made.sizes.get(n, 2) for n in free}
    if "B" in wanted:
        wanted["B"] = 1
    if made.stream in wanted:
        wanted[made.stream] = min(max([8, *(2 * n + 2 for n in _windows(made.graph))]), LONGEST)
        few = {n: size if n == made.stream else min(size, FEW) for n, size in wanted.items()}
        if made.allows(few):
            return few
    for sizes in _near(wanted, made.stream):
        try:
            require(made, sizes)
        except ArchError:
            continue
        return sizes
    return {n: made.sizes.get(n, 1) for n in free}


def _near(wanted: dict[str, int], stream: str | None) -> Iterator[dict[str, int]]:
    """The sizes as wanted, then others of the axes without an example, near ones first."""
    yield wanted
    for n in itertools.chain(range(wanted.get(stream or "", 8), LONGEST + 1), range(wanted.get(stream or "", 8) - 1, 0, -1)):
        yield {**wanted, stream: n} if stream in wanted else dict.fromkeys(wanted, n)


def _windows(graph: Graph) -> set[int]:
    """Whole numbers in masks: windows and blocks."""
    found: set[int] = set()
    for g in graph.definitions():
        stack: list[Any] = [a for n in g.nodes for a in n.attrs.values() if isinstance(a, Mask)]
        while stack:
            mask = stack.pop()
            found.update(a for a in mask.args if type(a) is int)
            stack += [a for a in mask.args if isinstance(a, Mask)]
    return found
