"""Search spaces: the domains of knobs and the limits of `space NAME of Model { … }`."""
from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.diagnostics.model import Diagnostic, error
from archdsl.elaborate.hints import did_you_mean
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.modules import Module
    from archdsl.spec import Spec


def check_spaces(module: Module, models: dict[str, Spec]) -> list[Diagnostic]:
    """What is wrong with the spaces of a file and with the domains of its knobs."""
    found: list[Diagnostic] = []
    for d in module.tree.decls:
        if isinstance(d, tree.Space) and d.model not in models:
            found += error("A0401", f"`{d.model}` is no model of this file", d.span, "a space of nothing", help=did_you_mean(d.model, models)).diagnostics
    return found
