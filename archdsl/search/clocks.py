"""Latency as a figure: what limits and objectives ask of it, by tables of blocks. torch is loaded when one is asked."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.claims.words import MEASURED
from archdsl.elaborate.model import Elaborated
from archdsl.search.figures import Figure, Reading
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.search.latency.model import Latency
    from archdsl.spec import Spec


class Clocks:
    """The tables that were asked, each opened once."""

    def __init__(self) -> None:
        self._open: dict[str, Latency] = {}

    def table(self, asked: Figure) -> Latency:
        """Raises ArchError A0816 for a device, A0819 for a file, A0644 for an element type."""
        found = self._open.get(asked.text)
        if found is None:
            from archdsl.search.latency.model import Latency

            given = {n: v for n, v in _named(asked).items() if n in MEASURED["latency"]}
            how: dict[str, Any] = {n: v.value if isinstance(v, tree.Str) else v.id for n, v in given.items()}
            found = self._open[asked.text] = Latency(**how, batch=None)
        return found

    def seconds(self, spec: Spec, made: Elaborated, asked: Figure) -> float:
        """Of one call of a model: `latency(device = "cuda", B = 8, T = 512)`; a CPU, f32 and the spec's example sizes where nothing else is said.
        Blocks that the table does not hold are measured. Raises ArchError as `table`, A0501 for a form that the model does not have."""
        latency = self.table(asked)
        made, latency.at, _ = Reading(spec, made).settled({n: v for n, v in _named(asked).items() if n not in MEASURED["latency"]})
        return latency.predict(made)


def _named(asked: Figure) -> dict[str, Any]:
    return {a.name: a.value for a in asked.node.args if a.name is not None} if isinstance(asked.node, tree.Call) else {}
