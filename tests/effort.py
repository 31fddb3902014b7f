"""How much work something is, the same on any machine and whatever else runs there: for tests of what must not take long."""
from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def calls(work: Callable[[], Any]) -> int:
    """How many calls of functions `work` makes in this thread, those of C counted too. What is raised passes through. Nobody looks for garbage
    meanwhile: what earlier tests have left would be finalised here, or elsewhere."""
    count = 0

    def seen(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        if event == "call" or event == "c_call":
            count += 1

    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()
    return count
