"""Reading files of weights as the world writes them: safetensors (one file or shards with an index) and torch's own format."""
from __future__ import annotations

import json
import os
import re
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.codes import Code
from archdsl.diagnostics.model import ArchError, error
from archdsl.source import Source, Span

if TYPE_CHECKING:
    from torch import Tensor

CODES = {
    "A0628": Code(
        "a file of weights cannot be read",
        "Weights are read from .safetensors files, from an index of shards (model.safetensors.index.json), and from files that torch.save wrote "
        "(.pt, .pth, .bin, .ckpt). The last kind is unpickled with weights_only=True: a file that would run code is refused. "
        "It must hold a dictionary of tensors, or a dictionary with such a one under `state_dict`, `model_state_dict` or `model`.",
    ),
}
NESTED = ("state_dict", "model_state_dict", "model")


def read_checkpoint(path: str | os.PathLike[str], what: str = "weights") -> dict[str, Tensor]:
    """Name -> tensor, on the CPU. `what`: the tensors in a message. Raises ArchError A0628."""
    name = os.fspath(path)
    try:
        state = _read(name)
    except ArchError:
        raise
    except UnpicklingError as fault:
        code = re.search(r"unsupported (?:global|class):? (?:GLOBAL )?(\S+)", str(fault), re.IGNORECASE)
        why = f"loading it would run code, `{code[1]}`" if code else "it is neither a safetensors file nor one that torch.save wrote"
        raise _fault(name, why, what) from None
    except Exception as fault:  # safetensors, zipfile and the system each raise their own kinds
        raise _fault(name, (getattr(fault, "strerror", None) or str(fault)).split("\n")[0] or type(fault).__name__, what) from None
    if isinstance(state, dict):
        state = next((state[key] for key in NESTED if isinstance(state.get(key), dict)), state)
    return _tensors(name, state, what)


def _read(name: str) -> Any:
    if name.endswith(".index.json"):
        return _read_shards(name)
    if name.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(name)
    import torch

    try:
        return torch.load(name, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError):
        raise
    except Exception:  # other bytes, read as a pickle, go wrong in any way
        raise UnpicklingError from None


def _read_shards(name: str) -> dict[str, Any]:
    with open(name, encoding="utf-8") as file:
        index = json.load(file)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(isinstance(f, str) for f in files.values()):
        raise _fault(name, "it is no index of shards: `weight_map` in it does not name a file for each tensor")
    state: dict[str, Any] = {}
    for shard in sorted(set(files.values())):
        if os.path.basename(shard) != shard:  # an index from elsewhere names files of its own folder only
            raise _fault(name, f"it names `{shard}`, which is not in its folder")
        state |= _read(os.path.join(os.path.dirname(name), shard))
    return state


def _tensors(name: str, state: Any, what: str) -> dict[str, Tensor]:
    import torch

    if not isinstance(state, dict):
        raise _fault(name, f"it holds {type(state).__name__}, not a dictionary of tensors", what)
    other = next((key for key, value in state.items() if not isinstance(value, torch.Tensor)), None)
    if other is not None:
        raise _fault(name, f"`{other}` in it is {type(state[other]).__name__}, not a tensor", what)
    return state


def _fault(name: str, why: str, what: str = "weights") -> ArchError:
    return error("A0628", f"the {what} in `{name}` cannot be read: {why}", Span(Source(name, ""), 0, 0))
