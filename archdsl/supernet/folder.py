"""A supernet's folder: supernet.json, the spec and what it imports, weights.safetensors; behind a training its checkpoint and log too."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.files import read_json, unwritable, write_whole
from archdsl.records import fields, record
from archdsl.source import Source, Span
from archdsl.specfiles import digest, spec_files, write_files
from archdsl.training.checkpoint import WEIGHTS
from archdsl.version import VERSION

if TYPE_CHECKING:
    from archdsl.supernet.net import Supernet

FORMAT = 2
"""1: a smaller kernel had the first taps of a larger one."""
FILE = "supernet.json"


@record(frozen=True)
class About:
    """What a supernet is: the spec's file in the folder, `files` name -> digest, the space's settings, the element type. `task`: what it was trained
    for, with all options; None: nothing, or not told."""

    spec: str
    files: dict[str, str]
    model: str
    variant: str | None
    space: str | None
    limits: tuple[str, ...]
    dtype: str
    library: str
    task: str | None = None
    archdsl: str = VERSION
    format: int = FORMAT


def about(net: Supernet) -> About:
    """What is told of a supernet."""
    from archdsl.store import stdlib_hash

    space, texts = net.space, spec_files(net.space.spec)
    return About(next(iter(texts)), {n: digest(t) for n, t in texts.items()}, space.spec.name, space.variant, space.name, space.given,
                 str(net.dtype).removeprefix("torch."), stdlib_hash(), net.task)


def identity(net: Supernet) -> str:
    """The same for supernets of one space in one element type."""
    told = about(net)
    shapes = {name: list(t.shape) for name, t in net.state_dict().items()}
    kind = [FORMAT, told.files, told.model, told.variant, told.space, told.limits, told.dtype, told.library, shapes]
    return digest(json.dumps(kind, sort_keys=True))


def prepare(net: Supernet, folder: Path) -> None:
    """Writes supernet.json and the spec. Raises ArchError A0627."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_files(os.fspath(folder), spec_files(net.space.spec))
    except OSError as fault:
        raise unwritable(os.fspath(folder), fault) from None
    told = about(net)
    data = {f.name: getattr(told, f.name) for f in fields(told)}
    write_whole(os.fspath(folder / FILE), (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())


def save(net: Supernet, folder: str | os.PathLike[str]) -> None:
    """Writes a supernet's folder; `load` reads it. Raises ArchError A0627 for a place that cannot be written."""
    from safetensors.torch import save as packed

    prepare(net, Path(folder))
    write_whole(os.fspath(Path(folder) / WEIGHTS), packed({k: v.detach().cpu().contiguous().clone() for k, v in net.state_dict().items()}))


def read(folder: str | os.PathLike[str]) -> About:
    """What the folder says of its supernet, without torch. Raises ArchError A0817."""
    path = os.path.join(folder, FILE)
    if not os.path.isfile(path) or not os.path.isfile(os.path.join(folder, WEIGHTS)):
        lacks = FILE if not os.path.isfile(path) else WEIGHTS
        raise _none(folder, f"there is no supernet in `{os.fspath(folder)}`", f"it lacks {lacks}")
    try:
        told = read_json(path)
        if told["format"] != FORMAT:
            raise _none(folder, f"the supernet in `{os.fspath(folder)}` cannot be read",
                        f"its format is {told['format']}, this archdsl ({VERSION}) reads format {FORMAT}")
        return About(**{**told, "limits": tuple(told["limits"])})
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise _none(folder, f"{path} cannot be read", f"{type(fault).__name__}: {fault}") from None


def load(folder: str | os.PathLike[str], device: Any = "cpu") -> Supernet:
    """The supernet in a folder. Raises ArchError A0817 for a folder that holds none, or one of another library."""
    from safetensors.torch import load_file

    from archdsl.spec import load as load_spec

    told = read(folder)
    for name, kept in told.files.items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or digest(Path(path).read_bytes().decode("utf-8", "replace")) != kept:
            raise _none(folder, f"the supernet in `{os.fspath(folder)}` is not whole", f"{name} is not the text that it was written with")
    spec = load_spec(os.path.join(folder, told.spec)).models[told.model]
    net = spec.supernet(told.space, told.variant, told.limits, device=device, dtype=told.dtype)
    try:
        state = load_file(os.path.join(folder, WEIGHTS), device=str(device))
    except Exception as fault:  # safetensors raises its own kind
        raise _none(folder, f"{os.path.join(folder, WEIGHTS)} cannot be read", str(fault) or type(fault).__name__) from None
    own, given = ({k: (tuple(v.shape), v.dtype) for k, v in s.items()} for s in (net.state_dict(), state))
    if own != given:
        differ = sorted(k for k in own.keys() | given.keys() if own.get(k) != given.get(k))
        raise _none(folder, f"the weights in `{os.fspath(folder)}` are those of another supernet",
                    f"{len(differ)} differ, `{differ[0]}` first; it was written by archdsl {told.archdsl}, this is {VERSION}")
    net.load_state_dict(state)
    net.task = told.task
    return net


def _none(folder: str | os.PathLike[str], message: str, why: str) -> ArchError:
    text = os.fspath(folder)
    return error("A0817", message, Span(Source("folder", text), 0, len(text)), notes=(why,),
                 help="`archdsl.supernet.training.train_supernet(spec, task, steps, out = …)` writes one")
