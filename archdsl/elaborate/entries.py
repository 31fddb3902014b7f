"""The entries of a model are functions over the same weights: an address that several of them have means one weight."""
from __future__ import annotations

from archdsl.diagnostics.model import Label, error
from archdsl.graph import Graph, Param
from archdsl.source import Span


def check_entries(model: str, entries: dict[str, Graph]) -> None:
    """Raises A0213 for a weight of which two entries (name -> graph) need two kinds or shapes."""
    known: dict[str, tuple[str, Param]] = {}
    for entry, graph in entries.items():
        for address, param in graph.parameters():
            first, other = known.setdefault(address, (entry, param))
            if (other.kind, other.type, other.init) == (param.kind, param.type, param.init):
                continue
            types = f"{other.type} in `{first}`, {param.type} in `{entry}`" if other.type != param.type else "of another kind or initial value"
            raise error("A0213", f"the entries of `{model}` share `{address}` and would need two of it: {types}", applied(graph, address, param.span),
                        "applied at another width or with other arguments",
                        labels=(Label(applied(entries[first], address, other.span), f"first applied like this, in `{first}`"),),
                        help="an application's own arguments must not change a weight")


def applied(graph: Graph, address: str, otherwise: Span) -> Span:
    """The first application of the owner of a weight that stands in the graph itself."""
    for node in graph.nodes:
        if node.op == "call" and address.startswith(f"{node.attrs['path']}."):
            return node.span
    return otherwise
