"""Claims: what a spec says about itself, checked for sense by `check` and for truth by `verify`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import TYPE_CHECKING, Any, TypeGuard

from archdsl.claims.pages import CODES
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.elaborate.limits import MAX_FAULTS
from archdsl.records import record
from archdsl.source import Span
from archdsl.syntax import tree
from archdsl.variants import known_variants

if TYPE_CHECKING:
    from archdsl.modules import Module
    from archdsl.spec import Spec

__all__ = ["CODES", "Claim", "check_claims", "claims_of", "untrue", "verified", "verify"]


@record(frozen=True)
class Claim:
    """One item of a `claim { … }`: about a model at its defaults (`variant` None) or about a variant. `source`: the text after `from`."""

    model: str
    variant: str | None
    text: str
    source: str | None
    span: Span
    item: tree.ClaimItem


def claims_of(spec: Spec) -> list[Claim]:
    """The claims about this model and its variants, in the order of the text."""
    return [c for c in _claims(spec.module, spec.models) if c.model == spec.name]


def _claims(module: Module, models: dict[str, Spec]) -> Iterator[Claim]:
    from archdsl.claims.words import declared
    if not models:
        return
    session = next(iter(models.values())).session
    of_variant = {name: v.model for name, v in known_variants(module, models, session).items()}
    for target, decl in declared(module):
        model, variant = _target(target, next(iter(models), ""), of_variant)
        for item in decl.items:
            yield Claim(model, variant, " ".join(item.span.text.split()), item.source, item.span, item)


def _target(name: str | None, first: str, of_variant: dict[str, str]) -> tuple[str, str | None]:
    """(model, variant) that a claim is about: a model, a variant, `model.variant`; the first model when nothing is said."""
    if name is None or name == "default" and name not in of_variant:
        return first, None
    last = name.rpartition(".")[2]
    return (of_variant[last], last) if last in of_variant else (name, None)


def check_claims(module: Module, models: dict[str, Spec], of: Set[tuple[str, str | None]] | None = None) -> list[Diagnostic]:
    """What is wrong with claims about elaborated models (`resolve` has read the text): addresses, axes in time, variants of other models. `of`:
    with those about these variants (model, name; None: at the defaults)."""
    found: list[Diagnostic] = []
    for claim in _claims(module, models):
        if of is not None and (claim.model, claim.variant) not in of:
            continue
        from archdsl.claims.evaluate import Evaluation

        if claim.model not in models or not models[claim.model].failed.isdisjoint((None, claim.variant, *re.findall(r"\w+", claim.text))):
            continue
        try:
            Evaluation(models[claim.model], claim).check()
        except ArchError as fault:
            found += fault.diagnostics
            if len(found) >= MAX_FAULTS:
                break
    return found


def untrue(claim: Claim, row: dict[str, Any]) -> Diagnostic | None:
    """A0411 for a claim of equality that does not hold, at the figure that it gives, with the one that was counted."""
    from archdsl.diagnostics.model import Fix, error

    expr = claim.item.expr
    if row["passed"] or not isinstance(expr, tree.Binary) or expr.op != "==" or not (isinstance(row["actual"], int) or _is_list(row["actual"])):
        return None
    right, actual, said = expr.right, row["actual"], row["expected"]
    where = right.span
    text = written(actual, where.text)
    if _is_list(actual) and _is_list(said) and isinstance(right, tree.List) and len(actual) == len(said) == len(right.items):
        off = [i for i, (a, b) in enumerate(zip(actual, said)) if a != b]
        if len(off) == 1:
            where, text = right.items[off[0]].span, written(actual[off[0]], right.items[off[0]].span.text)
    fixes = (Fix(f"replace by `{text}`", ((where, text),)),) if isinstance(right, (tree.Number, tree.List)) else ()
    return error("A0411", f"`{claim.text}` is not true", where, f"it is {text}", fixes=fixes).diagnostics[0]


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def written(value: Any, like: str) -> str:
    """A number or a list of them, grouped as the text that it replaces."""
    if _is_list(value):
        return "[" + ", ".join(written(v, like) for v in value) + "]"
    return f"{value:_}" if "_" in like or value >= 10_000 and len(like) < 5 else str(value)


def verify(spec: Spec) -> Iterator[dict[str, Any]]:
    """Checks the claims about a model one by one: rows {path, variant, claim, passed, expected, actual}. A claim whose `when` does not hold
    has no row. One that cannot be verified yet has not passed."""
    for _, row in verified(spec):
        yield row


def verified(spec: Spec, claims: list[Claim] | None = None) -> Iterator[tuple[Claim, dict[str, Any]]]:
    """The same, each row with its claim; of these claims alone where they are given."""
    from archdsl.claims.evaluate import row

    for claim in claims_of(spec) if claims is None else claims:
        found = row(spec, claim)
        if found is not None:
            yield claim, found
