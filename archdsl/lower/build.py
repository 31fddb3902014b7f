"""Builds the modules of a lowered model: classes from definitions, containers along addresses, weights with their initial values."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from archdsl.alone import alone
from archdsl.collection import no_garbage
from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.graph import Graph, Node, Param, TensorType
from archdsl.kernels.target import Kernels, Target, target
from archdsl.lower.feeding import fed
from archdsl.lower.fusing import fused
from archdsl.lower.init import fill, fixed, seed_of
from archdsl.lower.losses import with_loss
from archdsl.lower.module import ArchModule, class_of
from archdsl.lower.moulds import Mould, holds_nothing
from archdsl.lower.parts import Scope
from archdsl.lower.plan import Definition, plan, select
from archdsl.ops.rules import DTYPES, dtype_name, torch_dtype
from archdsl.source import Source as Text
from archdsl.source import Span
from archdsl.streaming import Source, in_form


def lower(graph: Graph, *, seed: int = 0, device: str | torch.device = "cpu", dtype: torch.dtype | str | None = None, emit: str | Iterable[str] = (),
          flat: bool = False, hoist: bool = True, bind: Mapping[str, Callable[..., nn.Module]] | None = None,
          form: str = "parallel", source: Source | None = None, feed: str | Iterable[str] = (), kernels: Kernels = None,
          loss: str | None = None, made_for: Target | None = None) -> ArchModule:
    """The model that a typed graph describes, with initial weights that depend on `seed` and their addresses alone.

    dtype: of everything the spec does not pin (default: torch's default dtype). emit: address patterns (`layers.*.balance`; `**` for any number
    of segments); with it, the model returns (outputs, {address: value}). flat: one module without blocks inside. hoist: tables that several
    blocks would compute are computed once. feed: address patterns of draws that the caller gives, `model(x, draws = {address: tensor})`; all others
    come from torch's generator. form: `extend` and `step` keep a state along the axis that
    `source` names. bind: classes for `extern` blocks. device "meta": shapes alone, no initial values. kernels: `reference`, or which kernel computes
    which op (`{"ssd": "triton"}`); what is not told is chosen. loss: of `LOSSES`; the model then takes targets behind its inputs and gives the mean
    loss in place of its first result. made_for: another target than `device` and `kernels` say.
    Raises ArchError A0501 (no such form), A0511 (emit matches nothing), A0513 (an extern block without a class, a class without an extern block),
    A0517 (feed matches no draw), A0519 (a kernel that cannot be used), A0526 (the model cannot end in this loss), A0644 (no float type),
    TypeError for a seed that is no whole number, torch.OutOfMemoryError that says at which weight.
    """
    dtype = float_type(dtype)
    if not hasattr(seed, "__index__"):
        raise TypeError(f"seed is a whole number, not {seed!r}")
    if bind:
        _known(graph, bind)
    source, emit = source or Source(graph, None), (emit,) if isinstance(emit, str) else tuple(emit)
    builder = _Builder(torch.device(device), dtype, seed, bind or {})
    try:
        model = _model(builder, graph, source, form, loss, emit=emit, flat=flat, hoist=hoist, feed=feed, kernels=kernels, made_for=made_for)
        if builder.device.type != "meta":
            fill(model, model.__dict__["_typed"], seed, dtype)
    except torch.OutOfMemoryError as fault:
        from archdsl.lower.exhausted import unbuilt

        raise unbuilt(graph, builder.device, dtype, fault) from fault
    return model


@alone
def _model(builder: _Builder, graph: Graph, source: Source, form: str, loss: str | None, *, feed: str | Iterable[str], kernels: Kernels,
           made_for: Target | None, **how: Any) -> ArchModule:
    """The model, its weights empty. `how`: as `plan` takes it."""
    streamed = in_form(source, form, select(source.graph, how["emit"]) if source.graph.emits else ())
    graph = graph if streamed is None else streamed.graph
    held: dict[str, Any] = {} if streamed is None else {"state": streamed.addresses, "moves": (streamed.step, streamed.longest)}
    ended, told = (graph, None) if loss is None else with_loss(graph, loss, form)
    opened, draws = fed(ended, feed)
    held["target"] = made_for or target(opened, builder.device.type, kernels)
    with no_garbage():
        opened = fused(opened, held["target"], dtype_name(builder.dtype))
        definition = plan(opened, dtype=str(builder.dtype).removeprefix("torch."), draws=draws, **how, **held)
        model = builder.model(definition)
    model.__dict__["_typed"] = graph  # the class may come from an equal graph with other knobs
    model.__dict__.update(_source=source, _streamed=streamed, _loss=told, _externs=tuple(builder.externs))
    return model


@alone
def instance(definition: Definition, device: str | torch.device = "cpu", dtype: torch.dtype | str | None = None) -> ArchModule:
    """One class of a lowered model by itself, its weights without values. Raises ArchError A0513 for one with an extern block."""
    return _Builder(torch.device(device), float_type(dtype), 0, {}).module(definition)


def _known(graph: Graph, bind: Mapping[str, Any]) -> None:
    """Every class is for an extern block of the graph. Raises A0513."""
    known = {n.attrs["block"] for g in graph.definitions() for n in g.nodes if n.op == "extern"}
    for name in bind:
        if name not in known:
            has = f"it has {', '.join(f'`{n}`' for n in sorted(known))}" if known else "it has none"
            raise error("A0513", f"`{graph.name}` has no extern block `{name}`", Span(Text("bind", name), 0, len(name)), "nothing to bind to",
                        help=did_you_mean(name, known) or (has,))


def float_type(dtype: torch.dtype | str | None) -> torch.dtype:
    """torch's float type for `dtype`: itself, its name in the language (`bf16`) or in torch (`bfloat16`), none for the default. Raises A0644."""
    if dtype is None:
        return torch.get_default_dtype()
    named = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else ""
    found = getattr(torch, named, None) if named in DTYPES.values() else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        text = str(dtype)
        raise error("A0644", f"`{text}` is no float type to build with", Span(Text("dtype", text), 0, len(text)), "not known",
                    help='for example `dtype = torch.bfloat16`, or its name in the language: `"bf16"`')
    return found


class _Builder:
    def __init__(self, device: torch.device, dtype: torch.dtype, seed: int, bind: Mapping[str, Callable[..., nn.Module]]):
        self.device, self.dtype, self.seed, self.bind = device, dtype, seed, bind
        self.externs: list[str] = []
        self.moulded = holds_nothing(device) and not bind

    def model(self, definition: Definition) -> ArchModule:
        """The instance of a root, which is made once."""
        return self._module(definition, "")

    def module(self, definition: Definition, address: str = "") -> ArchModule:
        """An instance with its own weights empty and everything below in place."""
        if not self.moulded or str(self.dtype) != f"torch.{definition.dtype}":
            return self._module(definition, address)
        if definition.mould is None:
            made = self._module(definition, address)
            definition.mould = Mould(made)
            return made
        return definition.mould()

    def _module(self, definition: Definition, address: str) -> ArchModule:
        cls = class_of(definition)
        module = cls()
        for p in definition.graph.params:
            self._add_param(module, p.path, p)
        for path, child in definition.graph.children.items():
            if path in definition.children:
                _place(module, path, self.module(definition.children[path], f"{address}{path}."))
            else:
                for inner, p in child.parameters(f"{path}."):
                    self._add_param(module, inner, p)
        for node in definition.graph.nodes:
            if node.op == "extern":
                _place(module, node.attrs["path"], self._extern(node, address))
        for name, what in cls._parts.items():
            part = what.make(self.module)
            if isinstance(part, torch.Tensor):
                module.register_buffer(name, torch.empty(part.shape, dtype=part.dtype, device=self.device), persistent=False)
                _fill(module.get_buffer(name), part)
            else:
                module.add_module(name, part)
        return _numbered(module)

    def _add_param(self, module: nn.Module, path: str, p: Param) -> None:
        *scopes, name = path.split(".")
        for segment in scopes:
            module = _scope(module, segment)
        tensor = torch.empty(fixed(p.type), dtype=self._dtype(p.type), device=self.device)
        if p.kind in ("param", "frozen"):
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=p.kind == "param" and tensor.is_floating_point()))
        else:
            module.register_buffer(name, tensor, persistent=p.kind == "buffer")

    def _dtype(self, t: TensorType) -> torch.dtype:
        return torch_dtype(t.dtype, self.dtype)

    def _extern(self, node: Node, address: str) -> nn.Module:
        """The user's module for an extern block, its own initialisation seeded by the address."""
        name, path = node.attrs["block"], node.attrs["path"]
        if name not in self.bind:
            help = f"give one: build(bind = {{\"{name}\": MyModule}})"
            raise error("A0513", f"the extern block `{name}` has no class", node.span, "used here", help=help)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, address + path))
            module = self.bind[name](**dict(node.attrs["arguments"]))
        self.externs.append(address + path)
        return module.to(device=self.device, dtype=self.dtype)


def _fill(buffer: torch.Tensor, value: torch.Tensor) -> None:
    """Unless the buffer has no storage: on the meta device, or under a fake mode."""
    if not buffer.is_meta and type(buffer) is torch.Tensor:
        buffer.copy_(value)


def _scope(module: nn.Module, segment: str) -> nn.Module:
    found = module._modules.get(segment)
    if found is None:
        found = Scope()
        module.add_module(segment, found)
    return found


def _place(module: nn.Module, path: str, child: nn.Module) -> None:
    """Puts a child at a path. Weights that a container of the parent holds there already move into it."""
    *scopes, name = path.split(".")
    for segment in scopes:
        module = _scope(module, segment)
    earlier = module._modules.get(name)
    module.add_module(name, child)
    if earlier is not None:
        child._parameters.update(earlier._parameters)
        child._buffers.update(earlier._buffers)
        child._modules.update(earlier._modules)


def _numbered(module: Any) -> Any:
    """Turns scopes whose children are 0 … n - 1 into ModuleLists, below this module but not inside other blocks."""
    for name, child in list(module._modules.items()):
        if isinstance(child, Scope):
            _numbered(child)
            keys = list(child._modules)
            if keys and keys == [str(i) for i in range(len(keys))] and not child._parameters and not child._buffers:
                module._modules[name] = made = nn.ModuleList()
                made._modules.update({n: m for n, m in child._modules.items() if m is not None})
    return module
