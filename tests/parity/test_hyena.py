"""Hyena against its equations in plain torch, weights under the names of the authors' code; its forms; its filters."""
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archdsl
from tests.parity.proof import EXACT, prove, randomise, relative
from tests.streaming.forms import agree, close, inputs_of, shaken

F64 = torch.float64
TINY: dict[str, Any] = {"vocab": 61, "length": 13, "d": 10, "depth": 2, "bands": 3, "filter": 7}


class Sin(nn.Module):
    def __init__(self, width: int, rate: float):
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, width), rate))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x * self.freq)


class Places(nn.Module):
    """Sampled cosines and sines, by complex exponentials."""

    def __init__(self, bands: int, length: int):
        super().__init__()
        w = 2 * math.pi * torch.arange(length, dtype=F64) / length
        f = torch.linspace(1e-4, bands - 1, bands, dtype=F64)
        waves = torch.polar(torch.ones(length, bands, dtype=F64), -w[:, None] * f)
        self.z = nn.Parameter(torch.cat([torch.linspace(0, 1, length, dtype=F64)[:, None], waves.real, waves.imag], 1)[None])


class Filter(nn.Module):
    def __init__(self, channels: int, length: int, bands: int, hidden: int, inner: int, rate: float, window: bool):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.pos_emb = Places(bands, length)
        sine = Sin(hidden, rate)
        maps = [nn.Linear(2 * bands + 1, hidden), *(nn.Linear(hidden, hidden) for _ in range(inner))]
        self.implicit_filter = nn.Sequential(*(m for pair in maps for m in (pair, sine)), nn.Linear(hidden, channels, bias=False))
        t = torch.linspace(0, 1, length, dtype=F64)
        rates = torch.linspace(math.log(0.01) / 1.5, math.log(0.01) / 0.3, channels, dtype=F64)
        self.register_buffer("window", torch.exp(t[:, None] * rates) if window else torch.ones(1), persistent=False)

    def forward(self) -> torch.Tensor:
        return self.implicit_filter(self.pos_emb.z[0]) * self.window


def convolved(v: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Position by position; in float32 by FFT, whose round-off is what the authors' code has as well."""
    n = v.shape[1]
    if v.dtype == torch.float32:
        return torch.fft.irfft(torch.fft.rfft(v, 2 * n, 1) * torch.fft.rfft(taps, 2 * n, 0), 2 * n, 1)[:, :n]
    return torch.stack([torch.stack([taps[t - j] * v[:, j] for j in range(t + 1)]).sum(0) for t in range(n)], 1)


class Operator(nn.Module):
    def __init__(self, d: int, length: int, order: int, kernel: int, **filters: Any):
        super().__init__()
        self.order = order
        self.in_proj, self.out_proj = nn.Linear(d, (order + 1) * d), nn.Linear(d, d)
        self.short_filter = nn.Conv1d((order + 1) * d, (order + 1) * d, kernel, groups=(order + 1) * d, padding=kernel - 1)
        self.filter_fn = Filter((order - 1) * d, length, **filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, d = x.shape[1], x.shape[2]
        *gates, v = self.short_filter(self.in_proj(x).mT)[..., :n].mT.split(d, -1)
        taps = self.filter_fn().view(-1, d, self.order - 1)
        own = self.filter_fn.bias.view(d, self.order - 1)
        for i in range(self.order - 1):
            v = v * gates[self.order - 1 - i]
            v = own[:, i] * v + convolved(v, taps[:n, :, i])
        return self.out_proj(v * gates[0])


class Mlp(nn.Module):
    def __init__(self, d: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, hidden), nn.Linear(hidden, d)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Peer(nn.Module):
    """In the authors' layout."""

    def __init__(self, vocab: int, length: int, d: int, depth: int, bands: int, filter: int, order: int, kernel: int, inner: int, window: bool):
        super().__init__()
        words = nn.Module()
        words.word_embeddings = nn.Embedding(-(-vocab // 8) * 8, d)
        layers = []
        for _ in range(depth):
            layer = nn.Module()
            layer.mixer = Operator(d, length, order, kernel, bands=bands, hidden=filter, inner=inner, rate=14.0, window=window)
            layer.norm1, layer.norm2, layer.mlp = nn.LayerNorm(d), nn.LayerNorm(d), Mlp(d, 2 * d)
            layers.append(layer)
        self.backbone = nn.Module()
        self.backbone.embeddings, self.backbone.layers, self.backbone.ln_f = words, nn.ModuleList(layers), nn.LayerNorm(d)
        self.lm_head = nn.Linear(d, words.word_embeddings.num_embeddings, bias=False)
        self.lm_head.weight = words.word_embeddings.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        whole: Any = self.backbone
        x = whole.embeddings.word_embeddings(tokens)
        for layer in whole.layers:
            x = x + layer.mixer(layer.norm1(x))
            x = x + layer.mlp(layer.norm2(x))
        return self.lm_head(whole.ln_f(x))


@pytest.mark.parametrize(("order", "kernel", "inner", "window", "shape"), [
    (2, 3, 2, True, (2, 9)), (3, 4, 1, True, (1, 13)), (4, 3, 4, False, (3, 1)),
])
def test_equations(order: int, kernel: int, inner: int, window: bool, shape: tuple[int, int]):
    options = {"order": order, "kernel": kernel, "inner": inner, "window": window}
    ours = archdsl.load("hyena").build(dtype=F64, **TINY, **options)
    peer: Any = Peer(**TINY, **options).double()
    drawn = {k: v for k, v in ours.state_dict().items() if k.endswith("positions.weight")}
    assert len(drawn) == 2 and all((v - peer.backbone.layers[0].mixer.filter_fn.pos_emb.z[0]).abs().max() <= 1e-14 for v in drawn.values())
    tokens = torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))
    prove(ours, peer, tokens, source="safari", call=lambda m, x: m(x))


def test_tables_in_weights_are_ignored():
    """Files of the authors' code hold places and rates of decay as well."""
    spec = archdsl.load("hyena")
    ours = spec.build(dtype=F64, **TINY)
    peer = Peer(**TINY, order=2, kernel=3, inner=2, window=True).double()
    randomise(peer)
    more = {f"backbone.layers.{i}.mixer.filter_fn.{n}": torch.zeros(1, 13, 1) for i in range(2) for n in ("pos_emb.t", "modulation.deltas")}
    report = archdsl.import_weights(ours, {**peer.state_dict(), **more}, source="safari")
    assert len(report.loaded) == len(ours.state_dict())
    back = archdsl.export_weights(ours, source="safari")
    assert all(torch.equal(back[k], v) for k, v in peer.state_dict().items()) and set(back) == set(peer.state_dict())


@pytest.mark.parametrize("variant", ["tiny", "tiny_3"])
def test_forms(variant: str):
    spec = archdsl.load("hyena")
    for T, batch, room in ((48, 2, None), (23, 3, 31), (1, 1, None)):
        agree(spec, variant, T, batch, length=room)
    agree(spec, variant, T=40, dtype=torch.float32, within=1e-4)


def test_packed_is_separate():
    spec, lengths = archdsl.load("hyena"), [4, 1, 19]
    whole, packed = shaken(spec.build("tiny_3", dtype=F64)).eval(), spec.build("tiny_3", dtype=F64, form="packed").eval()
    packed.load_state_dict(whole.state_dict())
    x = torch.randint(0, 61, (2, sum(lengths)))
    assert relative(packed(x, torch.tensor(lengths)), torch.cat([whole(part) for part in x.split(lengths, 1)], 1)) <= EXACT


def test_rows_begin_where_they_like():
    spec = archdsl.load("hyena")
    model = shaken(spec.build("tiny", form="extend", dtype=F64)).eval()
    x = inputs_of(spec, spec.elaborate("tiny"), 9, 3, F64)[0]
    with torch.no_grad():
        alone, _ = model(x[1:2, 4:], model.init_state(1, 16))
        _, state = model(x[:, :4], model.init_state(3, 16))
        together, _ = model(x[:, 4:], model.reset_state(state, [1]))
        first, _ = model(x[:1], model.init_state(1, 16))
    close(together[1:2], alone, 1e-10)
    close(together[:1], first[:, 4:], 1e-10)


def test_text():
    """Prompts of different lengths together give what each gives alone."""
    model = shaken(archdsl.load("hyena").build("tiny", dtype=F64)).eval()
    prompts = [[5, 9, 30, 2, 17], [41], [8, 8, 1]]
    for prompt, got in zip(prompts, archdsl.generate(model, prompts, max_new_tokens=9)):
        assert got.tolist() == archdsl.generate(model, [prompt], max_new_tokens=9)[0].tolist()


def test_state():
    """The inputs of the long convolutions, for as many positions as there is room, and of the short ones; no more positions than either holds."""
    spec = archdsl.load("hyena")
    model: Any = spec.build("tiny_3", form="step")
    for room in (1, 20, 48):
        state = model.init_state(2, room)
        assert sum(v.numel() for v in state.values() if v.is_floating_point()) == 2 * 2 * (2 * room * 24 + 3 * 4 * 24)
        cost = spec.cost("tiny_3", {"B": 2, "T": room}, "step")
        assert cost.state_bytes == sum(v.numel() * v.element_size() for v in state.values())
    state, one = model.init_state(1, 2), torch.zeros(1, 1, dtype=torch.int64)
    for _ in range(2):
        _, state = model(one, state)
    with pytest.raises(ValueError, match="room for 2 positions"):
        model(one, state)
    with pytest.raises(ValueError, match="48 positions at most"):
        model.init_state(1, 49)
    with pytest.raises(ValueError, match="the filters end at 48 positions"):
        spec.build("tiny")(torch.zeros(1, 49, dtype=torch.int64))
    with pytest.raises(archdsl.ArchError, match="order is 1"):
        spec.build("tiny", order=1)


def test_exports():
    spec = archdsl.load("hyena")
    step = shaken(spec.build("tiny", form="step", dtype=F64, depth=1)).eval()
    x = torch.randint(0, 61, (2, 1))
    with torch.no_grad():
        state = step.init_state(2, 8)
        y, after = step(x, state)
        again, new = torch.export.export(step, (x, state)).module()(x, state)
        close(again, y, 1e-10)
        for k in after:
            close(new[k], after[k], 1e-10)


def test_sixteen_bits():
    """Filters and FFTs stay in float32."""
    spec = archdsl.load("hyena")
    exact = shaken(spec.build("tiny", dtype=F64)).eval()
    half = spec.build("tiny", dtype=torch.bfloat16).eval()
    half.load_state_dict(exact.state_dict())
    x = torch.randint(0, 61, (2, 48))
    with torch.no_grad():
        y = half(x)
    assert y.dtype == torch.bfloat16 and relative(y, exact(x)) <= 5e-2
