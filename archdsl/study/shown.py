"""What a study has found, as data: its front, the best of each objective, one study beside others."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from archdsl.search.model import Objective
from archdsl.study.errors import named
from archdsl.study.front import Scores, covered, hypervolume
from archdsl.study.store import Entry
from archdsl.study.study import Study


def variant_names(count: int, taken: Sequence[str] = ()) -> list[str]:
    """The names of a front's points as variants: p0, p1, … from the best in the first objective on; those of the spec are left alone."""
    letter = "p"
    while any(name.startswith(letter) and name[len(letter):].isdigit() for name in taken):
        letter += "p"
    return [f"{letter}{i}" for i in range(count)]


def summary(study: Study) -> dict[str, Any]:
    """What `study show --json` prints. `hypervolume`: the share of the box between the best and the worst scores seen that the front dominates."""
    store, plan = study.store, study.plan
    front = study.front()
    return {
        "trials": store.finished, "failed": store.failed, "budget": plan.budget, "seed": plan.seed, "spec": plan.source, "model": plan.model,
        "variant": plan.variant, "objectives": list(map(str, plan.objectives)), "space": plan.space, "limits": list(plan.limits),
        "strategy": plan.strategy,
        "evaluator": plan.evaluator, "archdsl": plan.archdsl, "sessions": len(store.sessions()),
        "best": {o.name: point(e) for o in study.objectives if (e := study.best(o)) is not None},
        "pareto": [{"variant": name, **point(e)} for name, e in zip(variant_names(len(front)), front)],
        "hypervolume": share(study), "reasons": [{"reason": r, "trials": n} for r, n in store.reasons()],
    }


def point(e: Entry) -> dict[str, Any]:
    """A trial of the front as data. What is measured beside the objectives may be no number: then it is null."""
    values = {n: v if math.isfinite(v) else None for n, v in e.values.items()}
    return {"trial": e.number, "values": values, "knobs": e.knobs, "hash": e.key, "origin": e.origin, "parents": list(e.parents),
            "repaired": list(e.repaired), "seconds": e.seconds}


def share(study: Study) -> float | None:
    """The hypervolume, relative to the box of the scores seen; None where it says nothing, or where moocore is not installed."""
    if study.store.extent is None:
        return None
    try:
        return hypervolume([s for _, s in study.store.front.members], *study.store.extent)
    except ImportError:
        return None


def compared(studies: Sequence[Study]) -> dict[str, Any]:
    """Studies beside each other: trials, best values, the hypervolume in the box that holds all of them, and `covers`: by study, the share of its
    front that is no better than some point of this one. Raises A0833 for other objectives, A0831 without moocore."""
    objectives = studies[0].objectives
    for s in studies[1:]:
        if s.objectives != objectives:
            texts = [", ".join(map(str, x.objectives)) for x in (studies[0], s)]
            raise named("A0833", f"`{studies[0].folder}` and `{s.folder}` have different objectives", texts[1], what=s.folder,
                        notes=(f"{studies[0].folder}: {texts[0]}", f"{s.folder}: {texts[1]}"))
    extents = [s.store.extent for s in studies if s.store.extent is not None]
    corners = [c for e in extents for c in e]
    box: tuple[Scores, Scores] | None = (tuple(map(min, zip(*corners))), tuple(map(max, zip(*corners)))) if corners else None
    fronts = [[scores for _, scores in s.store.front.members] for s in studies]
    rows = [_compared(s, front, box, [(t.folder, other) for t, other in zip(studies, fronts) if t is not s]) for s, front in zip(studies, fronts)]
    return {"objectives": list(map(str, objectives)), "studies": rows}


def _compared(study: Study, front: list[Scores], box: tuple[Scores, Scores] | None, others: list[tuple[str, list[Scores]]]) -> dict[str, Any]:
    from archdsl.study.errors import missing_package

    try:
        volume = hypervolume(front, *box) if box is not None else None
    except ImportError:
        raise missing_package("moocore", "a comparison of fronts") from None
    best = {o.name: e.values[o.name] if (e := study.best(o)) is not None else None for o in study.objectives}
    return {"study": study.folder, "strategy": study.plan.strategy, "seed": study.plan.seed, "trials": study.store.finished,
            "failed": study.store.failed, "front": len(front), "best": best, "hypervolume": volume,
            "covers": {name: covered(front, other) for name, other in others}}


# ---------------------------------------------------------------- as text
def number(value: Any) -> str:
    """Whole numbers in full, others with five digits."""
    if value is None:
        return ""
    return f"{int(value):,}" if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15) else f"{value:.5g}"


def differing(entries: Sequence[Entry]) -> list[str]:
    """The addresses at which these candidates differ, in their order."""
    every = dict.fromkeys(a for e in entries for a in e.knobs)
    absent = object()
    return [a for a in every if any(e.knobs.get(a, absent) != entries[0].knobs.get(a, absent) for e in entries[1:])]


def settings(e: Entry, addresses: Sequence[str], width: int = 90) -> str:
    """`d=512 heads=8 …`, cut where it grows too long."""
    text = " ".join(f"{a}={value_text(e.knobs[a])}" for a in addresses if a in e.knobs)
    return text if len(text) <= width else text[: width - 1].rsplit(" ", 1)[0] + " …"


def value_text(value: Any) -> str:
    """A knob's value on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(value_text, value)) + "]"
    return "none" if value is None else str(value)


def front_table(front: Sequence[Entry], objectives: Sequence[Objective], most: int = 20) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: the points of a front, at most so many, spread over all of it."""
    names = [o.name for o in objectives]
    addresses = differing(front)
    shown = range(len(front)) if len(front) <= most else sorted({round(i * (len(front) - 1) / (most - 1)) for i in range(most)})
    others = [n for n in (front[0].values if front else {}) if n not in names]
    return ["variant", "trial", *names, *others, "where they differ"], [
        [f"p{i}", str(front[i].number), *(number(front[i].values.get(n)) for n in (*names, *others)), settings(front[i], addresses)] for i in shown]
