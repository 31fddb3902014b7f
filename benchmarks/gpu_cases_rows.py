"""Kernels whose time is that of memory: norms, silu(gate) * up, the linear map with its loss. Peers: torch, eager and compiled."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.gpu_cases import Case

COMPILED = 4096
"""The width at which torch.compile is a peer: compiling takes longer than measuring."""


def cases(tiny: bool) -> list[Case]:
    rows, widths = (64, (60,)) if tiny else (16384, (1024, 4096, 8192))
    found = [case for width in widths for case in (*_norms(rows, width), _swiglu(rows, width))]
    found += [case for width in ((60,) if tiny else (1024, 4096)) for case in _polynomials(rows, width)]
    found += [_rotary(*shape) for shape in ([(2, 3, 5, 6)] if tiny else [(8, 16, 2048, 128)])]
    found += [_scan(2, 3, 70, 5), _bag(9, 3, 2, 10)] if tiny else [_scan(8, 16, 2048, 64), _bag(16384, 64, 8, 512)]
    shapes = [(96, 20, 50)] if tiny else [(16384, 1024, 32000), (4096, 2048, 128256)]
    return [*found, *(_loss(*shape) for shape in shapes)]


def _randn(*shapes: tuple[int, ...]) -> Callable[[str], tuple[Any, ...]]:
    def make(device: str) -> tuple[Any, ...]:
        import torch

        return tuple(torch.randn(s, device=device, dtype=torch.bfloat16, requires_grad=True) for s in shapes)

    return make


def _ours(op: str, **attributes: Any) -> Callable[..., Any]:
    def run(*operands: Any) -> Any:
        from archdsl.kernels.opaque import called
        from archdsl.ops.registry import find

        found = find(op)
        assert found is not None
        return (found.body if found.form_of else called(op, None))(*operands, **attributes)

    return run


def _plain(op: str, **attributes: Any) -> Callable[..., Any]:
    def run(*operands: Any) -> Any:
        from archdsl.ops.registry import find

        found = find(op)
        assert found is not None
        return (found.body if found.reference is None else found.reference)(*operands, **attributes)

    return run


def _compiled(run: Callable[..., Any]) -> Callable[..., Any]:
    made: list[Any] = []

    def call(*operands: Any) -> Any:
        import torch

        if not made:
            made.append(torch.compile(run, dynamic=False))
        return made[0](*operands)

    return call


def _case(op: str, name: str, shapes: tuple[tuple[int, ...], ...], forward: int, backward: int, **attributes: Any) -> Case:
    """`forward`, `backward`: how many tensors of the first operand's size are read and written."""
    import math

    size = 2 * math.prod(shapes[0])
    plain = _plain(op, **attributes)
    peers = (("torch", plain), *((("torch.compile", _compiled(plain)),) if shapes[0][-1] == COMPILED else ()))
    return Case(f"{op} {name}", _randn(*shapes), _ours(op, **attributes), peers, plain,
                bytes=forward * size, backward=True, backward_bytes=backward * size, family="rows")


def _norms(rows: int, width: int) -> tuple[Case, ...]:
    x, name = (rows, width), f"{rows} x {width}"
    return (_case("rms_norm", name, (x, (width,)), 2, 3, eps=1e-5), _case("layer_norm", name, (x, (width,), (width,)), 2, 3, eps=1e-5, count=None),
            _case("crms_norm", name, (x,), 2, 3, eps=1e-5), _case("l2_norm", name, (x,), 2, 3, eps=1e-6, axis=-1))


def _swiglu(rows: int, width: int) -> Case:
    return _case("swiglu", f"{rows} x {width}", ((rows, width), (rows, width)), 3, 5)


def _polynomials(rows: int, width: int) -> tuple[Case, ...]:
    x, name = (rows, width), f"{rows} x {width}"
    return (_case("poly_norm", name, (x, (3,), (1,)), 2, 3, eps=1e-6), _case("grouped_rational", name, (x, (6,), (4, 4)), 2, 3, apart=True))


def _rotary(batch: int, heads: int, positions: int, width: int) -> Case:
    """Heads as a projection leaves them, behind their positions; tables without a gradient."""
    def make(device: str) -> tuple[Any, ...]:
        import torch

        x = torch.randn(batch, positions, heads, width, device=device, dtype=torch.bfloat16).transpose(1, 2)
        tables = torch.randn(2, positions, width, device=device, dtype=torch.bfloat16)
        return x.requires_grad_(), *tables

    plain, size = _plain("rotary"), 2 * batch * heads * positions * width
    return Case(f"rotary {batch} x {heads} x {positions} x {width}", make, _ours("rotary"), (("torch", plain), ("torch.compile", _compiled(plain))),
                plain, bytes=2 * size, backward=True, backward_bytes=2 * size, family="rows")


def _loss(rows: int, width: int, classes: int) -> Case:
    """Loss and gradients together: three products of matrices."""
    def make(device: str) -> tuple[Any, ...]:
        import torch

        x = torch.randn(rows, width, device=device, dtype=torch.bfloat16)
        weight = (torch.randn(classes, width, device=device) * width ** -0.5).to(torch.bfloat16)
        return x.requires_grad_(), weight.requires_grad_(), torch.randint(0, classes, (rows,), device=device)

    def whole(x: Any, weight: Any, targets: Any) -> Any:
        from archdsl.ops.losses import linear_cross_entropy_plain

        return linear_cross_entropy_plain(x, weight, targets)

    product = 2.0 * rows * width * classes
    peers = (("torch", whole), *((("torch.compile", _compiled(whole)),) if classes == 32000 else ()))
    return Case(f"linear_cross_entropy {rows} x {width} -> {classes}", make, _ours("linear_cross_entropy"), peers, whole, flops=product,
                backward=True, backward_flops=2 * product, family="rows")


def _scan(batch: int, heads: int, positions: int, width: int) -> Case:
    """Aaren's scan: one score and one row of values for each position."""
    def make(device: str) -> tuple[Any, ...]:
        import torch

        scores, v = (torch.randn(batch, heads, positions, *more, device=device, dtype=torch.bfloat16) for more in ((), (width,)))
        return scores.requires_grad_(), v.requires_grad_()

    size = 2 * batch * heads * positions * (width + 1)
    return Case(f"prefix_attention {batch} x {heads} x {positions} x {width}", make, _ours("prefix_attention"), (), _plain("prefix_attention"),
                bytes=2 * size, backward=True, backward_bytes=3 * size, family="rows")


def _bag(rows: int, chunks: int, bits: int, width: int) -> Case:
    """MemoryFormer's lookup: a row of a table of each chunk's own for each position."""
    def make(device: str) -> tuple[Any, ...]:
        import torch

        index = torch.randint(0, 2**bits, (rows, chunks), device=device) + 2**bits * torch.arange(chunks, device=device)
        weight, scale = (torch.randn(*s, device=device, dtype=torch.bfloat16) for s in ((chunks * 2**bits, width), (rows, chunks)))
        return index, weight.requires_grad_(), scale.requires_grad_()

    def bag(index: Any, weight: Any, scale: Any) -> Any:
        import torch.nn.functional as F

        return F.embedding_bag(index, weight, mode="sum", per_sample_weights=scale)

    moved = 2 * rows * width * (chunks + 1)
    return Case(f"embedding_bag {rows} x {chunks} of {2**bits} x {width}", make, _ours("embedding_bag"), (("torch", bag),), _plain("embedding_bag"),
                bytes=moved, backward=True, backward_bytes=2 * moved, family="rows")
