"""Claims: what a spec says about itself, checked for sense by `check` and for truth by `verify`."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator

from archdsl.diagnostics.model import ArchError, Diagnostic, error
from archdsl.elaborate.hints import did_you_mean
from archdsl.source import Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.modules import Module
    from archdsl.spec import Spec


@dataclass(frozen=True, slots=True)
class Claim:
    """One item of a `claim { … }`: about a model at its defaults (`variant` None) or about a variant. `source`: the text after `from`."""

    model: str
    variant: str | None
    text: str
    source: str | None
    span: Span
    item: tree.ClaimItem


def claims_of(spec: Spec) -> list[Claim]:
    """The claims about this model and its variants, in the order of the text. Raises A0401 for a target that does not exist."""
    return [c for c in _claims(spec.module, spec.models) if c.model == spec.name]


def check_claims(module: Module, models: dict[str, Spec]) -> list[Diagnostic]:
    """What is wrong with claims, without tensors."""
    try:
        list(_claims(module, models))
    except ArchError as fault:
        return fault.diagnostics
    return []


def declared(module: Module) -> Iterator[tuple[str | None, tree.Claim]]:
    """Every `claim { … }` with the name it is about; None: the first model."""
    for d in module.tree.decls:
        if isinstance(d, tree.Claim):
            yield d.target, d
        elif isinstance(d, tree.Variant):
            yield from ((c.target or d.name, c) for c in d.claims)


def _claims(module: Module, models: dict[str, Spec]) -> Iterator[Claim]:
    from archdsl.spec import variants

    of_variant = {name: v.model for name, v in variants(module, models).items()}
    for target, decl in declared(module):
        model, variant = _target(target, decl, list(models), of_variant)
        for item in decl.items:
            yield Claim(model, variant, " ".join(item.span.text.split()), item.source, item.span, item)


def _target(name: str | None, decl: tree.Claim, models: list[str], of_variant: dict[str, str]) -> tuple[str, str | None]:
    """(model, variant) that a claim is about: a model, a variant, `model.variant`; the first model when nothing is said."""
    if name is None or name == "default" and name not in (*models, *of_variant):
        return (models[0] if models else "", None)
    if name in models:
        return name, None
    if name in of_variant:
        return of_variant[name], name
    model, _, variant = name.partition(".")
    if model in models and of_variant.get(variant) == model:
        return model, variant
    raise error("A0401", f"`{name}` is neither a model nor a variant of this file", decl.span, "claimed of nothing", help=did_you_mean(name, [*models, *of_variant]))


def verify(spec: Spec) -> Iterator[dict[str, Any]]:
    """Checks the claims about a model one by one: rows {path, variant, claim, passed, expected, actual}."""
    from archdsl.claims.verify import rows

    return rows(spec)
