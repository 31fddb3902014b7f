"""What benchmarks/gpu_kernels.py measures: a `Case` for each kernel and shape. A file benchmarks/gpu_cases_FAMILY.py gives its own by
`cases(tiny: bool) -> list[Case]`."""
from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Peer = tuple[str, Callable[..., Any]]


@dataclass(frozen=True)
class Case:
    """`make(device)` gives the operands; those that require gradients are differentiated when `backward` says so, with respect to a gradient of ones
    for every floating result. `peers`: (label, the same function by another library), imported inside. `reference`: the same in plain torch, called
    with float64 operands: the errors of ours and of the peers against it are printed. `bytes`, `flops`: what one forward pass moves and computes at
    the least; `backward_bytes`, `backward_flops`: the backward pass alone."""

    name: str
    make: Callable[[str], tuple[Any, ...]]
    ours: Callable[..., Any]
    peers: tuple[Peer, ...] = ()
    reference: Callable[..., Any] | None = None
    bytes: float = 0
    flops: float = 0
    backward: bool = False
    backward_bytes: float = 0
    backward_flops: float = 0
    family: str = "kernels"


def found(tiny: bool) -> tuple[list[Case], dict[str, Exception]]:
    """The cases of every family, and the families that could not be imported, with the reason."""
    cases: list[Case] = []
    failed: dict[str, Exception] = {}
    for path in sorted(Path(__file__).parent.glob("gpu_cases_*.py")):
        try:
            cases += importlib.import_module(f"benchmarks.{path.stem}").cases(tiny)
        except Exception as fault:  # one family that is broken leaves the others
            failed[path.stem] = fault
    return cases, failed
