"""Whole specs from a grammar of meanings: what is written is mostly well typed, so that most programs reach the last stages.

A `Writer` keeps what a reader of its text would know: the tensors in scope with their axes, the hyper values, the blocks. Now and then it slips
(a wrong size, name or tensor), so that faults deep inside a program are met as well. Everything follows from the `random.Random` it is given.
"""

from __future__ import annotations

import random

from archdsl.diagnostics.model import ArchError
from archdsl.spec import loads
from tests.fuzz.constructs import Constructs
from tests.fuzz.writer import INITS, LIBRARY, MANY, Axis, Known, Tensor, num


class Program(Constructs):
    """One spec."""

    # ---------------------------------------------------------------- declarations
    def block(self) -> str:
        name = self.fresh(self.pick(["Part", "Unit", "Gate"]))
        wraps = self.maybe(0.2)
        rank = self.pick([1, 1, 2])
        shape = (MANY, *([Axis("T", "run")] if rank == 2 else []), self.width)
        self.hypers = {"hidden": "int", "flag": "bool", "mode": "mode"}
        lines = self.body(self.rng.randint(1, 4), (Tensor("x", shape),), preserving=True)
        t = next((t for t in reversed(self.scope) if t.shape == shape and t.dtype == "float"), Tensor("x", shape))
        axes = ", ".join(a.text for a in shape)
        doc = "/// One more part.\n" * self.maybe(0.3)
        if wraps:
            head = f'wrap block {name}(_ f: block, hidden: int = 4, flag: bool = true, mode: "a" | "b" = "a")(x: [{axes}], ...) -> [{axes}]'
            lines = [*lines, f"return {t.name} + f(x, ...)"]
            self.blocks.append(Known(name, f"{name}(F)", rank, True))
        else:
            head = f'block {name}(hidden: int = 4 in {{4, 8}}, flag: bool = true, mode: "a" | "b" = "a")(x: [{axes}]) -> [{axes}]'
            lines = [*lines, f"return {t.name}"]
            call = self.pick([f"{name}()", f"{name}({self.number(8)})", f"{name}(flag = false)", f'{name}(mode = "b")'])
            self.blocks.append(Known(name, call, rank))
        return f"{doc}{head} {{\n" + "\n".join("  " + line for line in lines) + "\n}"

    def two_results(self) -> str:
        """A block of two results and an optional input."""
        self.both = self.fresh("Both")
        return (
            f"block {self.both}(hidden: int = 4)(x: [..., d], memory: [..., e]? = none, rate: float = 0.5) -> (x: [..., d], aux: [..., hidden]) {{\n"
            f"  y = x |> {self.use('Linear')}(hidden) as up\n  if memory is some {{ y = y + {self.use('Linear')}(hidden)(memory) as side }}\n"
            f"  emit size = mean(y * y)\n  return x * rate + {self.use('Linear')}(d)(y) as down, aux = y\n}}"
        )

    def function(self) -> str:
        if "half" not in self.fns and self.maybe(0.6):
            self.fns.append("half")
            return "fn half(n: int) -> int { return n // 2 }"
        name = self.fresh("plan")
        body = self.pick(
            [
                f"out = []\n  for i in range(n) {{ out = out + [i * {self.number(2)}] }}\n  return out",
                "return [i for i in range(n) if i % 2 == 0]",
                "return repeat(8, n)",
            ]
        )
        return f"fn {name}(n: int) -> list[int] {{\n  {body}\n}}"

    def model(self) -> str:
        d, self.forgets = self.pick([8, 16]), False
        self.hypers = {"depth": "depth", "flag": "bool", "mode": "mode", "d": "int"}
        params = [f"d: int = {d} in {{8, 16, 24}}", "depth: int = 2 in 1..3", "flag: bool = true", 'mode: "a" | "b" = "a" in {"a", "b"}']
        params += [
            p for p in ("drop: float = 0.1", "widths: list[int] = [8, 16] in each {8, 16}", "n: int? = none", "act: block = gelu") if self.maybe(0.2)
        ]
        b, length, height, width = Axis("B", "run"), Axis("T", "run"), Axis("H", "run"), Axis("W", "run")
        if self.maybe(0.08):
            return self.entries(params)
        kind = self.pick(["sequence", "sequence", "tokens", "map", "flat", "two", "memory", "masked", "fixed"])
        self.forgets = kind == "memory"
        header, inputs = {
            "sequence": ("x: [B = 2, T = 4, d]", (Tensor("x", (b, length, self.width)),)),
            "tokens": ("tokens: int[B = 2, T = 4] in 0..<11", (Tensor("tokens", (b, length), "int"),)),
            "map": ("image: [B = 2, 4, H = 4, W = 8]", (Tensor("image", (b, num(4), height, width)),)),
            "flat": ("x: [B = 2, d]", (Tensor("x", (b, self.width)),)),
            "two": ("x: [B = 2, T = 4, d], y: [B, T, d]", (Tensor("x", (b, length, self.width)), Tensor("y", (b, length, self.width)))),
            "memory": ("x: [B = 2, T = 4, d], memory: [B, S = 3, 6]? = none", (Tensor("x", (b, length, self.width)),)),
            "masked": ("x: [B = 2, T = 4, d], valid: bool[B, T]", (Tensor("x", (b, length, self.width)),)),
            "fixed": ("x: [B = 2, T = 4, d]", (Tensor("x", (b, length, self.width)),)),
        }[kind]
        stream = " stream T" if kind in ("sequence", "tokens") and self.maybe(0.1) else ""
        if kind == "tokens":
            inputs = (*inputs, Tensor("e", (b, length, self.width)))
        lines = self.body(self.rng.randint(2, 9), inputs)
        self.inputs = set()
        default = lines[:1] if lines and lines[0].startswith("default") else []
        lines = [*default, *self.first(kind), *lines[len(default) :]]
        t = self.tensor() or self.scope[0]
        results = [t]
        if self.maybe(0.2) and (other := self.tensor()) is not None:
            results.append(other)
        outs = ", ".join(f"{'out' if i == 0 else 'more'}: {self.result(r)}" for i, r in enumerate(results))
        head = f"model Net({', '.join(params)})({header}) -> {f'({outs})' if len(results) > 1 else outs}{stream}"
        names = ", ".join(r.name for r in results)
        if self.maybe(0.1):
            names = ", ".join(f"{'out' if i == 0 else 'more'} = {r.name}" for i, r in enumerate(results)) if len(results) > 1 else names
        elif self.maybe(0.1):
            lines.append(f"if {self.truth()} {{ return {names} }}")
        lines = [*lines, f"return {names}"]
        after = self.variants(params) + self.claims(bool(stream), inputs[0].name)
        doc = "/// Made at random.\n" * self.maybe(0.3)
        return f"{doc}{head} {{\n" + "\n".join("  " + line for line in lines) + "\n}" + after

    def first(self, kind: str) -> list[str]:
        """Lines in front of the others, which use the further inputs of a model."""
        if kind == "tokens":
            return [f"e = {self.use('TokenEmbedding')}(11, d)(tokens) as embed"]
        if kind == "memory":
            mean = f"if memory is some {{ mean({self.use('Linear')}(d)(memory) as side, axis = -2, keep = true) }} else {{ 0 }}"
            cross = f"{self.use('Attention')}(2)(x, memory = memory) as cross"
            return [f"m = {self.pick([mean, 'mean(memory ?? x)', cross, f'{cross} |> relu'])}", "emit side = m + x"]
        if kind == "masked":
            return [f"emit near = {self.use('Attention')}(2)(x, also = keys(valid)) as near"]
        if kind == "fixed":
            return [self.pick(["static T", "static T, B"]), f"param positions: [T, d] = {self.pick(INITS)}", "emit placed = x + positions"]
        return []

    def entries(self, params: list[str]) -> str:
        """A model of two functions over one set of weights."""
        b, length = Axis("B", "run"), Axis("T", "run")
        d = "d"
        common = [f"share core = {self.pick([self.use('MLP') + '(2 * d)', self.use('Linear') + '(d)'])}"] * self.maybe(0.9)
        if common and self.maybe(0.5):
            common.append(f"default {self.use('Linear')}(bias = {self.pick(['true', 'false'])})")
        if self.maybe(0.3):
            common.append(f"param gain: [{d}] = {self.pick(INITS)}")
        self.outer = ["core"] * bool(common and common[0].startswith("share"))
        out, knobs = [], []
        for name in ("first", "second", "third")[: self.rng.randint(1, 3)]:
            shape = self.pick([(b, length, self.width), (b, self.width)])
            lines = self.body(self.rng.randint(1, 4), (Tensor("x", shape),))
            knobs += self.knobs
            t = self.tensor() or self.scope[0]
            axes = ", ".join(f"{a.text} = {2 if a.text == 'B' else 4}" if a.kind == "run" else a.text for a in shape)
            lines = [*lines, f"return {t.name}"]
            out += [f"entry {name}(x: [{axes}]) -> out: {self.result(t)} {{", *("  " + line for line in lines), "}"]
        self.inputs, self.outer, self.knobs, self.looped = set(), [], [], []
        after = self.variants(params) + ("\nclaim Net.first { params >= 0; macs > 0 }" if self.maybe(0.5) else "")
        return f"model Net({', '.join(params)}) {{\n" + "\n".join("  " + line for line in [*common, *out]) + "\n}" + after

    def result(self, t: Tensor) -> str:
        dtype = {"float": "", "int": "int", "bool": "bool"}[t.dtype]
        return f"{dtype}[{', '.join('_' if a.kind == 'open' or self.maybe(0.4) else a.text for a in t.shape)}]"

    def variants(self, params: list[str]) -> str:
        out = ""
        settings = ["depth = 1", "flag = false", 'mode = "b"', "depth = 3", "d = 24"] + ["drop = 0"] * any("drop" in p for p in params)
        settings += [f"{name} = {self.pick(arms)}" for name, arms in self.knobs]
        settings += [f"{name} = {self.pick(arms)}" for name, arms in self.looped]
        settings += ["memory = none"] * self.forgets
        settings += ["widths.0 = 16", "widths = [16, 16]"] * any("widths" in p for p in params)
        for name in ["small", "other"][: self.rng.randint(0, 2)]:
            chosen = {s.split(" ")[0].split(".")[0]: s for s in self.rng.sample(settings, 2)}
            out += f"\nvariant {name} {{ {', '.join(self.slip(s) for s in chosen.values())} }}"
            self.made_variants.append(name)
        if "other" in out and self.maybe(0.3):
            out += "\nvariant third of small { depth = 1 }"
        return out

    def claims(self, stream: bool, x: str) -> str:
        items = [
            "params >= 0",
            "macs >= 0",
            "params < 1M",
            "shape(out, B = 3) == shape(out, B = 3)",
            "count(Linear) >= 0",
            "fails(1 // 0)",
            "peak_bytes(B = 2) > 0",
            "params == 10 within 500%",
            "d % 8 == 0",
        ]
        items += [f"causal(out, {x})"] * (2 * stream)
        items += ["macs(B = 3) >= macs when flag", 'params >= 1k from "table 1" when d > 8', "count(relu) + count(gelu) >= 0", "params(d = 16) > 0"]
        items += ["interchangeable(small, other)", "equal(small) within 1e-9"] * (len(self.made_variants) > 1)
        out = ""
        if self.maybe(0.5):
            target = self.pick(["", "Net ", *(v + " " for v in self.made_variants)])
            out += f"\nclaim {target}{{ {'; '.join(self.slip(self.pick(items)) for _ in range(self.rng.randint(1, 3)))} }}"
        if self.maybe(0.15):
            knob = f" count({self.knobs[0][0]} == one) <= 1" if self.knobs else ""
            out += f"\nspace search of Net {{ params <= 1M{knob} }}"
        return out

    def program(self) -> str:
        self.made_variants: list[str] = []
        decls = []
        if self.maybe(0.3):
            self.records = True
            decls.append('record Plan { width: int = 8, kind: "a" | "b" = "a", act: block = gelu, more: list[int] = [] }')
            if self.maybe(0.5):
                decls.append(self.planned_block())
        for _ in range(self.rng.randint(0, 2)):
            decls.append(self.function())
        if self.maybe(0.2):
            decls.append(self.two_results())
        for _ in range(self.rng.randint(0, 3)):
            decls.append(self.block())
        decls.append(self.model())
        if self.maybe(0.1):
            self.rng.shuffle(decls)
        if self.maybe(0.1):
            decls.insert(0, 'paper { title = "Made at random", arxiv = "2401.00001", domain = "vision" }')
        uses = "".join(f"use std.{LIBRARY[u]} {{ {u} }}\n" for u in sorted(self.uses))
        text = "\n\n".join(decls) + "\n"
        if self.maybe(0.05) and "LayerNorm" in self.uses:  # by the name of its module
            text, uses = text.replace("LayerNorm(", "norm.LayerNorm("), uses.replace("use std.norm { LayerNorm }", "use std.norm")
        if self.maybe(0.05) and "MLP" in self.uses:  # under another name
            text, uses = text.replace("MLP(", "Perceptron("), uses.replace("{ MLP }", "{ MLP as Perceptron }")
        return uses + "\n" + text


def program(rng: random.Random, noise: float = 0.004) -> str:
    """The text of one spec with the model `Net`."""
    return Program(rng, noise).program()


STEPS = ("bake()", "centre()", "fold_norm_scales()", "fold_layer_scale()", "fold_batch_norm()", "bake() on layers1", "centre(compress = true)")


def completed(text: str, rng: random.Random) -> str:
    """The text; to some that are sound, a variant with a `transform` that fits is added, or foreign names of all weights."""
    if rng.randrange(8):
        return text
    try:
        spec = loads(text)
    except ArchError:
        return text
    if rng.randrange(2):
        weights = enumerate(spec.elaborate().graph.parameters())
        lines = [f'  "theirs.{a}" <-> {a}{" scale(2)" * (p.kind == "param" and i % 7 == 3)}' for i, (a, p) in weights]
        return f"{text}\nnames theirs of {spec.name} {{\n" + "\n".join(lines) + "\n}\n" if lines else text
    changed = text
    for step in rng.sample(STEPS, len(STEPS)):
        changed = f"{text}\nvariant rewritten of {spec.name} {{ transform {step} }}\n"
        try:
            loads(changed)
            break
        except ArchError:
            pass
    return changed  # the last refusal, where none fits
