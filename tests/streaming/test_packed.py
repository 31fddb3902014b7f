"""Documents behind each other on one axis give what each gives alone."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.ops.packing import documents, index_packed
from archdsl.ops.recurrent import RECURRENCES
from archdsl.ops.registry import OPS, load
from tests.ops.cases import Call, operand_names
from tests.streaming.forms import close, shaken

LENGTHS = [4, 1, 8]
load()


@pytest.mark.parametrize(("name", "variant", "knobs"), [
    ("llama", "tiny", {}), ("gemma2", "tiny", {}), ("gpt2", None, {"d": 32, "depth": 2, "heads": 4, "vocab": 61}),
])
def test_packed_is_separate(name: str, variant: str | None, knobs: dict[str, Any]):
    spec = archdsl.load(name)
    whole = shaken(spec.build(variant, dtype=torch.float64, **knobs)).eval()
    packed = spec.build(variant, dtype=torch.float64, form="packed", **knobs).eval()
    packed.load_state_dict(whole.state_dict())
    x = torch.randint(0, 61, (2, sum(LENGTHS)))
    close(packed(x, torch.tensor(LENGTHS)), torch.cat([whole(d) for d in x.split(LENGTHS, 1)], 1), 1e-10)
    close(packed(x, torch.tensor([sum(LENGTHS)])), whole(x), 1e-10)


@pytest.mark.parametrize("name", sorted(RECURRENCES))
def test_recurrences(name: str):
    """Results and gradients, operands without time included."""
    r = RECURRENCES[name]
    call = Call(name, 0, torch.float64, True)
    axis = next(a for n, a in r.time.items() if n in operand_names(r.op))
    T = call.args[0].shape[axis]
    lengths = [1, T - 3, 2]
    labels = documents.body(torch.tensor(lengths), n=T)
    got = OPS[f"{name}_packed"].body(*call.args, labels, **call.attrs)
    parts = [[x if n not in r.time or x is None else x.split(lengths, r.time[n])[i] for n, x in zip(r.operands, call.args)] for i in range(3)]
    expected = torch.cat([r.op.body(*p, **call.attrs) for p in parts], r.time["->0"])
    close(got, expected, 1e-12)
    inputs = [x for x in call.args if x is not None]
    for a, b in zip(torch.autograd.grad(got.square().sum(), inputs), torch.autograd.grad(expected.square().sum(), inputs)):
        close(a, b, 1e-10)


def test_written_out():
    """`model.py` of a packed model of attention gives the same, and refuses lengths that do not sum."""
    from archdsl.lower.emit_python import python_source

    model = shaken(archdsl.load("llama").build("tiny", dtype=torch.float64, form="packed", depth=1)).eval()
    name: dict[str, Any] = {}
    exec(compile(python_source(model), "model.py", "exec", dont_inherit=True), name)
    other = name["Llama"]().double().eval()
    other.load_state_dict(model.state_dict())
    x = torch.randint(0, 61, (2, sum(LENGTHS)))
    close(other(x, torch.tensor(LENGTHS)), model(x, torch.tensor(LENGTHS)), 1e-12)
    with pytest.raises(ValueError, match="lengths of the documents"):
        other(x, torch.tensor([1, 2]))


@pytest.mark.parametrize("mask", ["own_block(3)", "causal & own_block(2, previous = 1)", "causal_by(3)", "window(2) | own_block(4)"])
def test_masks_count_from_the_begin_of_each(mask: str):
    spec = archdsl.loads("use std.mixer { Attention }\nmodel Net(d: int = 8)(x: [B = 1, T = 4, d]) -> y: [B, T, d] stream T "
                         f"{{ return Attention(2, mask = {mask})(x) as mix }}")
    whole, packed = (spec.build(form=form, dtype=torch.float64) for form in ("parallel", "packed"))
    x = torch.randn(2, sum(LENGTHS), 8, dtype=torch.float64)
    close(packed(x, torch.tensor(LENGTHS)), torch.cat([whole(d) for d in x.split(LENGTHS, 1)], 1), 1e-12)


def test_sums():
    """One document's numbers do not round another's."""
    x = torch.cat([torch.full((4,), 1e8), torch.full((9,), 0.1)])
    got = OPS["cumsum_packed"].body(x, torch.tensor([0] * 4 + [1] * 9), axis=0)
    close(got, torch.cat([x[:4].cumsum(0), x[4:].cumsum(0)]), 1e-6)


def test_labels():
    labels = documents.body(torch.tensor(LENGTHS), n=13)
    assert labels.tolist() == [0] * 4 + [1] + [2] * 8
    assert index_packed.body(labels).tolist() == [*range(4), 0, *range(8)]


@pytest.mark.parametrize("lengths", [[4, 1, 7], [5, 0, 8], [14, -1], []])
def test_lengths_that_do_not_sum(lengths: list[int]):
    model = archdsl.load("llama").build("tiny", form="packed", depth=1)
    with pytest.raises(ValueError, match="13 positions"):
        model(torch.zeros(1, 13, dtype=torch.int64), torch.tensor(lengths, dtype=torch.int64))


def test_what_cannot_be_packed():
    spec = archdsl.loads("model Net(d: int = 4)(x: [B = 1, T = 4, d]) -> y: [B, T, d] stream T { return x - mean(x, axis = 1, keep = true) }")
    with pytest.raises(archdsl.ArchError, match="all positions at once"):
        spec.build(form="packed")
