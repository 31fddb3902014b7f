"""Runs steps: in the order that the user gives, with the decisions that they need, their contracts checked when asked."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.frame import Frame, Session
from archdsl.elaborate.model import Elaborated
from archdsl.modules import Module
from archdsl.passes.edit import Edit, Rewrite
from archdsl.passes.registry import PASSES
from archdsl.passes.step import Step, read
from archdsl.records import replace
from archdsl.syntax import tree


def rewrite(made: Elaborated, step: Step, decisions: Mapping[str, Any] | None = None, tables: Mapping[str, Any] | None = None) -> Rewrite:
    """One step on a graph: pure, and free of torch. Raises ArchError A0563, A0564, A0567."""
    rule = step.rule
    own = of_step(decisions or {}, step)
    if rule.decider is not None and not own and not rule.fills:
        raise undecided(step)
    edit = Edit(made.graph, step, made.facts, own, dict(tables or {}))
    rule.body(edit, **step.options)
    found = edit.finish()
    found.contract = rule.promise(edit, step.options)
    found.undecided = step if rule.decider is not None and not own else None
    return found


def undecided(step: Step) -> ArchError:
    """A0567: the step cannot go on without decisions."""
    return error("A0567", f"`{step.name}` needs decisions, which its first part makes of weights or data", step.span, "none are given",
                 help="`archdsl compile … --pass` makes them; `--decisions FILE` gives those of an earlier run")


def of_step(decisions: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """The decisions for one step: `ADDRESS@step` and `ADDRESS@step.option`, without the step's name."""
    out: dict[str, Any] = {}
    for key, value in decisions.items():
        address, _, rest = key.partition("@")
        name, _, option = rest.partition(".")
        if name == step.name:
            out[f"{address}.{option}" if option else address] = value
    return out


def keyed(decisions: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """Decisions as they are kept: `ADDRESS@step`."""
    return {f"{a}@{step.name}": v for a, v in decisions.items()}


STEPS, STEPS_A_NODE = 500, 8  # of an elaboration's budget, for a pass and for each node that it looks at


def transformed(made: Elaborated, steps: Iterable[Step], session: Session) -> Elaborated:
    """The graph after some steps: what a variant with `transform`s is, for checks, costs and claims. A stranger's spec pays for each from the budget
    of its session (A0602)."""
    order = Order()
    source = made
    for step in steps:
        order.enter(step)
        session.step(step.span, STEPS + STEPS_A_NODE * made.graph.node_count)
        done = rewrite(made, step)
        made = replace(made, graph=done.graph, source=source, rewrites=(*made.rewrites, done))
    return made


def read_all(module: Module, session: Session, made: Elaborated, transforms: Iterable[tree.Transform]) -> tuple[Step, ...]:
    """The steps of a variant, their options evaluated with the model's knobs in scope."""
    frame = Frame(session, module, Builder(), vars={name: k.value for name, k in made.knobs.items() if "." not in name})
    return tuple(read(t, frame) for t in transforms)


class Order:
    """What holds after the steps so far."""

    def __init__(self, facts: Iterable[str] = ()):
        self.facts = set(facts)
        self.gone: dict[str, str] = {}

    def enter(self, step: Step) -> None:
        """Raises A0565 when the step needs what no earlier one provides."""
        rule = step.rule
        for fact in rule.requires:
            if fact not in self.facts:

                makers = [p.name for p in PASSES.every().values() if fact in p.provides]
                lost = self.gone.get(fact)
                why = f"`{lost}` destroys it" if lost else "no step before it provides that"
                raise error("A0565", f"`{step.name}` needs `{fact}`, and {why}", step.span, "too late" if lost else "too early",
                            help=f"put {' or '.join(f'`{m}`' for m in makers)} before it" if makers else ())
        for fact in rule.destroys:
            self.facts.discard(fact)
            self.gone[fact] = step.name
        self.facts |= set(rule.provides)


__all__ = ["Order", "keyed", "of_step", "read_all", "rewrite", "transformed", "undecided"]
