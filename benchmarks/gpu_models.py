"""The models of benchmarks/gpu.py: a spec of ours and its peer, of the same sizes and, where weights are imported, of the same weights."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import archdsl


@dataclass(frozen=True)
class Pair:
    """`knobs` for the spec at `path` (and `model` in it), `peer()` for the other library's model; `names`: the table that imports its weights."""

    path: str
    knobs: dict[str, Any]
    peer: Callable[[], Any] | None = None
    names: str = "hf"
    model: str | None = None
    attends: tuple[int, int, int] | None = field(default=None)  # layers, heads, width of a head
    mode: str | None = None  # of the peer's mixers in float32, where their own refuses it (DeltaNet) or takes TF32 whatever is asked

    def spec(self) -> archdsl.Spec:
        found = archdsl.load(self.path)
        return found.models[self.model] if self.model else found

    def ours(self, device: str, dtype: torch.dtype, **knobs: Any) -> Any:
        return self.spec().build(device=device, dtype=dtype, **self.knobs, **knobs)

    def theirs(self, device: str, dtype: torch.dtype) -> Any:
        """The peer, made on the device in float32 and cast. Raises ImportError where its library is not here."""
        assert self.peer is not None
        with torch.device(device):
            return self.peer().to(dtype)

    def flops(self, model: Any, batch: int, length: int) -> float:
        """Floating-point operations of one forward and backward pass: six for each weight of a matrix and token, twelve for each channel and pair of
        positions of causal attention; those of recurrences and pointwise ones are left out."""
        tied = "embed.weight" in dict(model.named_parameters()) and not any(n.startswith("head.") for n, _ in model.named_parameters())
        weights = sum(p.numel() for n, p in model.named_parameters() if p.dim() >= 2 and (tied or not n.startswith("embed.")))
        layers, heads, width = self.attends or (0, 0, 0)
        return 6 * batch * length * weights + 12 * layers * heads * width * batch * length * (length + 1) / 2


def transformers_model(name: str, **config: Any) -> Any:
    import transformers

    return getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**config, pad_token_id=None))


def fla_model(name: str, **config: Any) -> Any:
    import fla.models  # pyright: ignore[reportMissingImports]

    return getattr(fla.models, f"{name}ForCausalLM")(getattr(fla.models, f"{name}Config")(**config, use_cache=False))


def llama(vocab: int, d: int, depth: int, heads: int, kv_heads: int, hidden: int, tie: bool) -> Pair:
    def peer() -> Any:
        return transformers_model("Llama", vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, num_attention_heads=heads,
                                  tie_word_embeddings=tie, num_key_value_heads=kv_heads, intermediate_size=hidden,
                                  max_position_embeddings=16_384, rms_norm_eps=1e-5)

    knobs = {"vocab": vocab, "d": d, "depth": depth, "heads": heads, "kv_heads": kv_heads, "hidden": hidden, "tie": tie}
    return Pair("specs/language/llama.arch", knobs, peer, attends=(depth, heads, d // heads))


def mamba2(vocab: int, d: int, depth: int, peer: bool = True) -> Pair:
    def transformers_mamba2() -> Any:
        return transformers_model("Mamba2", vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, state_size=128, n_groups=1, head_dim=64,
                                  expand=2, num_heads=d // 32, tie_word_embeddings=True, residual_in_fp32=False)

    return Pair("specs/language/mamba2.arch", {"vocab": vocab, "d": d, "depth": depth}, transformers_mamba2 if peer else None)


def gla(vocab: int, d: int, depth: int, heads: int, hidden: int) -> Pair:
    def peer() -> Any:
        return fla_model("GLA", vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, num_heads=heads, intermediate_size=hidden)

    return Pair("specs/language/gla.arch", {"vocab": vocab, "d": d, "depth": depth, "heads": heads, "hidden": hidden}, peer, "fla")


def deltanet(vocab: int, d: int, depth: int, heads: int, hidden: int) -> Pair:
    def peer() -> Any:
        return fla_model("DeltaNet", vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, num_heads=heads, intermediate_size=hidden)

    knobs = {"vocab": vocab, "d": d, "depth": depth, "heads": heads, "hidden": hidden}
    return Pair("specs/language/deltanet.arch", knobs, peer, "fla", mode="fused_recurrent")


def gated_deltanet(vocab: int, d: int, depth: int, heads: int, head_dim: int, hidden: int) -> Pair:
    def peer() -> Any:
        return fla_model("GatedDeltaNet", vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, num_heads=heads, head_dim=head_dim,
                         intermediate_size=hidden)

    knobs = {"vocab": vocab, "d": d, "depth": depth, "heads": heads, "head_dim": head_dim, "hidden": hidden}
    return Pair("benchmarks/gpu_specs.arch", knobs, peer, "fla", "GatedDeltaNetLM", mode="fused_recurrent")


def retnet(vocab: int, d: int, depth: int, heads: int, hidden: int) -> Pair:
    def peer() -> Any:
        return fla_model("RetNet", vocab_size=vocab, hidden_size=d, num_hidden_layers=depth, num_heads=heads, intermediate_size=hidden)

    knobs = {"vocab": vocab, "d": d, "depth": depth, "heads": heads, "hidden": hidden}
    return Pair("benchmarks/gpu_specs.arch", knobs, peer, "fla", "RetNet", mode="fused_recurrent")


def for_training(tiny: bool) -> dict[str, Pair]:
    if tiny:
        return {"Llama 341M": llama(64, 32, 2, 2, 2, 48, True), "DeltaNet 374M": deltanet(64, 32, 2, 2, 48), "GLA 374M": gla(64, 32, 2, 2, 48),
                "Mamba-2 349M": mamba2(64, 64, 2, peer=False)}
    return {"Llama 341M": llama(32_000, 1024, 24, 16, 16, 2816, True), "DeltaNet 374M": deltanet(32_000, 1024, 24, 8, 2816),
            "GLA 374M": gla(32_000, 1024, 24, 4, 2816), "Mamba-2 349M": mamba2(32_000, 1024, 48, peer=False)}


def for_decoding(tiny: bool) -> dict[str, Pair]:
    """Of as many layers as come closest to the first one's weights."""
    if tiny:
        return {"Llama 1.10B": llama(64, 32, 2, 4, 2, 48, False), "GLA 1.11B": gla(64, 32, 2, 2, 48), "Mamba-2 1.09B": mamba2(64, 64, 2)}
    return {"Llama 1.10B": llama(32_000, 2048, 22, 32, 4, 5632, False), "GLA 1.11B": gla(32_000, 2048, 19, 4, 5632),
            "Mamba-2 1.09B": mamba2(32_000, 2560, 25)}


def for_parity(tiny: bool) -> dict[str, Pair]:
    if tiny:
        return {"Llama": llama(64, 32, 2, 4, 2, 48, True), "Mamba-2": mamba2(64, 64, 2), "GLA": gla(64, 32, 2, 2, 48),
                "DeltaNet": deltanet(64, 32, 2, 2, 48), "GatedDeltaNet": gated_deltanet(64, 32, 2, 2, 16, 48), "RetNet": retnet(64, 32, 2, 2, 48)}
    return {"Llama": llama(1000, 512, 4, 8, 4, 1408, True), "Mamba-2": mamba2(1000, 512, 4), "GLA": gla(1000, 512, 4, 4, 1408),
            "DeltaNet": deltanet(1000, 512, 4, 4, 1408), "GatedDeltaNet": gated_deltanet(1000, 512, 4, 4, 128, 1408),
            "RetNet": retnet(1000, 512, 4, 4, 1408)}
