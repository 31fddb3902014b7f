"""What was elaborated before is used again only where it means the same."""
from __future__ import annotations

from typing import Any

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.elaborate import apply, library, ops
from archdsl.elaborate.frame import Session
from archdsl.graph import Node
from archdsl.modules import Library
from archdsl.spec import check_text, expression, load, loads
from tests.elaborate.helpers import addresses, fault, made, model

LOOP = "layers: for i in range(3) { x = Linear(8)(x) }\n"
KNOB = "block A(k: float = 3 in {2, 3})(x: [B, T, 8]) -> [B, T, 8] { return Linear(8)(x * k) }\n"
MODEL = "model M()(x: [B, T, 8]) -> y: [B, T, 8] { %s }"


def calls(e) -> list[Node]:
    return [n for n in e.graph.nodes if n.op == "call"]


def test_a_skip_connection_around_a_loop():
    e = model("skip = x\n" + LOOP + "return x + skip")
    first, second, third = calls(e)
    (x,) = e.graph.inputs
    assert [first.args, second.args, third.args] == [(x,), first.values, second.values]
    assert e.graph.outputs[0].node.args == (*third.values, x)


def test_a_body_that_reads_a_tensor_from_a_list():
    e = model("xs = [x]\ny = x\nlayers: for i in range(3) { y = Linear(8)(xs[0]) + y }\nreturn y")
    (x,) = e.graph.inputs
    assert [set(n.args) for n in calls(e)] == [{x}, {x, *calls(e)[0].values}, {x, *calls(e)[1].values}]


def test_a_body_that_reads_a_tensor_through_a_literal():
    e = model("f = block(y) => y + x\nz = x\nlayers: for i in range(3) { z = Linear(8)(f(z)) }\nreturn z")
    (x,) = e.graph.inputs
    assert all(x in n.args for n in calls(e))


def test_a_name_that_lags_behind_in_a_loop():
    e = model("last = x\nlayers: for i in range(4) { last = x\n x = Linear(8)(x) }\nreturn x + last")
    assert e.graph.outputs[0].node.args == (*calls(e)[3].values, *calls(e)[2].values)


def test_an_emitted_name_without_a_value_is_read():
    inner = "layers: for i in range(2) { h = x\n inner: for j in range(2) { emit h } \n x = Linear(8)(x) }\nreturn x"
    e = model(inner)
    assert list(e.graph.emits) == [f"layers.{i}.inner.{j}.h" for i in range(2) for j in range(2)]


def test_knobs_are_those_of_the_application():
    assert list(made(KNOB + MODEL % "return x |> A(3) as a |> A() as b").knobs) == ["b.k"]
    assert list(made(KNOB + MODEL % "return x |> A() as a |> A(3) as b").knobs) == ["a.k"]


def test_written_factors_are_those_of_the_application():
    block = "block A(k: int, m: int)(x: [B, T, 8]) -> [B, T, 8] { param w: [(k m), 8] = ones()\nreturn linear(x, w) }\n"
    e = made(block + MODEL % "return x |> A(2, 4) as a |> A(4, 2) as b")
    assert [p.factors[0] for _, p in e.graph.parameters()] == [(("k", 2), ("m", 4)), (("k", 4), ("m", 2))]


def test_defaults_count_as_used_after_a_body_was_read_in_place():
    model("default Linear(bias = false)\nshare e = RMSNorm()\nx = Linear(8)(x) as a\nreturn Pre(RMSNorm(), block(y) => e(y))(x) as p")


def test_what_a_block_requires_is_known_in_the_next_elaboration():
    spec = loads("""use std.linear { Linear }
block A()(x: [B, T, 8]) -> [B, T, 8] { require T % 4 == 0
  return Linear(8)(x) }
model M(k: int = 2)(x: [B, T, 8]) -> y: [B, T, 8] {
  z = rearrange(A()(x), [B, (g n), c] -> [B, g, n, c], g = 4)
  return rearrange(z, [B, g, n, c] -> [B, (g n), c]) * k
}
variant v { k = 3 }
variant w { k = 4 }
""")
    assert [len(spec.elaborate(v).graph.guards) for v in (None, "v", "w")] == [1, 1, 1]


def test_what_a_block_read_in_place_requires_is_guarded():
    block = "block A(f: block)(x: [B, T, 8]) -> [B, T, 8] { require T % 4 == 0\n return Linear(8)(f(x)) }\n"
    e = made(block + MODEL % "share n = RMSNorm()\nreturn A(n)(n(x))")
    assert [g.message for g in e.graph.guards] == ["T % 4 == 0 is required"]


def test_an_arm_of_a_phase_keeps_its_guards_and_knobs():
    arm = "block A(k: float = 3 in {2, 3})(x: [B, T, 8]) -> [B, T, 8] { require T % 4 == 0\n return x * k }\n"
    e = made(arm + MODEL % "return phase { train => A()(x) as a eval => x }")
    assert len(e.graph.guards) == 1 and list(e.knobs) == ["a.k"]


def test_an_arm_of_a_phase_emits_nothing():
    arm = "block A()(x: [B, T, 8]) -> [B, T, 8] { emit z = x\n return x * 2 }\n"
    assert fault(lambda: made(arm + MODEL % "return phase { train => A()(x) eval => x }")).code == "A0219"
    shared = "share a = A()\ny = a(x)\nreturn phase { train => a(y) eval => y }"
    assert fault(lambda: made(arm + MODEL % shared)).code == "A0219"


def test_an_argument_of_an_application_cannot_choose_an_initial_value():
    block = "block A()(x: [B, T, 8], s: float) -> [B, T, 8] { param w: [8] = constant(s)\nreturn x * w }\n"
    assert fault(lambda: made(block + MODEL % "share a = A()\nx = a(x, s = 1)\nreturn a(x, s = 2)")).code == "A0213"


def test_an_initialiser_reads_parameters_of_its_own_body_alone():
    text = "param a: [8] = ones()\nlayers: for i in range(2) { param b: [8] = a * 2\n x = x + b }\nreturn x * a"
    assert fault(lambda: model(text)).code == "A0204"


def test_a_setting_below_a_loop_named_as_a_parameter():
    text = "model M(layers: int = 2)(x: [B, T, 8]) -> y: [B, T, 8] { layers: for i in range(layers) { x = A()(x) as a }\nreturn x }"
    e = made(KNOB + text, **{"layers.0.a.k": 2})
    assert {k: v.value for k, v in e.knobs.items()} == {"layers": 2, "layers.0.a.k": 2, "layers.1.a.k": 3}


def test_addresses_are_the_same_whether_a_share_is_shared():
    for text in ("share f as g = Linear(8) when tied\nreturn f(x)", "share f = [Linear(8), Linear(8)] when tied\nreturn f[1](f[0](x))"):
        apart, together = (addresses(model(text, params="tied: bool = true", tied=t)) for t in (False, True))
        assert apart == together


def test_a_reserved_word_inside_an_address_is_refused():
    text = "share e = RMSNorm()\nreturn Pre(RMSNorm(), block(y) => e(y) |> Linear(8) as train)(x) as p"
    assert fault(lambda: model(text)).code == "A0210"


EXTERN = "extern block E(k: int)(x: [B, T, 8]) -> [B, T, 8]\nblock W(k: int)(x: [B, T, 8]) -> [B, T, 8] { return E(k)(x) }\n"


def test_an_extern_block_keeps_the_address_of_the_block_around_it():
    e = made(EXTERN + MODEL % "return x |> W(3) as a |> W(3) as b")
    assert [n.attrs["path"] for n in calls(e)] == ["a", "b"]


def test_an_extern_block_needs_an_address_and_is_not_shared():
    assert fault(lambda: made(EXTERN + MODEL % "for i in range(2) { x = E(i)(x) }\nreturn x")).code == "A0212"
    assert fault(lambda: made(EXTERN + MODEL % "share e = E(2)\nreturn e(x)")).code == "A0218"


def test_settings_as_expressions_are_told_apart():
    spec = loads("model M(k: int = 2)(x: [B, T, 8]) -> y: [B, T, 8] { return x * k }")
    assert [spec.elaborate(knobs={"k": expression(str(k))}).knobs["k"].value for k in range(20)] == list(range(20))


def test_layouts_as_templates_are_told_apart_by_what_they_apply():
    block = "block A(f: block)(x: [B, T, 8]) -> [B, T, 8] { g = under([B, T, c] -> [T, B, c], f)\n return Pre(RMSNorm(), g)(x) as p }\n"
    e = made(block + MODEL % "return x |> A(relu) as a |> A(gelu) as b")
    assert {"relu", "gelu"} <= {n.op for g in e.graph.definitions() for n in g.nodes}


def test_ops_as_arguments_are_told_apart():
    session = Session(Library())
    names = ("relu", "gelu", "silu", "tanh", "sigmoid")
    assert len({session.key(library.find(name)) for name in names}) == len(names)
    assert session.key(library.find("relu")) == session.key(library.find("relu"))


def test_names_beside_a_sequence_of_axes():
    for name in ("s1", "s9"):
        e = made(f"model M()(x: [B, 3, 5, 7]) -> y: [B, 7, 3, 5] {{ return rearrange(x, [B, *s, {name}] -> [B, {name}, *s]) }}")
        assert str(e.graph.outputs[0].type) == "[B, 7, 3, 5]"


def test_a_match_compares_numbers_by_value():
    assert model("return match k { 2 => x  _ => relu(x) }", params="k: float = 2.0").graph.outputs[0].node.op == "input"


CHOSEN = """use std.channel { MLP }
use std.linear { Linear }
model M(d: int = 8, depth: int = 3)(x: [B = 1, d]) -> y: [B, d] {
  layers: for i in range(depth) {
    choose f { linear => Linear(d)  mlp(hidden: int = 16 in {16, 32}) => MLP(hidden) } = linear
    x = f(x) as map
  }
  return x
}
"""


def test_passes_with_the_same_settings_are_one_definition():
    spec = loads(CHOSEN)
    graph = spec.graph(**{"layers.0.f": "mlp", "layers.1.f": "linear", "layers.2.f": "mlp"})
    first, second, third = (graph.children[f"layers.{i}"] for i in range(3))
    assert first is third is not second
    again = spec.graph(**{"layers.0.f": "mlp", "layers.0.f.hidden": 32, "layers.2.f": "mlp"})
    assert again.children["layers.2"] is first is not again.children["layers.0"]
    assert again.hash == loads(CHOSEN).graph(**{"layers.0.f": "mlp", "layers.0.f.hidden": 32, "layers.2.f": "mlp"}).hash


def test_a_setting_that_reaches_nothing_is_told_though_the_pass_is_known():
    spec = loads(CHOSEN)
    for _ in range(2):
        spec.elaborate(None, {"layers.*.f": "mlp", "layers.1.f.hidden": 32})
        for settings in ({"layers.*.f": "mlp", "layers.1.f.width": 32}, {"layers.1.f": "linear", "layers.1.f.hidden": 32}):
            with pytest.raises(ArchError, match="A0215"):
                spec.elaborate(None, settings)


def test_an_op_on_the_same_types_is_inferred_once(monkeypatch: pytest.MonkeyPatch):
    """The graphs are those of a session that infers each application anew, in fewer inferences."""
    infer, counts, found = ops.infer, [], []

    def counted(*args: Any) -> Any:
        counts[-1] += 1
        return infer(*args)

    monkeypatch.setattr(ops, "infer", counted)
    for form in (ops._form, lambda *_: None):
        monkeypatch.setattr(ops, "_form", form)
        counts.append(0)
        found.append([s.elaborate(v).graph.hash for s in load("t5").models.values() for v in (None, *s.variants)])
    assert found[0] == found[1]
    assert counts[0] < 0.8 * counts[1]


def test_attributes_tell_applications_of_an_op_apart():
    """Equal numbers of other types are other attributes."""
    graph = loads("model M()(x: [B, 4]) -> y: [B, 4] { return softcap(x, 2) + softcap(x, 2.0) + softcap(x, 3) }").graph()
    assert [repr(n.attrs["cap"]) for n in graph.nodes if n.op == "softcap"] == ["2", "2.0", "3"]


def test_an_op_of_one_tensor_twice_is_not_that_of_two():
    """Nor the other way round: operands are those that were given, whatever was applied before to the same types."""
    e = model("a = x + x\nb = x - x\nc = x - a\nd = maximum(x, x)\nreturn a + b * c + d + maximum(a, c)")
    (x,) = e.graph.inputs
    a, b, c, d = [n for n in e.graph.nodes if n.op in ("add", "sub", "maximum")][:4]
    assert [n.args for n in (a, b, c, d)] == [(x, x), (x, x), (x, *a.values), (x, x)]
    sums = [n.args for n in e.graph.nodes if n.op == "maximum"]
    assert sums == [(x, x), (*a.values, *c.values)]


SIZES = """use std.linear { Linear }
block A()(x: [B, 8]) -> [B, 8] { return Linear(8)(x) as f }
block Quarters()(x: [B, T, 8]) -> [B, T, 8] {
  return rearrange(Linear(8)(rearrange(x, [B, (g n), c] -> [B, g, n, c], g = 4)) as f, [B, g, n, c] -> [B, (g n), c])
}
block Whole(n: int)(x: [B, 8]) -> [B, 8] {
  require n % 4 == 0
  return Linear(8)(x) as f
}
"""


def test_a_block_does_not_depend_on_facts_about_sizes_that_it_is_not_given(monkeypatch):
    ran: list[str] = []
    real = apply.run_body

    def counted(frame, template, *rest):
        ran.append(template.ref.decl.name)
        return real(frame, template, *rest)

    monkeypatch.setattr(apply, "run_body", counted)
    e = made(SIZES + """model M()(x: [B, 8], z: [B, T, 8]) -> ([B, 8], [B, T, 8]) {
  y = A()(x) as a
  require T % 4 == 0
  return A()(y) as b, z
}""")
    assert e.graph.children["a"] is e.graph.children["b"]
    assert ran.count("A") == 1


def test_a_block_depends_on_facts_about_sizes_that_are_tied_to_its_own():
    """The block is given T alone; that 4 divides it follows from what is known of S."""
    text = SIZES + """model M(k: bool = true)(x: [B, T, 8], z: [B, S, 8]) -> ([B, T, 8], [B, S, 8]) {
  require S == 2 * T
  if k { require S % 8 == 0 }
  return Quarters()(x) as q, z
}
variant v { k = false }
"""
    (fault,) = [d for d in check_text(text, "a.arch", trials=False) if d.severity == "error"]
    assert (fault.code, fault.notes) == ("A0308", ("in the variant `v`",))


@pytest.mark.parametrize("first", [None, "v"])
def test_a_block_depends_on_facts_about_sizes_in_its_arguments(first):
    text = SIZES + """model M(k: bool = true)(x: [B, 8], z: [B, T, 8]) -> ([B, 8], [B, T, 8]) {
  if k { require T % 4 == 0 }
  return Whole(T)(x) as w, z
}
variant v { k = false }
"""
    spec = loads(text)
    spec.elaborate(first)
    guards = {variant: [str(g.left) for g in spec.elaborate(variant).graph.children["w"].guards] for variant in (None, "v")}
    assert guards[None] == []  # it is known
    assert len(guards["v"]) == 1
