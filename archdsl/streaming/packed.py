"""What is particular to the packed form: it trains as well, documents are turned round where they lie, and each has its last position."""
from __future__ import annotations

from archdsl.dims import sym, symbols
from archdsl.flatten import copy_node
from archdsl.graph import Node, TensorType, Value
from archdsl.records import replace
from archdsl.streaming.definition import DOCUMENTS, LENGTHS, Definition, Known
from archdsl.streaming.extensions import pack
from archdsl.streaming.model import DOCUMENTS as COUNT
from archdsl.streaming.nodes import rule


def packed_rule(d: Definition, node: Node, known: Known) -> None:
    """Takes a node into `d`, in the packed form. Raises ArchError A0501 for one that looks across the borders of documents."""
    if node.op == "phase":
        _arms(d, node, known)
    elif any(v in d.last for v in node.operands()):
        _of_documents(d, node, known)
    elif node.op == "update":
        d.keep(node, known)
    elif _weighs(d, node):
        _weight(d, node, known)
    elif node.op == "last" and d.at.is_time(node.args[0].shape[_axis(node)]):
        _last(d, node, known)
    elif node.op != "flip" or not _turned(d, node, known):
        rule(d, node, known)


def _arms(d: Definition, node: Node, known: Known) -> None:
    """Both arms, told the documents where either asks for them."""
    last = tuple(a in d.last for a in node.args)
    inside = replace(d.at, rows=(False,) * len(node.args), last=last, pairs=tuple(d.pairs.get(a) for a in node.args))
    arms = {k: Definition(d.session, node.attrs[k], inside) for k in ("train", "eval")}
    counters = [c for c in (DOCUMENTS, LENGTHS) if any(c in a.counters for a in arms.values())]
    for a in arms.values():
        for c in counters:
            a.counter(c)
    made = {k: a.finish() for k, a in arms.items()}
    args = (*(known[a] for a in node.args), *map(d.counter, counters))
    types = tuple(v.type for v in made["eval"].graph.outputs)
    d.put(node, Node("phase", args, {k: m.graph for k, m in made.items()}, types, node.span, node.name), known)
    for m in made.values():
        d.last.update(v for v, held in zip(node.values, m.last) if held)
        d.pairs.update((v, a) for v, a in zip(node.values, m.pairs) if a is not None)


def _turned(d: Definition, node: Node, known: Known) -> bool:
    """Each document turned round where it lies; False where no axis is the stream's."""
    shape, given = node.types[0].shape, node.attrs["axes"]
    axes = [a % len(shape) for a in (given if isinstance(given, tuple) else (given,))]
    moving = [a for a in axes if d.at.is_time(shape[a])]
    if len(moving) != 1:
        return False
    value = known[node.args[0]]
    if others := tuple(a for a in axes if a not in moving):
        d.nodes.append(Node("flip", (value,), {"axes": others}, node.types, node.span, node.name))
        value = Value(d.nodes[-1])
    d.put(node, Node("flip_packed", (value, d.counter(DOCUMENTS)), {"axis": moving[0]}, node.types, node.span, node.name), known)
    return True


# ---------------------------------------------------------------- weights of attention
def _weighs(d: Definition, node: Node) -> bool:
    if node.op == "attention_weights":
        return all(d.at.is_time(v.shape[-2]) for v in node.args[:2])
    return any(v in d.weights for v in node.operands())


def _weight(d: Definition, node: Node, known: Known) -> None:
    """Weights of attention within documents, and what leaves those of other pairs 0."""
    if node.op == "attention_weights":
        pack(d, node, known)
    elif node.op == "dropout" or node.op == "attend" and not any(v in d.weights for v in node.args[1:]):
        d.keep(node, known)
    else:
        raise d.refuse(node, "it takes the weights of pairs of positions, of which some lie in two documents")
    if node.op != "attend":
        d.weights.update(node.values)


# ---------------------------------------------------------------- one row for each document
def _axis(node: Node) -> int:
    return node.attrs.get("axis", -2) % len(node.args[0].shape)


def _last(d: Definition, node: Node, known: Known) -> None:
    """[B, …, T, …] to [(B Documents), …]: the last position of each document."""
    x, span, axis = node.args[0], node.span, _axis(node)
    if d.at.batch is None or axis == 0 or x.shape[0] != d.at.batch:
        raise d.refuse(node, "it gives one row for each document, and its first axis is not the batch's",
                       help="give the input an axis for the batch in front: `[B, ragged T, …]`")
    lengths = d.counter(LENGTHS)
    total = Node("cumsum", (lengths,), {"axis": 0}, (lengths.type,), span, "total")
    ends = Node("sub", (Value(total), 1), {}, (lengths.type,), span, "ends")
    found = TensorType(x.dtype, (*x.shape[:axis], sym(COUNT), *x.shape[axis + 1:]))
    each = Node("take", (known[x], Value(ends)), {"axis": axis}, (found,), span, node.name)
    others = [i for i in range(1, len(x.shape)) if i != axis]
    attrs = {"sizes": found.shape, "ins": tuple((i,) for i in range(len(x.shape))), "outs": ((0, axis), *((i,) for i in others))}
    d.nodes += [total, ends, each]
    d.put(node, Node("rearrange", (Value(each),), attrs, (d.of_last(node.types[0]),), span, node.name), known)
    d.last.update(node.values)


def _of_documents(d: Definition, node: Node, known: Known) -> None:
    """An op on rows of which each is a document: the size of the batch is that of the documents."""
    for v in node.operands():
        if v not in d.last and any(d.at.timed(s) for s in v.shape):
            raise d.refuse(node, "it gives all positions something of the last one")
        if v not in d.last and not d.more.keys().isdisjoint(s for size in v.shape for s in symbols(size)):
            raise d.refuse(node, "it joins a row for each document with one for each row of the batch")
    d.put(node, copy_node(node, known.__getitem__, "", d.more), known)
    d.last.update(node.values)
