"""From a `names` block and one elaborated variant to its `WeightMap`."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property, partial
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Collector, Diagnostic, Label, error
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.expressions import evaluate, free_names, truth
from archdsl.elaborate.frame import Frame, Session
from archdsl.elaborate.limits import MAX_FAULTS
from archdsl.names.pairing import Pairing, Variable, describe, pair
from archdsl.names.patterns import Binding, Choice, Expression, Index, Pattern, Star, outline, parse_pattern, respan
from archdsl.names.steps import MAX_KEYS, Chain
from archdsl.records import field, record, replace
from archdsl.source import Span
from archdsl.syntax import tree
from archdsl.weightmap import Alias, Constant, Entry, Ignored, Shape, Step, WeightMap

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated
    from archdsl.graph import Graph
    from archdsl.modules import Module

Member = tuple[str, Binding]  # an address and what it binds


@record()
class Compiled:
    """The map as far as it goes, with what is wrong. `used`: for each line, by its place in the block, whether its condition ever held, and
    which items of its lists some address had."""

    map: WeightMap
    found: list[Diagnostic]
    used: dict[int, Use] = field(default_factory=dict)
    chains: list[Chained] = field(default_factory=list)


@record()
class Use:
    active: bool = False
    matched: bool = False
    picks: set[tuple[int, int]] = field(default_factory=set)  # (place of the list, place of its item)


@record()
class Chained:
    """Operations that were found to fit: the line, the weights, how they are joined and the indices."""

    read: Line
    sources: tuple[str, ...]
    joins: list[tuple[int, ...]]
    indices: dict[str, int]


def own_shapes(graph: Graph) -> dict[str, Shape]:
    """Address -> shape of all that a model saves: parameters, frozen ones, buffers."""
    return {a: p.sizes for a, p in graph.parameters() if p.kind != "const"}


@record(slots=False)
class Weights:
    """The weights of one variant. `shapes` by address; `outlines`: addresses by what they are without their numbers."""

    graph: Graph

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        return own_shapes(self.graph)

    @cached_property
    def outlines(self) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        for address in self.shapes:
            out.setdefault(outline(address), []).append(address)
        return out


@record(slots=False)
class Line:
    """A line as it was read. `bindings` by address are kept when they are the same in all variants (`constant`); for plain renamings `texts`: of
    each part of the address that is no plain text, None where the pattern does not fit, and `keys`: the foreign keys, where nothing is computed.
    `fits`: the pattern's answer for an outline."""

    own: Pattern
    foreign: Pattern
    together: Pairing
    chain: Chain
    constant: bool
    bindings: dict[str, Binding | None] = field(default_factory=dict)
    texts: dict[str, tuple[str, ...] | None] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    fits: dict[str, bool] = field(default_factory=dict)

    @property
    def renames(self) -> bool:
        return not (self.chain.ops or self.together.own or self.together.foreign)

    def may_fit(self, shape: str) -> bool:
        """Whether addresses of an outline can fit."""
        found = self.fits.get(shape)
        if found is None:
            found = self.fits[shape] = self.own.outline.fullmatch(shape) is not None
        return found

    @cached_property
    def groups(self) -> tuple[Any, ...] | None:
        """The parts of the address that are no plain text, where they can be read off it one by one; else None."""
        parts = tuple(p for p in self.own.parts if not isinstance(p, str))
        plain = all(isinstance(p, (Index, Star)) or isinstance(p, Choice) and all(isinstance(i, str) for i in p.items) for p in parts)
        return parts if plain and len(self.own.indices) == sum(isinstance(p, Index) for p in parts) else None

    @cached_property
    def renaming(self) -> list[str | Expression | tuple[int, dict[str, str] | None]] | None:
        """The foreign key from the texts of `groups`: plain text, (which one, what it becomes; None: itself), or a number to compute. None where
        it cannot be made so."""
        if self.groups is None or not self.renames:
            return None
        at = [k for k, p in enumerate(self.groups) if isinstance(p, Choice)]
        index = {p.name: k for k, p in enumerate(self.groups) if isinstance(p, Index)}
        stars = iter([k for k, p in enumerate(self.groups) if isinstance(p, Star)])
        out: list[str | Expression | tuple[int, dict[str, str] | None]] = []
        lists = iter([at[self.together.pairs[k]] for k in range(len(self.foreign.choices))])
        for p in self.foreign.parts:
            if isinstance(p, (str, Expression)):
                out.append(p)
            elif isinstance(p, Index):
                out.append((index[p.name], None))
            elif isinstance(p, Star):
                out.append((next(stars), None))
            elif all(isinstance(i, str) for i in p.items):
                k = next(lists)
                out.append((k, dict(zip(reversed(self.groups[k].texts), reversed(p.texts)))))
            else:
                return None
        return out

    def texts_of(self, address: str) -> tuple[str, ...] | None:
        """The entry of `texts` for an address."""
        if address not in self.texts:
            found = self.own.regex.fullmatch(address)
            self.texts[address] = None if found is None else found.groups()
        return self.texts[address]


Memo = dict[int, Line]
"""Lines by their place in the block: what the compilations of several variants share."""


def compile_names(decl: tree.Names, module: Module, made: Elaborated, memo: Memo | None = None, weights: Weights | None = None,
                  session: Session | None = None) -> Compiled:
    """Never raises for faults of the block: they are in the result. `weights`: those of `made`, when at hand. `session`: whose steps count."""
    return _Compiler(decl, module, made, {} if memo is None else memo, weights, session).run()


def chains_fit(decl: tree.Names, module: Module, made: Elaborated, done: Compiled, weights: Weights) -> bool:
    """Whether the operations of a compilation without faults fit weights of the same addresses and other shapes as well, and name the same keys."""
    if not done.chains:
        return True
    compiler, caches = _Compiler(decl, module, made, {}, weights), defaultdict[int, dict[Any, Any]](dict)
    try:
        for c in done.chains:
            _, counts = compiler.steps(c.read, c.sources, c.joins, c.indices, caches[id(c.read)])
            if counts:
                return False
    except ArchError:
        return False
    return True


def weight_maps(module: Module, model: str, made: Elaborated) -> dict[str, WeightMap]:
    """The maps of a model by the names of their blocks. Raises ArchError for what is wrong with them."""
    from archdsl.modules import family

    out: dict[str, WeightMap] = {}
    for d in module.tree.decls:
        if isinstance(d, tree.Names) and d.model in (model, family(model)):
            done = compile_names(d, module, made)
            if done.found:
                raise ArchError(*done.found)
            out[d.name] = done.map
    return out


class _Compiler:
    def __init__(self, decl: tree.Names, module: Module, made: Elaborated, memo: Memo, weights: Weights | None = None,
                 session: Session | None = None):
        self.decl, self.memo = decl, memo
        self.weights = weights or Weights(made.graph)
        self.shapes = self.weights.shapes
        self.values = {p.name: made.knobs[p.name].value for p in made.decl.params if p.name in made.knobs}
        session = session or Session(module.library)
        session.begin()
        self.frame = Frame(session, module, Builder(), decl=made.decl, vars=dict(self.values))
        self.known = frozenset(self.values)
        self.found = Collector()
        self.entries: list[Entry] = []
        self.aliases: list[Alias] = []
        self.constants: list[Constant] = []
        self.ignored: list[Ignored] = []
        self.own_lines: dict[str, tree.NameLine] = {}
        self.foreign_lines: dict[str, tree.NameLine] = {}
        self.used = {k: Use() for k in range(len(decl.lines))}
        self.chains: list[Chained] = []
        self.answers: dict[Any, Any] = {}  # values of expressions, by what they are about
        self.mentioned: dict[int, tuple[tree.Expr, set[str]]] = {}

    def run(self) -> Compiled:
        for k, line in enumerate(self.decl.lines):
            try:
                getattr(self, f"_{line.kind}")(line, self.used[k], k)
            except ArchError as fault:
                self.found.add(fault)
                if len(self.found.found) >= MAX_FAULTS or any(d.code == "A0602" for d in fault.diagnostics):
                    break
        if not self.found.found:
            self._complete()
        made = WeightMap(tuple(self.entries), tuple(self.aliases), tuple(self.constants), tuple(self.ignored))
        return Compiled(made, self.found.found, self.used, self.chains)

    def _complete(self) -> None:
        left = [a for a in self.shapes if a not in self.own_lines]
        if left:
            message = f"the names `{self.decl.name}` say nothing about {count(left, 'weight')} of `{self.decl.model}`"
            self.found.add(error("A0433", message, header(self.decl), "no line has these addresses", notes=("\n".join(condensed(left)),),
                                 help="add lines for them; `drop \"ADDRESS\" = VALUE` is for weights that the foreign file does not have"))

    # ---------------------------------------------------------------- expressions
    def _value(self, expr: tree.Expr, indices: Mapping[str, int], span: Span | None = None) -> Any:
        """With the loop indices in scope. `span`: where to report faults, for expressions inside strings."""
        key = self._about(expr, indices)
        if key not in self.answers:
            self._bind(indices)
            try:
                self.answers[key] = evaluate(self.frame, expr)
            except ArchError as fault:
                raise (respan(fault, span, "in braces") if span else fault) from None
        return self.answers[key]

    def _about(self, expr: tree.Expr, indices: Mapping[str, int]) -> tuple[Any, ...]:
        """An expression and the indices that it mentions: all that its value depends on."""
        _, names = self.mentioned.get(id(expr)) or self.mentioned.setdefault(id(expr), (expr, free_names(expr)))
        return (id(expr), *((k, v) for k, v in indices.items() if k in names))

    def _bind(self, indices: Mapping[str, int]) -> None:
        self.frame.vars.clear()
        self.frame.vars.update(self.values)
        self.frame.vars.update(indices)

    def _holds(self, line: tree.NameLine, use: Use, indices: tuple[str, ...]) -> bool | None:
        """The condition, when it does not depend on the indices; None when it must be asked for each weight."""
        if line.condition is not None and not set(indices).isdisjoint(free_names(line.condition)):
            return None
        self._bind({})
        use.active = line.condition is None or truth(self.frame, line.condition)
        return use.active

    # ---------------------------------------------------------------- lines
    def _read(self, line: tree.NameLine, at: int) -> Line:
        if at not in self.memo:
            assert line.address is not None
            own, foreign = parse_pattern(line.address, addressed(line), self.known), parse_pattern(line.foreign, quoted(line), self.known)
            chain = Chain(line.ops)
            self.memo[at] = Line(own, foreign, pair(own, foreign), chain, constant=own.fixed and foreign.fixed)
        return self.memo[at]

    def _map(self, line: tree.NameLine, use: Use, at: int) -> None:
        read = self._read(line, at)
        self._check_joins(read)
        if read.renames:
            for address, key in self._renamed(line, use, read):
                self._take(self.own_lines, address, line, "weight", read.own.span)
                self._take(self.foreign_lines, key, line, "key", read.foreign.span)
                self.entries.append(Entry((address,), (key,)))
            return
        for entry in self._computed_entries(line, use, read):
            for a in entry.source:
                self._take(self.own_lines, a, line, "weight", read.own.span)
            for t in entry.target:
                self._take(self.foreign_lines, t, line, "key", read.foreign.span)
            self.entries.append(entry)

    def _computed_entries(self, line: tree.NameLine, use: Use, read: Line) -> Iterator[Entry]:
        groups: dict[Any, list[Member]] = defaultdict(list)
        for address, binding in self._members(line, use, read):
            groups[_shared(binding, read.together)].append((address, binding))
        cache: dict[Any, Any] = {}
        for members in groups.values():
            yield self._entry(read, members, cache)

    @staticmethod
    def _check_joins(read: Line) -> None:
        together, joins = read.together, read.chain.joins
        lists = len(together.own) + len(together.foreign)
        if len(joins) > lists:
            raise error("A0435", f"`{joins[-1].span.text}` has nothing to join", joins[-1].span,
                        "both sides have the same lists" if not lists else "one too many",
                        help="it joins a list that stands on one side alone, as `{q, k, v}` in `\"qkv\" <-> {q, k, v} concat`")
        if len(joins) < lists:
            side, variable = (read.own, together.own[0]) if together.own else (read.foreign, together.foreign[0])
            raise error("A0435", f"{describe(side, variable)} stands on one side only", side.span, "nothing pairs with it",
                        help="write it on both sides, or join its tensors with `concat` or `stack`")

    def _entry(self, read: Line, members: list[Member], cache: dict[Any, Any]) -> Entry:
        alone = read.together.own
        members = sorted(members, key=lambda m: _coordinates(m[1], alone))
        joins = self._joins(read.own, alone, members)
        indices = {k: v for k, v in members[0][1].indices.items() if k not in alone}
        sources = tuple(a for a, _ in members)
        steps, counts = self.steps(read, sources, joins, indices, cache)
        self.chains.append(Chained(read, sources, joins, indices))
        return Entry(sources, tuple(self._foreign(read, members[0][1], indices, counts)), steps)

    def steps(self, read: Line, sources: tuple[str, ...], joins: list[tuple[int, ...]], indices: dict[str, int],
              cache: dict[Any, Any]) -> tuple[tuple[Step, ...], list[int]]:
        """The operations for these weights, the same for all of the same shapes unless they mention an index."""
        shapes = [self.shapes[s] for s in sources]
        key = (tuple(shapes), tuple(joins), tuple(v for k, v in sorted(indices.items()) if k in read.chain.mentions))
        if key not in cache:
            self._bind(indices)
            lengths = [None if isinstance(v, str) else len(read.foreign.choices[v].items) for v in read.together.foreign]
            try:
                steps, counts = read.chain.run(self.frame, shapes, joins, lengths)
            except ArchError as fault:
                what = f"for `{sources[0]}`" + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
                raise ArchError(*(replace(d, notes=(*d.notes, what)) for d in fault.diagnostics)) from None
            cache[key] = steps, counts
        return cache[key]

    @staticmethod
    def _joins(own: Pattern, alone: tuple[Variable, ...], members: list[Member]) -> list[tuple[int, ...]]:
        """For each join, innermost list first, how many tensors go into each of its results. Raises A0435 for a list that lacks an item."""
        out: list[tuple[int, ...]] = []
        rows = [_coordinates(b, alone) for _, b in members]
        for depth in reversed(range(len(alone))):
            sizes: list[int] = []
            for _, same in groupby(rows, key=lambda r: r[:depth]):
                last = [r[depth] for r in same]
                variable = alone[depth]
                if isinstance(variable, int) and len(last) != len(own.choices[variable].items):
                    gone = next(t for k, t in enumerate(own.choices[variable].texts) if k not in last)
                    raise error("A0435", f"`{gone}` of {describe(own, variable)} is missing beside `{members[0][0]}`", own.span,
                                "the list cannot be joined without it", help="write lines with a `when` for the two cases")
                sizes.append(len(last))
            out.append(tuple(sizes))
            rows = list(dict.fromkeys(r[:depth] for r in rows))
        return out

    def _foreign(self, read: Line, binding: Binding, indices: dict[str, int], counts: list[int]) -> Iterator[str]:
        together, foreign = read.together, read.foreign
        evaluator = partial(self._value, span=foreign.span)
        for numbers in product(*map(range, counts)):
            alone = dict(zip(together.foreign, numbers))
            picks = [alone[k] if k in alone else binding.picks[together.pairs[k]] for k in range(len(foreign.choices))]
            extra = {k: v for k, v in alone.items() if isinstance(k, str)}
            yield foreign.expand(Binding({**indices, **extra}, picks, binding.stars), evaluator)

    def _alias(self, line: tree.NameLine, use: Use, at: int) -> None:
        read = self._read(line, at)
        self._check_joins(read)
        renamed = (Entry((address,), (key,)) for address, key in self._renamed(line, use, read))
        for entry in renamed if read.renames else self._computed_entries(line, use, read):
            for key in entry.target:
                self._take(self.foreign_lines, key, line, "key", read.foreign.span)
            self.aliases.append(Alias(entry))

    def _drop(self, line: tree.NameLine, use: Use, at: int) -> None:
        span = quoted(line)
        own = parse_pattern(line.foreign, span, self.known)
        assert line.default is not None
        for address, binding in self._members(line, use, Line(own, own, pair(own, own), Chain(()), constant=False)):
            value = self._value(line.default, binding.indices)
            if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)) or value != value or abs(value) == float("inf"):
                raise error("A0436", "the value of a dropped weight is a number", line.default.span)
            self._take(self.own_lines, address, line, "weight", span)
            self.constants.append(Constant(address, Fraction(value)))

    def _ignore(self, line: tree.NameLine, use: Use, at: int) -> None:
        pattern = parse_pattern(line.foreign, quoted(line), self.known)
        if self._holds(line, use, ()):
            use.matched = True
            use.picks = {(k, i) for k, c in enumerate(pattern.choices) for i in range(len(c.items))}
            self.ignored.append(Ignored(pattern.search(partial(self._value, span=pattern.span))))

    # ---------------------------------------------------------------- weights
    def _members(self, line: tree.NameLine, use: Use, read: Line) -> Iterator[Member]:
        """The addresses that the pattern fits and for which the condition holds, with what they bind."""
        own = read.own
        holds = self._holds(line, use, tuple(own.mentioned))
        if holds is False:
            return
        for shape, addresses in self.weights.outlines.items():
            if read.may_fit(shape):
                self.frame.session.step(own.span, 3 * len(addresses))
                for address in addresses:
                    binding = read.bindings[address] if address in read.bindings else self._binding(read, address)
                    if binding is not None and (holds or self._asked(line, binding.indices)):
                        use.active = use.matched = True
                        use.picks.update(enumerate(binding.picks))
                        yield address, binding

    def _binding(self, read: Line, address: str) -> Binding | None:
        binding = read.own.match(address, partial(self._value, span=read.own.span))
        if read.constant:
            read.bindings[address] = binding
        return binding

    def _renamed(self, line: tree.NameLine, use: Use, read: Line) -> Iterator[tuple[str, str]]:
        """The addresses that a line only renames, and their foreign keys."""
        if read.renaming is None or read.groups is None:
            for address, binding in self._members(line, use, read):
                yield address, next(self._foreign(read, binding, binding.indices, []))
            return
        holds = self._holds(line, use, tuple(read.own.mentioned))
        if holds is False:
            return
        seen: set[tuple[str, ...]] = set()
        indices = [(k, p.name) for k, p in enumerate(read.groups) if isinstance(p, Index)]
        lists = [(k, p) for k, p in enumerate(read.groups) if isinstance(p, Choice)]
        computed = any(isinstance(p, Expression) for p in read.renaming)
        for shape, addresses in self.weights.outlines.items():
            if not read.may_fit(shape):
                continue
            self.frame.session.step(read.own.span, 3 * len(addresses))
            for address in addresses:
                texts = read.texts_of(address)
                if texts is None or not holds and not self._asked(line, {name: int(texts[k]) for k, name in indices}):
                    continue
                use.active = use.matched = True
                if lists:
                    seen.add(tuple([texts[k] for k, _ in lists]))
                key = read.keys.get(address)
                if key is None:
                    key = "".join([p if isinstance(p, str) else self._computed(read, p, {name: int(texts[k]) for k, name in indices})
                                   if isinstance(p, Expression) else texts[p[0]] if p[1] is None else p[1][texts[p[0]]] for p in read.renaming])
                    if not computed:
                        read.keys[address] = key
                yield address, key
        use.picks.update((n, p.items.index(t)) for found in seen for n, ((_, p), t) in enumerate(zip(lists, found)))

    def _computed(self, read: Line, part: Expression, indices: Mapping[str, int]) -> str:
        return part.index(self._value(part.expr, indices, read.foreign.span), read.foreign.span)

    def _asked(self, line: tree.NameLine, indices: Mapping[str, int]) -> bool:
        assert line.condition is not None
        key = self._about(line.condition, indices)
        if key not in self.answers:
            self._bind(indices)
            self.answers[key] = truth(self.frame, line.condition)
        return self.answers[key]

    def _take(self, lines: dict[str, tree.NameLine], name: str, line: tree.NameLine, what: str, span: Span) -> None:
        """Notes that a line is about this weight or key. Raises A0434 for the second time."""
        first = lines.get(name)
        if first is line:
            raise error("A0434", f"the {what} `{name}` is mapped twice by one line", span,
                        "several weights would have this name" if what == "key" else "",
                        help="indices, lists and wildcards of the two sides must tell all of them apart")
        if first is not None:
            where = quoted(first) if what == "key" or first.address is None else addressed(first)
            raise error("A0434", f"two lines map the {what} `{name}`", span, "the second", labels=(Label(where, "the first"),),
                        help="remove one, or tell them apart by `when`")
        if len(lines) >= MAX_KEYS:
            raise error("A0602", f"these names are more than {MAX_KEYS:,}", span)
        lines[name] = line


def _coordinates(binding: Binding, variables: tuple[Variable, ...]) -> tuple[int, ...]:
    return tuple(binding.indices[v] if isinstance(v, str) else binding.picks[v] for v in variables)


def _shared(binding: Binding, together: Pairing) -> Any:
    """What the two sides have in common: weights that agree in it go into one entry."""
    indices = tuple((k, v) for k, v in sorted(binding.indices.items()) if k not in together.own)
    return indices, tuple(p for k, p in enumerate(binding.picks) if k not in together.own), tuple(binding.stars)


# ---------------------------------------------------------------- places
def header(decl: tree.Names) -> Span:
    """`names timm of ViT`"""
    text = decl.span.text.split("{", 1)[0].rstrip()
    return Span(decl.span.source, decl.span.start, decl.span.start + len(text))


def quoted(line: tree.NameLine) -> Span:
    """The string of a line, with its quotes."""
    text = line.span.text
    start = text.index('"')
    at = start + 1
    while text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return Span(line.span.source, line.span.start + start, line.span.start + at + 1)


def addressed(line: tree.NameLine) -> Span:
    """The address of a line."""
    assert line.address is not None
    after = quoted(line).end
    text = line.span.source.text
    start = text.index("<->", after) + 3
    while text[start].isspace():
        start += 1
    end, left = start, len(line.address)
    while left and end < line.span.end:  # spaces inside braces are no part of the address's text
        left -= not text[end].isspace()
        end += 1
    return Span(line.span.source, start, end)


def condensed(addresses: list[str], most: int = 10) -> list[str]:
    """One row for addresses that differ in numbers only: an example and how many there are."""
    rows: dict[str, list[str]] = defaultdict(list)
    for a in addresses:
        rows[outline(a)].append(a)
    out = [f"{same[0]}{f' and {len(same) - 1:,} like it' if len(same) > 1 else ''}" for same in rows.values()]
    return out if len(out) <= most else [*out[:most], f"… and {len(out) - most:,} more kinds"]


def count(items: list[str], what: str) -> str:
    return f"{len(items):,} {what}{'s' * (len(items) != 1)}"
