"""From a `names` block and one elaborated variant to its `WeightMap`."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, Collector, Label, error
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.expressions import evaluate, free_names, truth
from archdsl.elaborate.frame import Frame, Session
from archdsl.elaborate.limits import MAX_FAULTS
from archdsl.names.lines import Chained, Compiled, Line, Member, Memo, Use, Weights
from archdsl.names.pairing import Pairing, Variable, describe, pair
from archdsl.names.patterns import Binding, Choice, Expression, Index, Pattern, parse_pattern, respan
from archdsl.names.places import addressed, condensed, count, header, quoted
from archdsl.names.steps import MAX_KEYS, Chain
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax import tree
from archdsl.weightmap import Alias, Constant, Entry, Ignored, Step, WeightMap

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated
    from archdsl.modules import Module


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
    out: dict[str, WeightMap] = {}
    for d in module.tree.decls:
        if isinstance(d, tree.Names) and module.meant(model) in map(module.meant, d.models):
            done = compile_names(d, module, made)
            if done.found:
                raise ArchError(*done.found)
            out[d.name] = done.map
    return out


class _Compiler:
    def __init__(self, decl: tree.Names, module: Module, made: Elaborated, memo: Memo, weights: Weights | None = None,
                 session: Session | None = None):
        self.decl, self.memo, self.model = decl, memo, made.decl.name
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
            message = f"the names `{self.decl.name}` say nothing about {count(left, 'weight')} of `{self.model}`"
            self.found.add(error("A0433", message, header(self.decl), "no line has these addresses", notes=("\n".join(condensed(left)),),
                                 help="add lines for them; `drop \"ADDRESS\" = VALUE` is for weights that the foreign file does not have"))

    # ---------------------------------------------------------------- expressions
    def value(self, expr: tree.Expr, indices: Mapping[str, int], span: Span | None = None) -> Any:
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
        if read.chain.mentions.isdisjoint(self.known):  # the same in every variant
            cache = read.steps
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
        evaluator = partial(self.value, span=foreign.span)
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
            value = self.value(line.default, binding.indices)
            if isinstance(value, bool) or not isinstance(value, (int, float, Fraction)) or value != value or abs(value) == float("inf"):
                raise error("A0436", "the value of a dropped weight is a number", line.default.span)
            self._take(self.own_lines, address, line, "weight", span)
            self.constants.append(Constant(address, Fraction(value)))

    def _ignore(self, line: tree.NameLine, use: Use, at: int) -> None:
        pattern = parse_pattern(line.foreign, quoted(line), self.known)
        if self._holds(line, use, ()):
            use.matched = True
            use.picks = {(k, i) for k, c in enumerate(pattern.choices) for i in range(len(c.items))}
            self.ignored.append(Ignored(pattern.search(partial(self.value, span=pattern.span))))

    # ---------------------------------------------------------------- weights
    def _members(self, line: tree.NameLine, use: Use, read: Line) -> Iterator[Member]:
        """The addresses that the pattern fits and for which the condition holds, with what they bind."""
        own = read.own
        holds = self._holds(line, use, tuple(own.mentioned))
        if holds is False:
            return
        for shape in read.fitting(self.weights.outlines):
            addresses = self.weights.outlines[shape]
            self.frame.session.step(own.span, 3 * len(addresses))
            for address in addresses:
                binding = read.bindings[address] if address in read.bindings else self._binding(read, address)
                if binding is not None and (holds or self._asked(line, binding.indices)):
                    use.active = use.matched = True
                    use.picks.update(enumerate(binding.picks))
                    yield address, binding

    def _binding(self, read: Line, address: str) -> Binding | None:
        binding = read.own.match(address, partial(self.value, span=read.own.span))
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
        parts = [_Computed(self, read, p, indices) if isinstance(p, Expression) else p for p in read.renaming]
        computed = any(isinstance(p, Expression) for p in read.renaming)
        for shape in read.fitting(self.weights.outlines):
            addresses = self.weights.outlines[shape]
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
                    key = "".join([p if isinstance(p, str) else p.of(texts) if isinstance(p, _Computed) else
                                   texts[p[0]] if p[1] is None else p[1][texts[p[0]]] for p in parts])
                    if not computed:
                        read.keys[address] = key
                yield address, key
        use.picks.update((n, p.items.index(t)) for found in seen for n, ((_, p), t) in enumerate(zip(lists, found)))

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


class _Computed:
    """A part of a foreign key that is computed from the indices of an address: once for all addresses that agree in those it mentions."""

    def __init__(self, compiler: _Compiler, read: Line, part: Expression, indices: list[tuple[int, str]]):
        self.compiler, self.part, self.span = compiler, part, read.foreign.span
        self.indices, self.mentioned = indices, [k for k, name in indices if name in part.indices]
        self.known: dict[tuple[str, ...], str] = {}

    def of(self, texts: tuple[str, ...]) -> str:
        key = tuple([texts[k] for k in self.mentioned])
        if key not in self.known:
            indices = {name: int(texts[k]) for k, name in self.indices}
            self.known[key] = self.part.index(self.compiler.value(self.part.expr, indices, self.span), self.span)
        return self.known[key]


def _coordinates(binding: Binding, variables: tuple[Variable, ...]) -> tuple[int, ...]:
    return tuple(binding.indices[v] if isinstance(v, str) else binding.picks[v] for v in variables)


def _shared(binding: Binding, together: Pairing) -> Any:
    """What the two sides have in common: weights that agree in it go into one entry."""
    indices = tuple((k, v) for k, v in sorted(binding.indices.items()) if k not in together.own)
    return indices, tuple(p for k, p in enumerate(binding.picks) if k not in together.own), tuple(binding.stars)
