"""Late arguments: bodies that are elaborated once and filled in are what elaboration with the numbers gives."""
from __future__ import annotations

import pytest

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.elaborate import apply, late, passes
from archdsl.spec import shipped_files
from tests.reading import keeping, unchecked

MODEL = """use std.linear {{ Linear }}
use std.norm {{ LayerNorm }}
use std.residual {{ Pre }}
{blocks}
model M(depth: int = 4, rate: float = 0.1)(x: [B = 1, 8]) -> [B, 8] {{
{body}
  return x
}}
"""


def made(body: str, blocks: str = "", **knobs):
    return archdsl.loads(MODEL.format(body=body, blocks=blocks)).elaborate(None, knobs).graph


def concretely(monkeypatch, body: str, blocks: str = "", **knobs):
    with monkeypatch.context() as patch:
        patch.setattr(passes, "plan", lambda frame, s: None)
        return made(body, blocks, **knobs)


@pytest.fixture
def filled(monkeypatch):
    """How often a graph was filled in."""
    calls = []
    real = late._filled

    def counted(session, graph, numbers):
        calls.append(graph.name)
        return real(session, graph, numbers)

    monkeypatch.setattr(late, "_filled", counted)
    return calls


def rates(graph) -> list[float]:
    return [n.attrs["rate"] for g in graph.definitions() for n in g.nodes if n.op in ("drop_path", "dropout")]


def branch_rate(graph) -> float:
    (rate,) = [n.attrs["rate"] for g in graph.definitions() for n in g.nodes if n.op == "drop_path"]
    return rate


LINEAR = "layers: for i in range(depth) {{ x = Pre(LayerNorm(), Linear(8), drop = {rate})(x) as f }}"


def test_one_elaboration_serves_all_rates(filled, monkeypatch):
    body = LINEAR.format(rate="rate * i / depth")
    graph = made(body)
    assert filled.count("layers") == 4
    assert sorted(r for r in rates(graph) if r) == pytest.approx([0.025, 0.05, 0.075])
    assert graph.hash == concretely(monkeypatch, body).hash


def test_the_same_number_is_the_same_graph():
    layers = made(LINEAR.format(rate="rate * (i // 2)")).children
    assert layers["layers.0"] is layers["layers.1"]
    assert layers["layers.2"] is layers["layers.3"]
    assert layers["layers.0"] is not layers["layers.2"]


WITHIN = """block Inner(rate: float)(x: [..., d]) -> [..., d] {{ return Linear(d)(x) |> dropout(rate) }}
block Outer(rate: float = 0, p: float = 0)(x: [..., d]) -> [..., d] {{ return Inner(rate)(Inner(rate = p)(x) as a) as b }}
""".format()


def test_through_blocks_with_names_of_their_own(filled, monkeypatch):
    body = "layers: for i in range(depth) { x = Outer(rate * i, p = rate / 2)(x) as f }"
    graph = made(body, WITHIN)
    assert filled.count("layers") == 4
    assert "Inner" in filled
    assert graph.hash == concretely(monkeypatch, body, WITHIN).hash
    assert list(graph.children["layers.1"].children["f"].children) == ["a", "b"]


TWO = """block Two(scale: float, rate: float = 0)(x: [..., d]) -> [..., d] { return (Linear(d)(x) * scale) |> dropout(rate) }"""


@pytest.mark.parametrize(("call", "late"), [
    ("Two(rate * i, 0)(x) as f", 0), ("x |> Two(rate * i) as f", 0), ("x |> Two(1, rate * i) as f", 4),
    ("Two(rate = rate * i, scale = 2)(x) as f", 4),
    ("Linear(8)(x) as f |> dropout(rate * i)", 4), ("dropout(Linear(8)(x) as f, rate * i)", 4), ("dropout(Linear(8)(x) as f, rate = rate * i)", 4),
])
def test_positions_with_and_without_pipes(call, late, filled, monkeypatch):
    body = f"layers: for i in range(depth) {{ x = {call} }}"
    graph = made(body, TWO)
    assert filled.count("layers") == late
    assert graph.hash == concretely(monkeypatch, body, TWO).hash


MIXED = """block Mixed(rate: float, mix: float = 0.75)(x: [..., d]) -> [..., d] {
  x = Pre(LayerNorm(), Linear(d), drop = mix * rate)(x) as a
  return Pre(LayerNorm(), Linear(d), drop = (1 - mix) * rate)(x) as b
}
block Half(rate: float)(x: [..., d]) -> [..., d] { return Mixed(rate / 2 + 0.01)(x) as m |> dropout(-rate + 0.5) }
block Whole(rate: float)(x: [..., d]) -> [..., d] { return dropout(Linear(d)(x) as f, rate / 2) }
"""


@pytest.mark.parametrize("call", ["Mixed(rate * i)(x) as f", "Half(rate * i)(x) as f", "Half(rate = rate * i)(x) as f"])
def test_arithmetic_on_the_way(call, filled, monkeypatch):
    body = f"layers: for i in range(depth) {{ x = {call} }}"
    graph = made(body, MIXED)
    assert filled.count("layers") == 4
    assert graph.hash == concretely(monkeypatch, body, MIXED).hash


def test_an_inexact_division_is_reported_as_ever(monkeypatch):
    body = "layers: for i in range(depth) { x = Whole(i)(x) as f }"
    for make in (made, lambda *a, **k: concretely(monkeypatch, *a, **k)):
        with pytest.raises(ArchError) as e:
            make(body, MIXED)  # 0 / 2 is 0, 1 / 2 is no whole number
        assert e.value.diagnostics[0].code == "A0303"
        assert "1 / 2" in str(e.value)


def test_loops_in_loops(filled, monkeypatch):
    blocks = """block Stage(rate: float)(x: [..., d]) -> [..., d] {
      inner: for j in range(2) { x = Pre(LayerNorm(), Linear(d), drop = rate)(x) as f }
      return x
    }"""
    body = "layers: for i in range(depth) { x = Stage(rate * i)(x) as s }"
    graph = made(body, blocks)
    assert filled
    assert sorted({*rates(graph)}) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert graph.hash == concretely(monkeypatch, body, blocks).hash
    stage = graph.children["layers.2"].children["s"]
    assert stage.children["inner.0"] is stage.children["inner.1"]


@pytest.mark.parametrize("rate", ["rate * i", "rate * j", "rate * i + rate * j", "rate * (i // 2)"])
def test_a_loop_directly_in_a_loop(rate, filled, monkeypatch):
    """A number of the outer pass is no number of the inner one: every pass of both has its own."""
    body = f"layers: for i in range(depth) {{ inner: for j in range(2) {{ x = Pre(LayerNorm(), Linear(8), drop = {rate})(x) as f }} }}"
    graph = made(body)
    assert filled
    assert graph.hash == concretely(monkeypatch, body).hash
    got = [branch_rate(graph.children[f"layers.{i}"].children[f"inner.{j}"]) for i in range(4) for j in range(2)]
    assert got == pytest.approx([float(eval(rate, {"rate": 0.1, "i": i, "j": j})) for i in range(4) for j in range(2)])


@pytest.mark.parametrize("width", ["8", "match 8 { 8 => 8; _ => [1][j + 9] }"])  # the second cannot be read ahead: no plan
@pytest.mark.parametrize("place", ["layers.0.k.w", "layers.3.k.w"])
def test_a_loop_in_a_pass_that_has_its_numbers(width, place, monkeypatch):
    """With a setting below one outer pass, that pass has its number at once, and the others wait: their inner passes are not each other's."""
    blocks = "block K(w: int = 8 in {8, 16})(x: [..., 8]) -> [..., 8] { return Linear(w)(x) as up |> Linear(8) as down }"
    body = f"""layers: for i in range(depth) {{
    x = K()(x) as k
    inner: for j in range(2) {{ x = Pre(LayerNorm(), Linear({width}), drop = rate)(x) as f }}
  }}"""
    graph = made(body, blocks, **{place: 16})
    assert all(type(r) is not late.Late for r in rates(graph))
    assert graph.hash == concretely(monkeypatch, body, blocks, **{place: 16}).hash


@pytest.fixture
def bodies(monkeypatch):
    """The blocks whose bodies are run, in order."""
    names = []
    real = apply.run_body

    def counted(frame, template, *rest):
        names.append(template.ref.decl.name)
        return real(frame, template, *rest)

    monkeypatch.setattr(apply, "run_body", counted)
    return names


WIDE = """layers: for i, w in enumerate([{widths}]) {{
    x = Pre(LayerNorm(), Linear(8), drop = rate * i)(x) as a
    x = Pre(LayerNorm(), {mixer}, drop = {second})(x) as b
  }}"""
MIXER = "block Mixer(w: int)(x: [..., d]) -> [..., d] { return Linear(w)(x) as up |> Linear(d) as down }"


@pytest.mark.parametrize(("widths", "mixer", "second", "count"), [
    ("16, 32, 16, 64", "Mixer(w)", "rate * i", 4),  # `a` once for all widths, `b` once for each
    ("16, 16, 16, 16", "Mixer(w)", "rate * i", 2),
    ("16, 32, 16, 64", "Mixer(16)", "rate * i", 2),  # without the width, all passes are one body
    ("16, 32, 16, 64", "Mixer(w)", "rate * (i + 1)", 4),  # another number beside it
])
def test_bodies_of_one_loop_share_blocks_that_differ_by_their_numbers_alone(widths, mixer, second, count, bodies, monkeypatch):
    body = WIDE.format(widths=widths, mixer=mixer, second=second)
    graph = made(body, MIXER)
    assert bodies.count("Pre") == count
    assert graph.hash == concretely(monkeypatch, body, MIXER).hash
    for i in range(4):
        layer = graph.children[f"layers.{i}"]
        assert branch_rate(layer.children["a"]) == pytest.approx(0.1 * i)
        assert branch_rate(layer.children["b"]) == pytest.approx(0.1 * (i + ("+ 1" in second)))


@pytest.mark.parametrize(("block", "why"), [
    ("block D(rate: float)(x: [..., d]) -> [..., d] { y = Linear(d)(x) return if rate > 0 { dropout(y, rate) } else { y } }", "a branch"),
    ("block D(rate: float)(x: [..., d]) -> [..., d] { return Linear(d)(x) * rate }", "a product"),
    ("block D(rate: float)(x: [..., d]) -> [..., d] { y = Linear(d)(x) return dropout(y, max(rate, 0)) }", "a function"),
    ("block D(rate: float)(x: [..., d]) -> [..., d] { keep = rate return dropout(Linear(d)(x), keep) }", "another name"),
    ("block D(rate: float)(x: [..., d]) -> [..., d] { require d > 4, \"not with {rate}\" return dropout(Linear(d)(x), rate) }", "a message"),
    ("block D(rate: float in 0..1)(x: [..., d]) -> [..., d] { return dropout(Linear(d)(x), rate) }", "a knob"),
    ("block D(rate: float)(x: [..., d]) -> [..., d] { return dropout(Linear(d, init = constant(rate))(x), rate) }", "an initialiser"),
    ("block D(rate: float, p: float = rate)(x: [..., d]) -> [..., d] { return dropout(Linear(d)(x), p) }", "a default"),
])
def test_what_depends_on_the_number_is_elaborated_with_it(block, why, filled, monkeypatch):
    body = "layers: for i in range(depth) { x = D(rate * i)(x) as f }"
    graph = made(body, block)
    assert not filled, why
    assert graph.hash == concretely(monkeypatch, body, block).hash


def test_a_block_that_leaves_the_loop_keeps_its_number(monkeypatch):
    body = """  last = Pre(LayerNorm(), Linear(8), drop = 0)
  layers: for i in range(depth) {
    last = Pre(LayerNorm(), Linear(8), drop = rate * i)
    x = last(x) as f
  }
  x = last(x) as end"""
    graph = made(body)
    assert max(rates(graph)) == pytest.approx(0.3)
    assert graph.hash == concretely(monkeypatch, body).hash


def test_a_number_that_the_op_refuses_is_reported_where_it_arises(monkeypatch):
    body = LINEAR.format(rate="rate * i")
    for make in (made, lambda *a, **k: concretely(monkeypatch, *a, **k)):
        with pytest.raises(ArchError) as e:
            make(body, rate=0.5)  # passes 0, 1 and 2 are fine, the last one is not
        assert "not 1.5" in str(e.value)


@pytest.mark.parametrize("path", shipped_files())
def test_shipped_specs(path, monkeypatch):
    def hashes(spec: archdsl.Spec) -> dict[str, str]:
        return {f"{s.name}.{v}": s.elaborate(v).graph.hash for s in spec.models.values() for v in (None, *[*s.variants][::4])}

    with keeping(True):
        found = hashes(archdsl.load(path))
    monkeypatch.setattr(passes, "plan", lambda frame, s: None)
    assert hashes(unchecked(path)) == found


def test_a_block_literal_that_waits_is_not_taken_for_one_that_does_not():
    """A pass with a setting of its own has its numbers at once; the literal in it is not that of the other passes, which wait for theirs."""
    body = """  layers: for i in range(depth) {
    choose map { wide => Linear(16) >> Linear(8)  plain => Linear(8) } = plain
    x = Pre(LayerNorm(), block(u) => map(u) as f |> dropout(rate))(x) as branch
  }"""
    set_ = made(body, **{"layers.0.map": "plain"})
    assert set_.hash == made(body).hash
    rates = [n.attrs["rate"] for g in set_.definitions() for n in g.nodes if n.op == "dropout"]
    assert rates and all(type(r) is not late.Late for r in rates)
