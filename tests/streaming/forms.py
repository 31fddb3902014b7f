"""Holds the forms of one model against each other: all positions at once, in parts of any lengths, one by one."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from archdsl.spec import Spec


def shaken(model: Any, seed: int = 0) -> Any:
    """Every parameter moved by noise: fresh zeros and ones hide errors."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return model


def inputs_of(spec: Spec, made: Any, T: int, batch: int, dtype: torch.dtype, seed: int = 1) -> tuple[torch.Tensor, ...]:
    """Random inputs of the model: B = batch, the streaming axis T."""
    g = torch.Generator().manual_seed(seed)
    found = []
    for i in made.inputs:
        shape = [s if isinstance(s, int) else T if str(s) == made.stream else batch if str(s) == "B" else made.sizes[str(s)] for s in i.type.shape]
        if i.type.is_float:
            found.append(torch.randn(shape, generator=g, dtype=dtype))
        else:
            low, high = (int(i.low), int(i.high)) if i.low is not None else (0, 1)
            found.append(torch.randint(low, high + 1, shape, generator=g))
    return tuple(found)


def parts(T: int, *cuts: int) -> list[int]:
    """Lengths that sum to T: the given ones, then the rest."""
    return [*cuts, T - sum(cuts)] if sum(cuts) < T else [T]


def run(model: Any, inputs: tuple[torch.Tensor, ...], lengths: Iterable[int], state: dict[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
    """The outputs of all parts behind each other, along axis 1, and the last state."""
    outs: list[Any] = []
    at = 0
    for n in lengths:
        y, state = model(*(x[:, at:at + n] for x in inputs), state)
        outs.append(y)
        at += n
    first = outs[0]
    return (tuple(torch.cat(o, 1) for o in zip(*outs)) if isinstance(first, tuple) else torch.cat(outs, 1)), state


def agree(spec: Spec, variant: str | None = None, T: int = 11, batch: int = 2, dtype: torch.dtype = torch.float64, within: float = 1e-10,
          length: int | None = None, **knobs: Any) -> dict[str, Any]:
    """Builds all forms with the same random weights and asserts that outputs and final states agree. Gives the models and the final state."""
    whole = shaken(spec.build(variant, dtype=dtype, **knobs)).eval()
    extend, step = (spec.build(variant, dtype=dtype, form=form, **knobs).eval() for form in ("extend", "step"))
    for m in (extend, step):
        m.load_state_dict(whole.state_dict())
    inputs = inputs_of(spec, spec.elaborate(variant, knobs), T, batch, dtype)
    room = {"length": length or T} if extend.__dict__["_streamed"].has_length else {}
    with torch.no_grad():
        expected = whole(*inputs)
        states = []
        for model, lengths in ((extend, [T]), (extend, parts(T, 1, 4)), (extend, parts(T, 3, 1, 1)), (step, [1] * T)):
            got, state = run(model, inputs, lengths, model.init_state(batch, **room))
            states.append(state)
            close(got, expected, within)
    for other in states[1:]:
        assert list(other) == list(states[0])
        for address, value in other.items():
            close(value, states[0][address], within)
    return {"parallel": whole, "extend": extend, "step": step, "state": states[0]}


def close(got: Any, expected: Any, within: float) -> None:
    if isinstance(expected, tuple):
        for a, b in zip(got, expected, strict=True):
            close(a, b, within)
        return
    assert got.shape == expected.shape and got.dtype == expected.dtype
    assert torch.allclose(got, expected, rtol=within, atol=within), (got - expected).abs().max()
