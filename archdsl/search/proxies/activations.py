"""Proxies of what an untrained network makes of its inputs."""
from __future__ import annotations

from typing import Any

from archdsl.declared import wrong_option
from archdsl.lazy import torch
from archdsl.search.proxies.needs import RECTIFIERS, map_biases, normalised, rectified
from archdsl.search.proxies.probe import Probe
from archdsl.search.proxies.registry import proxy


@proxy("naswot()", sought="max", needs=(rectified,), source="arxiv 2006.04647v3, equation 2 (Mellor et al. 2021)")
def naswot(net: Probe) -> Any:
    """log |det K|, where K[i, j] counts the rectifiers (relu, relu6, leaky_relu) that two inputs set alike: N − Hamming distance of their codes. A
    network that tells inputs apart by its linear regions has a large one. Smooth activations have no such regions, so it says nothing about them; two
    inputs with one code make K singular, and the trial fails.
    """
    kernel: Any = torch.zeros((), dtype=torch.float64)

    def see(op: str, args: tuple[Any, ...], result: Any) -> Any:
        nonlocal kernel
        if op in RECTIFIERS and result.shape[0] % net.size == 0:
            on = (result.reshape(net.size, -1) > 0).double()
            kernel = kernel + on @ on.T + (1 - on) @ (1 - on).T
        return result

    with torch.no_grad(), net.seeing(see):
        net.scores()
    if kernel.dim() == 0:
        raise ValueError("no rectifier acts on all examples of the batch")
    return torch.linalg.slogdet(kernel)[1]


@proxy("zen(alpha: float = 0.01)", sought="max", needs=(normalised,), source="arxiv 2102.01063, algorithm 1 (Lin et al. 2021)")
def zen(net: Probe, alpha: float = 0.01) -> Any:
    """log E ‖f(x) − f(x + α ε)‖ + Σ over batch norms of log √(mean over channels of σ²). f are the feature maps before the last mean over positions,
    x and ε are normal, so are the weights of maps, with deviation 1 and biases 0, and σ² are the variances that the norms divide by: how much f
    bends, with what the norms take away put back. For convolutional networks with batch norms.

    `alpha`: how far the second input is.
    """
    if alpha <= 0:
        raise wrong_option("A0843", "alpha", alpha, "it is above 0")
    model, draw = net.fresh(), torch.Generator().manual_seed(0)
    given = net.inputs()

    def normal(like: Any) -> Any:
        return torch.randn(like.shape, generator=draw).to(like)

    scales: list[Any] = []
    maps: list[Any] = []

    def see(op: str, args: tuple[Any, ...], result: Any) -> Any:
        if op == "batch_norm":
            scales.append(args[0].transpose(0, 1).flatten(1).var(1, correction=0).mean().sqrt().log())
        elif op in ("mean", "avg_pool") and args[0].dim() == 4:
            maps.append(args[0])
        return result

    with torch.no_grad():
        held = dict(model.named_parameters(remove_duplicate=False))
        for w in net.weights_of(model):
            w.copy_(normal(w))
        for address in map_biases(net.made):
            held[address].zero_()
        x = [normal(v) if v.is_floating_point() else v for v in given]
        near = [v + alpha * normal(v) if v.is_floating_point() else v for v in x]
        with net.seeing(see, model):
            model(*x)
            before, added = maps[-1], sum(scales)
            model(*near)
    return (before - maps[-1]).flatten(1).norm(dim=1).mean().log() + added
