"""Tables of whole numbers that depend on nothing are computed when the model is built."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

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


CONSTANTS = """model M(k: int = {k})(x: [B, T, 4]) -> y: [B, T, 4] {{
  i = (iota(4) * 3 + k) % 4
  const e: [4, 4] = 2 * eye()
  layers: for j in range(2) {{
    const f: [4] = 3 * ones()
    param w: [4] = ones()
    x = x * f * w
  }}
  return linear(take(x, i, axis = 2), e)
}}"""
X = torch.arange(24.0).reshape(1, 6, 4)


def right(net, k):
    return torch.equal(net(X), 18 * X[..., (torch.arange(4) * 3 + k) % 4])


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: torch.nn.Sequential(net)], ids=["alone", "inside"])
def test_constants_come_back_from_the_meta_device(wrap):
    spec = archdsl.loads(CONSTANTS.format(k=1))
    net = wrap(spec.build(device="meta")).to_empty(device="cpu")
    net.load_state_dict(wrap(spec.build()).state_dict())
    assert right(net, 1) and right(net.double().float(), 1)


def test_swin_comes_back_from_the_meta_device():
    knobs = {"side": 64, "window": 2, "d": 8, "depths": [2, 1, 1, 1], "heads": [1, 2, 2, 2], "classes": 3}
    spec = archdsl.load("specs/vision/swin.arch")
    real, net = spec.build(**knobs), spec.build(device="meta", **knobs).to_empty(device="cpu")
    net.load_state_dict(real.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net.eval()(x), real.eval()(x))


@pytest.mark.parametrize(("k", "context"), [(3, lambda: torch.device("meta")), (5, FakeTensorMode), (6, torch.inference_mode)])
def test_a_build_in_another_mode_leaves_nothing_behind(k, context):
    spec = archdsl.loads(CONSTANTS.format(k=k))
    with context():
        kept = spec.build(device="meta")
    assert right(spec.build(), k) and kept is not None


def test_a_build_under_a_device_goes_where_it_was_told():
    with torch.device("meta"):
        net = archdsl.loads(CONSTANTS.format(k=7)).build(device="cpu")
    assert right(net, 7)


@pytest.mark.parametrize("table", ["(iota(5) + 1) // iota(5)", "take(iota(5), iota(5) + 3, axis = 0)"])
def test_a_table_that_cannot_be_computed_is_a_fault_of_the_spec(table):
    spec = archdsl.loads(f"model M()(x: [B, 5]) -> y: [B, 5] {{ return x * cast({table}, \"float\") }}")
    with pytest.raises(archdsl.ArchError) as caught:
        spec.build()
    assert caught.value.diagnostics[0].code == "A0516"


def test_tables_of_a_class_take_bounded_memory():
    steps = "for i in range(60) { u = (u * 3 + 1) % 7 }"
    text = f"model M()(x: [B, 300_000]) -> y: [B, 300_000] {{ u = iota(300_000)\n{steps}\nreturn x * cast(u, \"float\") }}"
    net = archdsl.loads(text).build(device="meta")
    assert sum(b.numel() for b in net.buffers()) <= 2**20
