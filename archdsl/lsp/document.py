"""An open text: its tree, its diagnostics, and what its expressions are. A broken text keeps what the last good one told."""
from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from archdsl.cost.layers import Layer
from archdsl.diagnostics.model import ArchError, Collector, Diagnostic
from archdsl.elaborate.evaluation import observed
from archdsl.elaborate.frame import Session
from archdsl.elaborate.limits import room
from archdsl.elaborate.resolve import resolve
from archdsl.graph import Graph
from archdsl.modules import Library, Module
from archdsl.source import Source, Span
from archdsl.spec import Spec, check_text, loads_at
from archdsl.syntax import tree
from archdsl.syntax.parser import no_collection

MOST = 4  # values of one expression that are kept
MOST_BLOCKS = 20_000  # applications of blocks that are followed


class Facts:
    """What elaborating the models of a text at their defaults tells: values by the place of their expression, blocks by that of their call."""

    def __init__(self, spec: Spec):
        self.source = spec.module.source
        self.models = spec.models
        self.values: dict[tuple[int, int], list[Any]] = {}
        self.calls: dict[tuple[int, int], list[tuple[str, str, Graph]]] = {}  # model, address, definition
        self._walked = 0
        self._rows: dict[str, dict[str, Layer]] = {}
        module, models = spec.module, {}
        session = Session(module.library)
        with observed(self._tell):
            for name, decl in module.models.items():
                models[name] = Spec(module, decl, spec.path, models, session)
                self._walk(name, models[name].elaborate().graph, "")

    def _tell(self, node: Any, value: Any) -> None:
        if node.span.source is self.source:
            seen = self.values.setdefault((node.span.start, node.span.end), [])
            if len(seen) < MOST:
                seen.append(value)

    def _walk(self, model: str, graph: Graph, path: str) -> None:
        for n in graph.nodes:
            if n.op != "call" or self._walked >= MOST_BLOCKS:
                continue
            self._walked += 1
            below: Graph = n.attrs["graph"]
            address = ".".join(p for p in (path, n.attrs["path"]) if p)
            if n.span.source is self.source:
                self.calls.setdefault((n.span.start, n.span.end), []).append((model, address, below))
            self._walk(model, below, address)

    def layer(self, model: str, address: str) -> Layer | None:
        """The costs of a block at the example sizes."""
        if model not in self._rows:
            try:
                self._rows[model] = {layer.path: layer for layer in self.models[model].cost().layers}
            except ArchError:  # at these sizes there is no telling
                self._rows[model] = {}
        return self._rows[model].get(address)


class Document:
    """One version of a text in an editor. `before`: the version it was edited from."""

    def __init__(self, path: str, text: str, before: Document | None = None):
        self.path, self.text = path, text
        self.source = Source(path, text)
        self._good = None if before is None else before.good if "diagnostics" in before.__dict__ else before._good

    @cached_property
    def module(self) -> Module:
        """What could be read of the text, with its imports."""
        return Library().open(self.source, os.path.dirname(os.path.realpath(self.path)))

    @cached_property
    def early(self) -> list[Diagnostic]:
        """Faults of syntax and of names, which are found without evaluating. With one of them nothing else is looked for."""
        found = Collector()
        try:
            with no_collection(), room(Span(self.source, 0, 0)):
                for d in (*self.module.diagnostics, *resolve(self.module)):
                    found.add(d)
        except ArchError as fault:
            found.add(fault)
        return sorted(found.found, key=lambda d: (d.span.source.path, d.span.start))

    @cached_property
    def diagnostics(self) -> list[Diagnostic]:
        """Errors and lints, those of other files too."""
        if self.early:
            return self.early
        try:
            return check_text(self.text, self.path, lints=True)
        except ArchError as fault:
            return fault.diagnostics

    @property
    def broken(self) -> bool:
        return any(d.severity == "error" for d in self.diagnostics)

    @cached_property
    def good(self) -> Document | None:
        """This version when it has no error, else the last one before it that had none."""
        return self._good if self.broken else self

    @cached_property
    def own_facts(self) -> Facts | None:
        """What its expressions are; None for a text with errors or without a model."""
        if self.broken:
            return None
        try:
            spec = loads_at(self.text, self.path)
            return Facts(spec) if spec is not None else None
        except ArchError:
            return None

    # ---------------------------------------------------------------- what is known at a place
    def values(self, span: Span) -> list[Any]:
        """The values that an expression had, in this version or at the same place of the last good one."""
        found = self._known(span)
        return found[0].values.get(found[1], []) if found else []

    def calls(self, span: Span) -> list[tuple[str, str, Graph]]:
        """The applications of blocks that an expression is: model, address, definition."""
        found = self._known(span)
        return found[0].calls.get(found[1], []) if found else []

    @property
    def facts(self) -> Facts | None:
        return self.good.own_facts if self.good is not None else None

    def _known(self, span: Span) -> tuple[Facts, tuple[int, int]] | None:
        facts = self.facts
        if facts is None or self.good is None:
            return None
        if self.good is self:
            return facts, (span.start, span.end)
        start, end = self._carried(self.good.text, span.start), self._carried(self.good.text, span.end, True)
        if start is None or end is None or self.good.text[start:end] != self.text[span.start : span.end]:
            return None
        return facts, (start, end)

    def _carried(self, old: str, at: int, ends: bool = False) -> int | None:
        """Where a place was in an older text that differs in one stretch; None inside of the stretch."""
        head, tail = self._same(old)
        if at < head or (ends and at == head):
            return at
        if len(self.text) - at <= tail:
            return len(old) - (len(self.text) - at)
        return None

    def _same(self, old: str) -> tuple[int, int]:
        """How many characters are the same at the start and at the end."""
        if not hasattr(self, "_ends"):
            head = _common(old, self.text)
            self._ends = head, _common(old[head:][::-1], self.text[head:][::-1])
        return self._ends

    def node_at(self, offset: int, kinds: tuple[type, ...] = (tree.Node,)) -> list[tree.Node]:
        """The nodes around a place, the innermost first."""
        found: list[tree.Node] = []
        stack: list[tree.Node] = list(self.module.tree.decls)
        while stack:
            n = stack.pop()
            if n.span.source is self.module.source and n.span.start <= offset <= n.span.end:
                if isinstance(n, kinds):
                    found.append(n)
                stack += tree.children(n)
        return sorted(found, key=lambda n: n.span.end - n.span.start)


def _common(a: str, b: str) -> int:
    """How many characters two texts have in common at their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
