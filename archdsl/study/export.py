"""Trials for other tools: CSV, JSON, a database of Optuna's."""
from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator

from archdsl.study.errors import named, unwritable
from archdsl.study.shown import value_text
from archdsl.study.store import Entry
from archdsl.study.study import Study


def write_export(study: Study, path: str, told: Callable[[int], None] = lambda done: None) -> int:
    """Writes all trials; the end of the path says how. How many there were. `told` hears of progress. Raises A0832, A0825, A0831."""
    kind = os.path.splitext(path)[1].lower()
    if kind not in WRITERS:
        raise named("A0832", f"`{path}` does not say what is wanted", path, what="-o", help=f"a name that ends in {', '.join(WRITERS)}")
    new = f"{path}.{os.getpid()}.new"
    try:
        WRITERS[kind](study, new, told)
        os.replace(new, path)
    except OSError as fault:
        raise unwritable(path, (fault.strerror or str(fault)).lower(), "the study stays as it is") from None
    finally:
        if os.path.exists(new):
            os.unlink(new)
    return study.store.next


def _told(study: Study, told: Callable[[int], None]) -> Iterator[Entry]:
    for e in study.store.every():
        yield e
        if e.number % 100 == 0:
            told(e.number)


def _csv(study: Study, path: str, told: Callable[[int], None]) -> None:
    """A row for each trial; a column for each value and each knob that any of them has."""
    values: dict[str, None] = {o.name: None for o in study.objectives}
    knobs: dict[str, None] = {}
    for e in study.store.every():
        values |= dict.fromkeys(e.values)
        knobs |= dict.fromkeys(e.knobs)
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["trial", "status", "fidelity", "origin", "parents", "seconds", "reason", "same_as", "hash", *values, *knobs])
        for e in _told(study, told):
            rows.writerow([e.number, e.status, e.fidelity, e.origin, " ".join(map(str, e.parents)), e.seconds, e.reason,
                           "" if e.same_as is None else e.same_as, e.key, *(e.values.get(n, "") for n in values),
                           *(value_text(e.knobs[a]) if a in e.knobs else "" for a in knobs)])


def _json(study: Study, path: str, told: Callable[[int], None]) -> None:
    """The plan, and all trials."""
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"study": ' + json.dumps(study.plan.to_json(), ensure_ascii=False) + ',\n"trials": [')
        for e in _told(study, told):
            row = {"trial": e.number, "status": e.status, "values": {n: _finite(v) for n, v in e.values.items()}, "knobs": e.knobs, "hash": e.key,
                   "fidelity": e.fidelity, "origin": e.origin, "parents": e.parents, "repaired": e.repaired, "seconds": e.seconds,
                   "reason": e.reason, "same_as": e.same_as}
            file.write((",\n" if e.number else "\n") + json.dumps(row, ensure_ascii=False))
        file.write("\n]}\n")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _optuna(study: Study, path: str, told: Callable[[int], None]) -> None:
    from archdsl.study.export_optuna import write

    write(study, path, _told(study, told))


WRITERS: dict[str, Callable[[Study, str, Callable[[int], None]], None]] = {".csv": _csv, ".json": _json, ".db": _optuna}
