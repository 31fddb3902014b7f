"""What a writer of random specs knows while it writes: names, sizes, tensors, templates."""

from __future__ import annotations

import random
from typing import NamedTuple

BLOCKS = {
    "channel": "MLP SwiGLU GeGLU GLU",
    "embed": "TokenEmbedding LearnedPositions Rope",
    "norm": "LayerNorm RMSNorm BatchNorm GroupNorm MapNorm",
    "residual": "Pre Post Peri Residual ReZero Scaled LayerScale Parallel Sandwich",
    "linear": "Linear",
    "mixer": "Attention",
    "vision": "Conv",
}
LIBRARY = {block: module for module, blocks in BLOCKS.items() for block in blocks.split()}
UNARY = "relu gelu silu tanh sigmoid sin cos erf exp abs square softplus hardswish sign elu relu6 identity round".split()
REDUCED = ["mean", "sum", "max", "min", "var"]
INITS = [
    "normal(std = 0.02)",
    "zeros()",
    "ones()",
    "uniform(-0.1, 0.1)",
    "trunc_normal(std = 0.1)",
    "constant(0.5)",
    "0.5",
    "2 * normal()",
    "1 + ones()",
]


class Axis(NamedTuple):
    """`text` writes it; `kind`: static, run (a run-time size with a name), open (one without), many (`...`). `multiple` divides it."""

    text: str
    kind: str = "static"
    multiple: int = 1


class Tensor(NamedTuple):
    name: str
    shape: tuple[Axis, ...]
    dtype: str = "float"


class Known(NamedTuple):
    """A block of this file that keeps the shape of its input."""

    name: str
    call: str  # with arguments
    rank: int  # axes that the input needs at least
    wraps: bool = False


Made = tuple[str, tuple[Axis, ...], str]  # text, shape, dtype
MANY = Axis("...", "many")


def num(n: int) -> Axis:
    return Axis(str(n), "static", n)


def operand(text: str) -> str:
    """In parentheses where something may follow."""
    return f"({text})" if text.startswith(("if ", "block(")) else text


def simple(text: str) -> bool:
    return text.replace("_", "").isalnum()


class Writer:
    def __init__(self, rng: random.Random, noise: float = 0.004):
        self.rng, self.noise = rng, noise
        self.uses: set[str] = set()
        self.blocks: list[Known] = []
        self.fns: list[str] = []
        self.hypers: dict[str, str] = {}  # name -> type, of the body being written
        self.scope: list[Tensor] = []
        self.templates: list[str] = []  # names of bound templates that keep [..., d]
        self.masks: list[str] = []
        self.emitted: list[str] = []
        self.count = 0
        self.owner = True  # weights may be owned here
        self.records, self.both, self.planned = False, "", ""
        self.outer: list[str] = []  # templates that stand around the body: shared by entries
        self.looped: list[tuple[str, list[str]]] = []  # choices inside loops, by the pattern of their addresses
        self.lines: list[str] = []
        self.inputs: set[str] = set()  # their names cannot be bound again
        self.knobs: list[tuple[str, list[str]]] = []  # choices with their arms
        self.preserving = self.has_width = False  # of the body: a block of one shape; the width `d` is a size in it
        self.numbers: list[str] = []  # names of hyper values that may stand for a width
        self.width = Axis("d", "static", 8)

    # ---------------------------------------------------------------- choosing
    def maybe(self, p: float) -> bool:
        # hypothesis likes the ends of a range: what is likely there must not be what is rare
        return (self.rng.randrange(1000) - 371) % 1000 < 1000 * p

    def pick(self, items):
        return items[self.rng.randrange(len(items))]

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def slip(self, text: str) -> str:
        """The text, or now and then something else of about the same form."""
        if not self.maybe(self.noise):
            return text
        near = [
            "0",
            "1",
            "3",
            "7",
            "-1",
            "none",
            "true",
            '"a"',
            "1.5",
            "d",
            "T",
            "x",
            "relu",
            "[]",
            "[1, 2]",
            "Linear(4)",
            "undefined",
            "10 ** 9",
            "causal",
            "B",
        ]
        return self.pick([*near, text + " + 1", f"({text}, 1)"])

    def use(self, block: str) -> str:
        self.uses.add(block)
        return block

    def number(self, n: int) -> str:
        """A hyper expression whose value is n."""
        forms = [f"{n}"] * 5 + [
            f"{n - 1} + 1",
            f"if true {{ {n} }} else {{ 1 }}",
            f"[1, {n}][1]",
            f"max(1, {n})",
            f"len(range({n}))",
            f"ceildiv({2 * n - 1}, 2)",
            f'match "a" {{ "a" => {n} _ => 1 }}',
            f"sum([i for i in [{n}, 3] if i == {n}])",
            f"floor({n} + 0.5)",
            f"{2 * n} // 2",
            f"(none ?? {n})",
        ]
        forms += [f"half({2 * n})"] * ("half" in self.fns)
        forms += [name for name in self.numbers if self.maybe(0.2)] if n == 8 else []
        return self.slip(self.pick(forms))

    def size(self, axis: Axis) -> str:
        return self.number(int(axis.text)) if axis.text.isdecimal() else self.slip(axis.text)

    def label(self) -> str:
        return f" as {self.fresh(self.pick(['n', 'part', 'f']))}"

    def line(self, text: str) -> None:
        self.lines.append(text)

    def tensor(self, dtype: str = "float", least: int = 0) -> Tensor | None:
        found = [t for t in self.scope if t.dtype == dtype and len(t.shape) >= least]
        if self.maybe(self.noise) and self.scope:
            found = self.scope
        return found[max(self.rng.randrange(len(found)), self.rng.randrange(len(found)))] if found else None  # the later ones more often

    # ---------------------------------------------------------------- templates over the last axis
    def norm(self) -> str:
        return self.pick(
            [
                f"{self.use('RMSNorm')}()",
                f"{self.use('LayerNorm')}()",
                f"{self.use('RMSNorm')}(eps = 1e-5)",
                f"{self.use('LayerNorm')}(bias = false)",
                f"{self.use('RMSNorm')}(affine = false)",
            ]
        )

    def act(self) -> str:
        return self.pick(["gelu", "relu", "silu", "tanh", 'block(y) => gelu(y, approximate = "tanh")', "relu >> square", "identity"])

    def mask(self, depth: int = 0) -> str:
        plain = ["causal", "full", f"window({self.number(3)})", "causal & window(2)", "causal_by(2)", "own_block(2)", "own_block(2, previous = 1)"]
        if depth < 2 and self.maybe(0.2):
            return f"({self.mask(depth + 1)}) {self.pick('&|')} ({self.mask(depth + 1)})"
        return self.pick([*plain, *self.masks])

    def attention(self) -> str:
        more = (
            [f"mask = {self.mask()}"] * self.maybe(0.5) + [f"positions = {self.use('Rope')}()"] * self.maybe(0.3) + ["bias = true"] * self.maybe(0.2)
        )
        more += [f"qk_norm = {self.use('RMSNorm')}()"] * self.maybe(0.2) + ["kv_heads = 1"] * self.maybe(0.2) + ["cap = 30"] * self.maybe(0.1)
        return f"{self.use('Attention')}({', '.join([self.number(2), *more])})"

    def template(self, axis: Axis, sequence: bool, depth: int = 0) -> str:
        """A template that keeps [..., axis] (with `sequence`, [..., T, axis])."""
        d = self.size(axis)
        forms = [
            lambda: f"{self.use('MLP')}({self.number(8)})",
            lambda: f"{self.use('SwiGLU')}(2 * {d})",
            lambda: f"{self.use('Linear')}({d})",
            self.norm,
            lambda: f"{self.use('MLP')}(2 * {d}, act = {self.act()}, drop = 0.1)",
            lambda: f"{self.use('GLU')}({self.number(4)}, {self.act()})",
        ]
        own = [b for b in self.blocks if not b.wraps and b.rank <= 1 + sequence]
        if own:
            forms += [lambda: self.pick(own).call] * 3
        if self.templates:
            forms += [lambda: self.pick(self.templates)]
        if sequence and axis.multiple % 4 == 0:
            forms += [self.attention] * 3
        if depth < 2:
            inner = lambda: self.template(axis, sequence, depth + 1)
            forms += [
                lambda: f"{self.use('Residual')}({inner()})",
                lambda: f"{self.use(self.pick(['Pre', 'Post', 'Peri', 'LayerScale']))}({self.norm()}, {inner()})",
                lambda: f"{self.use('ReZero')}({inner()})",
                lambda: f"({operand(inner())} as {self.fresh('s')} >> {operand(inner())} as {self.fresh('s')})",
                lambda: f"block(z) => z + {self.pick(UNARY)}(z)",
                lambda: f"if {self.truth()} {{ {inner()} }} else {{ {inner()} }}",
            ]
            wraps = [b for b in self.blocks if b.wraps]
            if wraps:
                forms += [lambda: self.pick(wraps).call.replace("F", inner())]
        return self.pick(forms)()

    def truth(self) -> str:
        flags = [n for n, t in self.hypers.items() if t == "bool"] or ["true"]
        words = [n for n, t in self.hypers.items() if t == "mode"]
        counts = [n for n, t in self.hypers.items() if t == "int"] or ["3"]
        forms = [
            self.pick(flags),
            f"not {self.pick(flags)}",
            f"{self.pick(counts)} > 2",
            f"{self.pick(counts)} in {{1, 2, 8}}",
            f"{self.pick(flags)} or {self.pick(counts)} == 4",
            "2 in [1, 2] and true",
        ]
        return self.slip(self.pick(forms + [f'{self.pick(words)} == "a"'] * bool(words)))
