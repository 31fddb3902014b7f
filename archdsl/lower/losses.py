"""A model that ends in its loss: the graph takes targets, and gives a number in place of scores. Free of torch.

Where the scores are a linear map of something, times numbers, bounded or not, map and loss become one op that never holds all scores."""
from __future__ import annotations

from typing import Any

from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.flatten import inline
from archdsl.graph import Graph, Node, TensorType, Value
from archdsl.records import record, replace
from archdsl.source import Source, Span

LOSSES = ("cross_entropy",)
TARGETS = "targets"


@record(frozen=True)
class Loss:
    """What a model ends in. `scores`: why it computes all scores first; "" where it does not."""

    name: str
    scores: str = ""

    def __str__(self) -> str:
        return f"{self.name}: all scores are computed, for {self.scores}" if self.scores else f"{self.name} with the linear map in front of it"


def loss_of(model: Any) -> Loss | None:
    """The loss that a whole model of archdsl was built with, `build(loss = …)`; None for one that gives scores."""
    return model.__dict__.get("_loss")


def with_loss(graph: Graph, loss: str, form: str = "parallel") -> tuple[Graph, Loss]:
    """The graph with the input `targets` behind the others, and the mean loss in the place of its first result. Raises ArchError A0526."""
    _check(graph, loss, form)
    opened, found = _head(graph)
    first = (opened if isinstance(found, _Linear) else graph).outputs[0]
    graph = opened if isinstance(found, _Linear) else graph
    given = Node("input", (), {"name": TARGETS}, (TensorType("int", first.shape[:-1]),), graph.span, TARGETS)
    if isinstance(found, _Linear):
        last = Node("linear_cross_entropy", (*found.operands[:2], Value(given), *found.operands[2:]), found.attrs, (TensorType("f32", ()),),
                    first.node.span, "loss")
        nodes = (last,)
    else:
        wide = Node("at_least", (first,), {"dtype": "f32"}, (TensorType("f64" if first.dtype == "f64" else "f32", first.shape),), first.node.span,
                    "scores")
        last = Node("cross_entropy", (Value(wide), Value(given)), {}, (TensorType(wide.types[0].dtype, ()),), first.node.span, "loss")
        nodes = (wide, last)
    n = len(graph.inputs)
    made = replace(graph, inputs=(*graph.inputs, Value(given)), nodes=(*graph.nodes[:n], given, *graph.nodes[n:], *nodes),
                   outputs=(Value(last), *graph.outputs[1:]), output_names=("loss", *graph.output_names[1:]))
    return made, Loss(loss, "" if isinstance(found, _Linear) else found)


def _check(graph: Graph, loss: str, form: str) -> None:
    def fault(message: str, label: str, help: str | tuple[str, ...]) -> Exception:
        return error("A0526", f"`{graph.name}` {message}", graph.span, label, help=help)

    if not isinstance(loss, str):
        shown = repr(loss)
        raise error("A0526", f"a loss is told by its name, not by {shown}", Span(Source("loss", shown), 0, len(shown)), "no name",
                    help=f"it is one of {', '.join(LOSSES)}")
    if loss not in LOSSES:
        raise error("A0526", f"there is no loss `{loss}`", Span(Source("loss", loss), 0, len(loss)), "not known",
                    help=did_you_mean(loss, LOSSES) or f"it is one of {', '.join(LOSSES)}")
    if form not in ("parallel", "packed"):
        raise fault(f"in the form `{form}` goes on from a state, and has no loss", "this model", "`form = \"parallel\"` trains the same weights")
    first = graph.outputs[0] if graph.outputs else None
    if first is None or not first.type.is_float or len(first.shape) < 2:
        shown = "it has none" if first is None else f"it is {first.type}"
        raise fault(f"gives no scores: {shown}", "the first result", "a loss of classes needs floats, [..., classes]")
    if any(v.node.attrs["name"] == TARGETS for v in graph.inputs):
        raise fault(f"has an input `{TARGETS}` already", "this model", "give that input another name")


# ---------------------------------------------------------------- what the scores are made of
@record(frozen=True)
class _Linear:
    """x, weight and perhaps bias of the map, the attributes of the op that has the loss as well."""

    operands: tuple[Any, ...]
    attrs: dict[str, Any]


def _head(graph: Graph) -> tuple[Graph, _Linear | str]:
    """The graph with the blocks laid open that make the scores, and the map; or why there is none."""
    while (node := graph.outputs[0].node).op == "call":
        applied = node.attrs["path"], node.attrs["graph"]
        opened = inline(graph, lambda call, applied=applied: (call.attrs["path"], call.attrs["graph"]) == applied)
        graph = replace(opened, params=graph.params, children=graph.children)  # weights keep their owners, and so their order
    return graph, _map(graph)


def _map(graph: Graph) -> _Linear | str:
    value, attrs = graph.outputs[0], {}
    while True:
        node = value.node
        if _readers(graph, value) > 1:
            return f"what `{node.op}` gives is read elsewhere as well"
        if node.op == "linear":
            return _Linear(node.args, attrs)
        step = _step(node, attrs)
        if step is None:
            return f"they come of `{node.op}`, and not of a linear map times a number, bounded or not"
        value, attrs = step

def _step(node: Node, attrs: dict[str, Any]) -> tuple[Value, dict[str, Any]] | None:
    """What a node that may stand behind the map reads, and the attributes with it; None for another."""
    if node.op in ("at_least", "cast") and node.types[0].is_float and node.args[0].type.is_float:
        return node.args[0], attrs  # the scores of the op are in float32 at least, whatever they were to be stored in
    if node.op == "softcap" and not attrs:
        return node.args[0], {"cap": node.attrs["cap"]}
    if node.op in ("mul", "div"):
        a, b = node.args
        if not isinstance(a, Value) and node.op == "mul":
            a, b = b, a
        if isinstance(a, Value) and isinstance(b, (int, float)) and a.type == node.types[0]:
            factor = b if node.op == "mul" else 1 / b
            return a, {**attrs, "scale": attrs.get("scale", 1) * factor}
    return None


def _readers(graph: Graph, value: Value) -> int:
    """How often nodes and results read a value."""
    inside = sum(v == value for n in graph.nodes for v in n.operands())
    return inside + sum(v == value for v in (*graph.outputs, *graph.emits.values()))
