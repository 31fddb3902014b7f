"""archdsl study: what is in a study, or in several."""
from __future__ import annotations

import os
from typing import Any

from archdsl.cli.commands.search import show_front
from archdsl.cli.output import count, progress, show_json, show_table
from archdsl.study.shown import compared, number, point, summary, value_text
from archdsl.study.study import Study


def show(folder: str, json: bool) -> int:
    """What it is about, how far it is, its front."""
    with Study(folder) as study:
        told = summary(study)
        if json:
            show_json(told)
            return 0
        plan = study.plan
        variant = f".{plan.variant}" if plan.variant else ""
        print(f"{folder}: {plan.source}, {plan.model}{variant}\n")
        volume = "" if told["hypervolume"] is None else f"{told['hypervolume']:.4f} of the box between the best and the worst seen"
        limits = ", ".join(plan.limits)
        rows = [("objectives", ", ".join(told["objectives"])), ("space", plan.space or ""), ("limits", limits),
                ("strategy", plan.strategy), ("evaluator", plan.evaluator),
                ("seed", str(plan.seed)), ("trials", f"{number(told['trials'])} of {number(plan.budget)}, {told['failed'] or 'none'} failed"),
                ("front", count(len(study.store.front), "point")), ("hypervolume", volume)]
        for name, text in rows:
            if text:
                print(f"{name:<12} {text}")
        for row in told["reasons"]:
            print(f"  {count(row['trials'], 'trial')}: {row['reason']}")
        if len(study.store.front):
            print()
            show_front(study)
    return 0


def best(folder: str, objective: str | None, json: bool) -> int:
    """For one objective or each: the best trial, everything that was measured, all of its knobs."""
    with Study(folder) as study:
        goals = [study.objective(objective)] if objective is not None else list(study.objectives)
        found = {o.name: study.best(o) for o in goals}
        if json:
            show_json({name: point(e) if e is not None else None for name, e in found.items()})
            return 0
        variants = {e.number: f"p{i}" for i, e in enumerate(study.front())}
        for at, o in enumerate(goals):
            e = found[o.name]
            if e is None:
                print(f"{o}: no trial has succeeded")
                continue
            measured = ", ".join(f"{n} = {number(v)}" for n, v in e.values.items())
            print(("\n" if at else "") + f"{o}: trial {e.number} ({variants[e.number]}), {measured}")
            for address, value in e.knobs.items():
                print(f"  {address} = {value_text(value)}")
    return 0


def plot(folder: str, out: str) -> int:
    """Writes a picture; as .html the report."""
    from archdsl.study.plot import write_plot

    if os.path.splitext(out)[1].lower() == ".html":
        return report(folder, out)
    with Study(folder) as study, progress(f"drawing {folder}"):
        write_plot(study, out)
        told = f"{out}: {count(study.store.finished, 'trial')}, front of {count(len(study.store.front), 'point')}"
    print(told)
    return 0


def report(folder: str, out: str) -> int:
    """Writes the page that shows all of it."""
    from archdsl.study.report.page import write_report

    with Study(folder) as study, progress(f"reading {folder}") as told:
        size = write_report(study, out, told)
        print(f"{out}: {count(study.store.finished, 'trial')}, front of {count(len(study.store.front), 'point')}, {size / 1e6:.1f} MB")
    return 0


def export(folder: str, out: str) -> int:
    """Writes all trials for other tools."""
    from archdsl.study.export import write_export

    with Study(folder) as study, progress(f"exporting {folder}") as told:
        n = write_export(study, out, lambda done: told(f"{number(done)} of {number(study.store.next)}"))
    print(f"{out}: {count(n, 'trial')}")
    return 0


def compare(folders: list[str], json: bool) -> int:
    """Studies beside each other, in the box of all their scores."""
    studies = [Study(f) for f in folders]
    try:
        told = compared(studies)
    finally:
        for study in studies:
            study.store.close()
    if json:
        show_json(told)
        return 0
    names = list(told["studies"][0]["best"])
    heads = ["study", "strategy", "seed", "trials", "failed", *(f"best {n}" for n in names), "front", "hypervolume",
             *(f"covers {f}" for f in folders)]
    show_table(heads, [_row(row, names, folders) for row in told["studies"]], right=range(2, len(heads)))
    return 0


def _row(row: dict[str, Any], names: list[str], folders: list[str]) -> list[str]:
    volume = "" if row["hypervolume"] is None else f"{row['hypervolume']:.4f}"
    covers = ["" if row["covers"].get(f) is None else f"{row['covers'][f]:.0%}" for f in folders]
    return [row["study"], row["strategy"], str(row["seed"]), number(row["trials"]), number(row["failed"]),
            *(number(row["best"][n]) for n in names), number(row["front"]), volume, *covers]
