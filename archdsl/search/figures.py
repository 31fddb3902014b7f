"""What a space limits and what costs are asked for: figures by their text, and conditions on figures and knobs, read as claims are."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from archdsl.claims.evaluate import Evaluation, address_of
from archdsl.claims.words import IN_SPACES, MEASURED, _Words, word_of  # pyright: ignore[reportPrivateUsage]
from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate.evaluation import evaluate
from archdsl.elaborate.expressions import truth
from archdsl.elaborate.model import Elaborated
from archdsl.elaborate.operators import COMPARISON
from archdsl.ops.registry import find as find_op
from archdsl.records import record
from archdsl.spec import Spec
from archdsl.syntax import tree
from archdsl.syntax.parser import parse_expression

ADDITIVE = ("params", "weight_bytes", "quantized_bytes", "macs", "bops", "count")
"""Figures of a model that are sums over its parts."""


class Reading(Evaluation):
    """Figures and conditions about one model. `known`: figures by text that need not be computed; `knobs`: values that are in force in place of
    those in `made`."""

    def __init__(self, spec: Spec, made: Elaborated, known: Mapping[str, Any] | None = None, knobs: Mapping[str, Any] | None = None) -> None:
        super().__init__(spec, None, made)
        self.known = known or {}
        if knobs is not None:
            self.frame.vars.update({a: v for a, v in knobs.items() if "." not in a})
            self.made = _with(made, knobs)

    def figure(self, node: tree.Expr) -> Any:
        word = word_of(node)
        assert word is not None
        return super()._value(word, node)

    def _value(self, word: Any, node: Any) -> Any:
        text = text_of(node)
        return self.known[text] if text in self.known else super()._value(word, node)


def _with(made: Elaborated, knobs: Mapping[str, Any]) -> Elaborated:
    from archdsl.records import replace

    return replace(made, knobs={a: replace(k, value=knobs[a]) if a in knobs else k for a, k in made.knobs.items()})


def text_of(node: tree.Node) -> str:
    """An expression as one says it: `macs(T=2048)` and `macs(T = 2048)` are one figure."""
    return "".join(node.span.text.split())


@record(eq=False)
class Figure:
    """A cost by its text. `additive`: a sum over parts. `counted`: of how many knobs have a value, which no elaboration is needed for. `fixed`:
    whether it is at the same sizes whatever the header's knobs are."""

    text: str
    node: tree.Expr
    additive: bool
    counted: tree.Binary | None
    fixed: bool

    @property
    def is_measured(self) -> bool:
        return self.text.split("(")[0] in MEASURED

    @property
    def is_state(self) -> bool:
        return self.text.split("(")[0] == "state_bytes"

    def of(self, spec: Spec, made: Elaborated) -> Any:
        """Raises ArchError where a model does not have it: no form with a state, sizes that it does not take."""
        return Reading(spec, made).figure(self.node)


def figure(spec: Spec, text: str) -> Figure:
    """Reads a figure. Raises A0804 for what is none."""
    node = parse_expression(text, "figure")
    _sound(spec, node, True)
    return of_node(node)


def of_node(node: tree.Expr) -> Figure:
    name, args = (node.func, node.args) if isinstance(node, tree.Call) else (node, ())
    assert isinstance(name, tree.Name)
    what = args[0].value if name.id == "count" and args else None
    return Figure(text_of(node), node, name.id in ADDITIVE and not _below(node), what if isinstance(what, tree.Binary) else None,
                  all(a.name is None or a.name == "dtype" or isinstance(a.value, tree.Number) for a in args))


def _below(node: tree.Expr) -> bool:
    """`params(layers.0)`: below an address."""
    return isinstance(node, tree.Call) and isinstance(node.func, tree.Name) and node.func.id == "params" and any(a.name is None for a in node.args)


def _sound(spec: Spec, node: tree.Expr, figure: bool) -> None:
    variants = {d.name: d for d in spec.module.tree.decls if isinstance(d, tree.Variant)}
    walk = _Words(spec.module, spec.decl, variants, IN_SPACES, node.span if figure else None)
    found = walk.all(walk.expr if figure else walk.limit, (node,))
    if found:
        raise ArchError(*found)
    words = figures_in(node)
    if figure and (len(words) != 1 or words[0] is not node):
        raise error("A0804", f"`{node.span.text}` is no figure of a model", node.span, "nothing to count",
                    help=f"figures are {', '.join(IN_SPACES)}, at sizes where they depend on them: `macs(T = 2048)`")
    for word in words:
        for a in word.args if isinstance(word, tree.Call) else ():
            if a.name in walk.knobs:
                raise error("A0804", f"`{word.span.text}` sets `{a.name}`, which a search decides", a.name_span or a.span, "not of this candidate",
                            help="a figure in a search is that of the candidate: only sizes of the input can be given")


def figures_in(node: Any) -> list[tree.Expr]:
    """The words for figures in an expression."""
    found: list[tree.Expr] = []

    def visit(n: Any) -> None:
        name = n.func if isinstance(n, tree.Call) else n
        if isinstance(name, tree.Name) and name.id in IN_SPACES:
            found.append(n)
            return
        for child in tree.children(n):
            visit(child)

    visit(node)
    return found


@record(eq=False)
class Limit:
    """A condition. `figures`: those in it; `addresses`: the knobs of the body in it. Where it compares one figure with what the header alone decides,
    `test` is (figure, comparison, the other side)."""

    text: str
    node: tree.Expr
    figures: tuple[Figure, ...]
    addresses: tuple[str, ...]
    test: tuple[Figure, str, tree.Expr] | None

    def holds(self, spec: Spec, made: Elaborated, known: Mapping[str, Any], knobs: Mapping[str, Any]) -> bool:
        """Of a model with these figures and knobs; one that speaks of a knob that is not there holds."""
        if any(a not in knobs and a not in made.knobs for a in self.addresses):
            return True
        reading = Reading(spec, made, known, knobs)
        return truth(reading.frame, reading.filled(self.node))

    def bound(self, spec: Spec, made: Elaborated) -> Any:
        """The other side of `test` as a number."""
        assert self.test is not None
        reading = Reading(spec, made)
        return evaluate(reading.frame, reading.filled(self.test[2]))


TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
HOLDS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}


def read_limits(spec: Spec, given: tuple[str, ...], written: tuple[tree.Expr, ...]) -> list[Limit]:
    """Conditions of the text and those given as text; each side of an `and` is one. Raises ArchError for what is none."""
    found: list[Limit] = []
    for i, text in enumerate(given):
        node = parse_expression(text, "limit" if len(given) == 1 else f"limit {i + 1}")
        _sound(spec, node, False)
        found += _limits(spec, node)
    for node in written:
        _sound(spec, node, False)
        found += _limits(spec, node)
    return found


def _limits(spec: Spec, node: tree.Expr) -> list[Limit]:
    if isinstance(node, tree.Binary) and node.op == "and":
        return _limits(spec, node.left) + _limits(spec, node.right)
    from archdsl.spaces import check_addresses

    reading = Evaluation(spec, None)
    addresses = tuple(dict.fromkeys(check_addresses(reading, node)))
    words = figures_in(node)
    test = None
    if isinstance(node, tree.Binary) and node.op in COMPARISON and node.op in TURNED and len(words) == 1 and not addresses:
        for one, op, other in ((node.left, node.op, node.right), (node.right, TURNED[node.op], node.left)):
            if one is words[0]:
                test = of_node(one), op, other
    return [Limit(" ".join(node.span.text.split()), node, tuple(map(of_node, words)), addresses, test)]


__all__ = ["ADDITIVE", "HOLDS", "Figure", "Limit", "address_of", "figure", "find_op", "read_limits", "text_of"]
