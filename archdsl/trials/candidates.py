"""Edits that may mend a fault, thought of from the tree and the place. None is offered before it has been tried."""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.elaborate.bindings import bound_names, tensor_type
from archdsl.records import record
from archdsl.source import Span
from archdsl.syntax import tree

MOST = 12  # edits of one kind
SHAPES = frozenset(("A0301", "A0302", "A0304", "A0305", "A0308"))
RULES = SHAPES | {"A0204", "A0303", "A0310", "A0407", "A0408", "A0602"}
_WORD = re.compile(r"[^\W\d]\w*")
Edits = list[tuple[Span, str]]


@record(frozen=True)
class Group:
    """Edits of one kind, the likeliest first. `alone`: they are believed only when few of them are right; `spare`: they are tried
    only where none before them was right."""

    fixes: tuple[Fix, ...]
    alone: bool = False
    spare: bool = False


class Place:
    """A fault in the tree of its text: the nodes around it, and around what it points at beside."""

    def __init__(self, d: Diagnostic, module: tree.Module):
        self.d, self.module, self.source = d, module, d.span.source
        given = [s for g in d.given for s in g.spans.values()]
        spans = [d.span, *(label.span for label in d.labels), *given]
        self.chains = [_around(module, s) for s in dict.fromkeys(spans) if s.source.path == self.source.path]
        self.chain = self.chains[0]
        bodies = (n for chain in self.chains for n in chain if isinstance(n, (tree.Block, tree.Model, tree.Fn, tree.Entry)))
        self.decl = next(bodies, None)

    def innermost(self, kind: Any) -> Any:
        return next((n for n in self.chain if isinstance(n, kind)), None)

    def calls(self) -> list[tree.Call]:
        """The calls in the statement, argument or setting of each place, the nearest to the place first."""
        out: dict[int, tree.Call] = {}
        for chain in self.chains:
            for around in (tree.Call, (tree.Statement, tree.Param, tree.Setting)):
                home = next((n for n in chain if isinstance(n, around)), None)
                out.update(_calls(home))
        for statement in self.before():
            out.update(_calls(statement))
        return list(out.values())

    def before(self) -> list[tree.Assign | tree.Share]:
        """Of a shape: the statements that give what the statement at the place reads, and that declare what it applies."""
        home = next((n for chain in self.chains for n in chain if isinstance(n, tree.Statement)), None)
        if self.d.code not in SHAPES or home is None or _has_body(home):
            return []
        read = {n.id for n in tree.below(home) if isinstance(n, tree.Name)}
        around = next((chain for chain in self.chains if any(n is home for n in chain)), ())  # entries read what stands in the model
        body = next((n for n in reversed(around) if isinstance(n, (tree.Block, tree.Model, tree.Fn))), self.decl)
        above = [n for n in tree.below(body) if isinstance(n, (tree.Assign, tree.Share)) and n.span.end <= home.span.start] if body else []
        last = {name: n for n in above for name in ([n.name] if isinstance(n, tree.Share) else [t.name for t in n.targets]) if name in read}
        return list({id(n): n for n in last.values()}.values())

    def at_odds(self) -> Iterator[tuple[Span, Span]]:
        """The sizes of "`c` is 448, here it is 3" as two arguments of one call in the declaration; or what is divided and does not come out even,
        and what stands beside it."""
        said = " ".join([self.d.message, self.d.label, *(label.message for label in self.d.labels)])
        pairs = [{name, size} for name, size in re.findall(r"`(\w+)` is \d+, here it is (\d+)", said)]
        divided = self.d.division[0] if self.d.division is not None else None
        alike = {p.name for p in getattr(self.decl, "params", ()) if isinstance(p.default, tree.Number) and p.default.value == divided}
        for call in [n for n in tree.below(self.decl) if isinstance(n, tree.Call)] if self.decl is not None and (pairs or alike) else []:
            for a, b in pairwise(a.value.span for a in call.args if not a.name):
                if {a.text, b.text} in pairs or not alike.isdisjoint((a.text, b.text)) and a.text != b.text:
                    yield a, b

    def variant(self) -> tree.Variant | None:
        """The variant that the place is in, or that the fault is of."""
        named = {m for note in self.d.notes for m in re.findall(r"^in the variant `(.*)`$", note)}
        return self.innermost(tree.Variant) or next((v for v in self.module.decls if isinstance(v, tree.Variant) and v.name in named), None)

    def names(self) -> list[str]:
        """Names that may hold a value at the place: those that nothing reads now first, then one that the message speaks of, then those that are
        given most often."""
        if self.decl is None:
            return []
        inputs = getattr(self.decl, "inputs", None) or ()
        tensors = {p.name for p in inputs if tensor_type(p) is not None}
        params = [p.name for p in getattr(self.decl, "params", ()) if not p.rest]
        axes = [n for p in inputs if (kind := tensor_type(p)) is not None for axis in kind.shape.axes for n in bound_names(axis)]
        above = [t.name for n in tree.below(self.decl) if isinstance(n, tree.Assign) and n.span.end <= self.d.span.start for t in n.targets]
        loops = [w for n in self.chain if isinstance(n, (tree.For, tree.Comprehension)) for w in _WORD.findall(n.pattern.span.text)]
        read = {n.id for n in tree.below(self.decl) if isinstance(n, tree.Name)}
        said = re.findall(r"`(\w+)`", self.d.message)
        names = [n for n in dict.fromkeys([*loops, *params, *axes, *above]) if n not in tensors and n != "_"]
        given = Counter(a.value.id for n in tree.below(self.decl) if isinstance(n, tree.Call) for a in n.args if isinstance(a.value, tree.Name))
        return sorted(names, key=lambda n: (n in read, n not in said, -given[n]))


def groups(d: Diagnostic, module: tree.Module) -> Iterator[Group]:
    """What may mend a fault: what its stage proposes, then what the tree suggests."""
    place = Place(d, module)
    yield Group(d.fixes)
    later = [Group(d.rivals[:MOST], spare=True)]
    for make, codes, alone, spare in _KINDS:
        if d.code in codes and (fixes := tuple(make(place))[:MOST]):
            if spare:
                later.append(Group(fixes, alone, spare))
            else:
                yield Group(fixes, alone, spare)
    yield from later


# ---------------------------------------------------------------- words and values
def _quoted(place: Place) -> Iterator[Fix]:
    """A word of a fixed choice, written without its quotes."""
    node = place.innermost(tree.Name)
    if node is not None and node.span == place.d.span and isinstance(place.chain[1], (tree.Param, tree.Arg, tree.Setting)):
        yield _fix(f'replace by `"{node.id}"`', [(node.span, f'"{node.id}"')])


def _other_values(place: Place) -> Iterator[Fix]:
    """Another name in the place of a value that does not fit."""
    span = place.d.span
    if place.innermost(tree.Call) is not None and _WORD.fullmatch(span.text):
        for name in place.names():
            if name != span.text:
                yield _fix(f"replace by `{name}`", [(span, name)])


def _missing(place: Place) -> Iterator[Fix]:
    """What other applications of the same give for an argument that is not given here, then a name."""
    call = place.innermost(tree.Call)
    if call is None or not call.span.text.endswith(")"):
        return
    named = next((a for a in call.args if a.name), None)
    alike = [c for c in tree.below(place.module) if isinstance(c, tree.Call) and c is not call and c.func.span.text == call.func.span.text]
    given = [c.args[len(call.args)] for c in alike if len(c.args) > len(call.args)]
    elsewhere = [a.value.span.text for a in given if not a.name]
    for name in dict.fromkeys([*(elsewhere if named is None else ()), *place.names()]):
        if named is not None:
            yield _fix(f"give `{name}`", [(Span(place.source, named.span.start, named.span.start), f"{name}, ")])
        else:
            end = Span(place.source, call.span.end - 1, call.span.end - 1)
            yield _fix(f"give `{name}`", [(end, f", {name}" if call.args else name)])


def _needless(place: Place) -> Iterator[Fix]:
    """`BatchNorm()` for `BatchNorm(64)`: without the argument that breaks a rule."""
    for chain in place.chains:
        arg = next((n for n in chain if isinstance(n, tree.Arg)), None)
        call = next((n for n in chain if isinstance(n, tree.Call)), None)
        if arg is None or call is None or arg.value is not chain[0] or arg.name or not any(a is arg for a in call.args):
            continue
        at = next(i for i, a in enumerate(call.args) if a is arg)
        start = call.args[at - 1].span.end if at else arg.span.start
        end = call.args[1].span.start if not at and len(call.args) > 1 else arg.span.end
        yield _fix(f"remove `{_short(arg.span)}`", [(Span(place.source, start, end), "")])


def _of_tokens(place: Place) -> Iterator[Fix]:
    """An input whose header says nothing of its elements, as whole numbers."""
    for p in getattr(place.decl, "inputs", None) or ():
        kind = tensor_type(p)
        if p.name == place.d.span.text and kind is not None and kind.dtype is None:
            at = Span(place.source, kind.span.start, kind.span.start)
            yield _fix(f"declare `{p.name}: int{kind.span.text}`", [(at, "int")])


# ---------------------------------------------------------------- sizes
def _parts_of_sizes(place: Place) -> Iterator[Fix]:
    """A part of a computed argument instead of the whole: `d` for `2 * d`."""
    for call in place.calls():
        for a in call.args:
            value = a.value
            if isinstance(value, tree.Binary) and not (value.span == place.d.span and place.d.code in SHAPES):  # else it is of tensors
                for part in (value.right, value.left) if value.op == "*" else (value.left,):
                    text = part.span.text
                    if not text[:1].isdigit():
                        text = text[1:-1] if text.startswith("(") and text.endswith(")") else text
                        yield _fix(f"replace by `{text}`", [(value.span, text)])


def _axes(place: Place) -> Iterator[Fix]:
    """An axis that stands on one side of a layout alone, put on the other."""
    node = place.innermost(tree.LayoutCall)
    if node is None or node.output is None or len(node.inputs) != 1:
        return
    left, right = node.inputs[0], node.output
    for name in re.findall(r"`(\w+)`", place.d.message):
        here = [s for s in (left, right) if name in _WORD.findall(s.span.text)]
        if len(here) == 1:
            other = right if here[0] is left else left
            texts = [a.span.text for a in other.axes]
            for i in range(len(texts), -1, -1):
                text = f"[{', '.join([*texts[:i], name, *texts[i:]])}]"
                yield _fix(f"write `{text}`", [(other.span, text)])


def _defaults(place: Place) -> Iterator[Fix]:
    """Numbers of its domain for a default of the block around that is none of them."""
    for p in getattr(place.decl, "params", ()):
        if isinstance(p.default, tree.Number) and p.domain is not None:
            for n in _instead(p.domain, p.default.value):
                yield _fix(f"replace by `{n}`", [(p.default.span, n)])


def _instead(domain: tree.Node, value: Any) -> list[str]:
    """The numbers that a written domain has, the nearest first, in the place of one that it has not."""
    if isinstance(domain, tree.SetLit):
        numbers = [i for i in domain.items if isinstance(i, tree.Number)]
        if len(numbers) < len(domain.items) or any(n.value == value for n in numbers):
            return []
    elif isinstance(domain, tree.Range) and isinstance(domain.start, tree.Number) and isinstance(domain.stop, tree.Number):
        numbers = [domain.start, domain.stop] if domain.inclusive else [domain.start]
        if domain.start.value <= value < domain.stop.value or domain.inclusive and value == domain.stop.value:
            return []
    else:
        return []
    near = sorted(numbers, key=lambda n: abs(n.value - value))
    return [n.span.text for n in (near if isinstance(domain, tree.SetLit) else near[:1])]


# ---------------------------------------------------------------- order
def _exchanged_arguments(place: Place) -> Iterator[Fix]:
    """Neighbours in an argument list, the other way round."""
    for call in place.calls():
        for named in (False, True):
            args = [a.value for a in call.args if bool(a.name) is named and not a.spread and not isinstance(a.value, tree.Rest)]
            for a, b in pairwise(args):
                if a.span.text != b.span.text:
                    yield _exchange(a.span, b.span)


def _exchanged_sizes(place: Place) -> Iterator[Fix]:
    """The two sizes that the fault speaks of, where they stand side by side."""
    for a, b in place.at_odds():
        yield _exchange(a, b)


def _exchanged_settings(place: Place) -> Iterator[Fix]:
    """Neighbours among the numbers of a variant, the other way round."""
    variant = place.variant()
    settings = [s for s in variant.settings if isinstance(s.value, tree.Number)] if variant is not None else []
    pairs = [(a, b) for a, b in pairwise(settings) if a.value.span.text != b.value.span.text]
    for a, b in sorted(pairs, key=lambda pair: all(s.value.span != place.d.span for s in pair)):
        edits = [(a.value.span, b.value.span.text), (b.value.span, a.value.span.text)]
        yield _fix(f"exchange the values of `{a.address}` and `{b.address}`", edits)


def _exchanged_items(place: Place) -> Iterator[Fix]:
    """`for w, i in enumerate(widths)`, in the order of the pairs."""
    for loop in place.chain:
        if isinstance(loop, (tree.For, tree.Comprehension)) and len(loop.pattern.items) == 2 and loop.iterable.span.text.startswith("enumerate("):
            yield _exchange(loop.pattern.items[0].span, loop.pattern.items[1].span)


def _exchange(a: Span, b: Span) -> Fix:
    return _fix(f"exchange `{_short(a)}` and `{_short(b)}`", [(a, b.text), (b, a.text)])


def _short(span: Span) -> str:
    text = " ".join(span.text.split())
    return text if len(text) <= 24 else text[:20] + " …"


# ---------------------------------------------------------------- signs
def _comma(place: Place) -> Iterator[Fix]:
    """`(0, 0) (0, 1)`: two items, not a call."""
    before = place.source.text[: place.d.span.start].rstrip()
    yield _fix("insert `,`", [(Span(place.source, len(before), len(before)), ",")])


Maker = Callable[[Place], Iterator[Fix]]
_KINDS: tuple[tuple[Maker, frozenset[str], bool, bool], ...] = (
    (_quoted, frozenset(("A0201",)), False, True),
    (_comma, frozenset(("A0110",)), False, True),
    (_axes, frozenset(("A0308",)), False, True),
    (_parts_of_sizes, SHAPES, False, False),
    (_defaults, RULES - {"A0407"}, False, False),
    (_exchanged_sizes, SHAPES | {"A0303", "A0310"}, False, False),
    (_exchanged_settings, RULES | {"A0221"}, True, False),
    (_exchanged_items, RULES | {"A0221"}, False, False),
    (_exchanged_arguments, RULES, True, False),
    (_other_values, frozenset(("A0204",)), False, True),
    (_needless, frozenset(("A0310",)), False, True),
    (_of_tokens, frozenset(("A0307",)), False, True),
    (_missing, frozenset(("A0203",)), False, True),
)


def _fix(title: str, edits: Edits) -> Fix:
    return Fix(title, tuple(edits))


def _around(module: tree.Module, span: Span) -> list[Any]:
    """The nodes around a stretch of the text, the innermost first."""
    out: list[Any] = []
    level: list[Any] = list(module.decls)
    while level:
        node = next((n for n in level if n.span.start <= span.start and span.end <= n.span.end), None)
        if node is None:
            break
        out.append(node)
        level = list(tree.children(node))
    return out[::-1]


def _calls(node: Any) -> dict[int, tree.Call]:
    """The calls in a statement, an argument or a setting, that has no body."""
    return {id(n): n for n in tree.below(node) if isinstance(n, tree.Call)} if node is not None and not _has_body(node) else {}


def _has_body(node: Any) -> bool:
    return bool(getattr(node, "body", None))
