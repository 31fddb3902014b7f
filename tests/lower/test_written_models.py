"""Each variant of each shipped spec, made small: its model.py agrees with the built model in float64: names, results, gradients, statistics.

The weights, statistics included, are random, so that fresh zeros and ones hide nothing.
"""
from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import archdsl
from archdsl.inputs import sample_inputs
from archdsl.lower.emit_python import python_source
from archdsl.spec import shipped_files

DECODER = {"vocab": 48, "d": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48}
SIZES = {"s.layout": "(1)1(1)", "s.m": 3, "s.dx": 16, "s.dl": 24, "s.hx": 2, "s.hl": 2}
SMALL: dict[str, dict[str, Any]] = {
    "Llama": DECODER | {"head_dim": 8}, "Olmo2": DECODER, "PeriLN": DECODER | {"head_dim": 8},
    "Gemma2": DECODER | {"head_dim": 8, "query_width": 8, "reach": 2},
    "Ladder": DECODER | {"depth": 4}, "Desync": DECODER | {"depth": 3, "kv_heads": 4, "devices": 4},
    "GPT2": {"vocab": 48, "context": 16, "d": 32, "depth": 2, "heads": 4},
    "GPT": {"vocab": 48, "context": 16, "d": 32, "depth": 2, "heads": 4, "head_dim": 8, "hidden": 48},
    "ITransformer": {"lookback": 12, "horizon": 6, "depth": 2, "d": 16, "hidden": 24, "heads": 2, "variates": 5},
    "ConvNeXt": {"widths": [8, 8, 16, 16], "depths": [1, 2, 2, 1], "classes": 5},
    "Isotropic": {"d": 16, "depth": 2, "classes": 5},
    "CvT": {f"stages.{i}.{k}": v for i, w in enumerate((8, 12, 16)) for k, v in (("width", w), ("depth", 1 + i // 2), ("heads", 2))} | {"classes": 5},
    "EfficientFormer": {"widths": [8, 8, 12, 16], "depths": [1, 1, 1, 3], "vit": 2, "size": [64, 64], "classes": 5},
    "Features": {"widths": [8, 8, 12, 16], "depths": [1, 1, 1, 3], "vit": 2, "size": [64, 64]},
    "FIT": SIZES | {"grid": [2, 2], "side": 16, "patch": 4}, "Denoiser": SIZES | {"grid": [2, 2], "side": 16, "patch": 4, "classes": 5},
    "Autoregressive": SIZES | {"vocab": 32, "t": 3, "n": 4},
    "HAT": {"d": 24, "depths": [2, 1], "heads": 2, "window": 4, "squeeze": 4, "features": 6, "side": 8},
    "NextViT": {"depths": [1, 1, 2, 1], "widths": [32, 32, 64, 64], "wide": [32, 32, 64, 64], "head_dim": 8,
                "every": [0, 1, 2, 1], "stem": [8, 4, 8, 8], "classes": 5},
    "SReT": {"widths": [8, 16, 32], "heads": [2, 2, 4], "depths": [1, 2, 1], "size": [64, 64], "classes": 5},
    "Swin": {"d": 16, "depths": [2, 1, 2, 1], "heads": [2, 2, 4, 4], "window": 2, "side": 32, "classes": 5},
    "ViT": {"d": 32, "depth": 2, "heads": 2, "patch": 8, "classes": 5},
}
OF_VARIANTS: dict[str, dict[str, Any]] = {"large_tiny_16": {"size": [224, 224]}}  # its slices fit no smaller map
MODELS = [(f, name, spec) for f in shipped_files() for name, spec in archdsl.load(f).models.items()]
CASES = [(f, name, variant) for f, name, spec in MODELS for variant in (list(spec.variants) or [None])]


def id_of(case: tuple[str, str, str | None]) -> str:
    return f"{Path(case[0]).stem}:{case[1]}.{case[2]}"


@cache
def built(case: tuple[str, str, str | None]) -> tuple[Any, Any, tuple[torch.Tensor, ...]]:
    """A small model in float64 with random weights, what it was elaborated to, and inputs."""
    path, name, variant = case
    spec = archdsl.load(path).models[name]
    small = SMALL.get(name, {}) | OF_VARIANTS.get(variant or "", {})
    knobs = {k: v for k, v in small.items() if k in spec.elaborate(variant).knobs or "." in k}
    made = spec.elaborate(variant, knobs)
    model = spec.build(variant, seed=1, dtype=torch.float64, knobs=knobs)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=g, dtype=value.dtype)
                value.copy_(noise + 0.5 if key.endswith("var") else value + 0.2 * (noise - 0.5))
    return model, made, sample_inputs(made, made.example_sizes(small=True), dtype=torch.float64)


def written(model: Any) -> torch.nn.Module:
    """What model.py makes, with the same weights."""
    namespace: dict[str, Any] = {}
    exec(compile(python_source(model), "model.py", "exec"), namespace)
    other = namespace[type(model).__name__]()
    assert list(other.state_dict()) == list(model.state_dict())
    other.load_state_dict(model.state_dict())
    return other


def flat(y: Any) -> list[torch.Tensor]:
    return [y] if isinstance(y, torch.Tensor) else [t for part in (y.values() if isinstance(y, dict) else y) for t in flat(part)]


def run(model: Any, xs: tuple[torch.Tensor, ...], train: bool) -> tuple[list[torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Results, gradients by address, and the state behind one pass, with the same draws."""
    model.train(train)
    model.zero_grad()
    torch.manual_seed(0)
    ys = flat(model(*xs))
    sum((y * torch.linspace(0.1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum() for y in ys if y.is_floating_point()).backward()  # type: ignore[union-attr]
    return ys, {k: p.grad for k, p in model.named_parameters() if p.grad is not None}, {k: v.clone() for k, v in model.state_dict().items()}


AGREED: set[str] = set()
"""Hashes of graphs: made small, many variants are one model."""


@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_model_py_agrees(case):
    model, made, xs = built(case)
    if made.graph.hash in AGREED:
        return
    other = written(model)
    for train in (False, True):
        before = {k: v.clone() for k, v in model.state_dict().items()}
        ours, theirs = run(model, xs, train), run(other, xs, train)
        torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-12)
        assert ours[1] and all(g.isfinite().all() for g in ours[1].values())
        model.load_state_dict(before)
    AGREED.add(made.graph.hash)


@pytest.mark.parametrize("case", CASES[::6], ids=id_of)
def test_inputs_of_another_shape_are_refused_alike(case):
    model, made, xs = built(case)
    other = written(model)
    for i, spec in enumerate(made.inputs):
        wrong = (*xs[:i], xs[i][None], *xs[i + 1:])
        for m in (model, other):
            with pytest.raises(ValueError, match=rf"the input `{spec.name}` is \[.*: this is \["):
                m(*wrong)


def test_all_are_clean_and_formatted(tmp_path):
    """As `ruff check` and `ruff format` see them, at the line length that they are written for."""
    pytest.importorskip("ruff")
    for case in CASES[::3]:
        (tmp_path / f"{id_of(case).replace(':', '.')}.py").write_text(python_source(built(case)[0]))
    config = os.path.join(Path(__file__).parents[2], "pyproject.toml")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "--config", config, "--line-length", "120", str(tmp_path)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
