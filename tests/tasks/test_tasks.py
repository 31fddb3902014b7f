"""What tasks ask: their rules checked on the tokens, by code of its own; batches are functions of their arguments alone."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch

from archdsl import tasks
from archdsl.diagnostics.model import ArchError
from archdsl.tasks import IGNORE, SPLITS, TASKS
from archdsl.tasks.listops import WORDS

parse: Any = tasks.parse
NAMES = ["characters", "digits", "listops", "mqar", "phonebook", "selective_copying", "topics"]


def test_ours_are_listed():
    assert [n for n in TASKS.every() if n in NAMES] == NAMES


def test_no_torch_before_a_batch():
    code = "import sys, archdsl.tasks as t\nfor n in ('mqar', 'listops(depth = 2)', 'characters'): t.parse(n)\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_a_function_of_its_arguments(name):
    if name == "digits":
        pytest.importorskip("sklearn")
    task, again = parse(name), parse(name)
    first = task.batch("train", 5, 3, seed=1)
    task.batch("train", 6, 3, seed=1)
    for t in (task, again, parse(task.text)):
        assert all(torch.equal(v, first[k]) for k, v in t.batch("train", 5, 3, seed=1).items())
    others = [task.batch("train", 6, 3, 1), task.batch("train", 5, 3, 2), task.batch("valid", 5, 3, 1), task.batch("test", 5, 3, 1)]
    assert all(not torch.equal(o[i.name], first[i.name]) for o in others for i in task.inputs)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_batches_have_a_size(size):
    with pytest.raises(ValueError, match="`size` is a whole number from 1 up"):
        parse("mqar").batches(size=size)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 7])
def test_a_batch_is_what_the_task_says(name, size):
    if name == "digits":
        pytest.importorskip("sklearn")
    task = parse(name)
    for split in SPLITS:
        batch = task.batch(split, 3, size)
        assert set(batch) == {*(i.name for i in task.inputs), "targets"}
        for i in task.inputs:
            assert batch[i.name].shape == tuple(s if isinstance(s, int) else {**task.sizes, "B": size}[s] for s in i.shape)
            assert batch[i.name].dtype == (torch.int64 if i.kind == "int" else torch.float32)
            if i.high is not None:
                assert i.low <= batch[i.name].min() and batch[i.name].max() <= i.high
        targets = batch["targets"]
        assert targets.shape == task.targets_shape(size) and targets.dtype == torch.int64
        counted = targets[targets != IGNORE]
        assert len(counted) >= size and counted.min() >= 0 and counted.max() < task.classes


def test_mqar_asks_for_the_value_that_went_with_the_key():
    task = parse("mqar(vocab = 20, length = 40, pairs = 9)")  # as many pairs as there are keys
    batch = task.batch("train", 0, 50)
    for tokens, targets in zip(batch["tokens"].tolist(), batch["targets"].tolist()):
        book = dict(zip(tokens[0:18:2], tokens[1:18:2]))
        assert len(book) == 9 and all(1 <= k < 10 for k in book) and all(10 <= v < 20 for v in book.values())
        asked = {at: t for at, t in enumerate(tokens) if at >= 18 and t}
        assert sorted(asked.values()) == sorted(book)
        assert targets == [book[asked[at]] if at in asked else IGNORE for at in range(40)]


def test_mqar_gap():
    """The mean place of queries, 1 to 40: uniform for gap = 1; a power law of exponent -1.9 puts one query of a single pair at the beginning."""
    def mean(gap):
        targets = parse(f"mqar(length = 42, pairs = 1, gap = {gap})").batch("train", 0, 4000)["targets"]
        return (targets != IGNORE).float().argmax(-1).float().mean().item() - 1

    weights = torch.arange(1, 41.0) ** -0.9
    assert abs(mean(1) - 20.5) < 0.6
    assert abs(mean(0.1) - (weights * torch.arange(1, 41.0)).sum().item() / weights.sum().item()) < 0.6


def test_selective_copying_keeps_the_order():
    batch = parse("selective_copying(vocab = 9, length = 20, copies = 6)").batch("valid", 2, 40)
    for tokens, targets in zip(batch["tokens"].tolist(), batch["targets"].tolist()):
        assert tokens[20:] == [1] * 6
        assert targets == [IGNORE] * 20 + [t for t in tokens[:20] if t]
    assert len({tuple(t) for t in (batch["tokens"][:, :20] != 0).tolist()}) > 30


def test_selective_copying_without_noise():
    batch = parse("selective_copying(length = 5, copies = 5)").batch("train", 0, 4)
    assert torch.equal(batch["tokens"][:, :5], batch["targets"][:, 5:])


def test_phonebook_asks_for_the_number_of_the_name():
    names = "abcdefghijklmnopqrstuvwxyz0123456789:\n"
    batch = parse("phonebook(entries = 5, letters = 2, digits = 3)").batch("train", 0, 40)
    for tokens, targets in zip(batch["tokens"].tolist(), batch["targets"].tolist()):
        *lines, query = "".join(names[t] for t in tokens).split("\n")
        book = {line.split(":")[0]: line.split(":")[1] for line in lines}
        assert len(book) == 5 and all(len(n) == 2 and n.isalpha() and len(d) == 3 and d.isdigit() for n, d in book.items())
        name, written = query.split(":")
        number = book[name]
        assert written == number[:-1]  # the last digit is no input
        assert [names[t] for t in targets if t != IGNORE] == list(number)
        assert all(t == IGNORE for t in targets[:-3])


def value(words: Sequence[str]) -> int:
    """By a stack, from the published definition; the generator's own code is recursive."""
    stack: list[list] = [[]]
    for w in words:
        if w.startswith("["):
            stack.append([w])
        elif w != "]":
            stack[-1].append(int(w))
        else:
            name, *xs = stack.pop()
            assert 2 <= len(xs) <= 5
            ordered = sorted(xs)
            middle = Fraction(ordered[(len(xs) - 1) // 2] + ordered[len(xs) // 2], 2)
            stack[-1].append({"[MIN": min(xs), "[MAX": max(xs), "[MED": int(middle), "[SM": sum(xs) % 10}[name])
    ((result,),) = stack
    return result


def test_listops_values():
    batch = parse("listops(length = 50, depth = 3)").batch("train", 0, 200)
    lengths, depths = set(), set()
    for tokens, targets in zip(batch["tokens"].tolist(), batch["targets"].tolist()):
        words = [WORDS[t] for t in tokens]
        expression = [w for w in words if w != "<pad>"]
        assert words[-len(expression):] == expression  # padding stands in front
        assert targets == [IGNORE] * 49 + [value(expression)]
        lengths.add(len(expression))
        open_ = [sum(1 if w.startswith("[") else -(w == "]") for w in expression[:i + 1]) for i in range(len(expression))]
        depths.add(max(open_))
    assert depths == {1, 2, 3} and max(lengths) > 25
    assert value("[MAX 2 9 [MIN 4 7 ] 0 ]".split()) == 9 and value("[MED 1 4 ]".split()) == 2 and value("[SM 9 9 9 ]".split()) == 7


def test_listops_of_the_smallest_length():
    batch = parse("listops(length = 4)").batch("train", 0, 20)
    assert (batch["tokens"][:, -1] == WORDS.index("]")).all()


def test_characters_are_windows_of_the_text():
    from pydoc_data.topics import topics

    shipped: Any = topics
    text = "\n\n".join(shipped[n] for n in sorted(shipped)).encode()
    task = parse("characters(length = 60)")
    for split, (low, high) in {"train": (0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1)}.items():
        batch = task.batch(split, 0, 16)
        assert torch.equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
        for row, last in zip(batch["tokens"].tolist(), batch["targets"][:, -1].tolist()):
            assert bytes([*row, last]) in text[int(low * len(text)):int(high * len(text))]
    assert task.digest and task.digest == parse("characters").digest


def test_digits_take_every_image_once_in_an_epoch():
    pytest.importorskip("sklearn")
    task = parse("digits")
    assert [task.count(s) for s in SPLITS] == [1257, 270, 270]
    row = lambda x: tuple(x.flatten().tolist())
    valid = torch.cat([task.batch("valid", i, 30)["image"] for i in range(9)])
    assert len({row(x) for x in valid}) == 270
    epochs = torch.cat([task.batch("train", i, 419, seed=3)["image"] for i in range(6)])  # 3 batches an epoch
    first, second = [row(x) for x in epochs[:1257]], [row(x) for x in epochs[1257:]]
    assert sorted(first) == sorted(second) and first != second and len(set(first)) == 1257
    across = [row(x) for x in task.batch("train", 2, 500, seed=3)["image"]]  # ends one epoch, begins the next
    assert across == [*first[1000:], *second[:243]]
    assert epochs.min() == -1 and epochs.max() == 1


def test_digits_are_those_of_scikit_learn():
    load = pytest.importorskip("sklearn.datasets").load_digits()
    labels = {tuple((x / 8 - 1).astype("float32").flatten().tolist()): int(y) for x, y in zip(load.images, load.target)}
    batch = parse("digits(channels = 3, size = 16)").batch("test", 0, 50)
    assert batch["image"].shape == (50, 3, 16, 16)
    for x, y in zip(batch["image"], batch["targets"].tolist()):
        assert torch.equal(x[0], x[2]) and torch.equal(x[:, ::2, ::2], x[:, 1::2, 1::2])
        assert labels[tuple(x[1, ::2, ::2].flatten().tolist())] == y


def test_metrics_are_counted_by_hand():
    task = parse("selective_copying(vocab = 4, length = 2, copies = 2)")
    targets = torch.tensor([[IGNORE, IGNORE, 2, 3], [IGNORE, IGNORE, 3, 3]])
    scores = torch.full((2, 4, 4), 0.0)
    scores[0, 2, 2] = scores[0, 3, 3] = scores[1, 2, 3] = scores[1, 3, 1] = 2.0
    found = task.metrics(scores, {"targets": targets})
    z = 3 + torch.tensor(2.0).exp().item()
    right, wrong = -(2 - torch.tensor(z).log().item()), torch.tensor(z).log().item()
    assert found["accuracy"] == 0.75
    assert found["loss"] == pytest.approx((3 * right + wrong) / 4)


def test_evaluation_counts_every_example_once():
    pytest.importorskip("sklearn")

    class Seven(torch.nn.Module):
        def forward(self, x):
            assert not self.training
            return torch.nn.functional.one_hot(torch.full((len(x),), 7), 10).float()

    task, model = parse("digits"), Seven()
    share = sum((task.batch("valid", i, 90)["targets"] == 7).sum().item() for i in range(3)) / 270
    for size in (32, 270, 271):
        assert task.evaluate(model, size=size)["accuracy"] == pytest.approx(share)
    assert model.training


@pytest.mark.parametrize(("text", "code", "said"), [
    ("mqra", "A0591", "mqar"), ("nothing_of_that_name", "A0591", "listops"), ("mqar(pears = 2)", "A0592", "pairs"),
    ("mqar() on x", "A0592", "options"),
    ("mqar(pairs = \"a\")", "A0204", "int"), ("mqar(pairs = 22)", "A0592", "66"), ("mqar(vocab = 10, pairs = 5)", "A0592", "4 keys"),
    ("mqar(gap = 0)", "A0592", "above 0"), ("mqar(pairs = 0)", "A0592", "the option `pairs` of `mqar`: it is 1 at least"),
    ("selective_copying(length = 4, copies = 5)", "A0592", "room"),
    ("listops(length = 3)", "A0592", "4 at least"), ("listops(depth = 51)", "A0592", "50"), ("phonebook(entries = 14, letters = 1)", "A0592", "half"),
    ("phonebook(letters = 7)", "A0592", "1 to 6"), ("characters(length = 10_000_000)", "A0592", "bytes"), ("digits(size = 12)", "A0592", "multiple"),
    ("mqar(", "A01", ""),
])
def test_what_is_wrong(text, code, said):
    with pytest.raises(ArchError) as fault:
        parse(text)
    assert fault.value.diagnostics[0].code.startswith(code)
    assert said in str(fault.value)


def test_an_option_in_python_that_there_is_not():
    with pytest.raises(TypeError, match="has no option 'pears'"):
        TASKS.every()["mqar"].body(pears=3)
