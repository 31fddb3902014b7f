"""Models with random weights, and what a pass makes of them."""
from __future__ import annotations

import math
from typing import Any

import torch

import archdsl
from archdsl.elaborate.model import Elaborated
from archdsl.inputs import sample_inputs
from archdsl.passes import Model
from archdsl.passes.check import random_weights
from archdsl.printer import print_graph
from tests.elaborate.helpers import USES

F64 = torch.float64


def start(spec: Any, variant: str | None = None, **knobs: Any) -> Model:
    """A model in float64 with random non-trivial weights."""
    spec = archdsl.loads(USES + spec, "net.arch") if "model " in spec else archdsl.load(spec)
    return Model.of(spec, variant, knobs, dtype=F64, weights=random_weights(spec.source(variant, knobs)))


def inputs(made: Elaborated, **sizes: int) -> tuple[Any, ...]:
    return sample_inputs(made, {**made.example_sizes(small=True), **sizes}, seed=3, dtype=F64)


def outputs(model: Model, xs: tuple[Any, ...], train: bool = False) -> list[Any]:
    built = model.build().train(train)
    torch.manual_seed(5)
    out = built(*xs)
    return list(out) if isinstance(out, tuple) else [out]


def distance(a: Model, b: Model, train: bool = False, **sizes: int) -> float:
    """The largest difference of outputs, relative to the largest output."""
    xs = inputs(a.made, **sizes)
    pairs = list(zip(outputs(a, xs, train), outputs(b, xs, train)))
    return max(float(((x - y).abs().max() / x.abs().max()).detach()) for x, y in pairs)


def params(model: Model) -> int:
    return sum(math.prod(p.type.shape) for _, p in model.graph.parameters() if p.kind in ("param", "frozen"))  # type: ignore[arg-type]


def ops(model: Model, name: str) -> int:
    from archdsl.claims.count import count_ops

    return count_ops(model.graph, name)


def closed(model: Model) -> None:
    """The graph prints as a spec that elaborates to the same hash."""
    text = print_graph(model.made)
    again = archdsl.loads(text).elaborate().graph
    assert again.hash == model.graph.hash, text
