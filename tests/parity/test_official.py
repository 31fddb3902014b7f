"""Specs beside the official code itself, run from checkouts: outputs and gradients in float64, outputs in float32."""
from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, TypedDict

import pytest
import torch
from torch import nn

import archdsl
from tests.parity.official import Double, beside, checkout, importing, module
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


# ---------------------------------------------------------------- dynamic routing
def decorator(*args: Any, **knobs: Any) -> Any:
    """What transformers had for docstrings."""
    return lambda f: f


DOCSTRINGS = {f"transformers.utils.{n}": decorator for n in (
    "add_start_docstrings", "add_start_docstrings_to_model_forward", "replace_return_docstrings", "add_code_sample_docstrings")}


class Base(nn.Module):
    """As much of transformers' base class as a forward pass needs: the official code is written for an older one."""

    def __init__(self, config: Any):
        super().__init__()
        self.config = config

    def post_init(self) -> None:
        pass


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


# ---------------------------------------------------------------- Ladder
SIZES: dict[str, Any] = dict(vocab=61, d=32, depth=4, heads=4, kv_heads=2, hidden=48)


def frequencies(config: Any, device: Any = None, **_: Any) -> tuple[torch.Tensor, float]:
    """transformers' default rotary table, which it has elsewhere now."""
    width = config.hidden_size // config.num_attention_heads
    return config.rope_theta ** (-torch.arange(0, width, 2).float() / width), 1.0


@pytest.mark.parametrize("ladder", [[0, 1, 2, 3], [2, 3], [0, 2], [1], []])
@pytest.mark.parametrize("shape", [(2, 13), (1, 1)])
def test_ladder_in_some_layers(ladder, shape):
    given = {**DOCSTRINGS, "transformers.modeling_utils.PreTrainedModel": Base, "transformers.utils.LossKwargs": TypedDict("LossKwargs", {}),
             "transformers.pytorch_utils.ALL_LAYERNORM_LAYERS": [], "transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS": {"default": frequencies},
             "transformers.utils.is_flash_attn_greater_or_equal_2_10": lambda: False}
    with importing("ladder-residual-inference", missing=("transformers.modeling_attn_mask_utils",), given=given):
        code = module("hf_modeling_utils.modeling_llama_ladder")
    knobs = SimpleNamespace(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5,
        rope_theta=10_000.0, rope_scaling=None, max_position_embeddings=64, pad_token_id=None, attention_dropout=0.0, attention_bias=False,
        mlp_bias=False, hidden_act="silu", head_dim=8, ladder_layers=ladder, pretraining_tp=1, _attn_implementation="eager")
    ours = archdsl.load("ladder").build(dtype=F64, ladder=ladder, base=10_000, **SIZES)
    beside(ours, lambda: code.LlamaLadderForCausalLM(knobs), tokens(*shape), source="hf",
           call=lambda m, x: m(x, use_cache=False, output_attentions=False, output_hidden_states=False, return_dict=True).logits)


class Meeting:
    """The sum over devices, each of which is a thread here."""

    def __init__(self, devices: int):
        self.barrier, self.given = threading.Barrier(devices, timeout=60), {}

    def __call__(self, x: torch.Tensor, clone: bool = False, async_op: bool = False) -> tuple[torch.Tensor, None]:
        self.given[threading.get_ident()] = x
        self.barrier.wait()
        total = sum(self.given[k] for k in sorted(self.given))
        self.barrier.wait()
        return total, None  # type: ignore[return-value]


def inference_code(kind: str, devices: int) -> Any:
    """The code for inference with tensor parallelism; its norm is the torch form that it has for compilation, its all-reduce one between threads."""
    given = {"torch.distributed.get_rank": lambda: 0, "torch.distributed.get_world_size": lambda: devices,
             "torch.distributed.is_initialized": lambda: True}
    with importing("ladder-residual-inference", missing=("flash_attn", "liger_kernel", "triton"), given=given, bare=("gpt_fast",)):
        code = module(f"gpt_fast.gpt_{kind}_TP")
        utils = module("gpt_fast.utils")
    utils.RMSNorm.forward = lambda self, x: self._norm(x) * self.weight
    code.all_reduce_func = Meeting(devices)

    class Add:
        def __getitem__(self, grid: Any) -> Any:
            return lambda x, y, out, n, block: out.copy_(x + y)

    code.add_tensor_forward_triton_kernel = Add()
    return code


def interleaved(w: torch.Tensor, width: int = 8) -> torch.Tensor:
    """Rows of a query or key map for a rotation of neighbours instead of halves."""
    return w.unflatten(0, (-1, 2, width // 2)).transpose(1, 2).flatten(0, 2)


def shards(state: dict[str, torch.Tensor], attn: str, mlp: str, norms: tuple[str, str], j: int, devices: int) -> dict[str, torch.Tensor]:
    """A layer of theirs on device j; names with `{j}` hold one device's part already."""
    def part(name: str, axis: int = 0) -> torch.Tensor:
        w = state[name.format(j=j)]
        return w if "{j}" in name else w.chunk(devices, axis)[j]

    q, k, v, up, gate = (part(f"{name}.weight") for name in (f"{attn}.q", f"{attn}.k", f"{attn}.v", f"{mlp}.up", f"{mlp}.gate"))
    return {"attention.wqkv.weight": torch.cat([interleaved(q), interleaved(k), v]), "attention.wo.weight": part(f"{attn}.out.weight", 1),
            "feed_forward.w1.weight": torch.cat([up, gate]), "feed_forward.w2.weight": part(f"{mlp}.down.weight", 1),
            "attention_norm.weight": state[norms[0]], "ffn_norm.weight": state[norms[1]]}


def device_state(state: dict[str, torch.Tensor], kind: str, j: int, devices: int) -> dict[str, torch.Tensor]:
    out = {"tok_embeddings.weight": state["embed.weight"], "norm.weight": state["norm.weight"], "output.weight": state["head.weight"]}
    for i in range(4):
        at = f"layers.{i}"
        if kind == "ladder":
            layer = shards(state, f"{at}.attn", f"{at}.mlp", (f"{at}.attn.norm.weight", f"{at}.mlp.norm.weight"), j, devices)
        else:
            b = [f"{at}.branches.{k}" for k in range(2)]
            layer = shards(state, b[0] + ".shards.{j}.share", b[1] + ".shards.{j}.share", (b[0] + ".norm.weight", b[1] + ".norm.weight"), j, devices)
        out |= {f"{at}.{k}": v for k, v in layer.items()}
    return out


@pytest.mark.parametrize(("kind", "devices", "knobs", "shape"), [
    ("ladder", 1, {}, (2, 13)), ("ladder", 2, {"base": 500_000.0}, (1, 1)), ("ladder", 2, {}, (2, 13)), ("ladder", 1, {"scaled": True}, (1, 40)),
    ("desync", 2, {"reduced": [1, 3, 5, 7]}, (2, 13)), ("desync", 2, {"reduced": [0, 2, 5, 7]}, (1, 5)), ("desync", 2, {"reduced": [7]}, (2, 7)),
    ("desync", 1, {"reduced": [7]}, (2, 7)),
])
def test_ladder_over_devices(kind, devices, knobs, shape):
    code = inference_code(kind, devices)
    scaled, knobs = knobs.get("scaled"), {"base": 10_000.0, **{k: v for k, v in knobs.items() if k != "scaled"}}
    if kind == "ladder":
        ours = archdsl.load("ladder").models["Ladder"].build("llama31_8b" if scaled else "llama3_8b", dtype=F64, **SIZES, **knobs)
    else:
        ours = archdsl.load("ladder").models["Desync"].build(dtype=F64, devices=devices, **SIZES, **knobs)
    randomise(ours)
    args: dict[str, Any] = dict(block_size=64, vocab_size=61, n_layer=4, n_head=4, n_local_heads=2, dim=32, intermediate_size=48,
                                rope_base=knobs["base"])
    if scaled:
        args["rope_scaling"] = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    if kind == "desync":
        args["reduce_pattern"] = [{"attention": 2 * i in knobs["reduced"], "mlp": 2 * i + 1 in knobs["reduced"]} for i in range(4)]
    x, places = tokens(*shape), torch.arange(shape[1])
    peers: list[Any] = []
    for j in range(devices):
        with Double():
            peer = (code.GPTLadder if kind == "ladder" else code.GPTDesync)(code.ModelArgs(**args)).double()
            peer.setup_caches(shape[0], shape[1])
        peer.load_state_dict(device_state(ours.state_dict(), kind, j, devices), strict=False)
        peers.append(peer)
    for peer in peers:  # without caches, which no gradient passes
        peer.causal_mask = peer.causal_mask[:shape[1], :shape[1]]
        for layer in peer.layers:
            layer.attention.kv_cache = None
    default = torch.get_default_dtype()

    def run(peer: Any) -> torch.Tensor:
        with Double():
            return peer(x, places)

    with ThreadPoolExecutor(devices) as pool:
        wants = list(pool.map(run, peers))
    torch.set_default_dtype(default)
    got = ours(x)
    assert all(relative(got, want) <= EXACT for want in wants) and wants[0].std() > 1e-4
    probe = torch.randn(got.shape, dtype=F64, generator=torch.Generator().manual_seed(7))
    (got * probe).sum().backward()
    (wants[0] * probe).sum().backward()
    grads = {k: p.grad for k, p in ours.named_parameters()}
    largest = max(g.abs().max() for g in grads.values())
    for j, peer in enumerate(peers):
        mine = device_state(grads, kind, j, devices)
        for name, p in peer.named_parameters():
            own = any(part in name for part in ("attention.w", "feed_forward"))
            theirs = p.grad if own else sum(g for q in peers if (g := q.get_parameter(name).grad) is not None)
            assert (mine[name] - theirs).abs().max() <= EXACT * largest, name


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
