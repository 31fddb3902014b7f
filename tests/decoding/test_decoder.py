"""Decoding by a recorded step: the tokens of a step that is not recorded, for every kind of state; what is kept, and what is refused."""
from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import archdsl
from archdsl.decoding import decoder, kept
from archdsl.decoding.decoder import Decoder, Plan, Rerun, cut
from archdsl.decoding.fuse import fuse
from archdsl.decoding.stages import staged
from archdsl.kernels.target import Target
from archdsl.lower.build import lower
from archdsl.lower.forms import sibling
from tests.decoding.streaming import lowered_for_a_card

SPECS = ("llama", "gpt_oss", "gemma2", "gla", "mamba2", "jamba", "deepseek_v2", "rwkv4", "mixtral", "hyena", "bloom")
"""Caches, windows, sinks and caps, memories of three kinds, hybrids, latents, experts, a state that holds inputs, a bias by distance."""
F64 = torch.float64


@pytest.fixture(autouse=True)
def recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this device, a recording is the function itself."""
    monkeypatch.setitem(kept.RECORDINGS, "cpu", Rerun)


def model(name: str, **knobs: Any) -> Any:
    return noisy(archdsl.load(f"specs/language/{name}.arch").build("tiny", dtype=F64, **knobs).eval())


def noisy(made: Any) -> Any:
    """Weights that are not as they begin: norms and biases too."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            if p.is_floating_point():
                p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return made


@pytest.fixture(scope="module")
def llama() -> Any:
    return model("llama")


def prompts(batch: int, length: int = 5) -> torch.Tensor:
    return torch.randint(0, 40, (batch, length), generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("name", SPECS)
def test_tokens(name: str, batch: int):
    """With few rows, whose linear maps are computed together, and with more."""
    made = model(name)
    expected = archdsl.generate(made, prompts(batch), 9, recorded=False)
    assert torch.equal(archdsl.generate(made, prompts(batch), 9, recorded=True), expected)


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "gemma2"])
def test_rows_that_begin_later(name: str):
    """Windows too look at nothing before a row's own beginning, behind more positions than they keep."""
    made, rows = model(name), [[3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5, 8]]
    expected = archdsl.generate(made, rows, 14, recorded=False)
    assert [r.tolist() for r in archdsl.generate(made, rows, 14, recorded=True)] == [r.tolist() for r in expected]


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "gla", "jamba", "deepseek_v2"])
def test_logits_and_state(name: str):
    """The step in place gives the logits and leaves the state of the functional one, position by position."""
    made, x = model(name), prompts(3, 12)
    step = sibling(made, "step")
    has_length = {"length": 16} if step.__dict__["_streamed"].has_length else {}
    state = step.init_state(3, **has_length)
    own = Decoder(made, Plan(3, 16, 64), Rerun)
    own._keep(state)
    with torch.no_grad():
        for t in range(x.shape[1]):
            expected, state = step(x[:, t:t + 1], state)
            got, new = own.run(x[:, t:t + 1], own.state)
            own._keep(new)
            first = [y[0] if isinstance(y, tuple) else y for y in (got, expected)]
            assert (first[0] - first[1]).abs().max() <= 1e-12 * first[1].abs().max()
            for address, held in state.items():
                assert torch.allclose(own.state[address], held, rtol=1e-11, atol=1e-13), (t, address)


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "deepseek_v2", "bloom"])
def test_first_positions(name: str):
    """Into caches that hold nothing: the logits and the state of the op that looks at them, from a position on too."""
    made, x = model(name), prompts(2, 7)
    op, fresh = sibling(made, "extend"), sibling(made, "extend", caches="fresh")
    state = op.init_state(2, length=12)
    for counter in {"position", "start"} & set(state):
        state[counter] = state[counter] + (3 if "start" in state else 0)
    with torch.no_grad():
        expected, got = op(x, state), fresh(x, state)
    first = [y[0] if isinstance(y, tuple) else y for y in (got[0], expected[0])]
    assert (first[0] - first[1]).abs().max() <= 1e-12 * first[1].abs().max()
    for address, held in expected[1].items():
        assert torch.allclose(got[1][address], held, rtol=1e-11, atol=1e-13), address


LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "llama": ({}, "linears attention linears gated linears"),
    "gla": ({}, "linears gla head_norm linears gated linears"),
    "mamba2": ({"groups": 1}, "convolved ssd linears")}


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_computed_together(name: str):
    """As lowered for a card, where norms and gates are torch ops of ours: what is launched for a layer. All else are views."""
    knobs, order = LAYERS[name]
    source = model(name, **knobs).__dict__["_source"]
    step = lower(source.graph, device="meta", form="step", source=source, made_for=Target("cuda", caches="in_place"))
    _, stages = staged(step, fuse)
    names = [str(n.target).removeprefix("archdsl.") for n in stages[0].graph.nodes if str(n.target).startswith("archdsl.")]
    assert names == [f"decode_{n}.default" for n in order.split()]
    calls = [n.target for n in stages[0].graph.nodes if n.op.startswith("call_") and not str(n.target).startswith("archdsl.")]
    assert {c if isinstance(c, str) else c.__name__ for c in calls} <= {"narrow", "split", "getitem", "unflatten", "transpose", "flatten"}


ON_A_CARD: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("tiny", {}), "gla": ("tiny", {}), "grouped gla": ("tiny_grouped", {}), "standalone gla": ("tiny_standalone", {}),
    "mamba2": ("tiny", {}), "one group mamba2": ("tiny", {"groups": 1}),
    "without bias mamba2": ("tiny", {"groups": 1, "conv_bias": False, "kernel": 2}),
    "deltanet": ("tiny", {}), "jamba": ("tiny", {}), "mamba2_hybrid": ("tiny", {})}


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("case", ON_A_CARD)
def test_lowered_for_a_card(case: str, batch: int, monkeypatch: pytest.MonkeyPatch):
    """Recurrences and what surrounds them are then torch ops of ours, here in plain torch: logits and states of the step as it is."""
    variant, knobs = ON_A_CARD[case]
    name = case.rpartition(" ")[2]
    made = noisy(archdsl.load(f"specs/language/{name}.arch").build(variant, dtype=F64, **knobs).eval())
    plain = sibling(made, "step")
    with monkeypatch.context() as here:
        lowered_for_a_card(here)
        own = Decoder(made, Plan(batch, 16, 64), Rerun)
    state = plain.init_state(batch, **({"length": 16} if plain.__dict__["_streamed"].has_length else {}))
    own._keep(state)
    x = prompts(batch, 9)
    with torch.no_grad():
        for t in range(x.shape[1]):
            expected, state = plain(x[:, t:t + 1], state)
            got, new = own.run(x[:, t:t + 1], own.state)
            own._keep(new)
            assert (got - expected).abs().max() <= 1e-12 * expected.abs().max()
            for address, held in state.items():
                assert torch.allclose(own.state[address], held, rtol=1e-11, atol=1e-13), (t, address)


@pytest.mark.parametrize("name", ["gla", "mamba2", "mamba2_hybrid"])
def test_memories_of_another_type(name: str, monkeypatch: pytest.MonkeyPatch):
    """Kept in bfloat16, computed with in float32: behind one state, the logits of the step as it is and its memories, rounded."""
    made = noisy(archdsl.load(f"specs/language/{name}.arch").build("tiny", dtype=torch.float32).eval())
    plain = sibling(made, "step")
    with monkeypatch.context() as here:
        lowered_for_a_card(here)
        own = Decoder(made, Plan(2, 16, 64, memories=torch.bfloat16), Rerun)
    narrow = [a for a, x in own.state.items() if x.dtype == torch.bfloat16]
    assert narrow and all(a.endswith("memory") for a in narrow)
    state = plain.init_state(2, **({"length": 16} if plain.__dict__["_streamed"].has_length else {}))
    with torch.no_grad():
        for x in prompts(2, 9).split(1, 1):
            for address, held in own.state.items():
                held.copy_(state[address])
                state[address] = held.to(state[address].dtype)
            expected, state = plain(x, state)
            got, new = own.run(x, own.state)
            own._keep(new)
            assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
            for address in narrow:
                assert torch.allclose(own.state[address].float(), state[address], rtol=2**-8, atol=1e-6)


def test_memories_of_another_type_where_there_are_none(llama: Any, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="step has no memory that is kept in"):
        archdsl.generate(llama, prompts(2), 3, state_dtype=torch.bfloat16)
    for beams, recorded in ((2, None), (1, False)):
        with pytest.raises(ValueError, match="of a recorded step: without `beams`"):
            archdsl.generate(llama, prompts(2), 3, state_dtype=torch.bfloat16, beams=beams, recorded=recorded)
    with pytest.raises(ValueError, match="and `recorded = False`, not"):
        archdsl.generate(llama, prompts(2), 3, state_dtype=torch.int8)
    monkeypatch.setattr(kept, "RECORDINGS", {})
    with pytest.raises(RuntimeError, match="`state_dtype` is of a recorded step"):
        archdsl.generate(llama, prompts(2), 3, state_dtype=torch.bfloat16)


def test_compiled(llama: Any, monkeypatch: pytest.MonkeyPatch):
    """Each layer as one graph that writes into the caches it is given."""
    monkeypatch.setitem(decoder.COMPILE, "backend", "aot_eager")
    expected = archdsl.generate(llama, prompts(2), 9, recorded=False)
    assert torch.equal(archdsl.generate(llama, prompts(2), 9, recorded=True, compiled=True), expected)
    made = next(d for p, d in llama.__dict__["_decoders"].items() if p.compiled)
    with torch.no_grad():
        _, new = made.run(torch.tensor([[1], [2]]), made.state)
    assert all(x.data_ptr() == made.state[a].data_ptr() for a, x in new.items() if a.endswith(("keys", "values")))


def test_caches_stay_where_they_are(llama: Any):
    """No cache is copied: a step writes one place of each."""
    own = Decoder(llama, Plan(2, 16, 64), Rerun)
    assert not [n for n in own.run.stage_0.graph.nodes if "index_copy" in str(n.target)]  # pyright: ignore
    where = {a: x.data_ptr() for a, x in own.state.items()}
    before = {a: x.clone() for a, x in own.state.items()}
    with torch.no_grad():
        _, new = own.run(torch.tensor([[1], [2]]), own.state)
    for address, x in new.items():
        if address.endswith(("keys", "values")):
            assert x.data_ptr() == where[address]
            changed = (x != before[address]).any(-1).flatten(0, 1).any(0)
            assert changed.tolist() == [True] + [False] * 15


def test_batches_share_decoders(llama: Any):
    """Greedy ones, of up to twice the rows: tokens, ends and streams are those of the batch alone, whatever the rows beyond it were before."""
    llama.__dict__["_decoders"] = {}
    for batch in (8, 5, 7):
        expected = archdsl.generate(llama, prompts(batch), 12, recorded=False)
        eos = [int(expected[0, 8]), int(expected[-1, 10])]
        assert torch.equal(archdsl.generate(llama, prompts(batch), 12), expected)
        assert torch.equal(torch.stack(list(archdsl.generate_stream(llama, prompts(batch), 12)), 1), expected[:, 5:])
        ended = archdsl.generate(llama, prompts(batch), 12, eos=eos, recorded=False)
        assert torch.equal(archdsl.generate(llama, prompts(batch), 12, eos=eos), ended)
        rows = [[3, 1, 4], *([[i] for i in range(batch - 1)])]
        apart = archdsl.generate(llama, rows, 6, recorded=False)
        assert all(torch.equal(a, b) for a, b in zip(archdsl.generate(llama, rows, 6), apart, strict=True))
    assert {p.batch for p in llama.__dict__["_decoders"]} == {8}
    assert [kept.rows_for(n) for n in (1, 2, 3, 5, 33, 64, 65, 129)] == [1, 2, 4, 8, 64, 64, 128, 192]
    archdsl.generate(llama, prompts(5), 6, temperature=1.0, seed=1)  # draws are those of the rows that are there
    assert {p.batch for p in llama.__dict__["_decoders"]} == {8, 5}


def test_settings_of_products_have_their_own(llama: Any):
    """What was recorded under one is not replayed under another."""
    llama.__dict__["_decoders"] = {}
    archdsl.generate(llama, prompts(2), 4)
    matmul = torch.backends.cuda.matmul
    for name in ("allow_tf32", "allow_bf16_reduced_precision_reduction"):
        before, plans = getattr(matmul, name), set(llama.__dict__["_decoders"])
        try:
            setattr(matmul, name, not before)
            archdsl.generate(llama, prompts(2), 4)
            assert len(set(llama.__dict__["_decoders"]) - plans) == 1
        finally:
            setattr(matmul, name, before)
        archdsl.generate(llama, prompts(2), 4)
        assert decoder.precision() in {p.precision for p in llama.__dict__["_decoders"]}


def test_draws_follow_the_seed(llama: Any):
    each: tuple[dict[str, Any], ...] = ({"temperature": 0.8}, {"temperature": 1.3, "top_k": 5}, {"temperature": 1.0, "top_p": 0.7})
    for settings in each:
        expected = archdsl.generate(llama, prompts(3), 12, seed=4, recorded=False, **settings)
        for _ in range(2):  # the second call begins with the same seed
            assert torch.equal(archdsl.generate(llama, prompts(3), 12, seed=4, recorded=True, **settings), expected)


@pytest.mark.parametrize("new", [3, 20])
def test_ends(llama: Any, new: int):
    free = archdsl.generate(llama, prompts(3), 20, recorded=False)
    eos = sorted({int(free[i, 7 + i]) for i in range(3)})
    expected = archdsl.generate(llama, prompts(3), new, eos=eos, recorded=False)
    assert torch.equal(archdsl.generate(llama, prompts(3), new, eos=eos, recorded=True), expected)
    streamed = torch.stack(list(archdsl.generate_stream(llama, prompts(3), new, eos=eos, recorded=True)), 1)
    assert torch.equal(streamed, expected[:, 5:])
    rows = [archdsl.generate(llama, [[1, 2, 3], [4], [5, 6]], new, eos=eos, recorded=r) for r in (False, True)]
    assert [r.tolist() for r in rows[0]] == [r.tolist() for r in rows[1]]


def test_cut():
    tokens = torch.tensor([[1, 9, 9, 9], [1, 2, 9, 9]])
    assert cut(tokens, (9,)).shape[1] == 3 and cut(tokens, (2,)).shape[1] == 4 and cut(tokens, ()).shape[1] == 4


def test_decoders_are_kept_and_follow_the_weights():
    made = model("llama")
    archdsl.generate(made, prompts(2), 6)
    first = list(made.__dict__["_decoders"].values())
    archdsl.generate(made, prompts(2, 9), 8)  # within the same room
    assert list(made.__dict__["_decoders"].values()) == first
    with torch.no_grad():
        made.head.weight.mul_(-1)  # in place: what was recorded reads it
    assert torch.equal(archdsl.generate(made, prompts(2), 6), archdsl.generate(made, prompts(2), 6, recorded=False))
    assert list(made.__dict__["_decoders"].values()) == first
    made.head.weight = torch.nn.Parameter(torch.randn_like(made.head.weight))  # elsewhere: recorded again
    assert torch.equal(archdsl.generate(made, prompts(2), 6), archdsl.generate(made, prompts(2), 6, recorded=False))
    assert list(made.__dict__["_decoders"].values()) != first
    for batch in (3, 5, 9):
        archdsl.generate(made, prompts(batch), 6)
    assert len(made.__dict__["_decoders"]) == kept.KEPT


@pytest.mark.parametrize("maps", [4, 40])
def test_experts(maps: int):
    """All maps, or those that are chosen, as the op: none chosen, biases, x that stretches."""
    from archdsl.decoding.ops import decode_experts
    from archdsl.ops.experts import grouped_linear

    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator, dtype=F64) for shape in ((3, 1, 5), (maps, 7, 5), (maps, 7)))
    index = torch.tensor([[0, -1], [2, 3], [3, 3]])
    for b in (None, bias):
        assert torch.allclose(decode_experts(x, index, weight, b), grouped_linear.body(x, index, weight, b), rtol=1e-12, atol=1e-14)


def test_what_is_made_of_weights():
    """Rates of decay, once a call: as the weights are then."""
    made = model("mamba2")
    assert torch.equal(archdsl.generate(made, prompts(2), 9, recorded=True), archdsl.generate(made, prompts(2), 9, recorded=False))
    own = next(iter(made.__dict__["_decoders"].values()))
    assert not [n for n in own.run.stage_0.graph.nodes if n.target is torch.exp and n.args[0].op == "get_attr"]
    with torch.no_grad():
        for layer in made.layers:
            layer.mixer.A_log.sub_(3)
            layer.mixer.dt_bias.add_(2)
    assert torch.equal(archdsl.generate(made, prompts(2), 9, recorded=True), archdsl.generate(made, prompts(2), 9, recorded=False))
    assert next(iter(made.__dict__["_decoders"].values())) is own


def test_calls_at_the_same_time(llama: Any):
    """Two streams and a call between their tokens: each as if it were alone, and what was lent is kept again."""
    a, b = prompts(2), prompts(2).flip(0)
    expected = [archdsl.generate(llama, x, 6, recorded=False)[:, 5:] for x in (a, b)]
    one, two = (archdsl.generate_stream(llama, x, 6, recorded=True) for x in (a, b))
    both = [(next(one), next(two))]
    assert torch.equal(archdsl.generate(llama, b, 6, recorded=True)[:, 5:], expected[1])
    both += zip(one, two)
    assert not [*one, *two]
    assert all(torch.equal(torch.stack(got, 1), right) for got, right in zip(zip(*both), expected))
    left = archdsl.generate_stream(llama, a, 6, recorded=True)
    next(left)
    plan = Plan(2, kept.ROOM, kept.NEW, precision=decoder.precision())
    assert plan not in llama.__dict__["_decoders"]
    left.close()  # type: ignore[attr-defined]
    assert plan in llama.__dict__["_decoders"]


def test_modes_of_the_caller():
    """A decoder is made and used without the caller's inference mode, under the autocast of its call, which keeps no casts."""
    made, seen = model("llama").float(), []
    expected = archdsl.generate(made, prompts(2), 5, recorded=False)
    with torch.inference_mode():
        assert torch.equal(archdsl.generate(made, prompts(2), 5, recorded=True), expected)
    assert torch.equal(archdsl.generate(made, prompts(2), 5, recorded=True), expected)
    assert not any(b.is_inference() for form in made.__dict__["_forms"].values() for b in form.buffers())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stream = archdsl.generate_stream(made, prompts(2), 5, recorded=True)
        next(stream)
    made.__dict__["_decoders"].clear()
    own = Decoder(made, Plan(2, 16, 64, autocast=torch.bfloat16), Rerun)
    own.run.register_forward_pre_hook(lambda *_: seen.append((
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled(), torch.is_grad_enabled())))
    own.begin({}, torch.ones(2, 40), None)
    with torch.autocast("cpu", enabled=False):
        own.generate(3)
        assert len([*own.stream(2)]) == 2
    assert seen == [(torch.bfloat16, False, False)] * 3
    stream.close()  # type: ignore[attr-defined]
    assert [p.autocast for p in made.__dict__["_decoders"]] == [torch.bfloat16]


def test_moved_weights_take_decoders_along(monkeypatch: pytest.MonkeyPatch):
    """Where the new device records nothing too, and where nothing is to be recorded."""
    each: tuple[dict[str, Any], ...] = ({}, {"recorded": False}, {"beams": 2})
    for again in each:
        made = model("llama")
        archdsl.generate(made, prompts(2), 3)
        assert made.__dict__["_decoders"]
        made.float()
        with monkeypatch.context() as here:
            here.delitem(kept.RECORDINGS, "cpu")
            archdsl.generate(made, prompts(2), 3, **again)
        assert not made.__dict__["_decoders"], again


REFERENCES: dict[str, tuple[Any, set[str]]] = {
    "all": ({"every": True}, set()),
    "attention": ({"named": (("attention", "reference"),)}, {"linears", "rotary", "gated"}),
    "rms_norm": ({"named": (("rms_norm", "triton"),)}, {"linears", "rotary", "gated", "attention"}),
    "rotary": ({"named": (("rotary", "reference"),)}, {"linears", "gated", "attention"}),
    "swiglu": ({"named": (("swiglu", "reference"),)}, {"linears", "rotary", "attention"}),
    "linear": ({"named": (("linear", "reference"),)}, {"rotary", "attention"}),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_what_is_asked_for_is_left_alone(case: str, llama: Any):
    """As lowered for a card: no op of decoding stands in the place of one whose kernel, or reference, is asked for."""
    asked, left = REFERENCES[case]
    source = llama.__dict__["_source"]
    step = lower(source.graph, device="meta", form="step", source=source, made_for=Target("cuda", caches="in_place", **asked))
    root, stages = staged(step, fuse)
    calls = [n for stage in (root, stages[0]) for n in stage.graph.nodes if str(n.target).startswith("archdsl.")]
    made = {str(n.target).split(".")[1].removeprefix("decode_") for n in calls if "decode_" in str(n.target)}
    turned = {"rotary" for n in calls if "decode_attention" in str(n.target) and n.args[-1]}  # where queries and keys are read
    assert made | turned == left
    if case == "rms_norm":
        named = [n for n in calls if str(n.target) == "archdsl.rms_norm"]
        assert len(named) == 3 and all(n.args[3] == "triton" for n in named)
        assert not [n for n in calls if "decode_linears" in str(n.target) or "decode_gated" in str(n.target) if n.args[3] is not None]


@pytest.mark.parametrize(("name", "op", "left"), [
    ("gla", "gla", {"linears", "gated", "head_norm"}), ("gla", "rms_norm", {"linears", "gated", "gla"}), ("gla", "swiglu", {"linears", "gla"}),
    ("mamba2", "ssd", {"convolved", "linears"}), ("mamba2", "causal_conv", {"linears", "ssd"}),
    ("mamba2", "swiglu", {"convolved", "ssd", "linears"})])
def test_recurrences_that_are_asked_for_are_left_alone(name: str, op: str, left: set[str]):
    source = model(name, **LAYERS[name][0]).__dict__["_source"]
    asked = Target("cuda", caches="in_place", named=((op, "reference"),))
    _, stages = staged(lower(source.graph, device="meta", form="step", source=source, made_for=asked), fuse)
    calls = [str(n.target) for n in stages[0].graph.nodes]
    assert {c.split(".")[1].removeprefix("decode_") for c in calls if c.startswith("archdsl.decode_")} == left


@pytest.mark.parametrize("name", ["gla", "mamba2"])
def test_compiled_recurrences(name: str, monkeypatch: pytest.MonkeyPatch):
    """As lowered for a card: a compiled layer changes the state that it is given."""
    made = model(name, **LAYERS[name][0])
    expected = archdsl.generate(made, prompts(2), 9, recorded=False)
    monkeypatch.setitem(decoder.COMPILE, "backend", "aot_eager")
    lowered_for_a_card(monkeypatch)
    assert torch.equal(archdsl.generate(made, prompts(2), 9, recorded=True, compiled=True), expected)
    own = next(d for p, d in made.__dict__["_decoders"].items() if p.compiled)
    with torch.no_grad():
        _, new = own.run(torch.tensor([[1], [2]]), own.state)
    assert [a for a, x in new.items() if x.data_ptr() != own.state[a].data_ptr()] == []


def test_reference_tokens():
    spec = archdsl.load("specs/language/llama.arch")
    made = spec.build("tiny", dtype=F64, kernels="reference").eval()
    expected = archdsl.generate(made, prompts(2), 6, recorded=False)
    assert torch.equal(archdsl.generate(made, prompts(2), 6, recorded=True), expected)


def test_memory_may_be_there_later(llama: Any, monkeypatch: pytest.MonkeyPatch):
    """What fails for want of memory is tried again, once without the decoders that lie idle, and is never remembered."""
    archdsl.generate(llama, prompts(2), 4)
    tried: list[int] = []

    def full(run: Any, generator: Any) -> Any:
        tried.append(len(llama.__dict__["_decoders"]))
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as here:
        here.setitem(kept.RECORDINGS, "cpu", full)
        with pytest.warns(UserWarning, match="runs op by op: OutOfMemoryError: no memory"):
            archdsl.generate(llama, prompts(6), 4)
        assert tried == [1, 0]
        with pytest.raises(torch.OutOfMemoryError):
            archdsl.generate(llama, prompts(6), 4, recorded=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        archdsl.generate(llama, prompts(6), 4)
    assert any(p.batch == 8 for p in llama.__dict__["_decoders"])


def test_what_cannot_be_recorded_is_said(llama: Any, monkeypatch: pytest.MonkeyPatch):
    def refuse(run: Any, generator: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setitem(kept.RECORDINGS, "cpu", refuse)
    llama.__dict__["_decoders"] = {}
    expected = archdsl.generate(llama, prompts(7), 4, recorded=False)
    for _ in range(kept.TRIES):
        with pytest.warns(UserWarning, match="cannot be recorded, so it runs op by op: RuntimeError: operation not permitted"):
            assert torch.equal(archdsl.generate(llama, prompts(7), 4), expected)
    with warnings.catch_warnings():  # no more
        warnings.simplefilter("error")
        archdsl.generate(llama, prompts(7), 4)
    with pytest.raises(RuntimeError, match="cannot be recorded: RuntimeError: operation not permitted"):
        archdsl.generate(llama, prompts(7), 4, recorded=True)
    monkeypatch.delitem(kept.RECORDINGS, "cpu")
    with pytest.raises(RuntimeError, match="steps are recorded on cuda, and this model lies on cpu"):
        archdsl.generate(llama, prompts(7), 4, recorded=True)
    with pytest.raises(RuntimeError, match="`compiled` is of a recorded step, steps are recorded on cuda, and this model lies on cpu"):
        archdsl.generate(llama, prompts(7), 4, compiled=True)
    with pytest.raises(ValueError, match="beams"):
        archdsl.generate(llama, prompts(2), 4, beams=2, recorded=True)
    without: tuple[tuple[dict[str, Any], str], ...] = (({"beams": 2}, "`beams`"), ({"recorded": False}, "`recorded = False`"))
    for given, what in without:
        with pytest.raises(ValueError, match=f"`compiled` is of a recorded step: leave it out with {what}"):
            archdsl.generate(llama, prompts(2), 4, compiled=True, **given)
