"""Specs beside the official code itself, run from checkouts: outputs and gradients in float64, outputs in float32."""
from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import archdsl
from tests.parity.official import DOCSTRINGS, Base, Double, beside, checkout, importing, module
from tests.parity.proof import EXACT, randomise, relative

pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
pytest.importorskip("timm", reason="timm is in the `parity` extra")
from tests.parity import test_itransformer as series
from tests.parity import test_polycom as polycom

F64 = torch.float64


def tokens(*shape: int, below: int = 61) -> torch.Tensor:
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(3))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(sum(shape)))


# ---------------------------------------------------------------- LMUFormer
LMU = {"lmuformer": "lmu_rnn_conv1d", "spiking": "slmu_rnn_conv1d", "spiking_lmuformer": "slmu_rnn_ms_conv1d", "spiking_attention": "attn_ms_conv1d"}


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("variant", "batch", "T", "mel", "d"), [
    ("lmuformer", 2, 128, 5, 8), ("lmuformer", 1, 128, 128, 24), ("spiking", 2, 128, 128, 256), ("spiking_lmuformer", 3, 128, 5, 8),
    ("spiking_attention", 3, 21, 5, 16),
])
def test_lmuformer(variant, batch, T, mel, d, train):
    """128 frames, for which the official memory is built; the convolutions in front of `slmu_rnn_conv1d` have their default sizes alone."""
    checkout("LMUFormer")
    if variant != "lmuformer":
        pytest.importorskip("spikingjelly.clock_driven", reason="pip install spikingjelly==0.0.0.0.12, whose neurons the official code uses")
    with importing("LMUFormer", "src", missing=("spikingjelly", "sklearn", "matplotlib", "cupy")):
        code = module("lmu_rnn")
        util = module("utilities.util")
        reset = module("spikingjelly.clock_driven.functional").reset_net
    neuron = util.MultiStepLIFNode
    util.MultiStepLIFNode = lambda **knobs: neuron(**{**knobs, "backend": "torch"})  # asked for on a GPU

    def build():
        return getattr(code, LMU[variant])(in_channels=mel, embed_dims=d, num_heads=2, mlp_ratios=2, depths=2, sr_ratios=1, num_classes=3)

    def call(m, x):
        if variant != "lmuformer":
            reset(m)
        return m(x)

    spec = archdsl.load("specs/audio/lmuformer.arch")
    ours = spec.build(variant, dtype=F64, mel=mel, d=d, order=d if variant == "lmuformer" else 2 * d, depth=2, ratio=2, heads=2, classes=3)
    beside(ours, build, noise(batch, T, mel), source="official", call=call, train=train, single=variant == "lmuformer" and d < 24)


def test_lmuformer_frame_by_frame():
    """The official mean over frames so far, its memory step by step, beside our step form, which answers five frames later."""
    with importing("LMUFormer", "src", missing=("spikingjelly", "sklearn", "matplotlib", "cupy")):
        code = module("lmu_rnn")
    with Double():
        peer = code.lmu_rnn_conv1d(in_channels=5, embed_dims=8, num_heads=2, mlp_ratios=2, depths=2, sr_ratios=1, num_classes=3,
                                   test_mode="all_seq").double().eval()
    held = {k: v.clone() for k, v in peer.named_buffers() if k.endswith((".A", ".B"))}
    randomise(peer)
    for k, v in held.items():
        peer.get_buffer(k).copy_(v)
    for block in peer.block:
        block.attn.forward = block.attn.forward_recurrent
    models = archdsl.load("specs/audio/lmuformer.arch").models
    sizes: dict[str, Any] = dict(dtype=F64, mel=5, d=8, order=8, depth=2, ratio=2, classes=3)
    whole = models["LMUFormer.classify"].build("lmuformer", **sizes)
    listen = models["LMUFormer.listen"].build("lmuformer", form="step", **sizes).eval()
    archdsl.import_weights(whole, peer.state_dict(), source="official")
    listen.load_state_dict(whole.state_dict())
    sound, got, state = noise(2, 37, 5), [], listen.init_state(2)
    with torch.no_grad():
        with Double():
            want = peer(sound).transpose(0, 1)
        for t in range(37):
            y, state = listen(sound[:, t:t + 1], state)
            got.append(y)
        y, state = listen.flush(state)
        got.append(y)
    assert relative(torch.cat(got, 1)[:, 5:], want) <= EXACT and want.std() > 1e-4


# ---------------------------------------------------------------- dynamic routing
@pytest.mark.parametrize(("every", "p"), [(1, 0.4), (2, 0.6), (1, 0.9), (1, 0.0)])
@pytest.mark.parametrize("shape", [(2, 7), (1, 1), (3, 33)])
def test_dynamic_moe(every, p, shape):
    with importing("Dynamic_MoE", given={**DOCSTRINGS, "transformers.PreTrainedModel": Base}):
        model, config = (module(f"modeling.{n}") for n in ("modeling_moe", "configuration_moe"))
    knobs = config.MoEConfig(vocab_size=61, hidden_size=24, intermediate_size=20, num_hidden_layers=3, num_attention_heads=4, num_experts=6,
                             expert_frequency=every, top_p_threshold=p)
    ours = archdsl.load("dynamic_moe").build(dtype=F64, vocab=61, d=24, depth=3, heads=4, hidden=20, experts=6, every=every, p=p, strict=True)
    beside(ours, lambda: model.MoEForCausalLM(knobs), tokens(*shape), source="official",
           call=lambda m, x: m(x, use_cache=False, output_attentions=False, output_hidden_states=False, return_dict=True).logits)


# ---------------------------------------------------------------- MemoryFormer
@pytest.mark.parametrize("knobs", [{}, {"widen": "tables"}, {"value_dim": 12}], ids=str)
@pytest.mark.parametrize("shape", [(2, 9), (1, 1)])
def test_memoryformer(knobs, shape, monkeypatch):
    """The official decoder layers between an embedding and a head; hashes and gathers in its own torch forms, as its kernels are built for a GPU.
    Its norms add eps behind the root, ours inside: it is next to nothing for both."""
    flags = ("set_profiling_mode", "set_profiling_executor", "override_can_fuse_on_cpu", "override_can_fuse_on_gpu")
    given = {**{f"torch._C._jit_{n}": lambda on: None for n in flags}, "torch.jit.script": lambda f: f,
             "torch.utils.cpp_extension.load": lambda *args, **knobs: None}
    with importing("MemoryFormer", missing=("deepspeed", "apex", "ccs_cpu", "memory_module.gather.cpu", "memory_module.gather.cuda"), given=given,
                   bare=("megatron", "megatron.model")):
        vars(sys.modules["megatron"])["print_rank_0"] = lambda *message: None
        code = module("megatron.model.transformer")
        norms = module("megatron.model.norms")
    code.mpu.set_model_parallel_world_size(1)
    code.mpu.get_cuda_rng_tracker = lambda: SimpleNamespace(fork=nullcontext)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    wide = 3 * knobs.get("value_dim", 8)
    memory = dict(remove_projection=True, shared_projection=False, code_length=4, projection_type="dense", block_size=64,
                  learn_weight=False, act_fn="silu")
    args = SimpleNamespace(
        precision="fp32", params_dtype=torch.float32, apply_query_key_layer_scaling=False, attention_softmax_in_fp32=False, hidden_size=24,
        num_attention_heads=3, pos_emb="rotary", rotary_pct=0.5, rotary_emb_base=10_000, rotary_save_freqs_buffer=False, seq_length=32,
        use_qk_layernorm=False, sliding_window_width=None, use_bias_in_attn_linear=True, use_mup=False, rope_fusion=False,
        attention_config=["global"] * 2, attention_dropout=0.0, hidden_dropout=0.0, bias_dropout_fusion=False, gpt_j_residual=False, gpt_j_tied=False,
        mlp_type="MemoryBlock", aux_loss=False, norm="rmsnorm", rms_norm_epsilon=1e-30, zero_pad_residual=True, repeat_residual=False,
        double_mlp_table=True, mlp_expand_type="extra_table" if knobs.get("widen") == "tables" else "extra_bit", num_experts=1, expert_interval=1,
        scaled_upper_triang_masked_softmax_fusion=False, scaled_masked_softmax_fusion=False,
        memory_config={**memory, "hidden_size": wide, "output_size": 24, "ffn_num_table": wide // 4, "act_pos": "none"},
        attn_memory_config={**memory, "del_dense": True, "value_size": wide, "ffn_num_table": 6})

    def masked(scores, mask):
        return scores.masked_fill(mask, float("-inf"))

    def build():
        whole = nn.Module()
        whole.word_embeddings, whole.final_linear, whole.norm = nn.Embedding(53, 24), nn.Linear(24, 53, bias=False), norms.RMSNorm(24, eps=1e-30)
        whole.layers = nn.ModuleList(code.ParallelTransformerLayer(args, masked, nn.init.normal_, nn.init.normal_, i, rotary=True) for i in range(2))
        for m in whole.modules():
            if hasattr(m, "force_torch_op"):
                vars(m)["force_torch_op"] = True
        return whole

    def call(m, tokens):
        x, mask = m.word_embeddings(tokens).transpose(0, 1), torch.ones(1, 1, *tokens.shape[-1:] * 2).triu(1).bool()
        for layer in m.layers:
            if layer.attention.rotary_emb.cos_cached.dtype != x.dtype:  # tables that no conversion of a module finds
                layer.attention.rotary_emb.cos_cached, layer.attention.rotary_emb.sin_cached, _ = layer.attention.rotary_emb._prepare_cache(
                    32, x.dtype, 10_000)
            x, _ = layer(x, mask)
        return m.final_linear(m.norm(x)).transpose(0, 1)

    ours = archdsl.load("memoryformer").build(dtype=F64, vocab=53, d=24, depth=2, heads=3, bits=4, rotary=4, eps=1e-30, **knobs)
    beside(ours, build, tokens(*shape, below=53), source="official", call=call)


# ---------------------------------------------------------------- PolyCom
@pytest.mark.parametrize("act", ["polynorm", "polyrelu"])
@pytest.mark.parametrize("shape", [(2, 7), (1, 1)])
def test_polycom(act, shape):
    """The activations of the official dense model in transformers' Llama."""
    with importing("PolyCom", "dense_model", missing=("megatron", "flash_attn"), bare=("megatron_patch", "megatron_patch.model")):
        code = module("megatron_patch.model.llama2.transformer")
    kind = {"polynorm": code.PolyNorm, "polyrelu": code.PolyReLU}[act]

    def build():
        peer = polycom.transformers.LlamaForCausalLM(polycom.transformers.LlamaConfig(**polycom.CONFIG, intermediate_size=36))
        for layer in peer.model.layers:
            layer.mlp = polycom.Plain(kind())
        return peer

    ours = archdsl.load("polycom").build(dtype=F64, act=act, **polycom.DENSE)
    beside(ours, build, tokens(*shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits)


class Tiled(nn.Module):
    """Experts whose hidden units come in square tiles, as the official activation takes them: rows (tokens) are filled up with zeros."""

    def __init__(self, act: nn.Module):
        super().__init__()
        self.up_proj, self.down_proj, self.act_fn = nn.Parameter(torch.randn(5, 12, 24)), nn.Parameter(torch.randn(5, 24, 12)), act

    def forward(self, x, index, weights, side=4):
        every = []
        for up, down in zip(self.up_proj, self.down_proj):
            h = nn.functional.pad(x @ up.mT, (0, 0, 0, -len(x) % side))
            tiles = h.view(-1, side, 12 // side, side).transpose(1, 2).reshape(-1, side, side)
            h = self.act_fn(tiles).view(-1, 12 // side, side, side).transpose(1, 2).reshape(-1, 12)[:len(x)]
            every.append(h @ down.mT)
        return (torch.stack(every, 1).gather(1, index[..., None].expand(*index.shape, 24)) * weights[..., None]).sum(1)


@pytest.mark.parametrize("act", ["polynorm", "polyrelu"])
@pytest.mark.parametrize("shape", [(2, 7), (1, 1)])
def test_polycom_mixture(act, shape):
    """The activations of the official mixture, over tiles, in transformers' OLMoE."""
    with importing("PolyCom", "moe_model", missing=("omegaconf", "olmo.util", "olmo.config", "olmo.torch_util"), bare=("olmo",)):
        code = module("olmo.model")
    kind, sizes = {"polynorm": code.PolyNorm, "polyrelu": code.PolyReLU}[act], SimpleNamespace(mlp_hidden_size=12, init_device="cpu")

    def build():
        peer = polycom.transformers.OlmoeForCausalLM(polycom.transformers.OlmoeConfig(
            **polycom.CONFIG, intermediate_size=12, num_experts=5, num_experts_per_tok=2, norm_topk_prob=False, experts_implementation="eager"))
        for layer in peer.model.layers:
            layer.mlp.experts = Tiled(kind(sizes))
        return peer

    ours = archdsl.load("polycom").models["PolyComMoE"].build(dtype=F64, act=act, **polycom.SPARSE)
    beside(ours, build, tokens(*shape), source="hf", call=lambda m, x: m(x, use_cache=False).logits)


# ---------------------------------------------------------------- iTransformer
SETTINGS: list[Any] = [((2, 11, 7), {}), ((1, 11, 1), {"horizon": 64}), ((2, 11, 5), {"act": "relu"}),
                       ((2, 30, 5), {"lookback": 30, "horizon": 1, "hidden": 48})]


@pytest.mark.parametrize(("kind", "shape", "changes"), [
    *(("full", *s) for s in SETTINGS), ("full", (3, 11, 4), {"standardised": False}), *(("flow", *s) for s in SETTINGS),
    ("sparse", (2, 11, 5), {"factor": 5}),
])
@pytest.mark.parametrize("marks", [0, 3])
def test_itransformer(kind, shape, changes, marks):
    """Sparse attention where its factor takes all keys and queries, which are drawn otherwise; but for standardised series, the official file has
    full attention alone."""
    with importing("iTransformer", missing=("reformer_pytorch",)):
        code = module({"full": "model.iTransformer", "flow": "model.iFlowformer", "sparse": "model.iInformer"}[kind])
    sizes = {**series.SIZES, "act": "gelu", "standardised": True, "factor": 1, **changes}
    knobs = SimpleNamespace(
        seq_len=sizes["lookback"], pred_len=sizes["horizon"], d_model=sizes["d"], d_ff=sizes["hidden"], n_heads=sizes["heads"], e_layers=2,
        activation=sizes["act"], factor=sizes["factor"], use_norm=sizes["standardised"], output_attention=False, embed="timeF", freq="h",
        dropout=0.1, class_strategy="projection")
    seen = series.table(shape[0], shape[1], marks, seed=1) if marks else None

    def call(m, x):
        return m(x, seen if seen is None else seen.to(x.dtype), None, None)

    model = series.ours(**{"layers.*.attention": kind}, **changes, **({} if marks else {"marks": None}))
    if seen is not None:
        model.register_forward_pre_hook(lambda m, inputs: (*inputs, seen.to(inputs[0].dtype)))
    beside(model, lambda: code.Model(knobs), series.table(*shape), source="official", call=call, single=not marks)
