"""Foreign names behind steps: a spec's maps from addresses to foreign keys, carried to the weights that a rewritten model has."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.records import record, replace
from archdsl.weightmap import Alias, Entry, MapError, WeightMap
from archdsl.weightmap import Step as MapStep

if TYPE_CHECKING:
    from archdsl.passes.model import Model


@record(frozen=True)
class Prevented:
    """Why a model's weights have no foreign names any more: `step` made others of the weight `address`, or a new one there."""

    step: str
    address: str

    def to_json(self) -> dict[str, Any]:
        return {"prevented": [self.step, self.address]}


Foreign = WeightMap | Prevented


def read(data: Mapping[str, Any]) -> Foreign:
    """What `to_json` of either wrote. Raises KeyError, TypeError or ValueError for other data."""
    return Prevented(*data["prevented"]) if "prevented" in data else WeightMap.from_json(data)


def carried(model: Model, maps: Mapping[str, Foreign]) -> dict[str, Foreign]:
    """The maps of the graph with which a model's steps began, from its own weights to foreign keys. One of them is `Prevented` where a step changed
    what a weight holds: then the foreign tensors could not be told from it."""
    return {name: m if isinstance(m, Prevented) else _carried(model, m) for name, m in maps.items()}


def _carried(model: Model, names: WeightMap) -> Foreign:
    sources = [*names.sources(), *(a for e in names.repeated("target") for a in e.source), *(c.key for c in names.constants if c.side == "source")]
    lost = next((a for a in sources if a in model.lost), None)
    if lost is not None:
        return Prevented(model.lost[lost], lost)
    for address, step in model.fresh.items():
        return Prevented(step, address)
    ways = _Ways(model.names)
    try:
        return WeightMap(tuple(map(ways.entry, names.entries)), tuple(Alias(ways.entry(a.entry) if a.side == "target" else a.entry, a.side)
                                                                      for a in names.aliases),
                         tuple(replace(c, key=ways.plain(c.key)) if c.side == "source" else c for c in names.constants), names.ignored)
    except MapError as fault:
        return Prevented(model.recipe[-1].step, str(fault))


class _Ways:
    """From weights of the first graph to those that hold them now."""

    def __init__(self, names: WeightMap):
        self.whole = {e.source: e for e in names.entries}

    def entry(self, e: Entry) -> Entry:
        """The foreign tensors, made of weights as they are now. Raises MapError with the address of a weight where that cannot be said."""
        known = self.whole.get(e.source)
        if known is not None:
            return Entry(known.target, e.target, (*_back(known), *e.steps))
        parts = [self.whole.get((a,)) for a in e.source]
        if any(p is None or len(p.target) != 1 for p in parts):
            raise MapError(e.source[0])
        found = [p for p in parts if p is not None]
        return Entry(tuple(p.target[0] for p in found), e.target, (*_beside([_back(p) for p in found], e.source[0]), *e.steps))

    def plain(self, address: str) -> str:
        known = self.whole.get((address,))
        if known is None or len(known.target) != 1 or known.steps:
            raise MapError(address)
        return known.target[0]


def _back(e: Entry) -> tuple[MapStep, ...]:
    return e.inverted().steps


SAME: dict[str, Callable[[], tuple[Any, ...]]] = {"transpose": lambda: (0, 0), "add": lambda: (0,), "scale": lambda: (1,)}
"""Items that leave a tensor as it is."""


def _beside(ways: list[tuple[MapStep, ...]], address: str) -> tuple[MapStep, ...]:
    """Steps of single tensors, each list for its own one, as steps of all of them."""
    out: list[MapStep] = []
    rest = [list(w) for w in ways]
    while any(rest):
        kind = next(w[0].kind for w in rest if w)
        if kind not in SAME and not all(w and w[0].kind == kind for w in rest) or any(len(w[0].items) != 1 for w in rest if w):
            raise MapError(address)
        out.append(MapStep(kind, tuple(w.pop(0).items[0] if w and w[0].kind == kind else SAME[kind]() for w in rest)))
    return tuple(out)
