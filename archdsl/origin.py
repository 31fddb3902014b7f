"""Where a built model comes from: its spec, its settings, its typed graph and its foreign names."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.weightmap import Shape, WeightMap

if TYPE_CHECKING:
    from archdsl.graph import Graph
    from archdsl.passes.foreign import Foreign, Prevented
    from archdsl.spec import Spec


class Origin:
    """The attribute `archdsl` of a built model. It travels with copies, pickles and checkpoints.

    `path`: the spec's file as it was given; `model`, `variant`; `knobs`: the settings by address, as text of the language; `graph`: the typed
    graph. `names` maps own addresses to foreign keys; it is worked out at first use, at the latest when the model is pickled. `prevented`: the blocks
    of names that steps have taken from a rewritten model, with the step.
    """

    def __init__(self, path: str, model: str, variant: str | None, knobs: dict[str, str], graph: Graph,
                 names: Mapping[str, Foreign] | Callable[[], Mapping[str, Foreign]], spec: Spec | None = None):
        self.path, self.model, self.variant, self.knobs, self.graph, self.spec = path, model, variant, knobs, graph, spec
        self._names = names

    @property
    def names(self) -> dict[str, WeightMap]:
        """The maps by the names of their blocks. Raises ArchError for faults in them."""
        return {n: m for n, m in self.foreign.items() if isinstance(m, WeightMap)}

    @property
    def prevented(self) -> dict[str, Prevented]:
        """Blocks of names that do not reach this model, with the reason."""
        return {n: m for n, m in self.foreign.items() if not isinstance(m, WeightMap)}

    @property
    def foreign(self) -> Mapping[str, Foreign]:
        """All blocks of names. Raises ArchError for faults in them."""
        if callable(self._names):
            self._names = self._names()
        return self._names

    @property
    def shapes(self) -> dict[str, Shape]:
        """Address -> shape of all weights that the model saves."""
        from archdsl.names import own_shapes

        return own_shapes(self.graph)

    def __repr__(self) -> str:
        settings = "".join(f", {k}={v}" for k, v in self.knobs.items())
        return f"Origin({self.path}:{self.model}{f'.{self.variant}' if self.variant else ''}{settings})"

    # It never changes, so copies of a model share it.
    def __copy__(self) -> Origin:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Origin:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_names": self.foreign, "spec": None}
