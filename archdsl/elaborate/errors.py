"""The pages of the codes A02: names, types, addresses. Those of A03, shapes and sizes, are in `shape_errors`."""

from __future__ import annotations

from archdsl.diagnostics.codes import Code
from archdsl.elaborate.model import OF_PYTHON
from archdsl.elaborate.shape_errors import CODES as SHAPES

_USE = "use std.linear { Linear }\nuse std.norm { LayerNorm }\nuse std.residual { Pre }\n\n"


def _net(body: str, params: str = "d: int = 8", use: str = _USE) -> str:
    """A module with one small model around these statements."""
    lines = "\n".join("  " + line for line in body.strip("\n").split("\n"))
    return f"{use}model Net({params})(x: [B, d]) -> [B, d] {{\n{lines}\n}}\n"


NAMES: dict[str, Code] = {
    "A0201": Code(
        "a name that means nothing here",
        "A name is a variable of the body, a hyper argument or a size of the header, a declaration of the file, an import, or a word of the "
        "language (`archdsl ops` lists the ops). A variable exists from its binding on: loop variables, and variables first bound inside a loop, "
        "end with the loop. Blocks of the library are imported by `use`. Every body is read, dead branches and blocks that nothing applies "
        "included.\n\n"
        "The same code is given for a field that a record does not have.",
        bad=_net("x = Linaer(d)(x)\nreturn y"),
        good=_net("y = Linear(d)(x)\nreturn y"),
    ),
    "A0202": Code(
        "an argument that the header does not have",
        "Arguments are given by position or by the names in the header. A block has two lists: the first takes what configures it, the second "
        "the tensors. A header with `...` passes further arguments on to the blocks that it wraps.",
        bad=_net("return Linear(d, bais = false)(x)"),
        good=_net("return Linear(d, bias = false)(x)"),
    ),
    "A0203": Code(
        "a missing argument",
        "An argument without a default in the header must be given, directly or by a `default` in force. Every hyper argument of a model has a "
        "default: the paper's value, so that each spec means one model as it stands. A block is completed by its first list before it is applied, "
        "even when that list is empty: `LayerNorm()`.",
        bad=_net("x = x |> LayerNorm\nreturn Linear(bias = false)(x)"),
        good=_net("x = x |> LayerNorm()\nreturn Linear(d, bias = false)(x)"),
    ),
    "A0204": Code(
        "a value of another type",
        'Hyper arguments have types: `int`, `float`, `bool`, `str`, `"pre" | "post"`, lists, records, `block`, `mask`, `init`. `x?` may also be '
        "`none`. Where a tensor is expected, a number stands for a tensor without axes; a hyper argument takes no tensor, because hyper values are "
        "fixed when the model is built.",
        bad=_net('return LayerNorm(eps = "small")(x)'),
        good=_net("return LayerNorm(eps = 1e-6)(x)"),
    ),
    "A0205": Code(
        "too many arguments, or one given twice",
        "Positional arguments fill the header from the left; named ones follow them, each once. Tensors stand in the second list: "
        "`Linear(64)(x)`, not `Linear(64, x)`.",
        bad=_net("return Linear(d)(x, x)"),
        good=_net("return Linear(d)(x + x)"),
    ),
    "A0206": Code(
        "something that cannot be applied",
        "Blocks, ops, functions and layout words can be applied; numbers, tensors and strings cannot. `x |> f` applies f to x; `f >> g` joins two "
        "blocks into one.",
        bad=_net("scale = 2\nreturn x |> scale"),
        good=_net("scale = 2\nreturn x * scale"),
    ),
    "A0207": Code(
        "an import that does not exist",
        "`use std.norm { LayerNorm }` imports from the library, `use llama { Llama }` from the file `llama.arch` beside the spec. Nothing else is "
        "read: a module name has no path in it.",
        bad="use std.nrom { LayerNorm }\n\nmodel Net(d: int = 8)(x: [B, d]) -> [B, d] { return LayerNorm()(x) }",
        good="use std.norm { LayerNorm }\n\nmodel Net(d: int = 8)(x: [B, d]) -> [B, d] { return LayerNorm()(x) }",
    ),
    "A0208": Code(
        "a name bound twice",
        "In one file a name is declared or imported once; in one header it occurs once. A hyper argument or a run-time size keeps its meaning "
        "throughout the body. Tensor variables may be bound again: `x = f(x)`.",
        bad=_net("d = 4\nreturn x"),
        good=_net("half = d / 2\nreturn x * half"),
    ),
    "A0209": Code(
        "`as` on something without weights",
        "`as NAME` gives the application to its left its segment in the addresses of weights, or names a block that is an argument. Ops, numbers and "
        "tensors own nothing that an address could reach.",
        bad=_net("return gelu(x) as act"),
        good=_net("return Linear(d)(gelu(x)) as act"),
    ),
    "A0210": Code(
        "an address that torch.nn.Module uses itself",
        "Addresses become attributes of the lowered modules. A name such as `type`, `train` or `forward` would hide what the module needs, "
        "one with `__` in front may hide what Python needs, and one such as `lambda` or `return` is a word of Python, which no attribute can be "
        "called.",
        bad=_net("return Linear(d)(x) as type"),
        good=_net("return Linear(d)(x) as kind"),
    ),
    "A0211": Code(
        "two owners at one address",
        "Every application of a block owns its weights, at an address made of the loop's label and index, then its `as` name, or else the block's "
        "name in snake case. Addresses are written, never numbered behind your back: `as` tells two applications apart, a label on the "
        "loop tells its "
        "passes apart, and `share f = …` makes one set for all.",
        bad=_net("x = Linear(d)(x)\nreturn Linear(d)(x)"),
        good=_net("x = Linear(d)(x) as up\nreturn Linear(d)(x) as down"),
    ),
    "A0212": Code(
        "weights inside a loop without a label",
        "Each pass of a loop owns its weights. The label is the segment before their index: `layers: for …` gives `layers.0.…`.",
        bad=_net("for i in range(3) { x = Linear(d)(x) }\nreturn x"),
        good=_net("layers: for i in range(3) { x = Linear(d)(x) }\nreturn x"),
    ),
    "A0213": Code(
        "a shared block that does not fit",
        "`share f = Block(…)` makes one set of weights. All applications need the same weights, so their inputs have the same widths, and so do "
        "those of another block that has them, `share g of f = …`. A weight is read as `f.weight`, after `f` has been applied.",
        bad=_net("share f = Linear(d)\ny = f(concat([x, x], axis = -1))\nreturn f(x) + y"),
        good=_net("share f = Linear(d)\ny = f(x * 2)\nreturn f(x) + y"),
    ),
    "A0214": Code(
        "a default that reaches nothing",
        "`default Block(argument = value)` holds for the applications below it in the same body, and for the templates that are completed there, "
        "library blocks included. An explicit argument wins over it. One that nothing takes up is a mistake or a leftover.",
        bad=_net("default LayerNorm(eps = 1e-6)\nreturn Linear(d)(x)"),
        good=_net("default LayerNorm(eps = 1e-6)\nreturn Linear(d)(LayerNorm()(x))"),
    ),
    "A0215": Code(
        "a setting of nothing",
        "`--set`, Python keywords and variants set hyper arguments of the model, and knobs inside it by address: `layers.*.mixer = pooling`, "
        "`layers.{0, 1}.kernel = 5`, `depths.2 = 9`. A hyper argument of a block inside is a knob when its header gives it a domain.",
        bad=_net("return Linear(d)(x)") + "\nvariant wide { width = 16 }",
        good=_net("return Linear(d)(x)") + "\nvariant wide { d = 16 }",
    ),
    "A0216": Code(
        "modules that import each other in a circle",
        "`use` reads the other file first, so the files must have an order. Move what both need into a third file.",
        bad="use example { Net }\n\nmodel Net(d: int = 8)(x: [B, d]) -> [B, d] { return x }",
        good="model Net(d: int = 8)(x: [B, d]) -> [B, d] { return x }",
    ),
    "A0218": Code(
        "part of the language, not built yet",
        "The word is reserved and its meaning is settled, but this version cannot lower it: `scan … by`, `control`, bounded axes, "
        "`T with { … }`, layouts as values, `bank`.",
        bad=_net("control tau: float = 1\nreturn x * tau"),
        good=_net("return x * tau", "d: int = 8, tau: float = 1"),
    ),
    "A0219": Code(
        "emitted values that do not fit",
        "`emit name = tensor` puts a tensor at an address beside the outputs, once for each address. `collect(name)` lists what the calls "
        "above it in "
        "this body emitted under that name.",
        bad=_net("emit size = d\nreturn x"),
        good=_net("emit hidden = x * 2\nreturn x"),
    ),
    "A0220": Code(
        "results that differ from the header",
        "A body ends with `return`, and gives as many tensors as the header declares.",
        bad="block Split()(x: [B, d]) -> [B, d] {\n  a = x * 2\n}",
        good="block Split()(x: [B, d]) -> [B, d] {\n  a = x * 2\n  return a\n}",
    ),
    "A0221": Code(
        "a number that is out of range",
        "An index beyond a list, a division by zero, a step that is not positive, a root of a negative number.",
        bad=_net("widths = [8, 16]\nreturn Linear(widths[2])(x)"),
        good=_net("widths = [8, 16]\nreturn Linear(widths[0])(x)"),
    ),
    "A0222": Code(
        "a condition that cannot be decided at build",
        "`if`, `match` and `require … or …` are decided when the model is built, from hyper values alone. A size that varies at run time "
        "is not known "
        "then: state it as a `require`, or fix it. A choice that depends on data is `where(condition, a, b)`. There is no truthiness: an optional is "
        "asked by `x is some`.",
        bad=_net("return if B > 4 { x } else { x * 2 }"),
        good=_net("return if d > 4 { x } else { x * 2 }"),
    ),
    "A0223": Code(
        "a match without a fitting arm",
        "The arms of a `match` are tried in order: strings, numbers, `true`, `false`, `none`, `some`, and `_` for the rest.",
        bad=_net('return match style {\n  "pre" => x\n  "post" => x * 2\n}', 'd: int = 8, style: str = "peri"'),
        good=_net('return match style {\n  "pre" => x\n  _ => x * 2\n}', 'd: int = 8, style: str = "peri"'),
    ),
    "A0224": Code(
        "a choice without that arm",
        "`choose name { arm => Block(…)  other => … } = arm` makes a knob; a setting names one of its arms, with arguments where the arm has some: "
        "`mixer = conv(kernel = 5)`.",
        bad=_net("choose f { wide => Linear(d)  skip => identity } = none_of_them\nreturn f(x)"),
        good=_net("choose f { wide => Linear(d)  skip => identity } = skip\nreturn f(x)"),
    ),
    "A0225": Code(
        "names and values that do not pair",
        "`a, b = f(x)` needs exactly two results; `for i, (c, n) in enumerate(zip(…))` needs items of that form.",
        bad=_net("a, b, c = split(x, [4, 4], axis = -1)\nreturn x"),
        good=_net("a, b = split(x, [4, 4], axis = -1)\nreturn x"),
    ),
    "A0226": Code(
        "a block or function that reaches itself",
        "Neither blocks nor functions recur, directly or through others: so every spec ends, whoever wrote it. Depth is a loop over a hyper value.",
        bad="fn power(base: int, n: int) -> int { return if n == 0 { 1 } else { base * power(base, n - 1) } }",
        good="fn power(base: int, n: int) -> int {\n  y = 1\n  for i in range(n) { y = y * base }\n  return y\n}",
    ),
    "A0227": Code(
        "arms of `phase` that do not fit together",
        "`phase { train => …  eval => … }` has both arms, and both give tensors of the same types: `.train()` and `.eval()` switch between them. "
        "Arms, like the body of a `scan`, neither update buffers nor apply extern blocks.",
        bad=_net("return phase { train => x  eval => concat([x, x], axis = -1) }"),
        good=_net("return phase { train => x  eval => x * 2 }"),
    ),
    "A0228": Code(
        "an entry out of place",
        "A model has either inputs of its own, or entries: functions over the same weights, `entry encode(x: …) -> … { … }`, directly in its body.",
        bad="model Net(d: int = 8)(x: [B, d]) -> [B, d] {\n  entry twice(x: [B, d]) -> [B, d] { return 2 * x }\n  return x\n}",
        good="model Net(d: int = 8) {\n  entry once(x: [B, d]) -> [B, d] { return x }\n  entry twice(x: [B, d]) -> [B, d] { return 2 * x }\n}",
    ),
    "A0229": Code(
        "this op of torch may not be used",
        "`extern aten.x(…) -> types` runs an op of torch that has no counterpart here, as captured models need it. Only pure functions of tensors "
        "and numbers are on the list: aten also has ops that read files, draw numbers or change their operands.",
        bad=_net("y = extern aten.from_file(x) -> [B, d]\n  return y"),
        good=_net("y = extern aten.atan(x) -> [B, d]\n  return y"),
    ),
    "A0230": Code(
        "statements behind `return`",
        "A body ends where it returns. What stands behind it is never evaluated, so it is most likely a mistake.",
        bad=_net("return x\nx = relu(x)"),
        good=_net("x = relu(x)\nreturn x"),
    ),
    "A0231": Code(
        "a knob with a name that Python's functions use",
        f"Knobs are set as arguments of `spec.build(…)` and `spec.cost(…)`, beside {', '.join(f'`{name}`' for name in sorted(OF_PYTHON))}. "
        "A hyper argument of a model, or a choice, of such a name could not be told from those.",
        bad="model Net(d: int = 8, seed: int = 0)(x: [B, d]) -> [B, d] { return seed * x }",
        good="model Net(d: int = 8, hash_seed: int = 0)(x: [B, d]) -> [B, d] { return hash_seed * x }",
    ),
}

CODES: dict[str, Code] = {**NAMES, **SHAPES}
