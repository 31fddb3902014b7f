"""Ladder-residual beside its official code, run from a checkout: the model for transformers, and the code for inference over devices."""
from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, TypedDict

import pytest
import torch

import archdsl
from tests.parity.official import DOCSTRINGS, Base, Double, beside, importing, module
from tests.parity.proof import EXACT, randomise, relative

pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
F64 = torch.float64


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 61, shape, generator=torch.Generator().manual_seed(3))


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
        self.barrier, self.given = threading.Barrier(devices, timeout=500), {}

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

    torch.set_default_dtype(F64)  # of all threads: the first `Double` to end would put back another one under those that still run
    try:
        with ThreadPoolExecutor(devices) as pool:
            wants = list(pool.map(run, peers))
    finally:
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
