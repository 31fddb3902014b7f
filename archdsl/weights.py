"""Weights from the world: imported by a spec's foreign names, and exported to them. Loads torch at first use."""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.codes import Code
from archdsl.diagnostics.model import ArchError, Diagnostic, error
from archdsl.elaborate.hints import did_you_mean
from archdsl.lazy import torch
from archdsl.records import field, record
from archdsl.source import NOWHERE, Span
from archdsl.weightmap import Entry, Fit, Shape, WeightMap, show

if TYPE_CHECKING:
    from torch import Tensor, nn

    from archdsl.graph import Graph
    from archdsl.origin import Origin
    from archdsl.spec import Spec

SHOWN = 10  # names of each kind in a diagnostic

CODES = {
    "A0541": Code(
        "the weights do not fit the model",
        "Import by foreign names is strict: every key that the names expect must be there, with its shape and a number type that fits, and nothing "
        "else. The model is left as it was. The message lists what is missing, what is unexpected and what has another shape, and says when another "
        "variant of the spec, another block of names, or a prefix before all keys would make the weights fit. `strict = False` imports what fits.",
        bad="weights = timm.create_model(\"vit_small_patch16_224\").state_dict()\n"
            "archdsl.import_weights(archdsl.load(\"vit.arch\").build(), weights, source = \"timm\")",
        good="weights = timm.create_model(\"vit_small_patch16_224\").state_dict()\n"
             "archdsl.import_weights(archdsl.load(\"vit.arch\").build(\"small\"), weights, source = \"timm\")",
    ),
    "A0542": Code(
        "the spec has no such foreign names",
        "`source` is the name of a block `names SOURCE of MODEL { … }` in the model's spec.",
        bad="archdsl.import_weights(model, weights, source = \"hugging_face\")",
        good="archdsl.import_weights(model, weights, source = \"hf\")",
    ),
    "A0543": Code(
        "a model without a spec, or without storage",
        "Weights are imported into and exported from models that `Spec.build` made: their foreign names stand in the spec. A model on the meta "
        "device has shapes but no storage: build it on a real device first.",
    ),
    "A0544": Code(
        "a weight that the foreign layout cannot hold",
        "`drop \"ADDRESS\" = VALUE` says that the foreign file lacks this weight because it always has that value. A model in which it has another "
        "one cannot be written in that layout without changing what it computes.",
    ),
    "A0546": Code(
        "foreign names that a step has taken away",
        "A step that folds, recentres or bakes weights makes others of them: the tensors of a foreign file can neither be put into the new ones nor "
        "be told from them. Names go through steps that keep, rename, transpose or join weights. Start from the foreign weights instead: they "
        "are imported into the model before its steps, and carried through them.",
        bad="archdsl.export_weights(archdsl.load(\"vit.arch\").build(\"tiny_folded\"), source = \"timm\")",
        good="archdsl.export_weights(archdsl.load(\"vit.arch\").build(\"tiny\"), source = \"timm\")",
    ),
}


class WeightsError(ArchError):
    """Weights that do not fit; `report` has the whole lists."""

    def __init__(self, report: Report, *diagnostics: Diagnostic):
        super().__init__(*diagnostics)
        self.report = report


@record(frozen=True)
class Report:
    """What an import did. `loaded`: own addresses; the others: foreign keys, `mis_shaped` with (expected, found) as text."""

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mis_shaped: dict[str, tuple[str, str]] = field(default_factory=dict)
    unequal: dict[str, str] = field(default_factory=dict)  # an alias -> the key that it should repeat
    aliases: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __repr__(self) -> str:
        found = {"loaded": len(self.loaded), **self.faults, "aliases": len(self.aliases), "ignored": len(self.ignored)}
        return f"Report({', '.join(f'{n} {k}' for k, n in found.items() if n) or 'nothing'})"

    @property
    def faults(self) -> dict[str, int]:
        """How many of each kind, where there are any."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "mis-shaped": self.mis_shaped, "unequal": self.unequal}
        return {k: len(v) for k, v in kinds.items() if v}


# ---------------------------------------------------------------- import
def import_weights(model: nn.Module, state_dict: Mapping[str, Any] | str | os.PathLike[str], source: str | None = None,
                   strict: bool = True) -> Report:
    """Copies foreign weights into a built model by the `names SOURCE` of its spec; dtypes are cast to the model's. `source` may be left out where
    the spec has one such block.

    state_dict: tensors by foreign name, or the path of a file that holds them (safetensors, or torch's with weights only).

    strict: raise A0541, with the model as it was, unless every expected key is there with its shape and nothing else is. Otherwise what fits is
    imported. An `alias` may be absent, must be equal to what it repeats, and stands in for it where that is absent.
    Raises ArchError A0541 to A0543, A0546, TypeError for what is no state dict of tensors.
    """
    model = _unwrapped(model)
    origin = _origin(model)
    if isinstance(state_dict, str | os.PathLike):
        from archdsl.checkpoints import read_checkpoint

        state_dict = read_checkpoint(state_dict)
    if not isinstance(state_dict, Mapping):
        hint = ": pass its `.state_dict()`" if hasattr(state_dict, "state_dict") else ""
        raise TypeError(f"state_dict is a mapping from names to tensors, or the path of a file, not {type(state_dict).__name__}{hint}")
    own = _tensors(model, origin)
    if own and state_dict.keys() == own.keys():
        raise error("A0542", "these weights have the model's own names", NOWHERE, help="`model.load_state_dict(…)` takes them as they are")
    empty = [k for k, v in state_dict.items() if isinstance(v, torch.Tensor) and v.is_meta]
    if empty:
        raise error("A0543", f"`{empty[0]}` is on the meta device and holds no values", NOWHERE, help="load the weights on a real device")
    source = _source(origin, source)
    names = _names(origin, source)
    if any(t.is_meta for t in own.values()):
        raise error("A0543", f"`{origin.model}` is on the meta device and has nowhere to put weights", NOWHERE,
                    help="build it on a real device: `device = \"cpu\"`")
    tensors = {k: v for k, v in state_dict.items() if isinstance(k, str) and hasattr(v, "shape")}
    given = {k: v.detach() if isinstance(v, torch.Tensor) else torch.as_tensor(v) for k, v in tensors.items()}
    others = [str(k) for k in state_dict if k not in tensors]
    expected = {t for e in (*names.entries, *names.repeated("target")) for t in e.target}
    if odd := next((k for k in others if k in expected), None):
        raise TypeError(f"`{odd}` is {_kind_of(state_dict[odd])}, not a tensor: `torch.tensor(…)` makes one of numbers")
    fit = names.fit({a: tuple(t.shape) for a, t in own.items()}, {k: tuple(v.shape) for k, v in given.items()})
    plan = _Import(names, own, given, fit)
    report = plan.report(others)
    if strict and report.faults:
        raise WeightsError(report, *_misfit(origin, source, report, {k: tuple(v.shape) for k, v in given.items()}).diagnostics)
    with torch.no_grad():
        for address, value in plan.values():
            own[address].copy_(value)
    return report


class _Import:
    """The values of one import, entry by entry, so that no second copy of the model is held."""

    def __init__(self, names: WeightMap, own: dict[str, Tensor], given: dict[str, Tensor], fit: Fit):
        self.names, self.own, self.given, self.fit = names, own, given, fit
        self.back = names.invert()
        self.mis_shaped = {k: (show(e), show(f)) for k, (e, f) in fit.mis_shaped.items()}
        self._compare_types()
        self.entries = [e for e in self.back.entries if all(k in given and k not in self.mis_shaped for k in e.source)]
        self.makers = {a: e for e in self.entries for a in e.target}
        self.from_aliases: dict[str, Entry] = {}  # weights that only an alias gives
        for e in names.repeated("target"):
            if all(k in given and k not in self.mis_shaped for k in e.target):
                self.from_aliases.update({a: e.inverted() for a in e.source if a not in self.makers})
        self.makers.update(self.from_aliases)

    def _compare_types(self) -> None:
        """Whole numbers do not pass for real ones, as quantised files would have it, nor the other way round; nor do sparse tensors."""
        kinds = {t: self.own[e.source[0]] for e in (*self.names.entries, *self.names.repeated("target")) for t in e.target}
        for key, mine in kinds.items():
            theirs = self.given.get(key)
            if theirs is not None and key not in self.mis_shaped and kind(theirs) != kind(mine):
                self.mis_shaped[key] = described(mine), described(theirs)

    def values(self) -> Iterable[tuple[str, Any]]:
        for e in self.entries:
            yield from e.apply(self.given).items()
        for address, e in self.from_aliases.items():
            yield address, e.apply(self.given)[address]
        for c in self.names.constants:
            yield c.key, torch.tensor(_number(c.value, self.own[c.key]))

    def report(self, others: list[str]) -> Report:
        loaded = [a for e in self.entries for a in e.target] + list(self.from_aliases) + [c.key for c in self.names.constants]
        return Report(tuple(loaded), tuple(self.fit.missing), (*self.fit.unexpected, *others), self.mis_shaped, self._unequal(), self.fit.aliases,
                      self.fit.ignored)

    def _unequal(self) -> dict[str, str]:
        """Aliases that differ from the weights that they repeat, or from each other."""
        out: dict[str, str] = {}
        for alias in self.names.repeated("target"):
            keys = [k for k in alias.target if k in self.given and k not in self.mis_shaped]
            if keys and all(a in self.makers for a in alias.source):
                values = alias.apply({a: self.makers[a].apply(self.given)[a] for a in alias.source})
                first = self.makers[alias.source[0]].source[0]
                out.update({k: first for k in keys if not _equal(values[k], self.given[k])})
        return out


def _kind_of(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def kind(t: Tensor) -> tuple[bool, bool, torch.layout]:
    """What two tensors have in common when one may be copied into the other."""
    return t.is_floating_point(), t.is_complex(), t.layout


def described(t: Tensor) -> str:
    """Shape, element type and, unless it is dense, layout: `[4, 8] of float32`."""
    layout = "" if t.layout is torch.strided else f", {str(t.layout).removeprefix('torch.')}"
    return f"{show(tuple(t.shape))} of {str(t.dtype).removeprefix('torch.')}{layout}"


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.data_ptr() == b.data_ptr() and a.stride() == b.stride() and a.dtype == b.dtype:
        return True
    return torch.equal(a, b) or a.is_floating_point() and torch.allclose(a.double(), b.double().to(a.device), rtol=0, atol=0, equal_nan=True)


# ---------------------------------------------------------------- export
def export_weights(model: nn.Module, source: str | None = None) -> dict[str, Tensor]:
    """The model's weights under foreign names, the inverse of `import_weights`: contiguous, aliases written out. `source`: as there.

    As with `state_dict`, a weight that is only renamed shares its storage with the model; everything else is a tensor of its own.
    Raises ArchError A0542 to A0544, A0546.
    """
    model = _unwrapped(model)
    origin = _origin(model)
    source = _source(origin, source)
    names = _names(origin, source)
    own = {a: t.detach() for a, t in _tensors(model, origin).items()}
    for c in names.constants:
        value = _number(c.value, own[c.key])
        if not own[c.key].is_meta and not bool((own[c.key] == value).all()):
            raise error("A0544", f"`{source}` has no place for `{c.key}`, whose values are not all {value}", NOWHERE,
                        help=f"set it to {value}, if the model computes the same then, or export under other names")
    plain = {e.target[0] for e in names.entries if not e.steps}
    dtypes = {t: own[e.source[0]].dtype for e in (*names.entries, *names.repeated("target")) for t in e.target}
    out: dict[str, Tensor] = {}
    for key, value in names.apply(own):
        value = value.to(dtypes.get(key, value.dtype))
        out[key] = value if key in plain and value.is_contiguous() else value.contiguous().clone() if _shares(value, own) else value.contiguous()
    return out


def _shares(value: Tensor, own: Mapping[str, Tensor]) -> bool:
    return value.is_meta or value.untyped_storage().nbytes() != value.numel() * value.element_size() or any(
        value.untyped_storage().data_ptr() == t.untyped_storage().data_ptr() for t in own.values())


# ---------------------------------------------------------------- the model
def _unwrapped(model: Any) -> Any:
    """The model itself, for one that torch.compile or a data-parallel wrapper holds."""
    while "archdsl" not in vars(model):
        inner = next((m for n in ("_orig_mod", "module") if (m := getattr(model, "_modules", {}).get(n)) is not None), None)
        if inner is None:
            break
        model = inner
    return model


def _origin(model: Any) -> Origin:
    from archdsl.origin import Origin

    origin = getattr(model, "archdsl", None)
    if not isinstance(origin, Origin):
        raise error("A0543", f"this {type(model).__name__} was not built from a spec, so it has no foreign names", NOWHERE,
                    help="`archdsl.load(SPEC).build(…)` builds one")
    return origin


def _names(origin: Origin, source: str) -> WeightMap:
    if source in origin.prevented:
        why = origin.prevented[source]
        raise error("A0546", f"the names `{source}` do not reach this model: behind `{why.step}`, `{why.address}` is not what they name", NOWHERE,
                    help=(f"`archdsl compile SPEC --weights FILE@{source} --pass …` starts from such weights and carries them through the steps",
                          f"in Python, `archdsl.passes.Model.of(spec, variant, weights = …, source = \"{source}\")` does"))
    if source not in origin.names:
        raise error("A0542", f"the spec of `{origin.model}` has no names `{source}`", NOWHERE,
                    help=(*did_you_mean(source, origin.names), _which(origin)))
    return origin.names[source]


def _source(origin: Origin, source: str | None) -> str:
    """The names that are meant: those given, or the only ones. Raises A0542."""
    known = list(dict.fromkeys((*origin.names, *origin.prevented)))
    if source is not None or len(known) == 1:
        return source if source is not None else known[0]
    if not known:
        raise error("A0542", f"the spec of `{origin.model}` has no foreign names", NOWHERE, help=_which(origin))
    raise error("A0542", f"the spec of `{origin.model}` has several names, and `source` says which of them is meant", NOWHERE,
                help=f"give one, for example `source = \"{known[0]}\"`: it has {', '.join(f'`{n}`' for n in known)}")


def _which(origin: Origin) -> str:
    if origin.names:
        return f"it has {', '.join(f'`{n}`' for n in origin.names)}"
    return (f"it has none: `names SOURCE of {origin.model} {{ \"their.name\" <-> our.name }}` in the spec adds some; "
            "`model.load_state_dict(…)` takes weights under the model's own names")


def _tensors(model: nn.Module, origin: Origin) -> dict[str, Tensor]:
    """Address -> tensor of all that the typed graph saves. Raises A0543 where the module lacks one."""
    held = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    lost = [a for a in origin.shapes if a not in held]
    if lost:
        raise error("A0543", f"this model has lost {len(lost):,} weights of its spec, {lost[0]} among them", NOWHERE,
                    help="import before the modules are changed")
    return {a: held[a] for a in origin.shapes}


def _number(value: Fraction, like: Tensor) -> bool | int | float:
    return float(value) if like.is_floating_point() or value.denominator != 1 else int(value)


# ---------------------------------------------------------------- what does not fit
def _misfit(origin: Origin, source: str, report: Report, found: dict[str, Shape]) -> ArchError:
    counts = ", ".join(f"{n:,} {kind}" for kind, n in report.faults.items())
    notes = [_list("missing", report.missing), _list("unexpected", report.unexpected),
             _list("mis-shaped", [f"{k}: {e} expected, {f} found" for k, (e, f) in report.mis_shaped.items()]),
             _list("unequal", [f"{k} should repeat {of}" for k, of in report.unequal.items()])]
    fitting = _fitting(origin, source, found)
    help = (fitting,) if fitting else ("`strict = False` imports what fits",)
    if not fitting and set(report.faults) == {"unexpected"}:
        last = {k.rpartition(".")[2] for k in report.unexpected}
        several = len(report.unexpected) > 1 and len(last) == 1 and all("." in k for k in report.unexpected)
        pattern = f"**.{last.pop()}" if several else next(iter(report.unexpected))
        help = (f"`ignore \"{pattern}\"` in `names {source}` leaves out what the model does not need", *help)
    return error("A0541", f"these weights do not fit `{_called(origin.model, origin.variant)}` by the names `{source}`: {counts}", NOWHERE,
                 notes=tuple(n for n in notes if n), help=help)


def own_misfit(model: nn.Module, given: dict[str, Shape]) -> ArchError | None:
    """A0541 where weights of these shapes are not the model's under its own names: the first that differs by its line, what would make them fit."""
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    wrong = {k: f"`{k}` is missing" for k in own if k not in given}
    wrong |= {k: f"`{k}` is no weight of this model" for k in given if k not in own}
    wrong |= {k: f"`{k}` has the shape {list(given[k])}, the model {list(own[k])}" for k in own if k in given and given[k] != own[k]}
    if not wrong:
        return None
    origin: Origin = model.archdsl  # pyright: ignore[reportAssignmentType]
    address, told = next(iter(wrong.items()))
    others = list(wrong.values())[1:]
    notes = (*others[:5], *([f"and {len(others) - 5:,} more"] if len(others) > 5 else []))
    foreign = " or ".join(f"`FILE@{name}`" for name in origin.names)
    help = _own_fitting(origin, given) or (f"weights under the names of the spec's `names` are read by {foreign}" if foreign else ())
    return error("A0541", f"these weights do not fit `{_called(origin.model, origin.variant)}` under its own names: {told}",
                 _owner(origin.graph, address) if address in own else NOWHERE, "owned by this", notes=notes, help=help)


def _own_fitting(origin: Origin, given: dict[str, Shape]) -> str:
    """The foreign names or the variant that weights of these shapes have."""
    from archdsl.names import own_shapes

    for name, m in origin.names.items():
        if m.fit(origin.shapes, given).perfect:
            return f"these are the weights of this model under the names `{name}`: `FILE@{name}`"
    spec = origin.spec or _reload(origin)
    for s in spec.models.values() if spec else ():
        for variant in (None, *s.variants):
            if own_shapes(s.source(variant).graph) == given:
                return f"these are the weights of {f'the variant `{_called(s.name, variant)}`' if variant else f'`{s.name}` as it stands'}"
    return ""


def _owner(graph: Graph, address: str) -> Span:
    """The application that owns a weight, in the text of the model, inside of its loops; the declaration of a weight of the model's own."""
    for n in graph.nodes:
        path = n.attrs["path"] if n.op == "call" else ""
        if path and address.startswith(f"{path}."):
            a_pass = path.rpartition(".")[2].isdigit()  # of a labelled loop
            return _owner(n.attrs["graph"], address[len(path) + 1:]) if a_pass else n.span
    return next((p.span for p in graph.params if p.path == address), NOWHERE)


def _called(model: str, variant: str | None) -> str:
    return f"{model}.{variant}" if variant else model


def _list(kind: str, rows: Iterable[str]) -> str:
    rows = list(rows)
    more = [f"… and {len(rows) - SHOWN:,} more"] if len(rows) > SHOWN else []
    return "\n".join([f"{kind}, {len(rows):,}:", *(f"  {r}" for r in [*rows[:SHOWN], *more])]) if rows else ""


def _fitting(origin: Origin, source: str, found: dict[str, Shape]) -> str:
    """What would make the weights fit: a prefix, other names, another variant."""
    names, shapes = origin.names, origin.shapes
    expected = names[source].shapes(shapes)
    for text in _prefixes(found, expected):
        if names[source].fit(shapes, {k.removeprefix(text): s for k, s in found.items()}).perfect:
            return f"the keys fit without `{text}` before them"
    for text in _prefixes(expected, found):
        if names[source].fit(shapes, {text + k: s for k, s in found.items()}).perfect:
            return f"the keys fit with `{text}` before them"
    for other, m in names.items():
        if other != source and m.fit(shapes, found).perfect:
            return f"these are the weights of this model under the names `{other}`: `source = \"{other}\"`"
    for variant, other in _other_variants(origin, source, found):
        return f"these are the weights of `{variant}`" + (f", under the names `{other}`" if other != source else "")
    return ""


def _prefixes(long: Iterable[str], short: Mapping[str, Any]) -> list[str]:
    """What stands before a key of `short` in a key of `long`, up to a dot."""
    return list(dict.fromkeys(k[: i + 1] for k in long for i, c in enumerate(k) if c == "." and k[i + 1 :] in short))


def _other_variants(origin: Origin, source: str, found: dict[str, Shape]) -> Iterable[tuple[str, str]]:
    """Variants, and names of them, that the weights fit, but for those of this model's own shapes. Nothing when the spec is not at hand any more."""
    from archdsl.names import own_shapes, weight_maps

    spec = origin.spec or _reload(origin)
    for s in spec.models.values() if spec else ():
        for variant in (None, *s.variants):
            made = s.source(variant)
            shapes = own_shapes(made.graph)
            for name, m in weight_maps(s.module, s.name, made).items():
                if (name != source or shapes != origin.shapes) and m.fit(shapes, found).perfect:
                    yield _called(s.name, variant) if len(spec.models) > 1 or variant is None else variant, name  # type: ignore[union-attr]


def _reload(origin: Origin) -> Spec | None:
    """The spec of a model that comes from a pickle, if its file still stands there."""
    from archdsl.spec import load

    try:
        return load(origin.path)
    except ArchError:
        return None
