"""The way into evaluation: expressions.py fills the table, everything that evaluates reads it here."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Frame

TABLE: dict[type, Callable[[Frame, Any], Any]] = {}
"""Kind of node -> its evaluation."""


def evaluate(frame: Frame, node: tree.Expr) -> Any:
    """The value of an expression. Raises ArchError for a fault, Poisoned when it was reported before."""
    session = frame.session
    session.steps += 1
    if session.steps > session.budget:
        session.step(node.span)
    return TABLE[type(node)](frame, node)
