"""RWKV-4's mean of the values so far. Both passes are written out: along time goes what depends on the position before, three sums of a row, all else
is computed a block of positions at a time."""
from __future__ import annotations

from typing import Any

from archdsl.lazy import torch
from archdsl.ops.gates import LOG2_E
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats

BLOCK = 64
"""Positions whose states are held at a time."""
NEVER = float("-inf")
"""The exponent of what has no weight."""


@recurrent("wkv(k: [..., T, c], v: [..., T, c], decay: [c], bonus: [c]) -> [..., T, c]",
           state={"peak": "f32[..., c]", "denominator": "f32[..., c]", "numerator": "f32[..., c]"}, source="arxiv 2305.13048, equation 16",
           samples=lambda: [{"k": floats(2, 5, 3), "v": floats(2, 5, 3), "decay": floats(3, low=-2, high=0), "bonus": floats(3)},
                            {"k": floats(1, 1), "v": floats(1, 1), "decay": floats(1, low=-2, high=0), "bonus": floats(1)},
                            {"k": floats(67, 2, low=-60, high=60), "v": floats(67, 2), "decay": floats(2, low=-9, high=0), "bonus": floats(2)}])
def wkv(k, v, decay, bonus, peak, denominator, numerator):
    """y_t = (Σ exp((t - 1 - j) decay + k_j) v_j + exp(bonus + k_t) v_t) / (the same without v), over j < t, channel by channel: RWKV-4's mean of the
    values. `decay` is the logarithm, at most 0. The state is the largest exponent so far and both sums, scaled by exp(-peak)."""
    y = torch.empty_like(k, memory_format=torch.contiguous_format)
    peak, sums = _begun(peak, denominator, numerator)
    for keys, values, out in zip(*(x.movedim(-2, 0).split(BLOCK) for x in (k, v, y))):
        block = _Block(keys, values, decay, peak, sums)
        above, below, _, _ = block.read(bonus)
        torch.div(above, below, out=out)
        peak, sums = block.peaks[-1], block.sums[-1]
    return y, peak, *sums.unbind()


@wkv.step
def _wkv_step(k, v, decay, bonus, peak, denominator, numerator):
    old = torch.where(denominator == 0, NEVER, peak)
    largest = torch.maximum(old, k + bonus)
    kept, weight = torch.exp(old - largest), torch.exp(k + bonus - largest)
    y = (kept * numerator + weight * v) / (kept * denominator + weight)
    peak = torch.maximum(old + decay, k)
    kept, weight = torch.exp(old - peak + decay), torch.exp(k - peak)  # the difference first: a small decay of a large peak is lost in their sum
    return y, peak, kept * denominator + weight, kept * numerator + weight * v


@wkv.gradient
def _wkv_gradient(dy, dpeak, ddenominator, dnumerator, k, v, decay, bonus, peak, denominator, numerator):
    """From the last block to the first, each computed once more. What comes out does not depend on the scale of the sums: exponents are taken as
    they are, and what a larger last one would change goes to the key, or the state, that it is."""
    dy, k, v = (x.movedim(-2, 0) for x in (dy, k, v))
    met = [_begun(peak, denominator, numerator)]
    for keys, values in zip(k.split(BLOCK), v.split(BLOCK)):
        block = _Block(keys, values, decay, *met[-1])
        met.append((block.peaks[-1], block.sums[-1].clone()))
    later = torch.stack([ddenominator, dnumerator])
    of_peak = dpeak - (later * met[-1][1]).sum(0)
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    ddecay, dbonus = torch.zeros_like(of_peak), torch.zeros_like(of_peak)
    blocks = zip(*(x.split(BLOCK) for x in (dy, k, v, dk, dv)))
    for before, (g, keys, values, gk, gv) in zip(reversed(met[:-1]), reversed([*blocks])):
        block = _Block(keys, values, decay, *before)
        above, below, kept, own = block.read(bonus)
        dabove = g / below
        dbelow = -dabove * above / below
        down = own * torch.addcmul(dbelow, dabove, values)
        dbonus += down.sum(0)
        grads = torch.stack([dbelow, dabove], 1).mul_(kept[:, None])
        after = block.carry_back(grads, later)
        torch.addcmul(own * dabove, block.fresh, after[:, 1], out=gv)
        torch.addcmul(down, block.fresh, torch.addcmul(after[:, 0], after[:, 1], values), out=gk)
        ddecay += (block.kept * (after * block.sums[:-1]).sum(1)).sum(0)
        of_peak, steps = block.route(of_peak, gk)
        ddecay += steps
        later = grads[0]
    dpeak = of_peak + (later * met[0][1]).sum(0)
    total = lambda x: x.flatten(0, -2).sum(0) if x.ndim > 1 else x
    return dk.movedim(0, -2), dv.movedim(0, -2), total(ddecay), total(dbonus), dpeak, later[0], later[1]


class _Block:
    """Some positions, time in front. `peaks` [t + 1, ..., c] and `sums` [t + 1, 2, ..., c] (denominator, numerator) are the states before each
    position and behind the last; from one to the next `kept` [t, ..., c] stays and `fresh` is the weight of the new value."""

    def __init__(self, k: Any, v: Any, decay: Any, peak: Any, sums: Any):
        self.k, self.v = k, v
        self.peaks = k.new_empty(len(k) + 1, *k.shape[1:])
        self.peaks[0] = peak
        each = self.peaks.unbind()
        for key, before, now in zip(k.unbind(), each, each[1:]):
            torch.maximum(torch.add(before, decay, out=now), key, out=now)
        self.kept, self.fresh = _power((self.peaks[:-1] - self.peaks[1:]).add_(decay)), _power(k - self.peaks[1:])
        self.sums = k.new_empty(len(k) + 1, 2, *k.shape[1:])
        self.sums[0], self.sums[1:, 0] = sums, self.fresh
        torch.mul(self.fresh, v, out=self.sums[1:, 1])
        each = self.sums.unbind()
        for kept, before, now in zip(self.kept.unbind(), each, each[1:]):
            now.addcmul_(kept, before)

    def read(self, bonus: Any) -> tuple[Any, Any, Any, Any]:
        """Numerators and denominators of the means, and the weights of the sums and of each position itself that are in them."""
        own = self.k + bonus
        largest = torch.maximum(self.peaks[:-1], own)
        kept, own = _power(self.peaks[:-1] - largest), _power(own.sub_(largest))
        return torch.addcmul(own * self.v, kept, self.sums[:-1, 1]), torch.addcmul(own, kept, self.sums[:-1, 0]), kept, own

    def carry_back(self, grads: Any, later: Any) -> Any:
        """Adds to `grads`, the gradients of the sums before each position by what reads them, those by later sums, `later` behind the block. Gives
        the gradients of the sums behind each position."""
        each = [*grads.unbind(), later]
        for now, kept, after in zip(reversed(each[:-1]), reversed(self.kept.unbind()), reversed(each)):
            now.addcmul_(kept, after)
        return torch.cat([grads[1:], later[None]])

    def route(self, grad: Any, dk: Any) -> tuple[Any, Any]:
        """The gradient of the last peak goes to the last key that was one; what is left where none was, and how often the decay was added to it."""
        place = torch.arange(1, len(self.k) + 1, device=grad.device).view(-1, *(1 for _ in grad.shape))
        last = torch.where(self.peaks[1:] == self.k, place, 0).amax(0)
        dk.scatter_add_(0, (last - 1).clamp_(min=0)[None], torch.where(last > 0, grad, 0)[None])
        return torch.where(last > 0, 0, grad), grad * (len(self.k) - last)


def _begun(peak: Any, denominator: Any, numerator: Any) -> tuple[Any, Any]:
    return torch.where(denominator == 0, NEVER, peak), torch.stack([denominator, numerator])


def _power(x: Any) -> Any:
    """exp(x), in its place."""
    return x.mul_(LOG2_E).exp2_()
