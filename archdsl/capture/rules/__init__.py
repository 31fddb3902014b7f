"""The table aten -> ops of the language: one place per aten op. A rule takes the translation and the op's arguments by the names of its schema.

Tensors are Values, sizes that vary are Dims. Arguments that a rule does not name must have their defaults; those about devices and memory are
left out. What has no rule becomes an opaque node or a refusal (opaque.py), and so does what a rule answers NotImplemented to.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.dims import maximum, minimum

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
IGNORED = frozenset({
    "device", "layout", "pin_memory", "memory_format", "non_blocking", "copy", "generator", "implicit", "cudnn_enable", "cudnn_enabled", "sparse",
    "scale_grad_by_freq", "padding_idx", "requires_grad",
})
"""Arguments that say nothing about values."""


def aten(*names: str) -> Callable[[Rule], Rule]:
    """Registers a rule under the names of the overloads that it is about."""
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule
    return register


def find(name: str) -> Rule | None:
    """The rule of an overload such as `linear.default`, all tables loaded."""
    from archdsl.capture.rules import layout, pointwise, products, reductions, windows  # noqa: F401

    return RULES.get(name)


def last_or_front(rank: int, dim: int) -> int:
    """An axis as the text has it: the last one as -1, others from the front."""
    n = max(rank, 1)
    return -1 if dim % n == n - 1 else dim % n


def each(v: Any) -> Any:
    """One number where all axes have the same."""
    return v if not isinstance(v, (list, tuple)) else v[0] if len(set(v)) == 1 else tuple(v)


# ---------------------------------------------------------------- sizes
SIZES: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b,
    "pow": lambda a, b: a ** b, "neg": lambda a: -a, "pos": lambda a: a, "sym_int": lambda a: a,
    "sym_max": lambda a, b: maximum(a, b), "sym_min": lambda a, b: minimum(a, b),
}
"""What may be computed with sizes."""
CONDITIONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

__all__ = ["CONDITIONS", "IGNORED", "RULES", "SIZES", "Rule", "aten", "each", "find", "last_or_front"]
