"""Layers that are not run get gradients where they would have got them."""
from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from tests.layers import equal_layers_once


class Lay(torch.nn.Module):
    """Reads no `side`; its second result alone reads `late`."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.late, self.idle = (torch.nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: torch.Tensor, side: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + self.map(x), self.late(x.detach())


class Net(torch.nn.Module):
    def __init__(self, auxiliary: list[int]) -> None:
        super().__init__()
        self.auxiliary = auxiliary
        self.side = torch.nn.Linear(4, 4)
        self.layers = torch.nn.ModuleList(Lay() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, side = x * 1, self.side(x)
        results = [torch.zeros_like(x)]
        for i, layer in enumerate(self.layers):
            x, late = layer(x, side)
            results += [late] if i in self.auxiliary else []
        return x + torch.stack(results).sum(0)


def without_gradient(auxiliary, once):
    with torch.device("meta"):
        net, x = Net(auxiliary), torch.empty(2, 4, requires_grad=True)
    with equal_layers_once(net) if once else nullcontext():
        y = net(x)
    y.sum().backward()
    return [n for n, p in net.named_parameters() if p.grad is None]


@pytest.mark.parametrize("auxiliary", [[], [2], [0, 3], [0, 1, 2, 3]])
def test_what_gets_no_gradient_is_the_same(auxiliary):
    missing = without_gradient(auxiliary, once=False)
    assert {"side.weight", "layers.3.idle.bias"} < set(missing) and ("layers.2.late.weight" in missing) == (2 not in auxiliary)
    assert without_gradient(auxiliary, once=True) == missing
