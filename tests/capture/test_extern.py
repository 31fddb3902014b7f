"""`extern aten.x(args) -> types`: pure ops of torch under their own names."""
from __future__ import annotations

import pytest
import torch

import archdsl
from archdsl.ops.foreign import PURE
from archdsl.printer import print_graph
from archdsl.source import Source
from archdsl.syntax.fmt import format_module

TEXT = """\
model Net(d: int = 8)(x: [B, T, d], i: int[B, 3]) -> (y: [B, T, d], k: int[B, T, d]) {
  a = extern aten.atan(x) -> [B, T, d]
  v, k = extern aten.cummax(a, dim = 1) -> ([B, T, d], int[B, T, d])
  z = extern aten.index.Tensor(v, [none, none, i]) -> [B, T, B, 3]
  return v + mean(z, axis = (2, 3), keep = true)[:, :, :, 0], k
}
"""


def computed(x, i):
    v, k = torch.atan(x).cummax(1)
    return v + v[:, :, i].mean((2, 3), keepdim=True)[:, :, :, 0], k


@pytest.mark.parametrize("sizes", [(2, 5), (1, 1), (3, 4)])
def test_it_runs_for_every_size(sizes, tmp_path):
    spec = archdsl.loads(TEXT)
    x, i = torch.randn(*sizes, 8, dtype=torch.float64, requires_grad=True), torch.randint(0, 8, (sizes[0], 3))
    for model in (spec.build(dtype=torch.float64), archdsl.loads(print_graph(spec.elaborate())).build(dtype=torch.float64)):
        y, k = model(x, i)
        wanted, places = computed(x, i)
        assert torch.equal(y, wanted) and torch.equal(k, places)
        grads = [torch.autograd.grad(v.square().sum(), x)[0] for v in (y, wanted)]
        assert torch.equal(*grads) and grads[0].abs().max() > 0


def test_its_graph_prints_as_itself():
    spec = archdsl.loads(TEXT)
    assert archdsl.loads(print_graph(spec.elaborate())).graph().hash == spec.graph().hash
    other = TEXT.replace("dim = 1", "dim = 2")
    assert archdsl.loads(other).graph().hash != spec.graph().hash


def test_it_is_formatted():
    assert format_module(Source("x.arch", TEXT)) == TEXT
    assert format_module(Source("x.arch", TEXT.replace("(a, dim = 1) -> (", "( a,dim=1 )->("))) == TEXT


def test_its_cost_is_said_to_be_unknown():
    assert set(archdsl.loads(TEXT).cost(at={"B": 2, "T": 3}).unknown) == {"aten.atan", "aten.cummax", "aten.index.Tensor"}


@pytest.mark.parametrize(("op", "code"), [
    ("aten.from_file(x)", "A0229"), ("aten.rand_like(x)", "A0229"), ("aten.atan_(x)", "A0229"), ("prims.sin(x)", "A0229"), ("atan(x)", "A0229"),
    ("aten.atan(1.5)", "A0204"), ('aten.lerp.Scalar(x, x, "a")', "A0204")])
def test_what_is_not_pure_is_refused(op, code):
    with pytest.raises(archdsl.ArchError) as fault:
        archdsl.loads(f"model Net(d: int = 8)(x: [B, d]) -> [B, d] {{\n  y = extern {op} -> [B, d]\n  return y\n}}\n")
    assert [d.code for d in fault.value.diagnostics] == [code]


@pytest.mark.parametrize(("shape", "code"), [("[B, 2 ** 40, 2 ** 40]", "A0602"), ("[B, d - 9]", "A0304"), ("[B, e]", "A0305"), ("str", "A0204")])
def test_result_types_are_possible(shape, code):
    with pytest.raises(archdsl.ArchError) as fault:
        archdsl.loads(f"model Net(d: int = 8)(x: [B, d]) -> [B, _] {{\n  y = extern aten.atan(x) -> {shape}\n  return x\n}}\n")
    assert [d.code for d in fault.value.diagnostics] == [code]


def test_the_list_holds_functions_of_tensors_and_numbers_alone():
    """By their schemas in this torch: nothing is written, no text is taken, nothing is drawn."""
    for name in PURE:
        family, _, overload = name.partition(".")
        packet = getattr(torch.ops.aten, family)
        op = getattr(packet, overload)
        assert not op._schema.is_mutable, name
        assert not any(str(a.type) in ("str", "Optional[str]", "Optional[Generator]", "Generator") for a in op._schema.arguments), name
        assert torch.Tag.nondeterministic_seeded not in op.tags, name
