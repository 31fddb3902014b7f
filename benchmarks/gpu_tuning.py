"""How peers' kernels are tuned in less time. flash-linear-attention compiles its kernels with dozens of configurations each, one after the other, and
runs each of these for an eighth of a second: 100 to 300 s before a first step."""
from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def untuned() -> Iterator[None]:
    """Each kernel with the first of its configurations that the card takes: for numbers, not for speed."""
    from triton.runtime.autotuner import Autotuner, OutOfResources

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.nargs = dict(zip(self.arg_names, args))
        refused: Exception | None = None
        for config in self.prune_configs(kwargs):
            given = {**kwargs, **config.all_kwargs()}
            if config.pre_hook is not None:
                config.pre_hook({**self.nargs, **given})
            try:
                return self.fn.run(*args, **given)
            except OutOfResources as fault:
                refused = fault
        assert refused is not None
        raise refused

    with _instead(Autotuner, "run", run):
        yield


@contextmanager
def tuned_at_once(threads: int = os.cpu_count() or 1) -> Iterator[None]:
    """All configurations, compiled side by side and timed for 15 ms each: the fastest is taken, as ever."""
    from triton.runtime import _async_compile
    from triton.runtime.autotuner import Autotuner
    from triton.testing import do_bench

    pruned = Autotuner.prune_configs

    def prune(self: Any, kwargs: dict[str, Any]) -> Any:
        configs = pruned(self, kwargs)
        args = [self.nargs[n] for n in self.arg_names if n in self.nargs]
        with _async_compile.AsyncCompileMode(pool, ignore_errors=True):
            for config in configs:
                self.fn.run(*args, **{**kwargs, **config.all_kwargs(), "warmup": True})
        self._do_bench = lambda call, quantiles: do_bench(call, warmup=5, rep=15, quantiles=quantiles)
        return configs

    with ThreadPoolExecutor(threads) as pool, _instead(Autotuner, "prune_configs", prune):
        yield


@contextmanager
def exact() -> Iterator[None]:
    """Products of float32 that are left to Triton's defaults are those of float32, not of 10 bits."""
    from triton import knobs

    before = knobs.language.fp32_default
    knobs.language.fp32_default = "ieee"
    try:
        yield
    finally:
        knobs.language.fp32_default = before


@contextmanager
def _instead(of: Any, name: str, made: Any) -> Iterator[None]:
    before = getattr(of, name)
    setattr(of, name, made)
    try:
        yield
    finally:
        setattr(of, name, before)
