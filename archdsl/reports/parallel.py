"""A plan for several devices, found on the graph: what each holds a part of, what is a sum still to be taken over devices, and where it is taken.

Products with weights are split in pairs, as in Megatron-LM (arxiv 1909.08053): the first by its outputs, the last by its inputs, whose results are
sums over devices. A pair is split only where everything between treats the split axis part by part. Where a loop of the model already stands for
devices (`lanes`, its label), no pair is split: what a pass of it owns is on that device, and a sum across passes is a sum over devices.
"""
from __future__ import annotations

from itertools import pairwise
from typing import Literal

from archdsl.ops.registry import find
from archdsl.records import field, record
from archdsl.reports.work import Program, Tensor, Work

Kind = Literal["whole", "part", "sum", "lane"]


@record(frozen=True)
class State:
    """`whole`: the same on every device; `part`: each has its part of an axis (`at`); `sum`: devices have summands; `lane`: device `at` alone."""

    kind: Kind
    at: int = 0


WHOLE, SUM = State("whole"), State("sum")


@record(slots=False)
class Plan:
    """`split`: works of which each device does its share; `reduced`: tensors that are summed over the devices (or gathered from them); `local`:
    operands (work, tensor) that are read as they are on each device, before that; `lane`: works of one device alone. `devices`: how many."""

    devices: int
    state: dict[Tensor, State] = field(default_factory=dict)
    split: set[Work] = field(default_factory=set)
    reduced: dict[Tensor, None] = field(default_factory=dict)
    local: set[tuple[Work, Tensor]] = field(default_factory=set)
    lane: dict[Work, int] = field(default_factory=dict)


def plan(found: Program, devices: int, lanes: str | None) -> Plan:
    """The plan for a program; `devices` gives way to the number of passes of the loop `lanes`, where the model has it."""
    count = passes(found, lanes)
    return _Planner(found, Plan(count or devices), lanes if count else None).plan()


def passes(found: Program, label: str | None) -> int:
    """How many passes of the labelled loop own weights."""
    return len({n for w in found.works if w.op == "param" and (n := _pass(w.path, label)) is not None})


def _pass(address: str, label: str | None) -> int | None:
    """The number of the pass of the labelled loop that an address lies in."""
    names = address.split(".")
    return next((int(b) for a, b in pairwise(names) if a == label and b.isdecimal()), None)


# ---------------------------------------------------------------- along one axis
def carried(work: Work, name: str, operand: Tensor, axis: int, devices: int) -> tuple[int, ...] | Literal["sum"] | None:
    """Where an axis of an operand that is split among devices lies in each result; "sum" where results become sums over devices; None where the op
    needs the whole axis. No result at all has it where the op reads the operand's type alone."""
    op, rank, out = find(work.op), len(operand.shape), len(work.types[0].shape)
    if op is None:
        return None
    if name == "like":
        return ()
    if op.body.__module__ == "archdsl.ops.pointwise" or work.op in ("dropout", "drop_path", "as_type"):
        return (axis + out - rank,) if operand.shape[axis] == work.types[0].shape[axis + out - rank] else None
    if work.op == "linear":
        return None if name != "x" else "sum" if axis == rank - 1 else (axis,)
    if work.op in ("attention", "attention_weights", "attend"):
        return (axis + out - rank,) if axis <= rank - 3 and operand.shape[axis] % devices == 0 else None
    if work.op in ("layer_norm", "rms_norm", "softmax", "log_softmax", "l2_norm"):
        return (axis,) if axis != work.attrs.get("axis", -1) % rank and name == "x" else None
    if work.op == "rearrange":
        return _rearranged(work, axis, devices)
    if work.op in ("concat", "split"):
        return (axis,) * len(work.types) if axis != work.attrs["axis"] % rank else None
    return _sliced(work, axis) if work.op == "slice" else None


def _rearranged(work: Work, axis: int, devices: int) -> tuple[int, ...] | None:
    """The axis that starts with the outermost factor of the split one."""
    sizes = work.attrs["sizes"]
    lead = next((a for a in work.attrs["ins"][axis] if sizes[a] > 1), None)
    for i, group in enumerate(work.attrs["outs"]):
        if lead is not None and next((a for a in group if sizes[a] > 1), None) == lead and sizes[lead] % devices == 0:
            return (i,)
    return None


def _sliced(work: Work, axis: int) -> tuple[int, ...] | None:
    own = at = 0
    for kind, *rest in work.attrs["items"]:
        if kind == "new":
            at += 1
            continue
        if own == axis:
            return (at,) if kind == "slice" and all(r is None for r in rest) else None
        own, at = own + 1, at + (kind == "slice")
    return (at + axis - own,)


_LINEAR = ("neg", "identity", "dropout", "drop_path", "as_type", "cast", "rearrange", "slice")
"""Ops of one tensor that may as well be applied to each device's summand."""


class _Planner:
    def __init__(self, found: Program, made: Plan, lanes: str | None):
        self.found, self.made, self.lanes = found, made, lanes
        self.users: dict[Tensor, list[tuple[Work, str]]] = {}
        for w in found.works:
            for name, t in w.operands:
                self.users.setdefault(t, []).append((w, name))

    def plan(self) -> Plan:
        for w in self.found.works:
            states = self._work(w)
            self.made.state.update(zip(w.results, states))
            if states and states[0].kind == "lane" and w.op != "param":
                self.made.lane[w] = states[0].at
        for t in self.found.outputs:
            self._whole(t)
        return self.made

    def _whole(self, t: Tensor) -> State:
        """The state of a tensor for those who need all of it."""
        if self.made.state[t].kind == "sum":
            self.made.reduced[t] = None
            return WHOLE
        return self.made.state[t]

    def _work(self, w: Work) -> list[State]:
        if w.op in ("input", "param"):
            own = _pass(w.path, self.lanes) if w.op == "param" else None
            return [State("lane", own) if own is not None else WHOLE]
        if self._sums(w):
            self._local(w)
            return [SUM]
        states = {t: self._whole(t) for _, t in w.operands}
        lanes = {s.at for s in states.values() if s.kind == "lane"}
        if len(lanes) > 1:
            if w.op in ("add", "sub"):
                self._local(w)
                return [SUM]
            return self._gather(w, [t for t, s in states.items() if s.kind == "lane"])
        if lanes:
            self._local(w)
            return [State("lane", lanes.pop())] * len(w.types)
        parts = self._parts_of(w, states)
        return self._parts(w, parts) if parts else self._first(w)

    def _sums(self, w: Work) -> bool:
        """Whether an op may be applied to the summands, so that the sum over devices is taken later."""
        kinds = [self.made.state[t].kind for _, t in w.operands if t not in self.made.reduced]
        if "sum" not in kinds or len(kinds) < len(w.operands):
            return False
        if w.op in ("add", "sub"):
            return all(k in ("sum", "lane") for k in kinds) and all(isinstance(a, Tensor) for a in w.args.values())
        if w.op in ("mul", "div"):
            return kinds.count("sum") == 1 and kinds[0] == "sum" and all(k in ("sum", "whole") for k in kinds)
        return w.op in _LINEAR and kinds[0] == "sum" and kinds.count("sum") == 1

    def _local(self, w: Work) -> None:
        """The op reads what each device has, where that is not a sum already taken."""
        self.made.local.update((w, t) for _, t in w.operands if t not in self.made.reduced or self.made.state[t].kind != "sum")

    def _gather(self, w: Work, tensors: list[Tensor]) -> list[State]:
        self.made.reduced.update(dict.fromkeys(tensors))
        return [WHOLE] * len(w.types)

    def _parts(self, w: Work, parts: list[tuple[str, Tensor, int]]) -> list[State]:
        way, *others = (carried(w, name, t, axis, self.made.devices) for name, t, axis in parts)
        if way is None or any(other != way for other in others):  # two axes split at once: each device needs all of both
            return self._gather(w, [t for _, t, _ in parts])
        self._local(w)
        self.made.split.add(w)
        if isinstance(way, str):
            return [SUM]
        return [State("part", axis) for axis in way]

    def _parts_of(self, w: Work, states: dict[Tensor, State]) -> list[tuple[str, Tensor, int]]:
        """The operands that are split, with the axis, where a result has it."""
        found = [(name, t, states[t].at) for name, t in w.operands if states[t].kind == "part"]
        return [p for p in found if carried(w, *p, self.made.devices) != ()]

    def _first(self, w: Work) -> list[State]:
        """The first product of a pair is split by its outputs, if the pair is one. Beside lanes, only what the model gives is split."""
        width = w.types[0].shape[-1] if w.types and w.types[0].shape else 1
        splits = w.op == "linear" and isinstance(width, int) and width % self.made.devices == 0
        if splits and self._closes(w.results[0], len(w.types[0].shape) - 1):
            self.made.split.add(w)
            return [State("part", len(w.types[0].shape) - 1)]
        return [WHOLE] * len(w.types)

    def _closes(self, t: Tensor, axis: int) -> bool:
        """Whether every way from a split tensor ends in a product that sums over the split axis, or as a result of the model."""
        stack, seen = [(t, axis)], {(t, axis)}
        while stack:
            v, a = stack.pop()
            for w, name in self.users.get(v, ()):
                way = carried(w, name, v, a, self.made.devices)
                if way is None or way == "sum" and self.lanes is not None:
                    return False
                new = [] if way == "sum" else [r for r in zip(w.results, way) if r not in seen]
                seen.update(new)
                stack += new
        return True
