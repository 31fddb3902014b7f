"""One application of each block of the library: its page tells what that costs and the site draws it. Called by generate.py and hooks.py."""
from __future__ import annotations

import re

from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.model import Elaborated
from archdsl.modules import library_exports
from archdsl.spec import loads
from archdsl.syntax import tree

# Required arguments by name and inputs by their last axes, as long as nothing else is said about a block below.
ARGUMENTS = {
    "hidden": "256", "heads": "4", "out": "128", "vocab": "1000", "d": "64", "w": "16", "groups": "8", "kernel": "3", "length": "64", "m": "7",
    "shift": "3", "base": "10_000", "act": "silu", "alpha": "2", "norm": "LayerNorm()", "f": "MLP(256)", "g": "Attention(4)",
}
INPUTS = {
    "[..., T, d]": "[B = 1, T = 16, 64]", "[..., d]": "[B = 1, T = 16, 64]", "[..., i]": "[B = 1, T = 16, 64]", "[*s]": "[B = 1, T = 16, 64]",
    "[B, ...]": "[B = 1, T = 16, 64]", "[B, c, *s]": "[B = 1, 64, H = 14, W = 14]", "[B, c, H, W]": "[B = 1, 64, H = 14, W = 14]",
    "[..., w]": "[B = 1, T = 16, 64]", "[..., T, c]": "[B = 1, T = 16, 64]",
    "[B, H, W, c]": "[B = 1, H = 14, W = 14, 64]", "[..., heads, T, w]": "[B = 1, 4, T = 16, 16]", "int[...]": "int[B = 1, T = 16] in 0..<1000",
}
_CHOSEN = "x: [B = 1, T = 16, 1, 64], index: int[B, T, 2] in 0..<8"
# Blocks that need more than that: the expression, and the inputs of the model around it where they are no `x`.
APPLIED: dict[str, tuple[str, str]] = {
    "Attention": ("Attention(4, mask = causal, positions = Rope())(x)", ""),
    "LatentAttention": ("LatentAttention(4, rank = 32)(x)", "x: [B = 1, T = 16, 64]"),
    **{n: (f"{n}({a})(rate, base = 10_000, position = position)", "rate: f32[8], position: f32[T = 16]") for n, a in (
        ("LinearScaling", "4"), ("Llama3Scaling", "8, low = 1, high = 4, context = 8192"), ("YarnScaling", "4, 4096"), ("DynamicScaling", "4, 4096"),
        ("LongScaling", "[1] * 8, [4] * 8, 4096"))},
    "EnsemblePath": ("EnsemblePath(LayerNorm(), MLP(256))(x, e)", "x: [B = 1, T = 16, 64], e: [B, T, 64]"),
    "Conv": ("Conv(128, 3, pad = 1)(x)", ""),
    "DropPath": ("DropPath(0.1)(x)", ""),
    "SqueezeExcite": ("SqueezeExcite(16)(x)", ""),
    "CausalConv": ("CausalConv()(x)", "x: [B = 1, T = 16, 64]"),
    "GatedRMSNorm": ("GatedRMSNorm(4)(x, gate)", "x: [B = 1, T = 16, 64], gate: [B, T, 64]"),
    "SelectiveSSM": ("SelectiveSSM(state = 16, rank = 4)(u)", "u: [B = 1, T = 16, 128]"),
    "Mamba2": ("Mamba2(head_dim = 16)(x)", "x: [B = 1, T = 16, 64]"),
    "LowRank": ("LowRank(128, rank = 16)(x)", ""),
    "HeadsOut": ("HeadsOut(gate = true)(y, x)", "y: [B = 1, 4, T = 16, 16], x: [B, T, 64]"),
    "SlotAttention": ("SlotAttention()(q, k, v, rate)", "q: [B = 1, 4, T = 16, 16], k: [B, 4, T, 16], v: [B, 4, T, 16], rate: f32[B, 4, T, 8]"),
    "Bidirectional": ("Bidirectional(GatedLinearAttention(4) as on, GatedLinearAttention(4) as back)(x)", ""),
    "Windowed": ("Windowed(GatedLinearAttention(4), 4)(x)", "x: [B = 1, T = 16, 64]"),
    "Cross": ("Cross(GatedLinearAttention(4))(x, memory)", "x: [B = 1, T = 16, 64], memory: [B, S = 8, 64]"),
    "RWKV6": ("RWKV6(head_dim = 16)(x)", ""),
    "RWKV7": ("RWKV7(head_dim = 16)(x)", "x: [B = 1, T = 16, 64]"),
    "OffsetBias": ("OffsetBias(4, m = [7, 7])()", ""),
    "WindowAttention": ("WindowAttention(4, m = [7, 7], shift = [3, 3])(x)", "x: [B = 1, 14, 14, 64]"),
    "MergedPrefixes": ("MergedPrefixes()(m, c, a, n, d, b)", "m: f32[B = 1, 4], c: f32[B, 4], a: f32[B, 4, 16], n: f32[B, 4], d: f32[B, 4], "
                       "b: f32[B, 4, 16]"),
    "PositiveFeatures": ("PositiveFeatures(32)(x)", ""),
    "TrigonometricFeatures": ("TrigonometricFeatures(32)(x)", ""),
    "DistanceWeights": ("DistanceWeights(4, 31)()", ""),
    "MapDistanceWeights": ("MapDistanceWeights(4, 27, 27)()", ""),
    "WithOne": ("WithOne()(v)", "v: [B = 1, 4, T = 16, 16]"),
    "OverSum": ("OverSum(1e-6)(y)", "y: [B = 1, 4, T = 16, 17]"),
    "KernelAttention": ("KernelAttention(4, DistanceWeights(4, 64))(x)", "x: [B = 1, T = 16, 64]"),
    "MapKernelAttention": ("MapKernelAttention(4, MapDistanceWeights(4, 27, 27))(x)", "x: [B = 1, H = 14, W = 14, 64]"),
    "FilterPositions": ("FilterPositions(64, bands = 4)()", ""),
    "HyenaFilter": ("HyenaFilter(64)(channels = 64)", ""),
    "Sine": ("Sine(10)(x)", ""),
    "Hyena": ("Hyena(64)(x)", ""),
    "LegendreMemory": ("LegendreMemory(64, theta = 128)(u)", "u: [B = 1, T = 16]"),
    "Taps": ('Taps("vector", 64)(x)', "x: [B = 1, T = 16, 64]"),
    "Extractor": ('Extractor("he", 64)(x)', "x: [B = 1, T = 16, 64]"),
    "LMU": ("LMU(64, theta = 128)(x)", ""),
    "ExpertLinear": ("ExpertLinear(8, 256)(x, index)", _CHOSEN),
    "ExpertMLP": ("ExpertMLP(8, 256, gelu)(x, index)", _CHOSEN),
    "ExpertSwiGLU": ("ExpertSwiGLU(8, 256)(x, index)", _CHOSEN),
    "ExpertClampedGLU": ("ExpertClampedGLU(8, 256)(x, index)", _CHOSEN),
    "Router": ("Router(8)(x)", ""),
    "TopK": ("TopK(2)(chance)", "chance: f32[B = 1, T = 16, 8]"),
    "GroupTopK": ("GroupTopK(2, groups = 4, chosen = 2)(chance)", "chance: f32[B = 1, T = 16, 8]"),
    "TopP": ("TopP(0.4)(chance)", "chance: f32[B = 1, T = 16, 8]"),
    "Routed": ("Routed(ExpertSwiGLU(8, 256), 2)(x, gates)", "x: [B = 1, T = 16, 64], gates: [B, T, 8]"),
    "MoE": ("MoE(8, ExpertSwiGLU(8, 256), TopK(2), active = 2)(x)", ""),
    "SharedMoE": ("SharedMoE(MoE(8, ExpertSwiGLU(8, 256), TopK(2), active = 2), SwiGLU(128))(x)", ""),
    "SignHash": ("SignHash(8)(x)", "x: [B = 1, T = 16, 64]"),
    "Tables": ("Tables(128, 8)(code, score)", "code: int[B = 1, T = 16, 8] in 0..<256, score: [B, T, 8]"),
    "MemoryLayer": ("MemoryLayer(128, 8)(x)", ""),
    "MemoryAttention": ("MemoryAttention(4, bits = 8, rotary = 4, value_dim = 16)(x)", ""),
    "MemoryMLP": ('MemoryMLP(64, bits = 8, widen = "bits", extra = 2)(x)', ""),
    "ProbSparseAttention": ("ProbSparseAttention(4)(x)", ""),
    "LSHAttention": ("LSHAttention(4)(x)", ""),
    "Standardised": ("Standardised(Inverted(Linear(8)))(x)", "x: [B = 1, 16, N = 7]"),
    "Inverted": ("Inverted(Linear(8))(x)", "x: [B = 1, 16, N = 7]"),
    "Token": ("Token()(x)", "x: [B = 1, T = 16, 64]"),
    "FakeQuantize": ("FakeQuantize(8)(x)", "x: [B = 1, T = 16, 64]"),
    "QuantizedConv": ("QuantizedConv(128, 3, pad = 1)(x)", ""),
    "SwinBlock": ("SwinBlock(4, m = [7, 7], shift = [3, 3])(x)", "x: [B = 1, 14, 14, 64]"),
}


def example(block: tree.Block) -> tuple[str, str]:
    """(expression, inputs) of an application. Raises ValueError for a block that needs an entry in APPLIED."""
    expression, inputs = APPLIED.get(block.name, ("", ""))
    try:
        given = [ARGUMENTS[p.name] for p in block.params if p.default is None and not expression]
        needed = [p for p in block.inputs if isinstance(p.type, tree.TensorType) and p.default is None and not inputs]
        inputs = inputs or ", ".join(f"{p.name}: {INPUTS[' '.join(p.type.span.text.split())]}" for p in needed)
    except KeyError as unknown:
        raise ValueError(f"the library's block {block.name} has no example for its {unknown}: say one in docs/applied.py") from None
    names = ", ".join(p.name for p in needed)
    return expression or f"{block.name}({', '.join(given)})({names})", inputs


def model(block: tree.Block) -> Elaborated:
    """A model that is this application alone. Raises ValueError where the example does not fit the block."""
    expression, inputs = example(block)
    exports = library_exports()
    used = sorted({n for n in re.findall(r"\b[A-Z]\w*", expression) if n in exports})
    types = [re.sub(r"\[.*", f"[*r{i}]", o.type.span.text, flags=re.DOTALL) for i, o in enumerate(block.outs)]  # the element type, and any shape
    outs = types[0] if len(types) == 1 else "(" + ", ".join(f"out{i}: {t}" for i, t in enumerate(types)) + ")"
    text = "".join(f"use {exports[n]} {{ {n} }}\n" for n in used)
    text += f"model {block.name}Example()({inputs}) -> {outs} {{\n  return {expression} as _\n}}\n"
    try:
        return loads(text, f"{block.name}.arch").elaborate()
    except ArchError as fault:
        raise ValueError(f"docs/applied.py applies {block.name} in a way that does not fit: {fault}\n{text}") from None
