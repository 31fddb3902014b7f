"""What capture takes, keeps, refuses and writes."""
from __future__ import annotations

import subprocess
import types
import warnings

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

import archdsl
from archdsl.graph import Mask
from archdsl.lower.module import blocks
from tests.capture.models import MODELS, SIZES, TOKENS, outputs
from tests.commands import program
from tests.parity.proof import randomise, relative


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(11)


def nodes(captured, op):
    return [n for g in captured.graph.definitions() for n in g.nodes if n.op == op]


def same(captured, module, *inputs, tolerance=1e-6):
    ours = captured.build().eval()
    with torch.no_grad():
        for mine, theirs in zip(outputs(lambda x: ours(*x), inputs), outputs(lambda x: module(*x), inputs), strict=True):
            assert mine.shape == theirs.shape and relative(mine, theirs) <= tolerance


class Net(nn.Module):
    """Sequential, a shared module, a module without weights, a frozen parameter, a buffer, an unused parameter."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(0.25), nn.Linear(16, 8))
        self.again = nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.rand(8), requires_grad=False)
        self.unused = nn.Parameter(torch.rand(3))
        self.register_buffer("shift", torch.rand(8))
        self.register_buffer("table", torch.rand(8), persistent=False)

    def forward(self, x):
        x = self.again(x + self.body(x))
        return self.again(x * self.scale + self.shift) + self.table


class Biased(nn.Module):
    """A table of 16 biases by distance, of which the last as many as there are positions count, written in two ways."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.register_buffer("table", torch.randn(3, 1, 16))

    def forward(self, x):
        n = x.shape[1]
        return x[:, None, :, None] * x[:, None, None, :] + self.get_buffer("table")[:, :, -n if self.way == "from the end" else max(0, 16 - n):]


@pytest.mark.parametrize("way", ["from the end", "from the front"])
def test_slices_that_begin_as_many_places_before_the_end_as_there_are_positions(way):
    module = Biased(way)
    found = archdsl.capture(module, torch.randn(2, 5), TOKENS)
    for shape in ((1, 1), (3, 16)):
        same(found, module, torch.randn(*shape))
    with pytest.raises(ValueError, match="16"):
        found.build()(torch.randn(1, 17))


@pytest.mark.parametrize(("name", "printed"), [("M", "M"), ("m", "M"), ("_net", "Net"), ("_", "Model")])
def test_the_model_is_called_after_the_class(name, printed):
    module = type(name, (nn.Linear,), {})(3, 4)
    assert archdsl.capture(module, torch.randn(2, 3), {0: "B"}).spec.name == printed


def test_submodules_of_names_that_no_address_can_have():
    taken = ("__inner", "__", "match", "match_", "match__", "type_", "_typed")
    net = nn.Sequential()
    for name in taken:
        net.add_module(name, nn.Linear(4, 4))
    found = archdsl.capture(net, torch.randn(2, 4), {0: "B"})
    same(found, net, torch.randn(3, 4))
    assert [n.attrs["path"] for n in found.graph.nodes if n.op == "call"] == ["inner_", "part_", "match_", "match__", "match___", "type__", "_typed_"]
    net.add_module("inner_", nn.Linear(4, 4))
    with pytest.raises(archdsl.ArchError, match=r"(?s)A0550.*`__inner\.weight` and `inner_\.weight` would have one address"):
        archdsl.capture(net, torch.randn(2, 4), {0: "B"})


def test_the_parts_of_a_module():
    net = Net().eval()
    randomise(net)
    found = archdsl.capture(net, torch.zeros(2, 5, 8), dynamic={0: "B", 1: "T"})
    same(found, net, torch.randn(3, 4, 8))
    same(found, net, torch.randn(1, 1, 8))
    kinds = {a: p.kind for a, p in found.graph.parameters()}
    assert kinds == {"body.0.weight": "param", "body.0.bias": "param", "body.3.weight": "param", "body.3.bias": "param", "again.weight": "param",
                     "again.bias": "param", "scale": "frozen", "shift": "buffer"}
    assert set(found.names) == set(kinds) and "table" not in found.build().state_dict()
    assert [n.attrs["path"] for n in found.graph.nodes if n.op == "call"] == ["body.0", "body.3", "again", "again"]
    assert [n.attrs["rate"] for n in nodes(found, "dropout")] == [0.25]
    assert "literal" in {n.op for n in found.graph.nodes}


@pytest.mark.parametrize("training", [True, False])
def test_the_module_stays_as_it_was(training):
    net = Net()
    net.train(training)
    net.body[0].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    archdsl.capture(net, torch.zeros(2, 5, 8))
    assert net.training == training and not net.body[0].training and net.body[1].training == training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    net(torch.zeros(1, 8)).sum().backward()


def test_a_module_that_cannot_be_copied_is_put_back():
    net = Net()
    net.__dict__["handle"] = (i for i in range(3))  # no copy of a generator
    net.body[1].eval()
    archdsl.capture(net, torch.zeros(2, 5, 8))
    assert net.training and not net.body[1].training


def test_what_tracing_leaves_behind_stays_in_the_copy():
    """EfficientFormer keeps a table that it has computed: one made of traced tensors would break the module."""
    foreign = MODELS["efficientformer"]()
    archdsl.capture(foreign.module, foreign.example, dynamic=foreign.dynamic)
    assert torch.isfinite(foreign.module(foreign.example)).all()


def test_equal_layers_are_one_class():
    foreign = MODELS["llama"]()
    found = archdsl.capture(foreign.module, foreign.example, dynamic=foreign.dynamic)
    model = found.build()
    layers = [m for name, m in blocks(model) if name.startswith("model.layers.") and name.count(".") == 2]
    assert len(layers) == 2 and type(layers[0]) is type(layers[1])
    assert "layers: for i in range(2)" in found.text


# ---------------------------------------------------------------- aliases
def test_a_tied_head_is_one_tensor_under_two_names():
    foreign = MODELS["gpt2"]()
    found = archdsl.capture(foreign.module, foreign.example, dynamic=foreign.dynamic)
    assert found.aliases == {"lm_head.weight": "transformer.wte.weight"}
    assert found.names["transformer.wte.weight"] == "transformer.wte.weight"
    ours = found.build().eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in foreign.module.parameters())
    ours(foreign.example).sum().backward()
    foreign.module(foreign.example).logits.sum().backward()
    mine, theirs = ours.get_parameter("transformer.wte.weight").grad, foreign.module.lm_head.weight.grad
    assert mine is not None and relative(mine, theirs) <= 1e-5


# ---------------------------------------------------------------- masks
def masked(kind, config, lengths=((2, 7), (1, 5), (3, 11))):
    config.use_cache = False
    module = kind(config).eval()
    randomise(module)
    g = torch.Generator().manual_seed(2)
    found = []
    for n, (batch, length) in enumerate(lengths):
        valid = torch.ones(batch, length, dtype=torch.int64)
        valid[0, length - 1 - n:] = 0
        found.append({"input_ids": torch.randint(0, 64, (batch, length), generator=g), "attention_mask": valid})
    return module, archdsl.capture(module, found[0], dynamic=dict.fromkeys(found[0], TOKENS)), found


@pytest.mark.parametrize(("kind", "config", "kinds"), [
    (transformers.BertModel, transformers.BertConfig(**SIZES, intermediate_size=48, max_position_embeddings=64), {"keys"}),
    (transformers.LlamaForCausalLM, transformers.LlamaConfig(**SIZES, num_key_value_heads=2, intermediate_size=48), {"causal", "keys"}),
    (transformers.OPTForCausalLM, transformers.OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64),
     {"causal", "keys"}),
    (transformers.MistralForCausalLM, transformers.MistralConfig(**SIZES, num_key_value_heads=2, intermediate_size=48, sliding_window=4),
     {"causal", "window", "keys"})])
def test_a_mask_of_keys_is_found_beside_that_of_positions(kind, config, kinds):
    module, found, examples = masked(kind, config)

    def parts(mask):
        return {mask.kind} if mask.kind != "and" else {k for a in mask.args for k in parts(a)}

    assert [parts(n.attrs["mask"]) for n in nodes(found, "attention")] == [kinds] * len(nodes(found, "attention"))
    ours = found.build().eval()
    for x in examples:
        valid = x["attention_mask"].bool()
        with torch.no_grad():
            mine, theirs = ours(*x.values()), module(**x)[0]
        mine = mine if isinstance(mine, torch.Tensor) else mine[0]
        assert relative(mine[valid], theirs[valid]) <= 1e-6


class Scores(nn.Module):
    """One attention with a mask computed from positions in some way."""

    def __init__(self, allowed):
        super().__init__()
        self.allowed, self.qkv = allowed, nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.allowed(torch.arange(x.shape[1]), x))


CAUSAL = Mask("causal")
WAYS = {
    "ge": (lambda i, x: i[:, None] >= i, CAUSAL),
    "tril": (lambda i, x: torch.ones(*i.shape, *i.shape, dtype=torch.bool).tril(), CAUSAL),
    "not triu": (lambda i, x: ~torch.ones(*i.shape, *i.shape, dtype=torch.bool).triu(1), CAUSAL),
    "bias": (lambda i, x: torch.zeros(*i.shape, *i.shape).masked_fill(i[None] > i[:, None], float("-inf")), CAUSAL),
    "finite bias": (lambda i, x: torch.where(i[None] > i[:, None], -3e38, 0.0), CAUSAL),
    "counted": (lambda i, x: torch.ones_like(x[0, :, 0]).cumsum(0)[:, None] > i, CAUSAL),
    "window": (lambda i, x: (i[:, None] >= i) & (i[:, None] - i < 3), Mask("and", (CAUSAL, Mask("window", (3,))))),
    "groups": (lambda i, x: i[:, None] // 2 >= i // 2, Mask("causal_by", (2,))),
    "own group": (lambda i, x: i[:, None] // 2 == i // 2, Mask("own_block", (2, 0))),
    "all": (lambda i, x: (i[:, None] >= 0) | (i < 0), Mask("full")),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_is_read_off_its_computation(way):
    allowed, expected = WAYS[way]
    module = Scores(allowed).eval()
    found = archdsl.capture(module, torch.zeros(2, 5, 8), dynamic={0: "B", 1: "T"})
    assert [(n.attrs["mask"], n.args[3]) for n in nodes(found, "attention")] == [(expected, None)]
    for length in (1, 2, 7):
        same(found, module, torch.randn(3, length, 8))


@pytest.mark.parametrize("allowed", [
    lambda i, x: (i[:, None] >= i) ^ (i[:, None] == 1),                                       # no mask of the language
    lambda i, x: (x[:, None, :, None, 0] > x[:, None, None, :, 0]) | (i[:, None] == i),      # by the data
    lambda i, x: torch.where(i[None] > i[:, None], -2.0, 0.0),                                # a bias that excludes nothing
    lambda i, x: (i[:, None] > i) | (i == 0)])
def test_another_mask_stays_a_computation(allowed):
    module = Scores(allowed).eval()
    found = archdsl.capture(module, torch.zeros(2, 5, 8), dynamic={0: "B", 1: "T"})
    assert [n.attrs["mask"] for n in nodes(found, "attention")] == [Mask("full")]
    for length in (1, 2, 7):
        same(found, module, torch.randn(3, length, 8))


class Written(nn.Module):
    """Attention as it is written by hand, its mask a table that is cut to length."""

    def __init__(self, excluded, table, persistent):
        super().__init__()
        self.excluded, self.qkv = excluded, nn.Linear(8, 24)
        self.table: torch.Tensor
        self.register_buffer("table", table, persistent=persistent)

    def forward(self, x):
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in self.qkv(x).split(8, -1))
        scores = q @ k.transpose(-2, -1) * 0.5
        length = x.shape[1]
        return F.dropout(self.excluded(scores, self.table[..., :length, :length]).softmax(-1), 0.25, self.training) @ v


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize(("excluded", "table"), [
    (lambda s, t: s.masked_fill(t == 0, float("-inf")), torch.tril(torch.ones(1, 1, 80, 80))),
    (lambda s, t: s.masked_fill(~t, -1e9), torch.tril(torch.ones(16, 16, dtype=torch.bool))),
    (lambda s, t: s + t, torch.triu(torch.full((16, 16), float("-inf")), 1)),
    (lambda s, t: s + (1 - t) * -1e5, torch.tril(torch.ones(16, 16)))])
def test_a_table_may_be_a_mask(excluded, table, persistent):
    module = Written(excluded, table, persistent).eval()
    found = archdsl.capture(module, torch.zeros(2, 5, 8), dynamic={0: "B", 1: "T"})
    assert [(n.attrs["mask"], n.args[3]) for n in nodes(found, "attention")] == [(CAUSAL, None)]
    assert set(found.weights) == {"qkv.weight", "qkv.bias"}
    for length in (1, 2, 7):
        same(found, module, torch.randn(3, length, 8))


# ---------------------------------------------------------------- code
def function(f, *weights):
    class Function(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.rand(6, 8))

        def forward(self, x):
            return f(x, self.w)

    return Function().eval()


CODE = {
    "in place": lambda x, w: (x * 2).relu_().add_(1).mul_(x),
    "in place through a view": lambda x, w: _written(x.clone()),
    "a slice written": lambda x, w: _assigned(x * 1.5),
    "reshapes that do not nest": lambda x, w: x.reshape(x.shape[0], 2, 24).transpose(1, 2).reshape(x.shape[0], 3, 16),
    "views undone": lambda x, w: x.transpose(1, 2).unflatten(1, (2, 4)).flatten(1, 2).transpose(1, 2),
    "repeat": lambda x, w: x.repeat(1, 2, 1) + x.repeat_interleave(2, 1),
    "numbers and types": lambda x, w: x / 3 + torch.arange(8) / 2 + (x > 0) * 2 + x.to(torch.float64).to(torch.float32) ** 3,
    "sizes": lambda x, w: x * x.shape[0] + x.shape[1] ** -0.5 + torch.full((x.shape[0], 1, 1), 2.5),
    "reductions": lambda x, w: x.amax(1, keepdim=True) - x.mean() + x.var(-1, keepdim=True) + x.norm(dim=-1, keepdim=True),
    "chunks": lambda x, w: torch.cat([x.chunk(2, -1)[1], torch.stack(x.split([3, 5], -1)[0].unbind(-1), -1)], -1),
    "indexing": lambda x, w: x[:, [2, 0, -1]][..., None, 1:] + w[torch.tensor([1, 2, 3])][None, :, None, 1:],
    "matrix products": lambda x, w: torch.einsum("bti,oi->bto", x, w) @ w + torch.baddbmm(x, x, x.mT @ x, alpha=0.5),
    "pools": lambda x, w: F.adaptive_avg_pool1d(x, 5) + F.adaptive_avg_pool2d(x, (12, 5))[:, ::2] + F.adaptive_avg_pool1d(x[..., :1], 5),
    "dropout in place": lambda x, w: F.dropout((x + 1), 0.5, training=False, inplace=True) + 1,
    "softmax of floats": lambda x, w: F.softmax(x, -1, dtype=torch.float32) + F.log_softmax(x, 1) + torch.logsumexp(x, 1, keepdim=True),
    "activations": lambda x, w: F.elu(x) + F.softplus(x) + F.leaky_relu(x, 0.2) + F.hardtanh(x) + F.relu6(x) + F.mish(x),
    "order": lambda x, w: x.topk(3, 1)[0].sum(1, keepdim=True) + x.sort(-1, descending=True)[0] + x.max(1, keepdim=True)[0] + x.flip(1).roll(1, 2),
    "whole numbers": lambda x, w: x + torch.sign(torch.arange(8) - 3) + torch.log(torch.arange(1, 9)) + torch.ceil(x * 3),
    "sizes as tensors": lambda x, w: x * torch.sqrt(torch.tensor(x.shape[0], dtype=torch.float32) * 3),
    "grid": lambda x, w: x + sum(torch.meshgrid(torch.arange(6), torch.arange(8), indexing="ij")),
    "masked": lambda x, w: x.masked_fill(x < x.amax(-1, keepdim=True) - 1, float("-inf")).softmax(-1) + torch.tril(x),
}


def _written(x):
    x[:, 1:3].mul_(2)
    return x + 1


def _assigned(x):
    x[:, 0] = 7
    x[:, -2:, :3] = x[:, :2, 3:6]
    return x


@pytest.mark.parametrize("name", CODE)
def test_code(name):
    module = function(CODE[name])
    x = torch.randn(2, 6, 8)
    found = archdsl.capture(module, x, dynamic={0: "B"})
    for batch in (1, 2, 3):
        same(found, module, torch.randn(batch, 6, 8))


def test_maps_of_any_size():
    """Heights and widths vary; a stride halves them, a window wants multiples."""
    class Map(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

        def forward(self, x):
            x = F.max_pool2d(self.conv(x).relu(), 2)
            return F.interpolate(x, scale_factor=2, mode="bilinear") + F.avg_pool2d(x, 1).mean((2, 3), keepdim=True)

    module = Map().eval()
    found = archdsl.capture(module, torch.zeros(2, 3, 32, 40), dynamic={0: "B", 2: "H", 3: "W"})
    for shape in ((1, 3, 32, 40), (3, 3, 17, 50)):
        same(found, module, torch.randn(shape))


def test_sizes_that_are_multiples():
    class Windows(nn.Module):
        def forward(self, x):
            return x.view(x.shape[0], -1, 4, 8).softmax(2).flatten(1, 2)

    module = Windows().eval()
    found = archdsl.capture(module, torch.zeros(2, 12, 8), dynamic={0: "B", 1: "T"})
    same(found, module, torch.randn(3, 8, 8))
    with pytest.raises(ValueError, match="multiple of 4"):
        found.build()(torch.zeros(2, 6, 8))


def test_limits_of_sizes_become_guards():
    foreign = MODELS["bert"]()
    found = archdsl.capture(foreign.module, foreign.example, dynamic=foreign.dynamic)
    assert "require T <= 64" in found.text
    with pytest.raises(ValueError, match="T is at most 64"):
        found.build()(torch.zeros(1, 65, dtype=torch.int64))


def test_an_op_without_counterpart_stays_opaque():
    module = function(lambda x, w: torch.cdist(x, w.expand(x.shape[0], -1, -1)).nan_to_num(nan=1.0) + torch.atan2(x[..., :6], x[..., 1:7]))
    found = archdsl.capture(module, torch.randn(2, 6, 8), dynamic={0: "B"})
    assert set(found.opaque) == {"cdist.default", "nan_to_num.default", "atan2.default"}
    assert "extern aten.cdist(" in found.text
    assert {f"aten.{n.removesuffix('.default')}" for n in found.opaque} == set(found.spec.cost(at={"B": 1}).unknown)
    same(found, module, torch.randn(3, 6, 8))


# ---------------------------------------------------------------- refusals
class Changing(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x):
        self.seen += x.mean((0, 1))
        return x + self.seen


REFUSED = {
    "by data": (lambda: function(lambda x, w: x if x.sum() > 0 else -x), "A0550", "if x.sum() > 0"),
    "by item": (lambda: function(lambda x, w: x * x.sum().item()), None, ""),
    "its own fault": (lambda: function(lambda x, w: x @ w), "A0550", "x @ w"),
    "a draw": (lambda: function(lambda x, w: x + torch.rand_like(x)), "A0552", "f(x, self.w)"),
    "text": (lambda: function(lambda x, w: torch.searchsorted(w[0].sort()[0], x, side="left")), "A0552", "f(x, self.w)"),
    "a norm over two axes": (lambda: function(lambda x, w: F.layer_norm(x, (6, 8))), "A0551", "f(x, self.w)"),
    "a data-dependent size": (lambda: function(lambda x, w: x[x > 0]), None, ""),
    "a buffer changed": (Changing, "A0553", "class Changing"),
    "nothing": (lambda: function(lambda x, w: None), "A0553", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_place(name):
    make, code, line = REFUSED[name]
    module = make()
    with pytest.raises(archdsl.ArchError) as fault:
        archdsl.capture(module, torch.randn(2, 6, 8), dynamic={0: "B"})
    (found,) = fault.value.diagnostics
    assert code is None and found.code in ("A0550", "A0551", "A0552") or found.code == code
    assert line in found.span.source.line(found.span.source.position(found.span.start)[0])
    str(fault.value)


@pytest.mark.parametrize(("example", "dynamic", "told"), [
    (torch.zeros(1, 6, 8), {0: "B"}, "is 1 in the example"),
    (torch.zeros(2, 6, 8), {0: "b"}, "upper-case"),
    (torch.zeros(2, 6, 8), {"y": {0: "B"}}, "no tensor of the example"),
    (torch.zeros(2, 6, 8), {"x": {3: "B"}}, "which has 3 axes"),
    ((torch.zeros(2, 6, 8), torch.zeros(1)), {}, "does not fit"),
    ({"z": torch.zeros(2, 6, 8)}, {}, "does not fit"),
    (torch.zeros(2, 6, 8), {2: "D"}, "`D` cannot vary")])
def test_an_example_that_does_not_fit(example, dynamic, told):
    module = function(lambda x, w: x @ w.T)
    with pytest.raises(archdsl.ArchError) as fault:
        archdsl.capture(module, example, dynamic=dynamic)
    assert [d.code for d in fault.value.diagnostics] == ["A0554"] and told in str(fault.value)


# ---------------------------------------------------------------- folders and the command
def test_a_saved_capture_opens(tmp_path):
    foreign = MODELS["gpt2"]()
    found = archdsl.capture(foreign.module, foreign.example, dynamic=foreign.dynamic, name="Tiny")
    manifest = found.save(tmp_path / "out")
    assert manifest.model == "Tiny"
    model = archdsl.open(tmp_path / "out").eval()
    with torch.no_grad():
        assert relative(model(foreign.others[2]), foreign.module(foreign.others[2]).logits) <= 1e-6


MINE = '''
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), torch.zeros(2, 8), {0: "B"}

def lost():
    return nn.Linear(8, 8)

def broken():
    return 1 / 0

MODULE = nn.Linear(2, 2)
'''


class Kept:
    pass


class Caching(torch.nn.Linear):
    """Returns an object beside its tensor, as models with a cache do."""

    config: types.SimpleNamespace | None = None

    def forward(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]  (it returns more, on purpose)
        return super().forward(x), Kept()


def test_a_result_that_is_no_tensor_is_named():
    with pytest.raises(archdsl.ArchError, match=r"error\[A0550\]: `Caching` returns a `Kept`, which is no tensor") as caught:
        archdsl.capture(Caching(2, 3), torch.zeros(2, 2))
    assert caught.value.diagnostics[0].help == ("capture a module that returns tensors alone",)
    module = Caching(2, 3)
    module.config = types.SimpleNamespace(use_cache=True)
    with pytest.raises(archdsl.ArchError, match=r"`module\.config\.use_cache = False`"):
        archdsl.capture(module, torch.zeros(2, 2))


def run(folder, *arguments):
    return subprocess.run([program(), *arguments], cwd=folder, capture_output=True, text=True, timeout=500)


def test_the_command(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    done = run(tmp_path, "import", "mine:net", "-o", "out", "--name", "Mine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out: Mine, 212 parameters in 4 tensors\n")
    assert run(tmp_path, "check", "out/graph.arch").returncode == 0
    assert archdsl.open(tmp_path / "out")(torch.zeros(3, 8)).shape == (3, 4)
    for target, told in {"mine": "names no function", "mine:lost": "does not return a module and an example", "mine:broken": "division by zero",
                         "mine:absent": "has no `absent`", "nowhere:net": "there is no module `nowhere`", "mina:net": "did you mean `mine`?",
                         "mine:nett": "did you mean `net`", "mine:MODULE": "is a Linear, not a function"}.items():
        done = run(tmp_path, "import", target, "-o", "out2")
        assert done.returncode == 1 and "A0555" in done.stderr and told in done.stderr, done.stderr
        assert not (tmp_path / "out2").exists()


def test_nothing_is_printed(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        archdsl.capture(Net(), torch.zeros(2, 5, 8))
        with pytest.raises(archdsl.ArchError):
            archdsl.capture(REFUSED["by data"][0](), torch.randn(2, 6, 8))
    assert capfd.readouterr() == ("", "")


def test_a_pass_rewrites_a_captured_model_and_its_tables_stay(tmp_path):
    """Swin: the index of relative positions is a table in the text, which checks with random weights leave alone."""
    foreign = MODELS["swin"]()
    archdsl.capture(foreign.module, foreign.example, dynamic=foreign.dynamic).save(tmp_path / "swin")
    done = run(tmp_path, "compile", "swin", "--pass", "centre", "--check", "-o", "centred")
    assert done.returncode == 0, done.stderr
    assert "checked: centre()" in done.stderr
    with torch.no_grad():
        assert relative(archdsl.open(tmp_path / "centred").eval()(foreign.example), foreign.module(foreign.example)) <= 1e-5


class Nested(nn.Module):
    graph: nn.Module

    def __init__(self):
        super().__init__()
        self.add_module("graph", nn.Linear(8, 8))  # a name that lowered modules use themselves

    def forward(self, pair, options, times=2):
        return {"out": self.graph(pair[0]) * times + options["shift"], "parts": (pair[1], options["shift"] + 1)}


def test_nested_arguments_and_results():
    module = Nested().eval()
    example = {"pair": [torch.randn(2, 8), torch.randn(2, 8)], "options": {"shift": torch.randn(8)}, "times": 3}
    found = archdsl.capture(module, example)
    assert found.names == {"graph.weight": "graph_.weight", "graph.bias": "graph_.bias"}
    assert found.graph.output_names == ("out", "parts_0", "parts_1")
    mine = found.build()(*example["pair"], example["options"]["shift"])
    theirs = module(**example)
    for a, b in zip(mine, [theirs["out"], *theirs["parts"]], strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_module_that_runs_on_maps_of_several_sizes_has_its_weights_once():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())

        def forward(self, x):
            return self.head(x), self.head(F.max_pool2d(x, 2)), self.head(x[:, :, ::2])

    module = Pyramid().eval()
    found = archdsl.capture(module, torch.randn(2, 3, 16, 16), dynamic={0: "B"})
    assert set(found.weights) == {"head.0.weight", "head.0.bias"}
    same(found, module, torch.randn(3, 3, 16, 16))


def test_a_function_is_no_module():
    with pytest.raises(TypeError, match="not a function"):
        archdsl.capture(lambda x: x, torch.zeros(2, 2))  # pyright: ignore[reportArgumentType]  (refused)


def test_places_are_those_of_the_file_as_it_is(tmp_path):
    """An edited module that was loaded again is told of by its new lines."""
    from archdsl.capture.export import line_span

    file = tmp_path / "mine.py"
    for text in ("x = 1", "y = 22"):
        file.write_text(text + "\n")
        span = line_span(str(file), 1)
        assert span is not None and span.text == text
    file.unlink()
    assert line_span(str(file), 1) is None
