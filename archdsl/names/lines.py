"""Lines of `names` blocks as they were read, the weights that they are about, and what comes of compiling them."""
from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import Diagnostic
from archdsl.names.pairing import Pairing
from archdsl.names.patterns import Binding, Choice, Expression, Index, Pattern, Star, outline
from archdsl.names.steps import Chain
from archdsl.records import field, record
from archdsl.weightmap import Shape, WeightMap

if TYPE_CHECKING:
    from archdsl.graph import Graph


Member = tuple[str, Binding]  # an address and what it binds


@record()
class Compiled:
    """The map as far as it goes, with what is wrong. `used`: for each line, by its place in the block, whether its condition ever held, and
    which items of its lists some address had."""

    map: WeightMap
    found: list[Diagnostic]
    used: dict[int, Use] = field(default_factory=dict)
    chains: list[Chained] = field(default_factory=list)


@record()
class Use:
    active: bool = False
    matched: bool = False
    picks: set[tuple[int, int]] = field(default_factory=set)  # (place of the list, place of its item)


@record()
class Chained:
    """Operations that were found to fit: the line, the weights, how they are joined and the indices."""

    read: Line
    sources: tuple[str, ...]
    joins: list[tuple[int, ...]]
    indices: dict[str, int]


def own_shapes(graph: Graph) -> dict[str, Shape]:
    """Address -> shape of all that a model saves: parameters, frozen ones, buffers."""
    return {a: p.sizes for a, p in graph.parameters() if p.kind != "const"}


@record(slots=False)
class Weights:
    """The weights of one variant. `shapes` by address; `outlines`: addresses by what they are without their numbers."""

    graph: Graph

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        return own_shapes(self.graph)

    @cached_property
    def outlines(self) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        for address in self.shapes:
            out.setdefault(outline(address), []).append(address)
        return out


@record(slots=False)
class Line:
    """A line as it was read. `bindings` by address are kept when they are the same in all variants (`constant`); for plain renamings `texts`: of
    each part of the address that is no plain text, None where the pattern does not fit, and `keys`: the foreign keys, where nothing is computed.
    `fits`: the pattern's answer for an outline; `steps`: the operations for weights of these shapes, where no hyper argument counts."""

    own: Pattern
    foreign: Pattern
    together: Pairing
    chain: Chain
    constant: bool
    bindings: dict[str, Binding | None] = field(default_factory=dict)
    texts: dict[str, tuple[str, ...] | None] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    fits: dict[str, bool] = field(default_factory=dict)
    steps: dict[Any, Any] = field(default_factory=dict)

    @property
    def renames(self) -> bool:
        return not (self.chain.ops or self.together.own or self.together.foreign)

    def fitting(self, shapes: Iterable[str]) -> list[str]:
        """Those outlines whose addresses can fit."""
        fits = self.fits
        for shape in shapes:
            if shape not in fits:
                fits[shape] = self.own.outline.fullmatch(shape) is not None
        return [shape for shape in shapes if fits[shape]]

    @cached_property
    def groups(self) -> tuple[Any, ...] | None:
        """The parts of the address that are no plain text, where they can be read off it one by one; else None."""
        parts = tuple(p for p in self.own.parts if not isinstance(p, str))
        plain = all(isinstance(p, (Index, Star)) or isinstance(p, Choice) and all(isinstance(i, str) for i in p.items) for p in parts)
        return parts if plain and len(self.own.indices) == sum(isinstance(p, Index) for p in parts) else None

    @cached_property
    def renaming(self) -> list[str | Expression | tuple[int, dict[str, str] | None]] | None:
        """The foreign key from the texts of `groups`: plain text, (which one, what it becomes; None: itself), or a number to compute. None where
        it cannot be made so."""
        if self.groups is None or not self.renames:
            return None
        at = [k for k, p in enumerate(self.groups) if isinstance(p, Choice)]
        index = {p.name: k for k, p in enumerate(self.groups) if isinstance(p, Index)}
        stars = iter([k for k, p in enumerate(self.groups) if isinstance(p, Star)])
        out: list[str | Expression | tuple[int, dict[str, str] | None]] = []
        lists = iter([at[self.together.pairs[k]] for k in range(len(self.foreign.choices))])
        for p in self.foreign.parts:
            if isinstance(p, (str, Expression)):
                out.append(p)
            elif isinstance(p, Index):
                out.append((index[p.name], None))
            elif isinstance(p, Star):
                out.append((next(stars), None))
            elif all(isinstance(i, str) for i in p.items):
                k = next(lists)
                out.append((k, dict(zip(reversed(self.groups[k].texts), reversed(p.texts)))))
            else:
                return None
        return out

    def texts_of(self, address: str) -> tuple[str, ...] | None:
        """The entry of `texts` for an address."""
        if address not in self.texts:
            found = self.own.regex.fullmatch(address)
            self.texts[address] = None if found is None else found.groups()
        return self.texts[address]


Memo = dict[int, Line]
"""Lines by their place in the block: what the compilations of several variants share."""
