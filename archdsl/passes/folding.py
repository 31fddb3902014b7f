"""Whether a laid open graph can be folded for certain: then it is folded when somebody looks at the result, which a check does not."""
from __future__ import annotations

from archdsl.elaborate.builder import addresses_above, is_taken
from archdsl.elaborate.limits import MAX_ADDRESS, MAX_NODES, MAX_WEIGHTS
from archdsl.graph import Graph
from archdsl.later import later
from archdsl.passes.flat import Flat

FAR = 10  # a graph counts its nodes and those of its calls, the inputs and the weights read in each: no body of a flat node has so many


def folded(flat: Flat) -> Graph:
    """The graph of a Flat, which is not edited any more. Raises ArchError A0602, A0210, A0211 as a graph under construction does."""
    return later(flat.graph) if flat.root.dirty and _certain(flat) else flat.graph()


def _certain(flat: Flat) -> bool:
    """Whether nothing that a graph under construction refuses can be met: limits are far, and addresses are old ones, or free and no words of
    modules."""
    if (len(flat.nodes) + len(flat.scopes)) * FAR > MAX_NODES or len(flat.params) > MAX_WEIGHTS:
        return False
    old = {a for a, _ in flat.source.parameters()}
    new = [a for a in flat.params if a not in old]
    paths = {s.path for s in flat.scopes}
    above = {p for a in (*flat.params, *paths) for p in addresses_above(a)} if new else set[str]()
    return all(len(a) <= MAX_ADDRESS and a not in paths and a not in above and flat.params.keys().isdisjoint(addresses_above(a))
               and not any(map(is_taken, a.split("."))) for a in new)
