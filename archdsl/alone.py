"""One thread at a time reads, checks, elaborates and lowers. These steps share what makes them quick, within a spec and between specs: definitions,
sizes, tables, classes. All of it is Python, so several threads would not be sooner done.

A model's calls, and what torch compiles of it, take the lock where a class gets its code and at no other time. Nothing takes it while it is imported:
two threads could wait for each other. A process is forked when no other thread has it: the child would wait for one that it does not have.
"""
from __future__ import annotations

import os
from _thread import RLock  # without `threading`, which a check does not need
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
ALONE = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=ALONE.acquire, after_in_parent=ALONE.release, after_in_child=ALONE.release)


def alone(f: Callable[P, T]) -> Callable[P, T]:
    """`f`, which one thread at a time runs; it may call such functions itself."""
    @wraps(f)
    def runs(*args: P.args, **kwargs: P.kwargs) -> T:
        with ALONE:
            return f(*args, **kwargs)

    return runs


__all__ = ["ALONE", "alone"]
