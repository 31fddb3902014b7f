"""model.py computes consts, whatever expression fills them: bit for bit what the built model holds, in each dtype."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from lowered import build

from archdsl.lower.emit_python import python_source

BODIES = {
    "a matrix exponential": "const c: f32[d, d] = matrix_exp(0.1 * cumsum(ones(), axis = 0) - cumsum(ones(), axis = 1))",
    "in float64 on the way": 'const c: [d, d] = sin(at_least(cumsum(ones(), axis = 0), "f64") / 3)',
    "several leaves": "const c: [d, d] = relu(0.5 * eye() - exp(-cumsum(ones(), axis = 0)))",
    "bools": "const b: bool[d, d] = cumsum(ones(), axis = 0) < 3\n  const c: [d, d] = eye()\n  x = where(b[0], x, 2 * x)",
    "whole numbers": "const b: int[d, d] = cumsum(ones(), axis = 1) // 2\n  const c: [d, d] = eye()\n  x = x * b[0]",
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_consts(body: str, dtype: torch.dtype):
    model = build(f'model Net(d: int = 4)(x: [B, d]) -> y: [B, d] {{\n  {body}\n  return x @ cast(c, "float")\n}}', dtype=dtype)
    name: dict[str, Any] = {}
    exec(compile(python_source(model), "model.py", "exec", dont_inherit=True), name)
    other = name["Net"]()
    assert dict(other.named_buffers()).keys() == dict(model.named_buffers()).keys()
    for key, value in model.named_buffers():
        mine = other.get_buffer(key)
        assert mine.dtype == value.dtype and torch.equal(mine, value), key
    x = torch.randn(3, 4).to(dtype)
    assert torch.equal(other(x), model(x))
    assert list(other.state_dict()) == list(model.state_dict())
