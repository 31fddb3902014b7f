"""The front as a spec: the text of the study's spec, and a variant for each point."""
from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.domains import same
from archdsl.files import write_whole
from archdsl.search.model import Candidate
from archdsl.source import Source
from archdsl.study.plan import Plan, open_space, open_spec
from archdsl.study.shown import number, variant_names
from archdsl.study.store import Entry
from archdsl.study.study import Study
from archdsl.variants import MAX_SETTINGS

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated
    from archdsl.search.space import SearchSpace
    from archdsl.spec import Spec

FILE = "front.arch"


def file_name(files: dict[str, str]) -> str:
    """Where the front is written: beside the spec, under a name that neither it nor its imports have."""
    return FILE if FILE not in files else "pareto.arch"


def write_front(study: Study) -> tuple[str, list[str]]:
    """Writes the front of a study into its folder: the path, and the names of the variants; those that a spec has no room for are left out."""
    from archdsl.syntax.fmt import format_module

    plan = study.plan
    space = study.space or open_space(open_spec(study.folder, plan), plan)
    spec = space.spec
    front = study.front()
    names = variant_names(len(front), [v for s in spec.models.values() for v in s.variants])
    texts: list[str] = []
    used = 0
    for name, e in zip(names, front):
        text, count = variant_text(spec, space, plan, name, e)
        used += count
        if used > MAX_SETTINGS // 2:
            break
        texts.append(text)
    path = os.path.join(study.folder, file_name(plan.files))
    whole = spec.module.source.text.rstrip() + "\n\n" + "\n".join(texts)
    write_whole(path, format_module(Source(path, whole)).encode())
    return path, names[: len(texts)]


def variant_text(spec: Spec, space: SearchSpace, plan: Plan, name: str, e: Entry) -> tuple[str, int]:
    """A trial as a variant, and how many settings it has with those of the variant that it is of."""
    from archdsl.spec import setting_text

    chosen, made = settings(space, space.from_json(e.knobs))
    told = ", ".join(f"{o.name} = {number(e.values[o.name])}" for o in plan.objectives)
    body = ", ".join(f"{a} = {_written(made, a, setting_text(v))}" for a, v in chosen.items())
    text = f"/// Trial {e.number}: {told}.\nvariant {name} of {plan.variant or plan.model} {{ {body} }}\n"
    return text, len(chosen) + len(spec.variants[plan.variant].settings if plan.variant else ())


def settings(space: SearchSpace, candidate: Candidate) -> tuple[dict[str, Any], Elaborated]:
    """The settings that make the candidate of the space's variant: those that the others do not give by themselves, where that is the same graph;
    and the model, before transforms."""
    from archdsl.spec import python_setting

    whole = dict(candidate)
    wanted = space.source(whole).graph.hash if space.transforms else candidate.key
    knobs = space.spec.source(space.variant).knobs
    few = {a: v for a, v in whole.items() if a not in knobs or not same(knobs[a].value, python_setting(a, v).value)}
    try:
        made = space.source(few)
        if made.graph.hash == wanted:
            return few, made
    except ArchError:  # something follows from a decision that was left out
        pass
    return whole, space.source(whole)


def _written(made: Elaborated, address: str, text: str) -> str:
    """A value in a variant; the arm of a `choose` by its name."""
    knob = made.knobs.get(address)
    arm = re.fullmatch(r'"([A-Za-z_]\w*)"', text)
    return arm[1] if arm and knob is not None and knob.type == "choice" else text
