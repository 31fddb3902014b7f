"""Every argument of every application, with where it comes from: `archdsl check --explicit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.elaborate.frame import Session
from archdsl.elaborate.model import elaborate
from archdsl.elaborate.passes import Plan
from archdsl.elaborate.values import show
from archdsl.records import record
from archdsl.source import Span

if TYPE_CHECKING:
    from archdsl.spec import Spec


@record(frozen=True)
class Argument:
    """`origin`: argument (written at the application), default (a `default` statement), header (of the block) or setting (of a knob)."""

    name: str
    value: str
    origin: str
    span: Span


@record(frozen=True)
class Application:
    """A block applied at a place of the text, its arguments in the order of the header."""

    block: str
    span: Span
    arguments: tuple[Argument, ...]


class _Unplanned(dict[tuple[int, int], Any]):
    """No passes of a loop are elaborated as one: those that differ in a drop rate alone are told one by one."""

    def get(self, key: tuple[int, int], default: Any = None) -> Any:
        return NEVER


NEVER = Plan((), (), (), frozenset({""}), frozenset())  # no variable has this name, so the plan never holds


def applications(spec: Spec) -> list[Application]:
    """The applications of a model at its defaults, in the order in which they are evaluated; equal ones at one place once. Raises ArchError."""
    session = Session(spec.module.library)
    session.told = []
    session.plans = _Unplanned()
    elaborate(spec.module, spec.decl, (), session)
    out: dict[Any, Application] = {}
    for span, block, rows in session.told:
        made = Application(block, span, tuple(Argument(name, show(value), origin, where) for name, value, origin, where in rows))
        out.setdefault((span.source.path, span.start, block, tuple((a.name, a.value, a.origin) for a in made.arguments)), made)
    return sorted(out.values(), key=lambda a: (a.span.source is not spec.module.source, a.span.source.path, a.span.start))
