"""Arms of choices that do not fit in the place of the default. A search leaves out what cannot be built, so that a mistake in an arm would pass for a
limit of the space."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Diagnostic, Label
from archdsl.elaborate.blame import ALWAYS
from archdsl.elaborate.model import Setting
from archdsl.records import replace
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.spec import Spec

STEPS = 10_000
"""Of elaboration, some 30 ms, behind which no further arm of a file is looked at."""
OF_TYPES = ("A02", "A03")
"""How the codes of what is told begin: names, types and shapes. Rules on numbers, and divisions, are limits of a space; settings and defaults
that reach nothing are meant for other arms."""
OF_OTHERS = (*ALWAYS, "A0213", "A0214", "A0215")


def unfit_arms(models: Iterable[Spec]) -> Iterator[Diagnostic]:
    """A0708, for the choices that there are at the defaults of the models: each arm of each is put in the place of the default once."""
    left = STEPS
    for spec in models:
        first = {k.span.absolute: (address, k.value) for address, k in reversed(spec.knobs.items()) if k.type == "choice"}  # address of each choice
        for s in _chooses(spec.module.tree.decls) if first else ():
            address, chosen = first.get(s.span.absolute, ("", None))
            for arm in s.arms if address else ():
                if arm.name == chosen or left < 0:
                    continue
                yield from _faults(spec, address, arm)
                left -= spec.session.steps


def _faults(spec: Spec, address: str, arm: tree.ChooseArm) -> Iterator[Diagnostic]:
    try:
        spec.source(None, {address: Setting(address, None, tree.Name(arm.span, arm.name), arm.span)})
    except ArchError as fault:
        for d in fault.diagnostics:
            if d.code.startswith(OF_TYPES) and d.code not in OF_OTHERS and d.division is None:
                yield _told(d, address, arm)
                return


def _told(d: Diagnostic, address: str, arm: tree.ChooseArm) -> Diagnostic:
    """The fault at the arm; fixes would change what the default needs."""
    told = f"with `{address} = {arm.name}`, {d.message}"
    if d.span.starts_in(arm.span):
        return replace(d, code="A0708", message=told, severity="warning", fixes=(), rivals=())
    labels = (Label(d.span, d.label or d.message), *d.labels)
    return replace(d, code="A0708", message=told, span=arm.span, label="this arm does not fit", labels=labels, severity="warning", fixes=(),
                   rivals=(), help=())


def _chooses(decls: Iterable[Any]) -> Iterator[tree.Choose]:
    """In the order of the text."""
    stack = [*reversed([*decls])]
    while stack:
        n = stack.pop()
        if isinstance(n, tree.Choose):
            yield n
        stack += reversed([*tree.children(n)])
