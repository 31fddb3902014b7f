"""Arms that stand in no candidate: a space asks the elaborator what fits, so a mistake in an arm would otherwise take it out unseen."""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import Diagnostic
from archdsl.records import record
from archdsl.search.header import every
from archdsl.search.tree import Choice, Entry, Part, Refused, Root

if TYPE_CHECKING:
    from archdsl.search.space import SearchSpace


@record(frozen=True)
class Unfit:
    """An arm that fits with nothing that was looked at. `addresses`: those of its choice where it was met, which stand for equal passes of a loop."""

    arm: str
    addresses: list[str]
    why: Diagnostic

    def __str__(self) -> str:
        return f"no candidate has {' or '.join(f'{a} = {self.arm}' for a in self.addresses)}: {self.why.message} ({self.why.span!r})"


def unfit(space: SearchSpace) -> list[Unfit]:
    """The arms that fit below no setting of the header that was looked at (all of a counted space, else those that were drawn), in the order of
    addresses. Limits are not asked: what they leave out is left out on purpose. Only parts whose assignments were gone through are asked."""
    seen: dict[tuple[str, str], Diagnostic | None] = {}
    for root in space.roots:
        if not root.faults:
            root.settled(lambda r: _look(r, seen))
    found: dict[tuple[str, object], Unfit] = {}
    for (address, arm), why in sorted(seen.items(), key=lambda i: i[0]):
        if why is not None:
            found.setdefault((arm, why.span), Unfit(arm, [], why)).addresses.append(address)
    return list(found.values())


def _look(root: Root, seen: dict[tuple[str, str], Diagnostic | None]) -> None:
    for part in _parts(root.top):
        if "entries" not in part.__dict__:
            continue
        fitting = {(part.prefix + a, v) for e in part.entries for a, v in e.values.items() if isinstance(v, str)}
        for address, arm, why in _refused(part):
            if (address, arm) not in fitting:
                seen.setdefault((address, arm), why)
        seen.update(dict.fromkeys(fitting))


def _parts(top: Part) -> dict[Part, None]:
    """It and the parts below it that were met."""
    found: dict[Part, None] = {}
    left = [top]
    while left:
        part = left.pop()
        if part not in found:
            found[part] = None
            left += [p for step in part.steps.values() if isinstance(step, Entry) for _, p in step.parts]
    return found


def _refused(part: Part) -> Iterator[tuple[str, str, Diagnostic]]:
    """Every word that a decision of the part takes in something that was refused, and why. All steps are known from its entries."""
    def go(values: dict[str, Any]) -> Iterator[tuple[str, str, Diagnostic]]:
        step = part.step(values)
        if isinstance(step, Choice):
            for v in every(step.domain):
                yield from go({**values, step.address: v})
        elif isinstance(step, Refused) and step.faults:
            yield from ((part.prefix + a, v, step.faults[0]) for a, v in values.items() if isinstance(v, str))

    return go({})


__all__ = ["Unfit", "unfit"]
