"""The picture of a built model, for notebooks."""
from __future__ import annotations

from archdsl.dims import Facts
from archdsl.draw.page import html_page, notebook
from archdsl.draw.view import View, example_view
from archdsl.elaborate.model import Elaborated, InputSpec
from archdsl.origin import Origin


def built_view(origin: Origin) -> View:
    """The picture of the graph that was lowered, at the spec's example sizes where they fit it. A model that comes from a pickle has left its spec
    behind: its sizes are 1, or small ones that fit."""
    spec, graph = origin.spec, origin.graph
    inputs = tuple(InputSpec(v.node.attrs["name"], v.type) for v in graph.inputs)
    written = spec.elaborate() if spec is not None else None
    sizes, stream = (written.sizes, written.stream) if written is not None else ({}, None)
    made = Elaborated(graph, inputs, {}, Facts(), sizes, stream, spec.decl if spec is not None else None)  # type: ignore[arg-type]
    name = origin.model + (f".{origin.variant}" if origin.variant else "") + "".join(f", {k}={v}" for k, v in origin.knobs.items())
    return example_view(made, name)


def built_page(origin: Origin) -> str:
    """What a notebook shows of a built model."""
    return notebook(html_page(built_view(origin)))
