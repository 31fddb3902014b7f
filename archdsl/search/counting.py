"""How many assignments there are, draws from them, and figures as sums over parts."""
from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Diagnostic, error
from archdsl.search.domains import draw
from archdsl.search.figures import Figure
from archdsl.search.selection import Selection, descend, uniform
from archdsl.search.tree import Entry, Part, Refused, Root, TooMany

if TYPE_CHECKING:
    from archdsl.search.space import Drawn, SearchSpace


class Counted:
    """The counting structure of a space."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.references: dict[tuple[Part, str], Any] = {}

    @property
    def size(self) -> int | None:
        return None

    @property
    def bounds(self) -> tuple[int, int | None, str]:
        return 0, None, "not counted"

    @property
    def uniform(self) -> bool:
        return False

    # ---------------------------------------------------------------- drawing
    def sample(self, rng: Random) -> Drawn:
        """Raises A0802."""
        from archdsl.search.space import ATTEMPTS

        space = self.space
        reasons: dict[tuple[str, str], Diagnostic] = {}
        for _ in range(ATTEMPTS):
            space.drawn += 1
            found = self._draw(rng)
            if not isinstance(found, Refused):
                space.accepted += 1
                return found
            for d in found.faults[:1]:
                reasons.setdefault((d.code, d.span.text), d)
        raise self._empty(list(reasons.values()))

    def _draw(self, rng: Random) -> Drawn | Refused:
        space = self.space
        values = space.header.sample(rng)
        if len(values) < len(space.header.names):
            return Refused(())
        root = space.root(values)
        if root.faults:
            return Refused(tuple(root.faults))
        selection = root.settled(lambda: self._below(root, rng))
        return selection if isinstance(selection, Refused) else space.finished(selection)

    def _below(self, root: Root, rng: Random) -> Selection | Refused:
        try:
            found = uniform(root.top, rng)
            if found is None:
                return root.top.refused[0] if root.top.refused else Refused(())
            return found
        except TooMany:
            return descend(root.top, lambda _, domain: draw(domain, rng))

    def _empty(self, reasons: list[Diagnostic]) -> ArchError:
        space = self.space
        first = reasons[0] if reasons else None
        span = first.span if first is not None else space.spec.decl.name_span
        return error("A0802", f"no candidate of `{space.spec.name}` was found that satisfies all conditions", span,
                     notes=tuple(d.message for d in reasons[:6]), help="widen a domain, or take a limit back")

    # ---------------------------------------------------------------- sums over parts
    def total(self, selection: Selection, asked: Figure) -> Any:
        """A figure of an assignment: of the model with its parts at their base, and what each part differs from that."""
        return self.own(selection.part, selection.entry, asked) + sum(self.total(s, asked) for s in selection.below)

    def own(self, part: Part, entry: Entry, asked: Figure) -> Any:
        found = entry.figures.get(asked.text)
        if found is None:
            space = self.space
            found = asked.of(space.spec, space.source(entry.made))
            if part.path:
                at = part, asked.text
                if at not in self.references:
                    base = {**part.around, **{part.prefix + a: v for a, v in part.base.items()}}
                    self.references[at] = asked.of(space.spec, space.source(base))
                found -= self.references[at]
            entry.figures[asked.text] = found
        return found
