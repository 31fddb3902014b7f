"""The pages of the A01 codes: what `archdsl explain` prints."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES: dict[str, Code] = {
    "A0101": Code(
        "something is missing, or stands where it cannot",
        "The text does not follow the grammar at the marked place. The message says what was being written (a header, a `share`, an "
        "argument list) and what may "
        "stand there. When one sign or word would mend it, the help line names it.",
        "use std.linear { Linear }\n\nblock Twice()(x: [..., d]) -> [..., d] {\n  share f Linear(d)\n  return f(f(x))\n}\n",
        "use std.linear { Linear }\n\nblock Twice()(x: [..., d]) -> [..., d] {\n  share f = Linear(d)\n  return f(f(x))\n}\n",
    ),
    "A0102": Code(
        "a string without its end",
        "Strings stand in double quotes and end on the line where they start. "
        'Inside, `\\"` is a quote, `\\\\` a backslash, `\\n` a line break, `\\t` a tab.',
        'paper { title = "A title }\n',
        'paper { title = "A title" }\n',
    ),
    "A0103": Code(
        "an unknown escape in a string",
        'A backslash in a string starts one of the escapes `\\"`, `\\\\`, `\\n` and `\\t`. A backslash itself is written twice.',
        'paper { title = "the \\sigma trick" }\n',
        'paper { title = "the \\\\sigma trick" }\n',
    ),
    "A0104": Code(
        "a malformed number",
        "Numbers are whole (3, 10_000), with a point (0.5), with an exponent (1e-6), or with one of the suffixes k, M, G, T for 1e3 to 1e12 (30M). "
        "They are kept exactly, so those with more than 400 digits or an exponent beyond 400 are refused.",
        "fn f() -> int { return 12abc }\n",
        "fn f() -> int { return 12 }\n",
    ),
    "A0105": Code(
        "a text that is too large",
        "A file may have 10,000,000 characters and 250,000 words and signs. A specification is written by people or printed from a graph;"
        " more than that is most "
        "likely data, which belongs into tables that are bound on the command line.",
    ),
    "A0106": Code(
        "a text that nests too deeply",
        "Brackets and operators may nest to about a hundred levels, far beyond what can be read. Give the inner parts names.",
    ),
    "A0107": Code(
        "a sign that the language does not have",
        "Names have the letters a-z and A-Z, digits and `_`. `not` negates, `**` is a power, strings take double quotes. Every other "
        "letter may stand in strings and comments.",
        "block Scale()(x: [..., d]) -> [..., d] {\n  param γ: [d] = ones()\n  return x\n}\n",
        "block Scale()(x: [..., d]) -> [..., d] {\n  param gamma: [d] = ones()\n  return x * gamma\n}\n",
    ),
    "A0108": Code(
        "a misspelt word",
        "A name stands where a word of the language would let reading go on. The nearest word is proposed.",
        "block Same()(x: [..., d]) -> [..., d] {\n  retrun x\n}\n",
        "block Same()(x: [..., d]) -> [..., d] {\n  return x\n}\n",
    ),
    "A0109": Code(
        "a bracket that is not closed, or closes nothing",
        "Every `(`, `[` and `{` needs its partner. The message names what the bracket belongs to, the second place shows where it was opened.",
        "use std.linear { Linear }\n\nblock Wide()(x: [..., d]) -> [..., d] {\n  y = Linear(4 * d\n  return y(x)\n}\n",
        "use std.linear { Linear }\n\nblock Wide()(x: [..., d]) -> [..., d] {\n  y = Linear(4 * d)\n  return y(x)\n}\n",
    ),
    "A0110": Code(
        "a call or an index that does not touch",
        "Line breaks mean nothing in this language, so a `(` at the start of a line could silently become a call of what stands above it."
        " Hence a call or an index "
        "touches its callee, and a statement never starts with a bracket.",
        "block Same()(x: [..., d]) -> [..., d] {\n  return relu (x)\n}\n",
        "block Same()(x: [..., d]) -> [..., d] {\n  return relu(x)\n}\n",
    ),
    "A0111": Code(
        "chains mixed with other operators",
        "Chains of `|>`, `>>`, `&`, `|` and `??` take operands only: they mix neither with each other nor with arithmetic and "
        "comparisons. `x + y |> f` would be read "
        "in two ways by two readers. Parentheses say what is meant.",
        "block Sum()(x: [..., d], y: [..., d]) -> [..., d] {\n  return x + y |> relu\n}\n",
        "block Sum()(x: [..., d], y: [..., d]) -> [..., d] {\n  return (x + y) |> relu\n}\n",
    ),
    "A0112": Code(
        "comparisons in a row",
        "`a < b < c` is two comparisons in mathematics and something else in most languages. Write both and join them with `and`.",
        "fn inside(a: int, b: int) -> bool { return 0 < a < b }\n",
        "fn inside(a: int, b: int) -> bool { return 0 < a and a < b }\n",
    ),
    "A0113": Code(
        "a binding in a branch that gives values",
        "In `x = if c { … } else { … }` the branches are expressions. Bind the value where the whole expression stands, or write the "
        "statement `if c { x = … } else { x = … }`.",
        "fn pick(c: bool) -> int { return if c { y = 1 } else { 2 } }\n",
        "fn pick(c: bool) -> int { return if c { 1 } else { 2 } }\n",
    ),
    "A0114": Code(
        "a reserved word as a name",
        "The words `and or not in is as with if else match for true false none` are reserved everywhere. All other words of the language "
        "may serve as names.",
        "fn f(n: int) -> int {\n  is = n + 1\n  return is\n}\n",
        "fn f(n: int) -> int {\n  next_n = n + 1\n  return next_n\n}\n",
    ),
    "A0115": Code(
        "`=` where no name is bound",
        "`=` binds a name or gives an argument; `==` compares. There are no operators such as `+=`: write the name twice.",
        "fn f(n: int) -> int { return if n = 1 { 1 } else { 2 } }\n",
        "fn f(n: int) -> int { return if n == 1 { 1 } else { 2 } }\n",
    ),
    "A0116": Code(
        "a missing comma",
        "Items of argument lists, parameter lists, lists and shapes are separated by commas; a comma after the last one is welcome.",
        "fn f(n: int) -> int { return max(n 1) }\n",
        "fn f(n: int) -> int { return max(n, 1) }\n",
    ),
    "A0117": Code(
        "a statement that does not start with a word",
        "Every statement starts with the name that it binds or with a word such as `return` or `param`. An expression alone has no "
        "effect: bind it or return it. "
        "To keep the weights of something that is not read, bind it to `_`.",
        "block Same()(x: [..., d]) -> [..., d] {\n  relu(x)\n  return x\n}\n",
        "block Same()(x: [..., d]) -> [..., d] {\n  y = relu(x)\n  return y\n}\n",
    ),
}
