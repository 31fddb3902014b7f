"""What claims and spaces may speak of, and whether they make sense: decided from the text alone, before anything is elaborated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from archdsl.diagnostics.model import ArchError, Diagnostic, Label, error
from archdsl.elaborate import library
from archdsl.elaborate.bindings import axis_of_time, static_names, tensor_type
from archdsl.elaborate.hints import mend, nearest_help, place_of
from archdsl.elaborate.values import BlockRef, FnRef
from archdsl.elaborate.walk import MAX_FOUND, Walk
from archdsl.modules import Module
from archdsl.ops.registry import find as find_op
from archdsl.records import record
from archdsl.shapes import axis_names
from archdsl.source import Span
from archdsl.syntax import tree
from archdsl.variants import no_target

DTYPES = ("f32", "f64", "bf16", "f16")


@record(frozen=True)
class Word:
    """`kind`: number, shape, or truth (a statement by itself). `comes`: with what it will be built; it cannot be verified before."""

    name: str
    kind: str
    usage: str
    sizes: bool = False
    comes: str = ""
    torch: bool = False


WORDS = {
    w.name: w
    for w in (
        Word("params", "number", "`params`, `params(ADDRESS)`, `params(KNOB = VALUE)`"),
        Word("macs", "number", "`macs`, `macs(H = 224, W = 224)`", sizes=True),
        Word("weight_bytes", "number", "`weight_bytes`, `weight_bytes(dtype = bf16)`", sizes=True),
        Word("bops", "number", "`bops`, `bops(T = 128)`", sizes=True),
        Word("quantized_bytes", "number", "`quantized_bytes`, `quantized_bytes(dtype = bf16)`", sizes=True),
        Word("saved_bytes", "number", "`saved_bytes(B = 1, T = 2048)`", sizes=True),
        Word("peak_bytes", "number", "`peak_bytes(B = 1, T = 2048)`", sizes=True),
        Word("count", "number", "`count(layer_norm)`, `count(Attention)`, `count(mixer == attention)`"),
        Word("shape", "shape", "`shape(logits, H = 224, W = 224)`, `shape(ADDRESS)`", sizes=True),
        Word("causal", "truth", "`causal(OUTPUT, INPUT)`", torch=True),
        Word("interchangeable", "truth", "`interchangeable(VARIANT, VARIANT)`"),
        Word("equal", "truth", "`equal(VARIANT) within 1e-10`", torch=True),
        Word("fails", "truth", "`fails(EXPRESSION)`"),
        Word("state_bytes", "number", "`state_bytes(B = 1, T = 8192)`", sizes=True),
        Word("delay", "number", "`delay`"),
        Word("forms", "truth", "`forms(OUTPUT) within 1e-10`", torch=True),
        Word("constant_state", "truth", "`constant_state(T)`"),
        Word("permutes", "truth", "`permutes(BLOCK, axis = T)`", comes="analyses of axes"),
        Word("probe", "number", "`probe(BLOCK, weight = 0)`", comes="probes of blocks"),
        Word("latency", "number", "`latency <= 5ms`, `latency(device = \"cuda\", B = 8) <= 2ms`", sizes=True),
        Word("active_params", "number", "`active_params`", comes="routing"),
    )
}
IN_SPACES = ("params", "macs", "bops", "weight_bytes", "quantized_bytes", "saved_bytes", "peak_bytes", "state_bytes", "count", "latency")
MEASURED = {"latency": ("device", "dtype", "form", "table")}
"""Words whose values are measured on a machine: spaces may limit them, claims say nothing about them. With what they are asked besides sizes."""


def word_of(node: Any) -> Word | None:
    """The word that an expression is, or a call of it."""
    name = node.func if isinstance(node, tree.Call) else node
    return WORDS.get(name.id) if isinstance(name, tree.Name) else None


def check_text(module: Module, doubtful: set[str] = frozenset()) -> list[Diagnostic]:  # type: ignore[assignment]
    """Claims, variants and spaces against the headers of their models: targets, names, arguments, and that each claim says yes or no.
    `doubtful`: names of which nothing is said, because the text around them could not be read."""
    found: list[Diagnostic] = []
    models = module.models
    variants = {d.name: d for d in module.tree.decls if isinstance(d, tree.Variant)}
    missing = set(doubtful)
    bases: dict[str, str | None] = {}
    for v in variants.values():
        if len(found) >= MAX_FOUND:
            return found
        if v.base is not None and v.base not in models and v.base not in variants and v.base not in missing:
            missing.add(v.base)
            found += no_target(v.base, _name_in(v.span, v.base, v.name_span.end), [*models, *variants]).diagnostics
        found += _variant(module, v, models.get(base_of(v.name, models, variants, bases) or ""))
    for target, decl in declared(module):
        try:
            if len(found) >= MAX_FOUND:
                return found
            model = _model_of(target, decl.span, models, variants, bases)
        except ArchError as fault:
            found += [] if (target or "").rpartition(".")[2] in missing else fault.diagnostics
            continue
        if model is not None:
            walk = _Words(module, model, variants)
            walk.told |= doubtful
            found += walk.all(walk.item, decl.items)
    for d in module.tree.decls:
        if isinstance(d, tree.Space) and d.model in models:
            walk = _Words(module, models[d.model], variants, IN_SPACES)
            walk.told |= doubtful
            found += walk.all(walk.limit, d.items)
    return found


def declared(module: Module) -> Iterator[tuple[str | None, tree.Claim]]:
    """Every `claim { … }` with the name it is about; None: the first model."""
    for d in module.tree.decls:
        if isinstance(d, tree.Claim):
            yield d.target, d
        elif isinstance(d, tree.Variant):
            yield from ((c.target or d.name, c) for c in d.claims)


# ---------------------------------------------------------------- variants and targets
def base_of(name: str, models: dict[str, Any], variants: dict[str, tree.Variant], known: dict[str, str | None]) -> str | None:
    """The model below a variant; None where a base does not exist or bases run in a circle. `known`: what was found before."""
    seen: dict[str, None] = {}
    base: str | None = name
    while base in variants and base not in seen and base not in known:
        seen[base] = None
        base = variants[base].base or next(iter(models), None)
    found = known.get(base or "", base if base in models else None)
    known.update(dict.fromkeys(seen, found))
    return found


def _model_of(
    target: str | None, span: Span, models: dict[str, tree.Model], variants: dict[str, tree.Variant], bases: dict[str, str | None]
) -> tree.Model | None:
    if target is None or target == "default" and target not in variants:
        return next(iter(models.values()), None)
    if target in models:
        return models[target]
    model, _, variant = target.partition(".")
    name = variant or target
    if name in variants and (not variant or model in models and base_of(name, models, variants, bases) in (model, None)):
        return models.get(base_of(name, models, variants, bases) or "")
    raise no_target(target, _name_in(span, target), [*models, *variants])


def _name_in(span: Span, name: str, after: int = 0) -> Span:
    """Where a name stands in a text, at `after` or later."""
    start = max(after - span.start, 0)
    found = re.search(rf"\b{re.escape(name)}\b", span.text[start:])
    return Span(span.source, span.start + start + found.start(), span.start + start + found.end()) if found else span


def _variant(module: Module, v: tree.Variant, model: tree.Model | None) -> list[Diagnostic]:
    """Nothing is set twice, and values of hyper arguments read only what the model's header knows."""
    found: list[Diagnostic] = []
    seen: dict[str, Span] = {}
    for s in v.settings:
        if s.address in seen:
            found += error(
                "A0402", f"`{s.address}` is set twice", s.address_span, "the second", labels=(Label(seen[s.address], "the first"),)
            ).diagnostics
        seen.setdefault(s.address, s.address_span)
        if len(found) >= MAX_FOUND:
            return found
    if model is not None:
        walk = Walk(module)
        walk.vars = dict.fromkeys(p.name for p in model.params)
        # elsewhere a value is read inside the block that has the knob
        found += walk.all(walk.expr, [s.value for s in v.settings if s.address in walk.vars])
    return found


# ---------------------------------------------------------------- items
class _Words(Walk):
    """A walk that knows the words of claims, the knobs and the run-time sizes of one model. `allowed`: the words that a limit may have; `figure`:
    where one of these stands by itself, as an objective does."""

    def __init__(self, module: Module, model: tree.Model, variants: dict[str, tree.Variant], allowed: Any = None, figure: Span | None = None):
        super().__init__(module)
        self.model, self.variants, self.allowed, self.figure = model, variants, allowed, figure
        inputs = model.inputs or ()
        self.input_names = [p.name for p in inputs]
        self.output_names = [o.name for o in model.outs if o.name]
        kinds = [k for k in map(tensor_type, inputs) if k is not None]
        self.knobs = [*(p.name for p in model.params), *sorted(static_names(model))]
        self.axes = [n for k in kinds for a in k.shape.axes for n in axis_names(a) if n[0].isupper() and n not in self.knobs]
        self.vars = dict.fromkeys([*self.knobs, *self.axes])

    # ------------------------------------------------------------ whole items
    def item(self, item: tree.ClaimItem) -> None:
        before = len(self.found.found)
        self.expr(item.expr)
        if item.condition is not None:
            self.expr(item.condition)
        if item.within is not None:
            self.expr(item.within[0])
            equal = isinstance(item.expr, tree.Binary) and item.expr.op == "=="
            word = word_of(item.expr)
            if not equal and (word is None or word.kind != "truth" or word.name in ("causal", "interchangeable", "fails", "constant_state")):
                self.report(
                    error(
                        "A0406",
                        "`within` gives `==` a tolerance; here nothing is compared for equality",
                        item.within[0].span,
                        "a tolerance of what?",
                        help="`macs == 4.456G within 0.5%`",
                    )
                )
        if len(self.found.found) == before and not (isinstance(item.expr, tree.Str) and before):  # a source behind a faulty claim
            self._says_something(item.expr, "claim")

    def limit(self, expr: tree.Expr) -> None:
        before = len(self.found.found)
        self.expr(expr)
        if len(self.found.found) == before:
            self._says_something(expr, "limit")

    def _says_something(self, node: tree.Expr, what: str) -> None:
        word = word_of(node)
        if (
            word is not None
            and word.kind != "truth"
            or isinstance(node, (tree.Number, tree.Str, tree.List, tree.Tuple))
            or isinstance(node, tree.Binary)
            and node.op in "+-*/**//%"
        ):
            self.report(
                error(
                    "A0405",
                    f"this {what} says neither yes nor no: `{' '.join(node.span.text.split())}` is a value",
                    node.span,
                    "compared with nothing",
                    help=f"`{' '.join(node.span.text.split())} == …`",
                )
            )

    # ------------------------------------------------------------ names
    def use(self, name: str, span: Span) -> Any:
        if name in WORDS:
            self._allowed(WORDS[name], span)
            return None
        return super().use(name, span)

    def unknown(self, name: str, span: Span) -> None:
        if name in self.told:
            return
        self.told.add(name)
        if self.figure is not None and span.start == self.figure.start:
            self.report(error("A0403", f"`{name}` is no figure of a model", span, "nothing to count",
                              **mend(name, self.allowed, span, f"figures are {', '.join(self.allowed)}")))
            return
        words = [*(self.allowed or WORDS), *self.vars]
        place = place_of(name, span)
        called = place is not None and place.source.text[place.end : place.end + 1] == "("
        known = [*words, *self.module.scope, *(library.names() if called else ())]  # by itself, a function says nothing
        help, fixes = nearest_help(name, known, place)
        what = "figure" if self.figure is not None else "limit" if self.allowed else "claim"
        told = help or ((f"{what}s speak of {', '.join(self.allowed or WORDS)} and the model's own knobs",) if not fixes else ())
        self.report(error("A0403", f"`{name}` is nothing that a {what} can speak of", span, "not known here", help=told, fixes=fixes))

    def _allowed(self, word: Word, span: Span) -> bool:
        if self.figure is not None and word.name not in self.allowed:
            figures = f"figures are {', '.join(self.allowed)}"
            self.report(error("A0404", f"`{word.name}` is no figure of a model: it is for claims", span, help=figures))
            return False
        if self.allowed is not None and word.name not in self.allowed:
            self.report(
                error(
                    "A0404",
                    f"a space limits costs and knobs; `{word.name}` is for claims",
                    span,
                    help=f"limits speak of {', '.join(self.allowed)} and knobs",
                )
            )
            return False
        if self.allowed is None and word.name in MEASURED:
            self.report(error("A0404", f"a claim holds on every machine; `{word.name}` is measured on one", span, help="limit it in a `space`"))
            return False
        return True

    def member(self, node: tree.Member) -> Any:
        """An address: it is looked up when the model has been elaborated."""
        root = root_of(node)
        if isinstance(root, tree.Name) and (root.id in self.vars or root.id in self.module.modules or root.id in self.module.scope):
            return super().member(node)
        return None

    def binary(self, node: tree.Binary) -> None:
        """`layers.0.mixer == attention`: the name beside an address is an arm of that choice, checked with the address."""
        sides = (node.left, node.right)
        beside_address = node.op in ("==", "!=") and any(isinstance(s, tree.Member) for s in sides)
        for s in sides:
            if not (beside_address and isinstance(s, tree.Name)):
                self.expr(s)

    # ------------------------------------------------------------ words with arguments
    def call(self, node: tree.Call, piped: int = 0) -> None:
        word = word_of(node)
        if word is None:
            super().call(node, piped)
            return
        if not self._allowed(word, node.func.span) or word.comes:
            return
        positional = [a for a in node.args if a.name is None]
        for a in node.args:
            if a.name is not None:
                self._keyword(word, a)
        check = getattr(self, f"_{word.name}", None)
        fault = check(positional, node) if check else f"{word.name} takes no argument without a name" if positional else None
        if fault:
            self.report(error("A0404", f"`{word.name}` cannot be asked so: {fault}", node.span, help=f"write {word.usage}"))

    def _keyword(self, word: Word, a: tree.Arg) -> None:
        if a.name == "dtype" and word.name.endswith("_bytes"):
            if not isinstance(a.value, tree.Name) or a.value.id not in DTYPES:
                self.report(error("A0404", f"`{a.value.span.text}` is no float type to count with", a.value.span, help=f"one of {', '.join(DTYPES)}"))
            return
        if a.name in MEASURED.get(word.name, ()):
            named = isinstance(a.value, tree.Name) and a.name == "dtype" and a.value.id in DTYPES
            if not named and (a.name == "dtype" or not isinstance(a.value, tree.Str)):
                what = f"a float type: one of {', '.join(DTYPES)}" if a.name == "dtype" else "a text in quotes"
                self.report(error("A0404", f"`{a.name}` is {what}, not `{a.value.span.text}`", a.value.span, help=f"write {word.usage}"))
            return
        self.expr(a.value)
        if a.name in self.knobs or word.sizes and a.name in self.axes:
            return
        known = [*self.knobs, *(self.axes if word.sizes else ()), *MEASURED.get(word.name, ())]
        what = (
            f"`{word.name}` does not depend on the size `{a.name}`"
            if a.name in self.axes
            else f"`{self.model.name}` has neither a knob nor a run-time size `{a.name}`"
        )
        self.report(error("A0404", what, a.name_span or a.span, "nothing to set", **mend(a.name or "", known, a.name_span)))

    def _params(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        return "it takes one address at most" if len(positional) > 1 else None

    def _shape(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        return None if len(positional) == 1 else "it takes one output, input or address"

    def _count(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        if len(positional) != 1:
            return "it takes the name of an op or a block, or `KNOB == VALUE`"
        what = positional[0].value
        if isinstance(what, tree.Binary) and what.op in ("==", "!="):
            return None
        if not isinstance(what, tree.Name):
            return "it takes the name of an op or a block, or `KNOB == VALUE`"
        if find_op(what.id) is None and not isinstance(self.module.scope.get(what.id), BlockRef) and library.module_of(what.id) is None:
            names = [*library.names(), *(n for n, r in self.module.scope.items() if isinstance(r, BlockRef))]
            self.report(error("A0403", f"there is no op or block `{what.id}` to count", what.span, "not known", **mend(what.id, names, what.span)))
        return None

    def _causal(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        names = [a.value.id if isinstance(a.value, tree.Name) else None for a in positional]
        if len(names) != 2 or None in names:
            return "it takes an output and an input by their names"
        self._in_header(names[0], self.output_names, "output", positional[0])
        self._in_header(names[1], self.input_names, "input", positional[1])
        self._in_time("causal", node)
        return None

    def _in_header(self, name: str | None, known: list[str], what: str, a: tree.Arg) -> None:
        if name not in known:
            self.report(
                error(
                    "A0404",
                    f"`{self.model.name}` has no {what} `{name}`",
                    a.span,
                    f"no such {what}",
                    **mend(name or "", known, a.span,
                           f"it has {', '.join(known)}" if known else "name the output in the header: `-> logits: […]`"),
                )
            )

    def _in_time(self, word: str, node: tree.Call) -> None:
        if axis_of_time(self.model) is None:
            self.report(
                error(
                    "A0404",
                    f"`{word}` speaks of an order in time; `{self.model.name}` does not say which axis that is",
                    node.span,
                    labels=(Label(self.model.name_span, "no `stream AXIS` in this header"),),
                    help="add `stream T` behind the outputs",
                )
            )

    def _state_bytes(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        self._in_time("state_bytes", node)
        return "it takes sizes and knobs by name" if positional else None

    def _delay(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        self._in_time("delay", node)
        return "it takes knobs by name" if positional else None

    def _forms(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        if len(positional) != 1 or not isinstance(positional[0].value, tree.Name):
            return "it takes an output by its name"
        self._in_header(positional[0].value.id, self.output_names, "output", positional[0])
        self._in_time("forms", node)
        return None

    def _constant_state(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        if len(positional) != 1 or not isinstance(positional[0].value, tree.Name):
            return "it takes the axis of time by its name"
        name, stream = positional[0].value.id, axis_of_time(self.model)
        self._in_time("constant_state", node)
        if stream is not None and name != stream:
            self.report(error("A0404", f"`{name}` is not the axis of time of `{self.model.name}`", positional[0].span, f"it is `{stream}`",
                              **mend(name, [stream], positional[0].span)))
        return None

    def _variants(self, positional: list[tree.Arg], count: int) -> str | None:
        if len(positional) != count:
            return f"it takes {count} variant{'s' * (count != 1)}"
        for a in positional:
            name = a.value.span.text
            if name not in self.variants and name != self.model.name:
                self.report(
                    error(
                        "A0401",
                        f"this file has no variant `{name}`",
                        a.span,
                        "no such variant",
                        **mend(name, [*self.variants, self.model.name], a.span),
                    )
                )
        return None

    def _interchangeable(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        return self._variants(positional, 2)

    def _equal(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        return self._variants(positional, 1)

    def _fails(self, positional: list[tree.Arg], node: tree.Call) -> str | None:
        if len(positional) != 1:
            return "it takes one expression"
        value = positional[0].value
        if not isinstance(value, tree.Call) or not isinstance(self.module.scope.get(getattr(value.func, "id", "")), FnRef):
            self.expr(value)
            return None
        for a in value.args:  # the call may be wrong on purpose, its names may not
            self.expr(a.value)
        return None


def root_of(node: Any) -> Any:
    """The first part of `a.b[0].c`."""
    while isinstance(node, (tree.Member, tree.Item)):
        node = node.value
    return node
