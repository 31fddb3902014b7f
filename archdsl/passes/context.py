"""What `decide` gets beside the model: the tensors, models and tables that the names behind `using` stand for, checked against the model."""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import evaluate
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.model import Elaborated, InputSpec
from archdsl.records import field, record

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.passes.step import Step

OPTION = {"data": "--data {}=FILE", "model": "--model {}=DIR", "table": "--table {}=FILE"}


@record(frozen=True)
class Given:
    """What is bound to names. `data`: input name -> tensor, or the path of a file that holds them; `models`: a built model, or the folder of a
    compiled one; `tables`: JSON."""

    data: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)

    def of_kind(self, kind: str) -> Mapping[str, Any]:
        return {"data": self.data, "model": self.models, "table": self.tables}[kind]


@record(frozen=True)
class Context:
    """`step`: with its selector and its place in the text. `given`: all that is bound. `inputs(made)` gives what the step's own names stand for."""

    step: Step
    given: Given = field(default_factory=Given)

    def inputs(self, made: Elaborated) -> list[Any]:
        """In the order of the pass's `using`: `Data` of the model `made`, a built model, JSON. Raises ArchError A0569 for a name to which nothing is
        bound, A0571 for data that do not fit, A0628 or A0520 for what cannot be read."""
        return [self._one(kind, name, made) for kind, name in zip(self.step.rule.using, self.step.using, strict=True)]

    def _one(self, kind: str, name: str, made: Elaborated) -> Any:
        bound = self.given.of_kind(kind)
        if name not in bound:
            others = f"bound are {', '.join(f'`{n}`' for n in bound)}" if bound else "nothing is"
            raise error("A0569", f"`{self.step.name}` uses `{name}`, to which no {kind} is bound: {others}", self.step.span, "not bound",
                        help=(*did_you_mean(name, bound), f"`archdsl compile … {OPTION[kind].format(name)}` binds it"))
        value = bound[name]
        if kind == "data":
            return Data(name, value, made, self.step)
        if kind == "model" and isinstance(value, (str, os.PathLike)):
            from archdsl.store import open as open_folder

            return open_folder(value)
        return value


class Data:
    """Samples for a model. Iterating gives one tuple of inputs after the other; `tensors`: whole ones, in the order of the inputs; `count`: samples,
    or None where the inputs have no common first axis, and all are one batch."""

    def __init__(self, name: str, value: Any, made: Elaborated, step: Step):
        from archdsl.checkpoints import read_checkpoint

        self.name, self.made, self.step = name, made, step
        self.file = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
        found: Any = read_checkpoint(self.file, "data") if self.file is not None else value
        self._known(found)
        self.tensors = [self._typed(i, found[i.name]) for i in made.inputs]
        self.sizes = self._sizes()
        first = {i.type.shape[0] if i.type.shape else 0 for i in made.inputs}
        axis = next(iter(first)) if len(first) == 1 else 0
        self.count = None if isinstance(axis, int) else self.sizes[str(axis)]

    def batches(self, size: int) -> Iterator[tuple[Any, ...]]:
        """Tuples of inputs with at most `size` samples."""
        if self.count is None:
            yield tuple(self.tensors)
            return
        for at in range(0, self.count, size):
            yield tuple(x[at : at + size] for x in self.tensors)

    def wrong(self, message: str, help: str | tuple[str, ...] = ()) -> ArchError:
        """A0571 about these data."""
        where = f"the data `{self.name}`" + (f" ({self.file})" if self.file is not None else "")
        wanted = ", ".join(f"{i.name}: {_type(i)}" for i in self.made.inputs)
        return error("A0571", f"{where} do not fit the model: {message}", self.step.span, "uses them", notes=(f"its inputs: {wanted}",), help=help)

    # ---------------------------------------------------------------- checks
    def _known(self, found: Any) -> None:
        import torch

        if not isinstance(found, Mapping):
            raise self.wrong(f"a mapping from inputs to tensors is needed, this is {type(found).__name__}")
        names = [i.name for i in self.made.inputs]
        for name in names:
            if name not in found:
                raise self.wrong(f"`{name}` is missing", f"they hold {', '.join(f'`{k}`' for k in found) or 'nothing'}")
        for key, value in found.items():
            if key not in names:
                raise self.wrong(f"`{key}` is no input", (did_you_mean(key, names) or (f"leave out `{key}`",))[0])
            if not isinstance(value, torch.Tensor):
                raise self.wrong(f"`{key}` is {type(value).__name__}, not a tensor")

    def _typed(self, spec: InputSpec, x: Tensor) -> Tensor:
        import torch

        told = str(x.dtype).removeprefix("torch.")
        kind = "bool" if x.dtype == torch.bool else "float" if x.is_floating_point() else "complex" if x.is_complex() else "int"
        wanted = "float" if spec.type.is_float else "bool" if spec.type.dtype == "bool" else "int"
        if kind != wanted:
            raise self.wrong(f"`{spec.name}` holds {told}, not {wanted}")
        if spec.low is not None and x.numel() and not (spec.low <= x.min().item() and x.max().item() <= spec.high):
            raise self.wrong(f"`{spec.name}` holds numbers from {x.min().item()} to {x.max().item()}, not within {spec.low}..{spec.high}")
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise self.wrong(f"`{spec.name}` holds numbers that are not finite")
        return x

    def _sizes(self) -> dict[str, int]:
        """The run-time sizes that the shapes say."""
        from archdsl.lower.parts import require

        sizes: dict[str, int] = {}
        for spec, x in zip(self.made.inputs, self.tensors):
            known = dict(sizes)
            if x.dim() == len(spec.type.shape):
                for axis, size in zip(spec.type.shape, x.shape):
                    if not isinstance(axis, int):
                        known.setdefault(str(axis), size)
            plain = {k: v for k, v in known.items() if k.isidentifier()}
            if [_at(axis, plain) for axis in spec.type.shape] != list(x.shape) or 0 in x.shape:
                told = "".join(f", {k} = {v}" for k, v in sizes.items())
                raise self.wrong(f"`{spec.name}` has the shape {list(x.shape)}, not {_shape(spec)}{told}")
            sizes = plain
        for guard in self.made.graph.guards:
            try:
                require(evaluate(guard.left, sizes), guard.op, evaluate(guard.right, sizes), guard.message)
            except ValueError as fault:
                raise self.wrong(str(fault)) from None
        return sizes


def _type(spec: InputSpec) -> str:
    return f"{'' if spec.type.dtype == 'float' else spec.type.dtype}{_shape(spec)}"


def _shape(spec: InputSpec) -> str:
    return f"[{', '.join(map(str, spec.type.shape))}]"


def _at(axis: Any, sizes: Mapping[str, int]) -> int | None:
    """A size at these sizes; None where one that it needs is not known."""
    try:
        return axis if isinstance(axis, int) else evaluate(axis, sizes)
    except KeyError:
        return None

