"""Proxies of how scores change with inputs or weights, example by example."""
from __future__ import annotations

from typing import Any

from archdsl.lazy import torch
from archdsl.search.proxies.needs import differentiable, labelled, maps, scores
from archdsl.search.proxies.probe import Probe, first
from archdsl.search.proxies.registry import proxy

K = 1e-5
"""What both papers add to be able to divide and to take logarithms."""
MANY = 100
"""Above so many classes `epe_nas` compares classes with one another."""


@proxy("jacob_cov()", sought="max", needs=(differentiable, scores), source="arxiv 2006.04647v1, equation 3 (Mellor et al. 2020); 2101.08134")
def jacob_cov(net: Probe) -> Any:
    """−Σ [log(λ + k) + 1 / (λ + k)] over the eigenvalues λ of the correlations between examples of ∂ Σ scores / ∂ input, k = 10⁻⁵: linear maps that
    differ from input to input. Where the inputs are whole numbers, it is by the rows looked up for them.
    """
    values = torch.linalg.eigvalsh(_correlations(net.sensitivity())).clamp(min=0) + K
    return -(values.log() + 1 / values).sum()


@proxy("epe_nas()", sought="max", needs=(differentiable, labelled), source="arxiv 2102.08099, equations 3 to 6 (Lopes et al. 2021)")
def epe_nas(net: Probe) -> Any:
    """Correlations as in `jacob_cov`, among the examples of each class c: s_c = Σ log(|correlation| + k). The score is Σ |s_c| up to 100 classes;
    above, each s_c is divided by the number of its examples, and it is Σ |s_c − s_d| over pairs of classes, divided by the number of classes seen. It
    needs one class for each example, and a batch with two examples of some class.
    """
    slopes, targets = net.sensitivity(), net.targets()
    seen = [slopes[targets == c] for c in torch.unique(targets)]
    if all(len(rows) < 2 for rows in seen):
        raise ValueError(f"no class has two of the {net.size} examples: take a larger batch, or a task with fewer classes")
    classes = net.made.graph.outputs[0].type.shape[-1]
    assert isinstance(classes, int), "as `labelled` says"
    found = torch.stack([(_correlations(rows).abs() + K).log().sum() / (len(rows) if classes > MANY else 1) for rows in seen])
    return found.abs().sum() if classes <= MANY else (found[:, None] - found).abs().sum() / len(found)


@proxy("ntk()", sought="min", needs=(maps, scores), source="arxiv 2102.11535, equation 4 (Chen et al. 2021)")
def ntk(net: Probe) -> Any:
    """The condition number λ_max / λ_min of the neural tangent kernel, Θ[i, j] = ∂y_i/∂θ · ∂y_j/∂θ, where y_i is the sum of the scores of example i
    and θ all trained weights: whether they can be fitted at one rate. It is 1 / 1.2e-7 at most, where float32 cannot tell λ_min from 0. It holds
    `batch` times as many numbers as the model has parameters."""
    y = first(net.model(*net.inputs())).reshape(net.size, -1).sum(1)
    trained = [p for p in net.model.parameters() if p.requires_grad]
    rows = []
    for i in range(net.size):
        found = torch.autograd.grad(y[i], trained, retain_graph=i + 1 < net.size, allow_unused=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(trained, found)]))
    slopes = torch.stack(rows).double()
    values = torch.linalg.eigvalsh(slopes @ slopes.T)
    return values[-1] / values[0].clamp(min=float(values[-1]) * torch.finfo(torch.float32).eps)


def _correlations(rows: Any) -> Any:
    """Pearson's, between rows, in float64; 1 for a single one."""
    rows = rows.double() - rows.double().mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True)
    return rows @ rows.T
