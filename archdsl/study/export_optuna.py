"""A study as a storage of Optuna's: a database with one study in it, which `optuna-dashboard sqlite:///FILE` opens.

Optuna makes the tables; their rows are written here, some ten thousand a second, for through Optuna each trial is a dozen transactions.
"""
from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from archdsl.study.errors import missing_package, named
from archdsl.study.store import Entry, refused_by_disk
from archdsl.study.study import Study

STATES = {"done": "COMPLETE", "failed": "FAIL", "waiting": "RUNNING"}
TABLES = {
    "trials": "trial_id, number, study_id, state, datetime_start, datetime_complete",
    "trial_params": "trial_id, param_name, param_value, distribution_json",
    "trial_values": "trial_id, objective, value, value_type",
    "trial_user_attributes": "trial_id, key, value_json",
}


def write(study: Study, path: str, entries: Iterable[Entry]) -> None:
    """Writes a new database. A knob's distribution is the range, or the set, of the values that it had: domains of a spec may depend on other knobs,
    those of Optuna may not. Optuna's times are those of this export; `seconds` is an attribute. Raises A0831 without Optuna."""
    try:
        import optuna
    except ImportError:
        raise missing_package("Optuna", "a database for Optuna's dashboard") from None
    with open(path, "xb"):  # what the operating system says to that is told better than by Optuna
        pass
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each study that it makes
    try:
        number = _with_tables(study, path)
    except Exception as fault:
        cause = getattr(fault, "orig", fault)  # of SQLAlchemy's wrapping
        if isinstance(cause, sqlite3.OperationalError) and refused_by_disk(cause):
            raise OSError(str(cause)) from None
        raise
    finally:
        optuna.logging.set_verbosity(verbosity)
    spaces = {name: _Space(values) for name, values in _values(study).items()}
    db = sqlite3.connect(path)
    try:
        db.execute("PRAGMA synchronous = OFF")  # a new file, thrown away if this does not end
        for table, row in _rows(study, entries, number, spaces):
            db.execute(f"INSERT INTO {table} ({TABLES[table]}) VALUES ({', '.join('?' * len(row))})", row)
        db.commit()
    except sqlite3.OperationalError as fault:
        if refused_by_disk(fault):
            raise OSError(str(fault)) from None
        raise named("A0831", f"Optuna {optuna.__version__} keeps trials in another way: {fault}", optuna.__version__, what="optuna",
                    help="pip install 'optuna>=4,<6'") from None
    finally:
        db.close()


def _with_tables(study: Study, path: str) -> int:
    """Has Optuna make its tables and a study without trials; the study's number."""
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{os.path.abspath(path)}")
    directions = [optuna.study.StudyDirection.MINIMIZE if o.direction == "min" else optuna.study.StudyDirection.MAXIMIZE for o in study.objectives]
    number = storage.create_new_study(directions, os.path.basename(os.path.abspath(study.folder)))
    storage.set_study_system_attr(number, "study:metric_names", [o.name for o in study.objectives])
    for name, value in study.plan.to_json().items():
        storage.set_study_user_attr(number, name, value)
    storage.engine.dispose()
    return number


def _rows(study: Study, entries: Iterable[Entry], number: int, spaces: dict[str, _Space]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    now = str(datetime.now())
    goals = {o.name for o in study.objectives}
    for e in entries:
        trial = e.number + 1
        yield "trials", (trial, e.number, number, STATES[e.status], now, None if e.status == "waiting" else now)
        for name, value in _flat(e.knobs).items():
            yield "trial_params", (trial, name, spaces[name].inner(value), spaces[name].json)
        if e.status == "done":
            for at, o in enumerate(study.objectives):
                yield "trial_values", (trial, at, e.values[o.name], "FINITE")
        told = {"hash": e.key, "origin": e.origin, "parents": list(e.parents), "seconds": e.seconds, "fidelity": e.fidelity,
                **({"reason": e.reason} if e.reason else {}), **{n: v for n, v in e.values.items() if n not in goals}}
        for name, value in told.items():
            yield "trial_user_attributes", (trial, name, json.dumps(value))


class _Space:
    """What Optuna calls the distribution of a parameter."""

    def __init__(self, values: set[tuple[str, Any]]) -> None:
        from optuna import distributions as d

        kinds, plain = {kind for kind, _ in values}, [v for _, v in values]
        if kinds == {"int"}:
            made: Any = d.IntDistribution(min(plain), max(plain))
        elif kinds <= {"int", "float"}:
            made = d.FloatDistribution(float(min(plain)), float(max(plain)))
        else:
            made = d.CategoricalDistribution(tuple(v for _, v in sorted(values, key=str)))
        self._places = {t: i for i, t in enumerate(sorted(values, key=str))} if isinstance(made, d.CategoricalDistribution) else None
        self.json = d.distribution_to_json(made)

    def inner(self, value: Any) -> float:
        """As the database holds it: the number, or the place among the choices."""
        return float(value) if self._places is None else float(self._places[type(value).__name__, value])


def _values(study: Study) -> dict[str, set[tuple[str, Any]]]:
    """The values that each knob had, with their types: 1 is not true."""
    found: dict[str, set[tuple[str, Any]]] = {}
    for e in study.store.every():
        for name, value in _flat(e.knobs).items():
            found.setdefault(name, set()).add((type(value).__name__, value))
    return found


def _flat(knobs: dict[str, Any]) -> dict[str, Any]:
    """A knob that holds a list as one for each item, `depths[0]`."""
    flat: dict[str, Any] = {}
    for address, value in knobs.items():
        flat |= {f"{address}[{i}]": v for i, v in enumerate(value)} if isinstance(value, list) else {address: value}
    return {a: json.dumps(v) if isinstance(v, (list, dict)) else v for a, v in flat.items()}
