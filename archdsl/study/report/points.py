"""The points of a front in detail: variant, picture, and what differs from the model that the spec describes by default."""
from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from archdsl.diagnostics.model import ArchError
from archdsl.draw import view
from archdsl.draw.page import Packer, places
from archdsl.elaborate.model import Elaborated
from archdsl.search.figures import figure
from archdsl.search.plain import to_plain
from archdsl.search.space import SearchSpace
from archdsl.source import Source
from archdsl.spec import Spec
from archdsl.study.front import Scores
from archdsl.study.plan import Plan, open_space, open_spec
from archdsl.study.shown import variant_names
from archdsl.study.store import Entry
from archdsl.study.study import Study
from archdsl.study.winners import variant_text

DETAILED = 40
"""So many points have a variant, a picture and a difference in the page, at most."""
ROOM = 1_500_000
"""So many bytes of pictures and differences, at most."""


class Details:
    """The default model, and points beside it. `definitions`: what their pictures have in common."""

    def __init__(self, study: Study) -> None:
        self.plan: Plan = study.plan
        self.spec: Spec = open_spec(study.folder, self.plan)
        self.space: SearchSpace = open_space(self.spec, self.plan)
        self.packer = Packer(spans=False)
        self.name = self.plan.variant or self.plan.model
        self.default = self._default(study)

    def _default(self, study: Study) -> dict[str, Any]:
        """What the spec says where nothing is chosen: its knobs, and its objectives where they were measured or are figures of the graph."""
        made = self.spec.elaborate(self.plan.variant)
        searches = self.space.trials.searches
        knobs = {a: to_plain(k.value) for a, k in self.spec.source(self.plan.variant).knobs.items() if k.allowed is not None and searches(a)}
        known = study.store.known(made.graph.hash, 1.0)
        values = dict(known.values) if known is not None and known.status == "done" else self._counted(made)
        return {"name": self.name, "knobs": knobs, "values": values}

    def _counted(self, made: Elaborated) -> dict[str, float]:
        """What can be counted; nothing is measured for a report."""
        found: dict[str, float] = {}
        for o in self.plan.objectives:
            try:
                asked = figure(self.spec, o.name)
                if not asked.is_measured:
                    found[o.name] = asked.of(self.spec, made)
            except ArchError:  # no figure of the graph, or one that this model does not have
                continue
        return found

    def of(self, name: str, e: Entry) -> dict[str, Any]:
        """A point as data; `why` says what keeps it from being drawn."""
        from archdsl.syntax.fmt import format_module

        text, _ = variant_text(self.spec, self.space, self.plan, name, e)
        told: dict[str, Any] = {"variant": format_module(Source(f"{name}.arch", text))}
        try:
            return {**told, **self._drawn(name, dict(self.space.from_json(e.knobs)))}
        except ArchError as fault:  # example sizes that do not fit
            return {**told, "why": "; ".join(d.message for d in fault.diagnostics)}

    def _drawn(self, name: str, knobs: dict[str, Any]) -> dict[str, Any]:
        from archdsl.diffing import Side, difference
        from archdsl.diffing.page import html_body

        before = Side.of(self.name, self.spec, self.plan.variant, {}, {})
        after = Side.of(name, self.spec, self.plan.variant, knobs, {})
        picture = view(after.made, after.cost.sizes, name)
        return {"root": self.packer.item(picture.root), "opened": places(picture), "difference": html_body(difference(before, after), "h4")}


def chosen(scores: list[Scores], most: int = DETAILED) -> list[int]:
    """Places of a front's points, the most telling first: the nearest to the best in all objectives, the best in each, then evenly spaced."""
    if not scores:
        return []
    width = range(len(scores[0]))
    ends = [min(range(len(scores)), key=lambda at, i=i: scores[at][i]) for i in width]
    spaced = [round(k * (len(scores) - 1) / max(1, most - 1)) for k in range(most)]
    return list(dict.fromkeys([middle(scores), *ends, *spaced]))[:most]


def middle(scores: list[Scores]) -> int:
    """The place of the point nearest to the best values of all objectives, in the box of the front."""
    low, high = [min(x) for x in zip(*scores)], [max(x) for x in zip(*scores)]
    return min(range(len(scores)), key=lambda at: sum(((v - a) / ((b - a) or 1)) ** 2 for v, a, b in zip(scores[at], low, high)))


def detailed(study: Study, details: Details, told: Callable[[int, int], None] = lambda done, of: None) -> dict[int, dict[str, Any]]:
    """Place on the front -> point, for as many as there is room. `told` hears of how many are done of how many."""
    front = study.front()
    names = variant_names(len(front), [v for s in details.spec.models.values() for v in s.variants])
    wanted = chosen([tuple(o.sign * e.values[o.name] for o in study.objectives) for e in front])
    found: dict[int, dict[str, Any]] = {}
    used = 0
    for done, at in enumerate(wanted):
        told(done, len(wanted))
        before = len(details.packer.definitions)
        point = details.of(names[at], front[at])
        used += len(json.dumps(point)) + len(json.dumps(details.packer.definitions[before:]))
        if used > ROOM and found:
            break
        found[at] = point
    return found
