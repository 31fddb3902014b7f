"""Statements: bindings, loops, branches, choices, shares, weights, emitted values."""

from __future__ import annotations

from tests.fuzz.steps import Steps
from tests.fuzz.writer import MANY, UNARY, Axis, Made, Tensor, num


class Statements(Steps):
    # ---------------------------------------------------------------- statements
    def bind(self, made: Made | None) -> None:
        if made is None:
            return
        name = self.fresh(self.pick(["x", "y", "h"]))
        self.line(f"{name} = {made[0]}")
        self.scope.append(Tensor(name, made[1], made[2]))

    def statement(self, depth: int) -> None:
        t = self.tensor() or (self.scope[0] if self.scope else None)
        if t is None:
            return
        forms = [lambda: self.line(f"{t.name} = {self.keep(t)}") if t.name not in self.inputs else self.bind((self.keep(t), t.shape, "float"))] * 8
        forms += [lambda: self.bind(self.make(t))] * 8
        forms += [lambda: self._bind_template(), lambda: self._bind_mask(), lambda: self._require(), lambda: self._emit(t)]
        if self.owner:
            forms += [lambda: self._share(t)]
        forms += [lambda: self.more(t, depth)] * 6
        forms += [
            lambda: self._const(t),
            lambda: self._draw(t),
            lambda: self._pair(t),
            lambda: self._record(),
            lambda: self._list(t),
            lambda: self._keys(t),
            lambda: self._both(t),
        ]
        if depth < 2:
            forms += [
                lambda: self._loop(t, depth),
                lambda: self._if(t, depth),
                lambda: self._island(t, depth),
                lambda: self._choose(t),
                lambda: self._match(t, depth),
            ] * 2
        self.pick(forms)()

    def more(self, t: Tensor, depth: int) -> None:
        """The constructs of `constructs.py`."""
        raise NotImplementedError

    def _copy(self, t: Tensor) -> Tensor:
        """t under a name that may be bound again."""
        if t.name not in self.inputs:
            return t
        name = self.fresh("x")
        self.line(f"{name} = {t.name}")
        copy = t._replace(name=name)
        self.scope.append(copy)
        return copy

    def _inside(self, t: Tensor, depth: int, n: int) -> list[str]:
        """Lines that give t a new value of its type; what they bind ends with them."""
        outer, self.lines = self.lines, []
        scope, templates, masks, numbers = self.scope[:], self.templates[:], self.masks[:], self.numbers[:]
        for _ in range(n):
            if self.maybe(0.3):
                self.statement(depth + 1)
            self.line(f"{t.name} = {self.keep(t)}")
        self.scope, self.templates, self.masks, self.numbers = scope, templates, masks, numbers
        inner, self.lines = self.lines, outer
        return inner

    def _nest(self, head: str, inner: list[str], end: str = "}") -> None:
        self.line(f"{head} {{")
        self.lines += ["  " + line for line in inner]
        self.line(end)

    def _loop(self, t: Tensor, depth: int) -> None:
        t = self._copy(t)
        labelled = self.maybe(0.7) and self.owner
        owner, self.owner = self.owner, self.owner and labelled
        var = self.fresh("i")
        head = self.pick(
            [
                f"range({self.number(2)})",
                "[1, 2]",
                "0..<2",
                f"range({self.pick([n for n, k in self.hypers.items() if k == 'depth'] or ['3'])})",
                "zip([1, 2], [3, 4])",
            ]
        )
        pattern = f"({var}, {var}_2)" if head.startswith("zip") else var
        self.hypers[var] = "int"
        inner = self._inside(t, depth, self.rng.randint(1, 3))
        if self.maybe(0.2):
            inner.append(f"{t.name} = {t.name} * ({var} + 1)")
        del self.hypers[var]
        self.owner = owner
        label = f"{self.fresh('layers')}: " if labelled else ""
        self._nest(f"{label}for {pattern} in {head}", inner)

    def _if(self, t: Tensor, depth: int) -> None:
        t = self._copy(t)
        condition = self.truth()
        self._nest(f"if {condition}", self._inside(t, depth, 1))
        if self.maybe(0.5):
            self._nest("else", self._inside(t, depth, 1))

    def _match(self, t: Tensor, depth: int) -> None:
        modes = [n for n, k in self.hypers.items() if k == "mode"]
        if not modes:
            return
        t = self._copy(t)
        inner = []
        for arm in ('"a"', '"b"' if self.maybe(0.5) else "_"):
            inner += [f"{arm} => {{", *("  " + line for line in self._inside(t, depth, 1)), "}"]
        self._nest(f"match {self.pick(modes)}", inner)

    def _island(self, t: Tensor, depth: int) -> None:
        name = self.fresh("r")
        t32 = f"{t.name} * {t.name}"
        self.line(f"f32 {{ {name} = {self.pick(['sqrt', 'tanh', 'exp', 'square'])}(mean({t32}) + 1) }}")
        self.bind((f"{t.name} * as_type({name}, {t.name})", t.shape, "float"))

    def _choose(self, t: Tensor) -> None:
        last = t.shape[-1] if t.shape else None
        if last is None or last.kind != "static" or not self.owner:
            return
        name = self.fresh("pick")
        arms = ["one", "two", "three"][: self.rng.randint(2, 3)]
        self.line(f"choose {name} {{")
        for a in arms:
            given = "(hidden: int = 8 in {4, 8})" if a == "two" else ""
            chosen = self.use("MLP") + "(hidden)" if a == "two" else self.template(last, self.sequence(t))
            self.line(f"  {a}{given} => {chosen}")
        self.line(f"}} = {self.pick(arms)}")
        self.knobs.append((name, arms))
        self.bind((f"{name}({t.name})", t.shape, "float"))

    def _const(self, t: Tensor) -> None:
        """A tensor of numbers, along the last axis where its size is known."""
        last = t.shape[-1] if t.shape else None
        name = self.fresh("c")
        n = int(last.text) if last is not None and last.text.isdecimal() and int(last.text) <= 16 else 1
        written = f"[{', '.join(['0.5'] * n)}]"
        self.line(f"const {name}: [{n}] = {self.pick([written, f'[i + 0.5 for i in range({n})]', f'repeat(1, {n})'])}")
        self.bind((f"{t.name} * {name}", t.shape, "float"))

    def _draw(self, t: Tensor) -> None:
        """A random order of the first run-time axis."""
        i = next((i for i, a in enumerate(t.shape) if a.kind == "run"), None)
        if i is None or MANY in t.shape:
            return
        name = self.fresh("order")
        self.line(f"draw {name} = permutation({t.shape[i].text})")
        self.bind((f"take({t.name}, {name}, axis = {i})", t.shape, "float"))

    def _pair(self, t: Tensor) -> None:
        """Two values at once."""
        a, b = self.fresh("p"), self.fresh("q")
        last = t.shape[-1] if t.shape else None
        if last is not None and last.kind == "static" and last.multiple % 2 == 0 and self.maybe(0.6):
            self.line(f"{a}, {b} = split({t.name}, 2)")
            shape = (*t.shape[:-1], self._halved(last))
            self.scope += [Tensor(a, shape), Tensor(b, shape)]
        else:
            self.line(f"{a}, {b} = {self.pick(UNARY)}({t.name}), {t.name} * 2")
            self.scope += [Tensor(a, t.shape), Tensor(b, t.shape)]

    def _record(self) -> None:
        if self.records:
            name = self.fresh("r")
            given = self.pick(["8", "width = 4", '8, kind = "b"', "2 * 2, act = relu"])
            self.line(f"{name} = Plan({given})")
            self.numbers += [f"{name}.width"]
            self.templates.append(f"{name}.act")

    def _list(self, t: Tensor) -> None:
        """A list of templates, applied one after another."""
        last = t.shape[-1] if t.shape else None
        if last is None or last.kind != "static" or not self.owner:
            return
        name, i = self.fresh("fs"), self.fresh("i")
        t = self._copy(t)
        self.line(f"{self.pick(['', 'share '])}{name} = [{self.block_template(last)}, {self.block_template(last)}]")
        self._nest(f"{self.fresh('stage')}: for {i} in {name}", [f"{t.name} = {i}({t.name}) as {self.fresh('g')}"])

    def block_template(self, axis: Axis) -> str:
        d = self.size(axis)
        return self.pick([f"{self.use('MLP')}({self.number(8)})", f"{self.use('Linear')}({d})", self.norm()])

    def _keys(self, t: Tensor) -> None:
        """Attention by hand: heads, a mask of keys, a bias."""
        if len(t.shape) != 3 or t.shape[1].kind != "run" or t.shape[2].kind != "static" or t.shape[2].multiple % 2:
            return
        b, n = t.shape[0].text, t.shape[1].text
        if t.shape[0].kind != "run" or b == n:
            return
        q, h = self.fresh("q"), self.fresh("h")
        mask = self.pick([self.mask(), f"keys(mean({t.name}, axis = -1) > 0) & {self.mask()}"])
        more = self.pick(["", ", scale = 0.5", ", cap = 5"])
        self.line(f"{q} = {t.name} |> rearrange([{b}, {n}, ({h} w)] -> [{b}, {h}, {n}, w], {h} = 2)")
        self.bind((f"attention({q}, {q}, {q}, mask = {mask}{more}) |> rearrange([{b}, {h}, {n}, w] -> [{b}, {n}, ({h} w)])", t.shape, "float"))

    def _both(self, t: Tensor) -> None:
        last = t.shape[-1] if t.shape else None
        if not self.both or last is None or last.kind != "static" or not self.owner or self.preserving:
            return
        a, b = self.fresh("b"), self.fresh("b")
        peers = [s.name for s in self.scope if s.shape[:-1] == t.shape[:-1] and s.dtype == "float" and s.shape and s.shape[-1].kind == "static"]
        more = self.pick(["", f", memory = {self.pick(peers)}" if peers else "", ", rate = 2"])
        self.line(f"{a}, {b} = {self.both}({self.number(4)})({t.name}{more}){self.label()}")
        self.scope += [Tensor(a, t.shape), Tensor(b, (*t.shape[:-1], num(4)))]

    def _bind_template(self) -> None:
        if self.has_width:
            name = self.fresh("f")
            self.line(f"{name} = {self.template(self.width, False)}")
            self.templates.append(name)

    def _bind_mask(self) -> None:
        name = self.fresh("m")
        self.line(f"{name} = {self.mask()}")
        self.masks.append(name)

    def _require(self) -> None:
        run = sorted({a.text for t in self.scope for a in t.shape if a.kind == "run"})
        forms = [f"require {self.truth().replace('not ', '')} or true", f'require {self.width.text} > 0, "d is {{d}}"']
        forms += [f'require {self.pick(run)} % 2 == 0, "even"', f"require {self.pick(run)} >= 1 and {self.pick(run)} <= 4096"] if run else []
        self.line(self.pick(forms))

    def _emit(self, t: Tensor) -> None:
        name = self.fresh("seen")
        self.line(f"emit {name} = mean({t.name})")
        if not self.preserving:
            self.emitted.append(name)

    def _share(self, t: Tensor) -> None:
        last = t.shape[-1] if t.shape else None
        if last is None or last.kind != "static":
            return
        name = self.fresh("tied")
        made = self.template(last, self.sequence(t), 2)
        when = f" when {self.truth()}" if self.maybe(0.15) else ""
        self.line(f"share {name} = {made}{when}")
        self.bind((f"{name}({t.name})", t.shape, "float"))
        self.bind((f"{self.use('Residual')}({name})({t.name}){self.label()}" if self.maybe(0.5) else f"{name}({t.name})", t.shape, "float"))

    def body(self, n: int, inputs: tuple[Tensor, ...], preserving: bool = False) -> list[str]:
        self.lines: list[str] = []
        self.inputs = {t.name for t in inputs}
        self.scope, self.templates, self.masks, self.emitted, self.knobs, self.looped, self.numbers = list(inputs), [*self.outer], [], [], [], [], []
        self.preserving, self.owner = preserving, True
        self.has_width = any(self.width in t.shape for t in inputs)
        if self.maybe(0.05):
            block, argument = self.pick([("Linear", "bias = false"), ("RMSNorm", "eps = 1e-5"), ("LayerNorm", "eps = 1e-6")])
            self.line(f"default {self.use(block)}({argument})")
        for _ in range(n):
            self.statement(0)
        return self.lines
