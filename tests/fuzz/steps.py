"""Expressions: those that keep the shape of a tensor, and those that give another one."""

from __future__ import annotations

from tests.fuzz.writer import INITS, MANY, REDUCED, UNARY, Axis, Made, Tensor, Writer, num, operand, simple


class Steps(Writer):
    # ---------------------------------------------------------------- steps that keep the shape
    def sequence(self, t: Tensor) -> bool:
        return len(t.shape) >= 2 and t.shape[-2].kind == "run"

    def keep(self, t: Tensor) -> str:
        """An expression of the type of t."""
        last = t.shape[-1] if t.shape else None
        x = t.name
        forms = [
            lambda: f"{self.pick(UNARY)}({x})",
            lambda: f"{x} |> {self.pick(UNARY)}",
            lambda: f"{x} * {self.pick(['0.5', '2', '1e-3'])}",
            lambda: f"{x} + {self.pick(UNARY)}({x})",
            lambda: f"where({x} > 0, {x}, 0.1 * {x})",
            lambda: f"clamp({x}, low = -1, high = 1)",
            lambda: f"softcap({x}, 30)",
            lambda: f"{x} / (abs({x}) + 1)",
            lambda: f"-{x}",
            lambda: f"dropout({x}, 0.1)",
            lambda: f"stop({x}) + {x}",
            lambda: f"maximum({x}, 0)",
            lambda: f"leaky_relu({x}, slope = 0.1)",
            lambda: f'as_type(cast({x}, "f32"), {x})',
            lambda: f"if {self.truth()} {{ {x} }} else {{ {self.pick(UNARY)}({x}) }}",
            lambda: f"phase {{ train => dropout({x}, 0.1) eval => {x} }}",
            lambda: f"match {self.number(2)} {{ 1 => {x} _ => {x} * 2 }}",
            lambda: f"(block(z) => z * 2)({x})",
        ]
        peers = [s for s in self.scope if s.shape == t.shape and s.dtype == t.dtype]
        if peers:
            forms += [
                lambda: f"{x} {self.pick(['+', '-', '*'])} {self.pick(peers).name}",
                lambda: f"where({x} > {self.pick(peers).name}, {x}, {self.pick(peers).name})",
            ] * 2
        if last is not None and last.kind in ("static", "run") and not (len(t.shape) == 1 and last.kind == "many"):
            forms += [
                lambda: f"softmax({x})",
                lambda: f"cumsum({x}, axis = -1)",
                lambda: f"roll({x}, 1, axes = -1)",
                lambda: f"flip({x}, -1)",
                lambda: f"{x} - mean({x}, axis = -1, keep = true)",
                lambda: f"log_softmax({x}, axis = -1)",
                lambda: f"l2_norm({x})",
            ]
        if last is not None and last.kind == "static":
            forms += [lambda: f"rms_norm({x})", lambda: f"{x} * {self.vector(last)}"]
            if self.owner:
                forms += [lambda: f"layer_norm({x}, {self.vector(last)})"]
                forms += [lambda: f"{self.template_call(last, self.sequence(t), x)}"] * 8
            if last.multiple % 2 == 0:
                forms += [
                    lambda: (
                        f"concat(split({x}, 2), axis = -1)"
                        if self.maybe(0.5)
                        else f"concat([{x}[..., {self.half(last)}:], {x}[..., :{self.half(last)}]], axis = -1)"
                    )
                ]
        if len(t.shape) >= 2 and MANY not in t.shape:
            forms += [lambda: self.under(t)]
        if self.emitted:
            forms += [lambda: f"{x} + 0 * sum(collect({self.pick(self.emitted)}))"]
        return self.pick(forms)()

    def half(self, axis: Axis) -> str:
        return str(int(axis.text) // 2) if axis.text.isdecimal() else f"{axis.text if simple(axis.text) else '(' + axis.text + ')'} // 2"

    def template_call(self, axis: Axis, sequence: bool, x: str) -> str:
        made = self.template(axis, sequence)
        if made.startswith(("if ", "block(", "(")) or self.maybe(0.3):
            return f"{operand(made)}({x}){self.label()}"
        return f"{x} |> {made}{self.label()}" if made[0].isupper() else f"{made}({x}){self.label()}"

    def vector(self, axis: Axis) -> str:
        """A weight of this size, or an expression of weights."""
        if not self.owner:
            return f'({self.pick(["1", "2"])} * cast(iota({axis.text}), "float"))'
        name = self.fresh("w")
        when = f" when {self.truth()}" if self.maybe(0.1) else ""
        init = self.pick(INITS)
        kind = self.pick(["param"] * 5 + ["frozen param", "buffer"])
        saved = f" as {self.fresh('saved')}" if self.maybe(0.2) else ""
        self.line(f"{kind} {name}{saved}: [{self.slip(axis.text)}] = {init}{when if kind != 'buffer' else ''}")
        if when and kind != "buffer":
            return f"(if {name} is some {{ {name} }} else {{ 1 }})" if not self.maybe(self.noise) else name
        if kind == "buffer" and self.maybe(0.5):
            self.line(f"update {name} = 0.9 * {name} + 0.1 * stop({self.pick([name, name + ' * 2'])})")
        return self.pick([name, name, f"(0.5 * {name} + 1)", f"({name} * {name})", f"softmax({name})"])

    def under(self, t: Tensor) -> str:
        names = [self.axis(a) for a in t.shape]
        turned = names[:]
        self.rng.shuffle(turned)
        return f"{t.name} |> under([{', '.join(names)}] -> [{', '.join(turned)}], {self.pick(['softmax', 'relu', 'block(z) => z * 2', 'cumsum'])})"

    def axis(self, a: Axis) -> str:
        """How an axis is written in a layout: a run-time size without a name gets one."""
        if a.kind == "many":
            return "..."
        if a.kind == "open":
            return self.fresh("N")
        return a.text if a.kind == "run" or simple(a.text) and self.maybe(0.5) else self.fresh("e")

    # ---------------------------------------------------------------- steps that make another shape
    def make(self, t: Tensor) -> Made | None:
        s = t.shape
        last = s[-1] if s else None
        forms = []
        wide = last is not None and last.kind == "static"
        plain = MANY not in s
        if wide and self.owner:
            forms += [self._linear] * 5
        if last is not None and last.kind != "many":
            forms += [self._reduce, self._keep_reduce, self._argmax, self._outer]
            if len(s) >= 2 and plain:
                forms += [self._permute, self._stack, self._drop]
        if plain and len(s) <= 4:
            forms += [self._new_axis, self._compare]
        if wide and plain and last is not None:
            if last.multiple % 2 == 0:
                forms += [self._split_axis, self._halves, self._slice, self._unfold]
            forms += [self._double, self._pad, self._topk]
        if len(s) == 4 and s[1].kind == "static" and s[2].kind == s[3].kind == "run" and self.owner:
            forms += [self._conv] * 5 + [self._pool]
        if len(s) == 3 and s[-2].kind == "run" and wide:
            forms += [self._scores, self._gram, self._last]
        return self.pick(forms)(t) if forms else None

    def _linear(self, t: Tensor) -> Made:
        n = self.pick([num(4), num(6), num(8), self.width])
        more = self.pick(["", "", ", bias = false", ", init = normal(std = 0.02)"])
        return f"{t.name} |> {self.use('Linear')}({self.size(n)}{more}){self.label()}", (*t.shape[:-1], n), "float"

    def _reduce(self, t: Tensor) -> Made:
        how = self.pick(REDUCED)
        if MANY in t.shape or self.maybe(0.5):
            return f"{how}({t.name}, axis = -1)", t.shape[:-1], "float"
        i = self.rng.randrange(len(t.shape))
        names = [self.axis(a) for a in t.shape]
        return (
            f"{t.name} |> reduce([{', '.join(names)}] -> [{', '.join(names[:i] + names[i + 1 :])}], {how})",
            t.shape[:i] + t.shape[i + 1 :],
            "float",
        )

    def _keep_reduce(self, t: Tensor) -> Made:
        return f"{self.pick([*REDUCED, 'logsumexp'])}({t.name}, axis = -1, keep = true)", (*t.shape[:-1], num(1)), "float"

    def _argmax(self, t: Tensor) -> Made:
        return f"argmax({t.name}, axis = -1)", t.shape[:-1], "int"

    def _outer(self, t: Tensor) -> Made:
        return f"outer({t.name}, {t.name})", (*t.shape, t.shape[-1]), "float"

    def _permute(self, t: Tensor) -> Made:
        names = [self.axis(a) for a in t.shape]
        order = list(range(len(names)))
        self.rng.shuffle(order)
        text = f"[{', '.join(names)}] -> [{', '.join(names[i] for i in order)}]"
        return self.pick([f"rearrange({t.name}, {text})", f"{t.name} |> rearrange({text})"]), tuple(t.shape[i] for i in order), t.dtype

    def _stack(self, t: Tensor) -> Made:
        return f"stack([{t.name}, {t.name}], axis = 1)", (t.shape[0], num(2), *t.shape[1:]), t.dtype

    def _drop(self, t: Tensor) -> Made:
        i = self.rng.randrange(len(t.shape))
        return f"{t.name}[{', '.join([':'] * i + [self.pick(['0', '-1'])])}]", t.shape[:i] + t.shape[i + 1 :], t.dtype

    def _new_axis(self, t: Tensor) -> Made:
        return f"{t.name}[..., none]", (*t.shape, num(1)), t.dtype

    def _compare(self, t: Tensor) -> Made:
        return f"{t.name} {self.pick(['>', '<', '>=', '!='])} 0", t.shape, "bool"

    def _split_axis(self, t: Tensor) -> Made:
        names = [self.axis(a) for a in t.shape[:-1]]
        a, b = self.fresh("a"), self.fresh("b")
        inner = Axis(self.half(t.shape[-1]), "static", t.shape[-1].multiple // 2)
        return (
            f"{t.name} |> rearrange([{', '.join([*names, f'({a} {b})'])}] -> [{', '.join([*names, a, b])}], {a} = 2)",
            (*t.shape[:-1], num(2), inner),
            t.dtype,
        )

    def _halves(self, t: Tensor) -> Made:
        return f"split({t.name}, 2)[{self.pick('01')}]", (*t.shape[:-1], self._halved(t.shape[-1])), t.dtype

    def _slice(self, t: Tensor) -> Made:
        half = self.half(t.shape[-1])
        return f"{t.name}[..., {self.pick([f':{half}', f'{half}:', '::2', '1::2'])}]", (*t.shape[:-1], self._halved(t.shape[-1])), t.dtype

    def _halved(self, a: Axis) -> Axis:
        return num(int(a.text) // 2) if a.text.isdecimal() else Axis(self.half(a), "static", a.multiple // 2)

    def _doubled(self, a: Axis) -> Axis:
        return num(2 * int(a.text)) if a.text.isdecimal() else Axis(f"2 * {a.text if simple(a.text) else f'({a.text})'}", "static", 2 * a.multiple)

    def _double(self, t: Tensor) -> Made:
        return (
            self.pick([f"concat([{t.name}, {t.name}], axis = -1)", f"repeat_interleave({t.name}, 2)"]),
            (*t.shape[:-1], self._doubled(t.shape[-1])),
            t.dtype,
        )

    def _pad(self, t: Tensor) -> Made:
        a = t.shape[-1]
        last = num(int(a.text) + 3) if a.text.isdecimal() else Axis(f"{a.text} + 3")
        widths = ", ".join(["(0, 0)"] * (len(t.shape) - 1) + ["(1, 2)"])
        return f"pad({t.name}, [{widths}])", (*t.shape[:-1], last), t.dtype

    def _topk(self, t: Tensor) -> Made:
        part = self.pick("01")
        return f"topk({t.name}, 1)[{part}]", (*t.shape[:-1], num(1)), "int" if part == "1" else "float"

    def _unfold(self, t: Tensor) -> Made:
        return f"unfold({t.name}, 2)", (*t.shape[:-1], self._halved(t.shape[-1]), num(2)), t.dtype

    def _conv(self, t: Tensor) -> Made:
        c = self.pick([num(4), num(8)])
        kernel, more, axes = self.pick(
            [(3, ", pad = 1", t.shape[2:]), (1, "", t.shape[2:]), (2, ", stride = 2", (Axis("?", "open"), Axis("?", "open")))]
        )
        return f"{t.name} |> {self.use('Conv')}({self.size(c)}, {kernel}{more}){self.label()}", (t.shape[0], c, *axes), "float"

    def _pool(self, t: Tensor) -> Made:
        return f"{self.pick(['max', 'avg'])}_pool({t.name}, 2)", (*t.shape[:2], Axis("?", "open"), Axis("?", "open")), "float"

    def _scores(self, t: Tensor) -> Made:
        b, n, _ = (a.text for a in t.shape)
        return f"einsum([{b}, {n}, w], [{b}, S, w] -> [{b}, {n}, S])({t.name}, {t.name})", (t.shape[0], t.shape[1], t.shape[1]), "float"

    def _gram(self, t: Tensor) -> Made:
        names = [self.axis(a) for a in t.shape]
        return (
            f"matmul(rearrange({t.name}, [{', '.join(names)}] -> [{names[0]}, {names[2]}, {names[1]}]), {t.name})",
            (t.shape[0], t.shape[2], t.shape[2]),
            "float",
        )

    def _last(self, t: Tensor) -> Made:
        return f"{t.name}[:, -1]", (t.shape[0], t.shape[2]), "float"
