"""Kernels compiled for a Hopper card on a machine without one: what a call would launch is compiled, and nothing runs.

`python -m tests.kernels.offline scalar_decay …` calls `launches()` of `tests/kernels/test_scalar_decay.py`, …, and prints what each kernel takes of a
multiprocessor. `launches()` yields (name, call): the call is a kernel's function applied to tensors on the meta device. Run it with the Triton of the
card; `TRITON_INTERPRET` must not be set.
"""
from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

SHARED = 227 * 1024
"""Bytes of shared memory that one program may have on a Hopper card."""


@dataclass
class Compiled:
    """One compiled kernel. `registers` a thread, `spilled` bytes of a thread, `shared` bytes of a program; `miscompiled`: products by wgmma with
    their left operand in registers (see `archdsl.kernels.chunks.generation`)."""

    call: str
    kernel: str
    constants: str
    warps: int
    stages: int
    registers: int
    spilled: int
    shared: int
    miscompiled: int

    def __str__(self) -> str:
        return (f"{self.call:<44} {self.kernel:<28} warps {self.warps} stages {self.stages}  registers {self.registers:3}  spilled {self.spilled:5}  "
                f"shared {self.shared / 1024:6.1f} KiB  {self.constants}{f'  WGMMA IN REGISTERS {self.miscompiled}' if self.miscompiled else ''}")


class _Driver:
    """What Triton asks of a card before it compiles."""

    def __init__(self, target: Any):
        self.get_current_target = lambda: target
        self.get_current_device = lambda: 0
        self.get_current_stream = lambda device: 0
        self.get_device_interface = None


@contextmanager
def _compiling(found: Callable[..., None]) -> Iterator[None]:
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    run: Any = JITFunction.run

    def warm(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        made = run(self, *args, grid=grid, warmup=True, **kwargs)
        found(self, made, kwargs)
        return made

    before: Any = driver._active
    driver.set_active(_Driver(GPUTarget("cuda", 90, 32)))  # type: ignore[arg-type]
    JITFunction.run = warm
    try:
        yield
    finally:
        JITFunction.run = run
        driver._active = before


def compiled(calls: Iterable[tuple[str, Callable[[], Any]]]) -> list[Compiled]:
    """What the calls would launch, each kernel once. Raises whatever the compiler does, with the call's name in front."""
    assert os.environ.get("TRITON_INTERPRET") != "1", "kernels are compiled in a process without TRITON_INTERPRET"
    results: list[Compiled] = []
    seen: set[Any] = set()
    now = ""

    def found(function: Any, made: Any, kwargs: dict[str, Any]) -> None:
        if made is None or made.hash in seen:
            return
        seen.add(made.hash)
        registers, spilled = _resources(made.asm["ptx"])
        constants = " ".join(f"{k}={v}" for k, v in kwargs.items() if k.isupper())
        results.append(Compiled(now, function.__name__, constants, made.metadata.num_warps, made.metadata.num_stages, registers, spilled,
                                made.metadata.shared, _in_registers(made.asm["ttgir"])))

    with _compiling(found):
        for name, call in calls:
            now = name
            try:
                call()
            except Exception as fault:
                fault.add_note(f"in {name}")
                raise
    return results


def _in_registers(text: str) -> int:
    """Products by wgmma whose left operand is a tensor in registers, and no view of shared memory."""
    return sum("warp_group_dot " in line and " : tensor<" in line for line in text.splitlines())


def _resources(ptx: str) -> tuple[int, int]:
    """Registers of a thread, and bytes that it spills."""
    from triton import knobs

    path: Any = knobs.nvidia.ptxas
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [path.path, "-v", "--gpu-name", "sm_90a", file.name, "-o", os.devnull]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spills = re.search(r"(\d+) bytes spill stores", said)
    used = re.search(r"Used (\d+) registers", said)
    assert spills and used, said
    return int(used[1]), int(spills[1])


def main(families: list[str]) -> int:
    import triton

    print(f"Triton {triton.__version__}, sm_90")
    worst = miscompiled = 0
    for family in families:
        for one in compiled(import_module(f"tests.kernels.test_{family}").launches()):
            print(one, flush=True)
            worst, miscompiled = max(worst, one.shared), miscompiled + one.miscompiled
    return int(worst > SHARED or miscompiled > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
