"""RWKV-4's mean of the values so far. Both passes are written out, a block of positions at a time: the largest exponents, then the sums that they
scale, by two prefix scans."""
from __future__ import annotations

from itertools import pairwise
from typing import Any

from archdsl.lazy import F, torch
from archdsl.ops.gates import LOG2_E
from archdsl.ops.memories import NEVER, TOGETHER, finite, scanned
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats

BLOCK = 64
"""Positions whose states are held at a time."""


@recurrent("wkv(k: [..., T, c], v: [..., T, c], decay: [c], bonus: [c]) -> [..., T, c]",
           state={"peak": "f32[..., c]", "denominator": "f32[..., c]", "numerator": "f32[..., c]"}, source="arxiv 2305.13048, equation 16",
           idle={"k": NEVER},
           samples=lambda: [{"k": floats(2, 5, 3), "v": floats(2, 5, 3), "decay": floats(3, low=-2, high=0), "bonus": floats(3)},
                            {"k": floats(1, 1), "v": floats(1, 1), "decay": floats(1, low=-2, high=0), "bonus": floats(1)},
                            {"k": floats(67, 2, low=-60, high=60), "v": floats(67, 2), "decay": floats(2, low=-9, high=0), "bonus": floats(2)}])
def wkv(k, v, decay, bonus, peak, denominator, numerator):
    """y_t = (Σ exp((t - 1 - j) decay + k_j) v_j + exp(bonus + k_t) v_t) / (the same without v), over j < t, channel by channel: RWKV-4's mean of the
    values. `decay` is the logarithm, at most 0. The state is the largest exponent so far and both sums, scaled by exp(-peak); a denominator of 0 is
    that of no key. Keys of -∞ are left out; where all are, y is 0."""
    ys = []
    peak, sums = _begun(peak, denominator, numerator)
    for keys, values in zip(k.split(BLOCK, -2), v.split(BLOCK, -2)):
        block = _Block(keys, values, decay, peak, sums)
        above, below, _, _ = block.read(bonus)
        ys.append(above.div_(below))
        peak, sums = block.peak, block.sums
    return torch.cat(ys, -2), torch.where(sums[0] == 0, 0, peak), *sums.unbind()


@wkv.step
def _wkv_step(k, v, decay, bonus, peak, denominator, numerator):
    old = torch.where(denominator == 0, NEVER, peak)
    largest = finite(torch.maximum(old, k + bonus))
    kept, weight = torch.exp(old - largest), torch.exp(k + bonus - largest)
    below = kept * denominator + weight
    y = (kept * numerator + weight * v) / torch.where(below == 0, 1, below)
    peak = finite(torch.maximum(old + decay, k))
    kept, weight = torch.exp(old - peak + decay), torch.exp(k - peak)  # the difference first: a small decay of a large peak is lost in their sum
    return y, peak, kept * denominator + weight, kept * numerator + weight * v


@wkv.gradient
def _wkv_gradient(dy, dpeak, ddenominator, dnumerator, k, v, decay, bonus, peak, denominator, numerator):
    """From the last block to the first, each computed once more. What comes out does not depend on the scale of the sums: exponents are taken as
    they are, and what a larger last one would change goes to the key, or the state, that it is."""
    met = [_begun(peak, denominator, numerator)]
    for keys, values in zip(k.split(BLOCK, -2), v.split(BLOCK, -2)):
        block = _Block(keys, values, decay, *met[-1])
        met.append((block.peak, block.sums))
    later = torch.stack([ddenominator, dnumerator])
    of_peak = torch.where(met[-1][1][0] == 0, 0, dpeak - (later * met[-1][1]).sum(0))
    dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (k, v))
    ddecay, dbonus = torch.zeros_like(of_peak), torch.zeros_like(of_peak)
    blocks = zip(*(x.split(BLOCK, -2) for x in (dy, k, v, dk, dv)))
    for before, (g, keys, values, gk, gv) in zip(reversed(met[:-1]), reversed([*blocks])):
        block = _Block(keys, values, decay, *before)
        above, below, kept, own = block.read(bonus)
        dabove = g / below
        dbelow = -dabove * above / below
        down = own * torch.addcmul(dbelow, dabove, values)
        grads = scanned(block.kept.flip(-2), torch.stack([dbelow, dabove]).mul_(kept).flip(-2), later).flip(-2)
        after, later = torch.cat([grads[..., 1:, :], later[..., None, :]], -2), grads[..., 0, :]
        torch.addcmul(own * dabove, block.fresh, after[1], out=gv)
        torch.addcmul(down, block.fresh, torch.addcmul(after[0], after[1], values), out=gk)
        of_peak, steps = block.route(of_peak, gk)
        dbonus += down.sum(-2)
        ddecay += (block.kept * (after * block.met).sum(0)).sum(-2) + steps
    dpeak = of_peak + (later * met[0][1]).sum(0)
    total = lambda x: x.flatten(0, -2).sum(0) if x.ndim > 1 else x
    return dk, dv, total(ddecay), total(dbonus), dpeak, later[0], later[1]


class _Block:
    """Some positions, [..., t, c]. `before` and `met` [2, ..., t, c] (denominator, numerator) are the states in front of each, `peak` and `sums` that
    behind the last; from one to the next `kept` stays, and `fresh` is the weight of the new value."""

    def __init__(self, k: Any, v: Any, decay: Any, peak: Any, sums: Any):
        self.k, self.v = k, v
        self.peaks = _peaks(k, decay, peak)
        self.before = torch.cat([peak[..., None, :], self.peaks[..., :-1, :]], -2)
        self.kept, self.fresh = _power((self.before - self.peaks).add_(decay)), _power(k - self.peaks)
        found = scanned(self.kept, torch.stack([self.fresh, self.fresh * v]), sums)
        self.met = torch.cat([sums[..., None, :], found[..., :-1, :]], -2)
        self.peak, self.sums = self.peaks[..., -1, :], found[..., -1, :].clone()

    def read(self, bonus: Any) -> tuple[Any, Any, Any, Any]:
        """Numerators and denominators of the means, and the weights of the sums and of each position itself that are in them."""
        own = self.k + bonus
        largest = torch.maximum(self.before, own)
        kept, own = _power(self.before - largest), _power(own.sub_(largest))
        below = torch.addcmul(own, kept, self.met[0])
        return torch.addcmul(own * self.v, kept, self.met[1]), below.masked_fill_(below == 0, 1), kept, own

    def route(self, grad: Any, dk: Any) -> tuple[Any, Any]:
        """The gradient of the last peak goes to the last key that was one; what is left where none was, and how often the decay was added to it."""
        n = self.k.shape[-2]
        place = torch.arange(1, n + 1, device=grad.device)[:, None]
        last = torch.where(self.peaks == self.k, place, 0).amax(-2)
        dk.scatter_add_(-2, (last - 1).clamp_(min=0)[..., None, :], torch.where(last > 0, grad, 0)[..., None, :])
        return torch.where(last > 0, 0, grad), grad * (n - last)


def _peaks(k: Any, decay: Any, peak: Any) -> Any:
    """p_t = max(p_(t-1) + decay, k_t), all of them, from `peak`: as `scanned` has it, for maxima of sums. That of no key is the lowest number,
    which can be taken from others, as -∞ cannot."""
    n = k.shape[-2]
    many = min(TOGETHER, n)
    parts = F.pad(k, (0, 0, 0, -n % many), value=NEVER).unflatten(-2, (-1, many))
    each = parts.unbind(-2)
    for now, later in pairwise(each):
        torch.maximum(now + decay, later, out=later)
    before = [peak]
    for last in each[-1].unbind(-2):
        before.append(torch.maximum(before[-1] + many * decay, last))
    reach = torch.arange(1, many + 1, device=k.device)[:, None] * decay
    torch.maximum(torch.stack(before[:-1], -2)[..., None, :] + reach, parts, out=parts).clamp_(min=torch.finfo(parts.dtype).min)
    return parts.flatten(-3, -2)[..., :n, :]


def _begun(peak: Any, denominator: Any, numerator: Any) -> tuple[Any, Any]:
    return torch.where(denominator == 0, torch.finfo(peak.dtype).min, peak), torch.stack([denominator, numerator])


def _power(x: Any) -> Any:
    """exp(x), in its place."""
    return x.mul_(LOG2_E).exp2_()
