"""`Latency`: predicted by a table of pieces, which grows as candidates need it."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from archdsl.cost.sizes import model_sizes
from archdsl.elaborate.model import Elaborated
from archdsl.graph import Graph
from archdsl.lazy import torch
from archdsl.lower.plan import Definition, plan
from archdsl.ops.registry import LENGTH
from archdsl.search.latency.bench import Bench, Measured, empty
from archdsl.search.latency.pieces import Counts, Given, Piece, cut, given
from archdsl.search.latency.table import Table, cache_file
from archdsl.streaming import in_form, source

EMPTY = "a call of an empty module"
"""The key of what calling takes by itself."""
BINDING = "eager"
"""How ops are bound to kernels: torch's own, op by op."""


class Latency:
    """Seconds of one call in evaluation, on a device, in an element type and a form, as the sum over a model's pieces (pieces.py), each measured
    once. What calling a module takes counts once for the model and in each block, as it does when the model runs; from what stands between blocks it
    is taken off.

    `batch`: of the first axis of the inputs, where that is a run-time size (None: the spec's example); `at`: other run-time sizes, else the spec's
    examples. A form with state is measured with room for as many positions as its axis has. `table`: a file, else one in the user's cache folder.
    `measured`: how many pieces this object has measured itself. Raises ArchError A0501 for a form, A0644 for an element type, A0816 for a device,
    A0819 for a table.
    """

    def __init__(self, device: str = "cpu", form: str = "parallel", dtype: str = "f32", batch: int | None = 1, at: Mapping[str, int] | None = None,
                 repeats: int = 20, table: str | None = None) -> None:
        self.form, self.batch, self.at, self.repeats = form, batch, dict(at or {}), repeats
        self.bench = Bench(device, dtype)
        self.dtype = str(self.bench.dtype).removeprefix("torch.")
        where = {"device": self.bench.name, "dtype": self.dtype, "form": form, "binding": BINDING, "torch": torch.__version__}
        self.table = Table(table or cache_file(), where)
        self.measured = 0
        self._known: dict[str, Measured] = {}

    # ---------------------------------------------------------------- what a model is made of
    def program(self, made: Elaborated) -> tuple[Definition, tuple[Given, ...], dict[str, int]]:
        """A model in the form, lowered but not built; its inputs; its run-time sizes. Raises ArchError A0501, A0641 to A0643."""
        sizes = model_sizes(made, {**self._batch(made), **self.at})
        streamed = in_form(source(made), self.form)
        if streamed is None:
            root, slots = _planned(made.graph, self.dtype), 0
        else:
            root = plan(streamed.graph, dtype=self.dtype, state=streamed.addresses, moves=(streamed.step, streamed.longest))
            slots = len(streamed.slots)
            length = sizes[streamed.axis] + streamed.delay
            length = length if streamed.longest is None else min(length, streamed.longest)
            sizes = {**{n: s for n, s in sizes.items() if n != streamed.axis or self.form != "step"}, LENGTH: length}
        own = root.graph.inputs[:len(root.graph.inputs) - slots]
        ranges = {i.name: None if i.type.is_float or i.low is None else (int(i.low), int(i.high)) for i in made.inputs}
        inputs = [given(v.type, sizes, ranges.get(v.node.attrs["name"])) for v in own] + [given(v.type, sizes) for v in root.graph.inputs[len(own):]]
        return root, tuple(inputs), sizes

    def _batch(self, made: Elaborated) -> dict[str, int]:
        first = next((i.type.shape[0] for i in made.inputs if i.type.shape), 1)
        return {str(first): self.batch} if self.batch is not None and not isinstance(first, int) and str(first) in first.symbols else {}

    def pieces(self, made: Elaborated) -> Counts:
        """The pieces of a model, each with how often it runs."""
        return cut(*self.program(made))

    # ---------------------------------------------------------------- figures
    def predict(self, made: Elaborated) -> float:
        """Seconds of one call of the model. Pieces that are not in the table are measured first."""
        counts = self.pieces(made)
        self.know([piece for piece, _ in counts.values()])
        calling = self._known[EMPTY].seconds
        total = calling
        for key, (piece, times) in counts.items():
            took = self._known[key].seconds
            total += times * (took if piece.block else max(0.0, took - calling))
        return total

    def know(self, pieces: Sequence[Piece]) -> None:
        """Measures what the table does not hold, among all pieces of its model."""
        keys = [EMPTY, *(p.key for p in pieces)]
        if self._missing(keys):
            with self.table.alone():
                missing = self._missing(keys)  # another process may have measured it meanwhile
                if missing:
                    calls = [empty(), *(self.bench.ready(p.definition, p.inputs) for p in pieces)]
                    found = self.bench.in_turns(calls, [keys.index(k) for k in missing], self.repeats)
                    self.table.put(dict(zip(missing, found)))
                    self._known.update(zip(missing, found))
                    self.measured += len(missing)

    def _missing(self, keys: Sequence[str]) -> list[str]:
        """Those that neither this object nor the table knows."""
        self._known |= self.table.get(k for k in keys if k not in self._known)
        return [k for k in keys if k not in self._known]

    def whole(self, made: Elaborated) -> Callable[[], Any]:
        """A call of the whole model, to be measured itself."""
        root, inputs, _ = self.program(made)
        return self.bench.ready(root, inputs)


@lru_cache(16)
def _planned(graph: Graph, dtype: str) -> Definition:
    return plan(graph, dtype=dtype)
