"""Shipped specs, each read and checked once a process: most tests start from one, and checking its variants takes a tenth of a second and more."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from archdsl import spec
from archdsl.elaborate.frame import Session
from archdsl.files import read_source
from archdsl.modules import Library
from archdsl.source import Source

SHIPPED = os.path.realpath(os.path.join(os.path.dirname(spec.__file__), "specs")) + os.sep
KEPT: dict[tuple[str, str, str, bool], Any] = {}
_read = spec._load
_keeping = False


def _load(source: Source, folder: str | None, lints: bool = False) -> Any:
    if not _keeping or folder is None or not (folder + os.sep).startswith(SHIPPED):
        return _read(source, folder, lints)
    key = source.path, source.text, folder, lints
    if key not in KEPT:
        KEPT[key] = _read(source, folder, lints)
    return KEPT[key]


spec._load = _load
rows = cache(spec.shipped)
"""The rows of `archdsl list`, for parameters of tests: every worker collects all of them."""


def unchecked(path: str) -> spec.Spec:
    """The first model of a shipped spec, read anew: a variant is elaborated when it is asked for. tests/test_specs.py checks all of them."""
    source = read_source(path)
    module = Library().open(source, os.path.dirname(os.path.realpath(path)))
    session, models = Session(module.library), dict[str, spec.Spec]()
    for name, decl in module.models.items():
        models[name] = spec.Spec(module, decl, source.path, models, session)
    return next(iter(models.values()))


@contextmanager
def keeping(on: bool) -> Iterator[None]:
    """Inside, `archdsl.load` and checking give what they gave before for the same path and text of a shipped spec, or read all of it anew."""
    global _keeping
    before, _keeping = _keeping, on
    try:
        yield
    finally:
        _keeping = before
