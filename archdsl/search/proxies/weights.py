"""Proxies of weights alone, and of what flows through them without data."""
from __future__ import annotations

from typing import Any

from archdsl.lazy import torch
from archdsl.search.proxies.needs import maps, scores
from archdsl.search.proxies.probe import Probe, first, gradients
from archdsl.search.proxies.registry import proxy


@proxy("l2_norm()", sought="max", needs=(maps,), source="arxiv 2101.08134 (Abdelfattah et al. 2021)")
def l2_norm(net: Probe) -> Any:
    """Σ ‖θ‖₂ over the weights of maps, as they are initialised: little more than a count of parameters, a yardstick for the others."""
    return sum(w.norm() for w in net.weights)


@proxy("synflow()", sought="max", needs=(maps, scores), source="arxiv 2006.05467, equation 2 (Tanaka et al. 2020), as a score in 2101.08134")
def synflow(net: Probe) -> Any:
    """Σ |θ ∂R/∂θ| over the weights of maps, where R is the sum of the scores for one input of ones with |θ| in the place of every weight. Without
    data or labels; in float64, since R grows with each layer.

    Batch norms are taken out, as in both papers. Other norms and activations stay as they are: without them, products of gates would overflow.
    Where the inputs are whole numbers, it is one example of the data, and the rows looked up for it are positive.
    """
    model = net.fresh(torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.abs_()
    given = [torch.ones_like(x[:1], dtype=torch.float64) if x.is_floating_point() else x[:1] for x in net.inputs()]
    weights = net.weights_of(model)
    with net.seeing(lambda op, args, result: args[0] if op == "batch_norm" else result, model):
        total = first(model(*given)).sum()
    return sum((w * g).abs().sum() for w, g in zip(weights, gradients(total, weights)))
