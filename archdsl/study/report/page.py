"""The report: everything that is known of a study, as data in a page whose scripts draw it."""
from __future__ import annotations

import os
from collections.abc import Callable
from html import escape
from typing import Any

from archdsl.draw.page import filled, parts, script_json
from archdsl.files import write_whole
from archdsl.study.errors import named
from archdsl.study.report.gather import Gathered, columns, gathered
from archdsl.study.report.importance import Importance, importance
from archdsl.study.report.points import Details, detailed
from archdsl.study.shown import point, summary, variant_names
from archdsl.study.study import Study

HERE = os.path.dirname(os.path.abspath(__file__))
Told = Callable[[str], None]


def write_report(study: Study, path: str, told: Told = lambda doing: None) -> int:
    """Writes the page, and gives its size in bytes. `told` hears of what is being done. Raises A0832 for a path that does not end in .html,
    A0627 for one that cannot be written."""
    if os.path.splitext(path)[1].lower() not in (".html", ".htm"):
        raise named("A0832", f"`{path}` does not say that a page is wanted", path, what="-o",
                    help="a report is written as FILE.html; `archdsl study plot` draws .svg and .png")
    page = html_report(study, told).encode()
    write_whole(path, page)
    return len(page)


def html_report(study: Study, told: Told = lambda doing: None) -> str:
    """The page: UTF-8 text."""
    data = to_json(study, told)
    css = parts("common.css", "picture.css", "diff.css") + parts("report.css", folder=HERE)
    js = parts("common.js", "picture.js") + parts("charts.js", "points.js", "coordinates.js", "report.js", folder=HERE)
    return filled("report.html", folder=HERE, title=escape(f"{study.plan.source}: {data['trials']:,} trials"), css=css, js=js, data=script_json(data))


def to_json(study: Study, told: Told = lambda doing: None) -> dict[str, Any]:
    """What the page shows, as plain data: that of `study show --json`, and the trials that are drawn, as columns."""
    def read(number: int) -> None:
        if number % 1000 == 0:
            told(f"trial {number:,} of {study.store.next:,}")

    found = gathered(study, read)
    goals = [o.name for o in study.objectives]
    names = list(dict.fromkeys([*goals, *(n for e in found.drawn for n in e.values)]))
    table = columns(found.drawn, names)
    told("knobs")
    matters = _importance(study, found, table)
    details = Details(study)
    points = detailed(study, details, lambda done, of: told(f"picture {done + 1} of {of}"))
    front = study.front()
    places = {n: at for at, n in enumerate(table["numbers"])}
    variants = variant_names(len(front), [v for s in details.spec.models.values() for v in s.variants])
    told_of = {k: v for k, v in summary(study).items() if k not in ("pareto", "best", "reasons")}
    return {
        **told_of, "folder": study.folder, "names": names, "table": table, "drawn": len(found.drawn), "whole": found.whole, "low": found.low,
        "waiting": found.waiting, "directions": {o.name: o.direction for o in study.objectives},
        "front": [{"name": n, "at": places[e.number], **point(e), **points.get(i, {})} for i, (n, e) in enumerate(zip(variants, front))],
        "definitions": details.packer.definitions, "default": details.default, "course": found.course, "importance": matters,
        "failures": [{"kind": k.name, "trials": k.trials, "first": k.first, "examples": k.examples} for k in found.failures],
        "ran": study.store.sessions(), "opening": next(iter(points), 0),
    }


def _importance(study: Study, found: Gathered, table: dict[str, Any]) -> dict[str, Any]:
    """Objective -> shares of knobs by forest, or why there are none."""
    distinct = [at for at, e in enumerate(found.drawn) if e.same_as is None]
    knobs = {a: {"at": [k["at"][i] for i in distinct]} for a, k in table["knobs"].items()}
    told: dict[str, Any] = {}
    for o in study.objectives:
        scores = [found.drawn[i].values[o.name] for i in distinct]
        try:
            one = importance(knobs, scores, study.plan.seed)
        except ImportError:
            one = Importance(len(scores), {}, [], "scikit-learn is not installed: pip install 'archdsl[search]'")
        told[o.name] = {"trials": one.trials, "explained": one.explained, "why": one.why,
                        "share": {a: [round(v, 4) for v in s] for a, s in one.share.items()}}
    return told
