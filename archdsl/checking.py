"""Everything that is wrong with a module: what can be told of its text, then of its models at their defaults and in every variant, then what
claims, spaces and foreign names say of them, then lints."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Collector, Diagnostic, Label
from archdsl.diagnostics.stages import MOST_EARLY, independent
from archdsl.elaborate.entries import check_entries
from archdsl.elaborate.frame import Session
from archdsl.elaborate.limits import MAX_LINES
from archdsl.elaborate.model import Elaborated, reaches_nothing
from archdsl.elaborate.record_defaults import record_defaults
from archdsl.in_two import clean_in_two
from archdsl.modules import MAX_FOUND, Module, family
from archdsl.records import replace
from archdsl.syntax import tree
from archdsl.syntax.parser import MAX_TOKENS
from archdsl.variants import Variant, known_variants

if TYPE_CHECKING:
    from archdsl.in_two import Job
    from archdsl.incremental.kept import Kept
    from archdsl.spec import Spec


def faults_of(module: Module, models: dict[str, Spec], session: Session, lints: bool, kept: Kept | None = None) -> list[Diagnostic]:
    """The faults of a module whose models are given; of one without faults, with `lints`, what it could do without. `kept`: what earlier versions
    of the text gave, and the session with them."""
    from archdsl.elaborate.resolve import resolve

    found = Collector()
    for d in module.diagnostics:
        found.add(d)
    for d in resolve(module, kept):
        found.add(d)
    early = tuple(found.found)
    if not module.diagnostics and len(early) <= MOST_EARLY:
        # a line counts when something stands on it
        lines = min(module.source.text.count("\n"), (MAX_TOKENS - module.library.left) // 5, MAX_LINES)
        with session.one_budget(lines):
            later = Collector() if early else found
            plan = _elaborate_defaults(module, models, session, later, early)
            alone = plan is None or later.found or early or kept is not None
            looked = 0 if plan is None or alone else clean_in_two(module, models, session, plan[0], _in_variant, later)
            if looked is not None:
                if plan is not None:
                    _elaborate_variants(models, plan[0][looked:], plan[1], later)
                if not any(_on_models(module, d) for d in early):
                    _hold_against(module, models, later, kept)
        for d in independent(early, later.found) if early else ():
            found.add(d)
    if lints and not found.found:
        from archdsl.lints import lint

        for d in lint(module, kept, models.values()):
            found.add(d)
    return found.found[:MAX_FOUND]


def _try(elaborate: Any, found: Collector) -> bool:
    """Whether to go on with the next variant."""
    try:
        elaborate()
    except ArchError as e:
        found.add(e)
        return len(found.found) < MAX_FOUND and all(d.code != "A0602" for d in e.diagnostics)
    return True


def _in_variant(spec: Spec, name: str, found: Collector) -> None:
    """Elaborates a variant; a fault elsewhere in the text says which variant it is of. Where the model has a fault at its defaults, those in the
    variant's own text are told alone."""
    spec.failed.add(name)
    try:
        _packs(spec.elaborate(name))
    except ArchError as e:
        own, before = spec.variants[name].decl.span, tuple(found.found)
        for d in e.diagnostics:
            if d.span.starts_in(own):
                known = any(b.code == d.code and any(label.span == b.span for label in d.labels) for b in before)
                for own_fault in () if known else (d,) if None not in spec.failed else independent(before, [d], names=True):
                    found.add(own_fault)
            elif None not in spec.failed or d.code == "A0602":
                found.add(replace(d, notes=(*d.notes, f"in the variant `{name}`")))
        return
    spec.failed.discard(name)


def _packs(made: Elaborated) -> None:
    """Raises A0501 where an axis is ragged and something looks across the borders of documents."""
    if made.ragged:
        from archdsl.streaming import in_form, source

        in_form(source(made), made.form)


def _sound_model(spec: Spec, found: Collector) -> None:
    _packs(spec.elaborate())
    spec.failed.discard(None)
    from archdsl.spaces import default_domains

    for d in default_domains(spec):
        found.add(d)


def _entries_agree(models: dict[str, Spec], variant: str | None) -> None:
    """Raises A0213 for entries of one model, at the defaults or in a variant, that need two weights at one address, A0214 for a default that
    they have in common and that reaches nothing in any of them."""
    families: dict[str, dict[str, Elaborated]] = {}
    for name, spec in models.items():
        if name != family(name) and (variant is None or variant in spec.variants):
            families.setdefault(family(name), {})[name.partition(".")[2]] = spec.source(variant)
    for name, entries in families.items():
        check_entries(name, {entry: made.graph for entry, made in entries.items()})
        first, *others = entries.values()
        faults = [reaches_nothing(s) for s in first.idle if all(s in made.idle for made in others)]
        if faults:
            raise ArchError(*(d for f in faults for d in f.diagnostics))


def _broken(known: dict[str, Variant], early: tuple[Diagnostic, ...]) -> set[str]:
    """The variants in which names are wrong, and those that build on one of them: what they would set is not known."""
    broken: set[str] = set()
    sound: set[str] = set()
    for name in known if early else ():
        chain: list[str] = []
        here: str | None = name
        while here in known and here not in broken and here not in sound:
            own = known[here].decl.span
            chain.append(here)
            if any(d.span.starts_in(own) for d in early):
                broken.add(here)
            here = known[here].decl.base
        below = here in broken
        for one in reversed(chain):
            below = below or one in broken
            (broken if below else sound).add(one)
    return broken


def _elaborate_defaults(module: Module, models: dict[str, Spec], session: Session, found: Collector,
                        early: tuple[Diagnostic, ...]) -> tuple[list[Job], list[str]] | None:
    """The variants that are left to elaborate, and the names of all; None where what is wrong says that none is to be."""
    for d in record_defaults(module, session):
        found.add(d)
    for spec in models.values():
        spec.failed.add(None)
        if not _try(lambda: _sound_model(spec, found), found):  # noqa: B023
            return None
    try:
        known = known_variants(module, models, session)
    except ArchError as e:
        found.add(e)
        return None
    broken = _broken(known, early)
    jobs: list[Job] = []
    for spec, name in [(s, name) for s in models.values() for name in known if name in s.variants]:
        if name in broken:
            spec.failed.add(name)
        else:
            jobs.append((spec, name))
    return jobs, [*known]


def _elaborate_variants(models: dict[str, Spec], jobs: list[Job], known: list[str], found: Collector) -> None:
    for spec, name in jobs:
        if len(found.found) >= MAX_FOUND or any(d.code == "A0602" for d in found.found):
            break
        _in_variant(spec, name, found)
    for spec in models.values():
        if None in spec.failed:
            _told_of_defaults(spec, found)
    if not found.found:
        for variant in (None, *known):
            _try(lambda: _entries_agree(models, variant), found)  # noqa: B023


def _told_of_defaults(spec: Spec, found: Collector) -> None:
    """A rule that is broken at one place by numbers of the defaults and by those of two variants or more is told of the defaults alone: what is
    wrong is that place, as where two arguments were exchanged."""
    from archdsl.elaborate.blame import ALWAYS

    own = [v.decl.span for v in spec.variants.values()]
    others = [d.span for d in spec.module.tree.decls
              if isinstance(d, (tree.Model, tree.Variant)) and not any(s.starts_in(d.span) for s in (spec.decl.span, *own))]
    theirs: dict[tuple[str, Label], list[Diagnostic]] = {}
    defaults: set[tuple[str, Label]] = set()
    for d in found.found:
        if d.code in ALWAYS and d.labels and not any(d.span.starts_in(s) for s in others):
            if any(d.span.starts_in(s) for s in own):
                theirs.setdefault((d.code, d.labels[0]), []).append(d)
            else:
                defaults.add((d.code, d.labels[0]))
    again = {id(d) for place, several in theirs.items() if place in defaults and len(several) > 1 for d in several}
    found.found[:] = [d for d in found.found if id(d) not in again]


def _on_models(module: Module, d: Diagnostic) -> bool:
    """Whether a fault is of a declaration about models: what others say of them is held against that."""
    about = [x.span for x in module.tree.decls if isinstance(x, (tree.Variant, tree.Claim, tree.Space, tree.Names))]
    return any(d.span.starts_in(s) for s in about)


def _hold_against(module: Module, models: dict[str, Spec], found: Collector, kept: Kept | None) -> None:
    """What claims, spaces and foreign names say of the models and variants that could be elaborated."""
    from archdsl.claims import check_claims
    from archdsl.names import check_names
    from archdsl.spaces import check_spaces

    before = tuple(found.found)
    if any(d.code == "A0602" for d in before):
        return
    try:
        faults = [check(module, models) for check in (check_claims, check_spaces)] + [check_names(module, models, kept)]
    except ArchError:  # variants that cannot be read, which has been told
        return
    for d in independent(before, [d for some in faults for d in some[:MAX_FOUND]], names=True):
        found.add(d)


__all__ = ["faults_of"]
