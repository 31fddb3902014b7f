"""The way into evaluation: expressions.py fills the table, everything that evaluates reads it here."""
from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
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


@contextmanager
def observed(tell: Callable[[tree.Expr, Any], None]) -> Generator[None, None, None]:
    """Tells of each expression that is evaluated inside, with its value. What has been elaborated before is not evaluated again."""
    rules = dict(TABLE)

    def observing(rule: Callable[[Frame, Any], Any]) -> Callable[[Frame, Any], Any]:
        def observe(frame: Frame, node: Any) -> Any:
            value = rule(frame, node)
            tell(node, value)
            return value

        return observe

    TABLE.update({kind: observing(rule) for kind, rule in rules.items()})
    try:
        yield
    finally:
        TABLE.update(rules)
