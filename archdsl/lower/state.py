"""The state of a model in the form `extend` or `step`: a dict of tensors by address, begun, reordered and begun anew by row."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from archdsl.dims import Dim, Size, evaluate, symbols
from archdsl.elaborate.limits import MAX_SIZE
from archdsl.ops.registry import LENGTH
from archdsl.ops.rules import torch_dtype

if TYPE_CHECKING:
    from archdsl.graph import Value
    from archdsl.lower.module import ArchModule
    from archdsl.streaming import Slot, Streamed

State = dict[str, torch.Tensor]


def streamed_of(model: ArchModule) -> Streamed:
    """How a model streams. Raises ValueError for one in the form `parallel`."""
    found = model.__dict__.get("_streamed")
    if found is None:
        raise ValueError('this model was built in the form `parallel`, which keeps no state: build(form = "step") or build(form = "extend")')
    return found


def init_state(model: ArchModule, batch: int = 1, length: int | None = None, **sizes: int) -> State:
    """The state before the first position: zeros. See `ArchModule.init_state`."""
    streamed = streamed_of(model)
    _known(model, streamed, sizes)
    given = {"batch": batch, **({} if length is None else {"length": length}), **sizes}
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"init_state: `{name}` is a whole number from 1 up, not {value!r}")
        if value > MAX_SIZE:
            raise ValueError(f"init_state: `{name}` is {MAX_SIZE:,} at most")
    known: dict[str, int] = dict(sizes)
    if streamed.batch is not None:
        known[str(streamed.batch)] = batch
    elif batch != 1:
        raise ValueError("init_state: this model takes one sequence at a time: its inputs have no axis before the stream")
    if streamed.has_length:
        known[LENGTH] = _length(model, streamed, length)
    if streamed.longest is not None and known.get(LENGTH, 0) > streamed.longest:
        raise ValueError(f"init_state: `length` = {known[LENGTH]}, and this model has {streamed.longest} positions at most")
    missing = sorted({n for s in streamed.slots for size in s.type.shape for n in symbols(size)} - set(known))
    if missing:
        raise ValueError(f"init_state: give the size{'s' * (len(missing) > 1)} {', '.join(missing)}, for example init_state({missing[0]} = 8)")
    device, dtype = device_of(model), getattr(torch, model.definition.dtype)
    if (now := weights_dtype(model)) != dtype:
        raise ValueError(f"init_state: this model was built in {dtype}, and its weights are {now} since: build(form = …, dtype = {now}) and "
                         "load_state_dict give a model whose state is of that type")
    wanted = {s.address: ([_number(x, known) for x in s.type.shape], torch_dtype(s.type.dtype, dtype)) for s in streamed.slots}
    try:
        return {address: torch.zeros(shape, dtype=kind, device=device) for address, (shape, kind) in wanted.items()}
    except RuntimeError as fault:
        told = f"{sum(prod(shape) * kind.itemsize for shape, kind in wanted.values()):,} bytes could not be made on {device}"
        kind_of = torch.OutOfMemoryError if isinstance(fault, torch.OutOfMemoryError) else RuntimeError
        less = "less `length` or a smaller `batch` takes less" if streamed.has_length else "a smaller `batch` takes less"
        raise kind_of(f"init_state: a state of {told}: {str(fault).partition(chr(10))[0]}; {less}") from None


def _known(model: ArchModule, streamed: Streamed, sizes: Mapping[str, int]) -> None:
    """Raises ValueError for a size that the model does not have: a slip of the pen would else leave the example size in its place."""
    types = [*(v.type for v in (*model.typed.inputs, *streamed.graph.inputs)), *(s.type for s in streamed.slots)]
    names = {n for t in types for size in t.shape for n in symbols(size)} - {LENGTH, streamed.axis, str(streamed.batch)}
    other = next((n for n in sizes if n not in names), None)
    if other is not None:
        raise ValueError(f"init_state: there is no size `{other}` to give: it takes {', '.join(['batch', 'length', *sorted(names)])}")


def _length(model: ArchModule, streamed: Streamed, length: int | None) -> int:
    """The room for positions: as given, else as the model's example says."""
    if length is not None:
        return length
    found = streamed.example
    if found is None:
        raise ValueError("init_state: how many positions shall the state have room for? init_state(length = 2048)")
    found += streamed.delay
    return min(found, streamed.longest) if streamed.longest is not None else found


def _number(size: Size, known: Mapping[str, int]) -> int:
    return size if isinstance(size, int) else evaluate(size, known)


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the weights of a model lie."""
    return next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def weights_dtype(model: ArchModule) -> torch.dtype:
    """The type of the weights whose type the spec leaves open: that of the build, unless the model was moved to another one since."""
    address = next((a for a, p in model.typed.parameters() if p.type.dtype == "float"), None)
    if address is None:
        return getattr(torch, model.definition.dtype)
    scope, _, name = address.rpartition(".")
    return getattr(model.get_submodule(scope), name).dtype


def row_axis(streamed: Streamed, slot: Slot) -> int | None:
    """The axis of a slot that counts the rows of the batch."""
    return next((i for i, s in enumerate(slot.type.shape) if isinstance(s, Dim) and s == streamed.batch), None)


def _axis(streamed: Streamed, slot: Slot, name: str) -> int | None:
    """`row_axis`, for what moves rows. Raises ValueError where an axis holds rows and something else: what belongs to one is not told."""
    axis = row_axis(streamed, slot)
    if axis is None and streamed.batch is not None and any(not symbols(streamed.batch).isdisjoint(symbols(s)) for s in slot.type.shape):
        raise ValueError(f"{name}: no axis of the state `{slot.address}`, {slot.type}, is the batch alone: "
                         "the model joins its rows with something else")
    return axis


def _checked(model: ArchModule, state: State) -> Streamed:
    streamed = streamed_of(model)
    if not isinstance(state, dict) or set(state) != {s.address for s in streamed.slots}:
        raise ValueError("this is not the state of this model: it comes from its init_state or from its last call")
    return streamed


def reorder_state(model: ArchModule, state: State, rows: Any) -> State:
    """The state whose row i is the old row `rows[i]`: for beams, and to drop or repeat rows. `rows`: int64 [new batch]."""
    streamed, index = _checked(model, state), _rows(rows, "reorder_state")
    found: State = {}
    for slot in streamed.slots:
        x, axis = state[slot.address], _axis(streamed, slot, "reorder_state")
        found[slot.address] = x if axis is None else x.index_select(axis, _within(x, axis, index, "reorder_state"))
    return found


def _rows(rows: Any, name: str) -> torch.Tensor:
    """Rows as int64 [n]. Raises ValueError for what lists none: a mask of rows is not their numbers."""
    try:
        index = rows if isinstance(rows, torch.Tensor) else torch.as_tensor(list(rows))
    except (TypeError, ValueError):
        raise ValueError(f"{name}: `rows` lists the numbers of rows: this is {rows!r}") from None
    if index.dim() != 1 or index.numel() and (index.is_floating_point() or index.dtype == torch.bool):
        raise ValueError(f"{name}: `rows` lists the numbers of rows, int64 [n]: this is {index.dtype} {list(index.shape)}")
    return index.to(torch.int64)


def _within(x: torch.Tensor, axis: int, index: torch.Tensor, name: str) -> torch.Tensor:
    """The rows, on the device of the state. Raises ValueError for rows that it does not have."""
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < x.shape[axis]:
        raise ValueError(f"{name}: the state has the rows 0 to {x.shape[axis] - 1}, and `rows` names {index.tolist()}")
    return index.to(x.device)


def reset_state(model: ArchModule, state: State, rows: Iterable[int]) -> State:
    """The state with these rows begun anew: their next position is their first one. What is kept of inputs without positions stays."""
    streamed = _checked(model, state)
    if not streamed.rows and any(s.address == "position" for s in streamed.slots):
        raise ValueError("reset_state: the rows of this model's batch share their positions, so one row cannot begin anew")
    index = _rows(rows, "reset_state")
    found: State = {}
    for slot in streamed.slots:
        x, axis = state[slot.address], _axis(streamed, slot, "reset_state")
        if axis is None or slot.kept or not index.numel():
            found[slot.address] = x
            continue
        fresh = state["position"].to(x.dtype) if slot.address == "start" else 0
        found[slot.address] = x.index_fill(axis, _within(x, axis, index, "reset_state"), fresh)
    return found


def stack_states(model: ArchModule, states: list[State]) -> State:
    """One state of several, row behind row. They are at the same position (rows may have begun at different ones), with room for as many. Raises
    ValueError for states that differ in more than their rows."""
    streamed = streamed_of(model)
    if not states:
        raise ValueError("stack_states: at least one state is needed")
    for s in states:
        _checked(model, s)
    found: State = {}
    for slot in streamed.slots:
        parts, axis = [s[slot.address] for s in states], _axis(streamed, slot, "stack_states")
        kinds = {(p.dtype, tuple(s for i, s in enumerate(p.shape) if i != axis)) for p in parts}
        if len(kinds) > 1 or axis is None and any(not torch.equal(p, parts[0]) for p in parts):
            shown = ", ".join(f"{p.dtype} {list(p.shape)}" for p in parts) if len(kinds) > 1 else ", ".join(str(p.tolist()) for p in parts)
            raise ValueError(f"stack_states: the states differ in `{slot.address}`: {shown}")
        found[slot.address] = parts[0] if axis is None else torch.cat(parts, axis)
    return found


def end_state(model: ArchModule, state: State, rows: Iterable[int] | None = None) -> State:
    """The state of a sequence that ends here. See `ArchModule.end_state`."""
    streamed = _checked(model, state)
    if not streamed.delay:
        return state
    end, position = state["end"], state["position"]
    if position.device.type == "cpu" and not position.is_meta and int(position) == 0:
        raise ValueError("end_state: a sequence has one position or more, and none has come yet")
    ended = torch.where(end == 0, position, end)
    if rows is None:
        return {**state, "end": ended}
    if not streamed.rows or not end.dim():
        raise ValueError("end_state: the rows of this model's batch share their positions, so all of them end together")
    index = _within(end, 0, _rows(rows, "end_state"), "end_state")
    return {**state, "end": end.index_copy(0, index, ended[index])}


def flush(model: ArchModule, state: State, others: tuple[torch.Tensor, ...] = ()) -> tuple[Any, State]:
    """The results that are still to come, of a sequence that ends here. See `ArchModule.flush`."""
    streamed = _checked(model, state)
    if not streamed.delay:
        raise ValueError("flush: the results of this model come with their positions: none are left")
    if type(model).definition.emits:
        raise ValueError("flush: this model emits values besides: give the last positions in calls, behind end_state")
    state = end_state(model, state)
    given, axes = streamed.graph.inputs[:len(streamed.graph.inputs) - len(streamed.slots)], dict(streamed.given)
    moving = [axes[v.node.attrs["name"]] is not None for v in given]
    if len(others) != moving.count(False):
        raise ValueError(f"flush: this model takes {moving.count(False)} inputs without positions, and these are {len(others)}")
    known = {str(s): n for slot in streamed.slots for s, n in zip(slot.type.shape, state[slot.address].shape) if isinstance(s, Dim)}
    still = iter(others)
    n = 1 if streamed.form == "step" else streamed.delay
    xs = [_zeros(model, v, {**known, streamed.axis: n}) if m else next(still) for v, m in zip(given, moving)]
    parts, several = [], len(streamed.results) > 1
    for _ in range(streamed.delay // n):
        y, state = model(*xs, state)
        parts.append(y if several else (y,))
    found = tuple(ys[-1] if axis is None else torch.cat(ys, axis) for axis, ys in zip(streamed.results, zip(*parts)))
    return found if several else found[0], state


def _zeros(model: ArchModule, value: Value, known: Mapping[str, int]) -> torch.Tensor:
    """An input that holds nothing."""
    missing = sorted({n for s in value.shape for n in symbols(s)} - set(known))
    if missing:
        raise ValueError(f"flush: the state does not tell the size {', '.join(missing)} of `{value.node.attrs['name']}`: give the last positions "
                         "in calls, behind end_state")
    dtype = torch_dtype(value.dtype, getattr(torch, model.definition.dtype))
    return torch.zeros([_number(s, known) for s in value.shape], dtype=dtype, device=device_of(model))
