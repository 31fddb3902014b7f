"""The view model: figures against costs, folding against the list it stands for, edges against the graph."""
from __future__ import annotations

import random
import re
from collections import Counter
from itertools import pairwise
from math import prod

import pytest

from archdsl.cost import cost
from archdsl.draw import Item, view
from archdsl.draw.dot import dot_text
from archdsl.draw.folding import Part, repeats
from archdsl.draw.view import View
from archdsl.spec import load, loads, shipped_files

HYBRID = """\
use std.channel {{ MLP, SwiGLU }}
use std.embed {{ Rope, TokenEmbedding }}
use std.linear {{ Linear }}
use std.mixer {{ Attention }}
use std.norm {{ RMSNorm }}
use std.residual {{ Pre }}

model Hybrid(vocab: int = 64, d: int = 16, heads: int = 2, order: str = "{order}")(tokens: int[B = 1, T = 8] in 0..<vocab) -> logits: [B, T, vocab] {{
  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for kind in order {{
    x = match kind {{
      "M" => Pre(RMSNorm(), SwiGLU(4 * d))(x) as glu
      "*" => Pre(RMSNorm(), Attention(heads, mask = causal, positions = Rope()))(x) as attn
      "-" => Pre(RMSNorm(), MLP(4 * d))(x) as mlp
    }}
  }}
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}}
"""
NEMOTRON = "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"  # 56 layers


def hybrid(order: str):
    return loads(HYBRID.format(order=order)).elaborate()


def walk(item: Item, times: int = 1, base: str = ""):
    """(item, how often it occurs, address) of all items below, folded ones once."""
    for b in item.below:
        address = f"{base}.{b.path}" if base and b.path else base or b.path
        yield b, times * b.count, address
        yield from walk(b, times * b.count, address if b.kind == "block" else base)


def macs_of_ops(item: Item) -> int:
    return sum(b.macs if b.kind == "op" else b.count * macs_of_ops(b) for b in item.below)


@pytest.mark.parametrize("path", shipped_files(), ids=lambda p: p.rsplit("/", 1)[1])
def test_every_figure_is_the_cost_of_that_address(path):
    spec = load(path)
    for variant in (None, *list(spec.variants)[:2]):
        made = spec.elaborate(variant)
        found = view(made)
        rows = {r.path: r for r in found.cost.layers}
        blocks = [(i, times, address) for i, times, address in walk(found.root) if i.kind == "block"]
        folded = {address for i, times, address in walk(found.root) if times > 1}
        calls = Counter(address for _, _, address in blocks)
        for item, _, address in blocks:
            row = rows[address]
            assert (item.params, item.calls) == (row.params, row.calls), address
            assert item.count > 1 or address in folded or item.saved_bytes == row.saved_bytes, address
            if calls[address] == 1 and row.calls == 1:
                assert item.shape.partition("[")[2] == ", ".join(map(str, row.output)) + "]", address
                assert item.macs == row.macs, address  # counted op by op, and by the simulated run
        if set(calls.values()) == {1} and all(r.calls == 1 for r in rows.values()):
            assert sum(times for _, times, _ in blocks) == len(rows) - 1
        assert macs_of_ops(found.root) == found.cost.macs == found.root.macs
        assert found.root.params == found.cost.params and found.root.saved_bytes == rows[""].saved_bytes


@pytest.mark.parametrize("path", shipped_files(), ids=lambda p: p.rsplit("/", 1)[1])
def test_edges_lead_forward_to_what_reads_them(path):
    found = view(load(path).elaborate())
    for item in (found.root, *(i for i, _, _ in walk(found.root))):
        for e in item.edges:
            assert e.target is not None
            assert (e.source is None or e.source < e.target) and item.below[e.target].kind != "input", (item.name, e)
        if item.kind == "block":
            read = {e.target for e in item.edges}
            weights = {(path, type) for path, _, type in item.weights}
            for i, b in enumerate(item.below):
                assert b.kind != "output" or i in read or {(path, type) for path, _, type in b.weights} & weights, (item.name, b.name)


@pytest.mark.parametrize("order", [NEMOTRON, (NEMOTRON + NEMOTRON)[:96], "M" * 96, "M-" * 48, "*"])
def test_a_hybrid_opens_with_few_nodes(order):
    made = hybrid(order)
    found = view(made)
    assert len(found.visible()) <= 12
    names = [i.name for i in found.root.below]
    assert names[:2] == ["tokens", "embed"] and names[-3:] == ["norm", "head", "logits"]
    assert sum(times for i, times, address in walk(found.root) if i.kind == "block" and re.fullmatch(r"layers\.\d+", address)) == len(order)


@pytest.mark.parametrize("name", ["zamba", "zamba2"])
def test_layers_around_shared_blocks_open_with_few_nodes(name):
    """Their passes stand in the model itself. What is shared counts once, however many layers apply it."""
    made = load(next(p for p in shipped_files() if p.endswith(f"/{name}.arch"))).elaborate()
    found = view(made)
    layers = next(i for i in found.root.below if i.name == "layers")
    assert len(found.visible()) <= 12 and layers.title == f"{sum(i.count for i in layers.below)} layers"
    own = {a: p for a, p in made.graph.parameters() if p.kind in ("param", "frozen") and not a.startswith(("embed.", "norm.", "head."))}
    assert layers.params == sum(prod(p.sizes) for p in own.values())
    assert 0 <= found.root.state_bytes - sum(i.state_bytes for i in found.root.below) <= 64  # positions that the model itself counts
    (kind, times) = max(Counter(i.kind for i in layers.below).items(), key=lambda pair: pair[1])
    assert times > 3 and any(b.shared for i in layers.below if i.kind == "list" for b in i.below), kind


@pytest.mark.parametrize(("body", "each"), [
    ("x = f(x); x = Linear(d)(x) as own", ["f", "own"]),
    ("x = Linear(d)(x) as own; x = f(x)", ["own", "f"]),
    ("x = tanh(x); x = f(x); x = Linear(d)(x) as own; x = exp(x) + x", ["tanh", "f", "own", "exp", "add"]),
])
def test_passes_end_where_the_text_of_the_loop_does(body, each):
    """What is shared, and ops, may begin and end them."""
    text = "use std { Linear }\nmodel M(d: int = 8)(x: [B = 2, d]) -> y: [B, d] {\n  share f = Linear(d)\n  x = tanh(x)\n"
    text += f"  layers: for i in range(3) {{ {body} }}\n  x = exp(x)\n  return Linear(d)(x) as head\n}}\n"
    root = view(loads(text).elaborate()).root
    assert [b.name for b in root.below] == ["x", "tanh", "layers", "exp", "head", "y"]
    assert [[b.name.rpartition(".")[2] for b in layer.below] for layer in root.below[2].below] == [each] * 3


def test_every_loop_around_a_shared_block_is_a_list():
    found = view(loads("""use std { Linear }
model Two(n: int = 3)(x: [B = 1, 4]) -> y: [B, 4] {
  share f = Linear(4)
  down: for i in range(n) { x = f(Linear(4)(x) as own) }
  up: for i in range(n) { x = f(Linear(4)(x) as own) + x }
  return x
}
""").elaborate()).root
    assert [(i.name, i.title, i.params) for i in found.below if i.kind == "list"] == [("down", "3 layers", 80), ("up", "3 layers", 80)]
    assert found.params == 7 * 20


def test_an_edge_leads_to_the_layer_of_a_list_that_reads_it():
    """The skips of a net shaped like a U, from the layer that gives each to the one that takes it."""
    made = loads("""use std { Conv }
model U(widths: list[int] = [4, 8, 16])(x: [B = 1, 4, H = 16, W = 16]) -> y: [B, 4, H, W] {
  require H % 4 == 0 and W % 4 == 0
  skips = []
  down: for i, c in enumerate(widths) {
    if i > 0 { x = max_pool(x, 2) }
    x = x |> Conv(c, 3, pad = 1) as conv |> relu
    skips = skips + [x]
  }
  up: for i in range(2) {
    skip: [_, c, Y, X] = skips[1 - i]
    x = skip + (x |> Conv(c, 1) as conv |> resize([Y, X]))
  }
  return x
}
""").elaborate()
    found = view(made)
    below = found.root.below
    (skips,) = [[e for e in found.root.edges if e.source == i and e.target is not None and below[e.target].name == "up"]
                for i, b in enumerate(below) if b.name == "down"]
    assert sorted(end for e in skips for end in e.ends) == [((0,), (1,)), ((1,), (0,)), ((2,), (0,))]
    assert {e.label for e in skips} == {"[B, 4, H, W]", "[B, 8, 8, 8]", "[B, 16, 4, 4]"}
    drawn = [line for line in dot_text(found).splitlines() if "->" in line]
    open_ = View(found.name, found.root, found.cost, frozenset([(1,), (2,)]))
    wires = [line.split(" [")[0].strip() for line in dot_text(open_).splitlines() if "->" in line]
    assert len(drawn) > 3 and "n1_0 -> n2_1" in wires and sum(w.startswith("n1_") and "-> n2_" in w for w in wires) == 3


def test_what_is_large_opens_first():
    found = view(load(next(p for p in shipped_files() if p.endswith("convnext.arch"))).elaborate())
    assert [found.root.below[p[0]].name for p in found.opened if len(p) == 1] == ["stages"] and len(found.visible()) <= 12
    assert {i.name for i in found.visible()} >= {"stages.0", "stages.1", "stages.2", "stages.3"}


def test_equal_layers_are_one_item():
    (layers,) = [i for i in view(hybrid("M" * 24)).root.below if i.count > 1]
    assert (layers.name, layers.path, layers.last, layers.count) == ("layers.0 to 23", "layers.0", "layers.23", 24)
    assert (layers.kind, layers.title) == ("block", "PreSwiGLU")


def test_a_pattern_is_one_item():
    (layers,) = [i for i in view(hybrid("M-" * 12 + "*")).root.below if i.kind == "list"]
    assert [(i.kind, i.name, i.count, i.title) for i in layers.below] == [
        ("repeat", "layers.0 to 23", 12, "PreSwiGLU · PreMLP"), ("block", "layers.24", 1, "PreAttention")]
    assert [i.name for i in layers.below[0].below] == ["layers.0", "layers.1"]


def expanded(parts) -> list[str]:
    def one(part) -> list[str]:
        return expanded(part.below) if part.item.kind == "repeat" else [part.key if isinstance(part.key, str) else part.key[1]]

    return [k for p in parts for k in one(p) * p.item.count]


@pytest.mark.parametrize("seed", range(200))
def test_folding_keeps_the_order(seed):
    pick = random.Random(seed)
    text = "".join(pick.choice(["a", "b", "ab", "aab", "abc", "abcabc"]) for _ in range(pick.randrange(1, 40)))
    parts = [Part(Item("block", f"l.{i}", c, f"l.{i}", f"l.{i}"), [], c) for i, c in enumerate(text)]

    def container(kind, name, title, inside, path="", last="", count=1):
        return Item(kind, name, title, path, last, count)

    found = repeats(parts, container)
    assert "".join(expanded(found)) == text
    keys = [p.key for p in found]
    assert all(a != b for a, b in pairwise(keys)), "equal neighbours are left"


def test_only_unequal_layers_stand_apart():
    made = loads("""\
use std.linear { Linear }
use std.norm { RMSNorm }

model Net(widths: list[int] = [8, 8, 16, 8, 8])(x: [B = 2, 4]) -> y: [B, 4] {
  x = Linear(4)(x) as embed
  layers: for w in widths {
    x = x + (x |> RMSNorm() as norm |> Linear(w) as up |> Linear(4) as down)
  }
  return x |> RMSNorm() as norm
}
""").elaborate()
    (layers,) = [i for i in view(made).root.below if i.kind == "list"]
    assert [(i.name, i.count) for i in layers.below] == [("layers.0 to 1", 2), ("layers.2", 1), ("layers.3 to 4", 2)]


def test_layers_with_other_drop_rates_are_folded():
    """And the bytes that the first or the last keeps more or less do not set it apart: what is shown is the mean."""
    made = loads("""\
use std.channel { MLP }
use std.norm { RMSNorm }
use std.residual { Pre }

model Net(depth: int = 5)(x: [B = 2, T = 3, 4]) -> y: [B, T, 4] {
  layers: for rate in linspace(0, 0.4, depth) {
    x = Pre(RMSNorm(), MLP(8), drop = rate)(x) as mlp
  }
  return x
}
""").elaborate()
    found = view(made)
    (layers,) = [i for i in found.root.below if i.kind == "block"]
    rows = [r for r in found.cost.layers if r.path.startswith("layers.") and r.path.count(".") == 1]
    assert layers.count == 5 == len(rows)
    assert len({r.saved_bytes for r in rows}) > 1 and layers.saved_bytes == round(sum(r.saved_bytes for r in rows) / 5)


def test_layers_that_differ_in_an_attribute_are_not_folded():
    made = loads("""\
use std.norm { RMSNorm }

model Net()(x: [B = 2, 4]) -> y: [B, 4] {
  layers: for e in [1e-5, 1e-5, 1e-6] {
    x = x |> RMSNorm(eps = e) as norm
  }
  return x
}
""").elaborate()
    (layers,) = [i for i in view(made).root.below if i.kind == "list"]
    assert [(i.name, i.count) for i in layers.below] == [("layers.0 to 1", 2), ("layers.2", 1)]


def test_sizes_change_what_depends_on_them():
    made = hybrid("M")
    small, large = view(made, {"T": 4}), view(made, {"T": 8})
    assert large.root.macs == 2 * small.root.macs and large.root.params == small.root.params
    assert (small.root.below[1].output, small.root.below[1].shape) == ("[B, T, 16]", "[1, 4, 16]")
    assert small.root.below[1].bytes == 4 * 4 * 16


def test_shared_weights_are_told():
    made = loads("""\
use std.linear { Linear }

model Net(d: int = 4)(x: [B = 2, d]) -> y: [B, d] {
  share f = Linear(d)
  return f(f(x))
}
""").elaborate()
    found = [i for i in view(made).root.below if i.kind == "block"]
    assert [(i.path, i.calls, i.params, i.macs) for i in found] == [("f", 2, 20, 32)] * 2


def test_state_is_told_where_it_is_kept():
    """Keys and values of T positions for each layer of attention, nothing elsewhere; without `stream` nothing at all."""
    text = HYBRID.format(order="M*M*")
    made = loads(text.replace("[B, T, vocab] {", "[B, T, vocab] stream T {")).elaborate()
    found = view(made, {"B": 3, "T": 32})
    kept = {address: i.state_bytes for i, _, address in walk(found.root) if i.kind == "block" and i.state_bytes}
    assert found.root.state_bytes == cost(made, {"B": 3, "T": 32}, form="extend").state_bytes
    assert kept["layers.1.attn"] == 2 * 3 * 32 * 16 * 4 == kept["layers.1"]  # keys and values, B, T, d, bytes
    assert {a.split(".")[-1] for a in kept} <= {"1", "3", "attn"}
    assert view(loads(text).elaborate()).root.state_bytes == 0
