"""Recorded steps on a card: the tokens of steps that are not recorded, draws by seed, memory that does not grow."""
from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import archdsl

pytestmark = pytest.mark.gpu


def model(name: str, dtype: torch.dtype = torch.float32) -> Any:
    made = archdsl.load(f"specs/language/{name}.arch").build("tiny", dtype=dtype, device="cuda").eval()
    generator = torch.Generator("cuda").manual_seed(0)
    with torch.no_grad():
        for p in made.parameters():
            if p.is_floating_point():
                p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype, device="cuda"))
    return made


def prompts(batch: int) -> torch.Tensor:
    return torch.randint(0, 40, (batch, 5), generator=torch.Generator().manual_seed(batch)).cuda()


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("name", ["llama", "gla", "mamba2", "deltanet", "gemma2", "jamba", "mixtral", "deepseek_v2", "rwkv4"])
def test_tokens(name: str, batch: int):
    """In float32 the two orders of summation do not change which token is likeliest."""
    made = model(name)
    expected = archdsl.generate(made, prompts(batch), 24, recorded=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(archdsl.generate(made, prompts(batch), 24, recorded=True), expected)
        assert torch.equal(archdsl.generate(made, prompts(batch), 24, recorded=True), expected)  # the decoder of before


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("name", ["gla", "mamba2"])
def test_memories_of_another_type(name: str, batch: int):
    """In float32 as ever; in bfloat16 the decoder keeps them so, and no token is drawn that was far from likeliest."""
    made = model(name)
    expected = archdsl.generate(made, prompts(batch), 24, recorded=False)
    assert torch.equal(archdsl.generate(made, prompts(batch), 24, state_dtype=torch.float32), expected)
    found = archdsl.generate(made, prompts(batch), 24, state_dtype=torch.bfloat16)
    kept = next(d for p, d in made.__dict__["_decoders"].items() if p.memories == torch.bfloat16)
    assert any(x.dtype == torch.bfloat16 for x in kept.state.values())
    with torch.no_grad():
        logits = made(found[:, :-1])[:, 4:].float()
    chosen = logits.gather(-1, found[:, 5:, None])[..., 0]
    assert (logits.amax(-1) - chosen).max() <= 0.05 * logits.std()


def test_compiled():
    made = model("llama")
    expected = archdsl.generate(made, prompts(2), 24, recorded=False)
    assert torch.equal(archdsl.generate(made, prompts(2), 24, recorded=True, compiled=True), expected)


def test_draws_and_ends():
    made = model("llama")
    for settings in ({"temperature": 0.9}, {"temperature": 1.0, "top_k": 5, "top_p": 0.8}):
        given: dict[str, Any] = {"seed": 3, **settings}
        expected = archdsl.generate(made, prompts(3), 24, recorded=False, **given)
        for _ in range(2):
            assert torch.equal(archdsl.generate(made, prompts(3), 24, recorded=True, **given), expected)
    free = archdsl.generate(made, prompts(3), 40, recorded=False)
    eos = sorted({int(free[i, 7 + 3 * i]) for i in range(3)})
    expected = archdsl.generate(made, prompts(3), 40, recorded=False, eos=eos)
    assert torch.equal(archdsl.generate(made, prompts(3), 40, recorded=True, eos=eos), expected)
    assert torch.equal(torch.stack(list(archdsl.generate_stream(made, prompts(3), 40, recorded=True, eos=eos)), 1), expected[:, 5:])


def test_no_seed_differs():
    made = model("llama")
    one, two = (archdsl.generate(made, prompts(3), 24, temperature=1.0) for _ in range(2))
    assert not torch.equal(one, two)


def test_bf16_and_memory():
    """A step allocates nothing: as much memory behind many tokens as behind few."""
    made = model("llama", torch.bfloat16)
    archdsl.generate(made, prompts(2), 40)
    before = torch.cuda.memory_allocated()
    archdsl.generate(made, prompts(2), 40)
    assert torch.cuda.memory_allocated() == before


def test_autocast_keeps_no_weights():
    """What is recorded under autocast reads the weights, not casts of them that are gone by then."""
    made = model("llama")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        archdsl.generate(made, prompts(2), 8, recorded=True)
    with torch.no_grad():
        made.head.weight.mul_(-1)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        again = archdsl.generate(made, prompts(2), 8, recorded=True)
        made.__dict__["_decoders"].clear()
        assert torch.equal(again, archdsl.generate(made, prompts(2), 8, recorded=True))


@pytest.mark.skipif("torch.cuda.device_count() < 2", reason="two cards are needed")
def test_another_card_than_the_current():
    made = model("llama")
    expected = archdsl.generate(made, prompts(2), 16, recorded=False)
    other = made.to("cuda:1")
    assert torch.cuda.current_device() == 0
    got = archdsl.generate(other, prompts(2).to("cuda:1"), 16, recorded=True)
    assert torch.equal(got.cpu(), expected.cpu())


def test_calls_at_the_same_time():
    made = model("llama")
    a, b = prompts(2), prompts(2).flip(0)
    expected = [archdsl.generate(made, x, 12, recorded=False)[:, 5:] for x in (a, b)]
    streams = zip(*(archdsl.generate_stream(made, x, 12, recorded=True) for x in (a, b)), strict=True)
    assert all(torch.equal(torch.stack(got, 1), right) for got, right in zip(zip(*streams), expected, strict=True))


LARGER: dict[str, dict[str, Any]] = {
    "llama": {"d": 1024, "depth": 6, "heads": 16, "kv_heads": 4, "hidden": 2816}, "gla": {"d": 1024, "depth": 6, "heads": 4, "hidden": 2816},
    "mamba2": {"d": 1024, "depth": 6}, "deltanet": {"d": 1024, "depth": 4, "heads": 8, "hidden": 2816}}


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("name", LARGER)
def test_overlapping_launches_change_nothing(name: str, batch: int, monkeypatch: pytest.MonkeyPatch):
    """Bit for bit: tokens, and the state behind hundreds of steps, each of which reads what the one before it wrote."""
    from archdsl.kernels import overlap

    made = archdsl.load(f"specs/language/{name}.arch").build(vocab=2000, dtype=torch.bfloat16, device="cuda", **LARGER[name]).eval()
    found = []
    for way in (False, None, None):
        monkeypatch.setattr(overlap, "OVERLAP", way)
        made.__dict__.pop("_decoders", None)
        tokens = archdsl.generate(made, prompts(batch), 200, recorded=True)
        found.append((tokens, {a: x.clone() for a, x in next(iter(made.__dict__["_decoders"].values())).state.items()}))
    for tokens, state in found[1:]:
        assert torch.equal(tokens, found[0][0])
        assert all(torch.equal(x, found[0][1][a]) for a, x in state.items())
