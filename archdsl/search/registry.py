"""Strategies and evaluators by name: signature, options, documentation and class stand together, as for passes, reports and tasks.

```
@strategy("evolution(population: int = 50, sample: int = 10)", source = "Real et al. 2019")
class Evolution: …
```
Packages add some through the entry-point groups `archdsl.strategies` and `archdsl.evaluators`.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from archdsl.declared import Declared, Registry, name_of

T = TypeVar("T", bound=type)

OWN_STRATEGIES: tuple[str, ...] = ("plain", "evolution", "nsga", "halving", "tpe", "predictor", "milp")
"""The modules of archdsl/search/strategies/ that hold our own; none imports torch or a search library before it is set up."""
OWN_EVALUATORS: tuple[str, ...] = ("cost", "function", "latency", "proxy", "supernet", "train")
"""The modules of archdsl/search/evaluators/ that hold our own; none imports torch before it is set up."""

STRATEGIES: Registry[Declared] = Registry(
    "strategy", "archdsl.strategies", tuple(f"archdsl.search.strategies.{m}" for m in OWN_STRATEGIES), ("A0811", "A0812"))
EVALUATORS: Registry[Declared] = Registry(
    "evaluator", "archdsl.evaluators", tuple(f"archdsl.search.evaluators.{m}" for m in OWN_EVALUATORS), ("A0813", "A0814"))


def strategy(signature: str, source: str = "") -> Callable[[T], T]:
    """Registers the decorated class under the name that starts the signature; its options are the arguments of its constructor."""
    return _register(STRATEGIES, signature, source)


def evaluator(signature: str, source: str = "") -> Callable[[T], T]:
    """Registers the decorated class under the name that starts the signature; its options are the arguments of its constructor."""
    return _register(EVALUATORS, signature, source)


def _register(table: Registry[Declared], signature: str, source: str) -> Callable[[T], T]:
    def register(body: T) -> T:
        body.rule = table.add(Declared(name_of(signature), signature, body, source))
        return body

    return register
