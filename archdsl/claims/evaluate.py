"""The value of a claim: its words become numbers, the rest is an expression of the language."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from archdsl.claims import Claim
from archdsl.claims.count import count_blocks, count_knobs, count_ops
from archdsl.claims.words import Word, root_of, word_of
from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import Dim
from archdsl.dims import evaluate as size_of
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.expressions import evaluate, truth
from archdsl.elaborate.frame import Frame
from archdsl.elaborate.hints import mend_address
from archdsl.elaborate.model import Elaborated, Setting
from archdsl.elaborate.operators import COMPARISON
from archdsl.elaborate.values import describe, is_hyper_number, is_list, show
from archdsl.graph import TensorType
from archdsl.ops.registry import find as find_op
from archdsl.records import fields, record, replace
from archdsl.source import Span
from archdsl.spec import Spec
from archdsl.syntax import tree


class NotBuilt(Exception):
    """The claim needs something that a later version brings."""


@record(frozen=True)
class Verdict:
    """Of a statement such as `causal(…)`: whether it holds, and what was seen."""

    holds: bool
    seen: str


def row(spec: Spec, claim: Claim) -> dict[str, Any] | None:
    """What `verify` says about one claim; None where its `when` does not hold."""
    base = {"path": spec.path, "variant": claim.variant or (None if spec.name == next(iter(spec.models)) else spec.name), "claim": claim.text}
    try:
        made = Evaluation(spec, claim)
        if not made.applies():
            return None
        passed, expected, actual = made.outcome()
    except NotBuilt as why:
        passed, expected, actual = False, None, f"not built yet: {why}"
    except ArchError as fault:
        d = fault.diagnostics[0]
        passed, expected, actual = False, None, f"{d.code}: {d.message}"
    return {**base, "passed": passed, "expected": plain(expected), "actual": plain(actual)}


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    if value.__class__ in (tuple, list):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, str)) or isinstance(value, float) and math.isfinite(value):
        return value
    return show(value)


class Evaluation:
    """One claim about one variant of a model; without a claim, limits on `made` (the model at its defaults)."""

    def __init__(self, spec: Spec, claim: Claim | None, made: Elaborated | None = None):
        self.spec, self.variant = spec, claim.variant if claim is not None else None
        if claim is not None:
            self.item = claim.item
        self.made = spec.elaborate(self.variant) if made is None else made
        self.session = spec.session
        self.session.begin()
        vars: dict[str, Any] = {name: k.value for name, k in self.made.knobs.items() if "." not in name}
        vars |= {axis: self.made.sizes.get(axis, 1) for axis in self.axes}
        self.frame = Frame(self.session, spec.module, Builder(), vars=vars)
        self.fresh = 0

    @property
    def axes(self) -> list[str]:
        """The run-time sizes of the model's inputs."""
        return list(dict.fromkeys(n for i in self.made.inputs for s in i.type.shape if isinstance(s, Dim) for n in s.symbols))

    # ---------------------------------------------------------------- the whole item
    def applies(self) -> bool:
        return self.item.condition is None or truth(self.frame, self.filled(self.item.condition))

    def outcome(self) -> tuple[bool, Any, Any]:
        """(passed, expected, actual)."""
        expr = self.item.expr
        word = word_of(expr)
        if word is not None and word.kind == "truth":
            verdict = self._value(word, expr)
            return verdict.holds, True, verdict.seen
        if isinstance(expr, tree.Binary) and expr.op in COMPARISON:
            return self._compare(expr)
        value = evaluate(self.frame, self.filled(expr))
        if not isinstance(value, bool):
            raise error("A0405", f"this claim says neither yes nor no: it is {describe(value)}", expr.span, "compared with nothing")
        return value, True, value

    def _compare(self, expr: tree.Binary) -> tuple[bool, Any, Any]:
        full = self.filled(expr)
        actual, expected = evaluate(self.frame, full.left), evaluate(self.frame, full.right)
        if self.item.within is not None:
            tolerance = self.tolerance(expected)
            for v in (actual, expected):
                if not is_hyper_number(v):
                    raise error("A0406", f"a tolerance needs numbers, this is {describe(v)}", expr.span)
            return abs(actual - expected) <= tolerance, expected, actual
        from archdsl.elaborate.operators import compare

        passed = compare(expr.op, actual, expected, expr.span)
        return bool(passed), expected if expr.op == "==" else f"{expr.op} {show(expected)}", actual

    def tolerance(self, expected: Any = 1) -> Any:
        """The number after `within`; 0 when there is none."""
        if self.item.within is None:
            return 0
        node, percent = self.item.within
        value = evaluate(self.frame, self.filled(node))
        if not is_hyper_number(value) or value < 0:
            raise error("A0406", f"a tolerance is a number, this is {describe(value)}", node.span)
        return abs(expected) * Fraction(value) / 100 if percent else value

    # ---------------------------------------------------------------- words inside expressions
    def filled(self, node: Any) -> Any:
        """The expression with every word of claims, and every address of a knob, replaced by a name that stands for its value."""
        if not isinstance(node, tree.Node):
            return tuple(map(self.filled, node)) if is_list(node) and not isinstance(node, Span) else node
        word = word_of(node)
        if word is not None:
            value = self._value(word, node)
            return self._standing_for(value.holds if isinstance(value, Verdict) else value, node)
        address = address_of(self, node)
        if address is not None:
            knob = self.made.knobs.get(address)
            if knob is None:
                raise error(
                    "A0409", f"`{self.spec.name}` has no knob at `{address}`", node.span, "no such knob",
                    **mend_address(address, self.made.knobs, node.span),
                )
            return self._standing_for(knob.value, node)
        if isinstance(node, tree.Binary) and node.op in ("==", "!="):
            return self._with_arm(node)
        return replace(node, **{f.name: self.filled(getattr(node, f.name)) for f in fields(node)})

    def _standing_for(self, value: Any, node: tree.Node) -> tree.Name:
        self.fresh += 1
        name = f"\0{self.fresh}"
        self.frame.vars[name] = value
        return tree.Name(node.span, name)

    def _with_arm(self, node: tree.Binary) -> tree.Binary:
        """`layers.0.mixer == attention`: a name beside an address is an arm of that choice."""
        sides = [node.left, node.right]
        for i, side in enumerate(sides):
            if isinstance(side, tree.Name) and side.id not in self.frame.vars and address_of(self, sides[1 - i]) is not None:
                sides[i] = tree.Str(side.span, side.id)
        return tree.Binary(node.span, node.op, self.filled(sides[0]), self.filled(sides[1]), node.op_span)

    def mentions_words(self, node: Any) -> bool:
        return word_of(node) is not None or any(map(self.mentions_words, tree.children(node)))

    def _value(self, word: Word, node: Any) -> Any:
        if word.comes:
            raise NotBuilt(f"`{word.name}` comes with {word.comes}")
        args = node.args if isinstance(node, tree.Call) else ()
        return COMPUTE[word.name](self, node, [a.value for a in args if a.name is None], {a.name: a.value for a in args if a.name is not None})

    # ---------------------------------------------------------------- settings
    def settled(self, named: dict[str, tree.Expr]) -> tuple[Elaborated, dict[str, int], str]:
        """The model with the knobs among the keywords set, the sizes among them, and the dtype."""
        settings: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        dtype = "f32"
        for name, node in named.items():
            if name in self.axes:
                size = evaluate(self.frame, self.filled(node))
                if type(size) is not int or size < 1:
                    raise error("A0404", f"`{name}` is a size, not {describe(size)}", node.span)
                sizes[name] = size
            elif name == "dtype" and name not in self.made.knobs:
                dtype = getattr(node, "id", "f32")
            else:
                settings[name] = Setting(name, evaluate(self.frame, node), None, node.span)
        return (self.spec.elaborate(self.variant, settings) if settings else self.made), sizes, dtype

    # ---------------------------------------------------------------- what can be said without computing
    def check(self) -> None:
        """Raises for an address, an axis or a variant that does not exist. Costs nothing: no word is computed."""
        stack: list[Any] = [self.item.expr, self.item.condition]
        while stack:
            node = stack.pop()
            word = word_of(node)
            if word is not None and not word.comes and isinstance(node, tree.Call):
                check = CHECK.get(word.name)
                if check is not None:
                    check(self, node, [a.value for a in node.args if a.name is None], {a.name: a.value for a in node.args if a.name is not None})
            if node is not None:
                stack.extend(tree.children(node))


def address_of(e: Evaluation, node: Any) -> str | None:
    """The address that `layers.0.mixer` or `layers[0].mixer` writes; None for members and items of values."""
    if not isinstance(node, (tree.Member, tree.Item)):
        return None
    root = root_of(node)
    if not isinstance(root, tree.Name) or root.id in e.frame.vars or root.id in e.spec.module.modules or root.id in e.spec.module.scope:
        return None
    return _address(node)


# ---------------------------------------------------------------- the words
Named = dict[str, tree.Expr]


def _address(node: tree.Expr) -> str:
    """`layers[0].q` and `layers.0.q` are one address."""
    return "".join(node.span.text.split()).replace("[", ".").replace("]", "")


def _params(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> int:
    from archdsl.cost.layers import COUNTED, count_params

    made, _, _ = e.settled(named)
    if not args:
        return count_params(made.graph)
    below = _weights_below(made, args[0])
    return sum(math.prod(p.type.shape) for _, p in below if p.kind in COUNTED)  # type: ignore[arg-type]


def _weights_below(made: Elaborated, node: tree.Expr) -> list[Any]:
    address = _address(node)
    below = [(a, p) for a, p in made.graph.parameters() if a == address or a.startswith(address + ".")]
    if not below:
        scopes = {a.rsplit(".", n)[0] for a, _ in made.graph.parameters() for n in range(1, a.count(".") + 1)}
        raise error(
            "A0404", f"`{made.decl.name}` has no weights at `{address}`", node.span, "nothing there",
            **mend_address(address, sorted(scopes), node.span),
        )
    return below


def _cost(figure: str, form: str | None = None) -> Callable[..., int]:
    def compute(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> int:
        from archdsl.cost import cost
        from archdsl.cost import figure as alone

        made, sizes, dtype = e.settled(named)
        found = alone(made, figure, sizes, form, dtype)
        if found is None:
            unknown = cost(made, sizes, form, dtype).unknown[0]
            raise error("A0404", f"`{figure}` is not known: the cost of `{unknown}` is not", node.span)
        return found

    return compute


def _count(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> int:
    made, _, _ = e.settled(named)
    what = args[0]
    if isinstance(what, tree.Binary):
        return count_knobs(made, what, lambda n: evaluate(e.frame, n))
    assert isinstance(what, tree.Name)
    return count_ops(made.graph, what.id) if find_op(what.id) is not None else count_blocks(made.graph, what.id)


def _shape(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> tuple[int, ...]:
    from archdsl.cost.sizes import model_sizes

    made, at, _ = e.settled(named)
    sizes = model_sizes(made, at)
    return tuple(s if isinstance(s, int) else size_of(s, sizes) for s in _typed(made, args[0]).shape)


def _typed(made: Elaborated, node: tree.Expr) -> TensorType:
    """The type of an output, an input, an emitted value or a weight."""
    address = _address(node)
    known: dict[str, TensorType] = {a: p.type for a, p in made.graph.parameters()}
    known |= {a: v.type for a, v in made.graph.emits.items()} | {i.name: i.type for i in made.inputs}
    known |= {n: v.type for n, v in zip(made.graph.output_names, made.graph.outputs) if n}
    if address not in known:
        raise error(
            "A0404", f"`{made.decl.name}` has no output, input or address `{address}`", node.span, "nothing there",
            **mend_address(address, known, node.span),
        )
    return known[address]


def _named_variant(e: Evaluation, node: tree.Expr) -> Elaborated:
    name = node.span.text
    if name != e.spec.name and name not in e.spec.variants:
        raise error("A0401", f"`{name}` is a variant of another model than `{e.spec.name}`", node.span)
    return e.spec.elaborate(None if name == e.spec.name else name)


def weights(made: Elaborated) -> dict[str, tuple[str, TensorType]]:
    """Every weight by address: its kind and type."""
    return {a: (p.kind, p.type) for a, p in made.graph.parameters()}


def difference(a: Elaborated, b: Elaborated) -> str:
    """What keeps two models from taking each other's weights; empty when nothing does."""
    first, second = weights(a), weights(b)
    for address in [*first, *second]:
        if first.get(address) != second.get(address):
            kinds = [f"{w[0]} {w[1]}" if (w := m.get(address)) else "none" for m in (first, second)]
            return f"`{address}` is {kinds[0]} in the one and {kinds[1]} in the other"
    return ""


def _interchangeable(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> Verdict:
    a, b = (_named_variant(e, v) for v in args)
    apart = difference(a, b)
    return Verdict(not apart, apart or "the same addresses and shapes")


def _equal(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> Verdict:
    other = _named_variant(e, args[0])
    apart = difference(e.made.source or e.made, other.source or other)
    if apart:
        raise NotBuilt(f"models with other weights are compared behind passes alone: what a `transform` makes of a variant; {apart}")
    from archdsl.claims.run import largest_difference

    with _runs(e, node):
        gap = largest_difference(e.made, other)
    return Verdict(gap <= e.tolerance(), f"differ by {gap:.2g}")


def _causal(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> Verdict:
    made, _, _ = e.settled(named)
    _in_time(e, node, args, named)
    from archdsl.claims.run import causality

    with _runs(e, node):
        return Verdict(*causality(made, args[0].span.text, args[1].span.text))


def _forms(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> Verdict:
    made, _, _ = e.settled(named)
    from archdsl.claims.forms import largest_gap
    from archdsl.claims.run import TOLERANCE

    with _runs(e, node):
        gap, seen = largest_gap(made, args[0].span.text)
    return Verdict(gap <= e.tolerance() if e.item.within is not None else gap <= TOLERANCE, seen)


def _constant_state(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> Verdict:
    made, _, _ = e.settled(named)
    from archdsl.claims.forms import growth

    return Verdict(*growth(made))


def _delay(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> int:
    made, _, _ = e.settled(named)
    from archdsl.streaming import in_form, source

    streamed = in_form(source(made), "step")
    assert streamed is not None
    return streamed.delay


@contextmanager
def _runs(e: Evaluation, node: Any) -> Generator[None, None, None]:
    """What torch refuses while a model runs for a claim is a fault of the spec. Raises A0410."""
    try:
        yield
    except (RuntimeError, IndexError, ValueError, ArithmeticError) as fault:
        first = (str(fault).splitlines() or [""])[0]
        open_inputs = [i.name for i in e.made.inputs if i.low is None and i.type.dtype in ("int", "i32", "i8", "u8")]
        help = tuple(f"say which numbers `{n}` holds, for example `in 0..<vocab`: without a range it is run with 0 and 1" for n in open_inputs)
        raise error("A0410", f"the model does not run: {first}", node.span, "found by running it with random weights and inputs",
                    help=help) from fault


def _fails(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> Verdict:
    try:
        value = evaluate(e.frame, e.filled(args[0]))
    except ArchError as fault:
        return Verdict(True, f"fails: {fault.diagnostics[0].message}")
    return Verdict(False, f"gives {show(value)}")


def _in_time(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> None:
    """Both ends of a causal claim lie along the stream's axis."""
    stream = e.made.stream
    for a in args:
        if not any(isinstance(s, Dim) and str(s) == stream for s in _typed(e.made, a).shape):
            raise error(
                "A0404",
                f"`{a.span.text}` has no axis `{stream}`",
                a.span,
                f"it is {_typed(e.made, a)}",
                help="`causal` compares positions along the stream's axis",
            )


def _same_model(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> None:
    for a in args:
        _named_variant(e, a)


def _known_address(e: Evaluation, node: Any, args: list[tree.Expr], named: Named) -> None:
    if not named:  # with other knobs there may be other addresses
        for a in args:
            (_weights_below if node.func.id == "params" else _typed)(e.made, a)


COMPUTE: dict[str, Callable[..., Any]] = {
    "params": _params,
    "count": _count,
    "shape": _shape,
    "interchangeable": _interchangeable,
    "equal": _equal,
    "causal": _causal,
    "forms": _forms,
    "constant_state": _constant_state,
    "delay": _delay,
    "state_bytes": _cost("state_bytes", "step"),
    "fails": _fails,
    **{f: _cost(f) for f in ("macs", "bops", "weight_bytes", "quantized_bytes", "saved_bytes", "peak_bytes")},
}
CHECK: dict[str, Callable[..., None]] = {
    "params": _known_address,
    "shape": _known_address,
    "causal": _in_time,
    "interchangeable": _same_model,
    "equal": _same_model,
}
