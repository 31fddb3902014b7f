"""The decoders of a model: made for a plan when it is first asked for, lent to one call at a time, the last ones kept with the model."""
from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from archdsl.decoding.decoder import CudaGraph, Decoder, Plan, places, precision
from archdsl.kernels.bindings import KernelError
from archdsl.lower.forms import sibling
from archdsl.lower.state import device_of
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule

RECORDINGS: dict[str, Any] = {"cuda": CudaGraph}
"""How work is recorded, by the type of device."""
KEPT = 2
"""Decoders that a model keeps while no call has them: each holds a state with room for its plan."""
ROOM, NEW = 256, 64
"""Room for positions, and for new tokens, in multiples of these, so that calls of about one length share a decoder."""
LARGEST = 64
"""Rows up to which batches share decoders whose rows are powers of two; beyond, they are multiples of it."""
TRIES = 2
"""After how many failures a step counts as one that cannot be recorded: the first may be that of a moment."""


@record(frozen=True)
class Refusal:
    """That no decoder could be made: how often, with which weights."""

    weights: tuple[Any, ...]
    times: int


def plan_for(model: ArchModule, batch: int, prompt: int, new: int, draw: tuple[Any, ...], eos: tuple[int, ...], seeded: bool, compiled: bool,
             needed: bool, memories: torch.dtype | None = None) -> Plan | None:
    """The plan of a call, or None where the device has no recordings. `needed`: raises RuntimeError instead, as `compiled` does."""
    device = device_of(model).type
    if device not in RECORDINGS:
        if needed or compiled or memories is not None:
            option = "compiled" if compiled else "state_dtype"
            what = "s" if needed else f"`{option}` is of a recorded step, s"
            raise RuntimeError(f"generate: {what}teps are recorded on {' and '.join(RECORDINGS)}, and this model lies on {device}")
        return None
    longest = sibling(model, "step").__dict__["_streamed"].longest
    room = -(-(prompt + new) // ROOM) * ROOM
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    batch = batch if draw[0] else rows_for(batch)  # random numbers are drawn for the rows that are there
    return Plan(batch, room if longest is None else min(room, longest), -(-new // NEW) * NEW, draw, eos, seeded, compiled, autocast,
                precision(), memories)


def rows_for(batch: int) -> int:
    """The rows of the decoder of a batch: at most twice as many."""
    return 1 << (batch - 1).bit_length() if batch <= LARGEST else -(-batch // LARGEST) * LARGEST


def lent(model: ArchModule, plan: Plan, needed: bool) -> Decoder | None:
    """A decoder for a plan, that no other call has until it is given back; None where the step cannot be recorded, which is warned of with the
    reason. `needed`: raises RuntimeError instead, of a new try; torch.OutOfMemoryError as it is."""
    known = _known(model)
    found = known.pop(plan, None)
    if isinstance(found, Decoder):
        return found
    times = 0 if found is None else found.times
    if times >= TRIES and not needed:
        known[plan] = Refusal(places(model), times)
        return None
    _make_room(known)
    try:
        return _made(model, plan, known)
    except (RuntimeError, KernelError) as fault:
        if not isinstance(fault, torch.OutOfMemoryError):  # there may be memory the next time
            known[plan] = Refusal(places(model), times + 1)
        elif needed:
            raise
        reason = f"{type(fault).__name__}: {str(fault).strip()}"
        if needed:
            raise RuntimeError(f"generate: the step of this model cannot be recorded: {reason}") from fault
        warnings.warn(f"generate: the step of this model cannot be recorded, so it runs op by op: {reason}", stacklevel=4)
        return None


def give_back(model: ArchModule, decoder: Decoder) -> None:
    """Keeps a decoder for the next call of its plan."""
    decoder.leave()
    known = _known(model)
    known.pop(decoder.plan, None)  # a call at the same time had another
    _make_room(known)
    known[decoder.plan] = decoder


def forget_moved(model: ArchModule) -> None:
    """Drops the decoders, with their state, that read weights where they no longer are."""
    known = _known(model)
    if known:
        here = places(model)
        for plan in [p for p, d in list(known.items()) if d.weights != here]:
            known.pop(plan, None)


def _made(model: ArchModule, plan: Plan, known: dict[Plan, Decoder | Refusal]) -> Decoder:
    recording = RECORDINGS[device_of(model).type]
    try:
        return Decoder(model, plan, recording)
    except torch.OutOfMemoryError:
        if not known:
            raise
        known.clear()  # those that lie idle hold memory
    return Decoder(model, plan, recording)


def _make_room(known: dict[Plan, Any]) -> None:
    for oldest in list(known)[:max(len(known) - KEPT + 1, 0)]:
        known.pop(oldest, None)


def _known(model: ArchModule) -> dict[Plan, Decoder | Refusal]:
    return model.__dict__.setdefault("_decoders", {})
