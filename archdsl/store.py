"""A compiled model as a folder: the printed graph, readable PyTorch, weights, a manifest; and reading it back."""
from __future__ import annotations

import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from archdsl.diagnostics.codes import Code
from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate.model import Elaborated
from archdsl.files import read_json, unwritable
from archdsl.source import Source, Span
from archdsl.specfiles import digest
from archdsl.version import VERSION

if TYPE_CHECKING:
    from archdsl.kernels.target import Kernels
    from archdsl.lower.module import ArchModule
    from archdsl.passes.foreign import Foreign
    from archdsl.passes.model import Passing
    from archdsl.spec import Spec

CODES = {
    "A0520": Code("this is no folder written by compile",
                  "`archdsl.open` and SOURCE take a folder that `archdsl compile -o DIR` wrote: it holds graph.arch, weights.safetensors "
                  "and manifest.json. The folder named here lacks one of them, or the file is not what the manifest says.",
                  "archdsl cost some/other/folder", "archdsl compile llama:tiny -o out && archdsl cost out"),
    "A0521": Code("the folder belongs to something else",
                  "`compile -o DIR` replaces a folder that it wrote itself; it leaves any other folder with files in it alone.",
                  "archdsl compile llama:tiny -o ~", "archdsl compile llama:tiny -o out"),
    "A0522": Code("the folder is of another version",
                  "The manifest's language version differs from this package's major and minor version, or the printed graph no longer elaborates "
                  "to the hash in the manifest.", "", ""),
    "A0523": Code("ONNX needs further packages",
                  "`compile --onnx` writes the model through torch's exporter, which needs the packages onnx and onnxscript. "
                  "They are not installed with archdsl: `pip install 'archdsl[onnx]'`."),
    "A0524": Code("a model that ONNX has no ops for",
                  "Torch's exporter knows no ONNX form of an op of this model. Recurrent ops compute many positions in one op of their own; in the "
                  "form `step` they are written out in plain ops, which ONNX has."),
}
FILES = ("graph.arch", "model.py", "weights.safetensors", "manifest.json")
NAMES = "names.json"  # foreign names, where the spec has some
CARRIED = ("spec", "model", "variant", "knobs", "seed", "spec_hash", "stdlib_hash", "bindings")  # of a folder that is compiled again


class Manifest(BaseModel):
    """What a compiled folder says of itself."""

    language: str
    spec: str
    model: str
    variant: str | None
    knobs: dict[str, Any]
    seed: int
    dtype: str
    spec_hash: str
    stdlib_hash: str
    graph_hash: str
    params: int
    form: str = "parallel"
    delay: int = 0
    kernels: str | dict[str, str] | None = None
    recipe: list[Any] = []
    bindings: dict[str, str] = {}
    exports: list[str] = []


def compile_to(out: str | os.PathLike[str], spec: Spec, variant: str | None = None, knobs: dict[str, Any] | None = None, *, seed: int = 0,
               dtype: Any = None, weights: Any = None, source: str | None = None, export: bool = False, onnx: bool = False,
               passes: Passing | None = None, flat: bool = False, form: str | None = None,
               again: str | os.PathLike[str] | None = None, kernels: Kernels = None) -> Manifest:
    """Builds a model and writes its folder: all files or none. `weights`: a state dict to import (`source`: whose names it uses, none for our own).
    `passes`: steps behind those of the variant, and what goes with them. `flat`: model.py is one class. `export` adds model.pt2 (torch.export,
    dynamic sizes), `onnx` model.onnx. `kernels`: as for `build`. `again`: the compiled folder whose graph `spec` is; the new one tells of the same
    spec, settings and recipe, has its element type unless `dtype` says otherwise, and its foreign names. Behind a step that changes what they name,
    names.json tells which.
    Raises ArchError A0501 for a form that is not built, A0521 for a folder that is not ours, A056x for a step that does not fit, A0627 for a place
    that cannot be written."""
    from archdsl.lower.build import float_type
    from archdsl.origin import Origin

    earlier = read_manifest(Path(again)) if again is not None else None
    dtype = float_type(earlier.dtype if earlier is not None and dtype is None else dtype)
    recipe: list[Any] = earlier.recipe if earlier is not None else []
    first = _names(Path(again) / NAMES) if again is not None else None
    if passes is not None or spec.transforms(variant):
        changed = (passes or _passing()).model(spec, variant, knobs or {}, seed=seed, dtype=dtype, weights=weights, source=source, names=first)
        made, model, recipe = changed.made, changed.build(flat=flat, form=form, kernels=kernels), [a.to_json() for a in changed.recipe]
    else:
        made = spec.elaborate(variant, knobs or {})
        model = spec.build(variant, seed=seed, dtype=dtype, knobs=knobs or {}, flat=flat, form=form, kernels=kernels)
        if first is not None:
            model.archdsl = Origin(spec.path, spec.name, variant, {}, made.graph, first, spec)
        if weights is not None:
            load_state(model, weights, source)
    target = Path(os.path.realpath(out))  # behind a link, the folder that it leads to
    try:
        _ours(target, os.fspath(out))
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as fault:
        raise unwritable(str(target), fault) from None
    try:
        manifest = _manifest(spec, variant, knobs or {}, made, seed, dtype)
        if earlier is not None:
            manifest = manifest.model_copy(update={f: getattr(earlier, f) for f in CARRIED})
        manifest.recipe, manifest.form, manifest.delay = recipe, form or made.form, model.delay
        manifest.kernels = dict(kernels) if isinstance(kernels, Mapping) else kernels
        _write(folder, made, model)
        names = {k: m.to_json() for k, m in model.archdsl.foreign.items()}
        if names:
            (folder / NAMES).write_text(json.dumps(names) + "\n", encoding="utf-8")
            manifest.exports.append(NAMES)
        if export:
            _export(folder, made, model, manifest)
        if onnx:
            _onnx(folder, made, model, manifest)
        (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
        folder.chmod(0o755)
        _replace(folder, target)
    except BaseException as fault:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(fault, OSError):
            raise unwritable(os.fspath(out), fault) from None
        raise
    return manifest


def _replace(folder: Path, target: Path) -> None:
    """Puts a folder in the place of another one, which stays whole until the new one stands there."""
    if not target.exists():
        os.replace(folder, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        os.replace(target, aside / "old")
        try:
            os.replace(folder, target)
        except BaseException:
            os.replace(aside / "old", target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _passing() -> Passing:
    from archdsl.passes.model import Passing

    return Passing()


def load_state(model: Any, weights: Any, source: str | None) -> None:
    """Loads a state dict under the model's own names, or the foreign names `source`. Raises ArchError A0541, A0542."""
    if source is not None:
        from archdsl.weights import import_weights

        import_weights(model, weights, source=source)
        return
    from archdsl.weights import own_misfit

    misfit = own_misfit(model, {k: tuple(v.shape) for k, v in weights.items()})
    if misfit is not None:
        raise misfit
    model.load_state_dict(weights)


def _ours(target: Path, shown: str) -> None:
    if target.exists() and not target.is_dir() or target.is_dir() and any(target.iterdir()) and not _is_ours(target):
        raise error("A0521", f"{shown} is not a folder that compile wrote", _span(shown), "left as it is", help="name another folder with -o")


def _is_ours(folder: Path) -> bool:
    """Whether compile wrote all that is in a folder."""
    try:
        found = read_json(folder / "manifest.json")
    except (OSError, ValueError):
        return False
    if not isinstance(found, dict) or not {"language", "graph_hash", "stdlib_hash"} <= found.keys():
        return False
    return {p.name for p in folder.iterdir()} <= {*FILES, NAMES, "model.pt2", "model.onnx", "model.onnx.data"}


def _span(text: str, said: str = "-o") -> Span:
    return Span(Source(said, text), 0, len(text))


def _manifest(spec: Spec, variant: str | None, knobs: dict[str, Any], made: Elaborated, seed: int, dtype: Any) -> Manifest:
    from archdsl.elaborate.values import show

    def plain(v: Any) -> Any:
        return v if isinstance(v, (int, float, str, bool, type(None))) else show(v)

    params = sum(prod(p.sizes) for _, p in made.graph.parameters() if p.kind in ("param", "frozen"))
    return Manifest(language=VERSION, spec=os.path.basename(spec.path), model=spec.name, variant=variant,
                    knobs={k: plain(n.value) for k, n in made.knobs.items()}, seed=seed, dtype=str(dtype).removeprefix("torch."),
                    spec_hash=digest(spec.module.source.text), stdlib_hash=stdlib_hash(),
                    graph_hash=made.graph.hash, params=params)


def stdlib_hash() -> str:
    """One hash over the texts of all library modules."""
    from archdsl.modules import library_modules, library_source

    return digest("\0".join(f"{name}\0{source.text}" for name in library_modules() if (source := library_source(name)) is not None))


def _write(folder: Path, made: Elaborated, model: Any) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from archdsl.lower.emit_python import python_source
    from archdsl.printer import print_graph

    (folder / "graph.arch").write_text(print_graph(made), encoding="utf-8")
    (folder / "model.py").write_text(python_source(model), encoding="utf-8")
    try:
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "weights.safetensors")
    except SafetensorError as fault:  # a kind of its own for what the system says
        said = re.search(r"\(os error (\d+)\)", str(fault))
        raise OSError(int(said[1]), os.strerror(int(said[1]))) if said else fault from None
    (folder / "weights.safetensors").chmod(0o644)


# ---------------------------------------------------------------- exports
def _example(made: Elaborated, model: Any) -> tuple[Any, Any]:
    """Small example inputs, the state where the model keeps one, and torch.export's description of their run-time axes."""
    import torch

    from archdsl.dims import Dim, symbols
    from archdsl.inputs import sample_inputs

    streamed = model.__dict__["_streamed"]
    sizes = made.example_sizes(traced=True)
    fixed = {} if streamed is None or streamed.form != "step" else {streamed.axis: 1}

    def free(shape: Any) -> dict[int, Any]:
        return {i: torch.export.Dim.AUTO for i, s in enumerate(shape) if isinstance(s, Dim) and str(s) not in fixed}

    xs = sample_inputs(made, {**sizes, **fixed})
    dynamic = tuple(free(i.type.shape) for i in made.inputs)
    if streamed is None:
        return xs, dynamic
    if streamed.form == "step":
        taken = _taken(made, model)
        xs, dynamic = (tuple(x for x, i in zip(part, made.inputs) if i.name in taken) for part in (xs, dynamic))
    if streamed.form == "packed":
        T = sizes[streamed.axis]
        return (*xs, torch.tensor([1, T - 1] if T > 1 else [T])), (*dynamic, {0: torch.export.Dim.AUTO})
    needed = {n for slot in streamed.slots for s in slot.type.shape for n in symbols(s)}
    others = {n: s for n, s in sizes.items() if n in needed and n not in (streamed.axis, str(streamed.batch))}
    state = model.init_state(sizes.get(str(streamed.batch), 1), max(8, sizes[streamed.axis]), **others)
    return (*xs, state), (*dynamic, {slot.address: free(slot.type.shape) for slot in streamed.slots})


def _taken(made: Elaborated, model: Any) -> list[str]:
    """The names of the inputs that the form takes."""
    streamed = model.__dict__["_streamed"]
    return [i.name for i in made.inputs if streamed is None or streamed.form != "step" or i.name in streamed.takes]


def _exportable(model: Any) -> Any:
    """A model with state without its fx graph: torch.export would run that, whose dicts are of a kind of their own when they come out and refused
    when they go in."""
    from torch import nn

    if model.__dict__["_streamed"] is None:
        return model
    plain = nn.Module.__new__(type(type(model).__name__, (nn.Module,), {"forward": type(model).forward}))
    nn.Module.__init__(plain)
    for kind in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
        plain.__dict__[kind] = getattr(model, kind)
    return plain.eval()


def _export(folder: Path, made: Elaborated, model: Any, manifest: Manifest) -> None:
    import torch

    xs, dynamic = _example(made, model)
    program = torch.export.export(_exportable(model.eval()), xs, dynamic_shapes=dynamic)
    data = io.BytesIO()  # torch's writer of files ends the process where a disk is full
    torch.export.save(program, data)
    (folder / "model.pt2").write_bytes(data.getbuffer())
    manifest.exports.append("model.pt2")


def _onnx(folder: Path, made: Elaborated, model: Any, manifest: Manifest) -> None:
    import warnings

    import torch

    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError:
        raise error("A0523", "writing ONNX needs the packages onnx and onnxscript", _span("--onnx", "compile"),
                    help="pip install 'archdsl[onnx]'") from None
    xs, dynamic = _example(made, model)
    state = list(xs[-1]) if isinstance(xs[-1], dict) else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = (*xs, {}) if state else xs  # a dict in the last place would be taken for arguments by name
        model.requires_grad_(False)  # else torch traces attention whose bias has a gradient by one kernel and decomposes it by another
        try:
            names = [*_taken(made, model), *state]
            program = torch.onnx.export(model.eval(), given, dynamic_shapes=dynamic, dynamo=True, verbose=False, input_names=names,
                                        **_output_names(made, state))
        except torch.onnx.OnnxExporterError as fault:
            raise _no_onnx(made, fault) from None
    assert program is not None  # it is with dynamo
    for value, name in zip(program.model.graph.inputs, names, strict=True):
        value.name = name  # torch 2.9 has its own for what a step hands on as it is
    program.save(str(folder / "model.onnx"))
    manifest.exports.append("model.onnx")


def _no_onnx(made: Elaborated, fault: BaseException) -> ArchError:
    """What torch's exporter could not do, by the innermost cause."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    why = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", why)
    told = f"it has no op for `{found[1].removeprefix('archdsl.')}`" if found else why
    return error("A0524", f"`{made.decl.name}` cannot be written as ONNX: {told}", made.decl.name_span,
                 help="compile it with `--form step`: recurrences are plain ops there" if made.stream else ())


def _output_names(made: Elaborated, state: list[str]) -> dict[str, Any]:
    """Results by their names in the header, the new state by its addresses; a state's tensors are called alike coming in and going out, but for ONNX
    a name stands for one value."""
    if not state:
        return {}
    names = made.graph.output_names or (None,) * len(made.graph.outputs)
    return {"output_names": [*(n or f"result_{i}" for i, n in enumerate(names)), *(f"{a}.next" for a in state)]}


# ---------------------------------------------------------------- reading back
def open(folder: str | os.PathLike[str], device: Any = "cpu", bind: dict[str, Any] | None = None, kernels: Kernels = None,
         loss: str | None = None) -> ArchModule:
    """The model in a folder that `compile -o` wrote, in the form it was compiled in, with its weights and foreign names. `bind`: classes for its
    extern blocks; `kernels` and `loss` as for `build`, but that without `kernels` those of the compilation hold. Raises ArchError A0513 (a class
    is missing), A0518 (no such device), A0519 (a kernel that cannot be used), A0520 (not such a folder), A0522 (another version)."""
    from archdsl.lazy import torch
    from archdsl.origin import Origin

    spec, manifest = open_spec(folder)
    fresh = spec.build(seed=manifest.seed, dtype=manifest.dtype, device=device, bind=bind, form=manifest.form, loss=loss,
                       kernels=manifest.kernels if kernels is None else kernels)
    state = _weights(Path(folder) / "weights.safetensors", fresh.state_dict())
    if torch.device(device or "cpu").type != "meta":
        fresh.load_state_dict(state)
    fresh.archdsl = Origin(manifest.spec, manifest.model, manifest.variant, {k: str(v) for k, v in manifest.knobs.items()}, fresh.typed,
                           _names(Path(folder) / NAMES), spec)
    return fresh


def _weights(path: Path, held: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a file that fit those of a model. Raises A0520."""
    from safetensors.torch import load_file

    from archdsl.weights import described, kind

    try:
        state = load_file(path)
    except Exception as e:  # safetensors raises its own kind
        raise error("A0520", f"{path} cannot be read: {e}", _span(str(path), "folder")) from None
    for name in (*held, *state):
        mine, theirs = held.get(name), state.get(name)
        if theirs is None or mine is None:
            wrong = "missing" if theirs is None else "unexpected"
        else:
            wrong = "" if theirs.shape == mine.shape and kind(theirs) == kind(mine) else f"{described(theirs)}, not {described(mine)}"
        if wrong:
            raise error("A0520", f"{path} does not hold the weights of graph.arch: `{name}` is {wrong}", _span(str(path), "folder"))
    return state


def _names(path: Path) -> dict[str, Foreign]:
    from archdsl.passes.foreign import read

    if not path.exists():
        return {}
    try:
        return {name: read(m) for name, m in read_json(path).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise error("A0520", f"{path} cannot be read: {e}", _span(str(path), "folder")) from None


def open_spec(folder: str | os.PathLike[str]) -> tuple[Spec, Manifest]:
    """The printed graph of a compiled folder as a spec, checked against the manifest's hash."""
    from archdsl.spec import load

    root = Path(folder)
    for name in ("graph.arch", "weights.safetensors", "manifest.json"):
        if not (root / name).is_file():
            if root.suffix == ".arch" and root.is_file():
                raise error("A0520", f"{root} is a spec, without weights", _span(str(root), "folder"), "not a folder written by compile",
                            help=f"`archdsl.load(\"{root}\").build()` builds it, with initial values")
            raise error("A0520", f"{root} holds no {name}", _span(str(root), "folder"), "not a folder written by compile",
                        help="`archdsl compile SPEC -o DIR` writes one")
    manifest = read_manifest(root)
    if manifest.language.split(".")[:2] != VERSION.split(".")[:2]:
        raise error("A0522", f"{root} was written by version {manifest.language}, this is {VERSION}", _span(str(root), "folder"),
                    help="compile the spec again")
    spec = load(root / "graph.arch")
    if spec.elaborate().graph.hash != manifest.graph_hash:
        raise error("A0522", f"{root / 'graph.arch'} is not the graph of the manifest", _span(str(root), "folder"), "its hash differs",
                    help="compile the spec again")
    return spec, manifest


def read_manifest(root: Path) -> Manifest:
    """What a compiled folder says of itself. Raises A0520."""
    try:
        return Manifest.model_validate(read_json(root / "manifest.json"))
    except (ValidationError, ValueError, OSError) as e:
        raise error("A0520", f"{root / 'manifest.json'} cannot be read: {str(e).splitlines()[0]}", _span(str(root), "folder")) from None
