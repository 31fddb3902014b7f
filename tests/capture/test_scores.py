"""Scores with masks, biases, bounds and views laid over them are attention; parts under another mode are laid open."""
from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import archdsl
from archdsl.capture.formulas import pattern
from archdsl.diagnostics.model import ArchError
from archdsl.dims import Dim, substitute
from archdsl.graph import Mask
from tests.parity.proof import relative

LOW = torch.finfo(torch.float32).min
NONE = float("-inf")
CAUSAL, WINDOW = Mask("causal"), Mask("and", (Mask("causal"), Mask("window", (3,))))


class Layered(nn.Module):
    """Attention of 2 heads whose scores [B, 2, T, T] go through a function before the softmax; it also gets the positions and a number by key."""

    def __init__(self, over, merged=False):
        super().__init__()
        self.over, self.merged, self.qkv = over, merged, nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in self.qkv(x).split(8, -1))
        i, key = torch.arange(x.shape[1]), x[:, None, None, :, 0]
        if self.merged:  # heads lie in the batch axis, and a bias is added to their product
            q, k, v = (y.flatten(0, 1) for y in (q, k, v))
            scores = torch.baddbmm(_slopes(i).repeat(x.shape[0], 1, 1), q, k.mT, alpha=0.5)
            weights = self.over(scores.unflatten(0, (x.shape[0], 2)), i, key).softmax(-1).flatten(0, 1)
            return (weights @ v).unflatten(0, (x.shape[0], 2))
        return self.over(q @ k.mT * 0.5, i, key).softmax(-1) @ v


def _slopes(i):
    """A bias for each head and key."""
    return torch.tensor([0.5, 0.25])[:, None, None] * i


def _causal(i, low=LOW):
    return torch.where(i[None] <= i[:, None], 0.0, low)


CASES = {  # scores, positions, keys -> scores; the mask, whether a bias is left
    "kept and a bias": (lambda s, i, x: torch.where(i[:, None] - i < 3, s, torch.tensor(LOW)) + _causal(i), WINDOW, False),
    "slopes below a mask": (lambda s, i, x: s + _slopes(i) + _causal(i), CAUSAL, True),
    "a mask below slopes": (lambda s, i, x: s + _causal(i) + _slopes(i), CAUSAL, True),
    "slopes and a mask in one": (lambda s, i, x: s + torch.where(i[None] > i[:, None], LOW, _slopes(i)), CAUSAL, True),
    "a bound": (lambda s, i, x: torch.max(s + _causal(i), torch.tensor(LOW)), CAUSAL, False),
    "two exclusions": (lambda s, i, x: s.masked_fill(i[None] > i[:, None], NONE).masked_fill(i[:, None] - i > 2, NONE), WINDOW, False),
    "another by the data": (lambda s, i, x: s.masked_fill(i[None] > i[:, None], NONE).masked_fill((x > 1) & (i[None] != i[:, None]), NONE),
                            CAUSAL, True),
    "a weak one beside slopes": (lambda s, i, x: s + _slopes(i) + _causal(i, -2e4), Mask("full"), True),
}


@pytest.mark.parametrize(("name", "merged"), [*((name, False) for name in CASES), ("kept and a bias", True), ("slopes and a mask in one", True),
                                              ("a bound", True)])
def test_layers_over_scores(name, merged):
    over, mask, biased = CASES[name]
    module = Layered(over, merged).eval()
    found = archdsl.capture(module, torch.randn(2, 5, 8), dynamic={0: "B", 1: "T"})
    ops = [n for g in found.graph.definitions() for n in g.nodes]
    assert [(n.attrs["mask"], n.args[3] is not None) for n in ops if n.op == "attention"] == [(mask, biased or merged)]
    assert not {n.op for n in ops} & {"softmax", "matmul"}
    ours = found.build().eval()
    for batch, length in ((1, 1), (3, 2), (2, 7)):
        x = torch.randn(batch, length, 8)
        with torch.no_grad():
            assert relative(ours(x), module(x)) <= 1e-6


@pytest.mark.parametrize("over", [
    lambda s, i, x: torch.where(x > 0, s, torch.tensor(LOW)),             # by the data, finite: a row without keys averages all
    lambda s, i, x: torch.max(s.masked_fill(x > 0, NONE), torch.tensor(LOW)),
    lambda s, i, x: torch.where(i[None] > i[:, None], s, s * 2),          # two products
    lambda s, i, x: torch.max(s + _causal(i), torch.tensor(-1.0)),        # a bound that scores reach
    lambda s, i, x: torch.max(s + (x > 0).float().log(), torch.tensor(LOW)),         # a bound, beside what may be -∞ all along a row
    lambda s, i, x: torch.max(s + torch.where(x > 0, 0.0, NONE), torch.tensor(LOW)),
    lambda s, i, x: torch.where((i[:, None] >= i) & (i[:, None] < i), s, torch.tensor(LOW))])  # no pair at all
def test_other_layers_stay_computations(over):
    module = Layered(over).eval()
    found = archdsl.capture(module, torch.randn(2, 5, 8), dynamic={0: "B", 1: "T"})
    assert all(n.attrs["mask"] == Mask("full") for g in found.graph.definitions() for n in g.nodes if n.op == "attention")
    ours, x = found.build().eval(), torch.randn(3, 6, 8)
    x[0, :, 0] = -x[0, :, 0].abs()  # rows without keys
    with torch.no_grad():
        assert relative(ours(x), module(x)) <= 1e-6


def _holds(c, row, column):
    def number(d):
        found = substitute(d, {"place 0": row + 1, "place 1": column + 1}) if isinstance(d, Dim) else d
        assert isinstance(found, int)
        return found

    return {"true": lambda: True, "false": lambda: False, "ge": lambda: number(c[1]) >= 0, "and": lambda: all(_holds(p, row, column) for p in c[1:]),
            "not": lambda: not _holds(c[1], row, column)}[c[0]]()


@pytest.mark.parametrize(("rows", "columns"), [(3, 4), (4, 3), (1, 3), (3, 1)])
def test_a_table_of_equal_diagonals_is_read_as_a_band(rows, columns):
    """Every such table of bools: what is read says each element; it is read where the elements change at most twice from diagonal to diagonal."""
    for diagonals in product((False, True), repeat=rows + columns - 1):
        table = tuple(tuple(diagonals[r - c + columns - 1] for c in range(columns)) for r in range(rows))
        found = pattern(table)
        assert (found is not None) == (sum(a != b for a, b in pairwise(diagonals)) <= 2)
        if found is not None:
            assert all(_holds(found, r, c) == table[r][c] for r in range(rows) for c in range(columns))
    assert pattern(((True, False), (True, True), (False, False))) is None


def test_a_table_cut_from_its_end_bounds_the_length():
    """`table[:, max(0, 8 - T):]` is as long as the scores where T is at most 8: said as that."""
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.table: torch.Tensor
            self.register_buffer("table", torch.randn(4, 8))

        def forward(self, x):
            return x + self.table[:, max(0, 8 - x.shape[2]):]

    found = archdsl.capture(Cut(), torch.randn(2, 4, 5), dynamic={0: "B", 2: "T"})
    assert [g.message for g in found.graph.guards] == ["T <= 8 is required"]
    with pytest.raises(Exception, match="T <= 8"):
        found.build()(torch.randn(1, 4, 9))


# ---------------------------------------------------------------- modes
class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.frozen, self.cut, self.free = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        with torch.no_grad():
            a = self.frozen(x) * 2
        with torch.autocast("cpu", enabled=False):
            b = self.free(x.float()).relu() + a
        return a * b + self.cut(x).detach() * b


def test_parts_without_gradients_have_none():
    module = Parts().eval()
    found = archdsl.capture(module, torch.randn(2, 3, 4), dynamic={0: "B"})
    ours, x = found.build().eval(), torch.randn(5, 3, 4)
    mine, theirs = ours(x), module(x)
    assert relative(mine, theirs) <= 1e-6
    mine.square().sum().backward()
    theirs.square().sum().backward()
    grads = {k: p.grad for k, p in ours.named_parameters()}
    assert {k for k, g in grads.items() if g is not None} == {"free.weight", "free.bias"}
    assert {k for k, p in module.named_parameters() if p.grad is not None} == {"free.weight", "free.bias"}
    for part in (module.free.weight, module.free.bias):
        mine = grads["free.weight" if part.dim() == 2 else "free.bias"]
        assert mine is not None and part.grad is not None and relative(mine, part.grad) <= 1e-5


@pytest.mark.parametrize("part", [
    lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)),
    lambda x: _cast(x)])
def test_a_part_that_runs_in_a_way_of_its_own_is_refused(part):
    class Module(nn.Module):
        def forward(self, x):
            return part(x)

    with pytest.raises(ArchError) as fault:
        archdsl.capture(Module(), torch.randn(2, 3, 3))
    assert fault.value.diagnostics[0].code == "A0551" and fault.value.diagnostics[0].help


def _cast(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return F.relu(x @ x)
