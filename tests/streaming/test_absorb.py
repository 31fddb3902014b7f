"""Forms with state keep the vector that keys and values are linear in, where that is smaller; or what the text says, when asked to."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.cost import cost
from tests.streaming.forms import close, run, shaken

USE = """use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.mixer { LatentAttention }
use std.residual { Pre }
use std.norm { RMSNorm }
"""
TEXTS = {
    "library": USE + """
model Net(d: int = 12, rank: int = 5)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T {
  layers: for i in range(2) { x = Pre(RMSNorm(), LatentAttention(3, rank, rope_dim = 2))(x) as attn }
  return x
}
""",
    "nowhere": USE + """
block Plain(rank: int, scale: float? = none)(x: [B, T, d]) -> [B, T, d] {
  param up: [3, rank, 4] = normal()
  param read: [3, rank, 6] = normal()
  q = rearrange(Linear(12)(x) as q, [B, T, (h w)] -> [B, h, T, w], h = 3)
  c = rearrange(Linear(rank)(x) as down, [B, T, r] -> [B, 1, T, r])
  y = attention(q, c @ up, c @ read, mask = causal & window(4), scale = scale, cap = 3)
  return Linear(d)(rearrange(y, [B, h, T, w] -> [B, T, (h w)])) as out
}
model Net(d: int = 12, rank: int = 5)(x: [B = 2, T = 9, d]) -> y: [B, T, d] stream T { return Plain(rank)(x) as attn }
""",
}
F64 = torch.float64


def forms(spec: archdsl.Spec, whole: Any, **options: Any) -> tuple[Any, Any]:
    found = tuple(spec.build(form=form, dtype=F64, **options).eval() for form in ("extend", "step"))
    for m in found:
        m.load_state_dict(whole.state_dict())
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_the_same_with_a_smaller_state(name: str):
    spec = archdsl.loads(TEXTS[name])
    whole, x = shaken(spec.build(dtype=F64)).eval(), torch.randn(2, 9, 12, dtype=F64)
    expected, bytes_ = whole(x), []
    for rewrites in (None, ()):
        extend, step = forms(spec, whole, rewrites=rewrites)
        begun, state = run(extend, (x[:, :4],), [1, 3], extend.init_state(2, 9))
        rest, after = run(step, (x[:, 4:],), [1] * 5, state)
        close(torch.cat([begun, rest], 1), expected, 1e-10)
        told = spec.cost(form="step", at={"B": 2, "T": 9}, dtype="f64", rewrites=rewrites)
        assert told.state_bytes == sum(v.nbytes for v in after.values()) and bool(told.rewritten) == (rewrites is None)
        bytes_.append(sum(v.nbytes for k, v in after.items() if "attn" in k))
    room, layers, numbers, before = {"library": (9, 2, 5 + 2, 3 * (4 + 2 + 4)), "nowhere": (3, 1, 5, 3 * (4 + 6))}[name]
    assert bytes_ == [2 * room * layers * numbers * 8, 2 * room * layers * before * 8]


def test_of_a_source_the_vector_is_kept_once():
    """Attention to an input without T: values are the first channels of what is kept, so the state has no more than is told."""
    text = TEXTS["nowhere"]
    for old, new in (("(x: [B, T, d]) ->", "(x: [B, T, d], m: [B, S, d]) ->"), ("T = 9, d]) ->", "T = 9, d], m: [B, S = 4, d]) ->"),
                     ("Linear(rank)(x)", "Linear(rank)(m)"), ("[B, T, r] -> [B, 1, T, r]", "[B, S, r] -> [B, 1, S, r]"),
                     ("mask = causal & window(4), ", ""), ("Plain(rank)(x)", "Plain(rank)(x, m)")):
        text = text.replace(old, new)
    spec = archdsl.loads(text)
    whole, x, m = shaken(spec.build(dtype=F64)).eval(), torch.randn(2, 4, 12, dtype=F64), torch.randn(2, 3, 12, dtype=F64)
    extend, step = forms(spec, whole)
    first, state = extend(x[:, :1], m, extend.init_state(2, S=3))
    rest, state = run(step, (x[:, 1:],), [1] * 3, state)
    close(torch.cat([first, rest], 1), whole(x, m), 1e-10)
    assert {k: tuple(v.shape) for k, v in state.items() if "attn" in k} == {"attn.keys": (2, 1, 3, 5)}


def test_not_where_the_state_would_grow():
    spec = archdsl.loads(TEXTS["nowhere"])
    assert spec.cost(form="step", rank=30).rewritten == () and spec.cost(form="step", rank=29).rewritten != ()
    text = TEXTS["nowhere"].replace("c @ read", "rearrange(Linear(3 * 6)(x) as v, [B, T, (h w)] -> [B, h, T, w], h = 3)")
    assert archdsl.loads(text.replace("  param read: [3, rank, 6] = normal()\n", "")).cost(form="step").rewritten == ()
    assert spec.cost().rewritten == () and spec.cost(form="packed").rewritten == ()


def test_it_is_told():
    spec = archdsl.loads(TEXTS["library"], "net.arch")
    (line,) = cost(spec.elaborate(), form="step").rewritten
    assert line.startswith("absorb: the attention at std/mixer.arch") and line.endswith("keeps 7 numbers of each position, not 30")
    assert cost(spec.elaborate(), form="step").to_json()["rewritten"] == [line]
    with pytest.raises(ValueError, match="there is no rewrite 'absorbs'"):
        spec.build(form="step", rewrites=["absorbs"])
