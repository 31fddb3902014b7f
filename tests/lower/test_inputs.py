"""What a built model is called with: sizes that would broadcast unnoticed are refused."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch

import archdsl

SUM = """model M(d: int = 8)(x: [B, T, d], y: [B, S, d], z: [B]) -> y: [B, T, d] {
  return x + mean(y, axis = 1, keep = true) + rearrange(z, [B] -> [B, 1, 1])
}"""


@pytest.fixture(scope="module", params=[False, True], ids=["hierarchy", "flat"])
def net(request):
    return archdsl.loads(SUM).build(flat=request.param)


@pytest.mark.parametrize("shapes", [((2, 3, 8), (2, 4, 8), (2,)), ((1, 1, 8), (1, 1, 8), (1,)), ((2, 3, 8), (2, 3, 8), (2,))])
def test_sizes_that_vary_may_vary(net, shapes):
    x, y, z = map(torch.rand, shapes)
    assert torch.allclose(net(x, y, z), x + y.mean(1, keepdim=True) + z[:, None, None])


@pytest.mark.parametrize(("shapes", "said"), [
    (((2, 3, 8), (1, 4, 8), (2,)), "the input `y` is [B, S, 8], B = 2, S = 4: this is [1, 4, 8]"),
    (((2, 3, 8), (2, 4, 8), (1,)), "the input `z` is [B], B = 2: this is [1]"),
    (((2, 3, 1), (2, 4, 8), (2,)), "the input `x` is [B, T, 8], B = 2, T = 3: this is [2, 3, 1]"),
    (((2, 3, 8), (4, 8), (2,)), "the input `y` is [B, S, 8]: this is [4, 8]"),
])
def test_sizes_that_would_broadcast_are_refused(net, shapes, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        net(*map(torch.zeros, shapes))


def test_a_square_input_is_square():
    net = archdsl.loads("model M()(x: [B, T, T]) -> y: [B, T, T] { return x + rearrange(x, [B, T, S] -> [B, S, T]) }").build()
    with pytest.raises(ValueError, match=r"the input `x` is \[B, T, T\], B = 2, T = 1: this is \[2, 1, 3\]"):
        net(torch.zeros(2, 1, 3))


def test_the_number_of_axes_is_checked():
    net = archdsl.loads("model M()(x: [B, T]) -> y: [B] { return sum(x, axis = 1) }").build()
    with pytest.raises(ValueError, match=r"^the input `x` is \[B, T\]: this is \[2, 3, 4\]$"):
        net(torch.zeros(2, 3, 4))


def test_computed_sizes_are_checked():
    net = archdsl.loads("model M()(x: [B, T], y: [B, 2 * T]) -> z: [B, 2 * T] { return concat([x, x], axis = 1) + y }").build()
    assert net(torch.zeros(2, 3), torch.zeros(2, 6)).shape == (2, 6)
    with pytest.raises(ValueError, match=r"^the input `y` is \[B, 2\*T\], B = 2: this is \[2, 1\]$"):
        net(torch.zeros(2, 3), torch.zeros(2, 1))


def test_the_check_compiles_and_exports():
    net = archdsl.loads(SUM).build()
    inputs = torch.rand(2, 3, 8), torch.rand(2, 4, 8), torch.rand(2)
    assert torch.equal(torch.compile(net, fullgraph=True, backend="eager")(*inputs), net(*inputs))
    B, T, S = map(torch.export.Dim, "BTS")
    program = torch.export.export(net, inputs, dynamic_shapes=({0: B, 1: T}, {0: B, 1: S}, {0: B}))
    more = torch.rand(5, 7, 8), torch.rand(5, 2, 8), torch.rand(5)
    assert torch.equal(program.module()(*more), net(*more))


def test_a_seed_is_a_whole_number():
    spec = archdsl.loads(SUM)
    with pytest.raises(TypeError, match="seed is a whole number, not 'a'"):
        spec.build(seed="a")  # pyright: ignore[reportArgumentType]  (the fault that is tested)


def test_a_class_is_for_an_extern_block():
    text = "extern block Mine(n: int)(x: [..., d]) -> [..., d]\nmodel M()(x: [B, 8]) -> y: [B, 8] { return Mine(3)(x) as mine }"
    with pytest.raises(archdsl.ArchError) as caught:
        archdsl.loads(text).build(bind={"Mne": torch.nn.Identity})
    (d,) = caught.value.diagnostics
    assert d.code == "A0513" and "Mne" in d.message and d.help == ("did you mean `Mine`?",)


def test_a_size_that_a_sum_tells_is_not_negative():
    net = archdsl.loads("model M()(x: [B, T + 3]) -> y: [B, T] { return x[:, :T] }").build()
    assert net(torch.zeros(2, 5)).shape == (2, 2)
    with pytest.raises(ValueError, match=r"^the input `x` is \[B, T \+ 3\]: `T` would be negative$"):
        net(torch.zeros(2, 2))


def test_sizes_are_asked_for_in_order_and_where_something_tells_them():
    names = ["Q", "R", "S", "T", "U"]
    text = f"model M()(x: [{' + '.join(reversed(names))}], {', '.join(f'{n.lower()}: [{n} + 1]' for n in names)}) -> y: [1] {{ return sum(x)[none] }}"
    net = archdsl.loads(text).build()
    asked = [line for line in net.code.splitlines() if "would be negative" in line]
    assert [line.split("`")[3] for line in asked] == names
    for one in ("x: [T + S + 3]", "x: [T + S + 3], y: [T + 2 * S + 1]"):  # neither size is known
        net = archdsl.loads(f"model M()({one}) -> y: [1] {{ return sum(x)[none] }}").build()
        assert "negative" not in net.code and net(*[torch.ones(7)] * one.count(":")).item() == 7


# ---------------------------------------------------------------- element types
TYPED = """use std.embed { TokenEmbedding }
use std.linear { Linear }
model Net()(tokens: int[B, T], image: [B, T, 8], keep: bool[B, T]) -> y: [B, T, 8] {
  x = Linear(8)(image) as map + TokenEmbedding(10, 8)(tokens) as embed
  return where(keep[:, :, none], x, 0)
}"""


def typed(**types: torch.dtype) -> dict[str, torch.Tensor]:
    given = {"tokens": torch.ones(1, 3), "image": torch.ones(1, 3, 8), "keep": torch.ones(1, 3)}
    usual = {"tokens": torch.int64, "image": torch.float32, "keep": torch.bool}
    return {name: x.to(types.get(name, usual[name])) for name, x in given.items()}


@pytest.mark.parametrize(("types", "told"), [
    ({"tokens": torch.float32}, "the input `tokens` holds whole numbers, torch.int64: this one holds torch.float32"),
    ({"image": torch.bfloat16}, "the input `image` holds torch.float32, as the weights do: this one holds torch.bfloat16"),
    ({"image": torch.int64}, "the input `image` holds torch.float32, as the weights do: this one holds torch.int64"),
    ({"keep": torch.float32}, "the input `keep` holds torch.bool: this one holds torch.float32"),
])
def test_another_element_type_is_told(types: dict[str, torch.dtype], told: str):
    model, given = archdsl.loads(TYPED).build(), typed(**types)
    for call in (lambda: model(*given.values()), lambda: model(**given)):
        with pytest.raises(ValueError, match=re.escape(told)) as caught:
            call()
        assert isinstance(caught.value.__cause__, RuntimeError)  # what torch said


def test_element_types_that_fit_are_let_through():
    """Narrower integers, cast models, autocast; and a fault of another kind is told as what it is."""
    model = archdsl.loads(TYPED).build()
    assert model(**typed(tokens=torch.int32)).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(model(**typed(image=torch.bfloat16))).all()
        with pytest.raises(ValueError, match=r"as the weights do: this one holds torch.float64"):
            model(**typed(image=torch.float64))
    with pytest.raises(IndexError, match="its table has 10 rows"):
        model(**{**typed(), "tokens": torch.full((1, 3), 10)})
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half(**typed(image=torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"holds torch.bfloat16, as the weights do: this one holds torch.float32"):
        half(**typed())
    double = pickle.loads(pickle.dumps(model)).double()
    with pytest.raises(ValueError, match=r"holds torch.float64, as the weights do: this one holds torch.float32"):
        double(**typed())


LOOKED_UP = """use std { Linear, TokenEmbedding }
model M()(tokens: int[B, T]) -> logits: [B, T, 7] stream T {
  return tokens |> TokenEmbedding(7, 4) as embed |> dropout(0.5) |> Linear(7) as head
}"""


@pytest.mark.parametrize("form", ["parallel", "extend", "step"])
def test_tokens_outside_of_the_vocabulary(form):
    """Told with the op, its place, the token and the tokens that there are, whether whole or narrow numbers; nothing is drawn twice."""
    model = archdsl.loads(LOOKED_UP).build(form=form)
    length = 1 if form == "step" else 3
    for wrong, dtype in ((9, torch.int64), (-1, torch.int32)):
        tokens = torch.zeros(2, length, dtype=dtype)
        tokens[1, -1] = wrong
        told = rf"the input `tokens` holds {wrong}, and `embedding` takes 0 to 6: its table has 7 rows \(std/embed.arch:\d+: .*\), at `embed`"
        before = torch.get_rng_state()
        with pytest.raises(ValueError, match=told) as caught:
            model(tokens, *(() if form == "parallel" else (model.init_state(2, 8),)))
        assert isinstance(caught.value, IndexError)  # what torch raises, and what callers may catch
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("call", "wrong", "told"), [
    ("take(x, at, axis = 1)", [4, 9], "`take` takes 0 to 6"), ("take(x, stack([at, at]), axis = 1)", [0, -8], "`take` takes -7 to 6"),
    ("gather(x, stack([at, at]), axis = 1)", [-1, 0], "`gather` takes 0 to 6"),
    ("embedding_bag(stack([at, at]), rearrange(x, [B, n] -> [n, B]), x[:, :2])", [3, 8], "`embedding_bag` takes 0 to 6")])
def test_indices_outside_of_an_axis(call, wrong, told):
    model = archdsl.loads(f"model M()(x: [2, 7], at: int[2]) -> y: [...] {{ return {call} }}").build()
    x = torch.randn(2, 7)
    assert model(x, torch.tensor([1, 6])).isfinite().all()
    holder = "the input `at`" if "[at" not in call else "its index"
    number = next(i for i in wrong if not 0 <= i <= 6)
    with pytest.raises(ValueError, match=f"^{holder} holds {number}, and {told}: its table has 7 rows"):
        model(x, torch.tensor(wrong))


def test_an_index_outside_of_a_table_behind_statistics():
    """Statistics are those of one call, and the place is the line that looks up."""
    model = archdsl.loads("""use std { BatchNorm }
model M()(x: [B, 3], at: int[N]) -> (y: [B, 3], z: [N, 3]) {
  y = BatchNorm()(x) as norm
  return y, take(x, at, axis = 0)
}""").build()
    x, before = torch.randn(4, 3), model.norm.running_mean.clone()
    model(x, torch.tensor([3]))
    once = model.norm.running_mean.clone()
    model.norm.running_mean.copy_(before)
    with pytest.raises(IndexError, match=r"the input `at` holds 4, .*:4: return y, take"):
        model(x, torch.tensor([4]))
    assert torch.equal(model.norm.running_mean, once)


DOWN = """use std.vision { Conv }
use std.norm { BatchNorm }
block Down(c: int)(x: [B, i, H, W]) -> [B, c, _, _] { return x |> Conv(c, 3, stride = 2) as conv |> BatchNorm() as norm }
model M()(x: [B, 3, H, W]) -> y: [B, 8, _, _] {
  stages: for i in range(3) { x = Down(8)(x) as down }
  return max_pool(x, 2, stride = 1)
}"""


@pytest.mark.parametrize("flat", [False, True], ids=["hierarchy", "flat"])
@pytest.mark.parametrize(("shape", "op", "told"), [
    ((1, 3, 6, 9), "conv", "a kernel of 3 does not fit on an axis of 2"),
    ((2, 3, 15, 23), "max_pool", "a kernel of 2 does not fit on an axis of 1"),
    ((1, 3, 15, 15), "batch_norm", "in training it needs more than one number of each channel"),
])
def test_inputs_too_small_for_an_op_are_told(shape, op, told, flat):
    """Which op, why, and where in the text of the user; what fits goes through."""
    model = archdsl.loads(DOWN, "net.arch").build(flat=flat)
    assert model(torch.rand(2, 3, 23, 23)).shape == (2, 8, 1, 1)
    with pytest.raises(ValueError, match=rf"^`{op}` does not fit these inputs: .*{told}.* \(net\.arch:[36]\b") as caught:
        model(torch.rand(shape))
    assert isinstance(caught.value.__cause__, (RuntimeError, ValueError))  # what torch said


@pytest.mark.parametrize("how", ["8", "8, axes = [0]", "4, symmetric = false"])
def test_no_numbers_have_no_scale(how):
    model = archdsl.loads(f"model M()(x: [B, 8]) -> y: [B, 8] {{ return fake_quantize(x, {how}) }}").build()
    with pytest.raises(ValueError, match="`fake_quantize` does not fit these inputs: there is no scale of no numbers"):
        model(torch.zeros(0, 8))


def test_a_block_alone_in_the_batch_is_evaluated():
    model = archdsl.loads(DOWN).build().eval()
    with pytest.raises(ValueError, match=r"^`max_pool`"):
        model(torch.rand(1, 3, 15, 15))  # no word of statistics
