"""Steps: one text, `name(options) on SELECTOR using INPUT`, in a spec's `transform`, on the command line and printed from Python."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate.hints import did_you_mean
from archdsl.passes.registry import Pass, every, find
from archdsl.records import field, record, replace
from archdsl.source import NOWHERE, Source, Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Frame
    from archdsl.passes.model import Model
    from archdsl.reports.registry import Rule
    from archdsl.tasks.registry import TaskRule


@record(frozen=True)
class Step:
    """A pass with its options (name -> hyper value, defaults included), a selector as its text, and the names of inputs.

    Called with a `Model`, a step gives the transformed one. `str(step)` is its text; `Step.parse` reads it.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    selector: str | None = None
    using: tuple[str, ...] = ()
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Step:
        """The step in a text. Raises ArchError: A01 for its syntax, A0561, A0562, A0204 for its names and values."""
        from archdsl.syntax.parser import parse_transform

        return read(parse_transform(text, "--pass"), alone())

    @property
    def rule(self) -> Pass:
        found = find(self.name)
        assert found is not None, self.name
        return found

    def on(self, selector: str) -> Step:
        """The same step on a part of the model. Raises ArchError for a selector that cannot be read."""
        from archdsl.syntax.parser import parse_selector

        return replace(self, selector=parse_selector(selector))

    def using_(self, *inputs: str) -> Step:
        """The same step with inputs of these names."""
        return replace(self, using=inputs)

    def __str__(self) -> str:
        from archdsl.elaborate.values import show

        usual = defaults(self.rule)
        options = ", ".join(f"{k} = {show(v)}" for k, v in self.options.items() if k not in usual or usual[k] != v)
        on, using = f" on {self.selector}" if self.selector else "", f" using {', '.join(self.using)}" if self.using else ""
        return f"{self.name}({options}){on}{using}"

    def __call__(self, model: Model, **how: Any) -> Model:
        return model.apply(self, **how)


def no_pass(name: str, span: Span) -> ArchError:
    """A0561: the nearest names, or how one of the user's own is found."""
    own = ("`archdsl passes` lists them",
           "a pass of your own is known once its module is imported: by Python, or by the entry point `archdsl.passes` of a package")
    return error("A0561", f"there is no pass `{name}`", span, "not known", help=did_you_mean(name, every()) or own)


def read(node: tree.Transform, frame: Frame) -> Step:
    """The step that a `transform` says, its options evaluated in `frame`."""
    rule = find(node.name)
    if rule is None:
        raise no_pass(node.name, _name_span(node))
    options = options_of(rule, node, "A0562", frame)
    if len(node.using) != len(rule.using):
        wanted = f"needs {len(rule.using)} inputs ({', '.join(rule.using)})" if rule.using else "uses no inputs"
        raise error("A0562", f"`{rule.name}` {wanted}, {len(node.using)} are named", node.span, notes=(rule.signature,),
                    help=f"{rule.name}(…) using {', '.join(rule.using)}" if rule.using else "leave out `using …`")
    return Step(rule.name, options, node.selector, node.using, node.span)


def options_of(rule: Pass | Rule | TaskRule, node: tree.Transform, code: str, frame: Frame | None = None) -> dict[str, Any]:
    """The options that a text gives, with the defaults of the others. Raises `code` for those that do not belong, A0204 for values."""
    from archdsl.elaborate.expressions import evaluate
    from archdsl.elaborate.headers import convert

    frame = frame or alone()
    names = [p.name for p in rule.params]
    given: dict[str, Any] = {}
    for at, a in enumerate(node.args):
        name = a.name or (names[at] if at < len(names) else None)
        if name is None or name not in names:
            what = f"has no option `{a.name}`" if a.name else f"takes {len(names)} options at most"
            raise error(code, f"`{rule.name}` {what}", a.name_span or a.span, "not taken", notes=(rule.signature,),
                        help=did_you_mean(a.name or "", names))
        if name in given:
            raise error(code, f"`{name}` is given twice", a.span, notes=(rule.signature,))
        given[name] = convert(frame, evaluate(frame, a.value), next(p.type for p in rule.params if p.name == name), a.value.span, name)
    missing = [p.name for p in rule.params if p.default is None and p.name not in given]
    if missing:
        raise error(code, f"`{rule.name}` needs `{missing[0]}`", node.span, notes=(rule.signature,), help=f"write {rule.name}({missing[0]} = …)")
    usual = defaults(rule)
    return {n: _plain(given.get(n, usual.get(n))) for n in names}


def _name_span(node: tree.Transform) -> Span:
    at = node.span.text.find(node.name)
    return Span(node.span.source, node.span.start + at, node.span.start + at + len(node.name)) if at >= 0 else node.span


def defaults(rule: Pass | Rule | TaskRule) -> dict[str, Any]:
    """The options that have defaults, with them."""
    if rule.usual is None:
        from archdsl.elaborate.expressions import evaluate

        frame = alone()
        rule.usual = {p.name: _plain(evaluate(frame, p.default)) for p in rule.params if p.default is not None}
    return rule.usual


def _plain(value: Any) -> Any:
    """Exact fractions as Python's numbers."""
    from fractions import Fraction

    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def alone() -> Frame:
    """A frame for options that stand in no spec: numbers, strings, lists."""
    from archdsl.elaborate.builder import Builder
    from archdsl.elaborate.frame import Frame, Session
    from archdsl.modules import Library

    module = Library().open(Source("<options>", ""), None)
    return Frame(Session(module.library), module, Builder())


class Steps:
    """`steps.centre(compress = True)`: a step for each pass, by attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        rule = find(name)
        if rule is None:
            raise no_pass(name, Span(Source("<python>", name), 0, len(name)))

        def make(*args: Any, **options: Any) -> Step:
            from archdsl.elaborate.values import show
            from archdsl.spec import python_setting

            parts = [*(show(python_setting("", a).value) for a in args), *(f"{k} = {show(python_setting('', v).value)}" for k, v in options.items())]
            return Step.parse(f"{name}({', '.join(parts)})")

        make.__doc__ = f"{rule.signature}\n\n{rule.doc}"
        return make

    def __dir__(self) -> list[str]:
        return list(every())


steps = Steps()
