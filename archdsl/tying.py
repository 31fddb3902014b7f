"""One set of weights for several models: the entries of a model, a teacher and its copy. Loads torch at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.codes import Code
from archdsl.diagnostics.model import error
from archdsl.source import NOWHERE

if TYPE_CHECKING:
    from torch import nn

CODES = {
    "A0545": Code(
        "models that have no weights in common",
        "`tie(model, other)` makes a model use the parameters and buffers of another one wherever both have the same address, as the entries of a "
        "model have. Their shapes and types must agree.",
        bad="archdsl.tie(archdsl.load(\"vit.arch\").build(), archdsl.load(\"gpt2.arch\").build())",
        good="archdsl.tie(spec.models[\"Autoencoder.decode\"].build(), spec.models[\"Autoencoder.encode\"].build())",
    ),
}


def tie(model: nn.Module, other: nn.Module) -> list[str]:
    """Makes `model` use the tensors of `other` wherever both have a parameter or buffer of the same name, and returns these names.

    Both are models of one spec file. From then on they are trained as one: pass each tensor to the optimiser once. Copies of one model alone
    (deepcopy, pickle) are no longer tied. Raises ArchError A0545, with nothing changed, for models of different files, when no name is common, or
    when what is common differs in kind, shape or type; TypeError for what archdsl did not build.
    """
    for m in (model, other):
        if not hasattr(m, "archdsl"):
            raise TypeError(f"tie takes two models that archdsl built, not {type(m).__name__}")
    theirs = _tensors(other)
    common = {name: found for name, found in _tensors(model).items() if name in theirs}
    wrong = [f"`{n}` is {_shown(t)} here and {_shown(theirs[n][2])} there" for n, (_, _, t) in common.items() if _shown(t) != _shown(theirs[n][2])]
    names = f"`{type(model).__name__}` and `{type(other).__name__}`"
    if model.archdsl.path != other.archdsl.path:  # type: ignore[union-attr]
        raise error("A0545", f"{names} come from two files", NOWHERE, notes=(str(model.archdsl), str(other.archdsl)),
                    help="tie models of one spec: addresses of two specs mean different weights")
    if wrong or not common:
        what = f"weights of {names} differ in kind, shape or type" if wrong else f"{names} have no weights in common"
        raise error("A0545", what, NOWHERE, notes=tuple(wrong[:5]), help="tie models of one spec, built with the same knobs and element type")
    for name, (owner, key, _) in common.items():
        owner[key] = theirs[name][2]
    return list(common)


def _tensors(model: nn.Module) -> dict[str, tuple[dict[str, Any], str, Any]]:
    """Name -> (the table of its module, its key there, the tensor). Buffers outside the state dict are left alone."""
    out: dict[str, tuple[dict[str, Any], str, Any]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for table, skip in ((module._parameters, ()), (module._buffers, module._non_persistent_buffers_set)):
            out.update({f"{prefix}.{k}".lstrip("."): (table, k, t) for k, t in table.items() if t is not None and k not in skip})
    return out


def _shown(tensor: Any) -> str:
    from torch import nn

    kind = "buffer" if not isinstance(tensor, nn.Parameter) else "param" if tensor.requires_grad else "frozen param"
    return f"{kind} {str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)} on {tensor.device.type}"
