"""Devices that decoding is timed for: how fast they read memory and multiply, as their makers say. Free of torch."""
from __future__ import annotations

from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.records import record
from archdsl.source import Source, Span


@record(frozen=True)
class Device:
    """`bandwidth`: bytes a second from main memory. `flops`: operations a second by element type, dense, without sparsity; a multiply-accumulate is
    two. `source`: where the figures stand."""

    name: str
    title: str
    bandwidth: float
    flops: dict[str, float]
    source: str


def _gpu(name: str, title: str, bandwidth: float, half: float, single: float, double: float, source: str) -> Device:
    return Device(name, title, bandwidth, {"bf16": half, "f16": half, "f32": single, "f64": double}, source)


DEVICES = {d.name: d for d in (
    _gpu("h100-sxm", "NVIDIA H100 SXM, 80 GB", 3.35e12, 989.4e12, 66.9e12, 66.9e12, "NVIDIA H100 Tensor Core GPU architecture, tables 1 and 2"),
    _gpu("h200-sxm", "NVIDIA H200 SXM, 141 GB", 4.8e12, 989.4e12, 66.9e12, 66.9e12, "NVIDIA H200 data sheet"),
    _gpu("a100-sxm-80gb", "NVIDIA A100 SXM, 80 GB", 2.039e12, 312e12, 19.5e12, 19.5e12, "NVIDIA A100 data sheet"),
    _gpu("a100-sxm-40gb", "NVIDIA A100 SXM, 40 GB", 1.555e12, 312e12, 19.5e12, 19.5e12, "NVIDIA A100 data sheet"),
    # 12 channels of DDR5-4800; 96 cores at 2.4 GHz, each with two fused multiply-adds of 256 bits a cycle, in bf16 and f32 alike for torch's kernels
    Device("epyc-9654", "AMD EPYC 9654, one socket", 460.8e9, {"bf16": 7.37e12, "f16": 7.37e12, "f32": 7.37e12, "f64": 3.69e12},
           "AMD EPYC 9654 product page; base clock times the width of Zen 4"),
)}


def device(name: str) -> Device:
    """The device of that name. Raises ArchError A0646."""
    if name not in DEVICES:
        raise error("A0646", f"no device `{name}` is known", Span(Source("--device", name), 0, len(name)), "not known",
                    help=did_you_mean(name, DEVICES) or (f"it is one of {', '.join(DEVICES)}",))
    return DEVICES[name]
