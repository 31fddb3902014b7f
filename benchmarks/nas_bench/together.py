"""Several trainings of one task and seed at a time. On a GPU one step of all of them is captured as a graph whose branches run side by side: small
models are launches and little else. Weights, batches, rates and clipping are those of `archdsl.fit`, step by step; a test holds that."""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from archdsl.tasks.model import IGNORE, Task, cross_entropy
from archdsl.training.groups import grouped
from archdsl.training.schedule import schedule

QUARTERS = 4
WARM = 2
"""Steps in front of a capture, whose traces are removed."""


class Feed:
    """The batches of one task and seed on the device, [steps, batch, T], and the rate of each step. `at` is the number of the next step."""

    def __init__(self, task: Task, steps: int, size: int, seed: int, device: str, lr: float):
        batches = [task.batch("train", i, size, seed) for i in range(steps)]
        self.tokens, self.targets = (torch.stack([b[k] for b in batches]).to(device) for k in (task.inputs[0].name, "targets"))
        factor = schedule("cosine", steps, max(1, steps // 10))
        self.rates = torch.tensor([lr * factor(i) for i in range(steps)], device=device)
        self.at = torch.zeros(1, dtype=torch.int64, device=device)
        self.steps = steps


class Training:
    """One model in training: a step reads its batch and rate from the feed."""

    def __init__(self, model: Any, feed: Feed, weight_decay: float, clip: float):
        self.model, self.feed, self.clip = model.train(), feed, clip
        self.rate = feed.rates[0].clone()
        found = grouped(model, (), 1.0, weight_decay)
        self.parameters = [p for g in found.groups for p in g["params"]]
        on_card = self.rate.is_cuda
        self.optimizer = torch.optim.AdamW([{"params": g["params"], "weight_decay": g["weight_decay"]} for g in found.groups], lr=self.rate,
                                           betas=(0.9, 0.95), capturable=on_card, fused=on_card or None)
        self.finite = torch.ones((), dtype=torch.bool, device=feed.at.device)

    def step(self) -> None:
        feed = self.feed
        self.rate.copy_(feed.rates[feed.at][0])
        tokens, targets = feed.tokens[feed.at][0], feed.targets[feed.at][0]
        self.optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(self.model(tokens), targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.finite.logical_and_(torch.isfinite(loss) & torch.isfinite(norm))
        self.optimizer.step()

    def forget(self, weights: Sequence[torch.Tensor]) -> None:
        """As it was with these weights, in the same memory."""
        with torch.no_grad():
            for p, w in zip(self.parameters, weights):
                p.copy_(w)
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()
        self.finite.fill_(True)


def captured(trainings: Sequence[Training], feed: Feed) -> Callable[[], None]:
    """One step of all, as a function. Without a card they run one after the other."""
    def advance() -> None:
        feed.at.add_(1)

    def steps() -> None:
        for t in trainings:
            t.step()
        advance()

    if not feed.at.is_cuda:
        return steps
    weights = [[p.detach().clone() for p in t.parameters] for t in trainings]
    streams = [torch.cuda.Stream() for _ in trainings]

    def side_by_side() -> None:
        here = torch.cuda.current_stream()
        for t, s in zip(trainings, streams):
            s.wait_stream(here)
            with torch.cuda.stream(s):
                t.step()
        for s in streams:
            here.wait_stream(s)

    torch.cuda.synchronize()
    for _ in range(WARM):
        side_by_side()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        side_by_side()
        advance()
    for t, own in zip(trainings, weights):
        t.forget(own)
    feed.at.zero_()
    torch.cuda.synchronize()
    return graph.replay


def measured(model: Any, data: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The share of targets with the highest score and the mean loss, over batches of one size: [accuracy, loss]."""
    model.eval()
    with torch.no_grad():
        found = []
        for tokens, targets in data:
            scores = model(tokens)
            counted = targets != IGNORE
            right = ((scores.argmax(-1) == targets) & counted).sum() / counted.sum()
            found.append(torch.stack([right, cross_entropy(scores, targets)]))
    model.train()
    return torch.stack(found).mean(0)


def trained(models: Sequence[Any], task: Task, *, steps: int, batch: int, seed: int, device: str, batches: int, lr: float = 3e-3,
            weight_decay: float = 0.1, clip: float = 1.0) -> list[dict[str, Any]]:
    """A row for each model: accuracy and loss on the test split, seconds (its share of those of all), and the accuracy on the validation split after
    each quarter of the steps. Evaluation takes `batches` batches of four times `batch` examples."""
    start = time.perf_counter()
    feed = Feed(task, steps, batch, seed, device, lr)
    splits = {s: [tuple(v.to(device) for v in (b[task.inputs[0].name], b["targets"])) for b in (task.batch(s, i, 4 * batch) for i in range(batches))]
              for s in ("valid", "test")}
    trainings = [Training(m, feed, weight_decay, clip) for m in models]
    step, curves = captured(trainings, feed), []
    for i in range(steps):
        step()
        if (i + 1) * QUARTERS // steps > i * QUARTERS // steps:
            curves.append(torch.stack([measured(t.model, splits["valid"])[0] for t in trainings]))
    ends = torch.stack([measured(t.model, splits["test"]) for t in trainings]).tolist()
    seconds = (time.perf_counter() - start) / len(trainings)
    points = torch.stack(curves, 1).tolist()
    return [{"accuracy": round(a, 5), "loss": round(b, 5), "seconds": round(seconds, 3), "curve": [round(p, 5) for p in curve],
             "finite": bool(t.finite)} for (a, b), curve, t in zip(ends, points, trainings)]
