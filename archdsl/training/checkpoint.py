"""A training's folder: beside the compiled model, training.safetensors (weights, optimiser, hooks, all of one step) and log.jsonl, a row a step.

Each file is replaced in one step, and training.safetensors alone says where a training stands: what interrupts it leaves the last checkpoint whole.
"""
from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.files import unwritable, write_whole
from archdsl.records import record
from archdsl.source import Source, Span

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.lower.module import ArchModule

STATE, LOG, WEIGHTS = "training.safetensors", "log.jsonl", "weights.safetensors"
KEY = "archdsl.training"
Rows = list[dict[str, Any]]


@record(frozen=True)
class Checkpoint:
    """`step`: how many steps are done. `settings`: what the training is, as JSON. `tensors`, `values`: the state, `model/ADDRESS`,
    `optimizer/ADDRESS/NAME`, `hooks/NUMBER/NAME`."""

    step: int
    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def part(self, name: str) -> dict[str, Any]:
        """Tensors and values below a name, without it."""
        prefix = f"{name}/"
        return {k.removeprefix(prefix): v for k, v in {**self.tensors, **self.values}.items() if k.startswith(prefix)}


def read_settings(folder: str | os.PathLike[str]) -> tuple[int, dict[str, Any]]:
    """The step and the settings of the last checkpoint, without its tensors (and without torch). Raises ArchError A0594."""
    from safetensors import safe_open

    path = _found(folder)
    try:
        with safe_open(path, framework="np") as file:  # type: ignore[no-untyped-call]
            return _header(file.metadata())[:2]
    except Exception as fault:  # safetensors raises its own kind, and whatever the header makes json raise
        raise _broken(folder, path, fault) from None


def read(folder: str | os.PathLike[str]) -> Checkpoint:
    """The last checkpoint in a folder. Raises ArchError A0594 where there is none, or one that cannot be read."""
    from safetensors import safe_open

    path = _found(folder)
    try:
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            step, settings, values = _header(file.metadata())
            return Checkpoint(step, settings, {k: file.get_tensor(k) for k in file.keys()}, values)  # noqa: SIM118  no mapping
    except Exception as fault:
        raise _broken(folder, path, fault) from None


def write(folder: Path, step: int, settings: dict[str, Any], parts: Mapping[str, Any], model: ArchModule) -> None:
    """Writes training.safetensors, then the model's weights where `archdsl.open` reads them. Raises ArchError A0627."""
    import torch
    from safetensors.torch import save

    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in parts.items() if isinstance(v, torch.Tensor)}
    values = {k: v for k, v in parts.items() if not isinstance(v, torch.Tensor)}
    header = json.dumps({"step": step, "settings": settings, "values": values})
    write_whole(str(folder / STATE), save(tensors, {KEY: header}))
    write_whole(str(folder / WEIGHTS), save({k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}))


def _header(metadata: Mapping[str, str] | None) -> tuple[int, dict[str, Any], dict[str, Any]]:
    data = json.loads((metadata or {})[KEY])
    return int(data["step"]), dict(data["settings"]), dict(data["values"])


def _found(folder: str | os.PathLike[str]) -> str:
    path = os.path.join(folder, STATE)
    if not os.path.isfile(path):
        raise error("A0594", f"{os.fspath(folder)} holds no {STATE}", _span(folder), "no training to resume",
                    help="leave out `--resume` to begin one")
    return path


def _broken(folder: str | os.PathLike[str], path: str, fault: Exception) -> ArchError:
    return error("A0594", f"{path} cannot be read: {str(fault) or type(fault).__name__}", _span(folder), "no training to resume",
                 help="leave out `--resume` and name another folder to begin anew")


def _span(folder: str | os.PathLike[str]) -> Span:
    return Span(Source("-o", os.fspath(folder)), 0, len(os.fspath(folder)))


# ---------------------------------------------------------------- the log
class Log:
    """The rows of log.jsonl, one for each step, each on disk when the step ends. Without a folder they are kept in memory alone."""

    def __init__(self, folder: Path | None, step: int):
        """The rows up to `step` of an earlier run stay, later ones are cut off. Raises ArchError A0627."""
        self.rows: Rows = []
        self.path = folder / LOG if folder is not None else None
        self.file = None
        if self.path is None:
            return
        if step and self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # the line that was being written
                    break
                if row["step"] <= step:
                    self.rows.append(row)
        write_whole(str(self.path), "".join(json.dumps(r) + "\n" for r in self.rows).encode())
        try:
            self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  until close
        except OSError as fault:
            raise unwritable(str(self.path), fault) from None

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if self.file is None:
            return
        try:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        except OSError as fault:
            raise unwritable(str(self.path), fault) from None

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
