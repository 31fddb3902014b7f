"""Each variant of each shipped spec, made small: its model.py agrees with the built model in float64: names, results, gradients, statistics.

The weights, statistics included, are random, so that fresh zeros and ones hide nothing.
"""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import archdsl
from archdsl.lower.emit_python import python_source
from tests.kinds import kind_of
from tests.lower.small_specs import CASES, built, id_of, small_knobs


def written(model: Any) -> torch.nn.Module:
    """What model.py makes, with the same weights."""
    namespace: dict[str, Any] = {}
    exec(compile(python_source(model), "model.py", "exec", dont_inherit=True), namespace)
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


AGREED: set[Any] = set()
"""Kinds of graphs that agreed: made small, many variants are one model, or differ in widths and depths alone."""


@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_model_py_agrees(case):
    """One variant of each kind."""
    path, name, variant = case
    kind = path, name, kind_of(archdsl.load(path).models[name].elaborate(variant, small_knobs(case)).graph)
    if kind not in AGREED:
        agrees(case)
        AGREED.add(kind)


@pytest.mark.proof
@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_model_py_of_every_variant_agrees(case):
    agrees(case)


def agrees(case):
    model, _, xs = built(case)
    other = written(model)
    for train in (False, True):
        before = {k: v.clone() for k, v in model.state_dict().items()}
        ours, theirs = run(model, xs, train), run(other, xs, train)
        torch.testing.assert_close(theirs, ours, rtol=1e-12, atol=1e-12)
        assert ours[1] and all(g.isfinite().all() for g in ours[1].values())
        model.load_state_dict(before)
    model.zero_grad()  # it is kept


@pytest.mark.parametrize("case", CASES[::6], ids=id_of)
def test_inputs_of_another_shape_are_refused_alike(case):
    model, made, xs = built(case)
    other = written(model)
    for i, spec in enumerate(made.inputs):
        wrong = (*xs[:i], xs[i][None], *xs[i + 1:])
        for m in (model, other):
            with pytest.raises(ValueError, match=rf"the input `{spec.name}` is (int)?\[.*: this is (torch.int64 )?\["):
                m(*wrong)


def test_floats_for_whole_numbers_are_refused():
    text = "use std { TokenEmbedding }\nmodel M()(tokens: int[B, T]) -> y: [B, T, 8] { return TokenEmbedding(9, 8)(tokens) as e }"
    model = archdsl.loads(text).build()
    other = written(model)
    for kind in (torch.int64, torch.int32):
        assert torch.equal(other(torch.ones(2, 3, dtype=kind)), model(torch.ones(2, 3, dtype=kind)))
    for m in (model, other):
        with pytest.raises(ValueError, match=r"the input `tokens` .*torch\.float32"):
            m(torch.ones(2, 3))


def test_arms_that_bind_their_input_anew():
    """What stands outside keeps its name until the arm has another value for it, and both arms use the same names."""
    block = "block A()(x: [B, d]) -> [B, d] { x = relu(x) * mean(x)\n x = x - max(x)\n return x * min(x) }\n"
    text = block + "model M()(x: [B, 8]) -> y: [B, 8] { return phase { train => A()(x + 1) eval => A()(x * 3) } + x }"
    model = archdsl.loads(text).build()
    source, other = python_source(model), written(model)
    assert "y = x + 1" in source and "y = x * 3" in source and source.count("x_ = F.relu(y) * y.mean()") == 2 and "x_ = x\n" not in source
    for train in (True, False):
        x = torch.randn(3, 8)
        torch.testing.assert_close(other.train(train)(x), model.train(train)(x))


def test_all_are_clean_and_formatted(tmp_path):
    """As `ruff check` and `ruff format` see them, at the line length that they are written for."""
    pytest.importorskip("ruff")
    for case in CASES[::12]:
        (tmp_path / f"{id_of(case).replace(':', '.')}.py").write_text(python_source(built(case)[0]))
    config = os.path.join(Path(__file__).parents[2], "pyproject.toml")
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "--config", config, "--line-length", "120", str(tmp_path)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
