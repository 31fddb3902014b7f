"""Calls that mean nothing: each is a ValueError that names the op or the tensor and says what was expected. Every kind of state is tried."""
from __future__ import annotations

import copy
import pickle
from functools import cache
from typing import Any

import pytest
import torch

import archdsl
from archdsl.lower.emit_python import python_source
from archdsl.ops.recurrent import RECURRENCES
from tests.ops.cases import Call
from tests.streaming.test_hybrids import spec

MIXERS = ("softmax", "gla", "mamba2", "delta", "written", "conv", "rwkv7", "extractor", "aaren")


@cache
def one(mixer: str, form: str = "extend", **knobs: Any) -> Any:
    """One layer with that mixer."""
    chosen = {"depth": 1, "layers.0.mixer": mixer, "layers.0.channels": "nothing", **{f"layers.0.mix.{k}": v for k, v in knobs.items()}}
    return spec().build(form=form, knobs=chosen).eval()


def tokens(batch: int, n: int) -> torch.Tensor:
    return torch.zeros(batch, n, dtype=torch.int64)


@pytest.mark.parametrize("mixer", MIXERS)
def test_states_that_do_not_fit(mixer: str):
    model = one(mixer)
    state = model.init_state(2, 8)
    key = next(k for k in state if k.startswith("layers."))
    x = state[key]
    other = one("lmu" if mixer != "lmu" else "gla").init_state(2, 8)
    for bad, told in (
        ({**state, key: torch.cat([x, x], -1)}, rf"the state `{key}` is torch.float32 \[.*\].*: this is torch.float32 \["),
        ({**state, key: x.half()}, rf"the state `{key}` is torch.float32 .*: this is torch.float16"),
        (model.init_state(3, 8), r"the input `state\[.*\]` is \[B.*B = 2.*: this is \[3"),
        (other, f"this is not the state of this model: it lacks `{key}`"),
        (None, "the state is a dict of tensors by address"),
    ):
        with pytest.raises(ValueError, match=told):
            model(tokens(2, 3), bad)


@pytest.mark.parametrize("mixer", MIXERS)
def test_numbers_of_positions(mixer: str):
    step, extend = one(mixer, "step"), one(mixer)
    with pytest.raises(ValueError, match=r"the input `tokens` is \[B, 1\], B = 2: this is \[2, 2\]"):
        step(tokens(2, 2), step.init_state(2, 8))
    with pytest.raises(ValueError, match="one position or more along the stream: this one has none"):
        extend(tokens(2, 0), extend.init_state(2, 8))


def test_written_models_refuse_them_too():
    model = one("gla")
    name: dict[str, Any] = {}
    exec(compile(python_source(model), "model.py", "exec", dont_inherit=True), name)
    other = name["Hybrid"]().eval()
    with pytest.raises(ValueError, match="one position or more"):
        other(tokens(2, 0), other.init_state(2))
    with pytest.raises(ValueError, match=r"`layers.0.mix.memory` is torch.float32 \[2, 2, 4, 8\]: this is .* \[3, 2, 4, 8\]"):
        other(tokens(2, 1), other.init_state(3))


def test_windows_and_caches():
    """A window keeps its own positions, however short the room for others is; the keys of a shorter one are refused."""
    wide, narrow, whole = one("softmax", reach=6), one("softmax", reach=3), one("softmax")
    key = "layers.0.mix.keys"
    assert wide.init_state(2, 3)[key].shape[2] == 5
    with pytest.raises(ValueError, match=rf"the state `{key}` is torch.float32 \[B, 2, 5, 4\], B = 2: this is torch.float32 \[2, 2, 2, 4\]"):
        wide(tokens(2, 3), narrow.init_state(2, 3))
    with pytest.raises(ValueError, match="the state has room for 3 positions: it holds 0, and 4 more come"):
        whole(tokens(2, 4), whole.init_state(2, 3))


@pytest.mark.parametrize(("lengths", "told"), [
    (torch.tensor([4, 3]), r"sum to the 13 positions: \[4, 3\] sum to 7"),
    (torch.tensor([14, -1]), "each at least 1"),
    (torch.tensor([4.0, 9.0]), "whole numbers, int64: these are torch.float32"),
    (torch.tensor([[4, 9]]), r"the input `lengths` is \[Documents\]: this is \[1, 2\]"),
    ([4, 9], r"the input `lengths` is a tensor \[Documents\]: this is list"),
])
def test_lengths_of_documents(lengths: Any, told: str):
    with pytest.raises(ValueError, match=told):
        one("gla", "packed")(tokens(1, 13), lengths)


@pytest.mark.parametrize(("layer", "told"), [
    ("Attention(4, 3, mask = causal)", "heads (4) must be a multiple of kv_heads (3)"),
    ("LinearAttention(4, 3)", "heads (4) must be a multiple of kv_heads (3)"),
    ("Retention(4, 3)", "heads (4) must be a multiple of kv_heads (3)"),
    ("GatedLinearAttention(3, 2)", "heads (3) must be a multiple of kv_heads (2)"),
    ("GatedSlotAttention(4, slots = 0)", "slots (0): a memory has one or more"),
    ("GatedSlotAttention(4, 3)", "heads (4) must be a multiple of kv_heads (3)"),
    ("GatedDeltaNet(2, 3, head_dim = 4)", "value_heads (3) must be a multiple of heads (2)"),
    ("Mamba2(groups = 5, head_dim = 6)", "heads (4) must be a multiple of groups (5)"),
    ("Aaren(5)", "heads (5) must divide the width (12)"),
])
def test_groups_that_do_not_divide_heads(layer: str, told: str):
    uses = spec().module.source.text.partition("///")[0]
    with pytest.raises(archdsl.ArchError) as found:
        archdsl.loads(f"{uses}\nmodel N(d: int = 12)(x: [B = 1, T = 4, d]) -> y: [B, T, d] stream T {{ return {layer}(x) as mix }}")
    assert found.value.diagnostics[0].message == told


@pytest.mark.parametrize("name", sorted(RECURRENCES))
def test_ops_refuse_states(name: str):
    """As the ops are called from Python."""
    r = RECURRENCES[name]
    call = Call(name, 0, torch.float32, False)
    good = r.zeros(list(call.args))
    call_with = lambda *states: r.extend.body(*call.args, *states, **call.attrs)
    call_with(*good)
    for bad in (good[0].double(), good[0][..., None], torch.cat([good[0], good[0]], -1) if good[0].dim() else good[0].int(), None):
        with pytest.raises(ValueError, match=f"`{name}_extend`: the state `{next(iter(r.state))}` is torch.float32 "):
            call_with(bad, *good[1:])


GATED = """
use std.linear { Linear }

block Mix()(x: [B, T, d], decay: [B, T]) -> [B, T, d] {
  param rate: [] = 1
  return linear_attention(x, x, x, rate * decay)
}

model Net(d: int = 4)(x: [B = 2, T = 5, d], decay: [B, T]) -> y: [B, T, d] stream T {
  x = Linear(d)(x) as up
  x = Mix()(x, log(decay)) as mix
  return x
}
"""


@pytest.mark.parametrize("form", ["parallel", "extend"])
def test_nan_gates(form: str):
    """The switch names the first place: an input, an op, a weight, a state. Without it a model gives NaN."""
    model = archdsl.loads(GATED, "gated.arch").build(form=form)
    x, decay = torch.randn(2, 5, 4), torch.rand(2, 5)
    rest = () if form == "parallel" else (model.init_state(2),)
    lost = decay.clone()
    lost[1, 3] = torch.nan
    out = model(x, lost, *rest)
    assert (out if form == "parallel" else out[0]).isnan().any()
    with archdsl.debug_nans(model) as same:
        assert same is model
        torch.testing.assert_close(model(x, decay, *rest), same(x=x, decay=decay, **({"state": rest[0]} if rest else {})))
        with pytest.raises(ValueError, match=r"^the input `decay` holds NaN at 1 of 10 places: `log` takes numbers$"):
            model(x, lost, *rest)
        with pytest.raises(ValueError, match=r"^`log` gives NaN at 10 of 10 places, and what .* holds none \(gated.arch:11:16: log\(decay\)\)$"):
            model(x, -decay, *rest)
        if rest:
            key = next(iter(rest[0]))
            with pytest.raises(ValueError, match=rf"the state `{key}` holds NaN at 32 of 32 places: `.*` takes numbers"):
                model(x, decay, {key: rest[0][key] + torch.nan})
        with torch.no_grad():
            model.mix.rate.fill_(torch.nan)
        with pytest.raises(ValueError, match=r"^the weight `mix.rate` holds NaN at 1 of 1 places: `mul` takes numbers$"):
            model(x, decay, *rest)
    out = model(x, decay, *rest)
    assert (out if form == "parallel" else out[0]).isnan().any()
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert type(other) is type(model)


def test_nan_in_phases_and_scans():
    for mixer, form in (("written", "parallel"), ("written", "extend"), ("mamba", "parallel")):
        model = one(mixer, form)
        rest = () if form == "parallel" else (model.init_state(2, 8),)
        with archdsl.debug_nans(model):
            model(tokens(2, 5), *rest)
    with pytest.raises(TypeError, match="Linear holds nothing that archdsl has built"), archdsl.debug_nans(torch.nn.Linear(2, 2)):
        pass


@pytest.mark.parametrize("mask", ["causal & window(T)", "causal & causal_by(T)"])
def test_a_mask_as_wide_as_the_whole_is_long(mask: str):
    """How long the whole will be is not known while positions come: told where the mask stands, also when costs are counted."""
    text = ("use std.mixer { Attention }\nmodel M(d: int = 16)(x: [B = 1, T = 16, d]) -> y: [B, T, d] stream T "
            f"{{ return Attention(4, mask = {mask})(x) as a }}")
    made = archdsl.loads(text)
    for what in (lambda: made.build(form="step"), lambda: made.cost(None, {}, "step")):
        with pytest.raises(archdsl.ArchError) as e:
            what()
        fault = e.value.diagnostics[0]
        assert fault.code == "A0501" and "depends on a size of the run" in " ".join([fault.message, *fault.help, fault.label])


def test_sizes_that_a_state_does_not_have():
    model: Any = one("softmax")
    for given, told in (
        ({"lenght": 16}, "there is no size `lenght` to give: it takes batch, length$"),
        ({"dtype": torch.int64}, "there is no size `dtype`"),
        ({"T": 16}, "there is no size `T`"),
        ({"length": 10**30}, "`length` is 281,474,976,710,656 at most"),
    ):
        with pytest.raises(ValueError, match=told):
            model.init_state(2, **given)
    with pytest.raises(RuntimeError, match=r"a state of \d+(,\d{3}){4,} bytes could not be made on cpu") as e:
        model.init_state(2, length=10**14)
    assert "\n" not in str(e.value)


def test_counters_and_devices_that_do_not_fit():
    model: Any = one("softmax")
    state = model.init_state(2, 8)
    key = "layers.0.mix.keys"
    assert set(state) >= {"position", "start", key}
    for change, told in (
        ({"position": torch.tensor(-1)}, "the state `position` counts .* this is -1"),
        ({"start": torch.tensor([0, 3])}, r"the state `start` .* 0 to 0 .* this is \[0, 3\]"),
        ({"start": torch.tensor([-1, 0])}, r"this is \[-1, 0\]"),
        ({key: state[key].to("meta")}, "the state is on one device"),
    ):
        with pytest.raises(ValueError, match=told):
            model(tokens(2, 1), {**state, **change})
    model(tokens(2, 1), {**state, "position": torch.tensor(3), "start": torch.tensor([0, 3])})


@pytest.mark.parametrize("axes", ["(B h), T", "h, B, T"])
@pytest.mark.parametrize("mixer", ["Attention(1, mask = causal)", "Attention(1, mask = causal & window(3), positions = Rope())",
                                   "LinearAttention(1)"])
def test_rows_that_are_joined_with_something_else(axes: str, mixer: str):
    """Heads as further rows, or in front of the rows: the forms agree, and a row of the state is what it is, or nobody moves it."""
    text = f"""use std {{ Attention, LinearAttention, Rope }}
model M()(x: [B = 2, T = 6, 8]) -> y: [B, T, 8] stream T {{
  y = rearrange(x, [B, T, (h w)] -> [{axes}, w], h = 2)
  y = {mixer}(y) as mixer
  return rearrange(y, [{axes}, w] -> [B, T, (h w)], h = 2)
}}"""
    made = archdsl.loads(text, "m.arch")
    whole, extend = (made.build(form=form, dtype=torch.float64).eval() for form in ("parallel", "extend"))
    extend.load_state_dict(whole.state_dict())
    x = torch.randn(3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def same(a: torch.Tensor, b: torch.Tensor) -> None:
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)

    with torch.no_grad():
        first, state = extend(x[:, :4], extend.init_state(3, 6))
        second, _ = extend(x[:, 4:], state)
        same(torch.cat([first, second], 1), whole(x))
        if axes == "h, B, T":
            same(extend(x[[2, 0], 4:], extend.reorder_state(state, [2, 0]))[0], second[[2, 0]])
        else:
            with pytest.raises(ValueError, match=r"reorder_state: no axis of the state `mixer\.\w+`, .*2\*B.*, is the batch alone"):
                extend.reorder_state(state, [2, 0])
        if axes == "h, B, T" and mixer == "LinearAttention(1)":
            same(extend(x[:, :2], extend.reset_state(state, [1]))[0][1], whole(x[1:2, :2])[0])
        else:
            with pytest.raises(ValueError, match=r"reset_state: .*(is the batch alone|share their positions)"):
                extend.reset_state(state, [1])


@pytest.mark.parametrize(("applied", "op"), [
    ("Attention(2)(x)", "attention(q, k, v"),
    ("Pre(RMSNorm(), Attention(2))(x)", "attention(q, k, v"),
    ("Bidirectional(GatedLinearAttention(2))(x)", "flip(x, axes = [-2])"),
    ("Windowed(GatedLinearAttention(2), 4)(x)", "T % size == 0"),
])
def test_what_cannot_stream_is_told_where_the_users_text_applies_it(applied: str, op: str):
    spec = archdsl.loads(f"""
use std {{ Attention, Pre, RMSNorm }}
use std.recurrent {{ Bidirectional, GatedLinearAttention, Windowed }}

block Mix()(x: [B, T, d]) -> [B, T, d] {{
  x = x + Attention(2, mask = causal)(x) as first
  return x + {applied} as second
}}

model M(d: int = 8)(x: [B = 2, T = 8, d]) -> y: [B, T, d] stream T {{
  layers: for i in range(2) {{ x = Mix()(x) as mix }}
  return x
}}
""")
    with pytest.raises(archdsl.ArchError) as e:
        spec.build(form="extend")
    fault = e.value.diagnostics[0]
    assert fault.code == "A0501" and fault.span.text == applied
    assert any(op in label.span.text and label.message.startswith("inside `") for label in fault.labels)


@pytest.mark.parametrize(("y", "place"), [("pad(conv(y, w), [(0, 0), (0, 0), (2, 0)])", "conv(y, w)"),
                                          ("relu(pad(y, [(0, 0), (0, 0), (2, 0)]))[..., 2:]", "pad(y, [(0, 0), (0, 0), (2, 0)])")])
def test_convolutions_that_do_not_stream_are_told_of_those_that_do(y: str, place: str):
    spec = archdsl.loads(f"""
model M(d: int = 4)(x: [B = 2, T = 8, d]) -> y: [B, T, d] stream T {{
  param w: [d, d, 3] = normal()
  y = rearrange(x, [B, T, d] -> [B, d, T])
  return rearrange({y}, [B, d, T] -> [B, T, d])
}}
""")
    with pytest.raises(archdsl.ArchError) as e:
        spec.build(form="step")
    fault = e.value.diagnostics[0]
    assert fault.code == "A0501" and fault.span.text == place and "causal_conv_dense" in fault.help[0]
