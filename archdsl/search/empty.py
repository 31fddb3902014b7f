"""Why a space has no candidate, or why draws found none: which conditions exclude each other, and what refuses draws."""
from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Diagnostic, Label, error
from archdsl.elaborate.values import show
from archdsl.search.tree import Refused
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.search.figures import Limit
    from archdsl.search.space import Drawn, SearchSpace

DRAWS = 300
"""So many draws tell what refuses assignments."""
OTHERS = 20
"""So many candidates without limits tell of their figures."""


def nothing(space: SearchSpace) -> ArchError:
    """A0802 where it is proved that there is none, with the fewest conditions that leave nothing: what does not fit together by itself, or limits
    that do not with each other. A0806 where draws found none, with what they were."""
    spec = space.spec
    what = f"no candidate of `{spec.name}`"
    if space.counted.contrary:
        first, second = space.counted.contrary
        return error("A0802", f"{what} satisfies all conditions: no number keeps within both `{first.text}` and `{second.text}`", first.node.span,
                     "not together", labels=(Label(second.node.span, "with this"),), help="take one of these limits back")
    if space.limits:
        without = space.limited(())
        some = [c for seed in range(OTHERS) if (c := without.counted.find(Random(seed))) is not None]
        if not some:
            return nothing(without)
        if not space.counted.empty:
            kept = [f"{sum(without.holds(n, c) for c in some)} of {len(some)} others keep within `{n.text}`" for n in space.limits]
            told = (*kept, *_domains(space, space.limits), *_figures(space.limits, without, some))
            return _missed(space, f"{what} was found that satisfies all conditions", space.limits, told)
        core = _core(space, list(space.limits))
        span, labels = core[0].node.span, tuple(Label(n.node.span, "cannot hold together with it") for n in core[1:])
        alone = f"none keeps within `{core[0].text}`" if len(core) == 1 else \
            f"none keeps within {' and '.join(f'`{n.text}`' for n in core)} together"
        if len(core) > 1 and all(_some(space, [n]) for n in core):
            alone += ", though some keep within each"
        return error("A0802", f"{what} satisfies all conditions: {alone}", span, "not with these domains", labels=labels,
                     notes=(*_domains(space, core), *_figures(core, without, some)), help="widen a domain, or take a limit back")
    reasons = _reasons(space)
    if not space.counted.empty:
        return _missed(space, f"{what} was found that can be built", (), tuple(d.message for d in reasons[:4]))
    first = reasons[0] if reasons else None
    told = tuple(f"{d.message}" for d in reasons[:4])
    return error("A0802", f"{what} can be built: every setting within the domains breaks a condition", first.span if first else spec.decl.name_span,
                 "this one, among others" if len(reasons) > 1 else "this one", notes=told, help="widen a domain of the knobs in it")


def _missed(space: SearchSpace, what: str, limits: Sequence[Limit], notes: tuple[str, ...]) -> ArchError:
    """A0806, of draws that found nothing."""
    spec, fitted = space.spec, f"{space.accepted:,} fitted" if space.accepted else "none fitted"
    span = limits[0].node.span if limits else spec.decl.name_span
    climb = space.counted.climb
    looked = climb.looked
    if climb.nearest[1]:
        notes = (*notes, f"the nearest that was met has {', '.join(f'`{f}` = {v:,}' for f, v in climb.nearest[1].items())}")
    steps = f", nor did {looked:,} steps towards the limits lead to one" if looked else ""
    return error("A0806", f"{what}: of {space.drawn:,} draws {fitted}{steps}", span, "asked for here" if limits else "this model",
                 labels=tuple(Label(n.node.span, "and here") for n in limits[1:]), notes=notes,
                 help=("that proves nothing: there may be some among what was not drawn", "begin with a candidate that is known "
                       "(`space.candidate({…})`, then `space.mutate`), or set knobs by a variant, so that less is drawn",
                       "widen a limit: the share of draws that fit is `space.acceptance`"))


def _figures(limits: Sequence[Limit], without: SearchSpace, some: Sequence[Drawn]) -> tuple[str, ...]:
    """Between which numbers the limited figures of candidates without limits lie."""
    found: dict[str, str] = {}
    for f in (f for n in limits for f in n.figures):
        values = [without.figure(c, f) for c in some]
        found[f.text] = f"`{f.text}` of {len(some)} others goes from {min(values):,} to {max(values):,}"
    return tuple(found.values())


def _domains(space: SearchSpace, limits: Sequence[Limit]) -> tuple[str, ...]:
    """What the knobs in these limits may be."""
    knobs = space.spec.source(space.variant).knobs
    named = dict.fromkeys(n for limit in limits for n in (*_names(limit.node), *limit.addresses))
    return tuple(f"`{n}` is in {knob.allowed}" if space.trials.searches(n) else f"`{n}` is {show(knob.value)}, and no decision"
                 for n in named if (knob := knobs.get(n)) is not None and knob.allowed is not None)


def _names(node: Any) -> list[str]:
    return [node.id] if isinstance(node, tree.Name) else [n for child in tree.children(node) for n in _names(child)]


def _core(space: SearchSpace, limits: list[Limit]) -> list[Limit]:
    """A smallest list of limits, by leaving one out after the other, that leaves nothing."""
    kept = list(limits)
    for limit in limits:
        others = [n for n in kept if n is not limit]
        if others and space.limited(others).counted.empty:
            kept = others
    return kept


def _some(space: SearchSpace, limits: list[Limit]) -> bool:
    """Whether some candidate keeps within these limits."""
    return space.limited(limits).counted.find(Random(0)) is not None


def _reasons(space: SearchSpace) -> list[Diagnostic]:
    """What refuses draws, the most frequent first."""
    counts: dict[tuple[str, str], list[Diagnostic]] = {}
    for seed in range(DRAWS):
        found = space.counted.attempt(Random(seed))
        if isinstance(found, Refused):
            for d in found.faults[:1]:
                counts.setdefault((d.code, d.message if d.code != "A0310" else d.span.text), []).append(d)
    return [ds[0] for ds in sorted(counts.values(), key=len, reverse=True)]
