"""Contracts, checked with numbers: a model before and after a step, on the same inputs, as the contract says."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import error
from archdsl.elaborate.model import Elaborated
from archdsl.graph import Param
from archdsl.inputs import sample_inputs
from archdsl.passes.contract import Contract, Phase
from archdsl.passes.edit import Rewrite
from archdsl.passes.step import Step
from archdsl.passes.weights import Initial, Rewritten
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.passes.model import Model


@record(frozen=True)
class Finding:
    """One comparison. `what`: an output, an emitted value, a gradient; `difference`: the largest, relative to the largest value; `allowed`: None
    where nothing is promised; `weights`: random or given."""

    what: str
    phase: Phase
    weights: str
    difference: float
    allowed: float | None

    def __str__(self) -> str:
        return f"{self.what} in {'training' if self.phase == 'train' else 'evaluation'}, {self.weights} weights: differs by {self.difference:.2g}"

    @property
    def holds(self) -> bool:
        return self.allowed is None or self.difference <= self.allowed


def require(before: Model, after: Model, done: Rewrite, step: Step) -> list[Finding]:
    """Checks one step. Raises A0566 with what differs."""
    contract = done.contract
    assert contract is not None
    found = list(compare(before, after, done, contract))
    wrong = [f for f in found if not f.holds]
    if wrong:
        worst = max(wrong, key=lambda f: f.difference if math.isfinite(f.difference) else math.inf)
        rows = tuple(f"{f}, at most {f.allowed:.2g} is promised" for f in wrong[:8])
        raise error("A0566", f"`{step}` does not keep its contract: {worst.what} differs by {worst.difference:.2g}", step.span, "this step",
                    notes=(f"the contract: {contract}", *rows), help="leave the step out, and report it with the spec: its pass promises this")
    return found


def compare(before: Model, after: Model, done: Rewrite, contract: Contract) -> Iterator[Finding]:
    """All comparisons of a contract, in float64: with the given weights and, where it is for all weights, with random ones."""
    import torch

    sizes = before.made.example_sizes(small=True)
    allowed = {"bits": 0.0, "equal": contract.tolerance.get("f64", 0.0), "approximate": None}[contract.relation]
    kinds: list[tuple[str, Mapping[str, Any]]] = [("given", before.weights)]
    if contract.at == "always":
        kinds.append(("random", random_weights(before.made)))
    for kind, weights in kinds:
        wide = Wide(weights, before.made)
        pair = [built(before.made, wide), built(after.made, Rewritten(wide, done, lambda: torch.float64))]
        for phase in contract.phases:
            runs = [run(m, before.made, sizes, phase, contract) for m in pair]
            for what, a in runs[0].items():
                if what in runs[1]:
                    yield Finding(what, phase, kind, difference(a, runs[1][what], _scale(runs[0], what)), allowed)


def built(made: Elaborated, weights: Mapping[str, Any]) -> Any:
    """The lowered model in float64 with these weights, giving its emitted values too."""
    import torch

    from archdsl.lower import lower

    model = lower(made.graph, dtype=torch.float64, emit=("**",) if made.graph.emits else ())  # "meta" would lose the tables written in the text
    held = {**dict(model.named_buffers(remove_duplicate=False)), **dict(model.named_parameters(remove_duplicate=False))}
    with torch.no_grad():
        for address in weights:
            held[address].copy_(weights[address])
    return model


def run(model: Any, made: Elaborated, sizes: dict[str, int], phase: Phase, contract: Contract) -> dict[str, Any]:
    """Name -> tensor of what one model gives in one phase; the same draws each time."""
    import torch

    model.train(phase == "train")
    state = {k: v.clone() for k, v in model.state_dict().items()}
    inputs = sample_inputs(made, sizes, dtype=torch.float64)
    inputs = [x.requires_grad_() if x.is_floating_point() and contract.gradients != "none" else x for x in inputs]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = model(*inputs)
    out, emitted = out if made.graph.emits else (out, {})
    outs = dict(zip(_names(made), out if isinstance(out, tuple) else (out,)))
    found: dict[str, Any] = dict(outs) if contract.outputs else {}
    if contract.taps:
        found |= {f"the emitted value `{a}`": v for a, v in emitted.items()}
    if contract.gradients != "none":
        found |= _gradients(model, made, inputs, [v for v in outs.values() if v.is_floating_point()], contract)
    model.load_state_dict(state)
    return {k: v.detach() for k, v in found.items()}


def _gradients(model: Any, made: Elaborated, inputs: list[Any], outs: list[Any], contract: Contract) -> dict[str, Any]:
    """Of a fixed random combination of the outputs."""
    import torch

    g = torch.Generator().manual_seed(1)
    if not outs or not any(o.requires_grad for o in outs):
        return {}
    objective = torch.stack([(o * torch.randn(o.shape, generator=g, dtype=o.dtype)).sum() for o in outs]).sum()
    wanted = {f"the gradient of `{i.name}`": x for i, x in zip(made.inputs, inputs) if x.requires_grad}
    if contract.gradients == "params":
        wanted |= {f"the gradient of `{k}`": p for k, p in model.named_parameters() if p.requires_grad}
    if not wanted:
        return {}
    grads = torch.autograd.grad(objective, list(wanted.values()), allow_unused=True)
    return {k: torch.zeros_like(x) if d is None else d for (k, x), d in zip(wanted.items(), grads)}


def _names(made: Elaborated) -> list[str]:
    names = made.graph.output_names or (None,) * len(made.graph.outputs)
    return [f"the output `{n}`" if n else f"output {i}" for i, n in enumerate(names)]


def difference(a: Any, b: Any, scale: float) -> float:
    """The largest difference relative to `scale`; infinite for other shapes and for what is not finite in one of the two alone."""
    if a.shape != b.shape:
        return math.inf
    if not a.is_floating_point():
        return 0.0 if bool((a == b).all()) else math.inf
    gap = (a.double() - b.double()).abs()
    gap = gap[~((a == b) | (a.isnan() & b.isnan()))]
    return 0.0 if not gap.numel() else float(gap.max()) / scale if bool(gap.isfinite().all()) else math.inf


def _scale(found: dict[str, Any], what: str) -> float:
    """The largest value of its kind: gradients are measured by the largest gradient of all."""
    kind = "the gradient" if what.startswith("the gradient") else what
    sizes = [float(v.abs().max()) for k, v in found.items() if k.startswith(kind) and v.is_floating_point() and v.numel()]
    return max([s for s in sizes if math.isfinite(s)], default=1.0) or 1.0


# ---------------------------------------------------------------- weights
class Wide(Mapping[str, Any]):
    """Weights in float64."""

    def __init__(self, weights: Mapping[str, Any], made: Elaborated):
        self.weights, self.params = weights, dict(made.graph.parameters())

    def __getitem__(self, address: str) -> Any:
        import torch

        w = self.weights[address]
        return w.to(torch.float64) if w.is_floating_point() else w

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)


def random_weights(made: Elaborated, seed: int = 0) -> dict[str, Any]:
    """Non-trivial values for every weight, in float64: vectors around 1, matrices with the variance of 1 / fan-in, variances positive."""
    import torch

    g = torch.Generator().manual_seed(seed)
    initial = Initial(made.graph, seed, torch.float64)
    variances = {n.args[4].node.attrs["path"] for n in _flat(made) if n.op == "batch_norm" and n.args[4] is not None and n.args[4].node.op == "param"}
    return {a: _random(initial[a], p, a in variances, g) for a, p in made.graph.parameters()}


def _flat(made: Elaborated) -> list[Any]:
    from archdsl.passes.flat import Flat

    return Flat(made.graph).nodes


def _random(w: Any, p: Param, positive: bool, g: Any) -> Any:
    import torch

    if not w.is_floating_point() or p.kind == "const":
        return w
    r = torch.randn(w.shape, generator=g, dtype=torch.float64)
    if positive:
        return 0.5 + r.abs()
    return 1 + 0.3 * r if w.dim() < 2 else r / math.sqrt(max(1, math.prod(w.shape[1:])))
