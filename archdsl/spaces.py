"""Search spaces: the domains of knobs and the limits of `space NAME of Model { … }`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Collector, Diagnostic, Label, error
from archdsl.elaborate.domains import Domain, odd_defaults, outside
from archdsl.elaborate.hints import mend, mend_address, segments
from archdsl.records import record
from archdsl.source import Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.graph import Knob
    from archdsl.modules import Module
    from archdsl.spec import Spec

__all__ = ["Domain", "Space", "check_spaces", "knob_domain", "knobs_in_search", "reaches", "set_by", "spaces_of"]


@record(frozen=True)
class Space:
    """A named set of limits on a model; `limits` are conditions on its knobs and costs."""

    name: str
    model: str
    limits: tuple[tree.Expr, ...]
    doc: str
    span: Span


def spaces_of(spec: Spec) -> dict[str, Space]:
    """The spaces of a model, by name."""
    return {
        d.name: Space(d.name, d.model, d.items, d.doc, d.span) for d in spec.module.tree.decls if isinstance(d, tree.Space) and d.model == spec.name
    }


def knob_domain(spec: Spec, address: str, variant: str | None = None) -> Domain | None:
    """What search may give a knob while the others are at a variant's values; None: it is settable, but not searched. KeyError without such a knob;
    ArchError (A0408 and those of its expressions) for a domain that cannot be read with those values."""
    found = spec.elaborate(variant).knobs[address].allowed
    if found is not None and found.fault:
        raise ArchError(*found.fault)
    return found


def knobs_in_search(spec: Spec, variant: str | None = None) -> dict[str, Knob]:
    """The knobs that have a domain, by address."""
    return {a: k for a, k in spec.elaborate(variant).knobs.items() if k.allowed is not None}


def reaches(setting: str, address: str) -> bool:
    """Whether the address of a setting (`layers.*.heads`, `widths.0`) is that of a knob, or of what its list or record holds."""
    said, path = segments(setting), address.split(".")
    return len(said) >= len(path) and all(
        s in ("*", p) or s[:1] == "{" and p in [x.strip() for x in s[1:-1].split(",")] for s, p in zip(said, path))


def set_by(spec: Spec, variant: str | None) -> list[str]:
    """The knobs with a domain that a variant sets, those of equal passes of loops as one."""
    said = spec.settings(variant, {})
    return list(dict.fromkeys(_pattern(a) for a in knobs_in_search(spec, variant) if any(reaches(s.address, a) for s in said)))


# ---------------------------------------------------------------- checks
def _of_span(d: tree.Space) -> Span:
    """Where a space names its model."""
    found = re.search(rf"\bof\s+({re.escape(d.model)})\b", d.span.text)
    return Span(d.span.source, d.span.start + found.start(1), d.span.start + found.end(1)) if found else d.span


def default_domains(spec: Spec) -> Iterator[Diagnostic]:
    """A0407 for each knob of a model whose default lies outside of its domain, and what is wrong with the domains."""
    for knob in spec.knobs.values():
        if knob.allowed is not None and knob.allowed.fault:
            yield from knob.allowed.fault
    for knob in odd_defaults(spec.knobs.values()):
        yield from outside(knob).diagnostics


def check_spaces(module: Module, models: dict[str, Spec]) -> list[Diagnostic]:
    """Defaults that lie outside their own domain, spaces of nothing, limits that cannot be read at the defaults (`resolve` has read their names)."""
    found = Collector()
    for spec in models.values():
        for fault in default_domains(spec) if None not in spec.failed else ():
            found.add(fault)
    seen: dict[tuple[str, str], Span] = {}
    for d in module.tree.decls:
        if not isinstance(d, tree.Space):
            continue
        if d.model not in models:
            where = _of_span(d)
            found.add(error("A0401", f"`{d.model}` is no model of this file", where, "a space of nothing", **mend(d.model, models, where)))
            continue
        if (d.model, d.name) in seen:
            found.add(
                error(
                    "A0402",
                    f"two spaces of `{d.model}` are called `{d.name}`",
                    d.span,
                    "the second",
                    labels=(Label(seen[d.model, d.name], "the first"),),
                )
            )
        seen.setdefault((d.model, d.name), d.span)
        for limit in d.items if None not in models[d.model].failed else ():
            try:
                _check_limit(models[d.model], limit)
            except ArchError as fault:
                found.add(fault)
    return found.found


def _check_limit(spec: Spec, limit: tree.Expr) -> None:
    """Addresses name knobs, names beside them are arms; a limit on knobs alone is a yes or a no."""
    from archdsl.claims.evaluate import Evaluation
    from archdsl.elaborate.expressions import truth

    made = Evaluation(spec, None)
    addresses = check_addresses(made, limit)
    if not made.mentions_words(limit) and all(a in made.made.knobs for a in addresses):
        truth(made.frame, made.filled(limit))


def check_addresses(made: Any, node: tree.Expr) -> list[str]:
    """The knobs' addresses in an expression. Raises A0409 for one that no setting can have, A0403 for a name that is no arm of its choice."""
    from archdsl.claims.evaluate import address_of

    found: list[str] = []
    stack: list[Any] = [node]
    while stack:
        n = stack.pop()
        address = address_of(made, n)
        if address is not None:
            found.append(address)
            _known(made, address, n)
            continue
        if isinstance(n, tree.Binary) and n.op in ("==", "!="):
            _arm(made, n)
        stack.extend(tree.children(n))
    return found


def _pattern(address: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", address)


def _known(made: Any, address: str, node: tree.Expr) -> list[Knob]:
    """Knobs of that address, whatever its indices: other settings may have more layers."""
    pattern = _pattern(address)
    knobs = [k for a, k in made.made.knobs.items() if _pattern(a) == pattern]
    if not knobs:
        known = list(dict.fromkeys(_pattern(a) for a in made.made.knobs if "." in a))
        mended: dict[str, Any] = mend_address(address, list(made.made.knobs), node.span) if known else {"help": "it has none inside"}
        raise error(
            "A0409",
            f"`{made.spec.name}` has no knob at `{address}`",
            node.span,
            "no such knob",
            **mended,
        )
    return knobs


def _arm(made: Any, node: tree.Binary) -> None:
    from archdsl.claims.evaluate import address_of

    for side, other in ((node.left, node.right), (node.right, node.left)):
        address = address_of(made, side)
        if address is None or not isinstance(other, tree.Name):
            continue
        for knob in _known(made, address, side)[:1]:
            if knob.type == "choice" and other.id not in knob.domain:
                raise error(
                    "A0403",
                    f"`{address}` has no arm `{other.id}`",
                    other.span,
                    "no such arm",
                    **mend(other.id, knob.domain, other.span, f"its arms are {', '.join(knob.domain)}"),
                )
