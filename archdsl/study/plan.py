"""What a study is to find out: everything that determines its archive, kept in study.json beside the spec and all that the spec imports."""
from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError
from archdsl.files import read_json, write_whole
from archdsl.records import MISSING, fields, record
from archdsl.search.model import Objective
from archdsl.study.errors import about, damaged, named
from archdsl.version import VERSION

if TYPE_CHECKING:
    from archdsl.search.space import SearchSpace
    from archdsl.spec import Spec

FORMAT = 1
FILE = "study.json"
FREE = ("budget", "source", "format")
"""What may differ when a study is resumed: more trials, and where the spec came from."""


@record(frozen=True)
class Plan:
    """`spec`: the file's name in the study's folder, `source`: as the user gave it. `files`: name -> digest of the spec and its imports. `strategy`
    and `evaluator` are texts of their registries. Limits are conditions of the language. `fixed`: what the variant sets is not searched."""

    spec: str
    source: str
    model: str
    variant: str | None
    files: dict[str, str]
    objectives: tuple[Objective, ...]
    strategy: str
    evaluator: str
    seed: int
    budget: int
    space: str | None = None
    limits: tuple[str, ...] = ()
    asynchronous: bool = False
    fixed: bool = False
    archdsl: str = VERSION
    library: str = ""
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**told, "objectives": list(map(str, self.objectives)), "limits": list(self.limits)}


def read_plan(folder: str) -> Plan:
    """The plan of the study in a folder. Raises A0821 without one, A0824 for one that cannot be read."""
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path):
        raise about("A0821", f"there is no study in `{folder}`", folder, help="`archdsl search SPEC --objective NAME:min … -o STUDY` makes one")
    try:
        told = read_json(path)
    except json.JSONDecodeError as fault:
        raise damaged(path, f"it is no JSON at line {fault.lineno}, column {fault.colno}: {fault.msg}", help=_WRITTEN) from None
    except OSError as fault:
        raise damaged(path, fault.strerror or str(fault)) from None
    except ValueError as fault:
        raise damaged(path, str(fault)) from None
    if isinstance(told, dict) and told.get("format", FORMAT) != FORMAT:
        raise damaged(path, f"its format is {told['format']}, this archdsl ({VERSION}) reads format {FORMAT}",
                      help=f"archdsl {told.get('archdsl', 'of another version')} wrote it, and reads it")
    if (why := _no_plan(told)) is not None:
        raise damaged(path, why, help=_WRITTEN)
    try:
        objectives = read_objectives(told["objectives"])
    except ArchError as fault:
        raise damaged(path, fault.diagnostics[0].message, help=_WRITTEN) from None
    return Plan(**{**told, "objectives": objectives, "limits": tuple(told["limits"])})


_WRITTEN = "`archdsl search` writes this file; it is not meant to be edited"
_STRINGS = (list, str)
_KINDS: dict[str, tuple[Any, ...]] = {
    "spec": (str,), "source": (str,), "model": (str,), "variant": (str, None), "files": ((dict, str),), "objectives": (_STRINGS,),
    "strategy": (str,), "evaluator": (str,), "seed": (int,), "budget": (int,), "space": (str, None), "limits": (_STRINGS,),
    "asynchronous": (bool,), "fixed": (bool,), "archdsl": (str,), "library": (str,), "format": (int,),
}
"""What each field of a plan is in JSON."""
_SAID = {str: "a string", int: "a whole number", bool: "true or false", None: "null", _STRINGS: "a list of strings",
         (dict, str): "an object of strings"}


def _no_plan(told: Any) -> str | None:
    """What keeps a value read from JSON from being a plan; None where nothing does."""
    if not isinstance(told, dict):
        return "it holds no object"
    missing = [f"`{f.name}`" for f in fields(Plan) if f.name not in told and f.default is MISSING]
    if missing:
        return f"it lacks {', '.join(missing)}"
    for name, value in told.items():
        if name not in _KINDS:
            return f"`{name}` is no part of a plan"
        if not any(_is(value, kind) for kind in _KINDS[name]):
            return f"`{name}` is {json.dumps(value)[:40]}, not {' or '.join(_SAID[kind] for kind in _KINDS[name])}"
    return None


def _is(value: Any, kind: Any) -> bool:
    if kind is None or isinstance(kind, type):
        return value is None if kind is None else type(value) is kind
    held = value.values() if isinstance(value, dict) else value
    return isinstance(value, kind[0]) and all(type(v) is kind[1] for v in held)


def write_plan(folder: str, plan: Plan) -> None:
    write_whole(os.path.join(folder, FILE), (json.dumps(plan.to_json(), indent=2, ensure_ascii=False) + "\n").encode())


def differences(old: Plan, new: Plan) -> list[str]:
    """What keeps a study from being resumed under a new plan, one sentence each."""
    told: list[str] = []
    for f in fields(old):
        a, b = getattr(old, f.name), getattr(new, f.name)
        if a == b or f.name in FREE:
            continue
        if f.name == "files":
            changed = sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n))
            told.append(f"the text of {', '.join(changed)} has changed")
        elif f.name == "library":
            told.append("the library that comes with archdsl has changed")
        elif f.name == "archdsl":
            told.append(f"it was made by archdsl {a}, this is {b}")
        else:
            told.append(f"{f.name}: {_shown(a)} then, {_shown(b)} now")
    return told


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


# ---------------------------------------------------------------- objectives
def read_objectives(texts: Sequence[str]) -> tuple[Objective, ...]:
    """`NAME:min` or `NAME:max`, each. Raises A0826."""
    found: dict[str, Objective] = {}
    for text in texts:
        name, _, way = text.rpartition(":")
        if way not in ("min", "max") or not name.strip():
            raise named("A0826", f"`{text}` is no objective", text, what="--objective", help=f"write `{name or way}:min` or `{name or way}:max`")
        if name.strip() in found:
            raise named("A0826", f"the objective `{name}` is given twice", text, what="--objective")
        found[name.strip()] = Objective(name.strip(), "min" if way == "min" else "max")
    if not found:
        raise named("A0826", "a search needs an objective", "", what="--objective", help="for example `--objective params:min`")
    return tuple(found.values())


# ---------------------------------------------------------------- specs
def open_spec(folder: str, plan: Plan) -> Spec:
    """The spec as it was when the study began. Raises A0824 where the file is gone."""
    from archdsl.spec import load

    path = os.path.join(folder, plan.spec)
    if not os.path.isfile(path):
        raise damaged(path, "the study's own copy of its spec is gone", help=f"it was {plan.source} when the study began")
    return load(path).models[plan.model]


def open_space(spec: Spec, plan: Plan) -> SearchSpace:
    """The space that the study searches."""
    return spec.space(plan.space, plan.variant, plan.limits, plan.fixed)
