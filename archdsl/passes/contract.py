"""What a pass promises: how its output is related to its input. The pass manager checks it with numbers when asked (check.py)."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from archdsl.records import field, record

Relation = Literal["bits", "equal", "approximate"]
Phase = Literal["train", "eval"]

TOLERANCES = {"f64": 1e-10, "f32": 1e-4, "bf16": 5e-2, "f16": 1e-2}
"""Largest difference of outputs of either model, relative to the largest output, by the dtype of the build."""

GRADIENTS = {"inputs": ["gradients of float inputs"], "params": ["gradients of float inputs and of parameters"], "none": []}


@record(frozen=True)
class Contract:
    """`relation`: `bits` (the same numbers), `equal` (up to `tolerance`, relative to the largest value, by dtype), `approximate` (measured and
    reported: nothing is promised). `at`: for all weights, or for the initial ones alone. `outputs`: the model's results are compared; `taps`:
    the emitted values too. `gradients`: of an objective with respect to the float `inputs`, or to all `params` that both models have, or `none`.
    `phases`: in which the relation holds. `reports`: the names of what an approximation is measured by.
    """

    relation: Relation
    tolerance: Mapping[str, float] = field(default_factory=lambda: dict(TOLERANCES))
    at: Literal["always", "init"] = "always"
    outputs: bool = True
    taps: bool = True
    gradients: Literal["inputs", "params", "none"] = "inputs"
    phases: tuple[Phase, ...] = ("train", "eval")
    reports: tuple[str, ...] = ()

    def __str__(self) -> str:
        near = ", ".join(f"{v:g} in {k}" for k, v in self.tolerance.items())
        what = [w for w, on in (("outputs", self.outputs), ("emitted values", self.taps)) if on] + GRADIENTS[self.gradients]
        when = "in training and evaluation" if len(self.phases) == 2 else f"in {'training' if self.phases[0] == 'train' else 'evaluation'}"
        return "; ".join([f"equal up to {near}" if self.relation == "equal" else self.relation, ", ".join(what), when,
                          "for all weights" if self.at == "always" else "at the initial weights"])


def bits(**what: Any) -> Contract:
    """The same numbers, to the last bit."""
    return Contract("bits", **what)


def equal(**what: Any) -> Contract:
    """The same function up to rounding."""
    return Contract("equal", **what)


def approximate(*reports: str, **what: Any) -> Contract:
    """Another function; how far it is away is measured."""
    return Contract("approximate", reports=reports, **{"gradients": "none", **what})


__all__ = ["TOLERANCES", "Contract", "approximate", "bits", "equal"]
