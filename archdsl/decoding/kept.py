"""The decoders of a model: made for a plan when it is first asked for, the last ones kept with the model."""
from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from archdsl.decoding.decoder import CudaGraph, Decoder, Plan, places
from archdsl.lower.forms import sibling
from archdsl.lower.state import device_of

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule

RECORDINGS: dict[str, Any] = {"cuda": CudaGraph}
"""How work is recorded, by the type of device."""
KEPT = 2
"""Decoders that a model keeps: each holds a state with room for its plan."""
ROOM, NEW = 256, 64
"""Room for positions, and for new tokens, in multiples of these, so that calls of about one length share a decoder."""


def decoder_for(model: ArchModule, batch: int, prompt: int, new: int, draw: tuple[Any, ...], eos: tuple[int, ...], seeded: bool, compiled: bool,
                needed: bool) -> Decoder | None:
    """The decoder for a call, or None where nothing is recorded: the device has no recordings, or the step cannot be recorded, which is warned
    of with the reason. `needed`: raises RuntimeError instead."""
    device = device_of(model).type
    if device not in RECORDINGS:
        if needed:
            raise RuntimeError(f"generate: steps are recorded on {' and '.join(RECORDINGS)}, and this model lies on {device}")
        return None
    longest = sibling(model, "step").__dict__["_streamed"].longest
    room = -(-(prompt + new) // ROOM) * ROOM
    plan = Plan(batch, room if longest is None else min(room, longest), -(-new // NEW) * NEW, draw, eos, seeded, compiled)
    known: dict[Plan, Decoder | str] = model.__dict__.setdefault("_decoders", {})
    found = known.pop(plan, None)
    if isinstance(found, Decoder) and found.weights != places(model):  # they were moved since
        found = None
    if found is None:
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        try:
            found = Decoder(model, plan, RECORDINGS[device])
        except (RuntimeError, NotImplementedError) as fault:
            found = f"{type(fault).__name__}: {str(fault).strip()}"
            if not needed:
                warnings.warn(f"generate: the step of this model cannot be recorded, so it runs op by op: {found}", stacklevel=5)
    known[plan] = found
    if isinstance(found, str):
        if needed:
            raise RuntimeError(f"generate: the step of this model cannot be recorded: {found}")
        return None
    return found

