"""Whatever a spec calls its values, weights, blocks and sizes: what is written as PyTorch does the same, with a state too, or the name is refused."""
from __future__ import annotations

import builtins
import keyword
import re
from typing import Any

import pytest
import torch

import archdsl
from archdsl.lower.emit_python import python_source
from archdsl.lower.plain import HELPERS

F64 = torch.float64
WRITERS = tuple("""
new state draws self x i j layer layers layers_item part position start end torch F nn math Tensor forward device shapes length batch name
READ_0_ STATE_0_ READ__0_ check_state state_shapes scan super ValueError None class lambda Net Linear""".split())
"""Words that the text of a written model has of its own."""
EVERY = sorted({*WRITERS, *keyword.kwlist, *keyword.softkwlist, *HELPERS, *(n for n in dir(builtins) if n.islower())})
HEAD = "use std { Attention, Linear }\n"
MODEL = "model Net(d: int = 4)(z: [B = 2, T = 6, d]) -> y: [B, T, d] stream T {{\n  {body}\n}}"
KINDS = {
    "model input": """model Net(d: int = 4)({n}: [B = 2, T = 6, d]) -> y: [B, T, d] stream T {{
  h = {n} + Attention(1, mask = causal)({n}) as attn
  layers: for i in range(3) {{ h = Linear(d)(cumsum(h, axis = 1)) as lin }}
  return h * {n}
}}""",
    "block input": "block Layer()({n}: [B, T, c]) -> [B, T, c] {{ return {n} + Attention(1, mask = causal)({n}) as attn }}\n"
                   + MODEL.replace("{body}", "layers: for i in range(3) {{ z = Layer()(z) as part }}\n  return z"),
    "value": MODEL.replace("{body}", "{n} = relu(z) + cumsum(z, axis = 1)\n  {n} = {n} + Attention(1, mask = causal)({n}) as attn\n  return {n} * z"),
    "block applied": MODEL.replace("{body}", "z = z + Attention(1, mask = causal)(z) as {n}\n  return z"),
    "weight": MODEL.replace("{body}", "param {n}: [d] = normal()\n  return cumsum(z * {n}, axis = 1)"),
    "loop": MODEL.replace("{body}", "{n}: for i in range(3) {{ z = Linear(d)(cumsum(z, axis = 1)) as lin }}\n  return z"),
    "size": "model Net(d: int = 4)(z: [{n} = 2, T = 6, d]) -> y: [{n}, T, d] stream T {{ return z + Attention(1, mask = causal)(z) as attn }}",
    "axis of time": "model Net(d: int = 4)(z: [B = 2, {n} = 6, d]) -> [B, {n}, d] stream {n} {{ return z + Attention(1, mask = causal)(z) as attn }}",
    "model": "model {n}(d: int = 4)(z: [B = 2, T = 6, d]) -> y: [B, T, d] stream T {{ return z + Attention(1, mask = causal)(z) as attn }}",
    "block": "block {n}()(x: [B, T, c]) -> [B, T, c] {{ return x + Attention(1, mask = causal)(x) as attn }}\n"
             + MODEL.replace("{body}", "return z + {n}()(z) as a"),
    "carry": """block Scanned()(x: [B, T, d]) -> [B, T, d] {{
  scan x over T carry {n}: [B, d] = zeros() {{
    h = tanh({n} + x)
    next {n} = h
    yield h
  }}
}}
""" + MODEL.replace("{body}", "return z + Scanned()(z) as a"),
    "argument": """block Two({n}: int)(x: [B, T, c]) -> [B, T, c] {{
  param w: [c, {n}] = normal()
  param u: [{n}, c] = normal()
  return cumsum(x @ w, axis = 1) @ u
}}
""" + MODEL.replace("{body}", "z = Two(3)(z) as a\n  z = Two(5)(z) as b\n  return z"),
}
SIZES = ("size", "axis of time")
"""What has names with a capital alone."""


def run(model: Any, x: torch.Tensor, form: str) -> torch.Tensor:
    with torch.no_grad():
        if form == "parallel":
            return model(x)
        state, found = model.init_state(2, 6), []
        for t in range(6):
            y, state = model(x[:, t:t + 1], state)
            found.append(y)
        return torch.cat(found, 1)


@pytest.mark.parametrize("names", [WRITERS, pytest.param(EVERY, marks=pytest.mark.proof)], ids=["writer's", "every"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_name(kind: str, names: tuple[str, ...]):
    x, taken = torch.randn(2, 6, 4, dtype=F64, generator=torch.Generator().manual_seed(0)), 0
    names = tuple(n for n in names if n[0].isupper() or kind not in SIZES)
    for name in names:
        try:
            spec = archdsl.loads(HEAD + KINDS[kind].format(n=name), "net.arch")
        except archdsl.ArchError:
            continue
        taken += 1
        whole = spec.build(dtype=F64).eval()
        expected = run(whole, x, "parallel")
        for form in ("parallel", "step"):
            model = spec.build(form=form, dtype=F64).eval()
            model.load_state_dict(whole.state_dict())
            text, names_of_text = python_source(model), dict[str, Any]()
            exec(compile(text, f"{name}.py", "exec"), names_of_text)
            begun = re.search(r"^    model = (\w+)\(\)$", text, re.M)
            assert begun is not None
            plain = names_of_text[begun[1]]().double().eval()
            plain.load_state_dict(whole.state_dict())
            for made in (model, plain):
                assert torch.allclose(run(made, x, form), expected, rtol=1e-10, atol=1e-10), (kind, name, form)
    assert taken > len(names) / 2, "most names are no words of the language"
