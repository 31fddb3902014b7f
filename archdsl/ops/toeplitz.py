"""Sums over positions, weighed by how far apart they are: products with Toeplitz matrices, by FFT. Attention by features makes the matrix of scores
as long as that is sooner done.

Costs count a real FFT of N numbers as N ⌈log₂ N⌉ multiply-accumulates; N is twice the positions, and the logarithm that of twice the taps: of the
longest sequence."""
from __future__ import annotations

from typing import Any

from archdsl.dims import Size, minimum
from archdsl.graph import TensorType
from archdsl.lazy import F, torch
from archdsl.ops.gates import padded
from archdsl.ops.recurrent import recurrent
from archdsl.ops.rules import floats, size, volume

DEAR = 4
"""How many multiply-accumulates of a matrix product take the time of one of an FFT."""
FEATURES = 8
"""Features of keys whose products with the values are held at a time."""


# ---------------------------------------------------------------- products
def _matrix(taps, ahead, rows, columns):
    """[..., *rows, *columns]: along each of the last axes, the tap for how far behind position j the i-th of the last `rows` of `columns` positions
    lies. `ahead` is where the tap of no distance stands; outside of them taps are 0."""
    k = len(ahead)
    bounds = []
    for a, n, m, r in zip(ahead, rows, columns, taps.shape[-k:]):
        bounds = [n - 1 - a, m + a - r, *bounds]
    taps = F.pad(taps, bounds)
    for axis, m in zip(range(taps.dim() - k, taps.dim()), columns):
        taps = taps.unfold(axis, m, 1)
    return taps.flip(tuple(range(-k, 0)))


def _by_fft(x, taps, ahead, sizes=None):
    """Σ_j taps[..., ahead + i - j] x[..., j] along the last axes, by FFTs of the lengths `sizes`. Sums of nothing are 0: there is no FFT of it."""
    k = len(ahead)
    axes, lengths = tuple(range(-k, 0)), x.shape[-k:]
    if not x.numel() or not taps.numel():
        return x.new_zeros(*torch.broadcast_shapes(x.shape[:-k], taps.shape[:-k]), *lengths)
    if sizes is None:
        sizes = [_fast(max(n + r - 1 - a, n + a)) for n, r, a in zip(lengths, taps.shape[-k:], ahead)]
    z = torch.fft.irfftn(torch.fft.rfftn(x, sizes, axes) * torch.fft.rfftn(taps, sizes, axes), sizes, axes)
    for axis, n, a in zip(axes, lengths, ahead):
        z = z.narrow(axis, a, n)
    return z


def _fast(n):
    """The least 2ᵃ or 3 · 2ᵃ from n up: lengths whose FFT is fast."""
    found = 1
    while found < n:
        found *= 2
    return 3 * found // 4 if 3 * found >= 4 * n else found


def _wide(x, *others):
    """In float32 at least: FFTs of 16 bits are poor, or missing."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return [y.to(dtype) for y in (x, *others)]


def _behind(state, x):
    """What is kept with what is new, and what will be kept."""
    whole = torch.cat([state, x.to(state.dtype)], -2)
    return whole, whole[..., whole.shape[-2] - state.shape[-2]:, :]


def _reach(taps, state):
    """The taps that a state has positions for; all without a state."""
    return taps[..., :state.shape[-2]] if state.shape[-2] else taps


def _with(state, x):
    """A state whose newest position is x."""
    return torch.cat([state[..., 1:, :], x[..., None, :].to(state.dtype)], -2)


def _met(state, taps):
    """The positions of a state that taps reach and one more, whose tap is 0 (`_each`). So a state of all positions that a model may have, as many as
    there are taps, is cut as a shorter one is: torch.export holds its programs to one side of where a slice begins to cut."""
    return state[..., -(size(taps, -1) + 1):, :]


def _each(taps, near):
    """The tap of each position that `_met` gives, [c, 1, n]."""
    return F.pad(taps, (0, 1))[:, None, :size(near, -2)].flip(-1)


def _newest(x, n):
    return x[..., x.shape[-2] - n:, :]


# ---------------------------------------------------------------- costs
def _log(taps: tuple[Any, ...], causal: bool) -> int:
    """⌈log₂⌉ of how long the FFTs are for the longest sequence."""
    total = 1
    for r in taps:
        total *= 2 * r if causal else r + 1
    return (total - 1).bit_length()


def _conv_macs(x: TensorType, taps: TensorType, inputs: TensorType | None = None) -> Size:
    """Three FFTs, that of the taps but once; from a state the taps that reach a position of it, and one that is 0 (`_met`)."""
    if inputs is not None:
        return volume(x.shape) * minimum(inputs.shape[-2], taps.shape[-1] + 1)
    return 2 * (2 * volume(x.shape) + volume(x.shape[-2:])) * _log(taps.shape[1:], True)


def _both_macs(x: TensorType, taps: TensorType) -> Size:
    return 2 * (2 * volume(x.shape) + volume(x.shape[-2:])) * _log(taps.shape[1:], False)


def _attention_macs(q: TensorType, v: TensorType, taps: TensorType, keys: TensorType | None = None, **_: Any) -> Size:
    """Two FFTs for each feature and value and one of the taps; from a state, scores and sums over it."""
    if keys is not None:
        return volume(q.shape[:-1]) * minimum(keys.shape[-2], taps.shape[-1] + 1) * (q.shape[-1] + v.shape[-1])
    return _full_macs(q, v, taps, causal=True)


def _full_macs(q: TensorType, v: TensorType, taps: TensorType, causal: bool = False, **_: Any) -> Size:
    axes = len(taps.shape) - 1
    ffts = 2 * volume(q.shape) * v.shape[-1] + volume(q.shape[-2 - axes:-1])
    return 2 ** axes * ffts * _log(taps.shape[1:], causal)


# ---------------------------------------------------------------- convolutions
@recurrent("long_conv(x: [..., T, c], taps: f32[c, n]) -> [..., T, c]", state={"inputs": "[..., Length, c]"}, roles={"n": "contract"},
           macs=_conv_macs, reference=lambda x, taps: _convolved(x, taps[:, :x.shape[-2]], (0,)), source="arxiv 2302.10866",
           samples=lambda: [{"x": floats(2, 7, 3), "taps": floats(3, 7)}, {"x": floats(1, 1), "taps": floats(1, 1)},
                            {"x": floats(2, 1, 75, 2), "taps": floats(2, 75)}])
def long_conv(x, taps, inputs):
    """Each channel's weighted sum of all its positions so far: y_t = Σ_j taps[j] x_(t - j). Inputs further back than there are taps weigh nothing."""
    n = x.shape[-2]
    whole, later = _behind(inputs, x)
    taps, wide = _wide(_reach(taps, inputs), whole)
    reach = min(max(taps.shape[-1], 1) + n - 1, whole.shape[-2])
    wide = _newest(wide, reach)
    return _newest(_by_fft(wide.mT, taps[:, :reach], (0,)).mT, n), later


@long_conv.step
def _long_conv_step(x, taps, inputs):
    inputs = _with(inputs, x)
    taps, wide = _wide(taps, _met(inputs, taps))
    return (_each(taps, wide) @ wide.mT[..., None])[..., 0, 0], inputs


@recurrent("long_conv_both(x: [..., T, c], taps: f32[c, n]) -> [..., T, c]", state={}, roles={"n": "contract", "T": "mix"}, macs=_both_macs,
           reference=lambda x, taps: _convolved(x, *_nearer(taps, (x.shape[-2],))), source="arxiv 2302.10866",
           samples=lambda: [{"x": floats(2, 4, 3), "taps": floats(3, 7)}, {"x": floats(1, 1), "taps": floats(1, 1)},
                            {"x": floats(2, 75, 1), "taps": floats(1, 149)}])
def long_conv_both(x, taps):
    """Each channel's weighted sum of all its positions, the later ones too: y_t = Σ_j taps[m + j] x_(t - j), where m = ⌊n / 2⌋ is the middle."""
    wide, taps = _wide(x, taps)
    return (_by_fft(wide.mT, *_nearer(taps, (x.shape[-2],))).mT.to(x.dtype),)


def _nearer(taps, sizes):
    """The taps on both sides that positions on axes of these sizes can meet, and where those of no distance stand."""
    ahead = []
    for i, n in enumerate(sizes):
        axis = taps.dim() - len(sizes) + i
        middle, end = taps.shape[axis] // 2, taps.shape[axis]
        a = min(middle, max(n - 1, 0))
        taps = taps.narrow(axis, middle - a, min(middle + n, end) - middle + a)
        ahead.append(a)
    return taps, tuple(ahead)


def _convolved(x, taps, ahead):
    """FFTs of twice the positions, as costs count them."""
    return _by_fft(x.mT, taps, ahead, [2 * x.shape[-2]]).mT.to(x.dtype)


# ---------------------------------------------------------------- attention by features
@recurrent("toeplitz_attention(q: [..., h, T, m], k: [..., h, T, m], v: [..., h, T, e], taps: f32[h, n]) -> [..., h, T, e]",
           state={"keys": "[..., h, Length, m]", "values": "[..., h, Length, e]"}, roles={"n": "contract", "m": "contract"},
           macs=_attention_macs, reference=lambda q, k, v, taps: _attended(q, k, v, taps[:, :q.shape[-2]], (0,)), source="arxiv 2106.12566",
           samples=lambda: [{"q": floats(2, 3, 7, 4), "k": floats(2, 3, 7, 4), "v": floats(2, 3, 7, 5), "taps": floats(3, 7)},
                            {"q": floats(1, 1, 2), "k": floats(1, 1, 2), "v": floats(1, 1, 1), "taps": floats(1, 1)},
                            {"q": floats(2, 301, 1), "k": floats(2, 301, 1), "v": floats(2, 301, 1), "taps": floats(2, 301)}])
def toeplitz_attention(q, k, v, taps, keys, values):
    """y_t = Σ taps[h, t - j] (q_t · k_j) v_j over j ≤ t, by head: attention without softmax to q and k that are features, with a weight for how far
    back a position lies. Positions further back than there are taps weigh nothing."""
    n = q.shape[-2]
    (all_k, keys_later), (all_v, values_later) = _behind(keys, k), _behind(values, v)
    taps, q, all_k, all_v = _wide(_reach(taps, keys), q, all_k, all_v)
    reach = min(max(taps.shape[-1], 1) + n - 1, all_k.shape[-2])
    all_k, all_v = _newest(all_k, reach), _newest(all_v, reach)
    if _is_near(n * reach, reach, q, all_v):
        y = (q @ all_k.mT * _matrix(taps, (0,), (n,), (reach,))) @ all_v
    else:
        y = _newest(_featurewise(padded(q, reach - n, 0), all_k, all_v, taps[:, :reach], (0,)), n)
    return y, keys_later, values_later


@toeplitz_attention.step
def _attention_step(q, k, v, taps, keys, values):
    keys, values = _with(keys, k), _with(values, v)
    taps, q, near_k, near_v = _wide(taps, q, _met(keys, taps), _met(values, taps))
    scores = (q[..., None, :] @ near_k.mT) * _each(taps, near_k)
    return (scores @ near_v)[..., 0, :], keys, values


def _is_near(pairs, positions, q, v):
    """Whether the matrix of scores is sooner made than the FFTs of all products of features and values."""
    m, e = q.shape[-1], v.shape[-1]
    return 0 < pairs * (m + e) <= DEAR * 4 * positions * (2 * positions).bit_length() * m * e


def _featurewise(q, k, v, taps, ahead):
    """Σ_r q_r · (taps * (k_r v)) by FFT along the axes of positions, some features r at a time."""
    axes = len(ahead)
    q, k, v = (x.movedim(-1, -1 - axes) for x in (q, k, v))  # [..., h, m, *s]
    taps = taps[(slice(None), None, None)]
    y = torch.zeros_like(v)
    for some_q, some_k in zip(q.split(FEATURES, -1 - axes), k.split(FEATURES, -1 - axes)):
        found = _by_fft(some_k.unsqueeze(-1 - axes) * v.unsqueeze(-2 - axes), taps, ahead)
        y = y + (some_q.unsqueeze(-1 - axes) * found).sum(-2 - axes)
    return y.movedim(-1 - axes, -1)


def _attended(q, k, v, taps, ahead):
    """All features at once, FFTs of twice the positions, as costs count them."""
    axes = len(ahead)
    q, k, v = (x.movedim(-1, -1 - axes) for x in (q, k, v))
    sizes = [2 * n for n in q.shape[-axes:]]
    found = _by_fft(k.unsqueeze(-1 - axes) * v.unsqueeze(-2 - axes), taps[(slice(None), None, None)], ahead, sizes)
    return (q.unsqueeze(-1 - axes) * found).sum(-2 - axes).movedim(-1 - axes, -1).to(q.dtype)


def _to_all(q, k, v, taps):
    """Attention by features to all positions, on any number of axes of positions."""
    axes = taps.dim() - 1
    sizes, dtype = q.shape[-1 - axes:-1], q.dtype
    taps, ahead = _nearer(taps, sizes)
    q, k, v, taps = _wide(q, k, v, taps)
    positions = sizes.numel()
    if _is_near(positions * positions, positions, q, v):
        weights = _matrix(taps, ahead, sizes, sizes).reshape(-1, positions, positions)
        flat = [x.flatten(-1 - axes, -2) for x in (q, k, v)]
        y = ((flat[0] @ flat[1].mT * weights) @ flat[2]).unflatten(-2, sizes)
    else:
        y = _featurewise(q, k, v, taps, ahead)
    return (y.to(dtype),)


@recurrent("toeplitz_attention_both(q: [..., h, T, m], k: [..., h, T, m], v: [..., h, T, e], taps: f32[h, n]) -> [..., h, T, e]", state={},
           roles={"n": "contract", "m": "contract", "T": "mix"}, macs=_full_macs, source="arxiv 2106.12566",
           reference=lambda q, k, v, taps: _attended(q, k, v, *_nearer(taps, q.shape[-taps.dim():-1])),
           samples=lambda: [{"q": floats(2, 3, 4, 4), "k": floats(2, 3, 4, 4), "v": floats(2, 3, 4, 5), "taps": floats(3, 7)},
                            {"q": floats(1, 1, 2), "k": floats(1, 1, 2), "v": floats(1, 1, 1), "taps": floats(1, 1)},
                            {"q": floats(1, 301, 1), "k": floats(1, 301, 1), "v": floats(1, 301, 1), "taps": floats(1, 601)}])
def toeplitz_attention_both(q, k, v, taps):
    """y_t = Σ taps[h, m + t - j] (q_t · k_j) v_j over all j, by head: `toeplitz_attention` to later positions too, m = ⌊n / 2⌋ the middle."""
    return _to_all(q, k, v, taps)


@recurrent("toeplitz_attention_2d(q: [..., h, H, W, m], k: [..., h, H, W, m], v: [..., h, H, W, e], taps: f32[h, r, c]) -> [..., h, H, W, e]",
           state={}, roles={"r": "contract", "c": "contract", "m": "contract", "H": "mix", "W": "mix"}, macs=_full_macs, source="arxiv 2106.12566",
           reference=lambda q, k, v, taps: _attended(q, k, v, *_nearer(taps, q.shape[-taps.dim():-1])),
           samples=lambda: [{"q": floats(2, 3, 4, 2, 4), "k": floats(2, 3, 4, 2, 4), "v": floats(2, 3, 4, 2, 5), "taps": floats(3, 7, 3)},
                            {"q": floats(1, 1, 1, 2), "k": floats(1, 1, 1, 2), "v": floats(1, 1, 1, 1), "taps": floats(1, 1, 1)},
                            {"q": floats(1, 16, 17, 1), "k": floats(1, 16, 17, 1), "v": floats(1, 16, 17, 1), "taps": floats(1, 31, 33)}])
def toeplitz_attention_2d(q, k, v, taps):
    """y_p = Σ taps[h, middle + p - p'] (q_p · k_p') v_p' over all places p' of a map, by head: `toeplitz_attention_both` along two axes."""
    return _to_all(q, k, v, taps)
