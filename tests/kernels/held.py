"""Kernels held against the reference in float64, in Triton's interpreter or on a card."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

CARD = torch.cuda.is_available()
DEVICE = "cuda" if CARD else "cpu"
gpu = pytest.mark.gpu
interpreted = pytest.mark.skipif(CARD, reason="there is a card: the tests marked gpu run the same at larger shapes")
NAN = float("nan")


def _products_of_bf16() -> None:
    """The interpreter keeps bf16 as whole numbers, and multiplies matrices of these: here their values."""
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    builder: Any = interpreter.InterpreterBuilder
    plain = builder.create_dot

    def widened(x: Any) -> Any:
        return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32) if x.dtype.scalar == tl.bfloat16 else x

    builder.create_dot = lambda self, a, b, *others: plain(self, widened(a), widened(b), *others)


def _bounds_of_loops() -> None:
    """Triton up to 3.6 asks numpy for the number in an array of one axis, which numpy 2.4 refuses."""
    from triton.runtime import interpreter

    patch: Any = interpreter._patch_lang_tensor

    def patched(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patched


if not CARD:
    _products_of_bf16()
    _bounds_of_loops()


def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory holds NaN: what a kernel leaves unwritten shows."""
    def fill(make: Any) -> Any:
        def made(*args: Any, **kwargs: Any) -> Any:
            x = make(*args, **kwargs)
            return x.fill_(NAN) if x.is_floating_point() and not x.is_meta else x

        return made

    monkeypatch.setattr(torch, "empty", fill(torch.empty))
    monkeypatch.setattr(torch, "empty_like", fill(torch.empty_like))
    for name in ("new_empty",):
        monkeypatch.setattr(torch.Tensor, name, fill(getattr(torch.Tensor, name)))


def guarded(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[], None]]:
    """A function that copies an operand to the middle of NaN, so that what is read beside it shows, and one that asserts that nothing was written
    beside fresh memory, which lies in the middle of marks: the interpreter reads and writes wherever a pointer leads."""
    made, plain, empty, guard, mark = [], torch.empty, torch.Tensor.new_empty, 4096, 12345.0

    def inside(shape: Any, dtype: torch.dtype, around: float) -> torch.Tensor:
        n = math.prod(shape)
        whole = plain(n + 2 * guard, dtype=dtype).fill_(around)
        if around == around:
            made.append((whole, n))
        return whole[guard:guard + n].view(*shape).fill_(NAN)

    def fresh(like: torch.Tensor, *shape: Any, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
        if device is not None:  # by the interpreter itself
            return empty(like, *shape, dtype=dtype, device=device)
        return inside(shape[0] if shape and not isinstance(shape[0], int) else shape, dtype or like.dtype, mark)

    def untouched() -> None:
        assert made
        for whole, n in made:
            expected = torch.tensor(mark, dtype=whole.dtype)
            assert (whole[:guard] == expected).all() and (whole[guard + n:] == expected).all(), f"written beside {n} numbers"

    monkeypatch.setattr(torch.Tensor, "new_empty", fresh)
    monkeypatch.setattr(torch, "empty_like", lambda like: fresh(like, *like.shape))
    return lambda x: inside(x.shape, x.dtype, NAN).copy_(x), untouched


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest deviation, in units of the root mean square of what is expected; of 1 where that is 0 throughout."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    wide = expected.double()
    scale = (wide.square().mean().sqrt().item() or 1.0) if wide.numel() else 1.0
    worst = (found.double() - wide).abs().max().item() / scale if wide.numel() else 0.0
    return NAN if worst != worst else worst


def alike(found: Any, expected: Any, within: float, names: str = "") -> None:
    """Every tensor within a share of the whole of what is expected (of ones where that is 0 throughout): for 16 bits, where the largest numbers are
    the least exact."""
    for i, (f, e) in enumerate(zip(found, expected, strict=True)):
        assert (f is None) == (e is None), i
        if e is not None:
            assert f.shape == e.shape, (f.shape, e.shape)
            off, whole = (f.double() - e.double()).norm(), e.double().norm().item() or e.numel() ** 0.5
            assert off <= within * whole, f"{names.split()[i] if names else i}: {off / whole:.2e} > {within:.2e}"


def close(found: Any, expected: Any, tolerance: float, names: str = "") -> None:
    """Every tensor within the tolerance, as `error` measures it; None where None is expected."""
    for i, (f, e) in enumerate(zip(found, expected, strict=True)):
        assert (f is None) == (e is None), i
        if e is not None:
            worst = error(f, e)
            assert worst <= tolerance, f"{names.split()[i] if names else i}: {worst:.2e} > {tolerance:.2e}"


def as_exact(found: Any, expected: Any, plain: Any, factor: float, names: str = "") -> None:
    """Every tensor at most `factor` times as far from what is expected as `plain`, a plain computation in the same precision, in the whole, and twice
    that in its worst number. Where that is exact, a result rounded once counts."""
    for i, (f, e, p) in enumerate(zip(found, expected, plain, strict=True)):
        assert (f is None) == (e is None), i
        if e is None:
            continue
        name, once = names.split()[i] if names else str(i), torch.finfo(f.dtype).eps
        whole = e.double().norm()
        off, bound = (f.double() - e.double()).norm(), factor * max((p.double() - e.double()).norm(), once / 2 * whole)
        assert off <= bound, f"{name}: {off / whole:.2e} of the whole > {bound / whole:.2e}"
        worst, most = error(f, e), 2 * factor * max(error(p, e), once)
        assert worst <= most, f"{name}: {worst:.2e} > {most:.2e}"


def nudged(x: torch.Tensor | None, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor | None:
    """In float64, each number changed by as much as one more rounding to the dtype may change it."""
    if x is None:
        return None
    by = torch.rand(x.shape, generator=generator, dtype=torch.float64).to(x.device)
    return x.double() * (1 + torch.finfo(dtype).eps * (by - 0.5))


def strided(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """The same numbers, not contiguous: every other place along an axis, NaN between."""
    wide = torch.full((*x.shape, 2), NAN, dtype=x.dtype, device=x.device).movedim(-1, axis if axis >= 0 else x.ndim + 1 + axis)
    flat = wide.flatten(axis - 1, axis) if axis < 0 else wide.flatten(axis, axis + 1)
    at = [slice(None)] * x.ndim
    at[axis] = slice(None, None, 2)
    view = flat[tuple(at)]
    view.copy_(x)
    return view


def pulled(body: Any, values: Any, grads: Any) -> list[torch.Tensor | None]:
    """The gradients of a body's operands, None for one that is absent."""
    leaves = [None if v is None else v.detach().clone().requires_grad_() for v in values]
    given = [v for v in leaves if v is not None]
    found = iter(torch.autograd.grad(list(body(*leaves)), given, list(grads), allow_unused=True, materialize_grads=True))
    return [None if v is None else next(found) for v in leaves]
