"""Ops that carry a state along time, from one declaration: the parallel op, the op that goes on from a state, and their kernel.

```
@recurrent("retention(q: [..., T, k], …, decay: [..., T]) -> [..., T, e]", state={"memory": "f32[..., k, e]"}, samples=…)
def retention(q, k, v, decay, memory):
    \"\"\"…\"\"\"
    return y, memory            # any number of positions, from the state `memory`

@retention.step
def _(q, k, v, decay, memory):  # one position: the operands without their axis T
    return y, memory
```
Float operands arrive in the dtype of the states (float32 at least), results leave in that of the first operand. A state with the axis `Length` grows:
it holds the last `Length` positions, the newest last, zeros before the first; in the parallel op it has none, and operands arrive as they are.

`idle`: what operands hold where there is no position yet, behind which the op begins as it does from zeros (a score of -inf); 0 unless named, None
where nothing does that.

This registers `retention` and `retention_extend(…, memory: f32[..., k, e]) -> (y: [..., T, e], memory: f32[..., k, e])`. The axis `T` of the
signature is time. Both bodies call one opaque torch op (`torch.ops.archdsl.retention`) with a backward pass that computes the forward pass again,
so autograd keeps the operands alone; a step of one position is written out instead, unless a kernel has one. Which kernel computes the torch op is
decided when it is called, for the operands that it has then (`archdsl/kernels/bindings.py`); a kernel gets them as they are, not widened.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archdsl.dims import Size, sym
from archdsl.graph import TensorType
from archdsl.kernels.bindings import REFERENCE, Binding
from archdsl.kernels.running import bound as chosen
from archdsl.kernels.running import run
from archdsl.lazy import torch
from archdsl.ops.kernels import apart, derived, gradients, registered
from archdsl.ops.registry import LENGTH, OPS, Extension, Op, OpError
from archdsl.ops.rules import dtype_name, is_float, need_float, same_size, size, torch_dtype, traced
from archdsl.ops.signatures import axes_of, leads, schema_of, size_of, tensor_of
from archdsl.shapes import infer_by_signature
from archdsl.syntax import tree

if TYPE_CHECKING:
    from inspect import Signature

Fold = Callable[..., tuple[Any, ...]]
RECURRENCES: dict[str, Recurrence] = {}
KERNELS: dict[str, Recurrence] = {}
"""Those without states."""
ROOM = 3
"""Positions that a growing state has room for in samples."""


class Recurrence:
    """One declared recurrence. `body(*operands, *states, **attributes) -> (results…, new states…)` for any number of positions from 1.
    `fit(**arguments)` raises OpError for operands that the signature lets through and the body does not. Without states it is an op that keeps its
    operands alone for the backward pass, and has no form that goes on."""

    asks = True
    """Whether `backward` takes `needs`."""

    def __init__(self, signature: str, state: dict[str, str], body: Fold, rules: dict[str, Any]):
        self.name, self.signature = signature.split("(", 1)[0].strip(), signature
        self.state, self.body = state, body
        self._step: Fold | None = None
        self.own_gradient: Fold | None = None
        head, _, result = signature.rpartition(") -> ")
        first = result if result.startswith("(") else f"(y: {result})"
        states = ", ".join(f"{n}: {t}" for n, t in state.items())
        extended = f"{self.name}_extend{head[len(self.name):]}, {states}) -> {first[:-1]}, {states})"
        (RECURRENCES if state else KERNELS)[self.name] = self
        samples, reference = rules.pop("samples"), rules.pop("reference", self._reference)
        self._fit = rules.pop("fit", None)
        self.idle: dict[str, float] | None = rules.pop("idle", {})
        shared = {**rules, "roles": {**rules.get("roles", {}), **({"T": "causal"} if state else {})}, "saves": self._saves, "form_of": self.name}
        self.op = OPS[self.name] = Op(self.name, signature, self._parallel_body(), infer=lambda **given: self.types(self.op, given), samples=samples,
                                      stream=self._stream if state else None, reference=reference, **shared)
        if not state:
            return
        self.extend = OPS[f"{self.name}_extend"] = Op(f"{self.name}_extend", extended, self._extend_body(), reference=self._stepwise,
                                                      infer=lambda **given: self.types(self.extend, given),
                                                      samples=lambda: [self._with_state(s) for s in samples()], **shared)

    def step(self, body: Fold) -> Fold:
        """Registers what happens at one position."""
        self._step = body
        return body

    def gradient(self, body: Fold) -> Fold:
        """Registers a backward pass that is written out: `(*gradients of results and new states, *operands, *states, **attributes) -> gradients of
        operands and states`, None for an operand that is absent. Without one autograd goes through the body."""
        self.own_gradient = body
        return body

    # ---------------------------------------------------------------- what the signature says
    @cached_property
    def operands(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.op.decl.params if tensor_of(p) is not None)

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.op.decl.params if tensor_of(p) is None)

    @cached_property
    def time(self) -> dict[str, int]:
        """Operand or result -> where its axis of time lies, from the right; those without it are left out."""
        shapes: dict[str, Any] = {p.name: tensor_of(p) for p in self.op.decl.params}
        shapes.update({f"->{i}": o.type for i, o in enumerate(self.op.decl.outs)})
        return {name: names.index("T") - len(names) for name, t in shapes.items() if t is not None and "T" in (names := axes_of(t))}

    @property
    def results(self) -> int:
        return len(self.op.decl.outs)

    @property
    def grows(self) -> bool:
        """Whether the states hold positions."""
        return any(LENGTH in t for t in self.state.values())

    @property
    def widens(self) -> bool:
        """Whether operands arrive in the dtype of the states."""
        return bool(self.state) and not self.grows

    @property
    def state_shapes(self) -> tuple[Any, ...]:
        """The types of the states as they are declared."""
        return tuple(o.type for o in self._states.decl.outs) if self.state else ()

    def types(self, op: Op, arguments: dict[str, Any]) -> tuple[TensorType, ...]:
        """The types of the results of one of its ops. Raises OpError for operands that are no floats where the signature has such."""
        for name in (*self.operands, *self.state):
            if (declared := self._declared.get(name)) is not None and declared.dtype not in ("int", "bool"):
                need_float(arguments.get(name), name)
        if self._fit is not None:
            self._fit(**arguments)
        found = infer_by_signature(op, arguments)
        if op is not self.op and self.grows:
            self._need_room(arguments)
        first = next(t for n in self.operands if isinstance(t := arguments.get(n), TensorType))
        results = (TensorType(o.type.dtype or first.dtype, t.shape) for o, t in zip(self.op.decl.outs, found))  # type: ignore[union-attr]
        return (*results, *found[self.results:])

    def _need_room(self, arguments: dict[str, Any]) -> None:
        """A state that grows has room for a position: one without is that of the parallel op, where all positions are in the call."""
        for name, declared in zip(self.state, self.state_shapes):
            names, state = axes_of(declared), arguments[name]
            if LENGTH in names and state.shape[names.index(LENGTH) - len(names)] == 0:
                raise OpError(f"a state has room for one position or more, and this is {state}", name)

    @cached_property
    def _declared(self) -> dict[str, tree.TensorType | None]:
        """Operand or state -> its type."""
        return {p.name: tensor_of(p) for p in (self.extend if self.state else self.op).decl.params}

    # ---------------------------------------------------------------- streaming
    def _stream(self, time: dict[str, tuple[int, ...]], **arguments: Any) -> Extension | None:
        here = {k: v for k, v in time.items() if v}
        if not here:
            return None
        if all(v != (self.time.get(k),) for k, v in here.items()):
            return None  # the stream is one of the leading axes
        for name, axis in self.time.items():
            if not name.startswith("->") and isinstance(arguments.get(name), TensorType) and here.get(name) != (axis,):
                raise OpError(f"`{name}` does not move along the stream as the other operands do", name)
        for name in here.keys() - self.time.keys():
            raise OpError(f"`{name}` is the same for all positions, and this one moves along the stream", name)
        return Extension(self.extend.name, self.state_types(arguments), idle=self.idle)

    def state_types(self, arguments: dict[str, Any], length: Size | None = None) -> dict[str, TensorType]:
        """The types of the states for operands of these types. `length`: the room of a state that grows; the user's unless given."""
        room = {LENGTH: sym(LENGTH) if length is None else length} if self.grows else {}
        return dict(zip(self.state, infer_by_signature(self._states, {k: v for k, v in arguments.items() if k in self.operands} | room)))

    @cached_property
    def _states(self) -> Op:
        """A signature whose results are the states alone."""
        head = self.op.signature.rpartition(") -> ")[0]
        return Op(self.op.name, f"{head}) -> ({', '.join(f'{n}: {t}' for n, t in self.state.items())})", self.body)

    def _with_state(self, sample: dict[str, Any]) -> dict[str, Any]:
        from archdsl.ops.rules import Sample

        types = self.state_types({k: v for k, v in sample.items() if isinstance(v, TensorType)}, ROOM)
        return {**sample, **{n: Sample(t.dtype, t.shape, -1.0, 1.0) for n, t in types.items()}}

    def _saves(self, needs: Any = (), **arguments: Any) -> tuple[str, ...]:
        return tuple(k for k in (*self.operands, *self.state) if isinstance(arguments.get(k), TensorType))

    # ---------------------------------------------------------------- bodies
    def _parallel_body(self) -> Callable[..., Any]:
        def body(*args: Any, **attributes: Any) -> Any:
            asked = of_kernel(attributes)
            given, named = self.arguments(args, attributes)
            found = self._kernel(*given, *(None for _ in self.state), *named, *asked)
            return found[0] if self.results == 1 else tuple(found[i] for i in range(self.results))

        return described(body, self, tuple(self.state))

    def _extend_body(self) -> Callable[..., Any]:
        def body(*args: Any, **attributes: Any) -> Any:
            written_out = attributes.get("kernel") in (None, REFERENCE)
            asked = of_kernel(attributes)
            given, named = self.arguments(args, attributes)
            states = tuple(attributes[s] if s in attributes else args[len(self.operands) + i] for i, s in enumerate(self.state))
            if not traced(given[0]):
                self._fits(given, states)
            elif self._step is not None and written_out and same_size(self._length(given), 1):
                return self._one(given, states, dict(zip(self.attributes, named)))
            found = self._kernel(*given, *states, *named, *asked)
            return tuple(found[i] for i in range(self.results + len(self.state)))

        return described(body, self, (), f"`{self.name}`, from the state that earlier positions left: the results and the new state.")

    def _fits(self, given: list[Any], states: tuple[Any, ...]) -> None:
        """Raises OpError unless the states are those of such operands. Models check theirs as a whole, at their door."""
        for name, x, expected in zip(self.state, states, self.zeros(given, self._room(states))):
            if not hasattr(x, "shape") or x.shape != expected.shape or x.dtype != expected.dtype:
                told = f"{x.dtype} {list(x.shape)}" if hasattr(x, "shape") else type(x).__name__
                raise OpError(f"`{self.extend.name}`: the state `{name}` is {expected.dtype} {list(expected.shape)}, this is {told}", name)

    def _room(self, states: tuple[Any, ...]) -> int:
        """How many positions the first of some states has room for."""
        names = axes_of(self.state_shapes[0]) if self.grows else []
        return states[0].shape[names.index(LENGTH) - len(names)] if names and getattr(states[0], "ndim", 0) >= len(names) else 0

    def schema(self) -> tuple[list[str], list[str]]:
        """The tensors and the attributes of the torch op."""
        optional = {p.name for p in self.op.decl.params if isinstance(p.type, tree.OptionalType)}
        tensors = [f"Tensor{'?' if o in optional else ''} {o}" for o in self.operands] + [f"Tensor? {s}" for s in self.state]
        return tensors, [*(f"{schema_of(p.type)} {p.name}" for p in self.op.decl.params if tensor_of(p) is None), "str? chosen=None"]

    def arguments(self, args: tuple[Any, ...], attributes: dict[str, Any]) -> tuple[list[Any], list[Any]]:
        """Operands and attributes in the order of the signature, defaults filled in."""
        from archdsl.elaborate.ops import default_of

        defaults = {p.name: default_of(self.op, p) for p in self.op.decl.params if p.default is not None}
        given = [args[i] if i < len(args) else attributes.get(n, defaults.get(n)) for i, n in enumerate(self.operands)]
        return given, [attributes.get(n, defaults.get(n)) for n in self.attributes]

    def _length(self, given: list[Any]) -> Any:
        """How many positions there are."""
        return next((size(x, self.time[n]) for n, x in zip(self.operands, given) if n in self.time and x is not None), 1)

    def _one(self, given: list[Any], states: tuple[Any, ...], attributes: dict[str, Any]) -> tuple[Any, ...]:
        """One position, written out."""
        assert self._step is not None
        wide = self._widened(given, states)  # first: of a traced operand the dtype is known, of what is made of it no more
        plain = [x if x is None or n not in self.time else x.squeeze(self.time[n]) for n, x in zip(self.operands, wide)]
        found = self._step(*plain, *states, **attributes)
        return (*(found[i].unsqueeze(self.time[f"->{i}"]).to(given[0].dtype) for i in range(self.results)), *found[self.results:])

    def _widened(self, given: list[Any], states: tuple[Any, ...]) -> list[Any]:
        """Float operands in the dtype of the states."""
        like = states[0] if self.widens else None
        return [x.to(like.dtype) if like is not None and x is not None and is_float(x) else x for x in given]

    def _fold(self, given: list[Any], states: tuple[Any, ...], attributes: dict[str, Any]) -> tuple[Any, ...]:
        """Any number of positions, by the declared body."""
        if (nothing := self._nothing(given, states)) is not None:
            return nothing
        found = self.body(*self._widened(given, states), *states, **attributes)
        return (*(y.to(given[0].dtype) for y in found[:self.results]), *found[self.results:])

    def _nothing(self, given: list[Any], states: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """What comes of no positions, or where all results are without numbers: bodies need not think of it."""
        if self._length(given) and states and all(s.numel() for s in states):
            return None
        empty = [given[0].new_empty(shape, dtype=_out_dtype(o.type, given[0])) for o, shape in zip(self.op.decl.outs, self._shapes(given))]
        if any(y.numel() for y in empty) or self._length(given) and any(s.numel() for s in states):
            return None
        return (*empty, *states)

    def _stepwise(self, *args: Any, **attributes: Any) -> Any:
        """One position after the other: what every other form is held against."""
        assert self._step is not None, f"{self.name} has no step"
        given, named = self.arguments(args, attributes)
        states = tuple(args[len(self.operands):])
        results: list[list[Any]] = [[] for _ in range(self.results)]
        for t in range(self._length(given)):
            now = [x if x is None or n not in self.time else x.select(self.time[n], t) for n, x in zip(self.operands, given)]
            found = self._step(*self._widened(now, states), *states, **dict(zip(self.attributes, named)))
            states = found[self.results:]
            for i in range(self.results):
                results[i].append(found[i])
        stacked = tuple(torch.stack(r, self.time[f"->{i}"]).to(given[0].dtype) for i, r in enumerate(results))
        return (*stacked, *states)

    def _reference(self, *args: Any, **attributes: Any) -> Any:
        given, _ = self.arguments(args, attributes)
        found = self._stepwise(*given, *self.zeros(given, self._length(given)), **attributes)
        return found[0] if self.results == 1 else found[:self.results]

    def zeros(self, given: list[Any], length: int = 0) -> tuple[Any, ...]:
        """The states before the first position, for operands that are tensors; `length`: the room of a state that grows."""
        if not self.state:
            return ()
        types = {n: TensorType(_name(x.dtype), tuple(x.shape)) for n, x in zip(self.operands, given) if x is not None}
        like = next(x for x in given if x is not None)
        return tuple(torch.zeros(fixed(t), dtype=_wide(t.dtype, like.dtype), device=like.device) for t in self.state_types(types, length).values())

    # ---------------------------------------------------------------- the torch op
    @property
    def _kernel(self) -> Any:
        return registered(self)

    def forward(self, *args: Any) -> tuple[Any, ...]:
        """The torch op's computation: operands, states (None: zeros), attributes."""
        n, m = len(self.operands), len(self.state)
        given, states, named = list(args[:n]), args[n:n + m], args[n + m:]
        begins = m and states[0] is None
        attributes = dict(zip(self.attributes, named))
        if (kernel := self.bound([*given, *states], attributes, named)) is not None:
            one = kernel.step is not None and not begins and self._length(given) == 1
            call = kernel.step if one and kernel.step is not None else kernel.forward
            return tuple(apart(run(call, [*given, *states], attributes), [*given, *states]))
        if begins:
            states = self.zeros(given)
        found = self._nothing(given, tuple(states))
        if found is None:  # a step computes what a traced one does, to the last bit
            one = self._step is not None and self._length(given) == 1 and not (begins and self.grows)
            found = self._one(given, tuple(states), attributes) if one else self._fold(given, tuple(states), attributes)
        return tuple(apart(found, [*given, *states]))

    def bound(self, tensors: list[Any], attributes: dict[str, Any], named: Sequence[Any], back: bool = False) -> Binding | None:
        """The kernel that computes these operands and states, forwards or `back`; None: the bodies here."""
        asked = named[len(self.attributes)] if len(named) > len(self.attributes) else None
        kernel = chosen(self.name, (*self.operands, *self.state), tensors, attributes, asked)
        if kernel is None or asked is not None or back:
            return kernel
        begins = not self.state or tensors[len(self.operands)] is None
        return kernel if begins or kernel.step is not None or self._step is None or self._length(tensors) != 1 else None

    def fake(self, *args: Any) -> tuple[Any, ...]:
        """Empty tensors of the results' shapes."""
        n, m = len(self.operands), len(self.state)
        given, states = args[:n], args[n:n + m]
        like = next(x for x in given if x is not None)
        results = self.op.decl.outs
        outs, kept = zip(results, self._shapes(given)), zip(self._states.decl.outs, self._shapes(given, self._states), states) if m else ()
        made = [like.new_empty(shape, dtype=_out_dtype(o.type, like)) for o, shape in outs]
        made += [like.new_empty(shape if s is None else s.shape, dtype=_out_dtype(o.type, like)) for o, shape, s in kept]
        return tuple(made)

    def _shapes(self, given: Sequence[Any], of: Op | None = None) -> list[tuple[Any, ...]]:
        """The shapes of the results for tensors, or those of the results of `of`, which has the same operands."""
        sizes: dict[str, Any] = {LENGTH: 0}
        lead: tuple[Any, ...] = ()
        for name, x in zip(self.operands, given):
            kind = self._declared[name]
            if kind is not None and x is not None:
                names = axes_of(kind)
                sizes.update(zip(names, x.shape[len(x.shape) - len(names):]))
                if leads(kind):
                    lead = max(lead, tuple(x.shape[:len(x.shape) - len(names)]), key=len)
        return [(*(lead if leads(o.type) else ()), *(size_of(a, sizes) for a in o.type.shape.axes if not isinstance(a, tree.AnyAxes)))  # type: ignore[union-attr]
                for o in (of or self.op).decl.outs]

    def backward(self, tensors: list[Any], grads: list[Any], needs: list[bool], *named: Any) -> list[Any]:
        """The gradients of all operands and states; an absent one's is empty. `needs`: for each whether its gradient is wanted."""
        n = len(self.operands)
        given, states, attributes = tensors[:n], tensors[n:], dict(zip(self.attributes, named))
        kernel = self.bound(tensors, attributes, named, back=True)
        if kernel is not None and kernel.gradient is not None:
            whole = [given[0].new_zeros(shape) if g is None else g for g, shape in zip(grads, self._shapes(given))]
            wanted = {"needs": needs} if kernel.asks else {}
            found = run(kernel.gradient, [*whole, *grads[self.results:], *given, *states], {**attributes, **wanted})
            return apart(gradients(tensors, found), [*tensors, *grads])
        if self.state and states[0] is None:
            states = self.zeros(given)
        if self.own_gradient is None or self._nothing(given, tuple(states)) is not None:
            found = derived(lambda *values: self._fold(list(values[:n]), values[n:], attributes), [*given, *states], grads)
        else:
            wide = self._widened(given, tuple(states))
            like = [*((shape, wide[0].dtype) for shape in self._shapes(given)), *((s.shape, s.dtype) for s in states)]
            full = [wide[0].new_zeros(shape, dtype=t) if g is None else g.to(t) for g, (shape, t) in zip(grads, like, strict=True)]
            found = self.own_gradient(*full, *wide, *states, **attributes)
        return apart(gradients(tensors, found), [*tensors, *grads])


def of_kernel(attributes: dict[str, Any]) -> tuple[str, ...]:
    """The kernel that is asked for by name, as the last argument of the torch op; it is taken out of the attributes."""
    asked = attributes.pop("kernel", None)
    return () if asked in (None, "auto") else (asked,)


def recurrent(signature: str, *, state: dict[str, str], **rules: Any) -> Callable[[Fold], Recurrence]:
    """Registers the decorated body under the name that starts the signature, and its extension."""
    return lambda body: Recurrence(signature, state, body, rules)


# ---------------------------------------------------------------- types
def fixed(t: TensorType) -> list[int]:
    return [s for s in t.shape if isinstance(s, int)]


def _name(dtype: Any) -> str:
    return dtype_name(dtype) if dtype.is_floating_point else "int"


def _wide(name: str, model: Any) -> Any:
    return torch_dtype(name, model if model.is_floating_point else torch.float32)


def _out_dtype(t: Any, like: Any) -> Any:
    return _wide(t.dtype, like.dtype) if t.dtype else like.dtype


def described(body: Callable[..., Any], r: Recurrence, drop: tuple[str, ...], doc: str | None = None,
              more: tuple[str, ...] = ()) -> Callable[..., Any]:
    """A body with the signature and the words of the declared one, without the operands `drop` and with `more` behind the others; an operand that
    may be absent has none for its default."""
    like: Any = r.body
    body.__doc__, body.__name__, body.__module__ = doc or like.__doc__, like.__name__, like.__module__
    body.signature = lambda: _signature(r, drop, more)  # type: ignore[attr-defined]
    return body


def _signature(r: Recurrence, drop: tuple[str, ...], more: tuple[str, ...]) -> Signature:
    from inspect import Parameter, Signature, signature

    kept = [p for p in signature(r.body).parameters.values() if p.name not in drop]
    optional = set(re.findall(r"(\w+): \S*\[[^]]*\]\? = none", r.signature))
    kept = [p.replace(default=None) if p.name in optional else p for p in kept]
    kept = [*(p for p in kept if p.kind is not p.KEYWORD_ONLY), *(Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in more),
            *(p for p in kept if p.kind is p.KEYWORD_ONLY)]
    return Signature(kept, __validate_parameters__=False)  # states stand behind operands that may be absent


def signature_of(body: Callable[..., Any]) -> Signature:
    """The signature of an op's body. Made when it is asked for: `inspect` takes as long to load as ten op families."""
    if hasattr(body, "signature"):
        return body.signature()  # type: ignore[attr-defined]
    from inspect import signature

    return signature(body)
