"""Training on documents behind each other: the same losses and steps as with each alone, and nothing goes over a border."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.tasks import IGNORE, parse
from archdsl.training.interface import check_call, check_inputs
from tests.streaming.forms import shaken

USE = """use std.channel { MLP }
use std.embed { Rope, TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.recurrent { DeltaNet }
use std.residual { Pre }
"""
NET = USE + """
model Net(vocab: int = 16, d: int = 8)(tokens: int[B = 1, {T}] in 0..<vocab) -> logits: [B, T, vocab]{stream} {
  x = TokenEmbedding(vocab, d)(tokens) as embed
  x = Pre(RMSNorm(), Attention(2, mask = causal, positions = Rope()))(x) as attn
  x = Pre(RMSNorm(), DeltaNet(2))(x) as mix
  x = Pre(RMSNorm(), MLP(2 * d))(x) as mlp
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}
"""
RAGGED, PLAIN = NET.replace("{T}", "ragged T = 32").replace("{stream}", ""), NET.replace("{T}", "T = 32").replace("{stream}", " stream T")
TASK = parse("listops(length = 24, depth = 3)")
SIZE = 5
fit: Any = archdsl.fit


def both(seed: int = 0) -> tuple[Any, Any]:
    """The packed model, and one of the same weights that takes each document alone."""
    packed = shaken(archdsl.loads(RAGGED, "net.arch").build(dtype=torch.float64), seed)
    alone = archdsl.loads(PLAIN, "net.arch").build(dtype=torch.float64)
    alone.load_state_dict(packed.state_dict())
    return packed, alone


def documents(batch: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Each example without its padding, from the definition of the task's words."""
    found = []
    for tokens, targets in zip(batch["tokens"], batch["targets"]):
        own = tokens != 15  # <pad>
        found.append({"tokens": tokens[own][None], "targets": targets[own][None]})
    return found


def alone_objective(model: Any, batch: list[dict[str, torch.Tensor]], step: int) -> tuple[torch.Tensor, dict[str, float]]:
    """The mean over all targets of documents that are given one by one."""
    asked = [d["targets"] != IGNORE for d in batch]
    scores = torch.cat([model(d["tokens"])[a] for d, a in zip(batch, asked)])
    return torch.nn.functional.cross_entropy(scores, torch.cat([d["targets"][a] for d, a in zip(batch, asked)])), {}


def test_packed_batches_have_no_padding():
    batch = TASK.batch("train", 0, SIZE)
    packed, own = TASK.packed(batch), documents(batch)
    assert packed["lengths"].tolist() == [d["tokens"].shape[1] for d in own] and len({*packed["lengths"].tolist()}) > 2
    for name in ("tokens", "targets"):
        assert torch.equal(packed[name], torch.cat([d[name] for d in own], 1))
    whole = parse("mqar").packed(parse("mqar").batch("train", 0, 3))
    assert whole["lengths"].tolist() == [64] * 3 and whole["tokens"].shape == (1, 192)


def test_the_steps_are_those_of_documents_alone():
    packed, alone = both()
    separate = [documents(TASK.batch("train", i, SIZE)) for i in range(3)]
    how = {"steps": 3, "lr": 1e-2, "weight_decay": 0.1, "clip": 1.0}
    here = fit(packed, TASK, TASK.batches("train", SIZE, packed=True), **how)
    there = fit(alone, alone_objective, separate, **how)
    for a, b in zip(here.log, there.log, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-12) and a["norm"] == pytest.approx(b["norm"], rel=1e-10)
    for (name, a), b in zip(packed.named_parameters(), alone.parameters(), strict=True):
        assert (a - b).abs().max() < 1e-10, name
    valid = [alone_objective(alone.eval(), documents(TASK.batch("valid", i, SIZE)), 0)[0].item() for i in range(2)]
    assert TASK.evaluate(packed, "valid", 2, SIZE)["loss"] == pytest.approx(sum(valid) / 2, rel=1e-12)


def test_no_loss_goes_over_a_border():
    """The loss of one document moves with no token of another one, whichever is asked."""
    packed, _ = both(1)
    tokens = torch.arange(15)[None]  # each token once, so each has a row of the embedding for itself
    lengths = torch.tensor([4, 1, 7, 3])
    begin = 0
    for n in lengths.tolist():
        targets = torch.full_like(tokens, IGNORE)
        targets[:, begin:begin + n] = 3
        loss, _ = TASK.objective(packed, {"tokens": tokens, "targets": targets, "lengths": lengths})
        (gradient,) = torch.autograd.grad(loss, [packed.embed.weight])
        moved = gradient.abs().sum(1) > 0
        assert moved.nonzero().flatten().tolist() == list(range(begin, begin + n))
        begin += n


def test_an_interrupted_training_goes_on(tmp_path):
    batches = TASK.batches("train", SIZE, packed=True)
    spec = archdsl.loads(RAGGED, "net.arch")
    how = {"steps": 5, "lr": 1e-2, "every": 2}
    whole = fit(spec.build(), TASK, batches, **how)
    fit(spec.build(), TASK, batches, out=tmp_path / "net", until=3, **how)
    again = fit(archdsl.open(tmp_path / "net"), TASK, batches, out=tmp_path / "net", resume=True, **how)
    assert again.log == whole.log
    for a, b in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_does_not_fit():
    spec = archdsl.loads(RAGGED, "net.arch")
    with pytest.raises(ValueError, match="packed = True"):
        fit(spec.build(), TASK, TASK.batches("train", SIZE), steps=1)
    with pytest.raises(ArchError) as fault:
        check_inputs(spec.elaborate(), parse("digits"), 3)
    assert fault.value.diagnostics[0].code == "A0593" and "documents behind each other" in fault.value.diagnostics[0].message
    with pytest.raises(ArchError) as fault:
        check_call(spec.build(vocab=12), TASK, SIZE)
    assert fault.value.diagnostics[0].code == "A0593"
    with pytest.raises(ValueError, match="`parallel` or `packed`"):
        fit(spec.build(form="step"), TASK, TASK.batches("train", SIZE), steps=1)
