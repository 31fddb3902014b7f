"""Checks of the names blocks of a file, at the default and at every variant."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Collector, Diagnostic, Label, error
from archdsl.elaborate.hints import did_you_mean, mend, mend_address, place_of
from archdsl.elaborate.limits import MAX_FAULTS
from archdsl.names.compile import chains_fit, compile_names
from archdsl.names.lines import Compiled, Memo, Use, Weights
from archdsl.names.patterns import Choice, Expression, Index, Pattern, Star, outline, parse_pattern
from archdsl.names.places import addressed, header, quoted
from archdsl.records import replace
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.incremental.kept import Kept
    from archdsl.modules import Module
    from archdsl.spec import Spec


def check_names(module: Module, models: Mapping[str, Spec], kept: Kept | None = None) -> list[Diagnostic]:
    """What is wrong with the `names` of a file, held against the models and variants that elaborate."""
    found = Collector()
    seen: dict[tuple[str, str], tree.Names] = {}
    known: dict[int, Weights] = {}
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
        if len(specs) < len(decl.models) or any(None in spec.failed for spec in specs.values()):
            continue
        own = [*specs.values()]
        check = partial(_check, decl, module, own, known)
        for d in check() if kept is None else kept.names(decl, module, [part for spec in own for part in _about(spec, known)], check):
            found.add(d)
    return found.found


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


def _check(decl: tree.Names, module: Module, specs: Sequence[Spec], known: dict[int, Weights]) -> list[Diagnostic]:
    """Compiles the block for each model's default and variants, but for one that differs from an earlier one in nothing that the block is about."""
    found = Collector()
    uses: dict[int, Use] = {k: Use() for k in range(len(decl.lines))}
    addresses: dict[str, None] = {}
    words = set(re.findall(r"[^\W\d]\w*", decl.span.text))
    for spec in specs:
        memo: Memo = {}
        clean: list[tuple[list[str], list[Any], Compiled]] = []
        for variant in _sound(spec):
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
                return found.found
            for k, use in done.used.items():
                all_ = uses[k]
                all_.active, all_.matched = all_.active or use.active, all_.matched or use.matched
                all_.picks |= use.picks
            addresses.update(dict.fromkeys(own))
    knobs = frozenset(p.name for spec in specs for p in spec.decl.params)
    for k, line in enumerate(() if any(spec.failed for spec in specs) else decl.lines):  # a variant that failed may have what a line is about
        broken = any(line.span.start <= d.span.start < line.span.end for d in found.found if d.span.source is line.span.source)
        if uses[k].active and not broken and len(found.found) < MAX_FAULTS:
            try:
                _idle(line, uses[k], list(addresses), knobs)
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
