"""How large the tensors of a model are at sizes of a run: the limits hold there as well as where sizes are numbers in the text."""
from __future__ import annotations

from collections.abc import Mapping
from math import prod

from archdsl import dims
from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.limits import MAX_ELEMENTS, MAX_SIZE, limit
from archdsl.graph import Graph, TensorType
from archdsl.source import Span


def too_long(name: str, size: int, span: Span) -> ArchError:
    """A0602 for an example size of a run."""
    about = f"{size:,}" if size < 10**30 else "of so many digits"
    return limit(f"the example size `{name}` = {about} is too large", span, help=f"a size of a run is at most {MAX_SIZE:,}")


def check_elements(graph: Graph, sizes: Mapping[str, int]) -> None:
    """Raises A0602 for a tensor of more elements than one may have at these sizes; sizes that do not fit the model are told elsewhere."""
    seen: set[TensorType] = set()
    for part in graph.definitions():
        for node in part.nodes:
            for t in node.types:
                if t not in seen:
                    seen.add(t)
                    if _elements(t, sizes) > MAX_ELEMENTS:
                        told = ", ".join(f"{n} = {sizes[n]:,}" for n in sorted({n for s in t.shape for n in dims.symbols(s)} & sizes.keys()))
                        raise limit(f"a tensor {t} is too large" + f" at {told}" * bool(told), node.span, "at most 2**62 elements are allowed")


def _elements(t: TensorType, sizes: Mapping[str, int]) -> int:
    try:
        return prod(max(dims.evaluate(s, sizes), 0) for s in t.shape)
    except (dims.NotInteger, KeyError):
        return 0
