"""`F` in the code of a model for the CPU: torch.nn.functional, some of whose functions look for a kernel first.

A kernel is taken for tensors that hold numbers, where nothing but autograd looks on: what compiles, exports, traces, transforms or counts the model
sees torch's own functions, and so does whatever reads its graph. What a kernel computes has gradients; their own gradients are those of torch's
function. `layer_norm` and `scaled_dot_product_attention` have no kernels here: they are torch's, but within torch.compile layer norms of maps are
those of their rows, and attention with a bias that learns is written out."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

from archdsl.kernels import learned_bias
from archdsl.kernels.running import bound

if TYPE_CHECKING:
    from archdsl.kernels.target import Target

PLAIN = (torch.Tensor, torch.nn.Parameter)
SMALL = 2**14
"""Numbers that are read and written below which a kernel is not looked for: it takes longer to look."""
_C: Any = torch._C
_compiling = torch.compiler.is_compiling


def functional(target: Target) -> dict[str, Any]:
    """The globals of a model's code that stand in the place of torch's: none where it is built for another device, or for torch alone."""
    from archdsl.kernels.bindings import REFERENCE

    if target.device != "cpu" or target.every or target.caches:
        return {}
    return {"F": _module(frozenset(f for f in FUNCTIONS if target.asked(OPS.get(f, f)) == REFERENCE))}


@cache
def _module(without: frozenset[str]) -> ModuleType:
    made = ModuleType("torch.nn.functional", F.__doc__)
    made.__dict__.update({name: run for name, run in FUNCTIONS.items() if name not in without})
    made.__dict__["__getattr__"] = lambda name: getattr(F, name)  # at each call: what counts may have put a function of its own there
    return made


def _plain(x: Any) -> bool:
    """Whether the size of a tensor may be looked at: nothing reads that as a part of what is computed."""
    return not _compiling() and type(x) in PLAIN and _C._get_tracing_state() is None


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """torch.nn.functional.linear."""
    if _plain(x) and x.numel() >= SMALL:
        run = _kernel("linear", ("x", "weight", "bias"), (x, weight, bias), {})
        if run is not None:
            return run(x, weight, bias)
    return F.linear(x, weight, bias)


def rms_norm(x: Any, shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """torch.nn.functional.rms_norm."""
    if _plain(x) and x.numel() >= SMALL and tuple(shape) == x.shape[-1:] and eps is not None:
        run = _kernel("rms_norm", ("x", "weight"), (x, weight), {"eps": eps})
        if run is not None:
            return run(x, weight, eps=eps)
    return F.rms_norm(x, shape, weight, eps)


def layer_norm(x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """torch.nn.functional.layer_norm. Beside convolutions Inductor takes all of four axes that a backward pass needs for maps with the channels
    second, and lays [B, H, W, c] out with H innermost; what is kept of rows has two axes."""
    if x.ndim == 4 and len(shape) == 1 and torch.compiler.is_dynamo_compiling():
        return F.layer_norm(x.flatten(0, 2), shape, weight, bias, eps).view(x.shape)
    return F.layer_norm(x, shape, weight, bias, eps)


def scaled_dot_product_attention(q: Any, k: Any, v: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
                                 scale: float | None = None, enable_gqa: bool = False) -> Any:
    """torch.nn.functional.scaled_dot_product_attention; see `archdsl/kernels/learned_bias.py`."""
    if torch.compiler.is_dynamo_compiling() and not learned_bias.exporting() and dropout_p == 0 and learned_bias.takes(q, k, v, attn_mask):
        return learned_bias.attend(q, k, v, attn_mask, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "linear": linear, "rms_norm": rms_norm, "layer_norm": layer_norm, "scaled_dot_product_attention": scaled_dot_product_attention}
"""By the names that torch gives them."""
OPS = {"scaled_dot_product_attention": "attention"}
"""The ops that they compute, where these have other names."""
_TORCH = {name: getattr(F, name) for name in FUNCTIONS}


def _kernel(op: str, names: tuple[str, ...], given: tuple[Any, ...], attributes: dict[str, Any]) -> Callable[..., Any] | None:
    """The `eager` of the kernel that is chosen for these tensors, None for torch's function."""
    if watched() or getattr(F, op) is not _TORCH[op]:
        return None
    if any(x is not None and not (type(x) in PLAIN and x.is_cpu and x.layout is torch.strided) for x in given):
        return None
    found = bound(op, names, given, attributes, None)
    return None if found is None else found.eager


def watched() -> bool:
    """Whether something beside autograd looks on at what torch computes: a transform of `torch.func`, forward mode, a trace, a mode that sees
    every op, autocast."""
    return (torch.is_autocast_enabled("cpu") or _C._len_torch_dispatch_stack() > 0 or _C._len_torch_function_stack() > 0
            or _C._get_tracing_state() is not None or _C._are_functorch_transforms_active() or forward_ad._current_level >= 0)


def differentiated(*given: Any) -> bool:
    """Whether autograd is to keep how a result of these comes about."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given)


def seen_through(dy: Any) -> bool:
    """Of a gradient in a backward pass: whether torch has to see each op of it, for it is differentiated itself, or computed for several gradients at
    once."""
    return torch.is_grad_enabled() or watched() or not _C._dispatch_keys(dy).has(_C.DispatchKey.CPU)
