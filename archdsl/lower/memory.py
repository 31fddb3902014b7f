"""Whether a model's weights fit into this machine, or the card: asked before the first is allocated."""

from __future__ import annotations

import math
import os
from typing import Any

from archdsl.diagnostics.model import Label, error
from archdsl.graph import FLOATS, Graph
from archdsl.source import Source, Span

_BYTES = {"f64": 8, "int": 8, "i64": 8, "f32": 4, "i32": 4, "bf16": 2, "f16": 2, "bool": 1, "i8": 1, "u8": 1}
LARGEST = 2**60  # numbers of a tensor: its bytes are counted in an int64


def physical() -> int | None:
    """Bytes of main memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def weight_bytes(graph: Graph, dtype: Any) -> int:
    """Of all parameters and buffers in a build with this float type of torch."""
    own = dtype.itemsize
    total = 0
    for _, p in graph.parameters():
        each = own if p.type.dtype == "float" else max(own, _BYTES[p.type.dtype]) if p.type.dtype in FLOATS else _BYTES[p.type.dtype]
        total += math.prod(p.sizes) * each
    return total


def fits(graph: Graph, device: Any, dtype: Any, span: Span) -> None:
    """Raises A0518 for what is no device of this machine, A0515 for weights that are larger than the memory of the CPU or of the card they would lie
    in, and on any device for one that no tensor can hold."""
    is_device(device, span)
    for address, p in graph.parameters() if graph.largest_weight >= LARGEST else ():
        if math.prod(p.sizes) >= LARGEST:
            raise error("A0515", f"the weight `{address}` of `{graph.name}` has {math.prod(p.sizes):,} numbers", span, "no tensor has so many")
    from archdsl.lazy import torch
    from archdsl.lower.build import float_type

    room = _room(device)
    if room is not None and (needed := weight_bytes(graph, float_type(dtype))) > room:
        whose = "this machine" if str(device).partition(":")[0] == "cpu" else f"`{device}`"
        narrow = weight_bytes(graph, torch.bfloat16)
        help = ('`device = "meta"` builds it without storage, `archdsl cost` counts without building',)
        if narrow <= room:
            help = (f"`dtype = torch.bfloat16`: {narrow / 1e9:,.1f} GB", *help)
        raise error("A0515", f"the weights of `{graph.name}` take {needed / 1e9:,.1f} GB, {whose} has {room / 1e9:,.1f}", span,
                    "too large to build here", help=help)


def _room(device: Any) -> int | None:
    """Bytes of the memory that weights on a device lie in, None where nobody says, and where a fake mode makes weights that lie nowhere."""
    from torch._guards import active_fake_mode

    from archdsl.lazy import torch

    kind = str(device).partition(":")[0]
    if active_fake_mode() is not None:
        return None
    if kind == "cuda":
        return torch.cuda.get_device_properties(device).total_memory if torch.cuda.is_available() else None
    return physical() if kind == "cpu" else None


def is_device(device: Any, span: Span) -> None:
    """Raises A0518 for what is no device of this machine: torch, which alone knows them, is asked for an empty tensor there; A0515 for a card
    without any memory left."""
    from archdsl.lazy import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as fault:
        if "out of memory" in str(fault):
            raise error("A0515", f"`{device}` has no memory left", span, "not even an empty tensor can be made there",
                        help="other programs hold it: `nvidia-smi` shows them") from fault
        raise error("A0518", f"`{device}` is no device of this machine", Span(Source("<device>", str(device)), 0, len(str(device))), "cannot be used",
                    labels=(Label(span, "the model"),),
                    help='`"cpu"`, `"cuda"` or `"cuda:1"` where there is such a card, `"meta"` for a model without storage') from fault
