"""Costs against counted runs of the built model: parameters, multiply-accumulates, what autograd keeps, what is alive at once."""
from __future__ import annotations

from functools import cache

import pytest
import torch

from archdsl.cost import Cost, cost
from archdsl.dims import evaluate
from archdsl.elaborate.model import Elaborated
from archdsl.inputs import sample_inputs
from archdsl.lower import ArchModule
from archdsl.spec import Spec, loads, resolve_source
from tests.cost import counted
from tests.cost.models import CASES, HEAD, TEXTS, Case

pytestmark = pytest.mark.filterwarnings("ignore")
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16}
cases = pytest.mark.parametrize("case", CASES, ids=str)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@cache
def spec_of(name: str) -> Spec:
    return loads(HEAD + TEXTS[name]) if name in TEXTS else resolve_source(name)[0]


def made(case: Case) -> Elaborated:
    return spec_of(case.name).elaborate(case.variant, case.knobs)


def build(case: Case, dtype: str) -> tuple[Cost, ArchModule, counted.Tensors]:
    return _build(CASES.index(case), dtype)


@cache
def _build(number: int, dtype: str) -> tuple[Cost, ArchModule, counted.Tensors]:
    case = CASES[number]
    found = cost(made(case), case.at, dtype=dtype)
    model = spec_of(case.name).build(case.variant, knobs=case.knobs, dtype=DTYPES[dtype])
    return found, model, sample_inputs(made(case), found.sizes, dtype=DTYPES[dtype])


@cases
@dtypes
def test_weights(case: Case, dtype: str):
    found, model, _ = build(case, dtype)
    assert found.params == sum(p.numel() for p in model.parameters())
    declared = [*model.parameters(), *(b for name, b in model.named_buffers() if not name.rpartition(".")[2].startswith("_"))]
    assert found.weight_bytes == sum(t.numel() * t.element_size() for t in declared)


@cases
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_macs(case: Case, dtype: str):
    found, model, inputs = build(case, dtype)
    assert found.macs == counted.macs(model, inputs)


@cases
@dtypes
def test_saved_bytes(case: Case, dtype: str):
    found, model, inputs = build(case, dtype)
    assert found.saved_bytes == counted.saved_bytes(model, inputs)


@cases
@dtypes
def test_peak_bytes(case: Case, dtype: str):
    """Exact, but for what the insides of ops hold: here the tensors from which a mask of attention is made."""
    found, model, inputs = build(case, dtype)
    peak = counted.peak_bytes(model, inputs)
    assert found.peak_bytes <= peak <= found.peak_bytes + case.inside


@cases
@pytest.mark.parametrize("dtype", ["f32"])
def test_generated_python_is_near_the_peak(case: Case, dtype: str):
    """It holds a variable to the end of the statement that reads it last; the program itself does not ask for that."""
    found, model, inputs = build(case, dtype)
    assert found.peak_bytes <= counted.eager_peak_bytes(model, inputs) <= 1.5 * found.peak_bytes


# ---------------------------------------------------------------- formulas
def other_sizes(sizes: dict[str, int]) -> list[dict[str, int]]:
    """More sizes of the same model; maps keep the side that a table of positions fixes."""
    free = [n for n in sizes if n not in ("H", "W")]
    maps = [n for n in sizes if n in ("H", "W") and sizes["H"] != sizes["W"]]
    return [{**sizes, **{n: sizes[n] % 2 + 2 + 2 * i for n in free}, **{n: sizes[n] + 8 * (i + k) for k, n in enumerate(maps)}} for i in range(4)]


@cases
def test_formulas_are_the_costs_at_all_sizes(case: Case):
    formulas = cost(made(case), case.at).formulas
    for sizes in other_sizes(cost(made(case), case.at).sizes):
        found = cost(made(case), sizes)
        assert {k: evaluate(f, sizes) for k, f in formulas.items()} == {k: getattr(found, k) for k in formulas}, sizes


@cases
def test_a_size_of_one_costs_no_more_than_the_formula(case: Case):
    formulas = cost(made(case), case.at).formulas
    found = cost(made(case), {**case.at, "B": 1})
    for key, formula in formulas.items():
        assert getattr(found, key) <= evaluate(formula, found.sizes)


def test_formulas_read_as_written_by_hand():
    found = spec_of("llama").cost("tiny", at={"B": 3, "T": 7})
    d, hidden, vocab, depth, kv = 128, 256, 512, 2, 64
    layer = 2 * d * d + 2 * d * kv + 3 * d * hidden
    assert str(found.formulas["macs"]) == f"{2 * d * depth}*B*T**2 + {depth * layer + d * vocab}*B*T"
    assert str(found.formulas["params"]) == str(depth * (layer + 2 * d) + d + 2 * d * vocab)


# ---------------------------------------------------------------- by layer
@cases
def test_rows_add_up(case: Case):
    found = cost(made(case), case.at)
    root, *rows = found.layers
    assert (root.path, root.params, root.macs, root.saved_bytes) == ("", found.params, found.macs, found.saved_bytes)
    model = spec_of(case.name).build(case.variant, knobs=case.knobs, device="meta")
    for r in rows:
        assert r.params == sum(p.numel() for p in model.get_submodule(r.path).parameters())
        above = next(a for a in reversed(found.layers) if a.path != r.path and (not a.path or r.path.startswith(f"{a.path}.")))
        assert r.macs <= above.macs and r.saved_bytes <= above.saved_bytes


@cases
def test_outputs_of_rows(case: Case):
    found, model, inputs = build(case, "f32")
    shapes: dict[str, tuple[int, ...]] = {}
    for r in found.layers:
        def hook(module, args, result, path=r.path):
            shapes.setdefault(path, tuple((result[0] if isinstance(result, tuple) else result).shape))
        model.get_submodule(r.path).register_forward_hook(hook)
    model.eval()(*inputs)
    assert shapes == {r.path: r.output for r in found.layers}


def test_shared_blocks_count_their_weights_once():
    rows = {r.path: r for r in cost(made(Case("shared"))).layers}
    assert rows["f"].calls == 3 and rows["f"].params == 2 * 6 * 12 + 18 and rows["f"].macs == 3 * 10 * 2 * 6 * 12


# ---------------------------------------------------------------- models of real size
@pytest.mark.parametrize(("name", "variant"), [("llama", "llama32_1b"), ("gpt2", None), ("vit", None), ("convnext", "tiny")])
def test_real_sizes(name: str, variant: str | None):
    """On the meta device: parameters and multiply-accumulates."""
    spec = spec_of(name)
    found = spec.cost(variant)
    model = spec.build(variant, device="meta")
    inputs = tuple(t.to("meta") for t in sample_inputs(spec.elaborate(variant), found.sizes))
    assert found.params == sum(p.numel() for p in model.parameters())
    assert found.macs == counted.macs(model, inputs)
