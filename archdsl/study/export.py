"""Trials for other tools: CSV, JSON, a database of Optuna's."""
from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

from archdsl.study.errors import missing_package, named, unwritable
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
        raise unwritable(path, (fault.strerror or str(fault)).lower()) from None
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


# ---------------------------------------------------------------- Optuna
def _optuna(study: Study, path: str, told: Callable[[int], None]) -> None:
    """A storage with one study, which `optuna-dashboard sqlite:///FILE` opens. A knob's distribution is the range, or the set, of the values that it
    had: domains of the spec may depend on other knobs, those of Optuna may not. Trials that wait are left out."""
    try:
        import optuna
    except ImportError:
        raise missing_package("Optuna", "a database for Optuna's dashboard") from None
    from sqlalchemy import event

    spaces = {name: _distribution(values) for name, values in _values(study).items()}
    storage = optuna.storages.RDBStorage(f"sqlite:///{os.path.abspath(path)}")
    # the file is new, and is thrown away if this does not end: a commit need not wait for the disk
    event.listen(storage.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    storage.engine.dispose()
    made = optuna.create_study(storage=storage, study_name=os.path.basename(os.path.abspath(study.folder)),
                               directions=["minimize" if o.direction == "min" else "maximize" for o in study.objectives])
    made.set_metric_names([o.name for o in study.objectives])
    for name, value in study.plan.to_json().items():
        made.set_user_attr(name, value)
    for e in _told(study, told):
        if e.status != "waiting":
            made.add_trial(_trial(study, e, spaces))
    storage.engine.dispose()


def _trial(study: Study, e: Entry, spaces: dict[str, Any]) -> Any:
    import optuna

    done = e.status == "done"
    params = {n: _fitting(v, spaces[n]) for n, v in _flat(e.knobs).items()}
    extra = {n: _finite(v) for n, v in e.values.items() if n not in {o.name for o in study.objectives}}
    told = {"hash": e.key, "origin": e.origin, "parents": list(e.parents), "seconds": e.seconds, "fidelity": e.fidelity, **extra}
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.FAIL,
        values=[e.values[o.name] for o in study.objectives] if done else None, params=params, distributions={n: spaces[n] for n in params},
        user_attrs=told if done else {**told, "reason": e.reason})


def _flat(knobs: dict[str, Any]) -> dict[str, Any]:
    """A knob that holds a list as one for each item, `depths[0]`."""
    flat: dict[str, Any] = {}
    for address, value in knobs.items():
        flat |= {f"{address}[{i}]": v for i, v in enumerate(value)} if isinstance(value, list) else {address: value}
    return {a: json.dumps(v) if isinstance(v, (list, dict)) else v for a, v in flat.items()}


def _values(study: Study) -> dict[str, set[tuple[str, Any]]]:
    """The values that each knob had, with their types: 1 is not true."""
    found: dict[str, set[tuple[str, Any]]] = {}
    for e in study.store.every():
        for name, value in _flat(e.knobs).items():
            found.setdefault(name, set()).add((type(value).__name__, value))
    return found


def _distribution(values: set[tuple[str, Any]]) -> Any:
    import optuna

    kinds = {kind for kind, _ in values}
    plain = [v for _, v in values]
    if kinds == {"int"}:
        return optuna.distributions.IntDistribution(min(plain), max(plain))
    if kinds <= {"int", "float"}:
        return optuna.distributions.FloatDistribution(float(min(plain)), float(max(plain)))
    return optuna.distributions.CategoricalDistribution(tuple(v for _, v in sorted(values, key=str)))


def _fitting(value: Any, space: Any) -> Any:
    return float(value) if type(space).__name__ == "FloatDistribution" else value


WRITERS: dict[str, Callable[[Study, str, Callable[[int], None]], None]] = {".csv": _csv, ".json": _json, ".db": _optuna}
