"""The variants of a file: what each says, on top of what it builds on."""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate.frame import Session
from archdsl.elaborate.hints import mend
from archdsl.elaborate.limits import limit
from archdsl.elaborate.model import Setting, segments
from archdsl.modules import Module
from archdsl.records import record
from archdsl.source import Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.spec import Spec

MAX_SETTINGS = 100_000  # of all variants together, inherited ones included
MOST_SHOWN = 12


@record(frozen=True)
class Variant:
    """A named choice of hyper arguments: the settings of its bases first, then its own."""

    name: str
    model: str
    settings: tuple[Setting, ...]
    decl: tree.Variant
    doc: str = ""
    transforms: tuple[tree.Transform, ...] = ()


def known_variants(module: Module, models: dict[str, Spec], session: Session) -> dict[str, Variant]:
    """The variants of a file, read once for a session."""
    if session.variants is None:
        session.variants = variants(module, models)
    return session.variants


def variants(module: Module, models: dict[str, Spec]) -> dict[str, Variant]:
    """All variants of a file. Raises A0401 for an unknown base, A0402 for a circle or a second one of the same name."""
    decls: dict[str, tree.Variant] = {}
    for d in module.tree.decls:
        if isinstance(d, tree.Variant):
            if d.name in decls:
                raise error("A0402", f"two variants are called `{d.name}`", d.name_span, "the second", help="give them different names")
            decls[d.name] = d
    out: dict[str, Variant] = {}
    total = 0
    for name in decls:
        for d in reversed(_bases(name, models, decls, out)):
            out[d.name] = _variant(d, models, decls, out)
            total += len(out[d.name].settings)
            if total > MAX_SETTINGS:
                raise limit(f"the variants of this file make more than {MAX_SETTINGS:,} settings", d.name_span, "those of its bases included")
    return {n: out[n] for n in decls}


def _bases(name: str, models: dict[str, Spec], decls: dict[str, tree.Variant], known: dict[str, Variant]) -> list[tree.Variant]:
    """A variant and those below it that are not known yet, in this order. Raises A0402 for a circle."""
    chain: dict[str, tree.Variant] = {}
    while name in decls and name not in known:
        d = decls[name]
        if name in chain:
            circle = [*list(chain)[list(chain).index(name):], name]
            shown = " -> ".join(circle if len(circle) < 12 else [*circle[:5], "…", *circle[-5:]])
            raise error("A0402", f"variants build on each other in a circle: {shown}", d.name_span, "builds on itself")
        chain[name] = d
        if d.base is None or d.base in models:
            break
        name = d.base
    return list(chain.values())


def _variant(d: tree.Variant, models: dict[str, Spec], decls: dict[str, tree.Variant], out: dict[str, Variant]) -> Variant:
    own = tuple(Setting(s.address, None, s.value, s.address_span) for s in d.settings)
    if d.base is None or d.base in models:
        model, inherited, steps = d.base or next(iter(models), ""), (), ()
    elif d.base in out:
        model, inherited, steps = out[d.base].model, out[d.base].settings, out[d.base].transforms
    else:
        raise no_target(d.base, d.span, [*models, *decls])
    replaced = {segments(s.address) for s in own}
    return Variant(d.name, model, tuple(s for s in inherited if segments(s.address) not in replaced) + own, d, d.doc, (*steps, *d.transforms))


def no_target(name: str, span: Span, known: Iterable[str], path: str | None = None) -> ArchError:
    """A0401: a name that is to be one of these models and variants of this file, or of that at `path`, named on the command line."""
    known = list(dict.fromkeys(known))
    shown = ", ".join(known[:MOST_SHOWN]) + (f", and {len(known) - MOST_SHOWN} more" if len(known) > MOST_SHOWN else "")
    return error("A0401", f"`{name}` is neither a model nor a variant of {path or 'this file'}", span, "no such name",
                 **mend(name, known, span if path is None else None, f"it has {shown}" if known else "it declares no model"))
