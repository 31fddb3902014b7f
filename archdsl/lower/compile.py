"""Regional compilation and activation checkpointing: by block, with the names of everything unchanged."""
from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Thread
from typing import Any

import torch
from torch import nn

from archdsl.alone import ALONE
from archdsl.lower.module import ArchModule, blocks, class_of
from archdsl.lower.plan import matches

Selector = str | Callable[[str, nn.Module], bool]
PARTITIONED = ("inductor", "aot_eager", "aot_eager_decomp_partition")
"""torch's backends that read its setting for a share of memory."""


def compile_layers(model: nn.Module, selector: Selector | None = None, *, fullgraph: bool = True, memory: float | None = None,
                   **kw: Any) -> list[str]:
    """Compiles every repeated block on its own (`torch.compile`'s arguments pass through) and returns their addresses.

    Instances of one class share compiled code, so the time to compile does not grow with depth. selector: an address pattern such as
    `layers.*` or a predicate (address, module); default: the outermost blocks that occur more than once. memory: how much the blocks keep for the
    backward pass, from 0, their inputs alone, to 1, what torch keeps by itself (default): what takes least arithmetic is computed again, first
    norms, activations and other pointwise maps, then products of matrices. A backend that is a function of one's own has to partition by torch's
    `min_cut_rematerialization_partition`, or `memory` changes nothing, of which a UserWarning tells when it compiles. Raises ValueError for another
    `memory`, and for one with a named backend that does not partition so; RuntimeError, as torch, for a `mode` or `options` that inductor does not
    know.
    """
    if memory is not None and not 0 <= memory <= 1:
        raise ValueError(f"`memory` is a share from 0 to 1, not {memory!r}")
    chosen = layers(model, selector)
    if kw.get("backend", "inductor") == "inductor" and any(p.device.type == "cpu" for p in model.parameters()):
        probe_vector_instructions()
    if memory is not None:
        kw["backend"] = _within(memory, kw.get("backend", "inductor"), kw.get("mode"), kw.get("options"))
    for _, module in chosen:
        module.compile(fullgraph=fullgraph, **kw)
    return [name for name, _ in chosen]


def _within(memory: float, backend: Any, mode: str | None, options: dict[str, Any] | None) -> Callable[..., Any]:
    """A backend, with a share of memory for what a graph keeps. One for each share of a named backend, so that equal blocks share compiled code."""
    if not isinstance(backend, str):
        return _budgeted(memory, backend)
    if backend not in PARTITIONED:
        raise ValueError(f"`memory` goes with a backend that divides a graph by what it keeps ({', '.join(PARTITIONED)}), not with `{backend}`")
    if backend == "inductor":
        _patches(mode, options)
    return _named(memory, backend)


def _patches(mode: str | None, options: dict[str, Any] | None) -> dict[str, Any]:
    """Inductor's settings, as torch reads and checks them."""
    from torch import _TorchCompileInductorWrapper

    return _TorchCompileInductorWrapper(mode, options, None).config


@cache
def _named(memory: float, backend: str) -> Callable[..., Any]:
    return _budgeted(memory, backend)


def _budgeted(memory: float, backend: Any) -> Callable[..., Any]:
    """torch has a setting for the share, which it reads when it compiles."""
    from torch._dynamo.backends.registry import lookup_backend
    from torch._functorch import config

    from archdsl.ops.kernels import weighed

    run = lookup_backend(backend)

    def compiled(graph: Any, inputs: Any, *, mode: str | None = None, options: dict[str, Any] | None = None) -> Any:
        kw: dict[str, Any] = {} if options is None else {"options": options}
        if backend == "inductor":
            kw = {"config_patches": _patches(mode, options)}
        with config.patch(activation_memory_budget=memory), weighed(), _chosen() as asked:
            made = run(graph, inputs, **kw)
        kept = torch.is_grad_enabled() and any(x.requires_grad for x in (*inputs, *graph.parameters()) if isinstance(x, torch.Tensor))
        if kept and not asked and not isinstance(backend, str):
            warnings.warn(f"the backend {getattr(backend, '__name__', type(backend).__name__)} takes no notice of `memory`: it does not partition by "
                          "torch's min_cut_rematerialization_partition while it compiles", stacklevel=2)
        return made

    return compiled


@contextmanager
def _chosen() -> Iterator[list[bool]]:
    """Inside, the list gets an item whenever torch chooses what a graph keeps for the backward pass, or takes from its cache what it chose before."""
    from torch._dynamo.utils import counters
    from torch._functorch import partitioners

    choose, asked = partitioners.choose_saved_values_set, list[bool]()
    before = counters["aot_autograd"]["autograd_cache_hit"]

    def noted(*args: Any, **kw: Any) -> Any:
        asked.append(True)
        return choose(*args, **kw)

    partitioners.choose_saved_values_set = noted
    try:
        yield asked
        asked += [True] * (counters["aot_autograd"]["autograd_cache_hit"] - before)
    finally:
        partitioners.choose_saved_values_set = choose


def probe_vector_instructions() -> list[Thread]:
    """Sees to the trial compilations by which inductor finds out which vector instructions the processor and the compiler have.

    Inductor makes them one after another before its first C++ kernel, a tenth of a minute each where nothing of them is on disk, and waits for those
    that have been started. With a processor for each they are started side by side, in the threads that are returned; with fewer, `probe_widest`.
    The answers are inductor's own; where it has no such probes (another version, another processor), nothing is done.
    """
    from torch._inductor import config, cpu_vec_isa

    known = getattr(cpu_vec_isa, "supported_vec_isa_list", ())
    flags = set(cpu_vec_isa.x86_isa_checker()) if hasattr(cpu_vec_isa, "x86_isa_checker") else set()
    if config.cpp.vec_isa_ok is not None:
        return []
    able = [isa for isa in known if flags.issuperset(str(isa).split())]
    if processors() < len(able) and config.cpp.simdlen is None and "ATEN_CPU_CAPABILITY" not in os.environ:
        probe_widest(able)
        return []
    threads = [Thread(target=bool, args=(isa,), daemon=True) for isa in able]
    for thread in threads:
        thread.start()
    return threads


def probe_widest(able: list[Any]) -> None:
    """Probes the first of these sets of instructions, the widest, which inductor will take if it can, and spares the others where it can.

    Each set holds those behind it, and the trial program is the same for all. Inductor keeps the answers as long as the process lasts.
    """
    from torch._inductor import config, cpu_vec_isa

    if able and able[0]:
        with ALONE, config.patch({"cpp.vec_isa_ok": True}):
            cpu_vec_isa.valid_vec_isa_list()


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def checkpoint_layers(model: nn.Module, selector: Selector | None = None) -> list[str]:
    """Makes the chosen blocks (as in `compile_layers`) keep their inputs alone and compute again in the backward pass; returns their addresses.

    Buffers are updated once; copies and pickles of the model keep the setting.
    """
    chosen = layers(model, selector)
    for _, module in chosen:
        if not type(module).rematerialised:
            _rematerialise(module)
    return [name for name, _ in chosen]


def _rematerialise(module: ArchModule) -> None:
    cls = type(module)
    shared = class_of(cls.definition, rematerialised=True)
    if cls.detached:
        edited = module.graph
        module.__class__ = shared
        module.graph = edited
    else:
        module.__class__ = shared


def layers(model: nn.Module, selector: Selector | None = None) -> list[tuple[str, ArchModule]]:
    """The blocks that a selector chooses, none inside another. Raises TypeError for a model that holds nothing that archdsl built, ValueError for
    a selector that chooses nothing."""
    found = list(blocks(model))
    if not found:
        raise TypeError(f"{type(model).__name__} holds no block that archdsl built")
    if selector is None:
        counts = Counter(_kind(m) for _, m in found)
        chosen = [(name, m) for name, m in found if counts[_kind(m)] > 1 and name]
    elif callable(selector):
        chosen = [(name, m) for name, m in found if selector(name, m)]
    else:
        chosen = [(name, m) for name, m in found if matches(selector.split("."), name.split("."))]
    if selector is not None and not chosen:
        raise ValueError(f"no block has an address like {selector!r}; there are {', '.join(n for n, _ in found if n) or 'none'}")
    outer: list[tuple[str, ArchModule]] = []
    for name, module in chosen:
        if not any(name.startswith(f"{other}.") for other, _ in outer):
            outer.append((name, module))
    if selector is None:  # a norm behind the layers is like those inside them, but stands alone: compiling it would cost more than it saves
        counts = Counter(_kind(m) for _, m in outer)
        outer = [(name, m) for name, m in outer if counts[_kind(m)] > 1]
    return outer


def _kind(module: ArchModule) -> str:
    return type(module).definition.key
