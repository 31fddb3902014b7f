"""How large the tensors of a model are at sizes of a run: the limits hold there as well as where sizes are numbers in the text."""
from __future__ import annotations

from collections.abc import Mapping
from math import prod

from archdsl import dims
from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.limits import MAX_ELEMENTS, MAX_SIZE, limit
from archdsl.graph import Graph, TensorType
from archdsl.records import field, record
from archdsl.source import Span


def too_long(name: str, size: int, span: Span) -> ArchError:
    """A0602 for an example size of a run."""
    about = f"{size:,}" if size < 10**30 else "of so many digits"
    return limit(f"the example size `{name}` = {about} is too large", span, help=f"a size of a run is at most {MAX_SIZE:,}")


@record()
class Fitting:
    """What was found to fit at some sizes: blocks, by their ids, and types. Elaborations of one session have most of them in common."""

    graphs: dict[int, Graph] = field(default_factory=dict)
    types: set[TensorType] = field(default_factory=set)


def check_elements(graph: Graph, sizes: Mapping[str, int], fitting: Fitting | None = None) -> None:
    """Raises A0602 for a tensor of more elements than one may have at these sizes; sizes that do not fit the model are told elsewhere. Children
    are looked at before parents, what is `fitting` at these sizes not again."""
    fitting = fitting or Fitting()
    for child in graph.subgraphs():
        child = child.__dict__.get("types_of", child)  # a copy with other numbers
        if id(child) not in fitting.graphs:
            check_elements(child, sizes, fitting)
            fitting.graphs[id(child)] = child  # kept, so that its id is not free for another one; a model's own graph is not
    for node in graph.nodes:
        for t in node.types:
            if t not in fitting.types:
                if _elements(t, sizes) > MAX_ELEMENTS:
                    told = ", ".join(f"{n} = {sizes[n]:,}" for n in sorted({n for s in t.shape for n in dims.symbols(s)} & sizes.keys()))
                    raise limit(f"a tensor {t} is too large" + f" at {told}" * bool(told), node.span, "at most 2**62 elements are allowed")
                fitting.types.add(t)


def _elements(t: TensorType, sizes: Mapping[str, int]) -> int:
    try:
        return prod(max(dims.evaluate(s, sizes), 0) for s in t.shape)
    except (dims.NotInteger, KeyError):
        return 0
