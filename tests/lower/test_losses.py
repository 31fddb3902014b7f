"""Models that end in their loss: the same number and gradients as scores and loss apart, and what stands in the way of one op for both."""
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.lower.forms import sibling
from archdsl.lower.losses import loss_of
from archdsl.tasks import parse

HEAD = """\
use std {{ Linear, MLP, TokenEmbedding }}

model Net(d: int = 6, vocab: int = 11)(tokens: int[B, T] in 0..<vocab) -> {results} {{
  share embed = TokenEmbedding(vocab, d)
  h = MLP(2 * d)(embed(tokens)) as mlp
  {body}
}}
"""
FUSED = {
    "head": "return Linear(vocab)(h) as head",
    "tied": "return linear(h, embed.weight)",
    "scaled": "return linear(h, embed.weight) / d ** 0.5",
    "capped": "return softcap(0.5 * linear(h, embed.weight), 3)",
    "wide": "return cast(2 * at_least(linear(h, embed.weight), \"f32\"), \"float\")",
}
WHOLE = {
    "softmax": ("return softmax(linear(h, embed.weight), axis = -1)", "they come of `softmax`"),
    "capped twice": ("return softcap(softcap(linear(h, embed.weight), 3), 2)", "they come of `softcap`"),
    "scaled behind": ("return 2 * softcap(linear(h, embed.weight), 3)", "they come of `softcap`"),
    "learned": ("param t: [] = 2\n  return linear(h, embed.weight) * t", "they come of `mul`"),
    "input": ("return h[..., :d] + 0", "they come of `add`"),
}


def net(body, results="logits: [B, T, vocab]"):
    return archdsl.loads(HEAD.format(body=body, results=results))


def batch(classes, rows=(2, 7)):
    g = torch.Generator().manual_seed(0)
    tokens, targets = (torch.randint(0, classes, rows, generator=g) for _ in range(2))
    targets[0, :3] = -100
    return tokens, targets


def held(spec, *given, classes=11, **build):
    """Built with the loss and without: the same number, the same gradients, the same names in the same order. Gives the former."""
    ended, plain = (spec.build(dtype=torch.float64, loss=loss, **build) for loss in ("cross_entropy", None))
    *inputs, targets = given or batch(classes)
    assert list(ended.state_dict()) == list(plain.state_dict())
    scores = plain(*inputs)
    found = ended(*inputs, targets)
    loss, scores = (y[0] if isinstance(y, tuple) else y for y in (found, scores))
    expected = F.cross_entropy(scores.flatten(0, -2), targets.flatten())
    assert loss.dtype == torch.float64 and abs(loss - expected) <= 1e-12
    loss.backward()
    expected.backward()
    for (name, p), q in zip(ended.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-12, msg=name)
    return ended


def scores_of(model: Any) -> str:
    """Why a model with a loss computes all scores, "" where it does not."""
    loss = loss_of(model)
    assert loss is not None
    return loss.scores


@pytest.mark.parametrize("head", FUSED)
def test_linear_map_and_loss_are_one_op(head):
    model = held(net(FUSED[head]))
    assert "linear_cross_entropy" in model.code and not scores_of(model)


@pytest.mark.parametrize("head", WHOLE)
def test_why_all_scores_are_computed(head):
    body, why = WHOLE[head]
    model = held(net(body, "logits: [B, T, d]" if head == "input" else "logits: [B, T, vocab]"), classes=6 if head == "input" else 11)
    assert "linear_cross_entropy" not in model.code and scores_of(model).startswith(why)
    assert str(loss_of(model)).startswith(f"cross_entropy: all scores are computed, for {why}")


def test_other_results_stay():
    spec = net("y = Linear(vocab)(h) as head\n  return y, sum(h, axis = -1)", "(logits: [B, T, vocab], sums: [B, T])")
    model = held(spec)
    tokens, targets = batch(11)
    torch.testing.assert_close(model(tokens, targets)[1], spec.build(dtype=torch.float64)(tokens)[1])
    read = net("y = Linear(vocab)(h) as head\n  return y, sum(y, axis = -1)", "(logits: [B, T, vocab], sums: [B, T])")
    assert scores_of(held(read)) == "what `linear` gives is read elsewhere as well"


def test_shipped_models_and_forms():
    """A tied and capped head, documents behind each other, blocks that share a head; the other forms of a model with a loss are its own."""
    gemma = archdsl.load("gemma2").build("tiny", loss="cross_entropy")
    assert not scores_of(gemma) and "linear_cross_entropy" in gemma.code
    packed = archdsl.load("llama").build("tiny", form="packed", loss="cross_entropy", dtype=torch.float64)
    plain = archdsl.load("llama").build("tiny", form="packed", dtype=torch.float64)
    tokens, targets = (t[:1] for t in batch(512))
    lengths = torch.tensor([3, 4])
    expected = F.cross_entropy(plain(tokens, lengths)[0], targets[0])
    assert abs(packed(tokens, lengths, targets) - expected) <= 1e-12 and loss_of(packed) is not None
    scores: Any = sibling(packed, "parallel")
    assert loss_of(scores) is None and scores(tokens).shape == (1, 7, 512) and scores.embed.weight is packed.embed.weight


def test_a_task_uses_it():
    """The objective is the model's own number; metrics are those of its scores; what the task calls has the phase of the model."""
    task = parse("mqar(vocab = 16, length = 16, pairs = 3)")
    spec = archdsl.load("llama")
    ended, plain = (spec.build("tiny", vocab=16, loss=loss, drop=0.1) for loss in (task.loss, None))
    given = task.batch("train", 0, 4)
    for model in (ended, plain):
        model.eval()
    loss, _ = task.objective(ended, given)
    torch.testing.assert_close(loss, task.objective(plain, given)[0])
    assert "linear_cross_entropy" in ended.code and task.evaluate(ended, batches=1, size=4) == task.evaluate(plain, batches=1, size=4)
    assert not torch.equal(*(task.call(ended.train(), given) for _ in range(2))) and ended.training


def test_a_call_of_its_own_is_used():
    """A model that ends in its loss would go round it."""
    known: Any = type(parse("mqar(vocab = 16, length = 16, pairs = 3)"))
    halved = type("Halved", (known,), {"call": lambda self, model, batch: known.call(self, model, batch) / 2})
    assert halved(vocab=16, length=16, pairs=3).loss is None and known(vocab=16, length=16, pairs=3).loss == "cross_entropy"


MINE = """extern block Mine(d: int)(x: [..., d]) -> [..., d]
model Net(vocab: int = 16)(tokens: int[B, T]) -> logits: [B, T, vocab] {
  param table: [vocab, 8] = normal(0, 1)
  param head: [vocab, 8] = normal(0, 1)
  return linear(Mine(8)(take(table, tokens, axis = 0)) as mine, head)
}
"""


def test_extern_blocks_are_evaluated_too():
    """The siblings have the tensors of the bound modules, and a phase of their own."""
    class Mine(torch.nn.Sequential):
        def __init__(self, d: int):
            super().__init__(torch.nn.Linear(d, d), torch.nn.Dropout(0.5))

    task = parse("mqar(vocab = 16, length = 16, pairs = 3)")
    spec = archdsl.loads(MINE)
    ended, plain = (spec.build(bind={"Mine": Mine}, loss=loss) for loss in (task.loss, None))
    assert task.evaluate(ended, batches=1, size=4) == task.evaluate(plain, batches=1, size=4)
    with torch.no_grad():
        for model in (ended, plain):
            model.get_parameter("mine.0.weight").mul_(3)
    made = sibling(ended, "parallel")
    assert ended.get_submodule("mine").training and not made.get_submodule("mine").training
    assert made.get_parameter("mine.0.weight") is ended.get_parameter("mine.0.weight")
    assert task.evaluate(ended, batches=1, size=4) == task.evaluate(plain, batches=1, size=4) and ended.get_submodule("mine.1").training


@pytest.mark.parametrize(("build", "words"), [
    ({"loss": "cross_entrpy"}, "there is no loss `cross_entrpy`"), ({"loss": True}, "by its name, not by True"), ({"loss": 1}, "not by 1"),
    ({"loss": torch.nn.CrossEntropyLoss()}, "not by CrossEntropyLoss"), ({"loss": "cross_entropy", "form": "step"}, "has no loss"),
])
def test_what_cannot_be(build, words):
    with pytest.raises(ArchError, match=words) as fault:
        archdsl.load("llama").build("tiny", **build)
    assert fault.value.diagnostics[0].code == "A0526" and fault.value.diagnostics[0].help


@pytest.mark.parametrize(("header", "words"), [
    ("(x: [B]) -> y: [B] {\n  return x\n}", "gives no scores: it is \\[B\\]"),
    ("(x: [B, N], targets: [B]) -> y: [B, N] {\n  return x + targets[:, none]\n}", "has an input `targets` already"),
])
def test_models_without_scores(header, words):
    with pytest.raises(ArchError, match=words):
        archdsl.loads(f"model Net(){header}\n").build(loss="cross_entropy")


@pytest.mark.parametrize("body", [FUSED["head"], WHOLE["capped twice"][0]])
@pytest.mark.parametrize("wrong", [11, -1])
def test_targets_that_are_no_classes(body, wrong):
    """By the op that has the map in it, and by that of scores; -100 is none that is asked for."""
    tokens, targets = batch(11)
    targets[0, 0], targets[1, 2] = -100, wrong
    model = net(body).build(loss="cross_entropy")
    with pytest.raises(ValueError, match=f"^`targets` holds {wrong}: it holds classes, 0 to 10, and -100 where nothing is asked$"):
        model(tokens, targets)
    targets[1, 2] = 10
    assert model(tokens, targets).isfinite()


def test_the_reference_can_be_asked_for():
    spec, (tokens, targets) = net(FUSED["tied"]), batch(11)
    plain = spec.build(loss="cross_entropy", kernels="reference")
    assert plain.code.count('-100, "reference")') == 1
    torch.testing.assert_close(plain(tokens, targets), spec.build(loss="cross_entropy")(tokens, targets))
