"""LMUFormer's four models against their equations in plain torch, in the official code's layout; what the memory holds; frame by frame."""
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archdsl
from tests.parity.proof import EXACT, prove, randomise, relative

SPEC = "specs/audio/lmuformer.arch"
F64 = torch.float64
SIZES: dict[str, Any] = dict(mel=5, d=8, order=6, theta=9, classes=3, heads=2, ratio=2)
NEURONS = {"lmuformer": "relu", "spiking": "spiking", "spiking_lmuformer": "membrane", "spiking_attention": "membrane"}


# ---------------------------------------------------------------- the equations
class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, over: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(over)
        return (over >= 0).to(over.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        s = torch.sigmoid(4 * ctx.saved_tensors[0])
        return grads[0] * 4 * s * (1 - s)


def spikes(x: torch.Tensor, threshold: float = 1.0) -> torch.Tensor:
    """[B, C, N], along N."""
    v, out = torch.zeros_like(x[..., 0]), []
    for t in range(x.shape[-1]):
        v = v + (x[..., t] - v) / 2
        s = Fire.apply(v - threshold)
        v = v * (1 - s.detach())
        out.append(s)
    return torch.stack(out, -1)


def system(order: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B under zero-order hold with a step of 1."""
    a = torch.empty(order, order, dtype=F64)
    b = torch.empty(order, dtype=F64)
    for i in range(order):
        b[i] = (2 * i + 1) * (-1) ** i / theta
        for j in range(order):
            a[i, j] = (2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1))
    held = torch.linalg.matrix_exp(a)
    return held, torch.linalg.solve(a, (held - torch.eye(order, dtype=F64)) @ b)


def remembered(u: torch.Tensor, order: int, theta: float) -> torch.Tensor:
    """[B, N] -> [B, M, N]: a convolution with the response to an impulse, by FFT of twice the length."""
    a, x = system(order, theta)
    n, response = u.shape[-1], []
    for _ in range(n):
        response.append(x)
        x = a @ x
    h = torch.stack(response, -1).to(u.dtype)
    return torch.fft.irfft(torch.fft.rfft(u, 2 * n)[:, None] * torch.fft.rfft(h, 2 * n), 2 * n)[..., :n]


class Cell(nn.Module):
    def __init__(self, d: int, order: int, theta: float, spiking: bool):
        super().__init__()
        self.size, self.spiking = (order, theta), spiking
        self.W_u, self.W_h = nn.Linear(d, 1), nn.Linear(order + d, d)
        if spiking:
            self.bn_u, self.bn_m, self.bn_h = nn.BatchNorm1d(1), nn.BatchNorm1d(order), nn.BatchNorm1d(d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = self.W_u(x.mT).mT
        u = spikes(self.bn_u(u)) if self.spiking else u.relu()
        m = remembered(u[:, 0], *self.size)
        if self.spiking:
            m = spikes(self.bn_m(m))
        h = self.W_h(torch.cat([m, x], 1).mT).mT
        return spikes(self.bn_h(h)) if self.spiking else h.relu()


class Mixer(nn.Module):
    def __init__(self, d: int, order: int, theta: float, neurons: str):
        super().__init__()
        self.neurons, self.lmu = neurons, Cell(d, order, theta, neurons != "relu")
        if neurons == "membrane":
            self.prev_bn = nn.BatchNorm1d(d)
        self.proj_conv, self.proj_bn = nn.Conv1d(d, d, 1), nn.BatchNorm1d(d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.neurons == "membrane":
            x = spikes(self.prev_bn(x), 0.5)
        y = self.proj_bn(self.proj_conv(self.lmu(x)))
        return spikes(y) if self.neurons == "spiking" else y


class Attention(nn.Module):
    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads, self.pre_bn = heads, nn.BatchNorm1d(d)
        for n in "qkv":
            setattr(self, f"{n}_conv", nn.Conv1d(d, d, 1, bias=False))
            setattr(self, f"{n}_bn", nn.BatchNorm1d(d))
        self.proj_conv, self.proj_bn = nn.Conv1d(d, d, 1), nn.BatchNorm1d(d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = spikes(self.pre_bn(x))
        q, k, v = (spikes(getattr(self, f"{n}_bn")(getattr(self, f"{n}_conv")(x))).unflatten(1, (self.heads, -1)) for n in "qkv")
        y = 0.25 * torch.einsum("bhwn,bhws,bhvs->bhvn", q, k, v)
        return self.proj_bn(self.proj_conv(spikes(y.flatten(1, 2), 0.5)))


class Channels(nn.Module):
    def __init__(self, d: int, ratio: int, neurons: str):
        super().__init__()
        self.neurons, wide = neurons, ratio * d
        self.fc1_conv, self.fc2_conv = nn.Conv1d(d, wide, 1), nn.Conv1d(wide, d, 1)
        self.fc1_bn, self.fc2_bn = nn.BatchNorm1d(d if neurons == "membrane" else wide), nn.BatchNorm1d(wide if neurons == "membrane" else d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.neurons == "membrane":
            return self.fc2_conv(spikes(self.fc2_bn(self.fc1_conv(spikes(self.fc1_bn(x))))))
        first, last = (F.gelu, F.relu) if self.neurons == "relu" else (spikes, spikes)
        return last(self.fc2_bn(self.fc2_conv(first(self.fc1_bn(self.fc1_conv(x))))))


class Embedding(nn.Module):
    def __init__(self, mel: int, d: int, neurons: str):
        super().__init__()
        self.neurons = neurons
        self.rpe_bn: Any = nn.BatchNorm1d(d) if neurons == "spiking" else None
        convs = [nn.Conv1d(mel if i == 0 else d, d, 3, padding=1, bias=False) for i in range(4)]
        if neurons == "relu":
            self.conv_layers = nn.Sequential(*(nn.Sequential(c, nn.ReLU(), nn.Identity(), nn.BatchNorm1d(d)) for c in convs))
        for i, c in enumerate(convs) if neurons != "relu" else ():
            setattr(self, f"proj_conv{i or ''}", c)
            setattr(self, f"proj_bn{i or ''}", nn.BatchNorm1d(d))
        self.rpe_conv = nn.Conv1d(d, d, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.neurons == "relu":
            x = self.conv_layers(x)
            return x + self.rpe_conv(x)
        for i in range(4):
            x = getattr(self, f"proj_conv{i or ''}")(x)
            if i < 3 or self.neurons == "spiking":
                x = spikes(getattr(self, f"proj_bn{i or ''}")(x))
        return x + (spikes(self.rpe_bn(self.rpe_conv(x))) if self.neurons == "spiking" else self.rpe_conv(spikes(self.get_submodule("proj_bn3")(x))))


class Block(nn.Module):
    def __init__(self, attn: nn.Module, mlp: nn.Module):
        super().__init__()
        self.attn, self.mlp = attn, mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class Peer(nn.Module):
    def __init__(self, variant: str, depth: int = 1, *, mel: int, d: int, order: int, theta: float, classes: int, heads: int, ratio: int):
        super().__init__()
        n = NEURONS[variant]
        self.patch_embed = Embedding(mel, d, n)
        attn = (lambda: Attention(d, heads)) if variant == "spiking_attention" else (lambda: Mixer(d, order, theta, n))
        self.block = nn.ModuleList(Block(attn(), Channels(d, ratio, n)) for _ in range(depth))
        if n == "membrane":
            self.head_bn = nn.BatchNorm1d(d)
        self.head = nn.Linear(d, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x.mT)
        for b in self.block:
            x = b(x)
        return (spikes(self.head_bn(x)) if hasattr(self, "head_bn") else x).mT

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x)).mean(1)


@pytest.mark.parametrize("variant", NEURONS)
@pytest.mark.parametrize(("batch", "T", "train"), [(1, 1, False), (3, 21, False), (3, 13, True)])
def test_equations(variant: str, batch: int, T: int, train: bool):
    ours = archdsl.load(SPEC).build(variant, dtype=F64, depth=2, **SIZES)
    peer = Peer(variant, 2, **SIZES).double()
    x = torch.randn(batch, T, 5, dtype=F64, generator=torch.Generator().manual_seed(T))
    if variant == "lmuformer":
        prove(ours, peer, x, source="official", call=lambda m, v: m(v), train=train)
        return
    randomise(peer)
    archdsl.import_weights(ours, peer.state_dict(), source="official")
    results = []
    for m in (ours.train(train), peer.train(train)):
        leaf = x.clone().requires_grad_()
        y = m(leaf)
        (y * torch.arange(1, 1 + y.numel(), dtype=F64).view(y.shape)).sum().backward()
        results.append((y, leaf.grad))
    (y, dx), (want, theirs) = results
    assert relative(y, want) <= EXACT and relative(dx, theirs) <= EXACT and (T == 1 or theirs.abs().max() > 0)
    holder = archdsl.load(SPEC).build(variant, dtype=F64, depth=2, **SIZES)
    largest = max(g.abs().max() for p in peer.parameters() if (g := p.grad) is not None)
    state = {**peer.state_dict(), **{k: p.grad for k, p in peer.named_parameters()}}
    archdsl.import_weights(holder, state, source="official")
    for (name, p), q in zip(ours.named_parameters(), holder.parameters()):
        assert (p.grad - q).abs().max() <= EXACT * largest, name


# ---------------------------------------------------------------- the memory
LEGENDRE = archdsl.loads("""use std.memories { LegendreMemory }
model Memory(order: int = 16, theta: float = 128)(u: [B, T]) -> m: [B, T, order] stream T { return LegendreMemory(order, theta)(u) as memory }
""", "memory.arch")


@pytest.mark.parametrize(("order", "theta"), [(1, 1), (6, 9.5), (256, 128), (512, 128)])
def test_system(order: int, theta: float):
    signal = pytest.importorskip("scipy.signal")
    import numpy as np

    i = np.arange(order, dtype=np.float64)
    continuous = (2 * i[:, None] + 1) / theta * np.where(i[:, None] < i, -1.0, (-1.0) ** (i[:, None] - i + 1))
    drive = ((2 * i + 1) / theta * (-1.0) ** i)[:, None]
    a, b, *_ = signal.cont2discrete((continuous, drive, np.eye(order), np.zeros((order, 1))), 1.0, "zoh")
    for dtype, within in ((F64, 1e-10), (torch.float32, 1e-6)):
        ((_, held),) = LEGENDRE.build(dtype=dtype, order=order, theta=theta).named_buffers()
        assert (held[:order, :order].double() - torch.tensor(a)).abs().max() <= within
        assert (held[:order, order].double() - torch.tensor(b[:, 0])).abs().max() <= within
    assert not LEGENDRE.build(order=order, theta=theta).state_dict()


@pytest.mark.parametrize(("dtype", "within"), [(F64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("order", "T"), [(256, 128), (16, 1), (16, 65), (5, 8192)])
def test_fft_equals_chunks(order: int, T: int, dtype: torch.dtype, within: float):
    u = torch.rand(2, T, dtype=dtype, generator=torch.Generator().manual_seed(1))
    got = LEGENDRE.build(dtype=dtype, order=order)(u)
    assert relative(got, remembered(u.double(), order, 128).mT) <= within


def test_long_and_steep():
    """8,192 positions, inputs that jump by a thousand: finite, and the float64 steps."""
    g = torch.Generator().manual_seed(2)
    u = 1000 * (torch.rand(1, 8192, generator=g, dtype=F64) > 0.99).to(F64) * torch.randn(1, 8192, generator=g, dtype=F64)
    a, b = system(64, 128)
    m, want = torch.zeros(1, 64, dtype=F64), []
    for t in range(8192):
        m = m @ a.mT + u[:, t, None] * b
        want.append(m)
    for dtype, within in ((F64, 1e-10), (torch.float32, 1e-4)):
        got = LEGENDRE.build(dtype=dtype, order=64)(u.to(dtype))
        assert got.isfinite().all() and relative(got, torch.stack(want, 1)) <= within


@pytest.mark.parametrize("order", [16, 32])
def test_it_remembers_theta_positions(order: int):
    """u(t - r theta) = sum of P_i(2 r - 1) m_i: a sine of period 64, up to 112 positions back."""
    t = torch.arange(1000, dtype=F64)
    u = torch.sin(2 * math.pi * t / 64)[None]
    m = LEGENDRE.build(dtype=F64, order=order)(u)[0]
    for delay in range(8, 113, 8):
        z = 2 * (delay + 0.5) / 128 - 1
        polynomials = [1.0, z]
        for k in range(1, order - 1):
            polynomials.append(((2 * k + 1) * z * polynomials[k] - k * polynomials[k - 1]) / (k + 1))
        told = m[300:] @ torch.tensor(polynomials, dtype=F64)
        true = u[0, 300 - delay:1000 - delay]
        assert (told - true).square().mean().sqrt() <= 0.01 * true.square().mean().sqrt()


# ---------------------------------------------------------------- spikes
@pytest.mark.parametrize("variant", [v for v in NEURONS if v != "lmuformer"])
def test_spikes(variant: str):
    """All of them are 0 or 1, some are each; their rates can be asked for, and every weight gets a gradient."""
    ours = archdsl.load(SPEC).build(variant, dtype=F64, emit="**.spikes", **SIZES)
    randomise(ours)
    y, found = ours(2 * torch.randn(4, 40, 5, dtype=F64))
    assert len(found) == {"spiking": 5 + 4 + 2, "spiking_lmuformer": 4 + 4 + 2 + 1, "spiking_attention": 4 + 5 + 2 + 1}[variant]
    rates = {k: v.mean().item() for k, v in found.items()}
    assert all(set(v.unique().tolist()) <= {0.0, 1.0} for v in found.values()) and sum(0 < r < 1 for r in rates.values()) > len(rates) / 2
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.parameters())
    assert ours.get_parameter("features.embed.layers.0.conv.weight").grad.any()


# ---------------------------------------------------------------- frame by frame
@pytest.mark.parametrize("variant", [v for v in NEURONS if v != "spiking_attention"])
def test_five_frames_late(variant: str):
    """Sounds of different lengths in one batch, a frame at a time, then whatever comes: what all frames at once give, for each sound alone."""
    models = archdsl.load(SPEC).models
    listen = models["LMUFormer.listen"].build(variant, dtype=F64, form="step", depth=2, **SIZES).eval()
    peer = Peer(variant, 2, **SIZES).double().eval()
    randomise(peer)
    whole = models["LMUFormer.classify"].build(variant, dtype=F64, depth=2, **SIZES).eval()
    archdsl.import_weights(whole, peer.state_dict(), source="official")
    listen.load_state_dict(whole.state_dict())
    assert listen.delay == 5
    lengths = [1, 12, 7]
    sound = torch.randn(3, 17, 5, dtype=F64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        state, ys = listen.init_state(3), []
        for t in range(17):
            if t in lengths:
                state = listen.end_state(state, [lengths.index(t)])
            y, state = listen(sound[:, t:t + 1], state)
            ys.append(y)
        got = torch.cat(ys, 1)
        for i, n in enumerate(lengths):
            alone = sound[i:i + 1, :n]
            running = peer.features(alone).cumsum(1) / torch.arange(1, n + 1)[:, None]
            assert relative(got[i:i + 1, 5:5 + n], peer.head(running)) <= EXACT
            assert relative(got[i, 4 + n], whole(alone)[0]) <= EXACT


@pytest.mark.parametrize("variant", [v for v in NEURONS if v != "spiking_attention"])
def test_forms(variant: str):
    """In parts of any lengths, and at once."""
    spec = archdsl.load(SPEC).models["LMUFormer.listen"]
    whole, extend = (spec.build(variant, dtype=F64, form=form, **SIZES).eval() for form in ("parallel", "extend"))
    randomise(whole)
    extend.load_state_dict(whole.state_dict())
    sound = torch.randn(2, 70, 5, dtype=F64, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        for lengths in ([70], [1, 3, 66], [40, 2, 1, 27]):
            state, ys = extend.init_state(2), []
            for part in sound.split(lengths, 1):
                y, state = extend(part, state)
                ys.append(y)
            y, state = extend.flush(state)
            assert relative(torch.cat([*ys, y], 1)[:, 5:], whole(sound)) <= EXACT
    few, many = (spec.cost(variant, at={"T": T}, form="step").state_bytes for T in (10, 10_000))
    assert few == many


def test_whole_sounds_have_no_steps():
    """A mean over all frames is there when all of them are."""
    with pytest.raises(archdsl.ArchError, match="A0501"):
        archdsl.load(SPEC).build("lmuformer", form="step", **SIZES)


@pytest.mark.parametrize("variant", ["lmuformer", "spiking_lmuformer"])
def test_learns_keywords(variant: str):
    """Which of two tones comes first, with noise: the order has to be remembered."""
    g = torch.Generator().manual_seed(0)

    def sounds(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        label = torch.randint(0, 2, (n,), generator=g)
        x = 0.3 * torch.randn(n, 24, 6, generator=g)
        for i in range(n):
            first, second = (1, 4) if label[i] else (4, 1)
            x[i, 2:9, first] += 1.5
            x[i, 14:21, second] += 1.5
        return x, label

    model = archdsl.load(SPEC).build(variant, **{**SIZES, "mel": 6, "d": 16, "order": 16, "theta": 24, "classes": 2}, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(40):
        x, label = sounds(48)
        optimiser.zero_grad()
        F.cross_entropy(model(x), label).backward()
        optimiser.step()
    x, label = sounds(300)
    with torch.no_grad():
        assert (model.eval()(x).argmax(-1) == label).float().mean() > 0.95
