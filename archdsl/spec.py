"""The facade: a spec as people use it, from Python and from the command line."""
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archdsl.alone import alone
from archdsl.checking import faults_of
from archdsl.collection import no_garbage
from archdsl.diagnostics.model import ArchError, Diagnostic, error
from archdsl.elaborate.bindings import static_names
from archdsl.elaborate.frame import Session
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.limits import room
from archdsl.elaborate.model import Elaborated, InputSpec, Setting, elaborate
from archdsl.elaborate.values import show
from archdsl.files import located, read_source, shipped_files
from archdsl.graph import Graph, Knob
from archdsl.modules import Library, Module, family
from archdsl.shapes import axis_names
from archdsl.source import Source, Span
from archdsl.syntax import tree
from archdsl.syntax.parser import no_collection, parse_expression
from archdsl.variants import Variant, known_variants, no_target

if TYPE_CHECKING:
    from archdsl.claims import Claim
    from archdsl.cost import Cost
    from archdsl.incremental.kept import Kept
    from archdsl.passes.step import Step
    from archdsl.search.space import SearchSpace
    from archdsl.supernet.net import Supernet
    from archdsl.weightmap import WeightMap


class Spec:
    """One model of a file. `models` holds all of them by name; `variants`, `knobs`, `inputs`, `claims` are this model's."""

    def __init__(self, module: Module, decl: tree.Model, path: str, models: dict[str, Spec], session: Session, kept: Kept | None = None):
        self.module, self.decl, self.path, self.models, self.session = module, decl, path, models, session
        self.name, self.doc, self.kept = decl.name, decl.doc, kept
        self.failed: set[str | None] = set()  # variants in which a check found a fault, None for the defaults
        self._made: dict[Any, Elaborated] = {}
        self._transformed: dict[tuple[int, str | None], tuple[Elaborated, Elaborated]] = {}

    def __repr__(self) -> str:
        return f"Spec({self.path}:{self.name}, {len(self.variants)} variants)"

    def _repr_html_(self) -> str:
        """The picture of the model at its defaults, for notebooks."""
        from archdsl.draw.page import html_page, notebook
        from archdsl.draw.view import example_view

        return notebook(html_page(example_view(self.elaborate(), self.name)))

    # ---------------------------------------------------------------- what it declares
    @cached_property
    def paper(self) -> dict[str, Any]:
        """The settings of the file's `paper { … }`."""
        out: dict[str, Any] = {}
        for d in self.module.tree.decls:
            if isinstance(d, tree.Paper):
                out.update({s.address: getattr(s.value, "value", None) for s in d.settings})
        return out

    @cached_property
    @alone
    def variants(self) -> dict[str, Variant]:
        """Variants of this model, by name."""
        return {n: v for n, v in known_variants(self.module, self.models, self.session).items() if v.model in (self.name, family(self.name))}

    @property
    def knobs(self) -> dict[str, Knob]:
        """Address -> knob, at the defaults."""
        return self.elaborate().knobs

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Inputs at the defaults."""
        return self.elaborate().inputs

    @property
    def claims(self) -> list[Claim]:
        """The claims about this model and its variants."""
        from archdsl.claims import claims_of

        return claims_of(self)

    # ---------------------------------------------------------------- elaboration
    @alone
    def elaborate(self, variant: str | None = None, knobs: dict[str, Any] | None = None) -> Elaborated:
        """The typed graph for a variant, its `transform`s applied, and knob settings (address -> value, or text to be read as an expression when it
        is a `Setting`)."""
        made = self.source(variant, knobs)
        if not self.transforms(variant):
            return made
        key = id(made), variant
        if key not in self._transformed:
            from archdsl.passes.manager import transformed

            make = lambda: transformed(made, self.steps(variant, knobs), self.session)
            self._transformed[key] = made, make() if self.kept is None else self.kept.transformed(made, self.transforms(variant), self.session, make)
        return self._transformed[key][1]

    def transforms(self, variant: str | None) -> tuple[tree.Transform, ...]:
        """The `transform`s of a variant, those of its bases first."""
        return self.variants[variant].transforms if variant is not None and variant in self.variants else ()

    @alone
    def steps(self, variant: str | None = None, knobs: dict[str, Any] | None = None) -> tuple[Step, ...]:
        """The steps of a variant, their options evaluated with its knobs. Raises ArchError A0561, A0562."""
        if not self.transforms(variant):
            return ()
        from archdsl.passes.manager import read_all

        return read_all(self.module, self.session, self.source(variant, knobs), self.transforms(variant))

    @alone
    def source(self, variant: str | None = None, knobs: dict[str, Any] | None = None) -> Elaborated:
        """The typed graph as it is written, before any `transform`."""
        settings = self.settings(variant, knobs or {})
        key = tuple((s.address, repr(s.value), s.expr.span.text if s.expr is not None else None) for s in settings)
        if key not in self._made:
            if len(self._made) > 64:
                self._made.clear()
                self._transformed.clear()
            make = lambda: elaborate(self.module, self.decl, settings, self.session)
            self._made[key] = make() if self.kept is None else self.kept.elaborated(self.decl, settings, self.session, make)
        return self._made[key]

    def settings(self, variant: str | None, knobs: Mapping[str, Any]) -> tuple[Setting, ...]:
        """Those of a variant, then these. Raises ArchError A0401, A0215."""
        out: list[Setting] = []
        if variant is not None:
            if variant not in self.variants:
                span = Span(Source("<variant>", variant), 0, len(variant))
                raise error("A0401", f"`{self.name}` has no variant `{variant}`", span, "no such variant",
                            help=did_you_mean(variant, self.variants) or (f"it has {', '.join(self.variants) or 'none'}",))
            out += self.variants[variant].settings
        for address, value in knobs.items():
            out.append(value if isinstance(value, Setting) else python_setting(address, value))
            if address in self._run_time_sizes:
                raise error("A0215", f"`{address}` is a size of an input, not a knob", out[-1].span, "known when the model runs",
                            help=f'costs are counted for the sizes in `at`: `cost(at={{"{address}": 32}})`, or `--at {address}=32`')
        return tuple(out)

    @cached_property
    def _run_time_sizes(self) -> set[str]:
        """The names of axes that inputs bind when the model runs."""
        kinds = [p.type.item if isinstance(p.type, tree.OptionalType) else p.type for p in self.decl.inputs or ()]
        axes = {name for kind in kinds if isinstance(kind, tree.TensorType) for axis in kind.shape.axes for name in axis_names(axis)}
        return axes - static_names(self.decl) - {p.name for p in self.decl.params}

    def space(self, name: str | None = None, variant: str | None = None, limits: Iterable[str] = (), fixed: bool = False) -> SearchSpace:
        """What a search decides: every knob with a domain, within the limits of `space NAME of …` and those given as text (`params <= 30M`). The
        other knobs keep the values of the variant; with `fixed`, all that the variant sets do. Raises ArchError A0801, A0804, A0805, and those of
        limits as in claims."""
        from archdsl.search.space import SearchSpace

        return SearchSpace(self, name, variant, tuple(limits), fixed=fixed)

    def supernet(self, name: str | None = None, variant: str | None = None, limits: Iterable[str] = (), seed: int = 0, device: Any = "cpu",
                 dtype: Any = None) -> Supernet:
        """Every candidate of `space(name, variant, limits)` in one set of weights: a torch.nn.Module. Raises ArchError A0518 for what is no device of
        this machine, A0849 for a value that no candidate can have, and what `space` raises."""
        from archdsl.lower.memory import is_device
        from archdsl.supernet.net import Supernet

        is_device(device, self.decl.name_span)
        if not hasattr(seed, "__index__"):
            raise TypeError(f"supernet: the seed is a whole number, not {seed!r}")
        return Supernet(self.space(name, variant, limits), seed, device, dtype)

    def graph(self, variant: str | None = None, **knobs: Any) -> Graph:
        """The typed graph."""
        return self.elaborate(variant, knobs).graph

    def cost(self, variant: str | None = None, at: dict[str, int] | None = None, form: str | None = None, dtype: str = "f32",
             rewrites: Iterable[str] | None = None, **knobs: Any) -> Cost:
        """Parameters, multiply-accumulates and bytes for the sizes in `at` (the spec's example sizes where it is silent), without torch.
        `form`: packed where the header has a ragged axis, else parallel, unless it is given. `dtype` (f32, f64, bf16, f16) is that of everything
        the spec does not pin. `rewrites`: as for `build`."""
        from archdsl.cost import cost

        made, sizes = self.sized(variant, at or {}, self._knobs(knobs))
        return cost(made, sizes, form, dtype, rewrites=rewrites)

    def sized(self, variant: str | None, at: dict[str, int], knobs: dict[str, Any]) -> tuple[Elaborated, dict[str, int]]:
        """The typed graph with its static sizes as in `at`, and the sizes in `at` that vary at run time. Raises A0645 for a size that is also a
        setting."""
        static = static_names(self.decl)
        for name in sorted(static & at.keys() & knobs.keys()):
            setting = knobs[name] if isinstance(knobs[name], Setting) else python_setting(name, knobs[name])
            raise error("A0645", f"the static size `{name}` is given twice: {at[name]} as a size and {setting_text(setting)} as a setting",
                        setting.span, "the setting", help="give it once")
        made = self.elaborate(variant, {**knobs, **{n: v for n, v in at.items() if n in static}})
        return made, {n: v for n, v in at.items() if n not in static}

    def build(self, variant: str | None = None, seed: int = 0, device: Any = "cpu", dtype: Any = None, form: str | None = None,
              emit: str | Iterable[str] = (), flat: bool = False, bind: dict[str, Any] | None = None,
              feed: str | tuple[str, ...] = (), rewrites: Iterable[str] | None = None, kernels: str | Mapping[str, str] | None = None,
              loss: str | None = None, **knobs: Any) -> Any:
        """The trainable torch.fx.GraphModule. `form`: packed where the header has a ragged axis, `model(x, lengths)`, else parallel, unless it is
        given. `device="meta"` allocates nothing; `emit` asks for emitted values by address pattern, `feed` for
        draws that each call is given, `draws = {address: tensor}`; `bind` gives the user's own modules for `extern block`s. `rewrites`: which
        rewrites a form with state may use for a smaller one, of `archdsl.streaming.model.REWRITES`; all unless given, `()` for none.
        `kernels`: `"reference"` for plain torch, or the kernel of an op by name, `{"ssd": "triton"}`; what is not told is chosen for the device.
        `loss = "cross_entropy"`: `model(…, targets)` gives the mean loss in place of its first result, the scores [..., classes]; targets of -100 do
        not count. Where the scores are a linear map, they are never held as a whole; `loss_of(model)` of `archdsl.lower.losses` tells.
        Raises ArchError for a form that the model does not have, and for a kernel that cannot be used."""
        if not hasattr(seed, "__index__"):
            raise TypeError(f"build(variant, seed = 0, device = \"cpu\", …) builds one variant: the seed is a whole number, not {seed!r}")
        if variant is not None and not isinstance(variant, str):
            raise TypeError(f"a variant is given by its name, not {variant!r}")
        device = "cpu" if device is None else device
        settings = self._knobs(knobs)
        with no_garbage():
            made = self.elaborate(variant, settings)
        from archdsl.lower import lower
        from archdsl.lower.memory import fits
        from archdsl.origin import Origin
        from archdsl.streaming import known_form, source

        if form is not None:
            known_form(form, self.decl.name_span)
        fits(made.graph, device, dtype, self.decl.name_span)
        if self.transforms(variant):
            from archdsl.passes.model import Model

            return Model.of(self, variant, settings, seed=seed, dtype=dtype).build(device, emit, flat, bind, form, feed, rewrites, kernels, loss)
        model: Any = lower(made.graph, seed=seed, device=device, dtype=dtype, emit=emit, flat=flat, bind=bind, form=form or made.form,
                           source=source(made, rewrites), feed=feed, kernels=kernels, loss=loss)
        model.archdsl = Origin(self.path, self.name, variant, {a: setting_text(v) for a, v in settings.items()}, made.graph,
                               lambda: self.names(variant, settings), self)
        return model

    def names(self, variant: str | None = None, knobs: dict[str, Any] | None = None) -> dict[str, WeightMap]:
        """The maps from addresses to foreign names, of the model as it is written, before any `transform`."""
        from archdsl.names import weight_maps

        return weight_maps(self.module, self.name, self.source(variant, knobs))

    @staticmethod
    def _knobs(knobs: dict[str, Any]) -> dict[str, Any]:
        extra = knobs.pop("knobs", None)
        return {**knobs, **(extra or {})}


def python_setting(address: str, value: Any) -> Setting:
    """A knob set from Python: numbers, strings, bools, lists; a record or a block as its text in the language."""
    if isinstance(value, tree.Expr):
        return Setting(address, None, value, value.span)
    text = f"{address} = {value!r}"
    return Setting(address, _plain(value), None, Span(Source("<python>", text), 0, len(text)))


def _plain(value: Any) -> Any:
    """A value of Python as the language counts."""
    if type(value) in (int, str, bool):  # most are, and to ask for the kind of a number takes long
        return value
    from fractions import Fraction
    from numbers import Integral, Real

    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)  # NumPy's too
    if isinstance(value, Real) and not isinstance(value, (Integral, Fraction)):
        value = float(value)
        return Fraction(repr(value)) if value == value and abs(value) != float("inf") else value
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def expression(text: str) -> tree.Expr:
    """A value written in the language, for knobs that hold records or blocks:
    `spec.build(scaling = archdsl.expression("Llama3Scaling(factor = 8, …)"))`."""
    return parse_expression(text)


def setting_text(value: Any) -> str:
    """A setting's value as text of the language."""
    if type(value) is int:
        return str(value)
    if isinstance(value, Setting):
        return value.expr.span.text if value.expr is not None else show(value.value)
    return value.span.text if isinstance(value, tree.Expr) else show(_plain(value))


def text_setting(text: str) -> Setting:
    """`ADDRESS=VALUE` of the command line; the value is an expression of the language. Raises A0605."""
    address, eq, value = text.partition("=")
    if not eq or not address.strip():
        raise error("A0605", f"`{text}` is no setting", Span(Source("--set", text), 0, len(text)), help="write ADDRESS=VALUE, for example `d=512`")
    return Setting(address.strip(), None, parse_expression(value.strip(), "--set"), Span(Source("--set", text), 0, len(text)))


# ---------------------------------------------------------------- files
def load(path: str | os.PathLike[str]) -> Spec:
    """The spec in a file, or the shipped one of a name (`vit`): its first model, `.models` for all. Raises ArchError with everything that `check`
    would report as errors."""
    path = located(os.fspath(path))
    if not os.path.exists(path):
        _is_path(path)
    source = read_source(path)
    spec, found, _ = _load(source, _folder(path))
    return _sound(source, spec, found)


def _is_path(path: str) -> None:
    """Raises A0621 for the text of a spec, and for a file with a variant behind it."""
    file, _, variant = path.rpartition(":")
    if "{" in path or "\n" in path:
        raise error("A0621", "this is the text of a spec, not the path of a file", Span(Source("load", path), 0, len(path)),
                    help="`archdsl.loads(TEXT)` reads a text")
    if os.path.isfile(located(file)):
        raise error("A0621", f"there is no file `{path}`", Span(Source(path, ""), 0, 0),
                    help=f'`archdsl.load("{file}").build("{variant}")` builds the variant')


def loads(text: str, name: str = "<text>") -> Spec:
    """The spec in a string, as `load`; it may import from the library alone."""
    source = Source(name, text)
    spec, found, _ = _load(source, None)
    return _sound(source, spec, found)


def _sound(source: Source, spec: Spec | None, found: list[Diagnostic]) -> Spec:
    faults = [d for d in found if d.severity == "error"]
    if faults:
        raise ArchError(*faults)
    if spec is None:
        raise error("A0606", f"{source.path} declares no model", Span(source, 0, 0), help="a spec holds at least one `model NAME(…)(…) -> … { … }`")
    return spec


def _folder(path: str | os.PathLike[str]) -> str:
    return os.path.dirname(os.path.realpath(path))


@alone
def _load(source: Source, folder: str | None, lints: bool = False) -> tuple[Spec | None, list[Diagnostic], int]:
    """The first model of a text, what is wrong with it, and the steps that it took to find out."""
    with no_collection(), room(Span(source, 0, 0)):
        return _read_and_check(source, folder, lints)


def _read_and_check(source: Source, folder: str | None, lints: bool) -> tuple[Spec | None, list[Diagnostic], int]:
    module = Library().open(source, folder)
    session = Session(module.library)
    models, found = check_module(module, session, lints)
    return next(iter(models.values()), None), found, session.steps


def check_module(module: Module, session: Session, lints: bool, kept: Kept | None = None) -> tuple[dict[str, Spec], list[Diagnostic]]:
    """The models of a module, and everything that is wrong with it. `kept`: what earlier versions of the text gave, and the session with them."""
    models: dict[str, Spec] = {}
    for name, d in module.models.items():
        models[name] = Spec(module, d, module.source.path, models, session, kept)
    return models, faults_of(module, models, session, lints, kept)


def check_file(path: str, lints: bool = False) -> list[Diagnostic]:
    """Everything that is wrong with a file, in the order of the text; with `lints`, what a file without errors could do without, as warnings."""
    try:
        source = read_source(path)
    except ArchError as e:
        return e.diagnostics
    return _check(source, _folder(path), lints)


def check_text(text: str, path: str, lints: bool = False, trials: bool = True) -> list[Diagnostic]:
    """The same of a text that is to stand in the file `path`. `trials`: fixes are tried before they are offered."""
    return _check(Source(path, text), _folder(path), lints, trials)


@alone
def _check(source: Source, folder: str, lints: bool, trials: bool = True) -> list[Diagnostic]:
    steps = 0
    try:
        _, found, steps = _load(source, folder, lints)
    except ArchError as e:
        found = e.diagnostics
    if trials and any(d.severity == "error" for d in found):
        from archdsl.trials.search import tried

        found = tried(found, source, steps)
    return sorted(found, key=lambda d: (d.span.source.path, d.span.start))


def resolve_source(text: str) -> tuple[Spec, str | None]:
    """`SPEC[:model][.variant]`, or `SPEC:variant` where the file has one model with such a variant; `Model.entry` is a model as well.
    A shipped spec may be given by its name."""
    path, _, rest = text.partition(":") if not (len(text) > 1 and text[1] == ":") else (text, "", "")
    spec = load(path)
    if not rest:
        return spec, None
    model, variant = (rest, "") if rest in spec.models else ("", rest) if "." not in rest else tuple(rest.rsplit(".", 1))
    if model:
        if model not in spec.models:
            raise _no_such(text, rest, spec)
        entries = [name.partition(".")[2] for name in spec.models if name != model and family(name) == model]
        if variant and entries and variant not in spec.models[model].variants:
            span = Span(Source("SOURCE", text), len(text) - len(variant), len(text))
            raise error("A0401", f"`{model}` has neither an entry nor a variant `{variant}`", span, "no such name",
                        help=did_you_mean(variant, [*entries, *spec.models[model].variants]) or (f"its entries are {', '.join(entries)}",))
        return spec.models[model], variant or None
    for s in spec.models.values():
        if rest in s.variants:
            return s, rest
    raise _no_such(text, rest, spec)


def _no_such(text: str, rest: str, spec: Spec) -> ArchError:
    from archdsl.spaces import spaces_of

    names = [*spec.models, *(v for s in spec.models.values() for v in s.variants)]
    span = Span(Source("SOURCE", text), text.rfind(rest), len(text))
    if any(rest in spaces_of(s) for s in spec.models.values()):
        return error("A0401", f"`{rest}` is a space, neither a model nor a variant of {spec.path}", span, "no model",
                     help=f"`archdsl space` and `archdsl search` take it beside the spec: `--space {rest}`")
    return no_target(rest, span, names, spec.path)


def shipped() -> list[dict[str, Any]]:
    """The rows of `archdsl list`."""
    rows = []
    for path in shipped_files():
        for s in _read_only(path).values():
            rows.append({"path": path, "name": s.name, "kind": s.paper.get("kind", "model"), "title": s.paper.get("title", ""),
                         "arxiv": s.paper.get("arxiv", ""), "domain": s.paper.get("domain", os.path.basename(os.path.dirname(path))),
                         "task": s.paper.get("task", ""), "family": s.paper.get("family", ""),
                         "variants": list(s.variants)})
    return rows


@alone
def _read_only(path: str) -> dict[str, Spec]:
    """The models of a file by name, nothing checked; none where the text is too broken to show one."""
    module = Library().open(read_source(path), _folder(path))
    models: dict[str, Spec] = {}
    session = Session(module.library)
    for name, d in module.models.items():
        models[name] = Spec(module, d, path, models, session)
    return models
