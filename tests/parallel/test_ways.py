"""How ops work on parts: by the axes of their signatures."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

import archdsl
from archdsl.ops.registry import find
from archdsl.parallel.tensor import Parts, Ways, _by_signature, tensor_parallel

WHOLE = Replicate()


@pytest.fixture(scope="module")
def mesh() -> Iterator[Any]:
    """Two ranks that are not there: placements alone are looked at."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield init_device_mesh("cpu", (2,))
    dist.destroy_process_group()


def ways(mesh: Any, op: str, *operands: tuple[tuple[int, ...], Placement]) -> Ways | None:
    """The way of an op with operands of global shapes and placements."""
    args = []
    for shape, placement in operands:
        local = [n // 2 if isinstance(placement, Shard) and i == placement.dim else n for i, n in enumerate(shape)]
        args.append(DTensor.from_local(torch.zeros(local), mesh, [placement], run_check=False))
    found = find(op)
    assert found is not None
    return _by_signature(found, args, 2)


def shown(found: Ways | None) -> Any:
    return None if found is None else ([found.operands[i] for i in range(len(found.operands))], found.results)


def test_heads_in_front(mesh: Any):
    heads, rate = (2, 4, 5, 8), (2, 4, 5)
    found = ways(mesh, "delta_rule", (heads, Shard(1)), (heads, WHOLE), (heads, Shard(1)), (rate, WHOLE))
    assert shown(found) == ([Shard(1)] * 4, Shard(1))
    assert shown(ways(mesh, "delta_rule", (heads, Shard(3)), (heads, WHOLE), (heads, WHOLE), (rate, WHOLE))) is None  # summed over


def test_groups_that_heads_share(mesh: Any):
    x, dt, a = (2, 5, 4, 3), (2, 5, 4), (4,)
    several = ways(mesh, "ssd", (x, Shard(2)), (dt, WHOLE), (a, Shard(0)), ((2, 5, 2, 6), WHOLE), ((2, 5, 2, 6), WHOLE))
    assert shown(several) == ([Shard(2), Shard(2), Shard(0), Shard(2), Shard(2)], Shard(2))
    one = ways(mesh, "ssd", (x, Shard(2)), (dt, WHOLE), (a, Shard(0)), ((2, 5, 1, 6), WHOLE), ((2, 5, 1, 6), WHOLE))
    assert shown(one) == ([Shard(2), Shard(2), Shard(0), WHOLE, WHOLE], Shard(2))
    assert one is not None and one.gradient(3) == Partial() and one.gradient(0) == Shard(2)
    three = ways(mesh, "ssd", (x, Shard(2)), (dt, WHOLE), (a, Shard(0)), ((2, 5, 3, 6), WHOLE), ((2, 5, 3, 6), WHOLE))
    assert three is None


def test_axes_without_names(mesh: Any):
    assert shown(ways(mesh, "swiglu", ((2, 5, 8), Shard(2)), ((2, 5, 8), WHOLE))) == ([Shard(2), Shard(2)], Shard(2))
    table = ((5, 8), WHOLE)
    assert shown(ways(mesh, "rotary", ((2, 4, 5, 8), Shard(1)), table, table)) == ([Shard(1), WHOLE, WHOLE], Shard(1))
    assert ways(mesh, "rotary", ((2, 4, 5, 8), Shard(1)), ((2, 4, 5, 8), WHOLE), table) is None  # a table for each head
    assert ways(mesh, "rotary", ((2, 4, 5, 8), Shard(3)), table, table) is None
    assert shown(ways(mesh, "rms_norm", ((2, 4, 5, 8), Shard(1)), ((8,), WHOLE))) == ([Shard(1), WHOLE], Shard(1))
    assert ways(mesh, "rms_norm", ((2, 5, 8), Shard(2)), ((8,), WHOLE)) is None


def test_weights_of_the_model_itself(mesh: Any, tmp_path: Path):
    """A plan may split them as any others."""
    text = """use std.linear { Linear }

model Scale(d: int = 6)(x: [B = 1, d]) -> [B, d] {
  param weight: [d] = ones
  return (x * weight) |> Linear(d, bias = false) as out
}
"""
    (tmp_path / "scale.arch").write_text(text)
    model = archdsl.load(str(tmp_path / "scale.arch")).build()
    tensor_parallel(model, mesh, {"weight": 0, "out.weight": 1})
    placed = {a: p.placements for a, p in model.named_parameters()}  # type: ignore[attr-defined]
    assert placed == {"weight": (Shard(0),), "out.weight": (Shard(1),)}
    assert {a: tuple(p.to_local().shape) for a, p in model.named_parameters()} == {"weight": (3,), "out.weight": (6, 3)}  # type: ignore[attr-defined]


BF16, F32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(("x", "given", "axis", "rows", "cast"), [
    ((8,), BF16, 0, 4, False), ((8,), BF16, 1, 4, False),  # one row, without an axis of its own
    ((0, 8), BF16, 0, 4, False),
    ((3, 8), BF16, 0, 5, False),  # not as many channels for each rank
    ((3, 8), F32, 0, 4, True), ((3, 8), F32, 1, 4, True), ((3, 8), BF16, 0, 4, True)])  # as norms give, under autocast
def test_maps_in_16_bits(mesh: Any, x: tuple[int, ...], given: torch.dtype, axis: int, rows: int, cast: bool):
    weight = distribute_tensor(torch.zeros(rows, 8, dtype=BF16), mesh, [Shard(axis)]).requires_grad_()
    operand = distribute_tensor(torch.zeros(x, dtype=given), mesh, [Shard(len(x) - 1) if axis else WHOLE]).requires_grad_()
    with Parts(mesh), torch.autocast("cpu", BF16, enabled=cast):
        y = F.linear(operand, weight)
    y.sum().backward()
    assert y.shape == (*x[:-1], rows) and y.dtype == BF16
    for t in (operand, weight):
        assert t.grad is not None and t.grad.shape == t.shape and t.grad.dtype == t.dtype
