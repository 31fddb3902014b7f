"""A broken rule is told where the number that breaks it is written: the setting or the default, however far it travelled. Loaded for faults alone."""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import isqrt, log2
from typing import Any

from archdsl.diagnostics.model import Diagnostic, Fix, Label
from archdsl.elaborate.domains import Domain
from archdsl.elaborate.frame import Override
from archdsl.graph import Knob
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax import tree

ALWAYS = frozenset(("A0303", "A0310"))  # rules on numbers
SETTINGS = ALWAYS | {"A0301", "A0304", "A0305", "A0308"}  # what fits at the defaults and not with settings
WIDE = 60  # characters of a value that is shown
NAME = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
DIVISOR = re.compile(r"(?:/|%)\s*\(?(?:\d+\s*\*\s*)?([A-Za-z_]\w*)")


def blamed(faults: Iterable[Diagnostic], decl: tree.Model, overrides: tuple[Override, ...], knobs: dict[str, Knob]) -> list[Diagnostic]:
    """The faults of one elaboration, each moved to the number that it hangs on, where one can be told; one for each number."""
    out: dict[Any, Diagnostic] = {}
    for d in faults:
        moved = _moved(d, decl, overrides, knobs) if _of_numbers(d) or overrides and d.code in SETTINGS else None
        out.setdefault(moved[1] if moved else (d.code, d.span, d.message), moved[0] if moved else d)
    return list(out.values())


def _of_numbers(d: Diagnostic) -> bool:
    """Whether a fault hangs on numbers alone: a rule on them, or a division that does not come out even."""
    return d.code in ALWAYS or d.division is not None


def _moved(d: Diagnostic, decl: tree.Model, overrides: tuple[Override, ...], knobs: dict[str, Knob]) -> tuple[Diagnostic, Span] | None:
    """The fault at the number, and where that is; a number outside of the file (`--set`) is shown behind the fault."""
    candidates = list(_written(d, decl, overrides, knobs))
    set_here = [c for c in candidates if c[1] is not None]
    if not set_here and not _of_numbers(d):
        return None
    chosen = set_here or candidates
    if not chosen:
        return None
    near = [c for c in chosen if _small(d, knobs[c[0]], c)] or chosen
    name, o, span = min(near, key=lambda c: _evenness(knobs[c[0]], c))
    other = _hopeless(d, overrides, knobs)
    if other is not None and all(other[0] != c[0] for c in chosen):
        name, o, span = max((name, o, span), other, key=lambda c: _strangeness(knobs[c[0]], c))
    if span == d.span:
        return None
    label = f"`{name}` is {' '.join(span.text.split())}" if span.end - span.start <= WIDE else f"`{name}` is set here"
    if span.source.whole is not d.span.source.whole:
        return (replace(d, labels=(*d.labels, Label(span, label))), span) if span.source.text and _of_numbers(d) else None
    knob, value = knobs[name], _number(knobs[name], o)
    # one fault has one place: what a label said of the first place is said there
    rest = tuple(x for x in d.labels if x.span != span)
    every = _fixes(d, value, knob, span)
    fixes = every[:3]
    help = tuple(h for h in d.help if not (fixes and re.search(r" divides? | multiples? of ", h)))
    return replace(d, span=span, label=label, labels=(Label(d.span, d.label or d.message), *rest), help=help, fixes=fixes,
                   rivals=every[3:]), span


def _number(knob: Knob, o: Override | None) -> Any:
    return knob.value if o is None or len(o.segments) == 1 else None


def _small(d: Diagnostic, knob: Knob, candidate: tuple[str, Override | None, Span]) -> bool:
    """Whether a small change of the number makes the division exact: of two numbers, the one that is further off is hardly the slip."""
    value = _number(knob, candidate[1])
    return any(n != value and abs(n - value) < value / 2 for n in _near(d, value))


def _hopeless(d: Diagnostic, overrides: tuple[Override, ...], knobs: dict[str, Knob]) -> tuple[str, Override | None, Span] | None:
    """The one setting that gives what is divided, where that is smaller than what divides it, or a prime: no other number of heads would do."""
    a, b = d.division or (0, 0)
    if not _lost(a, b):
        return None
    below = DIVISOR.findall(d.span.text)
    found = [(o.segments[0], o, o.expr.span) for o in overrides
             if len(o.segments) == 1 and isinstance(o.expr, tree.Number) and o.expr.value == a and o.segments[0] not in below]
    return found[0] if len(found) == 1 and found[0][0] in knobs else None


def _lost(a: int, b: int) -> bool:
    """Whether nothing like the divisor divides `a`."""
    return type(a) is type(b) is int and a > 1 and (a < b or all(a % n for n in range(2, isqrt(a) + 1)))


def _strangeness(knob: Knob, candidate: tuple[str, Override | None, Span]) -> float:
    """How often a number is doubled or halved from the default on."""
    value, usual = _number(knob, candidate[1]), knob.default
    return abs(log2(value / usual)) if type(value) is type(usual) is int and value > 0 and usual > 0 else 0.0


def _evenness(knob: Knob, candidate: tuple[str, Override | None, Span]) -> int:
    """How often a number can be halved: widths and numbers of heads can, so that of several the one that cannot is the slip."""
    value = _number(knob, candidate[1])
    return (value & -value).bit_length() if type(value) is int and value > 0 else 0


def _written(d: Diagnostic, decl: tree.Model, overrides: tuple[Override, ...], knobs: dict[str, Knob]) -> Iterator[tuple[str, Override | None, Span]]:
    """(knob, setting, where its number is written) of what the fault hangs on, the divisor of a division first."""
    names = [*_names(d.span.text), *(n for x in d.labels if re.fullmatch(r"`\w+` is -?\d+", x.message) for n in _names(x.span.text))]
    for given in d.given:
        names = [n for name in _expanded(names, _bindings(given.body)) for n in (_names(given.spans[name].text) if name in given.spans else [])]
    defaults = {p.name: p for p in decl.params}
    seen: set[str] = set()
    queue = _expanded(names, _bindings(decl.body))
    while queue:
        name = queue.pop(0)
        if name in seen or name not in defaults or name not in knobs:
            continue
        seen.add(name)
        o = next((o for o in reversed(overrides) if o.segments[0] == name), None)
        if o is not None and o.expr is None:  # set in Python: no text holds the number
            continue
        node = o.expr if o is not None else defaults[name].default
        if isinstance(node, (tree.Number, tree.List, tree.Str)) or isinstance(node, tree.Unary) and isinstance(node.operand, tree.Number):
            yield name, o, node.span
        elif node is not None:
            queue += _names(node.span.text)


def _names(text: str) -> list[str]:
    """The names in a text, divisors first."""
    text = re.sub(r'"[^"]*"', "", text)
    return list(dict.fromkeys([*DIVISOR.findall(text), *NAME.findall(text)]))


def _bindings(body: Any) -> dict[str, str]:
    """The text that each name of a body is bound to."""
    out: dict[str, str] = {}
    stack = list(body)
    while stack:
        s = stack.pop()
        if isinstance(s, tree.Assign):
            text = " ".join(v.span.text for v in s.values)
            out.update({t.name: text for t in s.targets if t.name not in out})
        elif isinstance(s, tree.For):
            stack += s.body
            for n in _names(s.pattern.span.text):
                out.setdefault(n, s.iterable.span.text)
        elif isinstance(s, tree.Statement):
            stack += [c for c in tree.children(s) if isinstance(c, tree.Statement)]
    return out


def _expanded(names: list[str], bindings: dict[str, str]) -> list[str]:
    """The names, each followed by those in what it is bound to."""
    out: dict[str, None] = {}
    queue = list(names)
    while queue:
        name = queue.pop(0)
        if name not in out:
            out[name] = None
            queue = (_names(bindings[name]) if name in bindings else []) + queue
    return list(out)


def _fixes(d: Diagnostic, value: Any, knob: Knob, span: Span) -> tuple[Fix, ...]:
    """Other numbers for the one at the span, those of its domain first."""
    near = _near(d, value)
    inside: Any = knob.allowed if isinstance(knob.allowed, Domain) and not knob.allowed.fault else None
    near.sort(key=lambda n: (inside is not None and not inside.contains(n), abs(n - value), -n))
    return tuple(Fix(f"replace by `{n}`", ((span, str(n)),)) for n in near if n != value)


def _near(d: Diagnostic, value: Any) -> list[int]:
    """Numbers with which the division is exact: divisors of what is divided, multiples of what divides."""
    if type(value) is not int or d.division is None:
        return []
    a, b = d.division
    if value > 0 and b > 0 and b % value == 0 and a > 0 and not (value == a and _lost(a, b)):  # the divisor, or a factor of it
        return [n for n in range(1, min(a, 4 * value + 64) + 1) if a % (b // value * n) == 0]
    if value == a and b > 0:
        return [n for n in ((a // b) * b, (a // b + 1) * b, (a // b + 2) * b) if n > 0]
    return []
