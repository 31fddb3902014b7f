"""What `archdsl explain` says of the words of the language: masks, initialisers, declarations, statements, operators."""
from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

MASKS = {
    "full": "every pair",
    "causal": "key ≤ query",
    "window(n)": "|query - key| < n: with `causal`, the last n keys",
    "causal_by(n)": "⌊key / n⌋ ≤ ⌊query / n⌋: causal between groups of n",
    "own_block(n, previous = 0)": "the query's own block of n positions, and `previous` blocks before it",
    "keys(valid)": "keys for which the bool tensor [B, S] holds",
    "equal_labels(x)": "pairs with the same label in the int tensor x: windows that were shifted, packed sequences",
}
INITIALS = {
    "zeros": "0",
    "ones": "1",
    "constant": "one number, or nested lists of the weight's shape",
    "eye": "1 where the first two indices are equal (in the middle of a kernel), else 0",
    "orthogonal": "orthonormal rows or columns of the matrix [first axis, the others], times gain",
    "uniform": "evenly between low and high",
    "normal": "a normal distribution",
    "trunc_normal": "a normal distribution cut off at ±cut (in absolute units)",
    "kaiming_uniform": "±√(6 / ((1 + a²) fan-in))",
    "kaiming_normal": "std √(2 / ((1 + a²) fan-in))",
    "xavier_uniform": "±gain √(6 / (fan-in + fan-out))",
    "xavier_normal": "std gain √(2 / (fan-in + fan-out))",
    "lecun_normal": "truncated, variance 1 / fan-in",
}
# word: (an example, what it means)
WORDS = {
    # declarations
    "use": ("use std.norm { LayerNorm as Norm }",
        "Names from another module: one of the library, or a file beside the spec (`parts.gates` is parts/gates.arch). Without "
        "braces, `use std.norm` makes `norm.LayerNorm` available. `std` alone is the whole library: `use std { LayerNorm, Linear }`."),
    "paper": ('paper { title = "…", arxiv = "…", domain = "vision" }', "Where the model comes from; `archdsl list` shows it."),
    "record": ("record Stage { width: int, depth: int = 2 }", "A named bundle of hyper values; `Stage(64)` makes one, `s.width` reads it."),
    "fn": ("fn half(n: int) -> int { return n // 2 }", "A function of hyper values, evaluated when the model is built."),
    "block": ("block Up(hidden: int)(x: [..., d]) -> [..., d] { … }",
        "Tensors in, tensors out, with weights of its own at each application. The first list holds hyper values, the second "
        "tensors. `block(y) => …` is one without a name."),
    "wrap": ("wrap block Pre(norm: block, _ f: block)(x: [..., d]) -> [..., d] { … }",
        "A block around another one, which adds no segment to the addresses of weights unless it is named with `as`."),
    "extern": ("extern block Scan(n: int)(x: [B, T, d]) -> [B, T, d]",
        'A block whose body is a PyTorch module of yours: `build(bind = {"Scan": …})`. `extern OP(…) -> …` calls an op of '
        "another library."),
    "model": ("model Net(d: int = 64)(x: [B = 1, T = 16, d]) -> y: [B, T, d] { … }",
        "A block that can be built. Its hyper arguments are knobs with the paper's values as defaults; capitals are sizes that "
        "vary at run time."),
    "entry": ("entry encode(x: [B, d]) -> z: [B, code] { … }",
        "One of several functions of a model over the same weights; `archdsl.tie` gives built entries one set of them."),
    "stream": ("model Net(…)(x: [B, T, d]) -> y: [B, T, d] stream T { … }", "Says which axis is time."),
    "variant": ("variant large of Net { d = 256, layers.*.mixer = mlp }",
        "Named settings of knobs, by address. `of` names the model or another variant to start from; without it, the first "
        "model of the file."),
    "transform": ("variant folded { transform fold_batch_norm() }",
        "A pass that rewrites the model of this variant. `archdsl passes` lists them."),
    "claim": ("claim large { params == 86M within 1%; causal(logits, tokens) }",
        "What was published of a model or variant, or must hold. `check` reads it, `verify` checks it."),
    "within": ("claim { macs == 1.02k within 1% }", "The deviation that a claim allows, relative or absolute."),
    "space": ("space small of Net { params <= 30k; count(mixer == attention) <= 1 }", "Limits for a search, beside the domains of knobs."),
    "names": ('names timm of Net { "blocks.{i}.norm1.*" <-> layers.{i}.norm.* }',
        "The names that others give to the weights, in both directions. `concat`, `stack`, `transpose`, `rearrange`, `add` and "
        "`scale` change tensors; `alias`, `drop` and `ignore` say what only one side has."),
    # statements and what stands in them
    "param": ("param shift as bias: [out] = zeros() when bias",
        "A weight that is trained. `as` gives it another saved name, `when` makes it a choice."),
    "frozen": ("frozen param w: [d] = ones()", "A weight without a gradient."),
    "buffer": ("buffer mean as running_mean: [d] = zeros()", "Saved and not trained. `update` gives it a new value in training."),
    "update": ("update mean = 0.9 * mean + 0.1 * stop(m)", "A buffer's value after this forward pass in training; readers see the old one."),
    "const": ("const c: [2] = [0.5, 2]", "A tensor that is computed and not saved. It is never random."),
    "share": ("share f = Linear(d)",
        "One set of weights for all applications of f; otherwise each application owns fresh ones. `share g of f = T` is "
        "another block with the weights of f, `when c` makes sharing a choice."),
    "default": ("default Linear(bias = false)",
        "An argument of every application of that block below, in this body and in the blocks it applies. What is written at "
        "the application wins."),
    "require": ('require d % heads == 0, "d ({d}) must be a multiple of heads ({heads})"',
        "What must hold. Of run-time sizes, the built model checks it on every call, and proofs may use it."),
    "as": ("x = Linear(64)(x) as up",
        "The name of an application in the addresses of weights (`up.weight`), or of an import. `as _` adds no segment."),
    "for": ("layers: for i in range(depth) { x = MLP(2 * d)(x) as mlp }",
        "A loop over a list, range or string. The label and the number of the pass name its weights: `layers.0.mlp`. A name "
        "bound before the loop carries its value from pass to pass."),
    "if": ("y = if bias { f(x) } else { x }",
        "A choice made when the model is built, as a statement or an expression. `where` chooses between tensors."),
    "match": ('x = match style { "pre" => f(x); _ => x }', "A choice among several cases, made when the model is built."),
    "choose": ("choose mixer { attention(heads: int = 4) => Attention(heads); nothing => identity } = attention",
        "A knob with blocks for values, each arm with knobs of its own. Set by address: `layers.0.mixer = nothing`."),
    "phase": ("y = phase { train => dropout(x, 0.1); eval => x }", "Two bodies, for `model.train()` and for `model.eval()`."),
    "draw": ("draw noise: [B, T, d] = normal(std = 0.1)", "A random tensor, new in each forward pass."),
    "emit": ("emit hidden = x",
        'Offers a tensor under the address at which it stands; `build(emit = ["layers.*.hidden"])` returns it beside the '
        "outputs."),
    "collect": ("sum(collect(balance))", "The list of what applications above emitted under that name in this body."),
    "static": ("static H, W", "Sizes of inputs that are fixed when the model is built."),
    "under": ("x |> under([B, (n w), d] -> [B, n, (w d)], Linear(4 * d) as mix, w = 4)",
        "Applies a block in another layout, and undoes the layout."),
    "return": ("return x, aux = loss", "The results of a body, by position or by name."),
    "in": ("heads: int = 4 in {2, 4, 8}", "What a search may try for a knob: a set, a range, a list, `each` for the items of a list."),
    "each": ("depths: list[int] = [2, 2] in each 1..6", "A domain for every item of a list; `each [D1, D2]` for each its own."),
    "f32": ("f32 { rate = 1 / sqrt(mean(x * x) + eps) }", "Floats are float32 or wider inside the braces, whatever the model's type."),
    "scan": ("scan x over T carry s: f32[B, d] = zeros() { new = 0.9 * s + x; next s = new; yield new }",
        "A recurrence along an axis, the last statement of a block: `carry` says what goes from position to position, `next` what the next "
        "one finds, `yield` what each gives. What it carries is the state of its forms."),
    "next": ("next s = new", "In a `scan`, what the next position finds under the name of a carried value."),
    "yield": ("yield new", "In a `scan`, what a position gives; the results of all are stacked."),
    # reserved
    "control": ("control temperature: float = 1", "A value given when the model runs. Reserved: not built yet (A0218)."),
    "op": ("op double(x: [B, d]) -> [B, d] { return x + x }", "An op of the file's own. Reserved: not built yet (A0218)."),
}


def arguments(f: Callable[..., Any]) -> str:
    """Parameters of a function of hyper values as they are written in the language."""
    out: list[str] = []
    for p in inspect.signature(f).parameters.values():
        default = "" if p.default is p.empty else f" = {str(p.default).lower()}"
        out.append(f"{p.name}, …" if p.kind is p.VAR_POSITIONAL else p.name + default)
    return ", ".join(out)


def initial(name: str) -> str:
    """An initialiser with its arguments: `uniform(low = 0, high = 1)`."""
    from archdsl.ops.initializers import INITIALIZERS, REQUIRED

    return f"{name}({', '.join(k if v is REQUIRED else f'{k} = {v:g}' for k, v in INITIALIZERS[name].items())})"
