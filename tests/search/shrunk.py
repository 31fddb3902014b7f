"""Shipped models with small numbers: the same knobs, arms and rules, in widths whose candidates run in milliseconds.

Whole numbers of a parameter of the model, or of a record's field, and of its domain are divided: by `widths` where one of them is 128 or more, by
`counts` (heads, ranks) where one is 8 or more, by `depth` in a parameter of that name. `LESS` says by what else, where that would leave a default
outside of its domain, or no candidate; and which functions have such numbers in their bodies.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any

from archdsl.elaborate.model import Elaborated
from archdsl.spec import Spec, loads
from archdsl.syntax import tree

DIVIDED = {"widths": 64, "counts": 8, "depth": 8}
STAYS = dict.fromkeys(("bits", "buckets", "channels", "chosen", "context", "depths", "every", "furthest", "grid", "k", "kernel", "length", "mel",
                       "patch", "places", "policy", "reduction", "scale", "side", "size", "strides", "window", "windows"), 1)
LESS: dict[str, dict[str, int]] = {
    "bloom": {"depth": 16, "widths": 128},
    "convnext": {"widths": 8},
    "deepseek_v2": {"groups": 1, "experts": 4, "head_dim": 8, "value_dim": 8, "rope_dim": 8},
    "efficientformer": {"widths": 8, "size": 7},
    "extractors": {"widths": 16},
    "fit": {"widths": 16, "counts": 1},
    "gemma2": {"heads": 1, "kv_heads": 1},
    "gpt_oss": {"experts": 8, "widths": 45, "head_dim": 8},
    "hat": {"widths": 6},
    "jamba": {"rank": 2, "attention_every": 1, "experts": 4, "depth": 2},
    "kernel_attention": {"side": 4, "patch": 4},
    "mamba": {"widths": 32, "rank": 4},
    "memoryformer": {"widths": 16},
    "mixtral": {"experts": 2},
    "mohd": {"widths": 16, "counts": 1},
    "nextvit": {"widths": 2, "counts": 1, "head_dim": 2, "reduction": 8},
    "qwen_moe": {"experts": 8},
    "simq_nas": {"widths": 8, "counts": 1},
    "sret": {"widths": 8},
    "swin": {"widths": 4, "counts": 1},
    "t5": {"widths": 16, "hidden": 4},
    "vit_resnas": {"widths": 8, "hidden": 8, "heads": 1, "tiny_choices": 8},
    "zamba": {"heads": 2, "widths": 32, "rank": 1, "attention_every": 1},
    "zamba2": {"depth": 1},
}
LONGEST = {"T": 16, "S": 16, "N": 16, "H": 128, "W": 128}
"""Inputs have at most so many positions on these axes."""


def numbers(node: Any) -> list[tree.Number]:
    """The whole numbers that are written in an expression."""
    if isinstance(node, tree.Number):
        return [node] if isinstance(node.value, int) else []
    if isinstance(node, tree.Node):
        return [n for child in tree.children(node) for n in numbers(child)]
    return []


def small(spec: Spec, text: str, stem: str) -> str:
    """The text with its numbers divided, and without what speaks of the large ones: variants, claims, spaces, names of weights."""
    by = {**DIVIDED, **STAYS, **LESS.get(stem, {})}
    decls = spec.module.tree.decls
    edits = {(d.span.start, d.span.end): "" for d in decls if isinstance(d, tree.Variant | tree.Claim | tree.Space | tree.Names)}
    fields = [*spec.decl.params, *(p for d in decls if isinstance(d, tree.Record) for p in d.fields)]
    written = {p.name: [n for part in (p.default, p.domain) for n in numbers(part)] for p in fields if "float" not in p.span.text}
    written |= {d.name: numbers(d) for d in decls if isinstance(d, tree.Fn) and d.name in by}
    for name, found in written.items():
        most = max((n.value for n in found), default=0)
        kind = name if name == "depth" else "widths" if most >= 128 else "counts"
        if most >= 8 or kind == "depth":
            least = {"depth": 2, "counts": 8, "widths": 16}[kind]
            edits.update({(n.span.start, n.span.end): str(max(1, round(n.value / by.get(name, by[kind])))) for n in found if n.value >= least})
    for (start, end), number in sorted(edits.items(), reverse=True):
        text = text[:start] + number + text[end:]
    return text


def shrunk(spec: Spec, path: str) -> Spec:
    return loads(small(spec, Path(path).read_text(encoding="utf-8"), Path(path).stem)).models[spec.name]


def sizes(made: Elaborated) -> dict[str, int]:
    """Small sizes of the inputs' axes: images are as large as the header's `side` or `size` says."""
    found = {"B": 2} | {n: min(v, LONGEST.get(n, v)) for i in made.inputs for n, v in i.sizes.items() if n != "B"}
    if "H" in found and (said := made.knobs.get("size") or made.knobs.get("side")):
        found["H"], found["W"] = said.value if isinstance(said.value, tuple) else (said.value, said.value)
    return found
