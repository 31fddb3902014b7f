"""Tables of whole numbers that depend on nothing are computed when the model is built."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import archdsl
from archdsl.lower.emit_python import python_source

TABLE = """model M(n: int = 4)(x: [B, n, n]) -> y: [B, n, n] {
  rows = iota(n)
  far = rearrange(rows, [n] -> [n, 1]) - rearrange(rows, [n] -> [1, n])
  near = where(far > 1, 0, where(far < -1, 0, 1))
  return x * cast(near, "float") + take(x, rows, axis = 1)
}"""


def expected(x):
    i = torch.arange(4)
    return x * ((i[:, None] - i[None]).abs() <= 1) + x


def test_a_table_is_a_buffer_outside_the_state_dict():
    net = archdsl.loads(TABLE).build()
    x = torch.randn(2, 4, 4)
    assert torch.equal(net(x), expected(x))
    assert "arange" in net.code and "where" not in net.code  # the lone count stays a count
    (name, buffer), = net.named_buffers()
    assert name == "_near_0" and buffer.dtype == torch.int64 and list(net.state_dict()) == []


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), lambda net: net.double()])
def test_tables_follow_the_model(again):
    net = again(archdsl.loads(TABLE).build())
    x = torch.randn(2, 4, 4, dtype=next(net.buffers()).new_zeros(()).double().dtype)
    assert torch.equal(net(x), expected(x)) and next(net.buffers()).dtype == torch.int64


def test_each_instance_has_its_own():
    block = TABLE.replace("model M(n: int = 4)(x: [B, n, n]) -> y: [B, n, n]", "block F()(x: [B, n, n]) -> [B, n, n]")
    loop = "layers: for i in range(2) { param w: [] = ones()\nx = F()(x) * w }"
    text = f"{block}\nmodel M(n: int = 4)(x: [B, n, n]) -> y: [B, n, n] {{ {loop}\nreturn x }}"
    net = archdsl.loads(text).build()
    x = torch.randn(1, 4, 4)
    assert torch.allclose(net(x), expected(expected(x)))
    meta = archdsl.loads(text).build(device="meta")
    assert all(b.is_meta for b in meta.buffers())


def test_what_varies_and_what_is_large_is_computed_each_time():
    varies = TABLE.replace("(n: int = 4)", "()").replace("iota(n)", "iota(T)").replace("[n", "[T").replace("n]", "T]").replace(" n,", " T,")
    assert not list(archdsl.loads(varies).build().buffers())
    large = archdsl.loads(TABLE).build(n=1025)
    assert all(b.numel() <= 1025 for b in large.buffers()) and "where" in large.code
    assert torch.equal(large(torch.ones(1, 1025, 1025))[0, 0, :3], torch.tensor([2.0, 2.0, 1.0]))


def test_python_computes_the_table():
    text = python_source(archdsl.loads(TABLE).build())
    assert "torch.where" in text and "register_buffer" not in text
    namespace: dict = {}
    exec(text, namespace)
    x = torch.randn(2, 4, 4)
    assert torch.equal(namespace["M"]()(x), expected(x))
