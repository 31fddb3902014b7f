"""model.py of each form, without archdsl: what the built model gives, the new state and gradients included; what it says of states that
do not fit; and folders and exports of these forms."""
from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import archdsl
from archdsl.lower.emit_python import python_source
from archdsl.lower.recurrences import Functions
from archdsl.ops.recurrent import KERNELS, RECURRENCES, Recurrence
from archdsl.ops.registry import load
from archdsl.store import compile_to
from tests.ops.cases import Call
from tests.streaming.forms import close, inputs_of, run, shaken
from tests.streaming.test_forms import SMALL

MIXERS = """
use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.norm { RMSNorm }

model Mixers(d: int = 12, heads: int = 3)(tokens: int[B, T] in 0..<11) -> y: [B, T, d] stream T {
  x = TokenEmbedding(11, d)(tokens) as embed
  layers: for i in range(2) {
    q = rearrange(Linear(d)(x) as q, [B, T, (h w)] -> [B, h, T, w], h = heads)
    k = rearrange(l2_norm(Linear(d)(x) as k), [B, T, (h w)] -> [B, h, T, w], h = heads)
    v = rearrange(Linear(d)(x) as v, [B, T, (h w)] -> [B, h, T, w], h = heads)
    y = MIXER
    x = x + (rearrange(y, [B, h, T, w] -> [B, T, (h w)]) |> RMSNorm() as norm |> Linear(d) as out)
  }
  return x + shift(x)
}
"""
TEXTS = {
    "gla": "gla(q, k, v, -exp(q), scale = 0.5)",
    "delta": "delta_rule(q, k, v, sigmoid(k[..., 0]))",
    "gated delta": "delta_rule(q, k, v, sigmoid(k[..., 0]), -exp(q[..., 0]))",
    "linear": "linear_attention(q, k, v, scale = 2)",
    "retention": "linear_attention(q, k, v, -0.1 * exp(q[..., 0] * 0))",
}


def spec_of(name: str) -> tuple[archdsl.Spec, str | None, dict[str, Any]]:
    if name in TEXTS:
        return archdsl.loads(MIXERS.replace("MIXER", TEXTS[name])), None, {}
    return archdsl.load(name), *SMALL[name]


def written(model: Any) -> Any:
    """What model.py makes, with the same weights."""
    namespace: dict[str, Any] = {}
    text = python_source(model)
    assert "import archdsl" not in text and "ops.archdsl" not in text
    exec(compile(text, "model.py", "exec", dont_inherit=True), namespace)
    other = namespace[type(model).__name__]()
    assert list(other.state_dict()) == list(model.state_dict())
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("name", [*SMALL, *TEXTS])
def test_forms_with_state(name: str):
    """Also in another order of parts, and along a state that the other one began."""
    spec, variant, knobs = spec_of(name)
    whole = shaken(spec.build(variant, dtype=torch.float64, **knobs))
    x = inputs_of(spec, spec.elaborate(variant, knobs), 13, 2, torch.float64)
    for form, lengths in (("extend", [5, 1, 7]), ("step", [1] * 13)):
        model: Any = spec.build(variant, dtype=torch.float64, form=form, **knobs).eval()
        model.load_state_dict(whole.state_dict())
        other = written(model).eval()
        first, mine = model.init_state(2, 16), other.init_state(2, 16)
        assert list(first) == list(mine)
        with torch.no_grad():
            (expected, state), (got, after) = run(model, x, lengths, first), run(other, x, lengths, mine)
            close(got, expected, 1e-12)
            assert list(after) == list(state)
            for address, value in state.items():
                close(mine[address], first[address], 0)
                close(after[address], value, 1e-12)
            step = tuple(v[:, :lengths[-1]] for v in x)
            if int(state.get("position", torch.tensor(0))) + lengths[-1] <= 16:
                close(other(*step, state)[0], model(*step, state)[0], 1e-12)


@pytest.mark.parametrize("name", TEXTS)
def test_parallel_form_with_gradients(name: str):
    spec, *_ = spec_of(name)
    model: Any = shaken(spec.build(dtype=torch.float64))
    other = written(model)
    (x,) = inputs_of(spec, spec.elaborate(), 70, 2, torch.float64)
    results = []
    for m in (model, other):
        y = m(x)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
        results.append((y, {k: p.grad for k, p in m.named_parameters()}))
    (expected, grads), (got, theirs) = results
    close(got, expected, 1e-12)
    for k, g in grads.items():
        assert g is not None and g.abs().max() > 0, k
        torch.testing.assert_close(theirs[k], g, rtol=1e-10, atol=1e-12)


load()


@pytest.mark.parametrize("name", sorted([*RECURRENCES, *KERNELS]))
def test_every_recurrent_op_as_a_function(name: str):
    """On its samples, from zeros and from a state, in float64 and in bfloat16, where floats are computed with in float32."""
    r: Recurrence = {**KERNELS, **RECURRENCES}[name]
    functions = Functions()
    functions.add(r)
    namespace: dict[str, Any] = {}
    lines = [*sorted(functions.imports), "import torch", "import torch.nn.functional as F", *functions.numbers, *functions.functions]
    exec("\n".join(lines), namespace)
    op = r.extend if r.state else r.op
    for i, sample in enumerate(op.samples()):  # type: ignore[misc]
        for dtype, within in ((torch.float64, 1e-12), (torch.bfloat16, 1e-2)):
            call = Call(op.name, i, dtype)
            operands, states = call.args[:len(r.operands)], call.args[len(r.operands):]
            given = {k: v for k, v in call.attrs.items() if k in sample}
            for before in ((None,) * len(states), states):
                from_zeros = r.zeros(list(operands)) if before and before[0] is None else before
                expected = r._fold(list(operands), tuple(from_zeros), call.attrs)
                found = namespace[name](*operands, *before, **given)
                torch.testing.assert_close(tuple(found) if r.state else (found,), tuple(expected), rtol=within, atol=within)
            if r.time:  # no positions give no results, and leave the state alone
                none = [x if x is None or n not in r.time else x.narrow(r.time[n], 0, 0) for n, x in zip(r.operands, operands)]
                found = namespace[name](*none, *states, **given)
                found = found if isinstance(found, tuple) else (found,)
                assert [tuple(y.shape) for y in found] == [*r._shapes(none), *(tuple(s.shape) for s in states)]
                assert all(after is before for after, before in zip(found[r.results:], states)) or not r.state


def test_names_that_the_text_has_itself():
    """What a scan calls its values is told apart from the state."""
    step = shaken(archdsl.loads("""
model Net(d: int = 3)(x: [B = 2, T = 5, d]) -> y: [B, T, d] stream T {
  scan x over T carry h: [B, d] = zeros() {
    new = h / 2 + x
    state = new * h
    next h = new + state
    yield state + 2 * new
  }
}""").build(form="step")).eval()
    x, state = torch.ones(2, 1, 3), {"h": torch.full((2, 3), 2.0)}
    close(written(step)(x, state)[0], step(x, state)[0], 0)


def test_states_that_do_not_fit():
    spec = archdsl.load("llama")
    other = written(spec.build("tiny", form="step"))
    x = torch.zeros(2, 1, dtype=torch.int64)
    state = other.init_state(2, 8)
    key = "layers.0.attn.keys"
    for bad, told in (
        ({**state, key: state[key][:, :1]}, r"the state `layers.0.attn.keys` is torch.float32 \[2, 2, 8, 32\]: this is torch.float32 \[2, 1, 8"),
        ({**state, key: state[key].double()}, "this is torch.float64"),
        ({k: v for k, v in state.items() if k != key}, "a dict of the tensors"),
        ({**state, "more": x}, "a dict of the tensors"),
        (list(state.values()), "as init_state gives it"),
        (other.init_state(3, 8), r"\[2, 2, 8, 32\]"),
        ({**state, "layers.1.attn.keys": state[key][:, :, :4]}, "this is torch.float32"),
        ({**state, key: None}, "this is NoneType"),
        ({**state, "position": torch.tensor(8)}, r"room for 8 positions, 9 are needed: init_state\(length=9\)"),
    ):
        with pytest.raises(ValueError, match=told):
            other(x, bad)
    for wrong in (torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"the input `tokens` is int\[B, 1\]"):
            other(wrong, state)
    short = written(archdsl.load("gpt2").build(None, form="extend", d=32, depth=1, heads=4, vocab=61, context=8))
    with pytest.raises(ValueError, match="8 positions at most"):
        short(torch.zeros(1, 9, dtype=torch.int64), short.init_state(1, 8))
    with pytest.raises(ValueError, match="8 positions at most"):
        short.init_state(1, 9)


def test_written_models_are_clean_and_formatted(tmp_path: Any):
    pytest.importorskip("ruff")
    for name in ("llama", "gla", "delta"):
        for form in ("parallel", "extend", "step"):
            spec, variant, knobs = spec_of(name)
            (tmp_path / f"{name}_{form}.py").write_text(python_source(spec.build(variant, device="meta", form=form, **knobs)))
    config = f"{archdsl.__path__[0]}/../pyproject.toml"
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "--config", config, "--line-length", "120", str(tmp_path)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------- folders
@pytest.mark.parametrize("form", ["parallel", "extend", "step"])
@pytest.mark.parametrize("name", ["llama", "gla"])
def test_open_gives_the_form_back(name: str, form: str, tmp_path: Any):
    spec, variant, knobs = spec_of(name)
    compile_to(tmp_path / "out", spec, variant, knobs, form=form, seed=5)
    model: Any = archdsl.open(tmp_path / "out").eval()
    built: Any = spec.build(variant, seed=5, form=form, **knobs).eval()
    (x,) = inputs_of(spec, spec.elaborate(variant, knobs), 1 if form == "step" else 4, 2, torch.float32)
    more = () if form == "parallel" else (built.init_state(2, 8),)
    with torch.no_grad():
        torch.testing.assert_close(model(x, *more), built(x, *more), rtol=0, atol=0)
    found = {}
    exec((tmp_path / "out" / "model.py").read_text(), found)
    other = found[type(built).__name__]()
    other.load_state_dict(built.state_dict())
    torch.testing.assert_close(other(x, *more), built(x, *more), rtol=1e-6, atol=1e-6)


KINDS = {"mamba": "tiny", "jamba": "tiny", "deepseek_v2": "tiny", "deepseek_v2 absorbed": "tiny_absorbed", "gpt_oss": "tiny", "zamba": "tiny",
         "zamba2": "tiny", "rwkv4": "tiny"}
"""Recurrences, hybrids, latent attention, a window beside a whole cache."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gla", *(pytest.param(k, marks=pytest.mark.proof) for k in ("delta", "linear", *KINDS))])
def test_exported_steps_decode(name: str, tmp_path: Any):
    """20 tokens through the exported program and through ONNX Runtime, each fed its own state: the logits of the model."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the `onnx` extra")
    spec, variant, knobs = (archdsl.load(name.split()[0]), KINDS[name], {}) if name in KINDS else spec_of(name)
    compile_to(tmp_path / "out", spec, variant, knobs, form="step", seed=5, export=True, onnx=True)
    model: Any = archdsl.open(tmp_path / "out").eval()
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    session = runtime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    names = [i.name for i in session.get_inputs()]
    results = [o.name for o in session.get_outputs()]
    for batch in (2, 3):
        state = model.init_state(batch, 24)
        exported, kept = dict(state), {k: v.numpy() for k, v in state.items()}
        assert names == ["tokens", *state] and results[1:] == [f"{k}.next" for k in state]
        token = torch.zeros(batch, 1, dtype=torch.int64)
        for _ in range(20):
            with torch.no_grad():
                y, state = model(token, state)
                z, exported = program(token, exported)
            found = session.run(None, {"tokens": token.numpy(), **kept})
            torch.testing.assert_close(z, y, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(torch.from_numpy(found[0]), y, rtol=1e-3, atol=1e-4)
            kept = dict(zip(state, found[1:]))
            token = y.argmax(-1) % 11
        for k, v in state.items():
            torch.testing.assert_close(torch.as_tensor(kept[k]), v, rtol=1e-3, atol=1e-4)
