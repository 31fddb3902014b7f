"""Foreign models for the tests, small, with random values everywhere."""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import timm
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from tests.parity.proof import randomise

TOKENS = {0: "B", 1: "T"}
IMAGES = {0: "B"}


class Foreign(NamedTuple):
    """A module, an example for it, and other inputs with other sizes along the axes that vary."""

    module: Any
    example: torch.Tensor
    others: list[torch.Tensor]
    dynamic: dict[int, str]


def image_model(name: str, side: int = 64, **changes: Any) -> Foreign:
    return image_module(timm.create_model(name, **changes), side)


def image_module(module: Any, side: int) -> Foreign:
    module.eval()
    randomise(module)
    g = torch.Generator().manual_seed(1)
    images = [torch.randn(n, 3, side, side, generator=g) for n in (2, 1, 3)]
    return Foreign(module, images[0], images, IMAGES)


def token_model(kind: Any, config: Any, lengths: tuple[tuple[int, int], ...] = ((2, 7), (1, 1), (3, 20), (1, 13))) -> Foreign:
    config.use_cache = False
    module = kind(config).eval()
    randomise(module)
    g = torch.Generator().manual_seed(1)
    tokens = [torch.randint(0, config.vocab_size, shape, generator=g) for shape in lengths]
    return Foreign(module, tokens[0], tokens, TOKENS)


def batched(config: Any) -> Any:
    """Chosen experts as gathered weights: the other ways count tokens by expert, which depends on the data."""
    config._experts_implementation = "batched_mm"
    return config


SIZES: dict[str, Any] = {"vocab_size": 64, "num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
MODELS = {
    "vit": lambda: image_model("vit_tiny_patch16_224", depth=2, img_size=64, num_classes=7),
    "swin": lambda: image_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(2, 2), num_heads=(2, 4), num_classes=7, side=56),
    "swin padded": lambda: image_model("swin_tiny_patch4_window7_224", img_size=64, embed_dim=24, depths=(2, 2), num_heads=(2, 4), num_classes=7),
    "convnext": lambda: image_model("convnext_tiny", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), num_classes=7),
    "mobilevit": lambda: image_model("mobilevit_xxs", num_classes=7),
    "efficientformer": lambda: image_model("efficientformer_l1", depths=(1, 1, 1, 2), embed_dims=(16, 24, 32, 40), num_vit=1, num_classes=7,
                                           side=224),
    "gpt2": lambda: token_model(transformers.GPT2LMHeadModel, transformers.GPT2Config(vocab_size=64, n_layer=2, n_embd=32, n_head=4, n_positions=64)),
    "opt": lambda: token_model(transformers.OPTForCausalLM, transformers.OPTConfig(**SIZES, ffn_dim=48, word_embed_proj_dim=32,
                                                                                   max_position_embeddings=64)),
    "llama": lambda: token_model(transformers.LlamaForCausalLM, transformers.LlamaConfig(**SIZES, num_key_value_heads=2, intermediate_size=48)),
    "bert": lambda: token_model(transformers.BertModel, transformers.BertConfig(**SIZES, intermediate_size=48, max_position_embeddings=64)),
}
"""The bar: each is captured without opaque nodes, for any batch and length."""


GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48}
T5: dict[str, Any] = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
OTHERS = {
    "mixer": lambda: image_module(timm.models.mlp_mixer.MlpMixer(num_classes=7, img_size=32, patch_size=8, num_blocks=2, embed_dim=24), 32),
    "deit3": lambda: image_model("deit3_small_patch16_224", depth=2, embed_dim=48, num_heads=3, img_size=64, num_classes=7),
    "efficientnet": lambda: image_model("test_efficientnet", num_classes=7),
    "t5 encoder": lambda: token_model(transformers.T5EncoderModel, transformers.T5Config(**T5)),
    "distilbert": lambda: token_model(transformers.DistilBertModel, transformers.DistilBertConfig(
        vocab_size=64, n_layers=2, dim=32, n_heads=4, hidden_dim=48, max_position_embeddings=64)),
    "qwen2": lambda: token_model(transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**GROUPED)),
    "mistral": lambda: token_model(transformers.MistralForCausalLM, transformers.MistralConfig(**GROUPED, sliding_window=6)),
    "gemma": lambda: token_model(transformers.GemmaForCausalLM, transformers.GemmaConfig(**GROUPED, head_dim=8)),
    "phi": lambda: token_model(transformers.PhiForCausalLM, transformers.PhiConfig(**GROUPED)),
    "gpt_neo": lambda: token_model(transformers.GPTNeoForCausalLM, transformers.GPTNeoConfig(
        vocab_size=64, hidden_size=32, num_layers=2, attention_types=[[["global", "local"], 1]], num_heads=4, intermediate_size=48,
        max_position_embeddings=64, window_size=6)),
    "bloom": lambda: token_model(transformers.BloomForCausalLM, transformers.BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)),
    "mpt": lambda: token_model(transformers.MptForCausalLM, transformers.MptConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=4, max_seq_len=64)),
}
"""No rule was written for one of them, but for the last three: scores with slopes, tables and views over them."""
LARGER = {
    "regnet": lambda: image_model("regnety_002", num_classes=7),
    "resnet50": lambda: image_model("resnet50", num_classes=7, layers=(1, 1, 1, 1)),
    "levit": lambda: image_model("levit_128s", side=224, num_classes=7),
    "poolformer": lambda: image_model("poolformer_s12", num_classes=7),
    "efficientnet_b0": lambda: image_model("efficientnet_b0", num_classes=7),
    "pvt_v2": lambda: image_model("pvt_v2_b0", num_classes=7),
    "xcit": lambda: image_model("xcit_nano_12_p8_224", side=224, depth=2, num_classes=7),
    "maxvit": lambda: image_model("maxvit_rmlp_pico_rw_256", side=256, num_classes=7),
    "gemma2": lambda: token_model(transformers.Gemma2ForCausalLM, transformers.Gemma2Config(**GROUPED, head_dim=8, sliding_window=6)),
    "olmo2": lambda: token_model(transformers.Olmo2ForCausalLM, transformers.Olmo2Config(**GROUPED)),
    "xglm": lambda: token_model(transformers.XGLMForCausalLM, transformers.XGLMConfig(
        vocab_size=64, d_model=32, ffn_dim=48, num_layers=2, attention_heads=4, max_position_embeddings=64)),
    "falcon with slopes": lambda: token_model(transformers.FalconForCausalLM, transformers.FalconConfig(**SIZES, alibi=True)),
    "mpnet": lambda: token_model(transformers.MPNetModel, transformers.MPNetConfig(**SIZES, intermediate_size=48, max_position_embeddings=66)),
    "deberta_v2": lambda: token_model(transformers.DebertaV2Model, transformers.DebertaV2Config(**{  # some of them it takes without naming them
        **SIZES, "intermediate_size": 48, "max_position_embeddings": 64, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"})),
    "mixtral": lambda: token_model(transformers.MixtralForCausalLM, batched(transformers.MixtralConfig(**GROUPED, num_local_experts=4))),
    "modernbert": lambda: token_model(transformers.ModernBertModel, transformers.ModernBertConfig(
        **SIZES, intermediate_size=48, pad_token_id=0, local_attention=6, max_position_embeddings=64)),
    "gemma3": lambda: token_model(transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig(
        **GROUPED, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"])),
    "gpt_neox": lambda: token_model(transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig(
        **SIZES, intermediate_size=48, max_position_embeddings=64)),
    "roberta": lambda: token_model(transformers.RobertaModel, transformers.RobertaConfig(
        **SIZES, intermediate_size=48, max_position_embeddings=66)),
    "vgg": lambda: image_model("vgg11", side=32, num_classes=7),
    "tnt": lambda: image_model("tnt_s_legacy_patch16_224", num_classes=7, depth=2, side=224),
    "efficientvit": lambda: image_model("efficientvit_b0", num_classes=7),
    "beit": lambda: image_model("beit_base_patch16_224", img_size=64, depth=2, embed_dim=32, num_heads=4, num_classes=7),
    "mobilenetv3": lambda: image_model("mobilenetv3_small_050", num_classes=7),
    "coatnet": lambda: image_model("coatnet_pico_rw_224", side=224, num_classes=7),
    "qwen3": lambda: token_model(transformers.Qwen3ForCausalLM, transformers.Qwen3Config(**GROUPED, head_dim=8)),
}


def outputs(model: Callable[..., Any], x: Any) -> list[torch.Tensor]:
    y = model(**x) if isinstance(x, dict) else model(x)
    return [y] if isinstance(y, torch.Tensor) else [v for v in (y.values() if hasattr(y, "values") else y) if isinstance(v, torch.Tensor)]


class _Widened(TorchDispatchMode):
    """What is made or cast in float32 is float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()}
        return func(*args, **kwargs)


@contextmanager
def exact(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """A copy in float64, its casts to float32 removed while the context lasts."""
    twin = copy.deepcopy(module).double()
    with _Widened():
        yield twin
