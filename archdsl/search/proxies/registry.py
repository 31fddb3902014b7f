"""One place per proxy: name, paper, which way it counts, what a model needs for it, documentation and formula stand together.

```
@proxy("snip()", sought="max", needs=(maps, scores), source="arxiv 1810.02340, equation 6")
def snip(net):
    \"\"\"Σ |θ ∂L/∂θ| over the weights of maps.\"\"\"
    return sum((w * g).abs().sum() for w, g in zip(net.weights, net.gradients()))
```
The function takes a `Probe` (probe.py) and its options, and returns one number. Packages add proxies through the entry-point group `archdsl.proxies`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from archdsl.declared import Declared, Registry, name_of
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated

    Need = Callable[[Elaborated], str | None]

Sought = Literal["max", "min"]
OWN = ("weights", "gradients", "activations", "jacobians")
"""The modules of archdsl/search/proxies/ that hold our own; none imports torch."""


@record(slots=False)
class Proxy(Declared):
    """`sought`: which way the paper counts it. `needs`: each looks at a typed graph and gives None, or why the proxy says nothing about it."""

    sought: Sought
    needs: tuple[Need, ...]

    @property
    def doc(self) -> str:
        return f"{(self.body.__doc__ or '').strip()}\n\n    {'More' if self.sought == 'max' else 'Less'} is better."

    def unfit(self, made: Elaborated) -> str | None:
        """Why it says nothing about a model; None where it does."""
        return next((why for need in self.needs if (why := need(made)) is not None), None)


PROXIES: Registry[Proxy] = Registry("proxy", "archdsl.proxies", tuple(f"archdsl.search.proxies.{m}" for m in OWN), ("A0842", "A0843"))


def proxy(signature: str, *, sought: Sought, needs: tuple[Need, ...] = (), source: str = "") -> Callable[[Callable[..., Any]], Proxy]:
    """Registers the decorated function under the name that starts the signature."""
    def register(body: Callable[..., Any]) -> Proxy:
        return PROXIES.add(Proxy(name_of(signature), signature, body, source, sought, needs))

    return register
