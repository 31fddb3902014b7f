"""What computes each op of a recorded step, and why not another: a step without numbers is run once, and its calls are looked at."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from archdsl.decoding.bodies import not_in_place
from archdsl.decoding.choice import described
from archdsl.decoding.decoder import FEW, rewrite_for
from archdsl.decoding.stages import staged
from archdsl.dims import evaluate
from archdsl.graph import TensorType
from archdsl.kernels.bindings import REFERENCE, bindings, choose
from archdsl.kernels.running import named
from archdsl.kernels.target import Target
from archdsl.lower.build import float_type, lower
from archdsl.lower.compile import layers
from archdsl.ops.registry import LENGTH
from archdsl.ops.rules import torch_dtype
from archdsl.reports.work import program
from archdsl.streaming.model import Source

Told = tuple[str, str, str, str]
"""Address of the block, op, kernel, why those in front of it are not taken."""


def told(source: Source, rows: int, sizes: Mapping[str, int], device: str, dtype: str) -> tuple[list[Told], str | None]:
    """What computes the ops of a step of `rows` rows on a device, for floats of type `dtype`, with room for as many positions as `sizes` say; and
    what else there is to say. The first result, logits, is drawn from greedily. Raises ArchError A0501 for a model without the form `step`."""
    kind = float_type(dtype)
    step = lower(source.graph, device="meta", dtype=kind, form="step", source=source, made_for=Target(device, caches="in_place"))
    streamed = step.__dict__["_streamed"]
    root, stages = staged(step, rewrite_for(rows))
    known = {**sizes, streamed.axis: 1, LENGTH: min(sizes[streamed.axis], streamed.longest or sizes[streamed.axis])}
    if streamed.batch is not None:
        known[str(streamed.batch)] = rows

    def empty(t: TensorType) -> torch.Tensor:
        return torch.empty([evaluate(n, known) for n in t.shape], dtype=torch_dtype(t.dtype, kind), device="meta")

    seen = _Seen(device)
    for (address, _), stage in zip(layers(step), stages, strict=True):
        stage.register_forward_pre_hook(lambda *_, address=address: seen.enter(address))
        stage.register_forward_hook(lambda *_: seen.enter(""))
    given = [empty(v.type) for v in streamed.graph.inputs[:len(streamed.takes)]]
    with torch.no_grad(), seen:
        y = root.eval()(*given, {s.address: empty(s.type) for s in streamed.slots})[0]
        y = y[0] if isinstance(y, tuple) else y
        if y.dim() == 3:
            ids, flags = torch.zeros(rows, dtype=torch.int64, device="meta"), torch.zeros(rows, dtype=torch.bool, device="meta")
            torch.ops.archdsl.decode_take(y[:, -1], ids, flags, ids[:0], ids[:, None], ids)
    left: list[Told] = []
    for work in program(streamed.graph, known).works:
        why = None
        if work.op == "latent_attention_extend":
            why = "it keeps keys and values apart, and here values are part of the keys"
        elif work.op == "attention_extend":
            why = not_in_place(work.attrs["mask"], work.args.get("bias") is not None, work.attrs["rolling"], len(work.args["q"].shape))
        if why is not None:
            left.append((work.path, work.op, REFERENCE, f"decode_attention: {why}"))
    return [*seen.calls, *left], f"linear maps of {rows} rows are not joined, {FEW} are the most" if rows > FEW else None


class _Seen(TorchDispatchMode):
    """Notes the calls of torch ops of ours that have kernels."""

    def __init__(self, device: str):
        super().__init__()
        self.device, self.address = device, ""
        self.calls: list[Told] = []

    def enter(self, address: str) -> None:
        self.address = address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("archdsl::")
        if func.namespace == "archdsl" and bindings(name):
            names, tensors, attributes = described(name, args)
            asked = attributes.pop("chosen", None)
            operands = named(names, tensors)
            first = next(t.dtype for t in operands.values() if t is not None)
            found = choose(name, self.device, first, operands, attributes, asked=None if asked == "auto" else asked, installed=False)
            self.calls.append((self.address, name, found.name, "; ".join(f"{kernel}: {why}" for kernel, why in found.reasons.items())))
        return func(*args, **(kwargs or {}))
