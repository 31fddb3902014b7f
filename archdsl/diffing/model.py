"""`difference`: everything that differs between two models."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from archdsl.cost import FIGURES, Cost, cost
from archdsl.diffing.notes import param_pairs
from archdsl.diffing.structure import Change, compare, folded
from archdsl.dims import symbols
from archdsl.elaborate.builder import join
from archdsl.elaborate.model import Elaborated, static_names
from archdsl.elaborate.values import show
from archdsl.graph import Graph, Param
from archdsl.records import record
from archdsl.spec import Spec


@record(frozen=True, eq=False)
class Side:
    """One of the two models. `written`: whether its spec has knobs and claims of its own; a compiled folder holds a printed graph, without any."""

    name: str
    spec: Spec
    variant: str | None
    made: Elaborated
    cost: Cost
    written: bool = True

    @classmethod
    def of(cls, name: str, spec: Spec, variant: str | None, knobs: dict[str, Any], at: Mapping[str, int], written: bool = True) -> Side:
        """A side at the sizes in `at`. Raises A0641 to A0643 for sizes that the model does not take."""
        made, sizes = spec.sized(variant, dict(at), knobs)
        return cls(name, spec, variant, made, cost(made, sizes), written)


@record(frozen=True)
class Pair:
    """One weight: its address and type before and after; None where there is none."""

    before: str | None
    after: str | None
    types: tuple[str, str]
    sizes: tuple[int, int]

    @property
    def kind(self) -> str:
        if self.before is None or self.after is None:
            return "removed" if self.after is None else "added"
        return "changed" if self.types[0] != self.types[1] else "renamed" if self.before != self.after else "same"


@record(frozen=True, eq=False)
class Difference:
    """`structure`: all blocks, folded; `parameters`: all weights; `knobs`: address -> values as text (None: no such knob); `claims`: texts before and
    after (None: no such claim), those alone that differ; `notes`: what could not be compared."""

    sides: tuple[Side, Side]
    structure: Change
    parameters: tuple[Pair, ...]
    knobs: dict[str, tuple[str | None, str | None]]
    claims: tuple[tuple[str | None, str | None], ...]
    notes: tuple[str, ...] = ()

    @property
    def same_graph(self) -> bool:
        """Whether both compute the same with the same addresses: the graphs have one hash."""
        return self.sides[0].made.graph.hash == self.sides[1].made.graph.hash

    @property
    def costs(self) -> dict[str, tuple[int, int]]:
        """Figure -> before and after."""
        a, b = (s.cost for s in self.sides)
        return {f: (getattr(a, f), getattr(b, f)) for f in FIGURES}

    @property
    def empty(self) -> bool:
        """Whether nothing differs, claims and knobs included."""
        return self.same_graph and not self.knobs and not self.claims and all(a == b for a, b in self.costs.values())

    def counts(self) -> dict[str, tuple[int, int]]:
        """Kind of change -> how many weights, and how many numbers in them (the larger side)."""
        out: dict[str, tuple[int, int]] = {}
        for p in self.parameters:
            tensors, numbers = out.get(p.kind, (0, 0))
            out[p.kind] = tensors + 1, numbers + max(p.sizes)
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain data. Blocks and weights that stay as they are do not stand in it."""
        a, b = self.sides
        return {
            "before": _side(a), "after": _side(b), "same_graph": self.same_graph,
            "structure": [_change(c) for c in self.structure.walk()
                          if c.kind not in ("same", "changed") or c.notes or c.place in ("renamed", "moved")],
            "parameters": [{"change": p.kind, "before": p.before, "after": p.after, "type_before": p.types[0], "type_after": p.types[1]}
                           for p in self.parameters if p.kind != "same"],
            "cost": {f: {"before": x, "after": y} for f, (x, y) in self.costs.items()},
            "knobs": {k: {"before": x, "after": y} for k, (x, y) in self.knobs.items()},
            "claims": [{"before": x, "after": y} for x, y in self.claims],
            "notes": list(self.notes),
        }


def difference(a: Side, b: Side) -> Difference:
    """What differs between two models; structure and weights by address, costs at the sizes of each."""
    whole = compare(a.made.graph, b.made.graph, (not a.written, not b.written))
    notes = tuple(f"{s.name} is a compiled folder: it has no knobs and claims to compare" for s in (a, b) if not s.written)
    return Difference((a, b), folded(whole), tuple(weights(whole)), {} if notes else _knobs(a, b), () if notes else _claims(a, b), notes)


def sizes_for(spec: Spec, made: Elaborated, at: Mapping[str, int], other: Elaborated) -> dict[str, int]:
    """Of the sizes that were asked for those that this model has; one that neither has is left for `sized` to refuse."""
    own, theirs = (_free(m) for m in (made, other))
    return {n: s for n, s in at.items() if n in own or n in static_names(spec.decl) or n not in theirs}


def _free(made: Elaborated) -> set[str]:
    return {n for i in made.inputs for s in i.type.shape for n in symbols(s)}


# ---------------------------------------------------------------- weights
def weights(change: Change) -> Iterator[Pair]:
    """Each weight of both models once, following blocks to where they went."""
    a, b = change.graphs
    if change.kind == "same" and a is not None and b is not None:
        for (x, p), (y, q) in zip(_sorted(a), _sorted(b)):
            yield _pair(join(change.before or "", x), join(change.after or "", y), p, q)
        return
    if a is not None and b is not None:
        for p, q in param_pairs(a, b):
            yield _pair(join(change.before or "", p.path) if p else None, join(change.after or "", q.path) if q else None, p, q)
    else:
        for p in (a or b).params:  # type: ignore[union-attr]
            yield _pair(join(change.before or "", p.path), None, p, None) if a is not None else _pair(None, join(change.after or "", p.path), None, p)
    for below in change.below:
        yield from weights(below)


def _sorted(g: Graph) -> list[tuple[str, Param]]:
    """By address: equal graphs may hold their weights in another order."""
    return sorted(g.parameters(), key=lambda item: item[0])


def _pair(before: str | None, after: str | None, p: Param | None, q: Param | None) -> Pair:
    return Pair(before, after, (str(p.type) if p else "", str(q.type) if q else ""), (prod(p.sizes) if p else 0, prod(q.sizes) if q else 0))


# ---------------------------------------------------------------- what is written
def _knobs(a: Side, b: Side) -> dict[str, tuple[str | None, str | None]]:
    left, right = ({k: show(v.value) for k, v in s.made.knobs.items()} for s in (a, b))
    return {k: (left.get(k), right.get(k)) for k in dict.fromkeys((*left, *right)) if left.get(k) != right.get(k)}


def _claims(a: Side, b: Side) -> tuple[tuple[str | None, str | None], ...]:
    """Claims about the two variants, by what they speak of: `params == 5` and `params == 6` are one that changed."""
    left, right = ({_subject(t): t for t in _texts(s)} for s in (a, b))
    return tuple((left.get(k), right.get(k)) for k in dict.fromkeys((*left, *right)) if left.get(k) != right.get(k))


def _texts(s: Side) -> list[str]:
    return [c.text for c in s.spec.claims if c.variant == s.variant]


def _subject(text: str) -> str:
    for op in ("==", "!=", "<=", ">=", "<", ">", " in "):
        if op in text:
            return text.partition(op)[0].strip()
    return text


# ---------------------------------------------------------------- JSON
def _side(s: Side) -> dict[str, Any]:
    return {"name": s.name, "model": s.spec.name, "variant": s.variant, "hash": s.made.graph.hash, "sizes": s.cost.sizes}


def _change(c: Change) -> dict[str, Any]:
    return {"change": c.kind, "place": c.place, "before": c.before, "after": c.after, "last_before": c.last_before, "last_after": c.last_after,
            "count": c.count, "block_before": c.blocks[0], "block_after": c.blocks[1], "notes": [n.text for n in c.notes], "resized": c.resized}
