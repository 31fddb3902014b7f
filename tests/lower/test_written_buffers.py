"""model.py with buffers that a forward pass reads and updates: eager, compiled and exported, against the built model."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from lowered import CONVNET, LLAMA, SIGMA, build, image, tokens

from archdsl.lower.emit_python import python_source

TWICE = """
block Mean()(x: [..., d]) -> [..., d] {
  buffer mean: [d] = 0.5 * ones()
  param gain: [d] = ones()
  update mean = 0.5 * mean + 0.5 * stop(reduce(x, [B, d] -> [d], mean))
  return gain * x * mean
}

model Twice()(x: [B, 4]) -> y: [B, 4] {
  share f = Mean()
  return f(f(x) + x)
}
"""


def pair(text: str, **options: Any) -> tuple[Any, torch.nn.Module]:
    model = build(text, **options)
    namespace: dict[str, Any] = {}
    exec(compile(python_source(model), "model.py", "exec", dont_inherit=True), namespace)
    other = namespace[type(model).__name__]()
    other.load_state_dict(model.state_dict())
    return model, other


def steps(run: Any, model: torch.nn.Module, x: torch.Tensor, count: int = 3) -> list[torch.Tensor]:
    """Results and gradients of several passes: each reads the buffers that the last one left."""
    found = []
    for _ in range(count):
        model.zero_grad()
        y = run(x)
        (y * y).sum().backward()
        found += [y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    return [*found, *(b.clone() for b in model.buffers())]


@pytest.mark.parametrize("text", [SIGMA, TWICE], ids=["sigma", "twice"])
@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_use_the_values_before_the_update(text, compiled):
    """torch.compile drops copies of what changes in place later, and its backward pass would then read new values."""
    x = torch.randn(3, 6 if text == SIGMA else 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model, other = pair(text, dtype=torch.float64)
    expected = steps(model, model, x)
    run = torch.compile(other, fullgraph=True, backend="aot_eager") if compiled else other
    torch.testing.assert_close(steps(run, other, x), expected, rtol=1e-12, atol=1e-12)


def test_inductor_too():
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    model, other = pair(SIGMA)
    expected = steps(model, model, x)
    torch.testing.assert_close(steps(torch.compile(other, fullgraph=True), other, x), expected, rtol=1e-4, atol=1e-5)


def test_buffers_stay_buffers_of_their_type():
    _, other = pair(SIGMA)
    x = torch.randn(3, 6)
    before = {k: v.clone() for k, v in other.named_buffers()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other(x)
    after = dict(other.named_buffers())
    assert {k: v.dtype for k, v in after.items()} == {k: v.dtype for k, v in before.items()} and not any(v.requires_grad for v in after.values())
    assert all(not torch.equal(after[k], before[k]) for k in before)
    other.eval()
    kept = {k: v.clone() for k, v in other.named_buffers()}
    other(x)
    assert all(torch.equal(v, kept[k]) for k, v in other.named_buffers())


@pytest.mark.parametrize(("text", "x", "rows"), [(LLAMA, tokens(), (3, 9)), (CONVNET, image(), None)], ids=["llama", "convnet"])
def test_written_models_compile_and_export(text, x, rows):
    model, other = pair(text)
    model.eval()
    other.eval()
    torch.testing.assert_close(torch.compile(other, fullgraph=True, backend="aot_eager")(x), model(x))
    axes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO} if rows else {0: torch.export.Dim.AUTO}
    program = torch.export.export(other, (x,), dynamic_shapes=(axes,)).module()
    torch.testing.assert_close(program(x), model(x))
    more = torch.randint(0, 31, rows) if rows else torch.cat([x, x])
    torch.testing.assert_close(program(more), model(more))
