"""Proxies of the gradient of a loss at the initial weights."""
from __future__ import annotations

from typing import Any

from archdsl.declared import wrong_option
from archdsl.lazy import torch
from archdsl.search.proxies.needs import maps, scores
from archdsl.search.proxies.probe import Probe, gradients
from archdsl.search.proxies.registry import proxy

NEEDS = (maps, scores)
STEP = 1e-6
"""How far to either side, relative to the weights."""


@proxy("grad_norm()", sought="max", needs=NEEDS, source="arxiv 2101.08134, section 3.2 (Abdelfattah et al. 2021)")
def grad_norm(net: Probe) -> Any:
    """Σ ‖∂L/∂θ‖₂ over the weights of maps."""
    return sum(g.norm() for g in net.slopes)


@proxy("plain()", sought="max", needs=NEEDS, source="arxiv 2101.08134; Mozer and Smolensky 1989")
def plain(net: Probe) -> Any:
    """Σ θ ∂L/∂θ over the weights of maps: what the loss loses to first order when all of them are scaled down. Its sign says little; a yardstick for
    `snip`."""
    return sum((w * g).sum() for w, g in zip(net.weights, net.slopes))


@proxy("snip()", sought="max", needs=NEEDS, source="arxiv 1810.02340, equation 6 (Lee et al. 2019), as a score in 2101.08134")
def snip(net: Probe) -> Any:
    """Σ |θ ∂L/∂θ| over the weights of maps: how much the loss feels each connection."""
    return sum((w * g).abs().sum() for w, g in zip(net.weights, net.slopes))


@proxy("grasp()", sought="max", needs=NEEDS, source="arxiv 2002.07376, equation 8 (Wang et al. 2020), as a score in 2101.08134")
def grasp(net: Probe) -> Any:
    """−Σ θ · H g over the weights of maps, with g = ∂L/∂θ and H the Hessian of L: what removing a connection does to the flow of gradients. H g is
    the central difference of gradients along g in float64, as not all ops have second derivatives: right to some seven digits where L is smooth.
    """
    model = net.fresh(torch.float64)
    weights = net.weights_of(model)
    slopes = gradients(net.loss(model=model), weights)
    step = STEP * float(sum(w.detach().square().sum() for w in weights)) ** 0.5 / max(float(sum(g.square().sum() for g in slopes)) ** 0.5, 1e-300)
    sides = []
    for move in (step, -2 * step):
        with torch.no_grad():
            for w, g in zip(weights, slopes):
                w.add_(g, alpha=move)
        sides.append(gradients(net.loss(model=model), weights))
    return -sum((w * (above - below)).sum() for w, above, below in zip(net.weights, *sides)) / (2 * step)


@proxy("fisher()", sought="max", needs=NEEDS, source="arxiv 1801.05787, equation 8 (Theis et al. 2018), as a score in 1906.04113 and 2101.08134")
def fisher(net: Probe) -> Any:
    """Σ over the channels of all maps of ½ mean over examples of (Σ over positions of a ∂L/∂a)², where a is the map's result: the Fisher information
    that is lost with a channel. The implementation of 2101.08134 counts each channel once for each of its weights; here it counts once."""
    loss, found = net.outputs_of_maps()
    total: Any = 0.0
    for (axis, a), g in zip(found, gradients(loss, [a for _, a in found])):
        felt = (a.detach() * g).movedim(axis, -1)
        examples = net.size if felt.shape[0] % net.size == 0 else 1  # windows of an example follow one another
        felt = felt.reshape(examples, -1, felt.shape[-1]).sum(1)
        total = total + felt.square().mean(0).sum() / 2
    return total


@proxy("zico(batches: int = 2)", sought="max", needs=NEEDS, source="arxiv 2301.11300, equation 13 (Li et al. 2023)")
def zico(net: Probe, batches: int = 2) -> Any:
    """Σ over the weights w of maps of log Σ over their entries of E|∂L/∂w| / √Var|∂L/∂w|, over several batches: large and steady gradients. Entries
    that are the same in all batches do not count; a weight without any other adds nothing.

    `batches`: two or more.
    """
    if batches < 2:
        raise wrong_option("A0843", "batches", batches, "it takes two batches to vary")
    slopes = [net.slopes, *(net.gradients(i) for i in range(1, batches))]
    total: Any = 0.0
    for of_one in zip(*slopes):
        size = torch.stack(of_one).abs()
        mean, deviation = size.mean(0), size.std(0, correction=0)
        steady = (mean / deviation)[deviation > 0].sum()
        total = total + (steady.log() if steady > 0 else 0.0)
    return total
