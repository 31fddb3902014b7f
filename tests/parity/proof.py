"""The parity proof: random non-trivial values everywhere, float64 against the peer, float32 against that float64, gradients of inputs and
parameters."""
from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from archdsl import import_weights

EXACT = 1e-10  # float64, relative to the largest value compared
OUTPUTS = 400  # numbers that an error in float32 is measured by, at least
DRAWS = 24
SURE = 2  # standard deviations of a mean beyond which chance does not go
SLACK = 1.1  # our float32 error may be this many times the peer's own


def randomise(peer: torch.nn.Module, seed: int = 0) -> None:
    """Values that hide nothing: no zeros, no ones, no 1e-6 scales; running variances stay positive."""
    g = torch.Generator().manual_seed(seed)
    saved = set(peer.state_dict())  # a buffer that is not saved is derived (a mask, a table), and stays as it is
    for name, p in [*peer.named_parameters(), *peer.named_buffers()]:
        if not p.is_floating_point() or name not in saved:
            continue
        noise = torch.randn(p.shape, generator=g, dtype=torch.float64)
        if name.endswith("running_var"):
            value = noise.abs() + 0.5
        elif p.dim() >= 2:
            value = noise / max(p[0].numel(), 1) ** 0.5
        else:
            value = 0.7 + 0.3 * noise
        with torch.no_grad():
            p.copy_(value.to(p.dtype))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-30)).item()


def run(model: Any, call: Callable[[Any, Any], torch.Tensor], x: torch.Tensor, probe: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Output, and the gradient of a float input; parameter gradients stay in the model."""
    model.zero_grad(set_to_none=True)
    leaf = x.clone().requires_grad_() if x.is_floating_point() else x
    y = call(model, leaf)
    (y * probe[: y.numel()].view(y.shape).to(y.dtype)).sum().backward()
    return y.detach(), leaf.grad if x.is_floating_point() else None


@cache
def probe() -> torch.Tensor:
    """What outputs are multiplied by before they are added: random numbers."""
    return torch.randn(1 << 22, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def prove(ours: Any, peer: torch.nn.Module, x: torch.Tensor, *, source: str, call: Callable[[Any, Any], torch.Tensor],
          reference: Callable[[Any], Any] = lambda m: m, train: bool = False, single: bool = True) -> None:
    """`ours` and `peer` are float64 modules; `reference` removes the casts inside a copy of the peer; `call(peer, x)` gives the tensor to compare.
    Not `single`: float64 alone, for what steps (spikes), where the last digit of float32 decides."""
    randomise(peer)
    import_weights(ours, peer.state_dict(), source=source)
    exact = reference(copy.deepcopy(peer))
    for m in (ours, peer, exact):
        m.train(train)
    mine, mine_dx = run(ours, lambda m, v: m(v), x, probe())
    want, want_dx = run(exact, call, x, probe())
    assert want.abs().max() > 1e-3 and want.std() > 1e-4, "the comparison would be vacuous"
    assert relative(mine, want) <= EXACT
    if want_dx is not None:
        assert mine_dx is not None and want_dx.abs().max() > 0 and relative(mine_dx, want_dx) <= EXACT
    _gradients(ours, exact, source)
    if not single:
        return
    low, other = copy.deepcopy(ours).float(), copy.deepcopy(peer).float()
    single_precision(lambda v: [low(v)], lambda v: [call(other, v)], lambda v: [call(exact, v.double() if v.is_floating_point() else v)], [x])


def _gradients(ours: Any, exact: Any, source: str) -> None:
    """Every parameter's gradient, sent through the same name map as the weights, relative to the model's largest."""
    theirs = {k: p.grad for k, p in exact.named_parameters() if p.grad is not None}
    holder = copy.deepcopy(ours)
    state = {k: theirs[k] if k in theirs else torch.zeros_like(v) for k, v in exact.state_dict().items() if v.is_floating_point()}
    state.update({k: v for k, v in exact.state_dict().items() if not v.is_floating_point()})
    for alias, owner in _aliases(exact).items():
        state[alias] = state[owner]
    import_weights(holder, state, source=source)
    origin = copy.deepcopy(ours)  # a map may add a number, which is no part of a gradient
    import_weights(origin, {k: torch.zeros_like(v) for k, v in state.items()}, source=source)
    with torch.no_grad():
        for p, q in zip(holder.parameters(), origin.parameters()):
            p -= q
    expected = dict(holder.named_parameters())
    largest = max(p.detach().abs().max().item() for p in expected.values())
    assert largest > 0
    for name, p in ours.named_parameters():
        grad = p.grad if p.grad is not None else torch.zeros_like(p)
        error = (grad - expected[name].detach()).abs().max().item() / largest
        assert error <= EXACT, f"the gradient of {name} is off by {error}"


def _aliases(module: torch.nn.Module) -> dict[str, str]:
    first: dict[int, str] = {}
    out: dict[str, str] = {}
    for k, p in module.named_parameters(remove_duplicate=False):
        if id(p) in first:
            out[k] = first[id(p)]
        else:
            first[id(p)] = k
    return out


Outputs = Callable[..., list[torch.Tensor]]


def single_precision(ours: Outputs, peer: Outputs, exact: Outputs, inputs: list[torch.Tensor]) -> None:
    """The float32 error of `ours` against the float64 of `exact`, by root mean square, is at most SLACK times that of `peer`, beside the reference's
    own rounding, for each output. Few numbers say little about either, nor do many of one input, whose errors come from few sums: inputs are drawn
    again until there are some, and DRAWS times where the errors of the first differ by more. All three take float32 or whole inputs; of these,
    one alone is drawn anew below its largest. Which of two sums rounds better by chance differs from processor to processor, and now and then one
    draw is off by many times the others: of many draws the ratios' geometric mean is looked at, and how well it is known."""
    g = torch.Generator().manual_seed(11)
    drawn = [x.float() if x.is_floating_point() else x for x in inputs]
    again = any(x.is_floating_point() for x in inputs)
    tokens = not again and len(inputs) == 1 and inputs[0].dtype == torch.int64
    words = int(inputs[0].max()) + 1 if tokens else 0
    squares: list[list[tuple[float, float, float]]] = []  # by draw and output: of ours, of the peer, of the reference's own rounding to float32
    seen, most = 0, 1
    while not seen or again and seen < OUTPUTS or (again or tokens) and len(squares) < most:
        with torch.no_grad():
            want, low, other = exact(*drawn), ours(*drawn), peer(*drawn)
        squares.append([(_squares(a, w), _squares(b, w), _squares(w.float(), w)) for w, a, b in zip(want, low, other, strict=True)])
        seen += min(w.numel() for w in want)
        if not all(_within(output) for output in zip(*squares)):  # all draws count then, not those up to where it looks better
            most = DRAWS
        drawn = [torch.randn(x.shape, generator=g) if x.is_floating_point()
                 else torch.randint(words, x.shape, generator=g) if tokens else x for x in drawn]
    for output in zip(*squares):
        assert _within(output) or _by_chance(output), f"{_times(output)} times the float32 error of the peer, over {seen} numbers"


def _squares(y: torch.Tensor, want: torch.Tensor) -> float:
    """Of the errors, summed."""
    return float((y.double() - want).square().sum())


def _within(output: Sequence[tuple[float, float, float]]) -> bool:
    """Of all draws as one."""
    m, t, r = (sum(of)**0.5 for of in zip(*output))
    return m <= SLACK * t + r


def _by_chance(output: Sequence[tuple[float, float, float]]) -> bool:
    """Whether the draws differ so much from each other that ours may well be within."""
    logs = [math.log(m / (SLACK * t**0.5 + r**0.5)**2) / 2 for m, t, r in output if m]
    return len(output) >= DRAWS and statistics.mean(logs) <= SURE * statistics.stdev(logs) / len(logs)**0.5


def _times(output: Sequence[tuple[float, float, float]]) -> str:
    return ", ".join(f"{(m / t)**0.5 if t else math.inf:.3f}" for m, t, _ in output)
