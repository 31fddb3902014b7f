"""How the learning rate changes: a factor that is a pure function of the step, so that a resumed training has the same."""
from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
SCHEDULES = ("constant", "linear", "cosine")


def schedule(name: str, steps: int, warmup: int = 0) -> Schedule:
    """The factor at each step, from 0 up. It rises linearly over `warmup` steps (the first has 1 / warmup), then stays (`constant`) or falls to 0
    behind the last of `steps` (`linear`, `cosine`). Raises ValueError for another name."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule is one of {', '.join(SCHEDULES)}, not {name!r}")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[name]

    return factor
