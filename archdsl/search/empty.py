"""Why a space has no candidate: which conditions exclude each other."""
from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from archdsl.diagnostics.model import ArchError, Diagnostic, Label, error
from archdsl.search.tree import Refused

if TYPE_CHECKING:
    from archdsl.search.figures import Limit
    from archdsl.search.space import SearchSpace

DRAWS = 300
"""So many draws tell what refuses assignments."""


def nothing(space: SearchSpace) -> ArchError:
    """A0802, with the fewest conditions that leave nothing: what does not fit together by itself, or limits that do not with each other."""
    spec = space.spec
    what = f"no candidate of `{spec.name}`"
    if space.limits:
        without = type(space)(spec, None, space.variant, fixed=space.fixed)
        some = [c for seed in range(20) if (c := without.counted.find(Random(seed))) is not None]
        if not some:
            return nothing(without)
        core = _core(space, list(space.limits))
        span, labels = core[0].node.span, tuple(Label(n.node.span, "cannot hold together with it") for n in core[1:])
        alone = f"none keeps within `{core[0].text}`" if len(core) == 1 else \
            f"none keeps within {' and '.join(f'`{n.text}`' for n in core)} together, though some keep within each"
        seen = [f"`{f.text}` of {len(some)} others goes from {min(v):,} to {max(v):,}" for n in core for f in n.figures
                if (v := [without.figure(c, f) for c in some])]
        return error("A0802", f"{what} satisfies all conditions: {alone}", span, "not with these domains", labels=labels, notes=tuple(seen),
                     help="widen a domain, or take a limit back")
    reasons = _reasons(space)
    first = reasons[0] if reasons else None
    told = tuple(f"{d.message}" for d in reasons[:4])
    return error("A0802", f"{what} can be built: every setting within the domains breaks a condition", first.span if first else spec.decl.name_span,
                 "this one, among others" if len(reasons) > 1 else "this one", notes=told, help="widen a domain of the knobs in it")


def _core(space: SearchSpace, limits: list[Limit]) -> list[Limit]:
    """A smallest list of limits, by leaving one out after the other, that leaves nothing."""
    kept = list(limits)
    for limit in limits:
        others = [n for n in kept if n is not limit]
        if others and not _some(space, others):
            kept = others
    return kept


def _some(space: SearchSpace, limits: list[Limit]) -> bool:
    """Whether some candidate keeps within these limits."""
    return type(space)(space.spec, None, space.variant, read=limits, fixed=space.fixed).counted.find(Random(0)) is not None


def _reasons(space: SearchSpace) -> list[Diagnostic]:
    """What refuses draws, the most frequent first."""
    counts: dict[tuple[str, str], list[Diagnostic]] = {}
    for seed in range(DRAWS):
        found = space.counted.attempt(Random(seed))
        if isinstance(found, Refused):
            for d in found.faults[:1]:
                counts.setdefault((d.code, d.message if d.code != "A0310" else d.span.text), []).append(d)
    return [ds[0] for ds in sorted(counts.values(), key=len, reverse=True)]
