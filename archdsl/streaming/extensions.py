"""Ops that declare how they go on from a state, each replaced by its extension, or by itself within each document."""
from __future__ import annotations

from typing import Any

from archdsl.elaborate.ops import parameters
from archdsl.flatten import copy_node, map_values
from archdsl.graph import Node, TensorType, Value
from archdsl.ops.registry import Extension, OpError, Window, find
from archdsl.streaming import pairs
from archdsl.streaming.axes import operands
from archdsl.streaming.definition import DOCUMENTS, END, POSITION, START, Definition, Known
from archdsl.streaming.packing import packed_mask
from archdsl.streaming.rows import NoRows
from archdsl.streaming.windows import window


def extended(d: Definition, node: Node, known: Known) -> bool:
    """Replaces an op by its extension; False where it acts on each position alone."""
    if any(d.pairs.get(v, pairs.WITH_KEYS) != pairs.WITH_KEYS for v in node.operands()):
        raise d.refuse(node, "its bias counts queries and keys in another order")
    packed = d.session.form == "packed"
    types, time = _operands(d, node)
    if packed and node.op == "attention" and {n: a for n, a in time.items() if a} == dict.fromkeys("qkv", (-2,)):
        pack(d, node, known)  # later positions of the document as well
        return True
    extension = declared(d, node, types, time)
    if extension is None:
        return False
    if any(known.get(v) in d.rows.held for v in node.operands()):
        raise NoRows(f"{node.op} takes positions that differ from row to row")
    if isinstance(extension, Window):
        window(d, node, known, extension)
    elif packed:
        pack(d, node, known)
    else:
        if extension.within is not None and _first_channels(*(dict(operands(node))[n] for n in extension.within[:2])):
            extension = extension.within[2]
        _ahead(d, node, known, time, extension)
        _extend(d, node, known, extension)
    return True


def declared(d: Definition, node: Node, types: dict[str, Any] | None = None,
             time: dict[str, tuple[int, ...]] | None = None) -> Extension | Window | None:
    """What an op says of itself along the stream. Raises ArchError A0501 where it does not go on."""
    op = find(node.op)
    assert op is not None and op.stream is not None
    if types is None or time is None:
        types, time = _operands(d, node)
    try:
        return op.stream(time, **types)
    except OpError as e:
        raise d.refuse(node, e.message, help=e.help or ()) from None


def _operands(d: Definition, node: Node) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The arguments by name, tensors as their types; and the axes of the stream of each operand, from the right."""
    types: dict[str, Any] = dict(node.attrs)
    time: dict[str, tuple[int, ...]] = {}
    for name, value in operands(node):
        if isinstance(value, Value) and value in d.padded:
            value = d.padded[value].of
        types[name] = tuple(v.type for v in value) if isinstance(value, tuple) else value.type if isinstance(value, Value) else value
        if isinstance(value, Value):
            time[name] = tuple(i - len(value.shape) for i, s in enumerate(value.shape) if d.at.is_time(s))
            if any(d.at.timed(s) and not d.at.is_time(s) for s in value.shape):
                time[name] = (*time[name], 0)  # no axis: the rule will not know it
    return types, time


def _ahead(d: Definition, node: Node, known: Known, time: dict[str, tuple[int, ...]], extension: Extension) -> None:
    """The operands of an op that looks ahead, or stands behind one that does: the first one waits for what the others bring."""
    if (d.delays.now or extension.ahead) and extension.states:
        known.update(_begun(d, node, known, time, extension))
    if extension.ahead:
        d.session.ahead = d.session.ahead or node.span
        known[node.args[0]] = d.delays.at(node.args[0], known[node.args[0]], d.delays.now + extension.ahead)


def _begun(d: Definition, node: Node, known: Known, time: dict[str, tuple[int, ...]], extension: Extension) -> Known:
    """The operands of an op behind one that looks ahead: where no position is yet, what leaves the op's state as it begins."""
    if extension.idle is None:
        raise d.refuse(node, f"what it takes is {d.delays.now} position{'s' * (d.delays.now > 1)} late, and it knows no positions before the first")
    found: Known = {}
    for name, value in operands(node):
        if isinstance(value, Value) and (axes := time.get(name)):
            found[value] = d.delays.covered(known[value], len(value.shape) + axes[0], extension.idle.get(name, 0))
    return found


def pack(d: Definition, node: Node, known: Known) -> None:
    """The same op, in which no position sees another document."""
    new = copy_node(node, known.__getitem__)
    if node.op in ("attention", "attention_weights"):
        new.attrs = {**new.attrs, "mask": packed_mask(new.attrs["mask"], d.counter(DOCUMENTS), d.nodes)}
    elif find(f"{node.op}_packed") is not None:
        new.op, new.args = f"{node.op}_packed", (*new.args, d.counter(DOCUMENTS))
    else:
        raise d.refuse(node, "it knows no borders between documents")
    d.put(node, new, known)


def _extend(d: Definition, node: Node, known: Known, extension: Extension) -> None:
    """The op that goes on from a state, its states as slots."""
    made = find(extension.op)
    assert made is not None, extension.op
    apart = d.at.by_row and d.at.batch is not None and any(p.name == START for p in parameters(extension.op))
    if apart and any(t.shape[0] != d.at.batch for t in extension.states.values()):
        raise NoRows(f"the first axis of what {node.op} keeps is not the batch")
    before = {name: d.slot(name, t, node.span) for name, t in extension.states.items()}
    given = {**dict(operands(node)), **node.attrs, **extension.attrs}
    args: list[Any] = []
    attrs: dict[str, Any] = {}
    for p in parameters(extension.op):
        if p.name in before:
            args.append(before[p.name][2])
        elif p.name == POSITION or p.name == START and d.at.batch is not None and d.at.by_row:
            args.append(d.counter(p.name))
        elif p.name == END:
            args += [d.counter(END)] if extension.ahead else []
        elif p.name == "late":
            attrs |= d.delays.told
        elif p.name == "ahead":
            attrs |= {"ahead": extension.ahead} if extension.ahead else {}
        elif p.operand:
            args.append(map_values(given.get(p.name), known.__getitem__, d.at.dims))
        else:
            attrs[p.name] = map_values(given.get(p.name, p.default), known.__getitem__, d.at.dims)
    own = tuple(TensorType(t.dtype, tuple(d.size(s) for s in t.shape)) for t in node.types)
    new = Node(extension.op, tuple(args), attrs, (*own, *(v.type for *_, v in before.values())), node.span, node.name)
    for i, name in enumerate(before, len(own)):
        new.call_result(i, name)
    d.put(node, new, known)
    if extension.ahead:
        d.delays.of.update(dict.fromkeys(new.values, d.delays.now + extension.ahead))
    d.slots += [(name, t, value, after, False) for (name, t, value), after in zip(before.values(), new.values[len(own):])]
    if extension.op == "last":
        d.last.update(node.values)


def _first_channels(part: Value, whole: Value) -> bool:
    """Whether a value is `whole[..., :n]`."""
    if part.node.op != "slice" or part.node.args[0] != whole:
        return False
    *others, (kind, *bounds) = part.node.attrs["items"]
    return all(i == ("slice", None, None, None) for i in others) and len(others) == len(whole.shape) - 1 and kind == "slice" and \
        bounds[0] in (None, 0) and bounds[2] in (None, 1)
