"""Memories that are no products of keys and values: attention as a prefix scan, linear time-invariant systems, spiking neurons, long taps, linear
recurrences."""
from __future__ import annotations

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats, volume
from archdsl.ops.time import need_taps

CHUNK = 64
"""Positions that are computed together; between chunks a state is carried."""
NEVER = float("-inf")
"""The score of what nobody attends to."""


# ---------------------------------------------------------------- attention as a prefix scan
@recurrent("prefix_attention(scores: [..., T], v: [..., T, e]) -> [..., T, e]",
           state={"peak": "f32[...]", "denominator": "f32[...]", "numerator": "f32[..., e]"}, source="arxiv 2405.13956",
           idle={"scores": NEVER},
           macs=lambda v, **_: volume(v.shape),
           samples=lambda: [{"scores": floats(2, 3, 5), "v": floats(2, 3, 5, 4)}, {"scores": floats(1, 1), "v": floats(1, 1, 2)},
                            {"scores": floats(67, low=-80, high=80), "v": floats(67, 3)}])
def prefix_attention(scores, v, peak, denominator, numerator):
    """y_t = Σ exp(s_j) v_j / Σ exp(s_j) over j ≤ t: softmax attention of one query over ever more keys. The state is the largest score so far and
    both sums, scaled by exp(-peak); a denominator of 0 is that of no key. Scores of -∞ are left out; where all are, y is 0."""
    ys = []
    for score, value in zip(scores.split(CHUNK, -1), v.split(CHUNK, -2), strict=True):
        y, peak, denominator, numerator = _prefixes(score, value, peak, denominator, numerator)
        ys.append(y)
    return torch.cat(ys, -2), peak, denominator, numerator


def _prefixes(scores, v, peak, denominator, numerator):
    n = scores.shape[-1]
    before = torch.where(denominator == 0, NEVER, peak)[..., None]
    peaks = finite(torch.maximum(scores.cummax(-1).values, before))
    later = torch.ones(n, n, dtype=torch.bool, device=scores.device).triu(1)
    weights = torch.exp((scores[..., None, :] - peaks[..., :, None]).masked_fill(later, NEVER))
    kept = torch.exp(before - peaks)
    denominators = weights.sum(-1) + kept * denominator[..., None]
    numerators = weights @ v + kept[..., None] * numerator[..., None, :]
    return _quotient(numerators, denominators), peaks[..., -1], denominators[..., -1], numerators[..., -1, :]


def finite(peak):
    """0 where there is no score yet: sums of nothing are 0 at any scale."""
    return torch.where(peak == NEVER, 0, peak)


def _quotient(numerator, denominator):
    return numerator / torch.where(denominator == 0, 1, denominator)[..., None]


@prefix_attention.step
def _prefix_step(score, v, peak, denominator, numerator):
    before = torch.where(denominator == 0, NEVER, peak)
    peak = finite(torch.maximum(score, before))
    kept, weight = torch.exp(before - peak), torch.exp(score - peak)
    denominator = kept * denominator + weight
    numerator = kept[..., None] * numerator + (weight[..., None, None] @ v[..., None, :])[..., 0, :]
    return _quotient(numerator, denominator), peak, denominator, numerator


# ---------------------------------------------------------------- linear time-invariant systems
def _lti_macs(u: TensorType, a: TensorType, **_: object) -> Size:
    """Each position multiplies the memory by a."""
    return volume((*u.shape, *a.shape))


@recurrent("lti(u: [..., T], a: f32[m, m], b: f32[m]) -> [..., T, m]", state={"memory": "f32[..., m]"}, roles={"m": "contract"}, macs=_lti_macs,
           source="arxiv 1907.01463 (Legendre memory units)",
           samples=lambda: [{"u": floats(2, 3, 5), "a": floats(4, 4, low=-0.4, high=0.4), "b": floats(4)},
                            {"u": floats(1, 1), "a": floats(2, 2), "b": floats(2)},
                            {"u": floats(67), "a": floats(3, 3, low=-0.3, high=0.3), "b": floats(3)}])
def lti(u, a, b, memory):
    """memory ← a memory + b u, y = memory: a linear system that does not change, driven by one number at each position."""
    n = u.shape[-1]
    powers = [a]  # a, a², a⁴, …
    while 2 ** len(powers) < min(CHUNK, n):
        powers.append(powers[-1] @ powers[-1])
    response = _onwards(b, powers, min(CHUNK, n)).flip(0)
    ys = []
    for part in u.split(CHUNK, -1):
        k = part.shape[-1]
        window = F.pad(part, (k - 1, 0)).unfold(-1, k, 1)  # u up to each position, the newest last
        y = window @ response[response.shape[0] - k:] + _onwards(memory @ a.mT, powers, k)
        memory = y[..., -1, :]
        ys.append(y)
    return torch.cat(ys, -2), memory


def _onwards(x, powers, n):
    """x, a x, a² x, … on a new axis before the last: n of them, each power of two doubles what there is."""
    found = x[..., None, :]
    for p in powers:
        if found.shape[-2] < n:
            found = torch.cat([found, found @ p.mT], -2)
    return found[..., :n, :]


@lti.step
def _lti_step(u, a, b, memory):
    memory = memory @ a.mT + u[..., None] * b
    return memory, memory


# ---------------------------------------------------------------- spiking neurons
@recurrent("lif(x: [..., T, c], tau: float = 2, threshold: float = 1, slope: float = 4) -> [..., T, c]", state={"potential": "f32[..., c]"},
           grad="surrogate", source="leaky integrate-and-fire, as spikingjelly's LIFNode with a detached hard reset",
           samples=lambda: [{"x": floats(2, 5, 3, low=-1, high=4)}, {"x": floats(1, 1, 2, low=0, high=3), "threshold": 0.5},
                            {"x": floats(67, 3, low=-1, high=4), "tau": 1.5, "slope": 2}])
def lif(x, potential, *, tau=2, threshold=1, slope=4):
    """Leaky integrate-and-fire neurons: v ← v + (x - v) / tau, a spike y = 1 where v ≥ threshold, else 0, and v ← 0 where there was a spike. The
    gradient of a spike is that of sigmoid(slope (v - threshold)); none goes through the reset. The recurrence is not linear: no form is parallel."""
    ys = []
    for now in x.unbind(-2):
        y, potential = _fire(now, potential, tau, threshold, slope)
        ys.append(y)
    return torch.stack(ys, -2), potential


@lif.step
def _lif_step(x, potential, *, tau=2, threshold=1, slope=4):
    return _fire(x, potential, tau, threshold, slope)


def _fire(x, potential, tau, threshold, slope):
    v = potential + (x - potential) / tau
    soft = torch.sigmoid(slope * (v - threshold))
    fired = v >= threshold
    return fired.to(v.dtype) + (soft - soft.detach()), torch.where(fired, 0, v)  # of what is past all numbers, too, nothing stays


# ---------------------------------------------------------------- long taps
def _taps_macs(x: TensorType, weight: TensorType, **_: object) -> Size:
    """All k taps at each position, those before the first one included."""
    return volume((*x.shape[:-1], *weight.shape))


DENSE = 512
"""Positions of a sequence that torch's convolution is given at a time on a CPU, so that one costs the same in sequences of any length: the blocks
that it cuts a map into, and whether they stay in the processor's cache, depend on how long the map is. On cards pieces have not been measured."""


@recurrent("causal_conv_dense(x: [..., T, c], weight: [o, c, k], bias: [o]? = none) -> [..., T, o]", state={"tail": "[..., k - 1, c]"},
           macs=_taps_macs, roles={"k": "contract", "c": "contract"}, fit=need_taps,
           samples=lambda: [{"x": floats(2, 7, 3), "weight": floats(5, 3, 4)}, {"x": floats(1, 1, 5), "weight": floats(2, 5, 3), "bias": floats(2)},
                            {"x": floats(2, 3, 5, 1), "weight": floats(1, 1, 2), "bias": floats(1)}])
def causal_conv_dense(x, weight, bias, tail):
    """`causal_conv` from all channels to all: y_t = Σ_j weight[:, :, j] x_(t - k + 1 + j) + bias. Before the first position x is 0."""
    n, k = x.shape[-2], weight.shape[-1]
    long = torch.cat([tail, x], -2)
    if not weight.numel():  # torch's convolutions have no result for no channels
        y = torch.einsum("...ck,ock->...o", long.unfold(-2, k, 1), weight)
        return (y if bias is None else y + bias), long[..., n:, :]
    flat = long.reshape(-1, n + k - 1, x.shape[-1]).mT
    parts = _parts(flat, n, k - 1) if x.device.type == "cpu" else [flat]
    y = torch.cat([F.conv1d(part, weight, bias).mT for part in parts], -2)
    return y.reshape(*x.shape[:-1], weight.shape[0]), long[..., n:, :]


def _parts(flat, n, before):
    """What each DENSE of n positions read, those before them too, as views of one tensor: a slice's gradient is as long as what it is cut from."""
    whole = n // DENSE
    windows = flat[..., :whole * DENSE + before].unfold(-1, DENSE + before, DENSE).unbind(-2) if whole else ()
    return [*windows, flat[..., whole * DENSE:]] if n % DENSE else [*windows]


@causal_conv_dense.step
def _dense_step(x, weight, bias, tail):
    long = torch.cat([tail, x[..., None, :]], -2)
    y = torch.einsum("...kc,ock->...o", long, weight)
    return (y if bias is None else y + bias), long[..., 1:, :]


# ---------------------------------------------------------------- linear recurrences
TOGETHER = 8
"""Positions of a linear recurrence whose gates are multiplied together: as many powers of a gate have to be finite."""


@recurrent("linear_scan(a: [..., T, c], b: [..., T, c]) -> [..., T, c]", state={"h": "[..., c]"},
           source="Blelloch 1990, Prefix sums and their applications",
           samples=lambda: [{"a": floats(2, 5, 3, low=-1, high=1), "b": floats(2, 5, 3)}, {"a": floats(1, 1), "b": floats(1, 1)},
                            {"a": floats(67, 2, low=-1, high=1), "b": floats(67, 2)}])
def linear_scan(a, b, h):
    """h_t = a_t h_(t-1) + b_t, element by element, h = 0 in front of the first position: a prefix scan over pairs, (a, b) then (a', b') is
    (a' a, a' b + b'). A `scan` of your own that is linear in what it carries runs so."""
    y = scanned(a, b, h)
    return y, y[..., -1, :]


@linear_scan.gradient
def _linear_gradient(dy, later, a, b, h):
    """The gradients of h are a scan from the other end: g_t = a_(t+1) g_(t+1) + dy_t."""
    y, h = scanned(a, b, h), h[..., None, :]
    dy = torch.cat([dy[..., :-1, :], dy[..., -1:, :] + later[..., None, :]], -2)
    g = scanned(torch.cat([a[..., :1, :], a[..., 1:, :].flip(-2)], -2), dy.flip(-2), torch.zeros_like(later)).flip(-2)
    return g * torch.cat([h, y[..., :-1, :]], -2), g, (a * g)[..., 0, :]


def scanned(a, b, h):
    """h_t = a_t h_(t-1) + b_t, all of them, for a and b [..., T, c]. Parts of the sequence side by side, each from nothing; then from part to part;
    then what came before."""
    n = b.shape[-2]
    k = min(TOGETHER, n)
    more = -n % k
    gates, sums = (F.pad(x, (0, 0, 0, more), value=fill).unflatten(-2, (-1, k)) for x, fill in ((a, 1), (b, 0)))
    of_gates, of_sums = gates.unbind(-2), sums.unbind(-2)
    for i in range(1, k):
        of_sums[i].addcmul_(of_gates[i], of_sums[i - 1])
        of_gates[i].mul_(of_gates[i - 1])
    before = [h]
    for gate, part in zip(of_gates[-1].unbind(-2), of_sums[-1].unbind(-2)):
        before.append(torch.addcmul(part, gate, before[-1]))
    sums.addcmul_(gates, torch.stack(before[:-1], -2)[..., None, :])
    return sums.flatten(-3, -2)[..., :n, :]


@linear_scan.step
def _linear_step(a, b, h):
    h = a * h + b
    return h, h
