"""What torch.export and ONNX write of each shipped model, made small, loaded back: the same results, also at sizes that were not exported."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.inputs import sample_inputs
from archdsl.ops.recurrent import KERNELS, RECURRENCES
from archdsl.store import compile_to
from tests.lower.small_specs import CASES, SMALL, id_of

FIRST = [c for i, c in enumerate(CASES) if i == 0 or CASES[i - 1][1] != c[1]]
"""One variant of each model."""

NO_ONNX = {"SReT": "ONNX has no random permutation", "DynamicMoE": "torch's exporter has no op for a sort"}
FIXED = {"Autoregressive": "its length is taken as fixed"}


@pytest.fixture(scope="module", params=FIRST, ids=id_of)
def small(request) -> tuple[Any, str, dict[str, Any]]:
    """A spec, a variant and the knobs that make it small."""
    path, name, variant = request.param
    spec = archdsl.load(path).models[name]
    return spec, variant, {k: v for k, v in SMALL.get(name, {}).items() if k in spec.elaborate(variant).knobs or "." in k}


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory) -> tuple[Any, Any, Any]:
    """A compiled folder with an exported program, its model, and what it was elaborated to."""
    spec, variant, knobs = small
    out = tmp_path_factory.mktemp("exported") / "out"
    compile_to(out, spec, variant, knobs, seed=3, export=True)
    return out, archdsl.open(out).eval(), spec.elaborate(variant, knobs)


def opaque(graph: Any) -> bool:
    """Whether a graph holds an op that is one of torch's to itself, of which ONNX has none."""
    return any(n.op in RECURRENCES or n.op in KERNELS or n.op == "call" and opaque(n.attrs["graph"]) for n in graph.nodes)


def inputs(made: Any, more: int) -> tuple[torch.Tensor, ...]:
    """Inputs at the example sizes of exports, or with a larger batch and, where lengths are free, longer."""
    sizes = dict(made.example_sizes(traced=True))
    for size in ("B", "T", "N") if more else ():
        if size in sizes and (size == "B" or sizes[size] < 8):
            sizes[size] += more
    xs = sample_inputs(made, sizes, seed=more)
    for x in xs:
        if x.dtype == torch.bool:  # which keys count: of none torch makes 0, and ONNX the mean of all
            x[..., 0] = True
    return xs


def outputs(y: Any) -> list[torch.Tensor]:
    return [y] if isinstance(y, torch.Tensor) else list(y)


@pytest.mark.proof
@pytest.mark.parametrize("more", [0, 1])
def test_an_exported_program_gives_the_same(folder, more):
    out, model, made = folder
    if more and type(model).__name__ in FIXED:
        pytest.skip(FIXED[type(model).__name__])
    program = torch.export.load(out / "model.pt2").module()
    xs = inputs(made, more)
    results = []
    for run in (program, model):
        torch.manual_seed(0)  # SReT shuffles in evaluation as well
        results.append(outputs(run(*xs)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.proof
def test_onnx_gives_the_same(small, tmp_path):
    pytest.importorskip("onnxscript", reason="onnxscript is in the `onnx` extra")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is in the `onnx` extra")
    spec, variant, knobs = small
    made, out = spec.elaborate(variant, knobs), tmp_path / "out"
    if opaque(made.graph) or spec.name in NO_ONNX:
        with pytest.raises(archdsl.ArchError) as caught:
            compile_to(out, spec, variant, knobs, seed=3, onnx=True)
        assert [d.code for d in caught.value.diagnostics] == ["A0524"]
        assert not out.exists()
        return
    compile_to(out, spec, variant, knobs, seed=3, onnx=True)
    session, model = runtime.InferenceSession(str(out / "model.onnx")), archdsl.open(out).eval()
    names = [i.name for i in session.get_inputs()]
    assert names == [i.name for i in made.inputs]
    for more in (0,) if spec.name in FIXED else (0, 1):
        xs = inputs(made, more)
        found = session.run(None, {n: x.numpy() for n, x in zip(names, xs)})
        expected = outputs(model(*xs))
        torch.testing.assert_close([torch.from_numpy(f) for f in found], [e.detach() for e in expected], rtol=1e-3, atol=1e-4)
