"""What is known of the processor, for kernels that are quicker on one than on another."""
from __future__ import annotations

import platform
from functools import cache


@cache
def vendor() -> str:
    """Who made the processor, as it says itself (`AuthenticAMD`, `GenuineIntel`); empty where the system does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as told:
            return next((line.partition(":")[2].strip() for line in told if line.startswith("vendor_id")), "")
    except OSError:
        return platform.processor().rpartition(",")[2].strip()  # Windows: `AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD`


@cache
def mkl_is_slow() -> str | None:
    """None where torch's products in float32 are those of MKL and take about twice as long as oneDNN's, by the same instructions: on processors of
    AMD with AVX-512. Else why oneDNN is not known to be quicker."""
    from archdsl.lazy import torch

    if not torch.backends.mkl.is_available():
        return "torch's products are not MKL's here: beside others it has not been measured"
    if vendor() != "AuthenticAMD":
        return f"it is quicker than MKL on AMD's processors, not known to be on this one ({vendor() or platform.machine()})"
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return "it has been measured with AVX-512 alone, which this processor does not have"
    return None
