"""A bias of attention made of how far positions lie behind each other: the same in all forms, with few places and many; what is no such table."""
from __future__ import annotations

import re
import textwrap
from typing import Any

import pytest
import torch

import archdsl
from tests.streaming.forms import agree, close, shaken

HEAD = "use std.embed {{ Alibi, RelativeBias }}\nuse std.mixer {{ Attention }}\n{blocks}\n" \
    "model Net(heads: int = 3)(input: [B = 2, T = 11, 12]) -> y: [B, T, 12] stream T {{\n  x = input\n{body}\n  return x\n}}\n"
ATTEND = "x = x + Attention(heads, mask = causal)(x, bias_table = b) as attn"


def net(body: str, blocks: str = "") -> archdsl.Spec:
    return archdsl.loads(HEAD.format(body=textwrap.indent(textwrap.dedent(body), "  "), blocks=blocks), "net.arch")


TABLES = {
    "alibi, before the layers": f"b = Alibi(heads)(x)\nlayers: for i in range(2) {{ {ATTEND} }}",
    "buckets, in each layer": f"layers: for i in range(2) {{ b = RelativeBias(heads, buckets = 4, furthest = 6)(x) as bias\n {ATTEND} }}",
    "in a window": "b = Alibi(heads)(x)\nx = Attention(heads, mask = causal & window(3))(x, bias_table = b) as attn",
    "grouped queries, a cap": "b = RelativeBias(heads, 8, 6)(x) as bias\n"
                              "x = Attention(heads, 1, 4, mask = causal, cap = 2)(x, bias_table = b) as attn",
    "with sinks": "b = Alibi(heads)(x)\nx = Attention(heads, mask = causal, sinks = true)(x, bias_table = b) as attn",
    "differences of positions": f"i = index(T)\nb = sin(as_type(i[:, none] - i[none, :], x))[none, :, :]\n{ATTEND}",
    "one for all heads": f"b = where(distance(T) < 3, 0.5, -0.25 * as_type(distance(T), x))\n{ATTEND}",
    "taken apart and turned": f"p = rearrange(as_type(distance(T), x), [q, k] -> [k, q, one], one = 1)\n"
                              f"b = rearrange(cos(p), [k, q, one] -> [one, q, k])\n{ATTEND}",
    "by query as well": f"b = as_type(distance(T), x) * as_type(clamp(index(T), high = 3), x)[:, none]\n{ATTEND}",
}


@pytest.mark.parametrize("case", TABLES)
def test_forms_agree(case: str):
    made = agree(net(TABLES[case]), T=11)
    whole, extend = made["parallel"], made["extend"]
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    with torch.no_grad():
        close(extend(x, extend.init_state(2, 40))[0], whole(x), 1e-10)  # places that hold nothing yet


@pytest.mark.parametrize("case", [c for c in TABLES if c != "by query as well"])
def test_rows_begin_where_they_like(case: str):
    model: Any = shaken(net(TABLES[case]).build(form="extend", dtype=torch.float64)).eval()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    with torch.no_grad():
        alone, _ = model(x[1:, 4:], model.init_state(1, 16))
        _, state = model(x[:, :4], model.init_state(2, 16))
        together, _ = model(x[:, 4:], model.reset_state(state, [1]))
        close(together[1:], alone, 1e-10)
        close(together[:1], model(x[:1], model.init_state(1, 16))[0][:, 4:], 1e-10)


def test_by_row_is_told():
    """A table that is joined with positions is not the same for rows that begin at different ones: all rows begin together."""
    model: Any = net(TABLES["by query as well"]).build(form="step")
    state = model.init_state(2, 16)
    assert "start" not in state
    with pytest.raises(ValueError, match="share their positions"):
        model.reset_state(state, [1])


@pytest.mark.parametrize("case", TABLES)
def test_packed_is_separate(case: str):
    spec = net(TABLES[case])
    whole = shaken(spec.build(dtype=torch.float64)).eval()
    packed = spec.build(dtype=torch.float64, form="packed").eval()
    packed.load_state_dict(whole.state_dict())
    x = torch.randn(2, 11, 12, dtype=torch.float64)
    close(packed(x, torch.tensor([4, 1, 6])), torch.cat([whole(d) for d in x.split([4, 1, 6], 1)], 1), 1e-10)


def test_state_holds_no_table():
    """Keys and values alone, whatever the bias is made of."""
    spec = net(TABLES["buckets, in each layer"])
    assert spec.cost(None, {"B": 2, "T": 64}, "step").state_bytes == 2 * 2 * 64 * 12 * 2 * 4 + 8 + 2 * 8


@pytest.mark.parametrize(("body", "told"), [
    (f"b = softmax(as_type(distance(T), x))\n{ATTEND}", "it compares positions with each other"),
    (f"b = as_type(distance(T), x)\nb = b - sum(b, axis = -1, keep = true)\n{ATTEND}", "it compares positions with each other"),
    (f"b = as_type(distance(T), x) * as_type(index(T), x)[none, :]\n{ATTEND}", "something of the keys"),
    (f"d = as_type(distance(T), x)\nb = d + rearrange(d, [q, k] -> [k, q])\n{ATTEND}", "in another order"),
    (f"b = rearrange(as_type(distance(T), x), [q, k] -> [k, q])\n{ATTEND}", "its bias counts queries and keys in another order"),
    (f"b = as_type(distance(T)[:1], x)\n{ATTEND}", "it takes pairs of positions apart"),
    (f"b = (x @ rearrange(x, [B, T, w] -> [B, w, T]))[:, none]\n{ATTEND}", r"`distance\(T\)`"),
    (f"b = as_type(index(T), x)[none, :]\n{ATTEND}", "by position, not by pairs of positions"),
    ("x = as_type(distance(T), x) @ x", "it compares positions with each other"),
])
def test_what_is_no_table(body: str, told: str):
    with pytest.raises(archdsl.ArchError) as e:
        net(body).build(form="step")
    fault = e.value.diagnostics[0]
    assert fault.code == "A0501" and re.search(told, " ".join([fault.message, *fault.help]))
