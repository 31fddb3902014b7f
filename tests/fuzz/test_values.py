"""Every block of the library, function, initialiser and mask with every odd value for every argument: a diagnostic, or a spec that can be costed."""

from __future__ import annotations

import pytest

import archdsl.stdlib
from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.library import FUNCTIONS, MASKS
from archdsl.files import read_source
from archdsl.ops.initializers import INITIALIZERS
from archdsl.spec import loads
from archdsl.syntax import tree
from archdsl.syntax.parser import parse
from tests.fuzz.mutations import APPLIED
from tests.fuzz.test_arguments import ODD

INPUTS = {
    "x": "[B = 2, T = 4, 8]",
    "image": "[B = 2, 4, H = 8, W = 8]",
    "tokens": "int[B, T] in 0..<4",
}


def blocks() -> dict[str, tuple[str, tree.Block]]:
    """Name -> (module, declaration) of the library's blocks."""
    out = {}
    (folder,) = archdsl.stdlib.__path__
    for module in APPLIED:
        for d in parse(read_source(f"{folder}/{module}.arch")).decls:
            if isinstance(d, tree.Block):
                out[d.name] = (module, d)
    return out


def cost(text: str) -> bool:
    try:
        loads(text).cost()
    except ArchError:
        return False
    return True


def body(text: str, uses: str = "") -> str:
    inputs = ", ".join(f"{n}: {t}" for n, t in INPUTS.items()) + ", odd: [B, T, 8]"
    return (
        f"use std.linear {{ Linear }}\n{uses}record R {{ a: int }}\nmodel M()({inputs}) -> y: [B, T, 8] {{\n"
        f"  param w: [8] = ones()\n  share f = Linear(8)\n  z = f(x)\n  {text}\n  return z\n}}"
    )


def try_all(cases: list[str]) -> None:
    for text in cases:
        try:
            cost(text)
        except Exception as fault:
            raise AssertionError(text) from fault


BLOCKS = blocks()


def block_cases(name: str) -> list[str]:
    module, d = BLOCKS[name]
    uses = "" if name == "Linear" else f"use std.{module} {{ {name} }}\n"
    good = {p.name: "relu" if p.type is not None and p.type.span.text == "block" else "2" for p in d.params if p.default is None and not p.rest}
    cases = []
    for p in d.params:
        for odd in ODD if not p.rest else []:
            given = ", ".join(f"{k} = {v}" for k, v in {**good, p.name: odd}.items())
            cases += [body(f"v = {name}({given})({x}) as v", uses) for x in INPUTS]
    for odd in ODD:
        given = ", ".join(f"{k} = {v}" for k, v in good.items())
        cases += [
            body(f"v = {name}({given})({odd}) as v", uses),
            body(f"v = {name}({given})(x, {odd}) as v", uses),
            body(f"v = {odd} |> {name}({given}) as v", uses),
        ]
    return cases


def value_cases(name: str) -> list[str]:
    cases = []
    for odd in ODD:
        for call in (f"{name}({odd})", f"{name}(2, {odd})", f"{name}({odd}, 2)", f"{name}([1, 2], {odd})", f"{name}(1, 2, {odd})", f"{name}()"):
            cases += [body(f"v = {call}"), body(f"param p: [8, 8] = {call}"), body(f"v = attention(image, image, image, mask = {call})")]
    return cases


STATEMENTS = """
v = {} + 1
v = x * {}
v = -{}
v = not {}
v = {} and true
v = [{}][0]
v = [1, 2][{}]
v = x[{}]
v = x[..., {}:]
v = x[::{}]
v = {}(x)
v = {} >> relu
v = x
> {}
v = {} ?? 1
v = {} is some
v = causal & {}
v = 2 in {}
v = 1..{}
for i in {} {{ }}
l: for i in {} {{ z = f(z) }}
if {} {{ }}
match {} {{ 1 => {{ }} _ => {{ }} }}
require {}
require x == {}
share g = {}
share g = Linear(8) when {}
param p: [8] = {}
param p: [8] = ones() when {}
const c: [2] = {}
const c = {}
draw c = {}
emit e = {}
update w = {}
buffer b: [8] = ones() ; update b = {}
default Linear(bias = {})
v = phase {{ train => x eval => {} }}
v = if {} {{ x }} else {{ z }}
v = match {} {{ 1 => x _ => z }}
v = [i for i in {}]
v = [i for i in [1] if {}]
choose c {{ a => relu b => {} }} = b
choose c {{ a(k: int = {} in {{1, 2}}) => relu }} = a
v = rearrange(x, [B, T, (a b)] -> [B, T, a, b], a = {})
v = reduce(x, [B, T, d] -> [B, T], {})
v = under({})
v = x
> under([B, T, d] -> [B, d, T], {})
a, b = {}
v = R(...{})
v = {}.a
v = block(y) => {}
v = (block(y) => {})(x)
v: [B, _, e] = {}
f32 {{ v = {} }}
v = einsum([a, b], [b, c] -> [a, c])({}, x)
v = f(x, {})
v = w({})
v = f.weight + {}
v = collect({})
""".strip().split("\n")
"""{} is the odd value."""
HEADERS = """
(d: int = {0})(x: [B, 8])
(d: int = 8 in {0})(x: [B, 8])
(d: int = 8 in 1..{0})(x: [B, 8])
(d: list[int] = {0} in each {{1, 2}})(x: [B, 8])
(d: block = {0})(x: [B, 8])
(d: "a" | "b" = {0})(x: [B, 8])
(d: list[int; 2] = {0})(x: [B, 8])
(d: (int, float)? = {0})(x: [B, 8])
()(x: [B, 8] in 0..{0})
(d: mask = {0})(x: [B, 8])
(d: init = {0})(x: [B, 8])
""".strip().split("\n")
ABOUT = (("d", "params == 0"), ("s.0", "params == {}"), ("s", "shape(y, B = {}) == [1, 8]"), ("d", "{}"))


def other_cases() -> list[str]:
    cases = [body(form.format(odd)) for form in STATEMENTS for odd in ODD]
    cases += [f"model M{h.format(odd)} -> y: [B, 8] {{ return x }}" for h in HEADERS for odd in ODD]
    model = "model M(d: int = 8, s: list[int] = [1, 2])(x: [B, d]) -> y: [B, d] { return x }\n"
    return cases + [f"{model}variant v {{ {a} = {odd} }}\nclaim v {{ {c.format(odd)} }}" for odd in ODD for a, c in ABOUT]


NAMES = sorted({*FUNCTIONS, *MASKS, *INITIALIZERS})


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_a_few_arguments_of_blocks(name: str):
    try_all(block_cases(name)[len(name) % 37 :: 37])


def test_a_few_values():
    for i, name in enumerate(NAMES):
        try_all(value_cases(name)[i % 41 :: 41])
    try_all(other_cases()[::11])


@pytest.mark.proof
@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_all_arguments_of_blocks(name: str):
    try_all(block_cases(name))


@pytest.mark.proof
@pytest.mark.parametrize("name", NAMES)
def test_all_values(name: str):
    try_all(value_cases(name))


@pytest.mark.proof
def test_all_places():
    try_all(other_cases())
