"""The pages of the A07 codes. They are warnings: a spec with them is right, and `check` ends with 0."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

SILENT = (
    "`# allow {code}` behind the line silences this, on a line of its own in front of it too; in front of all declarations it holds for the file. "
    "`archdsl check --no-lints` says nothing of this kind."
)


def _page(code: str, title: str, text: str, bad: str, good: str) -> Code:
    return Code(title, f"{text}\n\n{SILENT.format(code=code)}", bad, good)


CODES = {
    "A0701": _page(
        "A0701", "an import that is not used",
        "The file never reads the name. `archdsl check --fix` takes it out.",
        "use std.linear { Linear }\nuse std.norm { LayerNorm, RMSNorm }\n\n"
        "block Map(out: int)(x: [..., d]) -> [..., out] {\n  return x |> RMSNorm() as norm |> Linear(out) as map\n}\n",
        "use std.linear { Linear }\nuse std.norm { RMSNorm }\n\n"
        "block Map(out: int)(x: [..., d]) -> [..., out] {\n  return x |> RMSNorm() as norm |> Linear(out) as map\n}\n",
    ),
    "A0702": _page(
        "A0702", "a value that is never read",
        "Nothing depends on the value. If it has weights, they are counted and stored, and never trained. Often another name was meant further down. "
        "A value that is read for its own next value alone, in a loop or carried by a `scan`, is a value for nothing too.",
        "block Twice()(x: [..., d]) -> [..., d] {\n  y = x * 2\n  return x\n}\n",
        "block Twice()(x: [..., d]) -> [..., d] {\n  y = x * 2\n  return y\n}\n",
    ),
    "A0703": _page(
        "A0703", "an argument that is never used",
        "The block, function or op gives the same whatever this argument is. A name that starts with `_` says that this is meant.",
        "block Scale(factor: float, bias: float = 0)(x: [..., d]) -> [..., d] {\n  return x * factor\n}\n",
        "block Scale(factor: float, bias: float = 0)(x: [..., d]) -> [..., d] {\n  return x * factor + bias\n}\n",
    ),
    "A0704": _page(
        "A0704", "a knob that is never used",
        "A search over this argument of the model would try the same network again and again. So it would over a `choose` that nothing applies, an "
        "arm that is written as an earlier one, and an argument of an arm that the arm does not read.",
        "use std.linear { Linear }\n\nmodel Net(d: int = 8, depth: int = 2 in 1..4)(x: [B, d]) -> y: [B, d] {\n  return Linear(d)(x) as map\n}\n",
        "use std.linear { Linear }\n\nmodel Net(d: int = 8, depth: int = 2 in 1..4)(x: [B, d]) -> y: [B, d] {\n"
        "  layers: for i in range(depth) { x = Linear(d)(x) as map }\n  return x\n}\n",
    ),
    "A0705": _page(
        "A0705", "a name that hides another one",
        "A value takes the name of a declaration or an import of this file, or a loop takes the name of the loop around it. The other one cannot be "
        "reached there, and a reader takes one for the other.",
        "fn half(n: int) -> int { return n // 2 }\n\nblock Net(d: int)(x: [B, d]) -> [B, d] {\n  half = x * half(d)\n  return half\n}\n",
        "fn half(n: int) -> int { return n // 2 }\n\nblock Net(d: int)(x: [B, d]) -> [B, d] {\n  y = x * half(d)\n  return y\n}\n",
    ),
    "A0706": _page(
        "A0706", "a branch that is never taken",
        "Its condition is the same for all arguments, an earlier branch takes every case, or a `require` always holds.",
        "block Act(square: bool)(x: [..., d]) -> [..., d] {\n"
        "  if square { return x * x } else if square { return relu(x) } else { return x }\n}\n",
        "block Act(square: bool)(x: [..., d]) -> [..., d] {\n  if square { return x * x } else { return relu(x) }\n}\n",
    ),
    "A0707": _page(
        "A0707", "a claim that cannot fail",
        "Every model fulfils it, so it says nothing about this one; or its `when` never holds, and it is never asked.",
        "use std.linear { Linear }\n\nmodel Net(d: int = 8)(x: [B, d]) -> y: [B, d] {\n  return Linear(d)(x) as map\n}\n\nclaim { params >= 0 }\n",
        "use std.linear { Linear }\n\nmodel Net(d: int = 8)(x: [B, d]) -> y: [B, d] {\n  return Linear(d)(x) as map\n}\n\nclaim { params == 72 }\n",
    ),
    "A0708": _page(
        "A0708", "an arm that does not fit",
        "With this arm in the place of the default, all else at the defaults, the model cannot be built: types or shapes do not fit. A search leaves "
        "out what cannot be built and never tries the arm. Rules on numbers (`require`, divisions) are not told: they limit a space. Nor are choices "
        "that are there with other settings alone.",
        "use std.linear { Linear }\n\nmodel Net(d: int = 8)(x: [B, d]) -> y: [B, d] {\n"
        "  choose f { narrow => Linear(d)  wide => Linear(2 * d) } = narrow\n  return x + f(x) as g\n}\n",
        "use std.linear { Linear }\n\nmodel Net(d: int = 8)(x: [B, d]) -> y: [B, d] {\n"
        "  choose f { narrow => Linear(d)  wide => block(y) => y |> Linear(2 * d) as up |> Linear(d) as down } = narrow\n  return x + f(x) as g\n}\n",
    ),
}
