"""Checks of the names blocks of a file, at the default and at every variant."""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Collector, Diagnostic, Label, error
from archdsl.elaborate.hints import did_you_mean, mend, mend_address, place_of
from archdsl.elaborate.limits import MAX_FAULTS
from archdsl.names.compile import chains_fit, compile_names
from archdsl.names.lines import Compiled, Memo, Use, Weights
from archdsl.names.patterns import Choice, Expression, Index, Pattern, Star, outline, parse_pattern
from archdsl.names.places import addressed, header, quoted
from archdsl.records import field, record, replace
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.incremental.kept import Kept
    from archdsl.modules import Module
    from archdsl.spec import Spec


def check_names(module: Module, models: Mapping[str, Spec], kept: Kept | None = None) -> list[Diagnostic]:
    """What is wrong with the `names` of a file, held against the models and variants that elaborate."""
    found = Collector()
    known: dict[int, Weights] = {}
    for decl, own in _blocks(module, models, found):
        check = partial(_check, decl, module, own, known)
        for d in check() if kept is None else kept.names(decl, module, [part for spec in own for part in _about(spec, known)], check):
            found.add(d)
    return found.found


def _blocks(module: Module, models: Mapping[str, Spec], found: Collector) -> Iterator[tuple[tree.Names, list[Spec]]]:
    """The blocks and the models that each is about, where all of these elaborate; faults of their headers go to `found`."""
    seen: dict[tuple[str, str], tree.Names] = {}
    for decl in module.tree.decls:
        if not isinstance(decl, tree.Names):
            continue
        specs: dict[str, Spec] = {}
        for model in decl.models:
            where = place_of(model, header(decl)) or header(decl)
            spec = models.get(model)
            if spec is None:
                found.add(error("A0431", f"there is no model `{model}` in this file", where, "its names", **mend(model, models, where)))
                continue
            first = seen.setdefault((decl.name, module.meant(model)), decl)
            if first is decl and module.meant(model) not in specs:
                specs[module.meant(model)] = spec
                continue
            if first is decl:
                message = f"the names `{decl.name}` are of `{model}` twice"
                found.add(error("A0438", message, where, "it stands here again", help="take one of them out"))
                continue
            found.add(error("A0438", f"`{model}` has two names `{decl.name}`", header(decl), "the second",
                            labels=(Label(header(first), "the first"),), help="give them different names, or make them one block"))
        if len(specs) == len(decl.models) and not any(None in spec.failed for spec in specs.values()):
            yield decl, [*specs.values()]


Part = list[dict[int, tuple[bool, bool, list[tuple[int, int]]]]]
"""For each block, for each of its lines: whether its condition held, whether it was about a weight, which items of its lists some address had."""


def part_of_names(module: Module, models: Mapping[str, Spec], of: Set[tuple[str, str | None]]) -> tuple[Part, list[list[str]]] | None:
    """What the blocks say of some variants (model, name), with the addresses of the weights there; None where something is wrong."""
    found = Collector()
    known: dict[int, Weights] = {}
    part: Part = []
    addresses: list[list[str]] = []
    for decl, own in _blocks(module, models, found):
        told = _compiled(decl, module, own, known, of)
        if told.found:
            return None
        part.append({k: (u.active, u.matched, sorted(u.picks)) for k, u in told.uses.items()})
        addresses.append([*told.addresses])
    return None if found.found else (part, addresses)


def parts_agree(module: Module, models: Mapping[str, Spec], parts: Iterable[Part], addresses: list[list[str]]) -> bool:
    """Whether each line of each block is about a weight of one part of the variants at least. `addresses`: weights of any of them."""
    for i, (decl, own) in enumerate(_blocks(module, models, Collector())):
        told = _Told(uses={k: Use() for k in range(len(decl.lines))}, addresses=dict.fromkeys(addresses[i]))
        for part in parts:
            for k, (active, matched, picks) in part[i].items():
                use = told.uses[k]
                use.active, use.matched = use.active or active, use.matched or matched
                use.picks.update(picks)
        if _held(decl, own, told):
            return False
    return True


def _about(spec: Spec, known: dict[int, Weights]) -> list[Any]:
    """What compiling foreign names depends on: the weights and the knobs at the default and in each variant."""
    out: list[Any] = [frozenset(spec.failed)]
    for variant in _sound(spec):
        made = spec.source(variant)
        shapes = known.setdefault(id(made.graph), Weights(made.graph)).shapes
        out.append((tuple(shapes.items()), tuple((a, spec.session.key(k.value)) for a, k in made.knobs.items())))
    return out


def _sound(spec: Spec) -> list[str | None]:
    return [v for v in (None, *spec.variants) if v not in spec.failed]


def _alike(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(type(x) is type(y) and x == y for x, y in zip(a, b))


@record()
class _Told:
    """What compiling a block for some variants has told. `ended`: there were so many faults that no more were looked for."""

    found: list[Diagnostic] = field(default_factory=list)
    uses: dict[int, Use] = field(default_factory=dict)
    addresses: dict[str, None] = field(default_factory=dict)
    ended: bool = False


def _check(decl: tree.Names, module: Module, specs: Sequence[Spec], known: dict[int, Weights]) -> list[Diagnostic]:
    told = _compiled(decl, module, specs, known)
    return told.found if told.ended else _held(decl, specs, told)


def _compiled(decl: tree.Names, module: Module, specs: Sequence[Spec], known: dict[int, Weights],
              of: Set[tuple[str, str | None]] | None = None) -> _Told:
    """Compiles the block for each model's default and variants (`of`: of these), but for one that differs from an earlier one in nothing that the
    block is about."""
    found = Collector()
    told = _Told(found.found, {k: Use() for k in range(len(decl.lines))})
    words = set(re.findall(r"[^\W\d]\w*", decl.span.text))
    memos: dict[frozenset[str], Memo] = {}
    for spec in specs:
        memo = memos.setdefault(frozenset(p.name for p in spec.decl.params), {})  # lines read alike where the same names are arguments
        clean: list[tuple[list[str], list[Any], Compiled]] = []
        for variant in _sound(spec):
            if of is not None and (spec.name, variant) not in of:
                continue
            made = spec.source(variant)
            weights = known.setdefault(id(made.graph), Weights(made.graph))
            own, values = list(weights.shapes), [k.value for k in made.knobs.values() if k.address in words]
            if any(own == a and _alike(values, v) and chains_fit(decl, module, made, c, weights) for a, v, c in clean):
                continue
            done = compile_names(decl, module, made, memo, weights, spec.session)
            if not done.found:
                clean.append((own, values, done))
            where = [f"in the model `{spec.name}`"] * (len(specs) > 1) + ([] if variant is None else [f"in the variant `{variant}`"])
            for d in done.found:
                found.add(replace(d, notes=(*d.notes, ", ".join(where))) if where else d)
            if len(found.found) >= MAX_FAULTS or any(d.code == "A0602" for d in done.found):
                told.ended = True
                return told
            for k, use in done.used.items():
                all_ = told.uses[k]
                all_.active, all_.matched = all_.active or use.active, all_.matched or use.matched
                all_.picks |= use.picks
            told.addresses.update(dict.fromkeys(own))
    return told


def _held(decl: tree.Names, specs: Sequence[Spec], told: _Told) -> list[Diagnostic]:
    """The faults, those of lines that are about nothing included."""
    found = Collector()
    for d in told.found:
        found.add(d)
    knobs = frozenset(p.name for spec in specs for p in spec.decl.params)
    for k, line in enumerate(() if any(spec.failed for spec in specs) else decl.lines):  # a variant that failed may have what a line is about
        broken = any(line.span.start <= d.span.start < line.span.end for d in found.found if d.span.source is line.span.source)
        if told.uses[k].active and not broken and len(found.found) < MAX_FAULTS:
            try:
                _idle(line, told.uses[k], list(told.addresses), knobs)
            except ArchError as fault:
                found.add(fault)
        elif line.address is not None and not told.uses[k].active and not broken and len(found.found) < MAX_FAULTS:
            try:
                _never(line, list(told.addresses), specs[0].module, knobs)
            except ArchError as fault:
                found.add(fault)
    if any(d.code == "A0432" for d in found.found):  # what a line with a slip in it was to be about is not missing
        return [d for d in found.found if d.code != "A0433"]
    return found.found


def _idle(line: tree.NameLine, use: Use, addresses: list[str], known: frozenset[str]) -> None:
    """Raises A0432 for a line, or an item of its lists, that is about no weight in any variant."""
    span = quoted(line) if line.address is None else addressed(line)
    pattern = parse_pattern(line.address if line.address is not None else line.foreign, span, known)
    if not use.matched and (deeper := _deeper(pattern, span.text.strip('"'), addresses)):
        raise error("A0432", f"no weight has an address like `{span.text.strip(chr(34))}`", span, "what is there lies deeper", help=deeper)
    if not use.matched:
        said = mend_address(span.text.strip('"'), addresses, span)
        where = said["fixes"][0].edits[0][0] if said["fixes"] else span
        raise error("A0432", f"no weight has an address like `{span.text.strip(chr(34))}`", where, "nothing there, in no variant",
                    help=said["help"] if said["fixes"] else _close(pattern, addresses), fixes=said["fixes"])
    for k, choice in enumerate(pattern.choices):
        for i, text in enumerate(choice.texts):
            if (k, i) not in use.picks and not any(text in a.split(".") for a in addresses):
                segments = {s for a in addresses for s in a.split(".")}
                said = mend_address(span.text.strip('"'), addresses, span)
                where = said["fixes"][0].edits[0][0] if said["fixes"] else span
                raise error("A0432", f"no weight has `{text}` in its address", where, f"`{text}` of this list names nothing",
                            help=said["help"] or (() if said["fixes"] else did_you_mean(text, segments) or "remove it"), fixes=said["fixes"])


def _never(line: tree.NameLine, addresses: list[str], module: Module, known: frozenset[str]) -> None:
    """Raises A0432 for a line whose `when` holds in no variant, where a word of its address is one that nothing could be named by: it stands in no
    text that the file is made of."""
    span = addressed(line)
    pattern = parse_pattern(line.address or "", span, known)
    texts = [t for p in pattern.parts for t in ([p] if isinstance(p, str) else p.texts if isinstance(p, Choice) else ())]
    mine = {w for t in texts for w in _WORD.findall(t)}.difference(*(a.split(".") for a in addresses))
    if not mine:
        return
    named = [d.span.text for d in module.tree.decls if not isinstance(d, tree.Names)]
    for text in (*named, *(m.source.text for m in module.library.read.values())):
        mine.difference_update(_WORD.findall(text))
    for word in sorted(mine):
        where = place_of(word, span) or span
        segments = {s for a in addresses for s in a.split(".") if not s.isdigit()}
        raise error("A0432", f"no weight has an address like `{span.text}`", where, f"nothing here is called `{word}`", **mend(word, segments, where))


_WORD = re.compile(r"[^\W\d]\w*")


def _deeper(pattern: Pattern, text: str, addresses: list[str]) -> str:
    """How to write a pattern that ends with `*` where each weight below it has more segments; empty where none has."""
    if not isinstance(pattern.parts[-1], Star):
        return ""
    below = re.compile(rf"(?:{pattern.regex.pattern})((?:\.[^.]+)+)")
    found = [(m[m.re.groups].count("."), a) for a in addresses if (m := below.fullmatch(a))]
    if not found:
        return ""
    more, example = min(found, key=lambda pair: pair[0])
    return f"`*` is one segment: `{text}{'.*' * more}` has weights such as `{example}`"


def _close(pattern: Pattern, addresses: list[str]) -> tuple[str, ...]:
    """The kinds of addresses that look like the pattern."""
    said = {Index: "#", Expression: "#", Star: "weight"}
    text = "".join(p if isinstance(p, str) else p.texts[0] if isinstance(p, Choice) else said[type(p)] for p in pattern.parts)
    return did_you_mean(_lettered(text), dict.fromkeys(_lettered(outline(a)) for a in addresses))


def _lettered(outlined: str) -> str:
    """`stages.#.blocks.#.gamma` -> `stages.{i}.blocks.{j}.gamma`"""
    letters = iter("ijklmnop")
    return re.sub("#", lambda _: f"{{{next(letters, 'q')}}}", outlined)
