"""What selectors choose, and the streams and branches that are found on graphs."""
from __future__ import annotations

import pytest

from archdsl.passes import Flat
from archdsl.passes.selectors import addresses, select
from archdsl.passes.streams import branches, stream_of
from tests.elaborate.helpers import fault, made

NET = """model M(d: int = 8)(x: [B, T, d]) -> y: [B, T, 3] {
  x = Linear(d)(x) as embed
  layers: for i in range(4) {
    x = Pre(LayerNorm(), Attention(2))(x) as attn
    x = Pre(LayerNorm(), MLP(12))(x) as mlp
  }
  param table: [d] = zeros()
  x = x + table
  return Linear(3)(x) as head
}"""


@pytest.fixture(scope="module")
def flat():
    return Flat(made(NET).graph)


LINEARS = [f"layers.{i}.{p}" for i in range(4) for p in ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down")]


@pytest.mark.parametrize(("text", "expected"), [
    ("op:linear", ["embed", *LINEARS, "head"]),
    ("op:linear & layers", LINEARS),
    ("op:linear - layers", ["embed", "head"]),
    ("layers[1].mlp & op:linear", ["layers.1.mlp.up", "layers.1.mlp.down"]),
    ("layers[-1].*.{q, up} & op:linear", ["layers.3.attn.q", "layers.3.mlp.up"]),
    ("layers[1:3].attn.q & op:linear", ["layers.1.attn.q", "layers.2.attn.q"]),
    ("layers[2:].mlp.down & op:linear | embed & op:linear", None),
    ("(layers[2:].mlp.down | embed) & op:linear", ["embed", "layers.2.mlp.down", "layers.3.mlp.down"]),
    ("layers[::2].attn.out & op:linear", ["layers.0.attn.out", "layers.2.attn.out"]),
    ("block:MLP & op:linear & layers[0]", ["layers.0.mlp.up", "layers.0.mlp.down"]),
    ("block:LayerNorm & layers[0]", ["layers.0.attn.norm", "layers.0.mlp.norm"]),
    ("branch:attention & op:linear & layers[3]", ["layers.3.attn.q", "layers.3.attn.k", "layers.3.attn.v", "layers.3.attn.out"]),
    ("branch:mlp & op:linear & layers[3]", ["layers.3.mlp.up", "layers.3.mlp.down"]),
    ("table & op:add", [""]),
    ("lowest(2, scores) & op:linear", ["layers.0.mlp.up", "layers.0.mlp.down", "head"]),
    ("highest(1, scores) & op:linear", ["layers.1.attn.q"]),
])
def test_what_is_chosen(flat, text, expected):
    tables = {"scores": {"head": 0.1, "layers.0.mlp": 0.2, "layers.1.attn.q": 3}}
    if expected is None:  # operators do not mix without parentheses
        from archdsl.passes import Step

        assert fault(lambda: Step.parse(f"bake() on {text}")).code.startswith("A01")
        return
    nodes = select(flat, text, tables=tables)
    assert addresses(flat, [n for n in nodes if n.op in ("linear", "layer_norm", "add")]) == expected


@pytest.mark.parametrize(("text", "told"), [
    ("layer", "did you mean `layers`?"), ("layers[7]", "chooses nothing"), ("layers[x]", "no index"), ("role:head", "cannot be selected by yet"),
    ("op:liner", "`linear`"), ("branch:ffn", "attention"), ("lowest(2, other)", "--table other=FILE"),
    ("median(2, scores)", "no selector"),
])
def test_what_is_not(flat, text, told):
    d = fault(lambda: select(flat, text, tables={"scores": {}}))
    assert d.code == "A0563" and told in d.message + "".join(d.help)


def test_branches(flat):
    found = branches(flat)
    assert [b.kind for b in found] == ["attention", "mlp"] * 4
    assert all(b.write in b.sum.args and b.read in b.sum.args for b in found)
    assert {flat.address(n).rpartition(".")[2] for n in found[0].nodes if n.op in ("layer_norm", "linear")} == {"norm", "q", "k", "v", "out"}


def test_a_stream(flat):
    last = next(n for n in flat.nodes if n.op == "linear" and flat.address(n) == "head")
    stream = stream_of(flat, last.args[0], 2)
    assert stream.size == 8 and len(stream.sums) == 9
    assert sorted(flat.address(v.node) for v in stream.writers) == sorted(["", "embed", *(a for a in LINEARS if a.endswith(("out", "down")))])
    assert [n.op for n, _ in stream.readers].count("layer_norm") == 8 and [n for n, _ in stream.readers if n.op == "linear"] == [last]


def test_a_convolution_makes_a_branch_of_its_own_kind():
    net = made("model M()(x: [B, 4, H, W]) -> y: [B, 4, H, W] { return x + (x |> Conv(4, 3, pad = 1) as a |> relu |> Conv(4, 1) as b) }")
    assert [b.kind for b in branches(Flat(net.graph))] == ["conv"]
