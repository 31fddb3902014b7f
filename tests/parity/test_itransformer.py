"""iTransformer by its equations, under the names of the official files: marks as series, both kinds of attention, the normalisation bracket."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import archdsl
from archdsl.diagnostics.model import ArchError
from tests.parity.proof import EXACT, prove, randomise, relative

SPEC = "specs/timeseries/itransformer.arch"
F64 = torch.float64
SIZES = {"lookback": 11, "horizon": 5, "depth": 2, "d": 24, "hidden": 20, "heads": 3}


def table(*shape: int, seed: int = 0) -> torch.Tensor:
    """Series of different means and spreads."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=g, dtype=F64)
    return x * (0.5 + torch.rand(shape[-1], generator=g, dtype=F64)) + 3 * torch.randn(shape[-1], generator=g, dtype=F64)


def ours(**changes):
    return archdsl.load(SPEC).build(dtype=F64, **{**SIZES, **changes})


# ---------------------------------------------------------------- the equations
class Layer(nn.Module):
    """norm2(u + W₂ gelu(W₁ u)), u = norm1(x + attention(x)); the maps are convolutions of one tap."""

    def __init__(self, d: int, hidden: int, heads: int, attend, act):
        super().__init__()
        self.attention = nn.ModuleDict({f"{name}_projection": nn.Linear(d, d) for name in ("query", "key", "value", "out")})
        self.conv1, self.conv2 = nn.Conv1d(d, hidden, 1), nn.Conv1d(hidden, d, 1)
        self.norm1, self.norm2, self.heads, self.attend = nn.LayerNorm(d), nn.LayerNorm(d), heads, attend
        self.act = {"gelu": F.gelu, "relu": F.relu}[act]

    def forward(self, x):
        query, key, value, out = self.attention.values()
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (query, key, value))
        x = self.norm1(x + out(self.attend(q, k, v).transpose(1, 2).flatten(2)))
        return self.norm2(x + self.conv2(self.act(self.conv1(x.mT))).mT)


def full(q, k, v):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


def flow(q, k, v, e=1e-6):
    """The fact sheet's sums, for each query l and key s."""
    f, p, n, m = q.sigmoid(), k.sigmoid(), q.shape[-2], k.shape[-2]
    i = 1 / ((f + e) * (p.sum(-2, keepdim=True) + e)).sum(-1)
    o = 1 / ((p + e) * (f.sum(-2, keepdim=True) + e)).sum(-1)
    at_query = ((f + e) * ((o[..., None] * p).sum(-2, keepdim=True) + e)).sum(-1)
    at_key = ((p + e) * ((i[..., None] * f).sum(-2, keepdim=True) + e)).sum(-1)
    pairs = torch.einsum("bhld,bhsd->bhls", f, p) * m * at_key.softmax(-1)[..., None, :]
    return torch.einsum("bhls,bhsd->bhld", pairs, v) * (i * torch.sigmoid(at_query * n / m))[..., None]


class Peer(nn.Module):
    """Under the parameter names of the official files. `head`: theirs is `projector`, the Time-Series-Library's `projection`."""

    def __init__(self, kinds, lookback, horizon, d, hidden, heads, standardised=True, head="projector", act="gelu"):
        super().__init__()
        embedding, layers = nn.Linear(lookback, d), nn.ModuleList(Layer(d, hidden, heads, kind, act) for kind in kinds)
        norm, projection = nn.LayerNorm(d), nn.Linear(d, horizon)
        self.enc_embedding = nn.ModuleDict({"value_embedding": embedding})
        self.encoder = nn.ModuleDict({"attn_layers": layers, "norm": norm})
        self.add_module(head, projection)
        self.parts, self.standardised = (embedding, layers, norm, projection), standardised  # a tuple adds no names

    def forward(self, x, marks=None):
        embedding, layers, norm, projection = self.parts
        mean, spread = 0.0, 1.0
        if self.standardised:
            mean = x.mean(1, keepdim=True).detach()
            spread = ((x - mean - (x - mean).mean(1, keepdim=True)).square().mean(1, keepdim=True) + 1e-5).sqrt()
        u = (x - mean) / spread
        u = embedding(u.mT if marks is None else torch.cat((u.mT, marks.mT), 1))
        for layer in layers:
            u = layer(u)
        return projection(norm(u))[:, : x.shape[-1]].mT * spread + mean


def peer(*kinds, **changes):
    sizes = {k: v for k, v in {**SIZES, **changes}.items() if k not in ("depth", "marks")}
    return Peer(kinds or (full, full), **sizes).double()


# ---------------------------------------------------------------- parity
@pytest.mark.parametrize(("shape", "changes"), [
    ((2, 11, 7), {}), ((1, 11, 1), {"horizon": 64}), ((3, 11, 4), {"standardised": False}), ((2, 11, 5), {"act": "relu"}),
    ((2, 1, 3), {"lookback": 1, "heads": 4, "standardised": False}), ((2, 30, 5), {"lookback": 30, "horizon": 1, "hidden": 48}),
])
@pytest.mark.parametrize("kind", ["full", "flow"])
def test_without_marks(kind, shape, changes):
    mine = ours(marks=None, **{"layers.*.attention": kind}, **changes)
    prove(mine, peer(*[{"full": full, "flow": flow}[kind]] * 2, **changes), table(*shape), source="official", call=lambda m, x: m(x))


def test_the_factor_of_sparse_attention():
    """5 ⌈ln 5⌉ keys and queries of 5 are all of them, whichever are drawn: then it is full attention, its heads read as the official code does."""
    def mixed(q, k, v):
        y = full(q, k, v)
        return y.reshape(len(y), y.shape[2], *y.shape[1::2]).transpose(1, 2)

    knobs = {"marks": None, "layers.*.attention": "sparse"}
    prove(ours(**knobs, factor=5), peer(mixed, mixed), table(2, 11, 5), source="official", call=lambda m, x: m(x))
    few, all_of_them = (ours(**knobs, factor=n, seed=0).eval() for n in (1, 5))
    assert relative(few(table(2, 11, 5)), all_of_them(table(2, 11, 5))) > 1e-3


@pytest.mark.parametrize("standardised", [True, False])
@pytest.mark.parametrize("kinds", [(full, full), (flow, full), (flow, flow)])
def test_with_marks(kinds, standardised):
    """Marks take part in attention, are not standardised, and have no forecast."""
    changes = {f"layers.{i}.attention": kind.__name__ for i, kind in enumerate(kinds)}
    mine, theirs = ours(standardised=standardised, **changes).eval(), peer(*kinds, standardised=standardised).eval()
    randomise(theirs)
    archdsl.import_weights(mine, theirs.state_dict(), source="official")
    x, marks = table(2, 11, 6).requires_grad_(), (table(2, 11, 3, seed=1) / 10).requires_grad_()
    got, want = mine(x, marks), theirs(x, marks)
    probe = torch.randn(want.shape, dtype=F64)
    assert got.shape == (2, 5, 6) and relative(got, want) <= EXACT and relative(got, theirs(x)) > 1e-3
    leaves = [x, marks, *mine.parameters()]
    given = torch.autograd.grad((got * probe).sum(), leaves)
    theirs_grads = torch.autograd.grad((want * probe).sum(), [x, marks, *theirs.parameters()])
    for a, b in zip(given[:2], theirs_grads[:2]):
        assert b.abs().max() > 0 and relative(a, b) <= EXACT
    holder = ours(standardised=standardised, **changes)
    names = [n for n, _ in theirs.named_parameters()]
    archdsl.import_weights(holder, dict(zip(names, theirs_grads[2:])), source="official")
    largest = max(g.abs().max() for g in theirs_grads[2:])
    for (name, expected), g in zip(holder.named_parameters(), given[2:]):
        assert (g - expected).abs().max() <= EXACT * largest, name


def test_the_names_of_the_time_series_library():
    prove(ours(marks=None), peer(head="projection"), table(2, 11, 4), source="tslib", call=lambda m, x: m(x))


def test_the_names_of_iinformer_and_ireformer():
    """Each kind of layer under its names; what one layer computes is proven in test_sparse_attention.py."""
    model = ours(**{"layers.0.attention": "sparse", "layers.1.attention": "hashed"})
    weights = archdsl.export_weights(model, source="official")
    at = "encoder.attn_layers"
    assert {k.rsplit(".", 1)[0] for k in weights if ".attention." in k} == {
        *(f"{at}.0.attention.{n}_projection" for n in ("query", "key", "value", "out")),
        *(f"{at}.1.attention.attn.{n}" for n in ("toqk", "tov", "to_out"))}
    assert len(archdsl.import_weights(model, weights, source="official").loaded) == len(weights)
    assert model(table(2, 11, 6), table(2, 11, 3, seed=1)).isfinite().all()


def test_no_gradient_through_the_mean():
    """With it, a constant added to a series would not change the loss of differences; without it, it does, as in the official code."""
    mine, theirs = ours(marks=None).eval(), peer().eval()
    randomise(theirs)
    archdsl.import_weights(mine, theirs.state_dict(), source="official")
    x = table(1, 11, 3).requires_grad_()
    y = mine(x)
    g = torch.autograd.grad(y.sum(), x)[0]
    assert relative(g, torch.autograd.grad(theirs(x).sum(), x)[0]) <= EXACT
    assert (g.sum(1) - y.shape[1]).abs().max() > 0.1, "a shift of the input shifts the forecast by as much, of which the gradient does not know"


@pytest.mark.parametrize(("variant", "depth", "d", "hidden"), [
    ("ecl", 3, 512, 512), ("traffic", 4, 512, 512), ("weather", 3, 512, 512), ("solar", 2, 512, 512), ("etth1", 2, 256, 256),
    ("etth1_long", 2, 512, 512), ("etth2", 2, 128, 128), ("ettm1", 2, 128, 128), ("ettm2", 2, 128, 128), ("exchange", 2, 128, 128),
    ("pems03", 4, 512, 512), ("pems04", 4, 1024, 1024), ("pems07", 2, 512, 512), ("pems07_long", 4, 512, 512), ("pems08", 2, 512, 512),
    ("pems08_long", 4, 512, 512), ("flow_ecl", 2, 512, 2048), ("flow_traffic", 2, 512, 2048), ("flow_weather", 2, 512, 2048),
    ("informer_ecl", 2, 512, 2048), ("informer_traffic", 2, 512, 2048), ("informer_weather", 2, 512, 2048), ("reformer_ecl", 2, 512, 2048),
    ("reformer_traffic", 2, 512, 2048), ("reformer_weather", 2, 512, 2048),
    ("partial_ecl", 2, 32, 64), ("partial_traffic", 2, 32, 64), ("partial_solar", 2, 32, 64),
])
def test_counts(variant, depth, d, hidden):
    """The fact sheet's formula, at the horizons of each data set; multiplications are counted by hand for N series and C marks."""
    spec, pems = archdsl.load(SPEC), variant.startswith("pems")
    for s in (12, 24, 48, 96) if pems else (96, 192, 336, 720):
        cost = spec.cost(variant, horizon=s)
        maps = 3 * d * d + d if variant.startswith("reformer") else 4 * (d * d + d)
        assert cost.params == 96 * d + d + depth * (maps + 2 * d * hidden + hidden + d + 4 * d) + 2 * d + d * s + s
    n = 5 if pems or variant.endswith("solar") else 9
    at = {"N": 5} | ({} if n == 5 else {"C": 4})
    pairs = depth * n * (2 * d * d // 8 + 4 * d) if variant.startswith("flow") else depth * 2 * n * n * d  # k v and q (k v); four flows of n × d
    if variant.startswith(("informer", "reformer")):
        return  # the multiplications of drawn and sorted positions: tests/parity/test_sparse_attention.py
    assert spec.cost(variant, at, horizon=96).macs == n * (96 * d + depth * (4 * d * d + 2 * d * hidden) + 96 * d) + pairs


# ---------------------------------------------------------------- what the paper says of it
@pytest.mark.parametrize("kind", ["full", "flow"])
def test_series_have_no_order(kind):
    mine = ours(**{"layers.*.attention": kind}).eval()
    x, marks, order = table(2, 11, 8), table(2, 11, 4, seed=1), torch.randperm(8, generator=torch.Generator().manual_seed(2))
    assert relative(mine(x[..., order], marks), mine(x, marks)[..., order]) <= 1e-12
    assert relative(mine(x[..., order], marks), mine(x, marks)) > 1e-3
    assert relative(mine(x, marks.flip(-1)), mine(x, marks)) <= 1e-12


def test_scale_and_shift():
    """a X + b with a > 0, each series its own, gives a Y + b; eps keeps it from being exact."""
    mine, plain = ours(marks=None).eval(), ours(marks=None, standardised=False).eval()
    x, a, b = table(2, 11, 6), torch.linspace(0.5, 4, 6, dtype=F64), torch.linspace(-9, 5, 6, dtype=F64)
    assert relative(mine(a * x + b), a * mine(x) + b) <= 1e-4
    assert relative(plain(a * x + b), a * plain(x) + b) > 1e-2


def test_one_set_of_weights_for_any_series_and_marks():
    with_marks, without = ours().eval(), ours(marks=None).eval()
    without.load_state_dict(with_marks.state_dict())
    for n in (1, 7, 21):
        x = table(2, 11, n)
        assert with_marks(x, table(2, 11, 4, seed=1)).shape == without(x).shape == (2, 5, n)
        assert relative(with_marks(x, table(2, 11, 4, seed=1)), without(x)) > 1e-4
    alone = without(table(1, 11, 1))
    assert relative(alone, without(table(1, 11, 1).repeat(1, 1, 2))[..., :1]) <= 1e-12, "a copy of the only series adds nothing"


@pytest.mark.parametrize("kind", ["full", "flow"])
def test_the_inversion_is_one_word(kind):
    """The encoder inside is a plain one: applied to the table itself, its positions are steps of time."""
    with open(SPEC, encoding="utf-8") as f:
        blocks = f.read().split("/// Forecasts")[0].replace("} = full", f"}} = {kind}")
    encoder = "Encoder(depth = 2, d = 24, hidden = 20, heads = 3, out = 9, drop = 0) as _"
    plain = archdsl.loads(blocks + f"model Plain()(x: [B, T, 9]) -> y: [B, T, 9] {{ return ({encoder})(x) }}").build(dtype=F64, seed=1)
    turned = archdsl.loads(blocks + f"model Turned()(x: [B, 9, N]) -> y: [B, 9, N] {{ return Inverted({encoder})(x) }}").build(dtype=F64, seed=1)
    assert list(plain.state_dict()) == list(turned.state_dict())
    x = table(2, 9, 5)
    assert torch.equal(turned(x), plain(x.mT).mT)
    if kind == "full":
        assert relative(plain(x.mT), _torchs_encoder(plain.state_dict(), x.mT)) <= EXACT


def _torchs_encoder(w, x):
    layer = nn.TransformerEncoderLayer(24, 3, 20, dropout=0, activation="gelu", batch_first=True)
    model = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(24), enable_nested_tensor=False).double()
    state = {f"norm.{n}": w[f"norm.{n}"] for n in ("weight", "bias")}
    for i in range(2):
        for n in ("weight", "bias"):
            at = f"layers.{i}."
            state[f"{at}self_attn.in_proj_{n}"] = torch.cat([w[f"{at}attn.{p}.{n}"] for p in "qkv"])
            for theirs, mine in (("self_attn.out_proj", "attn.out"), ("linear1", "mlp.up"), ("linear2", "mlp.down"), ("norm1", "attn.norm"),
                                 ("norm2", "mlp.norm")):
                state[f"{at}{theirs}.{n}"] = w[f"{at}{mine}.{n}"]
    model.load_state_dict(state)
    return F.linear(model(F.linear(x, w["embed.weight"], w["embed.bias"])), w["head.weight"], w["head.bias"])


def test_dropout_is_where_the_official_code_has_it():
    """Behind the embedding, on the weights of attention (flow-attention has none), behind attention, and twice in each feed-forward map."""
    def rates(**knobs):
        graph = archdsl.load(SPEC).elaborate(knobs={"drop": 0.3, "depth": 1, **knobs}).graph
        return [float(n.attrs["rate"]) for g in graph.definitions() for n in g.nodes if n.op == "dropout"]

    assert rates() == [0.3] * 5 and rates(**{"layers.0.attention": "flow"}) == [0.3] * 4
    mine = ours(marks=None, drop=0.5)
    x = table(2, 11, 4)
    torch.manual_seed(0)
    assert relative(mine.train()(x), mine(x)) > 1e-3
    assert torch.equal(mine.eval()(x), mine(x))


@pytest.mark.parametrize(("changes", "words"), [({"heads": 5}, "24 / 5"), ({"layers.0.attention": "dense"}, "dense")])
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(ArchError, match=words):
        ours(**changes)


# Monthly deaths from lung diseases in the UK, 1974 to 1979, men and women. P. J. Diggle (1990), Time Series, table A.3.
MEN = """2134 1863 1877 1877 1492 1249 1280 1131 1209 1492 1621 1846 2103 2137 2153 1833 1403 1288 1186 1133 1053 1347 1545 2066
2020 2750 2283 1479 1189 1160 1113 970 999 1208 1467 2059 2240 1634 1722 1801 1246 1162 1087 1013 959 1179 1229 1655
2019 2284 1942 1423 1340 1187 1098 1004 970 1140 1110 1812 2263 1820 1846 1531 1215 1075 1056 975 940 1081 1294 1341"""
WOMEN = """901 689 827 677 522 406 441 393 387 582 578 666 830 752 785 664 467 438 421 412 343 440 531 771
767 1141 896 532 447 420 376 330 357 445 546 764 862 660 663 643 502 392 411 348 387 385 411 638
796 853 737 546 530 446 431 362 387 430 425 679 821 785 727 612 478 429 405 379 393 411 487 574"""


@pytest.mark.parametrize("kind", ["full", "flow"])
def test_learns_to_forecast(kind):
    """Two years of a real table give the third: five years to learn from, the last one to be told, better than its last month repeated."""
    data = torch.tensor([[float(v) for v in text.split()] for text in (MEN, WOMEN)]).T
    assert data.shape == (72, 2)
    data = (data - data[:60].mean(0)) / data[:60].std(0)
    month = (torch.arange(72) % 12 / 11 - 0.5)[:, None]
    starts = range(60 - 36 + 1)
    x, marks, y = (torch.stack([t[s + a : s + b] for s in starts]) for t, a, b in ((data, 0, 24), (month, 0, 24), (data, 24, 36)))
    model = archdsl.load(SPEC).build(lookback=24, horizon=12, depth=1, d=16, heads=2, drop=0.1, seed=0, **{"layers.*.attention": kind})
    steps = torch.optim.Adam(model.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(150):
        steps.zero_grad()
        F.mse_loss(model.train()(x, marks), y).backward()
        steps.step()
    with torch.no_grad():
        error = F.mse_loss(model.eval()(data[None, 36:60], month[None, 36:60]), data[None, 60:])
    assert error < 0.5 * F.mse_loss(data[59:60].expand(12, 2), data[60:])
