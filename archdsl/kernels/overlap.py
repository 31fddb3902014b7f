# pyright: reportAttributeAccessIssue=false
"""Launches that begin while the one in front of them ends (programmatic dependent launch, from Hopper on).

A kernel of such a launch calls `follow` before it reads what an earlier launch wrote and before it writes anything: behind it the launch in front has
ended, and, as that one waited too, all before it have. What it reads earlier are weights, which no launch of a step writes. `follow` lets the next
launch begin at once: its programs take the places of those that end, and read their weights meanwhile.

Source: CUDA C++ programming guide, programmatic dependent launch and synchronization."""
from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from archdsl.kernels.chunks import INTERPRETED

OVERLAP: bool | None = None
"""None: where the card can; False: nowhere."""


@triton.jit
def follow(WAIT: tl.constexpr):
    if WAIT:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


def overlapping() -> dict[str, Any]:
    """What a launch is told, for a kernel with `WAIT`."""
    return {"WAIT": True, "launch_pdl": True} if _can() else {"WAIT": False}


def _can() -> bool:
    if INTERPRETED.value or OVERLAP is False:
        return False
    target: Any = triton.runtime.driver.active.get_current_target()
    return target.backend == "cuda" and target.arch >= 90
