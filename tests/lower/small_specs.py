"""Every variant of every shipped spec, made small, with random weights in float64."""
from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

import archdsl
from archdsl.inputs import sample_inputs
from tests.reading import rows

DECODER = {"vocab": 48, "d": 32, "depth": 2, "heads": 4, "kv_heads": 2, "hidden": 48}
SIZES = {"s.layout": "(1)1(1)", "s.m": 3, "s.dx": 16, "s.dl": 24, "s.hx": 2, "s.hl": 2}
LMU_SIZES = {"mel": 8, "d": 16, "order": 6, "theta": 9, "heads": 2, "depth": 2, "classes": 5}
RESNAS = {"widths": [8, 16, 16], "heads": [[1], [2, 1], [1]], "hidden": [[8], [12, 8], [16]], "head_dims": [4, 4, 8], "size": [56, 56], "classes": 5}
SMALL: dict[str, dict[str, Any]] = {
    "RWKV": {"vocab": 48, "d": 16, "depth": 2, "hidden": 32},
    "Llama": DECODER | {"head_dim": 8}, "Olmo2": DECODER, "PeriLN": DECODER | {"head_dim": 8},
    "Mixtral": DECODER | {"experts": 4}, "QwenMoE": DECODER | {"head_dim": 8, "shared": 40, "experts": 6, "k": 3},
    "Jamba": DECODER | {"depth": 4, "attention_every": 4, "attention_at": 2, "state": 4, "experts": 4},
    "Zamba": DECODER | {"depth": 4, "attention_every": 2, "attention_at": 0, "state": 4},
    "DynamicMoE": DECODER | {"experts": 6}, "PolyCom": DECODER, "PolyComMoE": DECODER | {"experts": 4, "k": 2},
    "MoHD": DECODER | {"n": 8}, "MemoryFormer": DECODER | {"bits": 4, "rotary": 4, "value_dim": 8},
    "Gemma2": DECODER | {"head_dim": 8, "query_width": 8, "reach": 2},
    "Ladder": DECODER | {"depth": 4}, "Desync": DECODER | {"depth": 3, "kv_heads": 4, "devices": 4},
    "DeltaNetLM": {"vocab": 48, "d": 32, "depth": 4, "heads": 2, "hidden": 48}, "GLA": DECODER | {"head_dim": 4, "value_dim": 8},
    "Liger": DECODER | {"head_dim": 8, "span": 3, "slots": 4},
    "GPT2": {"vocab": 48, "context": 16, "d": 32, "depth": 2, "heads": 4},
    "GPT": {"vocab": 48, "context": 16, "d": 32, "depth": 2, "heads": 4, "head_dim": 8, "hidden": 48},
    "LMUFormer.classify": LMU_SIZES, "LMUFormer.listen": LMU_SIZES,
    "ITransformer": {"lookback": 12, "horizon": 6, "depth": 2, "d": 16, "hidden": 24, "heads": 2, "variates": 5},
    "ConvNeXt": {"widths": [8, 8, 16, 16], "depths": [1, 2, 2, 1], "classes": 5},
    "Isotropic": {"d": 16, "depth": 2, "classes": 5},
    "CvT": {f"stages.{i}.{k}": v for i, w in enumerate((8, 12, 16)) for k, v in (("width", w), ("depth", 1 + i // 2), ("heads", 2))} | {"classes": 5},
    "EfficientFormer": {"widths": [8, 8, 12, 16], "depths": [1, 1, 1, 3], "vit": 2, "size": [64, 64], "classes": 5},
    "Features": {"widths": [8, 8, 12, 16], "depths": [1, 1, 1, 3], "vit": 2, "size": [64, 64]},
    "FIT": SIZES | {"grid": [2, 2], "side": 16, "patch": 4}, "Denoiser": SIZES | {"grid": [2, 2], "side": 16, "patch": 4, "classes": 5},
    "Autoregressive": SIZES | {"vocab": 32, "t": 3, "n": 4},
    "HAT": {"d": 24, "depths": [2, 1], "heads": 2, "window": 4, "squeeze": 4, "features": 6, "side": 8},
    "NextViT": {"depths": [1, 1, 2, 1], "widths": [32, 32, 64, 64], "wide": [128, 128, 128, 128], "head_dim": 8,
                "every": [0, 1, 2, 1], "stem": [8, 4, 8, 8], "classes": 5},
    "SReT": {"widths": [8, 16, 32], "heads": [2, 2, 4], "depths": [1, 2, 1], "size": [64, 64], "classes": 5},
    "Swin": {"d": 16, "depths": [2, 1, 2, 1], "heads": [2, 2, 4, 4], "window": 2, "side": 32, "classes": 5},
    "ViT": {"d": 32, "depth": 2, "heads": 2, "patch": 8, "classes": 5},
    "ViTRes": RESNAS, "TokenLabels": RESNAS, "BERT": {"depth": 2, "d": 32, "width": 4, "vocab": 48, "length": 16},
    "ResNet": {"stem": [8, 8], "widths": [16, 16, 32, 32], "classes": 5},
}
MOST = 2_000_000
"""Parameters that a small model has at most: the suite holds all of them."""
OF_VARIANTS: dict[str, dict[str, Any]] = {"wide": {"value_dim": 12}, "large_tiny_16": {"size": [224, 224]}}  # its slices fit no smaller map
LARGE = ("Mamba", "Mamba2", "Hybrid", "AarenEncoder", "Extractor", "MASFormer", "Bloom", "DeepSeekV2", "GptOss", "HyenaLM", "Kernel", "T5", "Zamba2")
"""No small settings that suit all their variants: those that are called tiny stand for them."""


def _variants(name: str, own: list[str]) -> list[str | None]:
    return [v for v in own if "tiny" in v.split("_")] if name.startswith(LARGE) else [*own] or [None]


CASES = [(row["path"], row["name"], variant) for row in rows() for variant in _variants(row["name"], row["variants"])]


def id_of(case: tuple[str, str, str | None]) -> str:
    return f"{Path(case[0]).stem}:{case[1]}.{case[2]}"


def small_knobs(case: tuple[str, str, str | None]) -> dict[str, Any]:
    """The settings that make a variant small."""
    path, name, variant = case
    small = SMALL.get(name, {}) | OF_VARIANTS.get(variant or "", {})
    own = archdsl.load(path).models[name].elaborate(variant).knobs
    return {k: v for k, v in small.items() if k in own or "." in k}


@cache
def built(case: tuple[str, str, str | None]) -> tuple[Any, Any, tuple[torch.Tensor, ...]]:
    """A small model in float64 with random weights, what it was elaborated to, and inputs."""
    path, name, variant = case
    spec = archdsl.load(path).models[name]
    knobs = small_knobs(case)
    made = spec.elaborate(variant, knobs)
    assert spec.cost(variant, knobs=knobs).params <= MOST, f"{id_of(case)} needs settings of its own in SMALL"
    model = spec.build(variant, seed=1, dtype=torch.float64, knobs=knobs)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=g, dtype=value.dtype)
                value.copy_(noise + 0.5 if key.endswith("var") else value + 0.2 * (noise - 0.5))
    return model, made, sample_inputs(made, made.example_sizes(small=True), dtype=torch.float64)
