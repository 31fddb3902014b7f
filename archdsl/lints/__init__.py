"""Lints: what a spec that is right could do without. Warnings, read from the tree of a module that has no error; arms of choices alone are evaluated.

`# allow A0701` silences a code: behind something for that line, on a line of its own for the next one, in front of all declarations for the file.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import Diagnostic
from archdsl.lints.arms import unfit_arms
from archdsl.lints.circles import circles
from archdsl.lints.conditions import dead_branches, empty_claims
from archdsl.lints.names import unused_imports, unused_names
from archdsl.lints.pages import CODES
from archdsl.lints.survey import Survey, survey
from archdsl.modules import Module
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.incremental.kept import Kept
    from archdsl.spec import Spec

__all__ = ["CODES", "lint"]

MAX_FOUND = 100
ALLOW = re.compile(r"#\s*allow\s+(A07\d\d(?:\s*,\s*A07\d\d)*)\b")


def lint(module: Module, kept: Kept | None = None, models: Iterable[Spec] = ()) -> list[Diagnostic]:
    """The warnings about a module's own text that no comment allows, in the order of the text. `models`: those of the module."""
    everywhere, lines = _allowed(module)
    every = chain(_found(module, kept), unfit_arms(models))
    found = [d for d in every if d.code not in everywhere and d.code not in lines.get(d.span.source.position(d.span.start)[0], ())]
    return sorted(found, key=lambda d: d.span.absolute.start)[:MAX_FOUND]


def _found(module: Module, kept: Kept | None) -> Iterator[Diagnostic]:
    decls = [d for d in module.tree.decls if not isinstance(d, tree.Use)]
    found = [_of(d, module) if kept is None else kept.linted(d, partial(_of, d, module)) for d in decls]
    yield from unused_imports(module, set().union(*(seen.read for seen, _ in found)))
    for _, faults in found:
        yield from faults


def _of(d: Any, module: Module) -> tuple[Survey, Iterable[Diagnostic]]:
    seen = survey(d)
    return seen, chain(unused_names(d, module, seen), circles(d, seen), dead_branches(d, seen), empty_claims(d))


def _allowed(module: Module) -> tuple[set[str], dict[int, set[str]]]:
    """Codes that are silent in the whole file, and those of each line."""
    everywhere: set[str] = set()
    lines: dict[int, set[str]] = {}
    first = module.tree.decls[0].span.absolute.start if module.tree.decls else 0
    for c in module.tree.comments:
        match = ALLOW.match(c.text)
        if match is None:
            continue
        codes = set(re.findall(r"A07\d\d", match[1]))
        if c.own_line and c.span.absolute.start < first:
            everywhere |= codes
        else:
            line = c.span.source.position(c.span.start)[0] + c.own_line
            lines.setdefault(line, set()).update(codes)
    return everywhere, lines
