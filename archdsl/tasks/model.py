"""What a task is: inputs, sizes, batches as a pure function, an objective, metrics."""
from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from archdsl.lazy import F, torch
from archdsl.records import record

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from archdsl.declared import Declared
    from archdsl.lower.module import ArchModule

Batch = dict[str, Any]
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
IGNORE = -100
"""A target that counts neither for the loss nor for metrics, as in torch."""


def _whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` is a whole number from 1 up, not {value!r}")


@record(frozen=True)
class Axis:
    """An input of a task: `shape` by names of `sizes` and numbers ("B" is the batch), `kind` int or float, the range of whole numbers."""

    name: str
    kind: Literal["int", "float"]
    shape: tuple[str | int, ...]
    low: int | None = None
    high: int | None = None

    def __str__(self) -> str:
        limits = "" if self.low is None else f" in {self.low}..{self.high}"
        return f"{self.name}: {'int' if self.kind == 'int' else ''}[{', '.join(map(str, self.shape))}]{limits}"


class Task(ABC):
    """Data, objective and metrics. Options are attributes, set before `setup` is called; `@task(SIGNATURE)` registers a class.

    `inputs`: what a model takes, in order. `sizes`: a number for each name in their shapes but "B". `classes`: how many values a target has: the last
    axis of the model's first result holds at least as many scores. `count`: how many examples a split has, None where they never end.
    """

    rule: ClassVar[Declared]
    options: dict[str, Any]
    inputs: tuple[Axis, ...]
    sizes: dict[str, int]
    classes: int

    def __init__(self, **options: Any):
        """Raises ArchError A0592 for options that do not go together, A0598 for data that is not there."""
        self.options = {**self.rule.defaults, **options}
        unknown = self.options.keys() - {p.name for p in self.rule.params}
        if unknown:
            raise TypeError(f"the task {self.rule.name} has no option {sorted(unknown)[0]!r}: {self.rule.signature}")
        for name, value in self.options.items():
            setattr(self, name, value)
        self.setup()

    @abstractmethod
    def setup(self) -> None:
        """Sets `inputs`, `sizes` and `classes` from the options."""

    @abstractmethod
    def batch(self, split: Split, index: int, size: int, seed: int = 0) -> Batch:
        """The `index`-th batch of `size` examples: a tensor for each input by name, and `targets`. A pure function of its arguments."""

    @abstractmethod
    def targets_shape(self, size: int) -> tuple[int, ...]:
        """The shape of `targets` in a batch of `size`: that of the model's first result without its last axis."""

    def own(self, batch: Batch) -> Tensor | None:
        """bool [B, T], which positions belong to an example, those of padding do not; None where there is no padding."""
        return None

    def count(self, split: Split) -> int | None:
        """How many examples a split has; None where they never end."""
        return None

    @property
    def digest(self) -> str:
        """Tells data that differ: what the data depends on beside the options."""
        return ""

    @property
    def text(self) -> str:
        """The task with all its options, as `parse` reads it."""
        from archdsl.elaborate.values import show
        from archdsl.spec import python_setting

        return f"{self.rule.name}({', '.join(f'{k} = {show(python_setting(k, v).value)}' for k, v in self.options.items())})"

    def __repr__(self) -> str:
        return self.text

    # ---------------------------------------------------------------- what every task has in common
    def packed(self, batch: Batch) -> Batch:
        """The examples of a batch as documents behind each other, [1, all their positions], without padding, and their `lengths` [B]: what a model
        with `ragged T` takes. Targets of positions go along. Raises ValueError where an input has no T."""
        if fault := self.unpackable:
            raise ValueError(f"the task {self.rule.name}: {fault}")
        first = batch[self.inputs[0].name]
        own = self.own(batch)
        if own is None:
            own = torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)
        along = [i.name for i in self.inputs] + ["targets"] * (batch["targets"].shape[:2] == own.shape)
        return {**batch, **{name: batch[name][own][None] for name in along}, "lengths": own.sum(1)}

    @property
    def unpackable(self) -> str:
        """Why examples cannot lie behind each other along T; "" where they can."""
        other = next((i for i in self.inputs if i.shape[:2] != ("B", "T")), None)
        shown = "" if other is None else f"`{other.name}` is [{', '.join(map(str, other.shape))}]"
        return shown and f"{shown}, and documents lie behind each other in [B, T, …]"

    def call(self, model: Module, batch: Batch) -> Tensor:
        """The model's first result, scores [*targets, classes or more], also of one that was built with a loss. A batch of `packed` has the lengths
        of its documents. Raises ValueError for a model in the form `packed` and a batch without them."""
        from archdsl.lower.forms import form_of, sibling
        from archdsl.lower.losses import loss_of

        if "lengths" not in batch and form_of(model) == "packed":
            raise ValueError(f"{type(model).__name__} takes documents behind each other: `task.batches(…, packed = True)` gives them")
        if loss_of(model) is not None:
            model = sibling(cast("ArchModule", model), form_of(model)).train(model.training)
        return _first(model(*self._given(batch)))

    def _given(self, batch: Batch) -> tuple[Any, ...]:
        """What a model takes of a batch, in order."""
        return *(batch[i.name] for i in self.inputs), *((batch["lengths"],) if "lengths" in batch else ())

    def objective(self, model: Module, batch: Batch, step: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean cross-entropy in nats, a single number, and what is worth logging. A model that was built with this loss computes it."""
        from archdsl.lower.losses import loss_of

        if loss_of(model) is not None:
            return _first(model(*self._given(batch), batch["targets"])), {}
        return cross_entropy(self.call(model, batch), batch["targets"]), {}

    @property
    def loss(self) -> str | None:
        """What a model may be built with, `build(loss = …)`, for `objective` to use; None for a task with an objective or a call of its own."""
        own = type(self)
        return "cross_entropy" if own.objective is Task.objective and own.call is Task.call else None

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, float]:
        """Of the model's first result for a batch: mean cross-entropy in nats, the share of targets whose score is the highest."""
        targets = batch["targets"]
        counted = targets != IGNORE
        right = (outputs.argmax(-1) == targets) & counted
        return {"loss": cross_entropy(outputs, targets).item(), "accuracy": right.sum().item() / max(1, int(counted.sum()))}

    def batches(self, split: Split = "train", size: int = 32, seed: int = 0, device: Any = "cpu", packed: bool = False) -> Callable[[int], Batch]:
        """`batch` as a function of its index alone, on a device: what `archdsl.fit` takes; of a model in the form `packed` with `packed = True`.
        Raises ValueError for a size that is no whole number from 1 up."""
        _whole("size", size)

        def at(index: int) -> Batch:
            batch = self.batch(split, index, size, seed)
            return {k: v.to(device) for k, v in (self.packed(batch) if packed else batch).items()}

        return at

    def evaluate(self, model: Module, split: Split = "valid", batches: int = 8, size: int = 32, seed: int = 0) -> dict[str, float]:
        """Metrics over the first `batches` batches of a split, or all examples of one that ends; each batch counts by its examples. The model is
        evaluated on its own device, and is in its old phase afterwards. Raises ValueError for numbers that are not whole ones from 1 up."""
        _whole("size", size)
        _whole("batches", batches)
        from archdsl.lower.forms import form_of

        device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        pack = self.packed if form_of(model) == "packed" else dict
        total = self.count(split)
        parts = [(i, size) for i in range(batches)] if total is None else [(i, min(size, total - i * size)) for i in range(-(-total // size))]
        sums: dict[str, float] = {}
        phase = model.training
        model.eval()
        try:
            with torch.no_grad():
                for i, n in parts:
                    batch = {k: v.to(device) for k, v in pack({k: v[:n] for k, v in self.batch(split, i, size, seed).items()}).items()}
                    for name, value in self.metrics(self.call(model, batch), batch).items():
                        sums[name] = sums.get(name, 0.0) + value * n
        finally:
            model.train(phase)
        return {name: value / sum(n for _, n in parts) for name, value in sums.items()}


class TokenTask(Task):
    """A task of next or later tokens: tokens int[B, T] -> logits [B, T, vocab]; `targets` [B, T] holds IGNORE where nothing is asked. A subclass
    calls `tokens(vocab, length)` in `setup`."""

    def tokens(self, vocab: int, length: int) -> None:
        self.inputs = (Axis("tokens", "int", ("B", "T"), 0, vocab - 1),)
        self.sizes, self.classes = {"T": length}, vocab

    def targets_shape(self, size: int) -> tuple[int, ...]:
        return size, self.sizes["T"]


def _first(y: Any) -> Any:
    return y[0] if isinstance(y, tuple) else y


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over the targets that count, in nats, in float32 or wider."""
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    return F.cross_entropy(scores.flatten(0, -2), targets.flatten(), ignore_index=IGNORE)


def generator(*key: int | str) -> Any:
    """A numpy generator that depends on a key alone, the same on every machine."""
    import numpy

    words = "\0".join(map(str, key)).encode()
    return numpy.random.Generator(numpy.random.PCG64(int.from_bytes(hashlib.blake2b(words, digest_size=16).digest(), "little")))


def tensors(**arrays: Any) -> Batch:
    """numpy arrays as tensors, whole numbers as int64."""
    return {k: torch.from_numpy(v.astype("int64") if v.dtype.kind in "iu" else v) for k, v in arrays.items()}


def rows_of(count: int, split: Split, index: int, size: int, seed: int) -> Any:
    """Which of `count` examples the `index`-th batch holds: in training every epoch is a permutation of its own, drawn from (seed, epoch), and a
    batch may end one and begin the next; elsewhere they come in order, from the first again behind the last. int64 [size]"""
    import numpy

    places = numpy.arange(index * size, (index + 1) * size)
    if split != "train":
        return places % count
    orders = {e: generator("epoch", seed, e).permutation(count) for e in range(int(places[0]) // count, int(places[-1]) // count + 1)}
    return numpy.array([orders[int(p) // count][int(p) % count] for p in places])


def check_options(task: Task, least: Mapping[str, int]) -> None:
    """Raises A0592 for an option below its least value."""
    from archdsl.tasks.registry import wrong_option

    for name, low in least.items():
        if task.options[name] < low:
            raise wrong_option(task, name, f"it is {low} at least")
