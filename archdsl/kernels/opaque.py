"""Ops that are functions of plain torch as torch ops of their own, so that a kernel may stand in their place."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from archdsl.kernels.bindings import bindings
from archdsl.kernels.running import bound, run
from archdsl.lazy import torch
from archdsl.ops.kernels import apart, derived, gradients, one_or_all, registered
from archdsl.ops.registry import Op, find
from archdsl.ops.signatures import schema_of, tensor_of
from archdsl.syntax import tree


class Opaque:
    """An op that is a function of plain torch, as a torch op of its own, so that a kernel may stand in its place: what `registered` wants to know of
    a recurrence. Its backward pass, where the kernel has none, goes through the body."""

    state: tuple[str, ...] = ()
    asks = True
    """Its backward pass is told which gradients are wanted."""

    def __init__(self, op: Op):
        self.op, self.name, self.results = op, op.name, len(op.decl.outs)
        given = op.decl.params
        operands = [p for p in given if tensor_of(p) is not None]
        if op.phase or op.random or op.numbers or any(p not in operands for p in given[:len(operands)]):
            raise ValueError(f"{op.name} cannot be a torch op of its own: its operands are not tensors alone")
        self.operands = tuple(p.name for p in operands)
        self.attributes = tuple(p.name for p in given[len(operands):])

    def schema(self) -> tuple[list[str], list[str]]:
        """The tensors and the attributes of the torch op."""
        optional = {p.name for p in self.op.decl.params if isinstance(p.type, tree.OptionalType)}
        tensors = [f"Tensor{'?' if o in optional else ''} {o}" for o in self.operands]
        return tensors, [*(f"{schema_of(p.type)} {p.name}" for p in self.op.decl.params if tensor_of(p) is None), "str? chosen=None"]

    def _split(self, named: tuple[Any, ...]) -> tuple[dict[str, Any], str | None]:
        return dict(zip(self.attributes, named)), named[len(self.attributes)] if len(named) > len(self.attributes) else None

    def body(self, given: Iterable[Any], attributes: dict[str, Any]) -> tuple[Any, ...]:
        found = self.op.body(*given, **attributes)
        return tuple(found) if isinstance(found, (tuple, list)) else (found,)

    def forward(self, *args: Any) -> tuple[Any, ...]:
        given = list(args[:len(self.operands)])
        attributes, asked = self._split(args[len(given):])
        found = bound(self.name, self.operands, given, attributes, asked)
        results = self.body(given, attributes) if found is None else run(found.forward, given, attributes)
        return tuple(apart(results if isinstance(results, (tuple, list)) else (results,), given))

    def fake(self, *args: Any) -> tuple[Any, ...]:
        given = args[:len(self.operands)]
        made = self.body(given, self._split(args[len(given):])[0])
        return tuple(torch.empty_like(y, memory_format=torch.contiguous_format) for y in made)

    def spared(self, args: tuple[Any, ...], needs: Sequence[bool]) -> list[int]:
        """The operands whose numbers the backward pass of the kernel does without, where these gradients are wanted. None while a graph is compiled,
        whose compiler decides for itself what is kept."""
        given = args[:len(self.operands)]
        never = not any(b.spares for b in bindings(self.name).values())
        if never or any(x is not None and type(x) not in (torch.Tensor, torch.nn.Parameter) for x in given):
            return []
        attributes, asked = self._split(args[len(given):])
        found = bound(self.name, self.operands, given, attributes, asked)
        if found is None or found.gradient is None:
            return []
        wanted = dict(zip(self.operands, needs))
        return [i for i, name in enumerate(self.operands) if name in found.spares and not any(wanted[other] for other in found.spares[name])]

    def backward(self, tensors: list[Any], grads: list[Any], needs: list[bool], *named: Any) -> list[Any]:
        attributes, asked = self._split(named)
        found = bound(self.name, self.operands, tensors, attributes, asked)
        if all(g is None for g in grads):
            return gradients(tensors, [None] * len(tensors))
        if found is not None and found.gradient is not None:
            wanted = {"needs": needs} if found.asks else {}
            return apart(gradients(tensors, run(found.gradient, [*grads, *tensors], {**attributes, **wanted})), [*tensors, *grads])
        return apart(gradients(tensors, derived(lambda *given: self.body(given, attributes), tensors, grads)), [*tensors, *grads])


@cache
def _opaque(name: str) -> tuple[Opaque, Any]:
    op = find(name)
    assert op is not None, name
    made = Opaque(op)
    return made, registered(made)  # type: ignore[arg-type]  (it has what is asked of a recurrence)


@cache
def _unless_fused(name: str) -> Any:
    """A torch op that is the op's torch op for tensors that hold numbers, and its body for what stands for them while a graph is compiled or
    exported, and for tensors of another kind, such as those that are spread over devices."""
    import torch as t
    from torch._C._functorch import is_functorch_wrapped_tensor  # type: ignore[reportMissingImports]

    made, run = _opaque(name)
    tensors, attributes = made.schema()
    results = ", ".join(["Tensor"] * made.results)

    def choose(*args: Any) -> Any:
        given = args[:len(made.operands)]
        if all(x is None or type(x) in (t.Tensor, t.nn.Parameter) and not is_functorch_wrapped_tensor(x) for x in given):
            found = run(*args)
        else:
            found = made.body(given, dict(zip(made.attributes, args[len(given):])))
        return one_or_all(tuple(found))

    library = t.library.Library("archdsl", "FRAGMENT")
    library.define(f"{name}_unless_fused({', '.join(tensors + attributes[:-1])}) -> ({results})")
    library.impl(f"{name}_unless_fused", choose, "CompositeImplicitAutograd")
    _libraries.append(library)
    called = getattr(t.ops.archdsl, f"{name}_unless_fused")
    return called if made.results > 1 else lambda *args: (called(*args),)


_libraries: list[Any] = []
"""Kept: what they define goes with them."""


def called(name: str, kernel: str | None, fuses: bool = False) -> Callable[..., Any]:
    """The body of an op as one call of its torch op. `kernel`: the one that is asked for by name; else, where it `fuses`, graphs that are compiled
    see the body itself."""
    made, run = _opaque(name)
    if fuses and kernel is None:
        run = _unless_fused(name)

    def body(*args: Any, **attributes: Any) -> Any:
        from archdsl.elaborate.ops import default_of

        defaults = {p.name: default_of(made.op, p) for p in made.op.decl.params if p.default is not None}
        given = [args[i] if i < len(args) else attributes.get(n, defaults.get(n)) for i, n in enumerate(made.operands)]
        found = run(*given, *(attributes.get(n, defaults.get(n)) for n in made.attributes), *(() if kernel is None else (kernel,)))
        return found[0] if made.results == 1 else tuple(found[i] for i in range(made.results))

    return body
