"""The folder that a training writes: one that `archdsl.open` reads."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from archdsl.diagnostics.model import ArchError, error
from archdsl.source import Source, Span
from archdsl.training.checkpoint import LOG, STATE, read_settings

if TYPE_CHECKING:
    from archdsl.graph import Graph
    from archdsl.lower.module import ArchModule


TRAINED = ("parallel", "packed")
"""The forms that train; the others are for evaluation."""


@runtime_checkable
class Trainable(Protocol):
    """What `fit` trains beside a model: a torch module that says itself what it is and what its folder holds."""

    @property
    def identity(self) -> str:
        """The same for those whose training one may go on with."""
        ...

    def prepare(self, folder: Path) -> None:
        """Writes what a folder holds beside weights and checkpoints. Raises ArchError A0627 for one that cannot be written."""
        ...


def identity(model: ArchModule | Trainable) -> str:
    """What tells one model from another: of a compiled one the hash of its graph."""
    return model.identity if isinstance(model, Trainable) else model.typed.hash


def refuse_another(out: Path) -> None:
    """Raises ArchError A0595 where a folder holds a training; one that has not done a step is cleared away."""
    if not (out / STATE).exists():
        return
    try:
        done = read_settings(out)[0]
    except ArchError:  # of another version, or damaged: not ours to remove
        done = -1
    if done == 0:
        for name in (STATE, LOG):
            (out / name).unlink(missing_ok=True)
    else:
        raise error("A0595", f"{out} holds a training already", Span(Source("-o", str(out)), 0, len(str(out))), "left as it is",
                    help=("`--resume` goes on with it (`resume = True` in Python)", "another folder takes a new one"))


def prepare(model: ArchModule | Trainable, out: Path, seed: int) -> None:
    """Writes the folder of a model that is not there yet: graph, PyTorch, weights, manifest. Raises ArchError A0595 for a folder with a training
    and for a model that no spec gives, A0521 for a folder that is not ours, A0627 for one that cannot be written."""
    refuse_another(out)
    if isinstance(model, Trainable):
        model.prepare(out)
        return
    if _holds(model, out):
        return
    from archdsl.lower.forms import form_of
    from archdsl.store import compile_to

    spec, variant, knobs = _spec_of(model, out)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    weights = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    compile_to(out, spec, variant, knobs, seed=seed, dtype=dtype, form=form_of(model), weights=weights)


def _holds(model: ArchModule, out: Path) -> bool:
    """Whether compile has just written this model there."""
    from archdsl.lower.forms import form_of
    from archdsl.store import read_manifest

    try:
        found = read_manifest(out)
        return (found.graph_hash, found.form) == (_written(model).hash, form_of(model))
    except ArchError:
        return False


def _written(model: ArchModule) -> Graph:
    """The graph that a spec tells of: that of all positions at once, whatever the form."""
    return model.__dict__["_source"].graph


def _spec_of(model: ArchModule, out: Path) -> tuple[Any, str | None, dict[str, Any]]:
    """The spec, variant and settings that give a model's graph."""
    from archdsl.spec import text_setting

    origin = model.archdsl
    if origin.spec is not None:
        named = {s.address: s for s in (text_setting(f"{a}={v}") for a, v in origin.knobs.items())}
        known = origin.variant is None or origin.variant in origin.spec.variants
        for variant, knobs in ([(origin.variant, named)] if known else []) + [(None, {})]:
            try:
                if origin.spec.elaborate(variant, knobs).graph.hash == _written(model).hash:
                    return origin.spec, variant, knobs
            except ArchError:  # the settings of an opened folder belong to the spec that it was compiled from
                continue
    raise error("A0595", f"`{type(model).__name__}` is not what its spec says: passes have rewritten it, and a folder needs its text",
                Span(Source("out", str(out)), 0, len(str(out))),
                help="write it with `archdsl compile … --pass …`, and train what `archdsl.open` gives")
