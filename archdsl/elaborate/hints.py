"""Nearest names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from archdsl.diagnostics.distance import distance
from archdsl.diagnostics.model import Fix
from archdsl.source import Span

TORCH = {
    "dim": ("axis", "axes"), "dims": ("axes", "axis"), "keepdim": ("keep",), "p": ("rate",), "kernel_size": ("kernel", "size"), "padding": ("pad",),
    "output_padding": ("output_pad",), "negative_slope": ("slope",), "num_heads": ("heads",), "num_groups": ("groups",),
    "d_state": ("state",), "d_conv": ("kernel",), "out_features": ("out",), "out_channels": ("out",), "min": ("low",), "max": ("high",),
    "split_size_or_sections": ("sizes",),
    **dict.fromkeys(("rope", "rotary", "rotary_emb", "pos_emb", "pos_embed", "positional_encoding"), ("positions",)), "attn_mask": ("mask", "also"),
    **dict.fromkeys(("n_heads", "n_head", "num_attention_heads"), ("heads",)), **dict.fromkeys(("num_kv_heads", "n_kv_heads"), ("kv_heads",)),
    "embedding_dim": ("d",), "num_embeddings": ("vocab",), "dim_feedforward": ("hidden",), "nhead": ("heads",), "dropout_p": ("rate",),
    "Embedding": ("TokenEmbedding",), **dict.fromkeys(("MultiheadAttention", "MultiHeadAttention", "SelfAttention"), ("Attention",)),
    **{f"{name}{n}d": (name,) for name in ("Conv", "BatchNorm") for n in (1, 2, 3)}, "FeedForward": ("MLP",), "FFN": ("MLP",), "GELU": ("gelu",),
    "ReLU": ("relu",), "SiLU": ("silu",), "Sigmoid": ("sigmoid",), "Tanh": ("tanh",), "Softmax": ("softmax",),
}
"""What an argument, a function or a module is called in torch, and in code for it -> here."""

_AXES = "`rearrange([B, T, (heads w)] -> [B, heads, T, w], heads = heads)` names the axes and says where they go"
_NO_MODULE = "ops and blocks have no module in front: `silu(x)`, `Linear(d)(x)`"
_SIZES = "the header names the sizes of a tensor: `x: [B, T, d]`"
_SELF = "a body has no `self`: blocks and tensors are called by the names that they are bound to"
_NOTHING = "leave it out: a spec says what is computed, Python how"
_TRIANGLE = "masks are values: `mask = causal`, `causal & window(64)`"
_RANDOM = "`draw name: [sizes] = normal()` is a random tensor, `param w: [d] = normal(std = 0.02)` a weight"
_CAST = "`cast(x, \"f32\")` converts, `f32 { … }` computes a part in float32, `build(dtype = …)` chooses the type of the model"
INFERRED = frozenset(("in_features", "in_channels", "input_size", "embed_dim", "num_features", "normalized_shape", "in_dim"))
"""Arguments of torch that say what follows from the input here."""
NEEDLESS = {
    **dict.fromkeys(("inplace",), "every op gives a new tensor"), "batch_first": "the header names the axes of a tensor: `x: [B, T, d]`",
    **dict.fromkeys(("device", "requires_grad", "need_weights"), "leave it out: a spec says what is computed, Python how"),
    "dtype": "the header of a tensor says its element type, `build(dtype = …)` that of the model",
}
"""Arguments of torch that say nothing here, and why."""
MODULES = frozenset(("torch", "nn", "F", "np", "numpy", "jnp", "jax", "lax", "tf", "math", "functional", "self"))
"""Names in front of the dot of what has none here."""
FORMULAS = {
    "logsigmoid": "-softplus(-x)", "log_sigmoid": "-softplus(-x)", "softmin": "softmax(-x)", "softsign": "x / (1 + abs(x))",
    "tanhshrink": "x - tanh(x)", "mish": "x * tanh(softplus(x))",
    "hardtanh": "clamp(x, -1, 1)", "normalize": "x / clamp(sqrt(sum(x * x, axis = -1, keep = true)), low = 1e-12)",
    "pixel_shuffle": "rearrange(x, [B, (c p q), H, W] -> [B, c, (H p), (W q)], p = 2, q = 2)",
    "pixel_unshuffle": "rearrange(x, [B, c, (H p), (W q)] -> [B, (c p q), H, W], p = 2, q = 2)",
}
"""Functions of torch that are no op -> what gives the same of x."""
_LOSS = "a spec ends with the outputs: the loss is computed in Python"
WORDS: dict[str, tuple[str, str]] = {
    **{name: ("", f"write `{text}`") for name, text in FORMULAS.items()},
    **dict.fromkeys(("nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy",
                     "binary_cross_entropy_with_logits"), ("", _LOSS)),
    "glu": ("", "`a, b = split(x, 2)`, then `a * sigmoid(b)`"), "upsample": ("resize", ""), "hardshrink": ("", "`where(abs(x) > 0.5, x, 0)`"),
    "adaptive_avg_pool2d": ("", "`reduce([B, c, Y, X] -> [B, c], mean)` takes the mean over all places"),
    "None": ("none", ""), "True": ("true", ""), "False": ("false", ""),
    "cat": ("concat", ""), "concatenate": ("concat", ""), "bmm": ("matmul", "`x @ y` is the product of matrices"), "clip": ("clamp", ""),
    "mm": ("matmul", "`x @ y` is the product of matrices"), "swish": ("silu", ""), "index_select": ("take", ""), "arange": ("iota", ""),
    "chunk": ("split", "`split(x, 2, axis = -1)` gives equal parts"), "std": ("", "`sqrt(var(x, axis = -1))`"),
    **dict.fromkeys(("tile", "repeat"), ("", "`concat([x, x], axis = -1)` repeats a tensor along an axis")),
    "amax": ("max", ""), "amin": ("min", ""), "broadcast_to": ("expand", ""), "interpolate": ("resize", ""),
    "scaled_dot_product_attention": ("attention", ""), "masked_fill": ("where", "`where(condition, a, b)`"),
    **dict.fromkeys(("permute", "transpose", "reshape", "view", "unflatten", "swapaxes", "movedim"), ("", _AXES)),
    "flatten": ("", "`rearrange([B, c, H, W] -> [B, (c H W)])` joins axes"),
    "unsqueeze": ("", "`x[:, none]` adds an axis"), "squeeze": ("", "`x[:, 0]` removes an axis of one position"),
    "tensor": ("", "`const w: [2] = [1, 2]` writes a tensor down"), "Parameter": ("", "`param w: [d] = zeros()` declares a weight"),
    "Sequential": ("", "`f >> g` joins blocks, `x |> f |> g` applies them"),
    "ModuleList": ("", "a loop with a label repeats a block: `layers: for i in range(n) { … }`"),
    "size": ("", _SIZES), "shape": ("", _SIZES), "print": ("", "`emit name = value` shows a value inside"),
    **dict.fromkeys(("contiguous", "clone", "cuda", "cpu", "requires_grad_", "no_grad", "checkpoint", "item", "numpy", "super"), ("", _NOTHING)),
    "vmap": ("", "no word is needed: ops and blocks work along all axes in front of those that they name"),
    **dict.fromkeys(("jit", "remat"), ("", _NOTHING)),
    "detach": ("", "no op stops a gradient: use `x` as it is"),
    **dict.fromkeys(("to", "float", "half", "bfloat16", "double", "type", "astype"), ("", _CAST)),
    **dict.fromkeys(("T", "mT", "t"), ("", _AXES)), **dict.fromkeys(("tril", "triu", "causal_mask"), ("", _TRIANGLE)),
    **dict.fromkeys(("randn", "rand", "randn_like", "rand_like", "bernoulli"), ("", _RANDOM)),
    **dict.fromkeys(("float16", "float32", "float64", "int32", "int64", "long", "uint8"), ("", _CAST)),
    "Dropout": ("dropout", "an op takes its tensor first: `dropout(x, 0.1)`, `x |> dropout(0.1)`"),
    "inf": ("", "`1e30` is a large number; `mask` and `where` leave out what is not to be seen"), "dtype": ("", _CAST),
    "dict": ("", "`record R { width: int, depth: int = 2 }` declares named values, `R(width = 64)` gives them"),
    **dict.fromkeys(("isinstance", "getattr", "hasattr"), ("", "types stand in the header; `x is some` asks whether an optional value is there")),
    **dict.fromkeys((n for n in MODULES if n != "self"), ("", _NO_MODULE)), "self": ("", _SELF),
}
"""Words of PyTorch and Python -> what is written here instead ("" where no single word does), and how."""

OTHERWISE = frozenset(("masked_fill", "index_select", "broadcast_to"))
"""Of these the op here takes its arguments in another order, or other ones."""


def of_torch(name: str, span: Span | None = None) -> tuple[tuple[str, ...], tuple[Fix, ...]] | None:
    """(help, fixes) for a word of PyTorch or Python; None for any other."""
    if name not in WORDS:
        return None
    here, how = WORDS[name]
    fixes = (Fix(f"replace by `{here}`", ((span, here),)),) if here and span is not None else ()
    if name == "Dropout" and span is not None:
        fixes = _tensor_first(here, span)
    return tuple(t for t in (f"`{name}` is called `{here}` here" if here and not fixes else "", how) if t), fixes

def _tensor_first(op: str, span: Span) -> tuple[Fix, ...]:
    """`Dropout(0.1)(x)` as `dropout(x, 0.1)`, and `x |> Dropout(0.1)` as `x |> dropout(0.1)`; nothing where the op would lack an argument."""
    text = span.source.text
    called = re.match(r"\(\s*(?:p\s*=\s*)?([^\s()=,]+)\s*\)(?:\(([^()]*)\))?", text[span.end :])
    if called is None or not called[2] and not text[: span.start].rstrip().endswith("|>"):
        return ()
    new = f"{op}({called[2]}, {called[1]})" if called[2] else f"{op}({called[1]})"
    return (Fix(f"write `{new}`", ((Span(span.source, span.start, span.end + called.end()), new),)),)


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """At most three names that look like `name`, or are what torch calls so, the closest first, and of those that are as close the first."""
    return list(_nearest(name, tuple([n for n in _in_order(names) if not n.startswith("__")])))


def _in_order(names: Iterable[str]) -> list[str]:
    """Each once. A set has no order of its own, or another one in each process: its names go by the alphabet."""
    return sorted(names) if isinstance(names, (set, frozenset)) else list(dict.fromkeys(names))


@lru_cache(256)
def _nearest(name: str, pool: tuple[str, ...]) -> list[str]:
    """The same, looked for once: each model and variant of a file asks for the same name."""
    from difflib import SequenceMatcher, get_close_matches

    same = [n for n in TORCH.get(name, ()) if n in pool and n != name][:1]
    if same:
        return same
    short = abbreviated(name, pool)
    if len(short) == 1:
        return short
    lower = {n.lower().replace("_", ""): n for n in reversed(pool)}
    exact = lower.get(name.lower().replace("_", ""))
    close = get_close_matches(name, pool, n=6, cutoff=0.6)
    places = {n: i for i, n in enumerate(pool)}  # of two that are as close, the one that is known here
    close.sort(key=lambda n: (-SequenceMatcher(None, n, name).ratio(), distance(name, n), places[n]))
    del close[3:]
    if len(name) > 3:  # letters that changed places: in a short name few are left where they were
        close += [n for n in pool if len(n) == len(name) and n not in close and sorted(n) == sorted(name)]
    return ([exact] if exact and exact != name else []) + [c for c in close if c not in (exact, name)][:3]


def abbreviated(name: str, names: Iterable[str]) -> list[str]:
    """The names of whose words these are the first letters: `GLA` of GatedLinearAttention."""
    if len(name) < 3 or not name.isupper():
        return []
    return [n for n in names if n not in (name, n.upper()) and "".join(c for c in n if c.isupper()) == name]


def nearest_help(name: str, names: Iterable[str], span: Span | None) -> tuple[tuple[str, ...], tuple[Fix, ...]]:
    """(help, fixes): the nearest name as a fix of `span`, and all near ones as help when there are several or nothing to mend."""
    close = nearest(name, names)
    if not close or span is None:
        return did_you_mean(name, close), ()
    far = distance(name, close[0])
    alike = [n for n in close if n == close[0] or far == 1 == distance(name, n)]
    return did_you_mean(name, close) if len(close) > 1 else (), tuple(Fix(f"replace by `{n}`", ((span, n),)) for n in alike)


def mend(name: str, names: Iterable[str], span: Span | None, otherwise: tuple[str, ...] | str = ()) -> dict[str, Any]:
    """`help`, `fixes` and `rivals` of a fault about a name at (or inside of) a span, as keywords; `otherwise` is the help where no name is near."""
    names = _in_order(names)
    help, fixes = nearest_help(name, names, place_of(name, span))
    otherwise = (otherwise,) if isinstance(otherwise, str) else otherwise
    return {"help": help or (() if fixes else otherwise), "fixes": fixes, "rivals": rivals(name, names, fixes)}


def rivals(name: str, names: Iterable[str], fixes: tuple[Fix, ...]) -> tuple[Fix, ...]:
    """The other near names, in the place of the nearest."""
    if not fixes:
        return ()
    span = fixes[0].edits[0][0]
    return tuple(Fix(f"replace by `{c}`", ((span, c),)) for c in nearest(name, names)[len(fixes) : 3])


def place_of(name: str, span: Span | None) -> Span | None:
    """Where the name stands in a span; None where it is not written there."""
    if span is None or span.text == name:
        return span
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", span.text)
    return Span(span.source, span.start + found.start(), span.start + found.end()) if found else None


def mend_address(address: str, known: Iterable[str], span: Span) -> dict[str, Any]:
    """The same for an address with `*`, `{a, b}` and `{i}` in it: its first segment that leads nowhere is replaced by one that is there."""
    names = _in_order(known)
    alive, at = [n.split(".") for n in names], 0
    for i, segment in enumerate(segments(address)):
        here = {n[i] for n in alive if len(n) > i}
        for word in re.findall(r"\w+", segment):
            counts = segment.startswith("{") and "," not in segment or segment == "*" or word.isdigit() and any(h.isdigit() for h in here)
            if not counts and word not in here:
                where = span.text.find(segment, at)
                close = nearest(word, sorted(h for h in here if not h.isdigit()))
                if where < 0 or not close:
                    return {"help": did_you_mean(address, names), "fixes": ()}
                where += segment.find(word)
                start = span.start + where
                return mend(word, close, Span(span.source, start, start + len(word)))
        alive = [n for n in alive if len(n) > i and (n[i] in re.findall(r"\w+", segment) or not re.fullmatch(r"[A-Za-z_]\w*", segment))]
        at = max(span.text.find(segment, at), at)
    return {"help": did_you_mean(address, names), "fixes": ()}


@lru_cache(4096)
def segments(address: str) -> tuple[str, ...]:
    """`a.{b, c}.*.0` -> segments; braces hold no dots of their own."""
    out: list[str] = []
    depth = at = 0
    for i, c in enumerate(address):
        depth += (c == "{") - (c == "}")
        if c == "." and depth == 0:
            out.append(address[at:i])
            at = i + 1
    return (*out, address[at:])


def without_call(span: Span) -> tuple[Fix, ...]:
    """`gelu()(x)` as `gelu(x)`: an op is a block as it stands."""
    called = re.search(r"\(\s*\)$", span.text)
    return (Fix("remove `()`: an op is a block as it stands", ((Span(span.source, span.start + called.start(), span.end), ""),)),) if called else ()


def did_you_mean(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """A help line, or none."""
    close = nearest(name, names)
    return (f"did you mean {' or '.join(f'`{c}`' for c in close[:3])}?",) if close else ()
