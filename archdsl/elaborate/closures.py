"""What templates that keep their frame depend on: the names in a tree, and a key of their values."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Frame


def closure_key(frame: Frame, node: Any) -> int:
    """What a template that keeps its frame depends on: its text, the values of the names in it, the defaults in force, the numbers it waits for."""
    free = frame.session.free
    if id(node) not in free:
        free[id(node)] = tuple(sorted(free_names(node)))
    frame.session.step(node.span, 1 + (len(free[id(node)]) >> 3))
    captured = tuple((n, frame.session.key(frame.vars[n])) for n in free[id(node)] if n in frame.vars)
    sequences = tuple(sorted(frame.vars.get("...", {}).items()))
    waiting = tuple(sorted(frame.late[i].number for i in _within(node) & frame.late.keys())) if frame.late else ()
    frame.session.closures[id(node)] = node
    return frame.session.intern(("closure", id(node), frame.session.mark(node), frame.defaults.key, captured, sequences, waiting))


def _within(node: Any) -> set[int]:
    """The ids of all nodes of a tree."""
    found: set[int] = set()
    stack = [node]
    while stack:
        n = stack.pop()
        found.add(id(n))
        stack.extend(tree.children(n))
    return found


def free_names(node: Any, skipped: frozenset[int] = frozenset()) -> set[str]:
    """Every name that a tree mentions (bound ones included: a superset is enough for a key), but for the nodes with these ids."""
    out: set[str] = set()
    stack = [node]
    while stack:
        n = stack.pop()
        if id(n) in skipped:
            continue
        if isinstance(n, (tree.Name, tree.AxisName)):
            out.add(n.id)
        elif isinstance(n, (tree.Emit, tree.Update)):
            out.add(n.name)
        stack.extend(tree.children(n))
    return out
