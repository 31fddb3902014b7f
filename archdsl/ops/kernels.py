"""Bodies as opaque torch ops that keep their operands alone, or fewer where a kernel says so: the backward pass computes the forward pass again."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from archdsl.lazy import torch

if TYPE_CHECKING:
    from archdsl.ops.recurrent import Recurrence


@cache
def registered(r: Recurrence) -> Any:
    """The torch op, made when it is first called."""
    import torch as t

    n, m = len(r.operands), len(r.state)
    tensors, attributes = r.schema()
    results = ", ".join(["Tensor"] * (r.results + m))
    computed, pulled = map(undisturbed, (uncast(r.forward), uncast(r.backward)) if m else (r.forward, r.backward))
    forward = t.library.custom_op(f"archdsl::{r.name}", lambda *args: one_or_all(computed(*args)), mutates_args=(),
                                  schema=f"({', '.join(tensors + attributes)}) -> ({results})")
    forward.register_fake(lambda *args: one_or_all(r.fake(*args)))
    asks = ["bool[] needs"] if getattr(r, "asks", False) else []
    backward = t.library.custom_op(f"archdsl::{r.name}_backward", pulled, mutates_args=(),
                                   schema=f"({', '.join(['Tensor?[] tensors', 'Tensor?[] grads', *asks, *attributes])}) -> Tensor[]")
    backward.register_fake(lambda tensors, grads, *named: plain_like(tensors))

    spared: Callable[..., list[int]] = getattr(r, "spared", lambda *_: [])

    def setup(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)  # a state that nothing reads has no gradient to be computed
        kept = list(inputs[:n + m])
        for i in spared(inputs, ctx.needs_input_grad):
            kept[i] = kept[i].new_full((), torch.nan).expand(kept[i].shape)  # a shape without numbers
        ctx.save_for_backward(*kept)
        ctx.named = inputs[n + m:]

    def pull(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        saved = list(ctx.saved_tensors)
        with t.no_grad():
            found = backward(saved, list(grads), *([list(ctx.needs_input_grad[:len(saved)])] if asks else ()), *ctx.named)
        wanted = [g if x is not None and x.is_floating_point() else None for x, g in zip(saved, found)]
        return (*once(r.name, [*saved, *grads], wanted), *(None for _ in ctx.named))

    called = getattr(t.ops.archdsl, r.name)
    differentiable(forward, called.default, pull, setup)
    in_turn(backward)
    _made.append(called)
    return called if r.results + m > 1 else lambda *args: (called(*args),)


def uncast(compute: Callable[..., Any]) -> Callable[..., Any]:
    """`compute`, to which autocast does nothing: a recurrence says itself in which dtype it computes, its products as well."""
    def computed(first: Any, *args: Any) -> Any:
        kind = (first if isinstance(first, torch.Tensor) else first[0]).device.type
        if not torch.is_autocast_enabled(kind):
            return compute(first, *args)
        with torch.autocast(kind, enabled=False):
            return compute(first, *args)

    return computed


_OF_TENSORS = ("FuncTorchDynamicLayerFrontMode", "FuncTorchDynamicLayerBackMode", "FuncTorchGradWrapper", "ADInplaceOrView", "Conjugate", "Negative",
               "ZeroTensor")


def undisturbed(compute: Callable[..., Any]) -> Callable[..., Any]:
    """`compute`, which may use conjugated numbers and the transforms of `torch.func`: a mode that sees every op, as a counter of operations is one,
    calls ops with these switched off, and conjugates are then read as they were."""
    def computed(*args: Any) -> Any:
        if not torch._C._dispatch_tls_local_exclude_set().has(torch._C.DispatchKey.FuncTorchDynamicLayerFrontMode):
            return compute(*args)
        with ExitStack() as stack:
            for name in _OF_TENSORS:
                stack.enter_context(torch._C._SetExcludeDispatchKeyGuard(getattr(torch._C.DispatchKey, name), False))
            return compute(*args)

    return computed


_made: list[Any] = []
"""The torch ops that there are."""
WORTH = 1000
"""Operations of a product of matrices that take as long as an op of ours takes for a byte of its operands."""


@contextmanager
def weighed() -> Iterator[None]:
    """Inside, whatever asks torch's counter of operations what is cheap to compute again is told that these ops are not."""
    from torch.utils.flop_counter import flop_registry

    def worth(*args: Any, out_val: Any = None, **named: Any) -> int:
        return WORTH * sum(x.numel() * x.element_size() for x in args if isinstance(x, torch.Tensor))

    added = {op: worth for op in _made if op not in flop_registry}
    flop_registry.update(added)
    try:
        yield
    finally:
        for op in added:
            del flop_registry[op]


def differentiable(defined: Any, op: Any, pull: Callable[..., Any], setup: Callable[..., Any]) -> None:
    """Gives a torch op that was defined its gradients, for autograd and for the transforms of `torch.func`: what torch makes of them by itself serves
    autograd alone. `vmap` calls the op once for each of a batch. There are no tangents: forward mode is an error that names the op."""
    import torch as t
    from torch._compile import _disable_dynamo

    defined.register_autograd(pull, setup_context=setup)

    class Transformed(t.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> Any:
            return op(*args)

        @staticmethod
        def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
            return _each(op._opname, Transformed.apply, info, in_dims, args)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            raise NotImplementedError(f"{op._opname}: an opaque op, which has gradients (`grad`, `vjp`, `jacrev`) and no tangents (`jvp`, `jacfwd`)")

    @_disable_dynamo  # where a graph breaks, dynamo would look into this, which torch's dispatcher calls
    def transformed(*args: Any) -> Any:
        return Transformed.apply(*args, *defaults[len(args):])

    Transformed.setup_context, Transformed.backward = staticmethod(setup), staticmethod(pull)
    defaults = [a.default_value for a in op._schema.arguments]
    defined._lib.impl(op._opname, transformed, "FuncTorchDynamicLayerFrontMode")


def in_turn(defined: Any) -> None:
    """`vmap` calls a torch op that was defined, and has no gradients, once for each of a batch."""
    defined.register_vmap(lambda info, in_dims, *args: _each(defined._name, defined, info, in_dims, args))


def _each(name: str, run: Callable[..., Any], info: Any, in_dims: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
    """The results for each of a batch, stacked in front, and the axis of each."""
    def at(x: Any, dim: Any, i: int) -> Any:
        if dim is None:
            return x
        return [at(y, d, i) for y, d in zip(x, dim)] if isinstance(dim, (list, tuple)) else x.select(dim, i)

    if not info.batch_size:
        raise ValueError(f"{name}: `vmap` over a batch of none: there is nothing to learn the results' shapes from")
    found = [run(*(at(x, dim, i) for x, dim in zip(args, in_dims))) for i in range(info.batch_size)]
    if not isinstance(found[0], (list, tuple)):
        return torch.stack(found), 0
    return type(found[0])(map(torch.stack, zip(*found))), type(found[0])(0 for _ in found[0])


@cache
def _no_second() -> Any:
    import torch as t

    class Once(t.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(name: str, found: Any, *given: Any) -> Any:
            return found.view_as(found)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.name = inputs[0]

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise RuntimeError(f"{ctx.name}: its gradients are computed by one opaque op, and have no derivative of their own")

    return Once


def once(name: str, given: Sequence[Any], found: list[Any]) -> list[Any]:
    """Gradients that an opaque op computed from what is given, whose own gradients are an error: torch does not see what an op's lists depend on
    where some of their tensors are absent."""
    if not torch.is_grad_enabled() or not any(x is not None and x.requires_grad for x in given):
        return found
    return [None if g is None else _no_second().apply(name, g, *given) for g in found]


def one_or_all(found: tuple[Any, ...]) -> Any:
    """What a torch op gives: a result of its own is no tuple."""
    return found[0] if len(found) == 1 else found


def derived(run: Callable[..., Any], values: list[Any], grads: list[Any]) -> list[Any]:
    """The gradients of a function's operands that autograd finds, None where an operand is absent or no float."""
    floats = [i for i, x in enumerate(values) if x is not None and x.is_floating_point()]

    def of_floats(*given: Any) -> Any:
        filled = list(values)
        for i, v in zip(floats, given):
            filled[i] = v
        return run(*filled)

    outs, pull = torch.func.vjp(of_floats, *(values[i] for i in floats))[:2]
    found: list[Any] = [None] * len(values)
    for i, g in zip(floats, pull(tuple(torch.zeros_like(o) if g is None else g.to(o.dtype) for o, g in zip(outs, grads)))):
        found[i] = g
    return found


def gradients(tensors: list[Any], found: Iterable[Any]) -> list[Any]:
    """What was found in the dtypes of the operands: nothing for one that is absent, zeros for one without a gradient."""
    return [torch.empty(0) if x is None else torch.zeros_like(x) if g is None else g.to(x.dtype) for x, g in zip(tensors, found, strict=True)]


def apart(results: Iterable[Any], given: list[Any]) -> list[Any]:
    """Results that share no memory with what was given or with each other, as torch wants them of its ops, and keep none that is not theirs."""
    taken = {x.untyped_storage().data_ptr() for x in given if x is not None}
    found: list[Any] = []
    for x in results:
        if x.untyped_storage().data_ptr() in taken or not _plain(x):
            x = x.clone(memory_format=torch.contiguous_format)
        taken.add(x.untyped_storage().data_ptr())
        found.append(x)
    return found


def plain_like(tensors: Iterable[Any]) -> list[Any]:
    """What stands for gradients of tensors in a compiled graph: they fill their memory in order, as `apart` gives them, however the tensors lie."""
    return [torch.empty(0) if x is None else torch.empty_like(x, memory_format=torch.contiguous_format) for x in tensors]


def _plain(x: Any) -> bool:
    """Whether a tensor fills its own memory in order, axes of size 1 included: as the empty ones do that stand for it in a compiled graph."""
    step = 1
    for n, stride in zip(reversed(x.shape), reversed(x.stride())):
        if stride != step:
            return False
        step *= n
    return step == x.untyped_storage().nbytes() // x.element_size()
