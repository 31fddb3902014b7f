"""Measuring: what a call takes on a device, several of them in turns, so that what slows the machine for a while slows all alike."""
from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from archdsl.lazy import torch
from archdsl.lower.plan import Definition
from archdsl.records import record
from archdsl.search.evaluators.device import torch_device
from archdsl.search.latency.pieces import Given

WARM = 3  # calls before any is timed
SLICE = 1e-3  # seconds that a sample of queued calls lasts, and that samples of short calls take together
MOST = 1000  # calls of one sample


@record(frozen=True)
class Measured:
    """Seconds of one call: the median over samples. `spread`: the distance of the quartiles, relative to it."""

    seconds: float
    spread: float


class Bench:
    """Runs pieces on one device in one element type. Raises ArchError A0816 for a device that is not there, A0644 for no float type."""

    def __init__(self, device: str, dtype: str) -> None:
        from archdsl.lower.build import float_type

        self.device, self.dtype = torch_device(device), float_type(dtype)

    @property
    def name(self) -> str:
        """The device as its maker calls it; a CPU with the number of threads that torch uses."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "cpu":
            return f"{cpu_name()}, {torch.get_num_threads()} threads"
        return str(self.device)

    def ready(self, made: Definition, inputs: Sequence[Given]) -> Callable[[], Any]:
        """A call of a definition by itself, weights and inputs random. Those of a state come behind the others, as one dict."""
        from archdsl.lower.build import instance

        module = instance(made, self.device, self.dtype).eval()
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for t in (*module.parameters(), *(b for n, b in module.named_buffers() if _is_weight(module, n))):
                if t.is_floating_point():  # statistics are positive, scales near 1: nothing overflows or is denormal
                    t.copy_(0.02 * torch.randn(t.shape, generator=draw) if t.dim() > 1 else 0.5 + torch.rand(t.shape, generator=draw))
                else:
                    t.zero_()
        args: list[Any] = [self._input(g, draw) for g in inputs]
        if made.state:
            own = len(args) - len(made.state)
            args = [*args[:own], dict(zip(made.state, args[own:]))]
        return lambda: module(*args)

    def _input(self, g: Given, draw: Any) -> Any:
        """A random tensor; whole numbers of no known range are 0, which any table has."""
        if g.size is not None:
            return g.size
        from archdsl.ops.rules import torch_dtype

        dtype = torch_dtype(g.dtype, self.dtype)
        if dtype == torch.bool:
            return (torch.rand(g.shape, generator=draw) < 0.5).to(self.device)
        if not dtype.is_floating_point:
            low, high = g.range or (0, 0)
            return torch.randint(low, high + 1, g.shape, generator=draw).to(self.device, dtype)
        return torch.randn(g.shape, generator=draw).to(self.device, dtype)

    def in_turns(self, calls: Sequence[Callable[[], Any]], wanted: Sequence[int], repeats: int) -> list[Measured]:
        """What each of the wanted calls takes while all run one after another, as the parts of a model do: so each finds the caches as the others
        leave them. Without gradients, behind turns that do not count."""
        with torch.inference_mode():
            turn = self._warm(lambda: [call() for call in calls])
            samples: list[list[float]] = [[] for _ in calls]
            counts = [self._count(call) for call in calls]
            for _ in range(repeats * (1 if self.queued else _more(turn))):
                for at, call in enumerate(calls):
                    samples[at].append(self._time(call, counts[at]))
        return [_summary(samples[at]) for at in wanted]

    def by_itself(self, calls: Sequence[Callable[[], Any]], repeats: int) -> list[Measured]:
        """What each call takes while it runs again and again, in turns of some calls of each, of which the first does not count."""
        with torch.inference_mode():
            more = [_more(self._warm(call)) for call in calls]
            samples: list[list[float]] = [[] for _ in calls]
            for _ in range(repeats):
                for at, call in enumerate(calls):
                    self._time(call, 1)
                    n = self._count(call)
                    samples[at] += [self._time(call, n) for _ in range(1 if self.queued else more[at])]
        return [_summary(found) for found in samples]

    @property
    def queued(self) -> bool:
        """Whether calls return before the device is done: several are timed together then, and waited for once."""
        return self.device.type == "cuda"

    def _warm(self, call: Callable[[], Any]) -> float:
        """Seconds of a call that is not the first."""
        for _ in range(WARM):
            self._time(call, 1)
        return self._time(call, 1)

    def _count(self, call: Callable[[], Any]) -> int:
        """So many calls make a sample."""
        return min(MOST, max(1, round(SLICE / max(self._time(call, 2), 1e-9)))) if self.queued else 1

    def _time(self, call: Callable[[], Any], n: int) -> float:
        self._wait()
        start = time.perf_counter()
        for _ in range(n):
            call()
        self._wait()
        return (time.perf_counter() - start) / n

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _more(seconds: float) -> int:
    """So many samples instead of one, for what takes so long."""
    return min(20, max(1, round(SLICE / max(seconds, 1e-9))))


def _is_weight(module: Any, name: str) -> bool:
    """Whether a buffer is one of the text, not a table that was computed when the module was built."""
    owner = module.get_submodule(name.rpartition(".")[0])
    return not (name.rpartition(".")[2].startswith("_") and name.rpartition(".")[2] in owner._non_persistent_buffers_set)


def _summary(samples: list[float]) -> Measured:
    ordered, n = sorted(samples), len(samples)
    middle = median(ordered)
    return Measured(middle, (ordered[(3 * n) // 4 if n > 1 else 0] - ordered[n // 4]) / middle if middle else 0.0)


def empty() -> Callable[[], Any]:
    """A call of a module that does nothing: what calling takes."""
    module, x = torch.nn.Identity(), torch.zeros(1)
    return lambda: module(x)


def cpu_name() -> str:
    """The processor as the system calls it."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
