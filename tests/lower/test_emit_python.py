"""model.py: plain PyTorch that computes the same from the same weights."""
from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lowered import CONVNET, LLAMA, ROUTED, SIGMA, build, image, tokens

from archdsl.diagnostics.model import ArchError
from archdsl.lower.emit_python import python_source
from archdsl.spec import load, loads

SPECS = Path(__file__).parents[2] / "specs"
STAGES = """
use std.linear { Linear }
model Stages()(x: [B, 4]) -> y: [B, 4] {
  stages: for i, n in enumerate([2, 3]) {
    blocks: for j in range(n) { x = x + dropout(Linear(8 * (i + 1))(x) as up |> gelu |> Linear(4) as down, 0.1 * j) }
  }
  return x
}
"""
PHASES = """
model M()(x: [B, 4]) -> y: [B, 4] {
  param w: [4] = 2 * ones() + 1
  const scale: [4] = [1, 2, 3, 4]
  return phase { train => x * w  eval => x + w } * scale
}
"""


def same(model, *inputs) -> str:
    """Asserts that the written model agrees in both phases, in names, statistics and results; returns its text."""
    text = python_source(model)
    namespace: dict = {}
    exec(compile(text, "model.py", "exec", dont_inherit=True), namespace)
    other = namespace[type(model).__name__]()
    other.load_state_dict(model.state_dict())
    assert list(other.state_dict()) == list(model.state_dict())
    for train in (True, False):
        results = []
        for m in (model.train(train), other.train(train)):
            torch.manual_seed(0)
            results.append(m(*inputs))
        torch.testing.assert_close(*results)
    torch.testing.assert_close(dict(other.named_buffers()), dict(model.named_buffers()))
    return text


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("text", "inputs"), [(LLAMA, tokens()), (CONVNET, image()), (SIGMA, torch.randn(2, 6)), (STAGES, torch.randn(2, 4)),
                                              (PHASES, torch.randn(2, 4))], ids=["llama", "convnet", "sigma", "stages", "phases"])
def test_written_models_agree(text, inputs, flat):
    same(build(text, flat=flat), inputs)


@pytest.mark.parametrize(("path", "knobs", "inputs"), [
    ("language/llama.arch", {"vocab": 64, "d": 128, "depth": 2, "heads": 8, "hidden": 256}, tokens()),
    ("language/gpt2.arch", {"vocab": 64, "d": 64, "depth": 2, "heads": 4}, tokens()),
    ("vision/convnext.arch", {"widths": [32, 32, 64, 64], "depths": [2, 2, 3, 2], "classes": 5}, torch.randn(2, 3, 64, 32)),
    ("vision/vit.arch", {"d": 128, "heads": 2, "depth": 2, "classes": 5, "side": 64, "patch": 16}, torch.randn(2, 3, 64, 64)),
], ids=["llama", "gpt2", "convnext", "vit"])
def test_shipped_specs(path, knobs, inputs):
    same(load(SPECS / path).build(knobs=knobs), inputs)


def test_emitted_values_are_returned():
    model = build(ROUTED, emit=("**.balance",))
    namespace: dict = {}
    exec(python_source(model), namespace)
    other = namespace["Routed"]()
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 4)
    torch.testing.assert_close(other(x), model(x))


def test_a_block_named_as_a_builtin_leaves_it_alone():
    model = build("""
use std { Linear }
block ValueError()(x: [B, d]) -> [B, d] { return x |> Linear(d) as lin }
model Net(d: int = 8)(x: [B, d]) -> [B, d] {
  x = ValueError()(x) as h
  return x |> Linear(d) as head
}
""")
    namespace: dict = {}
    exec(python_source(model), namespace)
    other = namespace["Net"]()
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 8)
    torch.testing.assert_close(other(x), model(x))
    with pytest.raises(ValueError, match="8"):
        other(torch.randn(2, 9))


def test_reads_well(golden):
    assert python_source(build(CONVNET)) == golden


NAMED = """
use std.channel { MLP }
use std.linear { Linear }
use std.residual { Pre }
use std.norm { LayerNorm }
/// Two stages. `rate` is something else. Mixes by `mix`.
model Named(rate: float = 0)(x: [B, T, 4]) -> y: [B, T, 8] {
  shift = (iota(T) |> as_type(x)) |> rearrange([T] -> [T, 1])
  x = x + shift * x
  x = Pre(LayerNorm(), MLP(12))(x) as one
  x = Linear(8)(x) as mix
  return Pre(LayerNorm(), MLP(20))(x) as two
}
"""


def test_names_and_numbers_say_what_they_are():
    model = build(NAMED)
    text = same(model, torch.randn(2, 3, 4))
    rope = python_source(build(LLAMA))
    assert "getitem" not in rope and "position = torch.arange(" in rope
    assert "hidden: int" in text and "out2" not in text
    assert "a=-(i**-0.5), b=i**-0.5" in text and "a=math.sqrt(5)" in text
    assert '"""Two stages. Mixes by `mix`."""' in text and "unit_drop" not in text


DROPPED = """use std { Attention, Linear, MLP, Pre, RMSNorm }

model Net(d: int = 16)(x: [B, T, d]) -> y: [B, T, d] {
  layers: for i in range(2) {
    x = Pre(RMSNorm(), Attention(2, mask = causal, drop = 0.1))(x) as attn
    x = Pre(RMSNorm(), MLP(2 * d))(x) as mlp
  }
  return x |> Linear(d) as head
}
"""


def test_of_a_sentence_about_arguments_what_the_block_is_stays():
    text = python_source(build("""use std { Linear, Pre, RMSNorm }
/// A map of parts: each of `count` parts by itself. With `count` parts of different sizes.
block Parts(count: int)(x: [B, d]) -> [B, d] {
  a, b = split(x, [3, d - 3])
  return concat([b, a]) |> Linear(d, init = trunc_normal(std = 0.5)) as map
}
model M()(x: [B, 8]) -> y: [B, 8] { return x |> Pre(RMSNorm(), Parts(2)) as parts }
"""))
    assert 'the norm in front of the branch. A map of parts."""' in text
    assert "torch.split(self.norm(x), [3, 5], dim=-1)" in text and "mean=0.0, std=0.5, cut=2.0)" in text


def test_phases_are_branches_and_classes_say_how_they_differ():
    text = same(build(DROPPED), torch.randn(2, 5, 16))
    assert "        if self.training:\n            scores = q @ k.mT" in text and "        else:\n            y = F.scaled_dot" in text
    assert "class Train" not in text and "train_arm" not in text
    assert "class LinearWithBias(nn.Module):" in text and "Linear2" not in text


def test_training_of_a_written_phase_is_the_same():
    model = build(DROPPED)
    namespace: dict = {}
    exec(python_source(model), namespace)
    written = namespace["Net"]()
    written.load_state_dict(model.state_dict())
    x = torch.randn(2, 5, 16)
    made = []
    for m in (model, written):
        torch.manual_seed(3)
        made.append(m.train()(x))
    torch.testing.assert_close(*made)


def test_bounds_are_those_of_the_spec():
    """A bound computed from the fan-in is the number that the graph holds."""
    namespace: dict = {}
    exec(python_source(build(NAMED)), namespace)
    torch.manual_seed(0)
    drawn = torch.cat([namespace["Named"]().mix.bias.detach() for _ in range(2000)])
    assert 0.499 < drawn.abs().max().item() <= 0.5


def test_printing_a_model_shows_the_shapes_of_its_weights():
    text = repr(build(NAMED))
    assert "(mix): Linear(weight: [8, 4], bias: [8])" in text and "(up): Linear(weight: [12, 4], bias: [12])" in text


def test_numbers_that_differ_are_arguments():
    text = python_source(build(STAGES))
    assert text.count("class Linear") <= 2
    assert "nn.ModuleList(" in text
    assert "def __init__(self, " in text
    assert "for block in self.blocks:" in text


@pytest.mark.parametrize("text", [LLAMA, CONVNET, SIGMA, STAGES, PHASES], ids=["llama", "convnet", "sigma", "stages", "phases"])
def test_imports_torch_alone_and_is_clean(text, tmp_path):
    source = python_source(build(text))
    found = {n.name.split(".")[0] for s in ast.walk(ast.parse(source)) if isinstance(s, ast.Import) for n in s.names}
    found |= {str(s.module).split(".")[0] for s in ast.walk(ast.parse(source)) if isinstance(s, ast.ImportFrom)}
    assert found <= {"torch", "math"}
    file = tmp_path / "model.py"
    file.write_text(source)
    pytest.importorskip("ruff")
    config = Path(__file__).parents[2] / "pyproject.toml"
    checked = subprocess.run([sys.executable, "-m", "ruff", "check", "--config", str(config), str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_initial_values_are_those_of_the_spec():
    namespace: dict = {}
    exec(python_source(build(PHASES)), namespace)
    assert torch.equal(namespace["M"]().w, torch.full((4,), 3.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_initial_values_are_computed(dtype):
    """By whatever expression, of numbers, indices and draws; what has no form in plain torch is NaN until it is loaded, not memory of before."""
    model = build("""model M()(x: [B, 6]) -> y: [B, 6] {
  param ramp: [6] = log(cumsum(ones()))
  param one: [6, 6] = cast(one_hot(iota(6), 6), "float")
  param rows: [2, 6] = constant([1, 2, 3, 4, 5, 6])
  param steps: [6] = constant([1, 2, 3, 4, 5, 6])
  param wide: [2, 6] = log(1 + cumsum(constant([1, 2, 3, 4, 5, 6])))
  param rate: [6] = log(uniform(2, 16))
  param skew: [6, 6] = cast(distance(6), "float")
  buffer mean: [6] = sqrt(2 * ones())
  return (x @ one + x @ skew) * ramp * rate * rows[0] * steps * wide[1] + mean
}""", dtype=dtype)
    namespace: dict = {}
    exec(python_source(model), namespace)
    other = namespace["M"]()
    for name in ("ramp", "one", "mean", "rows", "steps", "wide"):
        assert torch.equal(getattr(other, name), getattr(model, name)) and getattr(other, name).dtype == dtype, name
    assert ((other.rate.exp() > 1.9) & (other.rate.exp() < 16.2)).all() and len(set(other.rate.tolist())) > 1
    assert other.skew.isnan().all() and not model.skew.isnan().any()


def test_a_recurrence_is_written_once():
    """However many blocks of different widths call it."""
    text = python_source(build("""use std { CausalConv, Linear }
model M()(x: [B, T, 4]) -> y: [B, T, 8] stream T {
  return x |> CausalConv() as near |> Linear(8) as up |> CausalConv(kernel = 3) as far
}"""))
    assert text.count("(torch.autograd.Function)") == 1 and text.count("def causal_conv(") == 1


def test_names_of_types_that_a_recurrence_speaks_of_are_written():
    """They are evaluated where its functions are declared."""
    model = build("""use std { Mamba2 }
model M()(x: [B, T, 8]) -> y: [B, T, 8] stream T { return x |> Mamba2(state = 4, head_dim = 8) as mix }
""")
    assert "Product = Callable[..., Any]" in same(model, torch.randn(2, 5, 8))


def test_other_dtypes_are_written():
    text = python_source(build(PHASES, dtype=torch.float64))
    assert "dtype=torch.float64" in text
    same(build(PHASES, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64))


def test_edited_models_are_refused():
    model = build(LLAMA)
    model.layers[0].recompile()
    with pytest.raises(ValueError, match=r"layers\.0 was edited"):
        python_source(model)


def test_a_graph_is_enough():
    assert python_source(build(LLAMA).typed) == python_source(build(LLAMA))


def test_extern_blocks_have_no_text():
    text = "extern block F()(x: [B, d]) -> [B, d]\nmodel M()(x: [B, 4]) -> y: [B, 4] { return F()(x) as f }"
    model = build(text, bind={"F": torch.nn.Identity})
    assert torch.equal(model(torch.ones(2, 4)), torch.ones(2, 4))
    with pytest.raises(ArchError, match="A0514"):
        python_source(model)
    with pytest.raises(ArchError, match="A0513"):
        build(text)


@pytest.mark.parametrize("initial", ["kaiming_uniform(a = 1)", "xavier_normal()", "lecun_normal()", "orthogonal()", "eye()"])
def test_weights_without_elements(initial: str):
    """They have no initial values, in the model and in its text."""
    text = f"""block Wide(n: int)(x: [B, d]) -> [B, n] {{
  param weight: [n, d] = {initial}
  return linear(x, weight)
}}
model M()(x: [B, 5]) -> y: [B, 3] {{
  return x |> Wide(0) as empty |> Wide(3) as out
}}
"""
    model = loads(text).build()
    namespace: dict = {}
    exec(python_source(model), namespace)
    other = namespace["M"]()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(torch.randn(2, 5)), model(torch.zeros(2, 5)))


TOLD = """use std.linear { Linear }

block Told()(x: [B, T, d]) -> [B, T, d] {
  g = sigmoid(Linear(d)(x) as gate)
  emit open = mean(g, axis = -1)
  return g * x
}

model Net(d: int = 4)(x: [B = 1, T = 3, d]) -> (y: [B, T, d], open: [B, T]) stream T {
  layers: for i in range(2) { x = x + Told()(x) as mix }
  return x, open = sum(collect(open))
}
"""


@pytest.mark.parametrize(("form", "told"), [("parallel", "(x: [B, T, 4]) -> [B, T, 4], open: [B, T]"),
                                            ("step", "(x: [B, 1, 4]) -> [B, 1, 4], open: [B, 1]")])
def test_signatures_tell_of_emitted_values(form: str, told: str):
    """`forward` of a block gives them behind its results."""
    block = next(c for c in ast.parse(python_source(loads(TOLD).build(form=form))).body if isinstance(c, ast.ClassDef) and c.name == "Told")
    forward = next(f for f in block.body if isinstance(f, ast.FunctionDef) and f.name == "forward")
    assert ast.get_docstring(forward) == told and ast.unparse(forward.returns or forward) == "tuple[Tensor, Tensor]"
