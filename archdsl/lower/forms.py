"""Other forms of a built model, with the same weights."""
from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from archdsl.alone import alone
from archdsl.lower.build import lower
from archdsl.lower.module import ArchModule, with_tables
from archdsl.lower.state import device_of, weights_dtype
from archdsl.records import replace


def form_of(model: Any) -> str:
    """The form of a whole model that archdsl has built or opened: parallel, extend, step or packed; parallel for any other module."""
    streamed = model.__dict__.get("_streamed")
    return "parallel" if streamed is None else streamed.form


@alone
def sibling(model: ArchModule, form: str, caches: str = "") -> ArchModule:
    """The model in another form, in evaluation: it holds the very tensors of `model`, those of its extern blocks too, so what is trained there is
    used here. Made once for each type
    of the weights and each device, kept with the model. `caches`: what a `Target` says of them. Raises ArchError A0501 for
    a form that it does not have, TypeError for a model of which archdsl knows no forms."""
    source = model.__dict__.get("_source")
    if source is None:
        raise TypeError(f"{type(model).__name__} is no whole model that archdsl has built or opened, so it has no other forms")
    known: dict[Any, ArchModule] = model.__dict__.setdefault("_forms", {})
    target = replace(type(model).definition.target, device=device_of(model).type, caches=caches)
    key = form, weights_dtype(model), target
    if key not in known:
        with torch.inference_mode(False):  # it outlives the caller's mode
            externs = {n.attrs["block"]: nn.Identity for g in source.graph.definitions() for n in g.nodes if n.op == "extern"}
            made = lower(source.graph, device="meta", dtype=key[1], form=form, source=source, made_for=target, bind=externs)
            with_tables(made)
        known[key] = made
    made = known[key]
    with torch.inference_mode(False):
        for address in model.__dict__["_externs"]:
            made.set_submodule(address, _same_tensors(model.get_submodule(address)))
        share(made, model, dict(source.graph.parameters()))
    return made.eval()


def _same_tensors(module: nn.Module) -> nn.Module:
    """A module of its own phase with the very parameters and buffers of another."""
    return deepcopy(module, {id(t): t for t in (*module.parameters(), *module.buffers())})


def share(made: nn.Module, model: nn.Module, addresses: Any) -> None:
    """Puts the weights of `model` in place of those at the same addresses, and everything on their device."""
    device = device_of(model)
    for module in made.modules():
        for key, buffer in module._buffers.items():
            if buffer is not None and not buffer.is_meta and buffer.device != device:
                module._buffers[key] = buffer.to(device)
    for address in addresses:
        *scope, name = address.split(".")
        theirs, mine = (m.get_submodule(".".join(scope)) for m in (model, made))
        table = "_parameters" if name in theirs._parameters else "_buffers"
        getattr(mine, table)[name] = getattr(theirs, table)[name]
