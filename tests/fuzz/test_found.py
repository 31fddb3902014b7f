"""What the fuzzers found, one case or more for each kind: each is a diagnostic, or runs and gives what it says."""

from __future__ import annotations

import pytest
import torch

from archdsl.diagnostics.model import ArchError
from archdsl.printer import print_graph
from archdsl.spec import Spec, loads
from tests.fuzz.drive import drive, runs

INPUTS = "(x: [B = 2, T = 4, 8], n: int[B, T] in 0..<4, m: bool[B, T, 8])"


def spec(body: str, out: str = "[_, _, _]", params: str = "d: int = 8, flag: bool = true") -> Spec:
    uses = "use std.linear { Linear }\nuse std.norm { LayerNorm, RMSNorm }\nuse std.channel { MLP }\nuse std.residual { Residual }\n"
    return loads(f"{uses}model M({params}){INPUTS} -> y: {out} {{\n{body}\n}}\n")


def run(body: str, out: str = "[_, _, _]") -> tuple[torch.Tensor, ...]:
    """(x, n, m, y) of a model."""
    torch.manual_seed(0)
    given = torch.randn(2, 4, 8), torch.randint(0, 4, (2, 4)), torch.rand(2, 4, 8) > 0.5
    return *given, spec(body, out).build()(*given)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("softmax(x, axis = 1.5)", "A0204"),  # attributes are of the type that the signature says
        ("softmax(x, axis = T)", "A0304"),
        ('mean(x, axis = "a")', "A0204"),
        ("dropout(x, none)", "A0204"),
        ("attention(x, x, x, mask = none)", "A0204"),
        ("pad(x, 1)", "A0204"),
        ("sort(x, descending = 1)", "A0204"),
        ("slice(x, items = 1)", "A0304"),
        ("x[::T]", "A0304"),
        ("roll(x, 10 ** 30, axes = 1)", "A0221"),  # numbers that no int64 holds
        ("x + 10 ** 30", "A0221"),
        ("x * (T + 2 ** 64)", "A0221"),
        ("n < T * 2 ** 70", "A0221"),
        ("roll(x, T * 2 ** 70, axes = 1)", "A0221"),
        ("x[:, ::2 ** 40]", "A0304"),
        ("avg_pool(rearrange(x[..., 8:], [B, T, e] -> [B, e, T]), 2)", "A0304"),  # axes of no positions
        ("max(x[..., 8:])", "A0304"),
        ("argmax(x[..., 8:])", "A0304"),
        ("attention(x, x, x, mask = causal & window(2 ** 70))", "A0221"),
        ("attention(x, x, x, mask = window(T + 2 ** 70))", "A0221"),
        ("attention(x, x, x, mask = own_block(2, previous = 2 ** 63))", "A0221"),
        ("attention(x, x, x, mask = own_block(previous = 2))", "A0202"),
        ("layer_norm(x, 0.5)", "A0204"),  # numbers stand only where the op takes them
        ("x + normal()", "A0204"),
        ("concat([x, normal()])", "A0204"),
        ("where(true, x, x)", "A0204"),
        ("m and 1", "A0304"),
        ("layer_norm(x, m)", "A0304"),  # as many axes as the signature names
        ("conv(x, x, mean(x))", "A0304"),
        ("attend(mean(x, axis = -1), x)", "A0304"),
        ("avg_pool(x, 0)", "A0304"),  # counts
        ("unfold(x, 2, stride = 0)", "A0304"),
        ("unfold(x, 2, pad = T)", "A0304"),
        ("group_norm(x, groups = 0)", "A0304"),
        ("split(x, 0)", "A0304"),
        ("split(x, T)", "A0304"),
        ("split(x, 2 ** 40)", "A0304"),
        ("roll(x, [1, 2, 3], axes = [0, 1])", "A0304"),
        ("topk(x, 0)[0]", "A0304"),
        ("topk_mask(x, T)", "A0304"),
        ("layer_norm(x, count = 9)", "A0304"),
        ("sum(x, axis = [])", "A0304"),
        ("clamp(x)", "A0304"),
        ("n // 0", "A0304"),
        ("m - m", "A0304"),  # numbers, not truth values
        ("argmax(m)", "A0304"),
        ('pad(x, [(0, 0), (0, 0), (1, 1)], mode = "reflect", value = 1)', "A0304"),
        ("permutation(T, seed = 3)", "A0304"),
        ("batch_norm(x, eps = 0)", "A0304"),
        ("literal(value = [[1], [1, 2]])", "A0304"),
        ('literal(value = [0.5], dtype = "int")', "A0304"),
        ('literal(value = [0.5], dtype = "nothing")', "A0304"),
    ],
)
def test_arguments_of_ops(call: str, code: str):
    with pytest.raises(ArchError) as caught:
        spec(f"v = {call}\nreturn x")
    assert {d.code for d in caught.value.diagnostics} == {code}


def test_comparisons_of_comparisons():
    """Python reads `a > b == c` as a chain."""
    x, _, m, y = run("return (x > 0) == m", "bool[_, _, _]")
    assert torch.equal(y, (x > 0) == m)
    x, _, m, y = run("return m != (x > 0)", "bool[_, _, _]")
    assert torch.equal(y, m != (x > 0))


@pytest.mark.parametrize("text", ["m and flag", "flag and m", "m or not flag"])
def test_truth_values_beside_tensors(text: str):
    _, _, m, y = run(f"return {text}", "bool[_, _, _]")
    assert torch.equal(y, m)


def test_comparisons_with_run_time_sizes():
    _, n, _, y = run("return n + 1 < T", "bool[_, _]")
    assert torch.equal(y, n + 1 < 4)


def test_reductions_that_keep_all_axes():
    x, *_, y = run("return mean(x, keep = true) + sum(x, keep = true)")
    torch.testing.assert_close(y, (x.mean() + x.sum()).reshape(1, 1, 1))


def test_one_shift_for_several_axes():
    x, *_, y = run("return roll(x, 1, axes = [0, 2])")
    assert torch.equal(y, x.roll((1, 1), (0, 2)))


def test_clamping_whole_numbers_to_fractions():
    _, n, _, y = run('return clamp(cast(n, "f32"), low = 0.5)', "f32[_, _]")
    assert torch.equal(y, n.float().clamp(min=0.5))
    with pytest.raises(ArchError, match="A0304"):
        spec("return clamp(n, low = 0.5)", "[_, _]")


def test_slices_by_hyper_values_in_a_labelled_loop():
    x, *_, y = run("layers: for i in range(2) { param w: [d] = ones()\n x = concat([x[..., d // 2:], x[..., :d // 2]], axis = -1) * w }\nreturn x")
    assert torch.equal(y, x)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("(x: [B = T, T = 4, 8])", "A0309"),  # an example size is a number
        ("(x: int[B, T] in 0..<none)", "A0204"),  # so are the bounds of values
        ('(x: int[B, T] in "a"..3)', "A0204"),
        ("(x: int[B, T] in 0..<0)", "A0204"),
        ("(x: int[B, T] in T..<9)", "A0204"),
    ],
)
def test_inputs_of_models(header: str, code: str):
    with pytest.raises(ArchError, match=code):
        loads(f"model M(){header} -> y: [B] {{ return mean(x) + zeros_like(x) }}")


@pytest.mark.parametrize(
    "body",
    ["param lambda: [8] = ones()\nreturn x * lambda", "return x |> Linear(8) as return", "def: for i in range(2) { x = Linear(8)(x) }\nreturn x"],
)
def test_addresses_are_no_words_of_python(body: str):
    with pytest.raises(ArchError, match="A0210"):
        spec(body)


def closes(spec: Spec) -> None:
    made = spec.elaborate()
    assert loads(print_graph(made)).elaborate().graph.hash == made.graph.hash


def test_blocks_that_own_knobs_alone():
    """Their printed graph has no knobs: they are part of the body around them, and their knobs are there all the same."""
    made = loads(
        "block F(k: int = 2 in {2, 3})(x: [..., d]) -> [..., d] { return x * k }\n"
        "model M()(x: [B, 8]) -> y: [B, 8] { x = F()(x) as one\n layers: for i in range(2) { x = F()(x) as f }\n return x }\n"
        "variant v { one.k = 3, layers.1.f.k = 3 }"
    )
    closes(made)
    assert list(made.knobs) == ["one.k", "layers.0.f.k", "layers.1.f.k"]
    assert made.build("v")(torch.ones(1, 8)).unique().tolist() == [18]
    shared = loads(
        "block F(k: int = 2 in {2, 3})(x: [..., d]) -> [..., d] { return x * k }\n"
        "model M()(x: [B, 8]) -> y: [B, 8] { share f = F()\n return f(x) + f(x) }\nvariant v { f.k = 3 }"
    )
    closes(shared)
    assert list(shared.knobs) == ["f.k"] and shared.build("v")(torch.ones(1, 8)).unique().tolist() == [6]
    with pytest.raises(ArchError, match="A0211"):
        loads("block F(k: int = 2 in {2, 3})(x: [..., d]) -> [..., d] { return x * k }\nmodel M()(x: [B, 8]) -> y: [B, 8] { return F()(F()(x)) }")


def faults(text: str) -> list[str]:
    with pytest.raises(ArchError) as caught:
        loads(text)
    return [str(ArchError(d)) for d in caught.value.diagnostics]


@pytest.mark.parametrize(
    "body",
    [
        "return x\n x = relu(x)",
        "return x\n return x",
        "if d == 8 { return x\n x = relu(x) } else { return x }",
        "if d == 8 { return x } else { return 2 * x }\n return x",
        "match d { 8 => { return x } _ => { return 2 * x } }\n y = x",
    ],
)
def test_statements_behind_return(body: str):
    (told,) = faults(f"model M(d: int = 8)(x: [B, d]) -> y: [B, d] {{ {body} }}")
    assert "A0230" in told and "never reached" in told


def test_statements_behind_a_return_that_may_not_be():
    loads("fn f(n: int) -> int { if n > 3 { return n }\n return 2 * n }\nmodel M(d: int = f(3))(x: [B, d]) -> y: [B, d] { return x }")


def test_division_by_zero_says_what_is_zero():
    (told,) = faults("use std.mixer { Attention }\nmodel M(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] { return x |> Attention(heads = 0) as a }")
    assert "`d / heads` divides by zero" in told and "`heads` is 0" in told
    assert faults("use std.mixer { Attention }\nmodel M(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] { return x |> Attention(2, kv_heads = 0) as a }")
    for power in ("-0.5", "-2"):
        (told,) = faults(f"model M(w: int = 0)(x: [B, 8]) -> y: [B, 8] {{ s = w ** {power}\n return x * s }}")
        assert f"`w ** {power}` divides by zero" in told and "`w` is 0" in told


@pytest.mark.parametrize(
    ("call", "name"),
    [("mean(x, dim = -1)", "axis"), ("softmax(x, dim = 1)", "axis"), ("sum(x, keepdim = true)", "keep"), ("dropout(x, p = 0.1)", "rate")],
)
def test_names_of_torch(call: str, name: str):
    (told,) = faults(f"model M(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] {{ v = {call}\n return x }}")
    assert "A0202" in told and f"`{name}`" in told.partition("help")[2]


@pytest.mark.parametrize("body", ["rearrange(y, [B, T, d] -> [B, d, T])", "reduce(y, [B, T, d] -> [B, d], mean)", "x + y", "y"])
def test_no_requirement_that_hardly_a_size_fulfils(body: str):
    (told,) = faults(f"model M(d: int = 8)(x: [B, T, d]) -> y: [B, T, d] {{ y = x[:, ::2]\n return {body} }}")
    assert "require" not in told
    assert told.count("cannot be shown to be equal") <= 1


def test_a_requirement_that_helps_is_told():
    (told,) = faults("model M(d: int = 8)(x: [B, T, d]) -> y: [B, _, d] { return rearrange(x, [B, (n two), d] -> [B, n, (two d)], two = 2) }")
    assert "require T % 2 == 0" in told and told.count("T is not a multiple of 2") == 1


def test_sizes_that_divide_by_zero():
    """Other sizes are fine: the model is sound, and its example sizes are not."""
    made = loads("model M()(x: [B = 2, T = 4, 8]) -> y: [B, T, 8] { return x * floordiv(T, T - 4) }")
    with pytest.raises(ArchError, match=r"A0643.*T - 4, which divides, is 0 at B = 2, T = 4"):
        made.cost()
    assert made.cost(at={"T": 8}).params == 0
    assert made.build()(torch.ones(1, 8, 8)).unique().tolist() == [2]


def test_example_sizes_that_no_tensor_has():
    with pytest.raises(ArchError, match=r"A0602.*the example size `B` = 1,180,591,620,717,411,303,424 is too large"):
        loads("model M()(x: [B = 2 ** 70, 8]) -> y: [B, 4] { return x[..., :4] }").cost()


def test_costs_without_run_time_sizes():
    """Each figure's formula is the number itself."""
    fixed = loads("use std.linear { Linear }\nmodel M()(x: [2, 4, 8]) -> y: [2, 4, 3] { return Linear(3)(x) as a }").cost().to_json(by_layer=True)
    assert fixed["macs"] == fixed["formulas"]["macs"] == 2 * 4 * 8 * 3 and fixed["formulas"]["params"] == 27
    cost = loads("model M()(x: [B = 2, T = 4, 8]) -> y: [B, T, 8] { static B, T\n return x @ rearrange(x, [B, T, d] -> [B, d, T]) @ x }").cost()
    assert cost.formulas["macs"] == cost.macs == 2 * 2 * 4 * 4 * 8


def test_a_first_application_that_nothing_reads():
    """Two blocks with one set of weights; the graph is what is left of them."""
    block = "block Own(act: block)(x: [..., d]) -> [..., d] { return act(Linear(d)(x) as up) }\n"
    head = "use std.linear { Linear }\n" + block + "model M()(x: [B, 8]) -> y: [B, 8] {\n share f = Own(relu)\n share g of f = Own(silu)\n"
    unread = loads(head + " h = f(x)\n return g(x) }")
    closes(unread)
    assert unread.elaborate().graph.hash == loads(head + " return g(x) }").elaborate().graph.hash
    closes(loads(head + " h = f(x)\n return f(g(x)) }"))
    assert list(unread.build().state_dict()) == ["f.up.weight", "f.up.bias"]


def test_a_draw_that_nothing_reads():
    """A loop carries it on in vain: with modules it is made, flat it is not, and the draws behind it are others. Alike, they give the same."""
    sound = spec("y = dropout(x, 0.5)\nz = x\nlayers: for i in range(2) {\n z = dropout(Linear(8)(z) as f, 0.5)\n y = softcap(y, 30)\n}\nreturn z")
    runs(sound.elaborate(), sound, None)


def test_a_division_by_what_may_be_nothing():
    """Buckets of relative distances as many as positions: T - 1 divides, and is 0 at T = 1."""
    body = "v = RelativeBias(heads = 2, buckets = T)(x) as v\n return x"
    told = faults(f"use std.embed {{ RelativeBias }}\nmodel M()(x: [B = 2, T = 4, 8]) -> y: [B, T, 8] {{ {body} }}")
    assert "A0306" in told[0]


def test_a_position_that_the_example_has_not():
    assert drive("model M(d: int = 6)(x: [B = 2, T = 4, d]) -> out: [T, d] {\n  y = x[7]\n  return y\n}\n") == "checked"


@pytest.mark.parametrize("call", ["swiglu(x > 0, x)", "swiglu(x, x > 0)"])
def test_gates_are_floats(call):
    (told,) = faults(f"model M(d: int = 8)(x: [B, d]) -> y: [B, d] {{ return {call} }}")
    assert "A03" in told


def test_a_labelled_loop_that_gives_nothing():
    """Its blocks keep their weights, and a block without a result is never printed."""
    head = "use std.linear { Linear }\nmodel M()(x: [B = 2, T = 4, 8]) -> y: [B, T, 8] {\n"
    unread = loads(head + " stage: for i in range(2) { y = Linear(8)(x) as a }\n return x }")
    closes(unread)
    assert [n for n, _ in unread.build().named_parameters()] == [f"stage.{i}.a.{w}" for i in range(2) for w in ("weight", "bias")]


@pytest.mark.parametrize("length", ["2.5", '"a"', "-1", "true"])
def test_lengths_of_lists(length):
    told = faults(f"model M(a: list[int; {length}] = [1, 2, 3])(x: [B, 8]) -> y: [B, 8] {{ return x }}")
    assert len(told) == 1 and "A0204" in told[0] and "the length of a list is a whole number from 0" in told[0]


@pytest.mark.parametrize("call", ["embedding(n, w)", "embedding_bag(n, w, x)"])
def test_tables_without_rows(call):
    (told,) = faults(f"model M()(n: int[B, T], x: [B, T]) -> y: [...] {{ param w: [0, 8] = normal()\n return {call} }}")
    assert "there is no row that an index could choose" in told


def test_indices_that_are_computed():
    """What they are is data: the model is sound, and a row that is not there is told when it runs."""
    text = "model M()(x: [B = 2, 8]) -> y: [B, 4] { param w: [1, 4] = normal()\n return embedding(argmax(x) + 1, w) }"
    assert drive(text) == "run"
    with pytest.raises(IndexError):
        loads(text).build()(torch.ones(2, 8))


def test_an_initialiser_whose_square_is_beyond_floats():
    """Written, it is the number itself."""
    from archdsl.lower.emit_python import python_source

    assert "std=1e+308" in python_source(spec("param w: [8, 8] = normal(std = 1e308)\nreturn x @ w").build())


@pytest.mark.parametrize("init", ["none * ones()", "zeros() + none", "where(ones() > 0, none, zeros())"])
def test_an_initial_value_with_nothing_in_it(init):
    with pytest.raises(ArchError, match="A0204"):
        spec(f"param w: [8] = {init}\nreturn x * w")
