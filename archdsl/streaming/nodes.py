"""What becomes of one node: the rules that hold whatever the op is, and which file knows its construct."""
from __future__ import annotations

from archdsl.dims import Size, product, terms
from archdsl.graph import Node, TensorType, Value
from archdsl.ops.registry import find
from archdsl.streaming import calls, extensions, pairs, scans, tables, windows
from archdsl.streaming.axes import meeting
from archdsl.streaming.definition import DOCUMENTS, POSITION, START, Definition, Known, dims_of


def rule(d: Definition, node: Node, known: Known) -> None:
    """Takes a node into `d`. Raises ArchError A0501 for one that has no such form, NoRows for one that rows cannot begin apart in."""
    if node.op == "update" or windows.pads(d, node, known):
        return  # buffers change in training; what is padded is part of its reader
    if (padded := next((v for v in node.operands() if v in d.padded), None)) is not None and \
            (node.op not in windows.READERS or padded != node.args[0] or padded in node.args[1:]):
        raise windows.read_otherwise(d, d.padded[padded].node)
    if node.op == "phase":
        calls.phase(d, node, known)
    elif node.op == "call":
        calls.call(d, node, known)
    elif node.op == "param":
        d.keep(node, known)
    elif node.op == "scan":
        _check(d, node)
        scans.scan(d, node, known)
    elif node.op == "distance" and d.at.timed(node.attrs["n"]) or pairs.is_difference(node) and d.at.timed(node.types[0].shape[0]):
        tables.distance(d, node, known)
    elif node.op != "attention" and any(v in d.pairs for v in node.operands()):
        tables.table_of(d, node, known)
    else:
        _check(d, node)
        _op(d, node, known)


def _check(d: Definition, node: Node) -> None:
    """The rules that hold whatever the op is."""
    for v in node.operands():
        if v in d.last and any(d.at.timed(s) for u in node.operands() for s in u.shape):
            raise d.refuse(node, "it gives all positions something of the last one")
    if any(v in d.last for v in node.operands()):
        d.last.update(node.values)
    for t in node.types:
        timed = [s for s in t.shape if d.at.timed(s)]
        if len(timed) > 1:
            raise d.refuse(node, f"it compares positions with each other: its result is {t}",
                           help="a bias of attention may be made of `distance(T)`, how far one lies behind another")
        if timed and not _scales(d, timed[0]):
            if node.op in windows.READERS and d.session.form != "packed":
                extensions.declared(d, node)  # it may have a reason
            raise d.refuse(node, f"its result has {timed[0]} positions, which a part of the stream does not tell")
    if node.op == "rearrange":
        _orders(d, node)


def _orders(d: Definition, node: Node) -> None:
    sizes = node.attrs["sizes"]
    for key in ("outs", "ins"):
        for group in node.attrs[key]:
            at = next((i for i, a in enumerate(group) if d.at.timed(sizes[a])), None)
            if at is not None and len(group) > 1:
                order = tuple(str(product([sizes[a] for a in part])) for part in (group[:at], group[at + 1:]))
                if key == "outs":
                    d.session.orders.add((order[0], order[1]))
                elif order not in d.session.orders:
                    raise d.refuse(node, "it splits the stream")


def _scales(d: Definition, size: Size) -> bool:
    """Whether n times as many positions give n times the size."""
    parts = terms(size)
    if len(parts) != 1 or not isinstance(parts[0][0], int):
        return False
    moving = [(a, p) for a, p in parts[0][1] if not a.symbols.isdisjoint(d.at.time | d.at.mixed)]
    return len(moving) == 1 and moving[0][0].kind == "sym" and moving[0][1] == 1


def _op(d: Definition, node: Node, known: Known) -> None:
    op = find(node.op)
    if op is None:
        raise d.refuse(node, "what it does along the stream is not known")
    if node.op in ("index", "iota") and d.at.timed(node.attrs["n"]):
        _index(d, node, known)
        return
    if op.stream is not None and extensions.extended(d, node, known):
        return
    for value, axis in meeting(node):
        if d.at.timed(value.shape[axis]):
            raise d.refuse(node, "it looks at all positions at once")
    _sizes(d, node)
    if any(known[v] in d.rows.held for v in node.operands()):
        d.rows.node(node, known, d.at.dims)
    else:
        d.keep(node, known)


def _sizes(d: Definition, node: Node) -> None:
    """The number of positions is no number to compute with: it differs from call to call."""
    given = [a for a in node.args if not isinstance(a, Value)]
    given += [v for k, v in node.attrs.items() if k not in ("shape", "sizes")]
    if any(d.at.timed(size) for size in dims_of(given)):
        raise d.refuse(node, "it computes with the number of positions", help="`index(T)` is the position itself")


def _index(d: Definition, node: Node, known: Known) -> None:
    if not d.at.is_time(node.attrs["n"]):
        raise d.refuse(node, f"it counts {node.attrs['n']} positions, of which the stream is a part")
    if d.session.form == "packed":
        d.put(node, Node("index_packed", (d.counter(DOCUMENTS),), {}, node.types, node.span, node.name), known)
        return
    by_row = d.at.by_row and d.at.batch is not None
    start = d.counter(START) if by_row else None
    n = d.size(node.attrs["n"])
    shape = (d.at.batch, n) if by_row else (n,)
    new = Node("index_extend", (d.counter(POSITION), start), {"n": n, **d.delays.counted}, (TensorType("int", shape),),  # type: ignore[arg-type]
               node.span, node.name)
    d.put(node, new, known)
    if by_row:
        d.rows.held.add(Value(new))
