"""`archdsl.capture`: a foreign module as a spec with its weights, and what the capture found."""
from __future__ import annotations

import os
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archdsl import shapes
from archdsl.capture.errors import changed
from archdsl.capture.export import Dynamic, Exported, export
from archdsl.capture.hierarchy import build
from archdsl.capture.translate import Program, translate
from archdsl.diagnostics.model import error
from archdsl.elaborate.model import Elaborated, InputSpec
from archdsl.graph import Graph
from archdsl.printer import print_graph
from archdsl.spec import Spec, loads
from archdsl.wording import with_article

if TYPE_CHECKING:
    import torch
    from torch import nn

    from archdsl.lower.module import ArchModule
    from archdsl.store import Manifest


class Captured:
    """A captured module. `spec`: the printed graph, elaborated; `text`: its text; `weights`: address -> tensor (shared with the module);
    `names`: foreign key -> address, several keys of one tensor included; `lifts`: lifting rule -> how often it was applied."""

    def __init__(self, spec: Spec, weights: dict[str, torch.Tensor], program: Program, dtype: torch.dtype):
        self.spec, self.weights, self.dtype = spec, weights, dtype
        self.names, self.lifts = program.names, dict(sorted(program.flat.lifts.items()))

    @property
    def text(self) -> str:
        return self.spec.module.source.text

    @cached_property
    def graph(self) -> Graph:
        """The typed graph."""
        return self.spec.elaborate().graph

    @property
    def opaque(self) -> tuple[str, ...]:
        """The aten ops that stay as they are, each once."""
        return tuple(dict.fromkeys(n.attrs["name"] for g in self.graph.definitions() for n in g.nodes if n.op == "aten"))

    @property
    def aliases(self) -> dict[str, str]:
        """Foreign keys of a tensor that another key names first, and its address."""
        seen: set[str] = set()
        return {k: a for k, a in self.names.items() if a in seen or seen.add(a)}  # type: ignore[func-returns-value]

    def build(self, dtype: Any = None, device: Any = "cpu", **options: Any) -> ArchModule:
        """The lowered model with the captured weights, in the module's element type unless another is given."""
        model = self.spec.build(dtype=self.dtype if dtype is None else dtype, device=device, **options)
        model.load_state_dict(self.weights)
        return model

    def save(self, folder: str | os.PathLike[str]) -> Manifest:
        """Writes graph.arch, model.py, weights.safetensors and manifest.json, as `archdsl compile -o`; `archdsl.open` reads them."""
        from archdsl.store import compile_to

        return compile_to(folder, self.spec, dtype=self.dtype, weights=self.weights)

    def __repr__(self) -> str:
        return f"Captured({self.spec.name}, {len(self.weights)} weights, opaque: {', '.join(self.opaque) or 'none'})"


def capture(module: nn.Module, example: Any, dynamic: Dynamic | None = None, name: str | None = None,
            stream: str | None = None) -> Captured:
    """A PyTorch module as a typed graph with its weights.

    example: what the module is called with: a tensor, a tuple of arguments, or a dict of named ones; along axes that vary, at least 2.
    dynamic: which axes vary, by the names of their sizes: `{0: "B"}` for every tensor, `{"tokens": {0: "B", 1: "T"}}` for one.
    name: of the model in the text; the module's class unless given. stream: which of the sizes in `dynamic` is time, for the forms with state
    (`build(form = "step")`). The module itself is traced as a copy in evaluation mode and stays as it is.
    Raises ArchError A0550 (torch.export cannot trace it), A0551 (an op or a size without counterpart), A0552 (an op that is not pure),
    A0553 (no result, or a result that the graph cannot hold), A0554 (`example` or `dynamic` do not fit); TypeError for what is no module.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"capture takes a torch.nn.Module, not {with_article(type(module).__name__)}: a function becomes one as its `forward`")
    exported = export(module, example, dynamic or {})
    if stream is not None and stream not in exported.examples:
        known = ", ".join(f"`{n}`" for n in exported.examples) or "none"
        raise error("A0554", f"`stream` names `{stream}`, which is no size that varies", exported.span, help=f"those that `dynamic` names: {known}")
    program = translate(exported)
    with shapes.use_facts(program.flat.facts):
        graph = build(program.flat, name or _model_name(module), program.inputs, program.outputs, program.output_names, program.guards)
        text = print_graph(_elaborated(graph, program, exported, stream))
    spec = loads(text, f"{graph.name}.arch")
    if spec.elaborate().graph.hash != graph.hash:
        raise changed(graph, spec.elaborate().graph)
    kept = {path for path, _ in graph.parameters()}
    program.names = {k: a for k, a in program.names.items() if a in kept}
    return Captured(spec, {a: t for a, t in program.weights.items() if a in kept}, program, exported.float)


def _model_name(module: nn.Module) -> str:
    name = re.sub(r"\W|^_+", "", type(module).__name__) or "Model"
    return name[0].upper() + name[1:]


def _elaborated(graph: Graph, program: Program, exported: Exported, stream: str | None) -> Elaborated:
    """The graph with example sizes and ranges of its inputs, and its axis of time."""
    inputs = []
    for v in graph.inputs:
        name = v.node.attrs["name"]
        low, high = program.ranges.get(name, (None, None))
        axes = {str(s): exported.examples[str(s)] for s in v.shape if str(s) in exported.examples}
        inputs.append(InputSpec(name, v.type, low, high, False, axes))
    return Elaborated(graph, tuple(inputs), {}, program.flat.facts, dict(exported.examples), stream, None)  # type: ignore[arg-type]
