"""Patterns of names: `blocks.{i}.attn.{q, k, v}.*` on either side of `<->`."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.records import field, record, replace
from archdsl.source import Span
from archdsl.syntax import tree
from archdsl.syntax.parser import parse_expression

Evaluate = Callable[[tree.Expr, Mapping[str, int]], Any]
"""The value of an expression with the loop indices bound so far."""

MAX_STARS = 3  # that may end anywhere, of a pattern that is searched for: more could be made to take very long
_PLAIN = re.compile(r"[\w.\-]+")
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


@record(frozen=True)
class Index:
    """`{i}`: a whole number that the pattern binds."""

    name: str


@record(frozen=True)
class Expression:
    """`{2 * i + 1}`; `indices`: the loop indices that it mentions; `fixed`: it mentions nothing else."""

    expr: tree.Expr
    text: str
    indices: frozenset[str]
    fixed: bool

    def index(self, value: Any, span: Span) -> str:
        """Its value in a name. Raises A0437."""
        if type(value) is not int or value < 0:
            raise error("A0437", f"`{{{self.text}}}` is {value}", span, "an index in a name is a whole number")
        return str(value)


@record(frozen=True)
class Choice:
    """`{q, k, v}`"""

    items: tuple[str | Expression, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(i if isinstance(i, str) else i.text for i in self.items)

    def __str__(self) -> str:
        return f"{{{', '.join(self.texts)}}}"


@record(frozen=True)
class Star:
    """`*`: one segment, or a part of one; `**` (`deep`): any number of segments, only where a pattern is searched for."""

    deep: bool = False


Part = str | Index | Expression | Choice | Star


@record()
class Binding:
    """What one address says: loop indices, the item of each `{a, b}`, the text of each `*`, both in the order of the pattern."""

    indices: dict[str, int] = field(default_factory=dict)
    picks: list[int] = field(default_factory=list)
    stars: list[str] = field(default_factory=list)


@record(frozen=True, slots=False)
class Pattern:
    parts: tuple[Part, ...]
    span: Span

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return tuple(p for p in self.parts if isinstance(p, Choice))

    @cached_property
    def stars(self) -> int:
        return sum(isinstance(p, Star) for p in self.parts)

    @cached_property
    def indices(self) -> tuple[str, ...]:
        """The indices that a pair of braces of their own binds, each once."""
        return tuple(dict.fromkeys(p.name for p in self.parts if isinstance(p, Index)))

    @cached_property
    def mentioned(self) -> frozenset[str]:
        """Every index, in braces of its own or in an expression."""
        items = [e for p in self.parts for e in (p.items if isinstance(p, Choice) else (p,))]
        return frozenset(self.indices).union(*(e.indices for e in items if isinstance(e, Expression)))

    @cached_property
    def fixed(self) -> bool:
        """Whether it says the same in all variants: no expression mentions a hyper argument."""
        return all(e.fixed for p in self.parts for e in (p.items if isinstance(p, Choice) else (p,)) if isinstance(e, Expression))

    # ---------------------------------------------------------------- matching own addresses
    @cached_property
    def regex(self) -> re.Pattern[str]:
        """One group for each part that is no plain text."""
        return re.compile("".join(map(_regex, self.parts)))

    @cached_property
    def outline(self) -> re.Pattern[str]:
        """Matches addresses whose numbers are replaced by `#`; a first sieve."""
        text = outline("".join(p if isinstance(p, str) else "\0" for p in self.parts))
        others = iter([p for p in self.parts if not isinstance(p, str)])
        return re.compile("".join(_outline(next(others)) if c == "\0" else re.escape(c) for c in text))

    def match(self, address: str, evaluate: Evaluate) -> Binding | None:
        """What the address binds, or None. Raises ArchError for an index that cannot be found."""
        found = self.regex.fullmatch(address)
        if found is None:
            return None
        binding = Binding()
        parts = [p for p in self.parts if not isinstance(p, str)]
        for part, text in zip(parts, found.groups()):
            if isinstance(part, Star):
                binding.stars.append(text)
            elif isinstance(part, Index) and binding.indices.setdefault(part.name, int(text)) != int(text):
                return None
        for part, text in zip(parts, found.groups()):
            if isinstance(part, Expression) and not self._solve(part, int(text), binding, evaluate):
                return None
            if isinstance(part, Choice):
                at = self._pick(part, text, binding, evaluate)
                if at is None:
                    return None
                binding.picks.append(at)
        return binding

    def _solve(self, part: Expression, value: int, binding: Binding, evaluate: Evaluate) -> bool:
        """Finds the one index that is still unknown: expressions are linear in it."""
        unknown = sorted(part.indices - set(binding.indices))
        if not unknown:
            return evaluate(part.expr, binding.indices) == value
        name = unknown[0]
        if len(unknown) > 1:
            raise error("A0435", f"`{name}` and `{unknown[1]}` cannot both be found from `{{{part.text}}}`", self.span,
                        help=f"bind one by `{{{name}}}` elsewhere")
        first, second = (evaluate(part.expr, {**binding.indices, name: k}) for k in (0, 1))
        found = Fraction(value - first) / (second - first) if second != first else None
        if found is None or found.denominator != 1 or found < 0:
            return False
        binding.indices[name] = int(found)
        if evaluate(part.expr, binding.indices) != value:
            raise error("A0435", f"`{name}` cannot be found from `{{{part.text}}}`", self.span,
                        help="an index is found from expressions such as `2 * i + 1`")
        return True

    @staticmethod
    def _pick(part: Choice, text: str, binding: Binding, evaluate: Evaluate) -> int | None:
        for at, item in enumerate(part.items):
            if item == text if isinstance(item, str) else text.isdigit() and evaluate(item.expr, binding.indices) == int(text):
                return at
        return None

    # ---------------------------------------------------------------- writing names
    def expand(self, binding: Binding, evaluate: Evaluate) -> str:
        """The name for a binding whose `picks` and `stars` are in the order of this pattern."""
        picks, stars = iter(binding.picks), iter(binding.stars)
        out: list[str] = []
        for p in self.parts:
            if isinstance(p, Choice):
                p = p.items[next(picks)]
            if isinstance(p, str):
                out.append(p)
            elif isinstance(p, Index):
                out.append(str(binding.indices[p.name]))
            elif isinstance(p, Star):
                out.append(next(stars))
            else:
                out.append(p.index(evaluate(p.expr, binding.indices), self.span))
        return "".join(out)

    def search(self, evaluate: Evaluate) -> str:
        """A regular expression for the names that it stands for, any numbers in place of its indices. Raises A0437."""
        out, loose = "", 0
        for p, after in zip(self.parts, (*self.parts[1:], ".")):
            for e in p.items if isinstance(p, Choice) else (p,):
                if isinstance(e, Expression) and not isinstance(evaluate(e.expr, {}), int):
                    raise error("A0437", f"`{{{e.text}}}` is no whole number", self.span)
            if isinstance(p, Expression):
                out += str(evaluate(p.expr, {}))
            elif isinstance(p, Choice):
                out += f"(?:{'|'.join(re.escape(i) if isinstance(i, str) else str(evaluate(i.expr, {})) for i in p.items)})"
            elif isinstance(p, Star):
                segment = not p.deep and isinstance(after, str) and after.startswith(".")
                loose += not segment
                out += "[^.]++" if segment else ".*" if p.deep else "[^.]+"
            else:
                out += re.escape(p) if isinstance(p, str) else r"\d+"
        if loose > MAX_STARS:
            raise error("A0437", f"{loose} wildcards that may end anywhere are too many", self.span, help=f"at most {MAX_STARS} are allowed")
        return out


@lru_cache(maxsize=1 << 16)
def outline(address: str) -> str:
    """`layers.3.norm.weight` -> `layers.#.norm.weight`"""
    return _NUMBER.sub("#", address)


def _regex(p: Part) -> str:
    if isinstance(p, str):
        return re.escape(p)
    if isinstance(p, Choice):
        return f"({'|'.join(re.escape(i) if isinstance(i, str) else r'[0-9]+' for i in p.items)})"
    return r"([^.]+)" if isinstance(p, Star) else r"([0-9]+)"


def _outline(p: Part) -> str:
    if isinstance(p, Choice):
        return f"(?:{'|'.join('#' if not isinstance(i, str) or i.isdigit() else re.escape(i) for i in p.items)})"
    return r"[^.]+" if isinstance(p, Star) else "#"


# ---------------------------------------------------------------- reading
def parse_pattern(text: str, span: Span, known: Iterable[str] = ()) -> Pattern:
    """The pattern in a text. `known`: names that stand for values rather than loop indices. Raises A0437."""
    parts: list[Part] = []
    at = 0
    for found in re.finditer(r"\{([^{}]*)\}|\*\*|\*|[{}]", text):
        _plain(parts, text[at : found.start()])
        at = found.end()
        if found[0] in "{}":
            raise error("A0437", f"a brace of `{text}` has no other one", span, "this name")
        parts.append(Star(found[0] == "**") if found[0][0] == "*" else _braces(found[1], span, frozenset(known)))
    _plain(parts, text[at:])
    if not parts:
        raise error("A0437", "this name is empty", span)
    return Pattern(tuple(parts), span)


def _plain(parts: list[Part], text: str) -> None:
    if text:
        parts.append(text)


def _braces(text: str, span: Span, known: frozenset[str]) -> Part:
    items = [i.strip() for i in _split(text)]
    if not all(items):
        raise error("A0437", f"`{{{text}}}` has an empty place", span, help="`{i}` binds an index, `{q, k, v}` stands for each of its names")
    if len(items) == 1:
        name = items[0]
        if name.isdigit():
            return name
        return Index(name) if name.isidentifier() and name not in known else _expression(name, span, known)
    return Choice(tuple(i if _PLAIN.fullmatch(i) else _expression(i, span, known) for i in items))


def _split(text: str) -> list[str]:
    out, depth = [""], 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            out.append("")
        else:
            out[-1] += c
    return out


def _expression(text: str, span: Span, known: frozenset[str]) -> Expression:
    try:
        expr = parse_expression(text, "<names>")
    except ArchError as fault:
        raise respan(fault, span, f"`{{{text}}}`") from None
    names = names_in(expr)
    return Expression(expr, text, frozenset(names - known), names.isdisjoint(known))


def respan(fault: ArchError, span: Span, what: str) -> ArchError:
    """A fault in a text of its own, shown where that text stands in the spec."""
    return ArchError(*(replace(d, message=f"{what}: {d.message}", span=span, labels=(), fixes=()) for d in fault.diagnostics))


def names_in(node: Any) -> set[str]:
    """The names that an expression reads; not those of functions that it calls."""
    if isinstance(node, tree.Name):
        return {node.id}
    below = (a.value for a in node.args) if isinstance(node, tree.Call) and isinstance(node.func, tree.Name) else tree.children(node)
    return set[str]().union(*(names_in(c) for c in below))
