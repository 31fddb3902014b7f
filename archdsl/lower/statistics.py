"""Running statistics of batch norms, measured again on data."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from archdsl.lower.parts import PhaseOp
from archdsl.wording import with_article


@dataclass
class Moments:
    """Of all numbers that reached the channels of a norm, in float64: how many there were for each channel, their mean, the sum of squared
    deviations. `running`: the buffers of the mean and the variance."""

    running: tuple[Tensor, Tensor]
    count: int
    mean: Tensor
    squares: Tensor

    @property
    def variance(self) -> Tensor:
        """Unbiased, as running variances are."""
        return self.squares / (self.count - 1)

    def add(self, count: int, mean: Tensor, squares: Tensor) -> None:
        """Joins the moments of further numbers (Chan, Golub and LeVeque 1979)."""
        both, gap = self.count + count, mean - self.mean
        self.squares = self.squares + squares + gap.square() * (self.count * count / both)
        self.mean = self.mean + gap * (count / both)
        self.count = both


def moments(model: nn.Module, batches: Iterable[tuple[Any, ...]], wanted: Callable[[Tensor], bool] = lambda mean: True) -> list[Moments]:
    """What reaches each batch norm whose running mean is wanted, while the wanted ones normalise by the batch, as in training, and all else is as in
    evaluation. One that is applied several times has the moments of all applications. The model stays as it is. `batches`: the model's inputs, a
    tuple each. Raises ValueError for batches that leave a channel a single number or that the model does not take, and for none, TypeError for one
    that is no tuple."""
    found: dict[int, Moments] = {}
    phases = {m: m.training for m in model.modules()}
    model.eval()

    def see(module: PhaseOp, operands: Any) -> Any:
        mean, variance = operands[3:5]
        module.train(mean is not None and wanted(mean))
        if mean is None or not module.training:
            return None
        x = operands[0].double().transpose(0, 1).flatten(1)
        seen = x.shape[1], x.mean(1), (x - x.mean(1, keepdim=True)).square().sum(1)
        if id(mean) in found:
            found[id(mean)].add(*seen)
        else:
            found[id(mean)] = Moments((mean, variance), *seen)
        return *operands[:3], mean.clone(), variance.clone(), *operands[5:]  # in training it moves what it is given

    hooks = [m.register_forward_pre_hook(see) for m in model.modules() if isinstance(m, PhaseOp) and m.op == "batch_norm"]
    count = 0
    try:
        with torch.no_grad():
            for count, inputs in enumerate(batches if hooks else (), 1):
                if not isinstance(inputs, tuple | list):
                    raise TypeError(f"batch {count} of the calibration is {with_article(type(inputs).__name__)}: it is a tuple of the model's inputs")
                model(*inputs)
        if hooks and not count:
            raise ValueError("there is no batch to calibrate on: batch norms would keep the statistics of other candidates")
    finally:
        for hook in hooks:
            hook.remove()
        for m, phase in phases.items():
            m.training = phase
    return list(found.values())


def recalibrate(model: nn.Module, batches: Iterable[tuple[Any, ...]]) -> int:
    """Gives every batch norm of a model the statistics of these inputs, in place: how many there were. Raises as `moments`, before any is changed."""
    own = {id(b) for b in model.buffers()}
    found = moments(model, batches, lambda mean: id(mean) in own)
    with torch.no_grad():
        for m in found:
            m.running[0].copy_(m.mean)
            m.running[1].copy_(m.variance)
    return len(found)
