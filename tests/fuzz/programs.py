"""Whole specs from a grammar of meanings: what is written is mostly well typed, so that most programs reach the last stages.

A `Writer` keeps what a reader of its text would know: the tensors in scope with their axes, the hyper values, the blocks. Now and then it slips
(a wrong size, name or tensor), so that faults deep inside a program are met as well. Everything follows from the `random.Random` it is given.
"""

from __future__ import annotations

import random

from tests.fuzz.statements import Statements
from tests.fuzz.writer import LIBRARY, MANY, Axis, Known, Tensor, num


class Program(Statements):
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
        d = self.pick([8, 16])
        self.hypers = {"depth": "depth", "flag": "bool", "mode": "mode", "d": "int"}
        params = [f"d: int = {d} in {{8, 16, 24}}", "depth: int = 2 in 1..3", "flag: bool = true", 'mode: "a" | "b" = "a" in {"a", "b"}']
        params += [
            p for p in ("drop: float = 0.1", "widths: list[int] = [8, 16] in each {8, 16}", "n: int? = none", "act: block = gelu") if self.maybe(0.2)
        ]
        b, length, height, width = Axis("B", "run"), Axis("T", "run"), Axis("H", "run"), Axis("W", "run")
        kind = self.pick(["sequence", "sequence", "tokens", "map", "flat", "two"])
        header, inputs = {
            "sequence": ("x: [B = 2, T = 4, d]", (Tensor("x", (b, length, self.width)),)),
            "tokens": ("tokens: int[B = 2, T = 4] in 0..<11", (Tensor("tokens", (b, length), "int"),)),
            "map": ("image: [B = 2, 4, H = 4, W = 8]", (Tensor("image", (b, num(4), height, width)),)),
            "flat": ("x: [B = 2, d]", (Tensor("x", (b, self.width)),)),
            "two": ("x: [B = 2, T = 4, d], y: [B, T, d]", (Tensor("x", (b, length, self.width)), Tensor("y", (b, length, self.width)))),
        }[kind]
        stream = " stream T" if kind in ("sequence", "tokens") and self.maybe(0.1) else ""
        if kind == "tokens":
            inputs = (*inputs, Tensor("e", (b, length, self.width)))
        lines = self.body(self.rng.randint(2, 9), inputs)
        self.inputs = set()
        if kind == "tokens":
            default = lines[:1] if lines and lines[0].startswith("default") else []
            lines = [*default, f"e = {self.use('TokenEmbedding')}(11, d)(tokens) as embed", *lines[len(default) :]]
        t = self.tensor() or self.scope[0]
        results = [t]
        if self.maybe(0.2) and (other := self.tensor()) is not None:
            results.append(other)
        outs = ", ".join(f"{'out' if i == 0 else 'more'}: {self.result(r)}" for i, r in enumerate(results))
        head = f"model Net({', '.join(params)})({header}) -> {f'({outs})' if len(results) > 1 else outs}{stream}"
        lines = [*lines, f"return {', '.join(r.name for r in results)}"]
        after = self.variants(params) + self.claims(bool(stream), inputs[0].name)
        doc = "/// Made at random.\n" * self.maybe(0.3)
        return f"{doc}{head} {{\n" + "\n".join("  " + line for line in lines) + "\n}" + after

    def result(self, t: Tensor) -> str:
        dtype = {"float": "", "int": "int", "bool": "bool"}[t.dtype]
        return f"{dtype}[{', '.join('_' if a.kind == 'open' or self.maybe(0.4) else a.text for a in t.shape)}]"

    def variants(self, params: list[str]) -> str:
        out = ""
        settings = ["depth = 1", "flag = false", 'mode = "b"', "depth = 3", "d = 24"] + ["drop = 0"] * any("drop" in p for p in params)
        settings += [f"{name} = {self.pick(arms)}" for name, arms in self.knobs]
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
        for _ in range(self.rng.randint(0, 2)):
            decls.append(self.function())
        if self.maybe(0.2):
            decls.append(self.two_results())
        for _ in range(self.rng.randint(0, 3)):
            decls.append(self.block())
        decls.append(self.model())
        uses = "".join(f"use std.{LIBRARY[u]} {{ {u} }}\n" for u in sorted(self.uses))
        return uses + "\n" + "\n\n".join(decls) + "\n"


def program(rng: random.Random, noise: float = 0.004) -> str:
    """The text of one spec with the model `Net`."""
    return Program(rng, noise).program()
