"""An open text: its tree, its diagnostics, and what its expressions are. A broken text keeps what the last good one told."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from archdsl.cost.layers import Layer
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.elaborate.evaluation import observed
from archdsl.elaborate.frame import Session
from archdsl.elaborate.limits import room
from archdsl.graph import Graph, Knob
from archdsl.incremental.check import Checked, Checker
from archdsl.modules import Module
from archdsl.source import Source, Span
from archdsl.spec import Spec
from archdsl.syntax import tree
from archdsl.syntax.parser import no_collection

MOST = 4  # values of one expression that are kept
MOST_BLOCKS = 20_000  # applications of blocks that are followed
MOST_MODELS = 200  # of all versions, of which facts are kept


class Facts:
    """What elaborating a model at its defaults tells: values by the place of their expression, blocks by that of their call. Places are relative to
    the pieces of the text, so they stay right while the text around them changes."""

    def __init__(self, module: Module, decl: tree.Model, sources: set[Source]):
        self.name, self._sources = decl.name, sources
        self.values: dict[Span, list[Any]] = {}
        self.calls: dict[Span, list[tuple[str, Graph]]] = {}  # address, definition
        self.graph: Graph | None = None
        self._walked = 0
        self.spec = Spec(module, decl, module.source.path, {}, Session(module.library))
        self.spec.models[decl.name] = self.spec
        try:
            with no_collection(), room(decl.name_span), observed(self._tell):
                graph = self.spec.elaborate().graph
        except ArchError:  # what was evaluated up to the fault is known
            return
        self.graph = graph
        self._walk(graph, "")

    def _tell(self, node: Any, value: Any) -> None:
        if node.span.source in self._sources:
            seen = self.values.setdefault(node.span, [])
            if len(seen) < MOST:
                seen.append(value)

    def _walk(self, graph: Graph, path: str) -> None:
        for n in graph.nodes:
            if n.op != "call" or self._walked >= MOST_BLOCKS:
                continue
            self._walked += 1
            below: Graph = n.attrs["graph"]
            address = ".".join(p for p in (path, n.attrs["path"]) if p)
            if n.span.source in self._sources:
                self.calls.setdefault(n.span, []).append((address, below))
            self._walk(below, address)

    @property
    def knobs(self) -> dict[str, Knob]:
        """The knobs by address, below the model's own too."""
        return self.spec.knobs if self.graph is not None else {}

    @property
    def addresses(self) -> list[str]:
        """Of blocks, of what they own, and of knobs."""
        return [*self.layers, *(a for a, _ in self.graph.parameters()), *self.knobs] if self.graph is not None else []

    @property
    def weights(self) -> list[str]:
        """The addresses of all weights that are saved."""
        return [a for a, p in self.graph.parameters() if p.kind != "const"] if self.graph is not None else []

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """The costs of blocks by address, at the example sizes."""
        if self.graph is None:
            return {}
        try:
            return {layer.path: layer for layer in self.spec.cost().layers}
        except ArchError:  # at these sizes there is no telling
            return {}


class Readable:
    """A version without errors of syntax: its text, where its pieces stood in it, and the facts about its models, each found when it is asked for."""

    def __init__(self, checked: Checked, known: dict[Any, Facts]):
        self.checked, self.text = checked, checked.source.text
        cuts = sorted({(d.span.source.at(0), id(d.span.source)): d.span.source for d in checked.module.tree.decls}.items())
        self.starts, self._order = [at for (at, _), _ in cuts], [source for _, source in cuts]
        self.sources = set(self._order)
        self._known = known  # of all versions, by the piece of the model and the mark of what it depends on
        self._mine = {self._key(d): d for d in checked.module.models.values()}

    def _key(self, decl: tree.Model) -> Any:
        return decl.span.source, decl.name, self.checked.marks.get(decl.name, 0)

    @property
    def missing(self) -> list[tree.Model]:
        """The models that no facts are known of."""
        return [d for key, d in self._mine.items() if key not in self._known]

    def learn(self, decl: tree.Model) -> Facts:
        """The facts about one model."""
        key = self._key(decl)
        if key not in self._known:
            while len(self._known) > MOST_MODELS:
                del self._known[next(iter(self._known))]
            self._known[key] = Facts(self.checked.module, decl, self.sources)
        return self._known[key]

    @property
    def facts(self) -> list[Facts]:
        """Those of all its models."""
        return [self.learn(d) for d in self._mine.values()]

    def place(self, start: int, end: int) -> Span | None:
        """A stretch of its text, in the piece where its tree lies."""
        at = bisect_right(self.starts, start) - 1
        return Span(self._order[at], start - self.starts[at], end - self.starts[at]) if at >= 0 else None


class Document:
    """One version of a text in an editor. `before`: the version it was edited from, of which no more may be asked. `tried`: its diagnostics when
    their fixes have been tried."""

    def __init__(self, path: str, text: str, before: Document | None = None):
        self.path, self.text = path, text
        self.source = Source(path, text)
        self.tried: list[Diagnostic] | None = None
        self._checker = Checker(path) if before is None else before._checker
        self._known: dict[Any, Facts] = {} if before is None else before._known
        self._good: Readable | None = None if before is None else before.good if "checked" in before.__dict__ else before._good

    @cached_property
    def checked(self) -> Checked:
        """What can be read of the text, and all that is wrong with it."""
        return self._checker.check(self.text)

    @property
    def module(self) -> Module:
        """What could be read of the text, with its imports."""
        return self.checked.module

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """Errors and lints, those of other files too, as `archdsl check` finds them; until their fixes have been tried, with those that come to
        mind first."""
        return self.checked.diagnostics if self.tried is None else self.tried

    @property
    def broken(self) -> bool:
        return self.checked.broken

    @cached_property
    def now(self) -> Readable | None:
        """This version, when it can be read and evaluated as far as that goes."""
        faults = [d for d in self.module.diagnostics if d.severity == "error"] or [d for d in self.diagnostics if d.code == "A0602"]
        return None if faults else Readable(self.checked, self._known)

    @cached_property
    def good(self) -> Readable | None:
        """This version when it has no error, else the last one before it that had none."""
        return self._good if self.broken else self.now

    def prepare(self) -> bool:
        """Finds out a part of what may be asked next; whether there is more to do."""
        if self._checker.tired:
            self._checker.begin()
            self.__dict__.update(checked=self._checker.check(self.text))
            self.__dict__.pop("good", None)
            self.__dict__.pop("now", None)
            return True
        missing = self.now.missing if self.now is not None else []
        if missing and self.now is not None:
            self.now.learn(missing[0])
        return bool(missing)

    # ---------------------------------------------------------------- what is known at a place
    def values(self, span: Span) -> list[Any]:
        """The values that an expression had, in this version or at the same place of the last good one."""
        for version, place in self._versions(span):
            if found := [v for f in version.facts for v in f.values.get(place, ())]:
                return found[:MOST]
        return []

    def calls(self, span: Span) -> list[tuple[Facts, str, Graph]]:
        """The applications of blocks that an expression is: the model, the address, the definition."""
        for version, place in self._versions(span):
            if found := [(f, *c) for f in version.facts for c in f.calls.get(place, ())]:
                return found
        return []

    def _versions(self, span: Span) -> Iterator[tuple[Readable, Span]]:
        """Where facts about an expression are kept: its own place, and where it stood in the last good version, if it is still the same there."""
        if self.now is not None:
            yield self.now, span
        if self.good is None or self.good is self.now:
            return
        if span.source in self.good.sources:
            yield self.good, span
            return
        start, end = span.source.at(span.start), span.source.at(span.end)
        old, new = self._carried(self.good.text, start), self._carried(self.good.text, end, True)
        if old is not None and new is not None and self.good.text[old:new] == self.text[start:end] and (place := self.good.place(old, new)):
            yield self.good, place

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
        for d in self.module.tree.decls:
            local = offset - d.span.source.at(0)
            stack: list[tree.Node] = [d]
            while stack:
                n = stack.pop()
                if n.span.source is d.span.source and n.span.start <= local <= n.span.end:
                    if isinstance(n, kinds):
                        found.append(n)
                    stack += tree.children(n)
        return sorted(found, key=lambda n: n.span.end - n.span.start)


def _common(a: str, b: str) -> int:
    """How many characters two texts have in common at their start."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
