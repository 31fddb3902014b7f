"""The pages of the codes A03: shapes and sizes."""

from __future__ import annotations

from archdsl.diagnostics.codes import Code

_USE = "use std.linear { Linear }\nuse std.mixer { Attention }\nuse std.vision { Conv }\n\n"


def _map(body: str, header: str = "") -> str:
    header = header or "(image: [B, 3, H, W]) -> [B, _, _, _]"
    lines = "\n".join("  " + line for line in body.strip("\n").split("\n"))
    return f"{_USE}model Net(d: int = 8){header} {{\n{lines}\n}}\n"


CODES: dict[str, Code] = {
    "A0301": Code(
        "a shape that does not fit",
        "A declared shape is a pattern: names bind at their first occurrence and must agree at the others, numbers must be equal, `...` stands for "
        "any number of axes. The message says which size was expected and where the tensor came from.",
        bad=_map("return Pair()(x, concat([x, x], axis = -1))", "(x: [B, d]) -> [B, d]").replace(
            "model", "block Pair()(a: [B, c], b: [B, c]) -> [B, c] { return a + b }\n\nmodel"
        ),
        good=_map("return Pair()(x, x * 2)", "(x: [B, d]) -> [B, d]").replace(
            "model", "block Pair()(a: [B, c], b: [B, c]) -> [B, c] { return a + b }\n\nmodel"
        ),
    ),
    "A0302": Code(
        "sizes that cannot be shown to be equal",
        "A size that varies at run time is a symbol. Two of them are taken as equal when that follows for all values, from the expressions and from "
        "the `require`s above. Otherwise the message gives values for which they differ; if your inputs exclude those, add the `require`: "
        "it becomes a "
        "condition of the model, checked at each call.",
        bad=_map("return Pair()(x, y)", "(x: [B, T], y: [B, S]) -> [B, T]").replace(
            "model", "block Pair()(a: [B, n], b: [B, n]) -> [B, n] { return a + b }\n\nmodel"
        ),
        good=_map("require T == S\nreturn Pair()(x, y)", "(x: [B, T], y: [B, S]) -> [B, T]").replace(
            "model", "block Pair()(a: [B, n], b: [B, n]) -> [B, n] { return a + b }\n\nmodel"
        ),
    ),
    "A0303": Code(
        "a division that is not exact",
        "`/` on whole numbers is exact or an error, so that no width is rounded silently. `floordiv` and `ceildiv` say which way to round; "
        "`float(a) / b` "
        "is a fraction. A run-time size is divisible when a `require` says so.",
        bad=_map("return x |> Attention(heads = 3)", "(x: [B, T, d]) -> [B, T, d]"),
        good=_map("return x |> Attention(heads = 4)", "(x: [B, T, d]) -> [B, T, d]"),
    ),
    "A0304": Code(
        "operands that do not fit an op",
        "The shapes (or the options) of an op's operands do not go together. `archdsl explain OP` shows its signature.",
        bad=_map('w = iota(5)\nreturn x + cast(w, "float")', "(x: [B, d]) -> [B, d]"),
        good=_map('w = iota(8)\nreturn x + cast(w, "float")', "(x: [B, d]) -> [B, d]"),
    ),
    "A0305": Code(
        "a result of another shape than declared",
        "What `return` gives is held against the header. `_` in the header stands for a size that follows from the body.",
        bad=_map("return Linear(2 * d)(x)", "(x: [B, d]) -> [B, d]"),
        good=_map("return Linear(2 * d)(x)", "(x: [B, d]) -> [B, 2 * d]"),
    ),
    "A0306": Code(
        "a weight whose size varies at run time",
        "Weights are fixed when the model is built, so their sizes are hyper values. A table of positions has the length of a hyper argument, with a "
        "`require` for the inputs that fit.",
        bad=_map("param table: [T, d] = zeros()\nreturn x + table", "(x: [B, T, d]) -> [B, T, d]"),
        good=_map("param table: [length, d] = zeros()\nrequire T == length\nreturn x + table", "(x: [B, T, d]) -> [B, T, d]").replace(
            "d: int = 8", "d: int = 8, length: int = 16"
        ),
    ),
    "A0307": Code(
        "another kind of number",
        "`[…]` holds the model's floats, `int[…]` whole numbers, `bool[…]` truth values; `f32[…]` is a float that stays wide. Token indices become "
        "vectors by an embedding; `cast` converts.",
        bad=_map("return Linear(d)(x)", "(x: int[B, d]) -> [B, d]"),
        good=_map('return Linear(d)(cast(x, "float"))', "(x: int[B, d]) -> [B, d]"),
    ),
    "A0308": Code(
        "a layout that does not fit",
        "In `rearrange([B, T, (heads w)] -> [B, heads, T, w])` the names in scope are sizes; one new name in each product is solved. Both "
        "sides hold the "
        "same axes: `reduce(…, mean)` removes some, `under(…, f)` goes there and comes back. An index or slice that has more parts than "
        "the tensor has "
        "axes is reported here too.",
        bad=_map("return image |> rearrange([B, c, Y, X] -> [B, c, (Y X), new])", "(image: [B, 3, H, W]) -> [B, _, _]"),
        good=_map("return image |> rearrange([B, c, Y, X] -> [B, c, (Y X)])", "(image: [B, 3, H, W]) -> [B, _, _]"),
    ),
    "A0309": Code(
        "a size that nothing binds",
        "Every size in a header follows from something: a lower-case name is a hyper argument or an axis of an input of a block, an "
        "UPPER-CASE name an axis "
        "that varies at run time. One that stands in the results alone says nothing.",
        bad=_map("return x", "(x: [B, d]) -> [B, e]"),
        good=_map("return x", "(x: [B, d]) -> [B, d]"),
    ),
    "A0310": Code(
        "a requirement that does not hold",
        '`require CONDITION, "message"` states what a block or a model needs. For hyper values it is decided when the model is built; a condition on '
        "run-time sizes is checked at each call. `range(n)` and repetitions, `[x] * n`, "
        "require that n is not negative.",
        bad=_map('require d % 3 == 0, "the width ({d}) must be a multiple of 3"\nreturn x', "(x: [B, d]) -> [B, d]"),
        good=_map('require d % 4 == 0, "the width ({d}) must be a multiple of 4"\nreturn x', "(x: [B, d]) -> [B, d]"),
    ),
}
