"""What else the grammar has: expressions of weights, draws, nested loops and branches, lists of values, shares of all kinds, bound sizes, records."""

from __future__ import annotations

from tests.fuzz.statements import Statements
from tests.fuzz.writer import INITS, MANY, UNARY, Tensor


class Constructs(Statements):
    def more(self, t: Tensor, depth: int) -> None:
        """One of them, about t."""
        forms = [self._noise, self._typed, self._optional, self._extern, self._emit_path, self._index]
        wide = bool(t.shape) and t.shape[-1].kind == "static"
        if wide and self.owner:
            forms += [self._weights] * 3 + [self._shares, self._shares, self._planned, self._constant]
        if depth < 2:
            forms += [self._chain, self._kept]
            if wide and self.owner:
                forms += [self._nested, self._nested, self._plans, self._chosen_in_a_loop]
        self.pick(forms)(t)

    def named(self, t: Tensor) -> str | None:
        """The shape of t as a type, where every axis can be written."""
        return None if any(a.kind in ("open", "many") for a in t.shape) else f"[{', '.join(a.text for a in t.shape)}]"

    def _noise(self, t: Tensor) -> None:
        shape = self.named(t)
        if shape is not None:
            name = self.fresh("noise")
            self.line(f"draw {name}: {shape} = {self.pick(['normal(std = 0.1)', 'uniform(low = -1, high = 1)', 'normal()'])}")
            self.bind((f"{t.name} + 0.1 * {name}", t.shape, "float"))

    def _typed(self, t: Tensor) -> None:
        """A shape on the left that binds the size of the last axis."""
        if not t.shape or MANY in t.shape or t.shape[-1].kind != "static":
            return
        h, e = self.fresh("h"), self.fresh("e")
        self.line(f"{h}: [{', '.join(['_'] * (len(t.shape) - 1) + [e])}] = {self.pick(UNARY)}({t.name})")
        self.bind((f"{h} * {self.pick([e, f'(1 / {e})', f'sqrt({e})'])}", t.shape, "float"))

    def _optional(self, t: Tensor) -> None:
        value = f"if {self.truth()} {{ {self.number(3)} }} else {{ none }}"
        name = self.fresh("maybe")
        self.line(f"{name} = {value}")
        self.bind((self.pick([
            f"match {name} {{ none => {t.name} some => 2 * {t.name} }}",
            f"match {name} {{ 1 | 2 => {t.name} 3 => -{t.name} _ => {t.name} + 1 }}",
            f"if {name} is some {{ {t.name} * {name} }} else {{ {t.name} }}",
            f"{t.name} * ({name} ?? 2)",
        ]), t.shape, "float"))

    def _extern(self, t: Tensor) -> None:
        shape = self.named(t)
        if shape is not None:
            h = self.fresh("h")
            self.line(f"{h} = extern aten.{self.pick(['atan', 'sinh'])}({t.name}) -> {shape}")
            self.scope.append(Tensor(h, t.shape))

    def _emit_path(self, t: Tensor) -> None:
        self.line(f"emit {self.fresh('inner')}.{self.fresh('seen')} = {self.pick([f'mean({t.name})', t.name])}")

    def _index(self, t: Tensor) -> None:
        """Positions along the first run-time axis."""
        i = next((i for i, a in enumerate(t.shape) if a.kind == "run"), None)
        if i is not None and MANY not in t.shape:
            after = ", none" * (len(t.shape) - 1 - i)
            self.bind((f'{t.name} + cast(index({t.shape[i].text}), "float")[:{after}] / {t.shape[i].text}', t.shape, "float"))

    # ---------------------------------------------------------------- weights
    def _weights(self, t: Tensor) -> None:
        """A linear map whose matrix is an expression of weights."""
        d, w, v, b = t.shape[-1].text, self.fresh("w"), self.fresh("w"), self.fresh("b")
        for name in (w, v):
            self.line(f"{self.pick(['param'] * 4 + ['frozen param'])} {name}: [{d}, {d}] = {self.pick(INITS)}")
        when = f" when {self.truth()}" if self.maybe(0.5) else ""
        self.line(f"param {b}{self.pick(['', f' as saved.{b}'])}: [{d}] = {self.pick(INITS)}{when}")
        matrix = self.pick([
            f"0.5 * {w} + {v}", f"{w} @ {v}", f"softmax({w}) * {v}", f"{w} + rearrange({v}, [a, b] -> [b, a])", f"where({w} > 0, {w}, {v})",
            f"l2_norm({w})", f"concat(split({w}, {d}), axis = -1)", f"einsum([a, b], [b, c] -> [a, c])({w}, {v})",
            f"{w} / (1 + mean({v} * {v}))", f"stop({w}) + {v}", f"as_type(cast({w}, \"f32\"), {v})",
        ])
        self.bind((self.pick([f"linear({t.name}, {matrix}, {b})", f"linear({t.name}, {matrix})", f"{t.name} @ ({matrix})"]), t.shape, "float"))

    def _constant(self, t: Tensor) -> None:
        d, c = t.shape[-1].text, self.fresh("c")
        self.line(f"const {c}: [{d}] = {self.pick(['ones()', 'zeros()', '2 * ones()', 'ones() / 2', 'constant(3)'])}")
        self.bind((f"{t.name} * {c}", t.shape, "float"))

    def _shares(self, t: Tensor) -> None:
        """Two blocks with one set of weights, parts of a pipeline, an address of its own, a shared weight that is read."""
        d, f, g = self.size(t.shape[-1]), self.fresh("f"), self.fresh("g")
        kind = self.rng.randrange(4)
        if kind == 0:
            act = self.pick(["relu", "silu", "tanh"])
            self.line(f"share {f} = {self.use('MLP')}({self.number(8)})")
            self.line(f"share {g} of {f} = {self.use('MLP')}({self.number(8)}, act = {act})")
        elif kind == 1:
            self.line(f"share {f} = {self.use('Linear')}({d}) >> {self.pick(['relu >> ', ''])}{self.norm()}")
            g = f
        elif kind == 2:
            self.line(f"share {f} as core.{f} = {self.use('Linear')}({d})")
            self.bind((f"{f}({t.name})", t.shape, "float"))
            self.bind((f"linear({t.name}, {self.pick(['', '2 * '])}{f}.weight)", t.shape, "float"))
            return
        else:
            self.line(f"share {f} = [{self.use('Linear')}({d}), {self.use('Linear')}({d})]")
            f, g = f"{f}[0]", f"{f}[1]"
        self.bind((f"{f}({t.name})", t.shape, "float"))
        self.bind((f"{g}({t.name})", t.shape, "float"))

    # ---------------------------------------------------------------- loops and branches
    def _chain(self, t: Tensor) -> None:
        t = self._copy(t)
        self._nest(f"if {self.truth()}", self._inside(t, 2, 1))
        self._nest(f"else if {self.truth()}", self._inside(t, 2, 1))
        self._nest("else", self._inside(t, 2, 1))

    def _kept(self, t: Tensor) -> None:
        """A list of tensors that grows in a loop."""
        t, kept, i, y = self._copy(t), self.fresh("kept"), self.fresh("i"), self.fresh("y")
        self.line(f"{kept} = []")
        head = self.pick([f"range({self.number(3)})", "0..<6 step 2", '"abc"', "[1..2, 5]"])
        self._nest(f"for {i} in {head}", [f"{t.name} = {self.pick(UNARY)}({t.name})", f"{kept} = {kept} + [{t.name}]"])
        self.pick([
            lambda: self._nest(f"for {y} in {kept}", [f"{t.name} = {t.name} + {y}"]),
            lambda: self.line(f"{t.name} = {t.name} + {kept}[0] * {kept}[-1]"),
            lambda: self.line(f"{t.name} = mean(stack({kept}, axis = 0), axis = 0)"),
            lambda: self.line(f"{t.name} = {t.name} + 0 * max([2 for {y} in {kept}[1:]])"),
        ])()

    def _nested(self, t: Tensor) -> None:
        """Loops in a loop, over values in pairs."""
        t, i, n, f = self._copy(t), self.fresh("i"), self.fresh("n"), self.fresh("f")
        pairs = f"zip([8, {self.number(4)}], [gelu, {self.pick(['silu', 'relu >> square', 'block(z) => z * 2'])}])"
        head, pattern = self.pick([(f"enumerate({pairs})", f"{i}, ({n}, {f})"), (pairs, f"({n}, {f})")])
        inner = [f"{t.name} = {self.use('MLP')}({n}, act = {f})({t.name}) as {self.fresh('m')}"]
        if self.maybe(0.5):
            j = self.fresh("j")
            layer = f"{t.name} = {self.use('Pre')}({self.norm()}, {self.use('Linear')}({self.size(t.shape[-1])}))({t.name}) as {self.fresh('p')}"
            inner += [f"{self.fresh('inner')}: for {j} in range({self.pick(['2', '1', self.number(2)])}) {{ {layer} }}"]
        if "enumerate" in head and self.maybe(0.5):
            inner.append(f"if {i} > 0 {{ {t.name} = {t.name} * {i} }}")
        self._nest(f"{self.fresh('stages')}: for {pattern} in {head}", inner)

    def _chosen_in_a_loop(self, t: Tensor) -> None:
        """A choice for each pass, with a knob whose domain depends on the width."""
        t, name, stage = self._copy(t), self.fresh("pick"), self.fresh("stage")
        given = self.pick(["", "(hidden = 4)"])
        mlp, keep = self.use("MLP"), self.pick(["identity", "relu", f"{self.use('Linear')}({self.size(t.shape[-1])})"])
        lines = [f"choose {name} {{", f"  one(hidden: int = 8 in multiples(4, 4, 16)) => {mlp}(hidden); two => {keep}", f"}} = one{given}"]
        self._nest(f"{stage}: for i in range(2)", [*lines, f"{t.name} = {self.use('Residual')}({name})({t.name}) as {self.fresh('r')}"])
        if not self.preserving:
            self.looped.append((f"{stage}.{self.pick(['*', '0', '{0, 1}'])}.{name}", ["one", "two"]))

    # ---------------------------------------------------------------- records
    def _plans(self, t: Tensor) -> None:
        """A loop over records, by their kinds."""
        if not self.records:
            return
        t, r = self._copy(t), self.fresh("r")
        d = self.size(t.shape[-1])
        arms = [f'"a" => {{ {t.name} = {self.use("MLP")}({r}.width, {r}.act)({t.name}) as wide }}']
        arms += [f"{self.pick(['_', chr(34) + 'b' + chr(34)])} => {{ {t.name} = {self.use('Linear')}({d})({t.name}) as flat }}"]
        plans = self.pick(['[Plan(8), Plan(width = 4, kind = "b")]', "[Plan(act = silu) for k in range(2)]", "[Plan()]"])
        self._nest(f"{self.fresh('plans')}: for {r} in {plans}", [f"match {r}.kind {{", *("  " + a for a in arms), "}"])

    def _planned(self, t: Tensor) -> None:
        """A block whose arguments are the fields of a record."""
        if self.planned:
            r = self.fresh("r")
            self.line(f"{r} = Plan(width = {self.number(4)}, more = [1, 2])")
            given = self.pick([f"...{r}", "", "width = 4", f"...{r}, scale = 2"])
            self.bind((f"{self.planned}({given})({t.name}){self.label()}", t.shape, "float"))

    def planned_block(self) -> str:
        self.planned = self.fresh("Planned")
        return (
            f"block {self.planned}(...Plan, scale: float = 1)(x: [..., d]) -> [..., d] {{\n"
            f"  y = if kind == \"a\" {{ {self.use('MLP')}(width, act)(x) as one }} else {{ {self.use('Linear')}(d)(x) as two }}\n"
            f"  return scale * y + len(more) * x\n}}"
        )
