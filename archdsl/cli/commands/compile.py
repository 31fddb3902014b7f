"""archdsl compile: from a spec to a folder with the model in it."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from archdsl.cli.output import progress
from archdsl.cli.passing import Asked, read_passing
from archdsl.cli.source import Opened, open_source, read_settings
from archdsl.kernels.target import Kernels, parse_kernels

if TYPE_CHECKING:
    from archdsl.passes.model import Passing


def compile(source: str, settings: list[str], seed: int, weights: str | None, export: bool, onnx: bool, out: str | None,
            asked: Asked | None = None, flat: bool = False, form: str | None = None, kernels: str | None = None) -> int:
    """Builds the model and writes its folder; without `out` prints it as PyTorch. `asked`: what was said about passes."""
    opened = open_source(source)
    knobs = read_settings(settings)
    passing, named = read_passing(opened, asked or Asked()), parse_kernels(kernels)
    if out is None:
        _print(opened, knobs, passing, flat, form, named)
        return 0
    with progress("loading torch"):
        from archdsl.store import compile_to
    with progress(f"compiling {source}"):
        state, names = _weights(opened, weights)
        manifest = compile_to(out, opened.spec, opened.variant, knobs, seed=seed, weights=state, source=names, export=export, onnx=onnx,
                              passes=passing, flat=flat, form=form, again=opened.folder, kernels=named)
    print(f"{out}: {manifest.model}{f'.{manifest.variant}' if manifest.variant else ''}, {manifest.params:,} parameters")
    print("  " + "  ".join(["graph.arch", "model.py", "weights.safetensors", "manifest.json", *manifest.exports]))
    return 0


def _weights(opened: Opened, weights: str | None) -> tuple[dict[str, Any] | None, str | None]:
    """The state dict to start from, and whose names it has: of `--weights FILE[@names]`, or those of the folder that is compiled again."""
    if weights is None and opened.folder is None:
        return None, None
    from archdsl.checkpoints import read_checkpoint

    if weights is None:
        return read_checkpoint(f"{opened.folder}/weights.safetensors"), None
    file, at, names = weights.rpartition("@")
    return (read_checkpoint(file), names) if at else (read_checkpoint(weights), None)


def _print(opened: Opened, knobs: dict[str, Any], passing: Passing | None, flat: bool, form: str | None,
           kernels: Kernels) -> None:
    with progress("compiling"):
        from archdsl.lower.emit_python import python_source

        if passing is None:
            model = opened.spec.build(opened.variant, device="meta", knobs=knobs, flat=flat, form=form, kernels=kernels)
        else:
            model = passing.model(opened.spec, opened.variant, knobs).build("meta", flat=flat, form=form, kernels=kernels)
        text = python_source(model)
    sys.stdout.write(text)
