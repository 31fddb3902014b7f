"""Steps: one text, `name(options) on SELECTOR using INPUT`, in a spec's `transform`, on the command line and printed from Python."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.declared import frame_of_options
from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate.hints import did_you_mean
from archdsl.passes.registry import PASSES, Pass
from archdsl.records import field, record, replace
from archdsl.source import NOWHERE, Source, Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Frame
    from archdsl.passes.model import Model


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

        return read(parse_transform(text, "--pass"), frame_of_options())

    @property
    def rule(self) -> Pass:
        found = PASSES.find(self.name)
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

        usual = self.rule.defaults
        options = ", ".join(f"{k} = {show(v)}" for k, v in self.options.items() if k not in usual or usual[k] != v)
        on, using = f" on {self.selector}" if self.selector else "", f" using {', '.join(self.using)}" if self.using else ""
        return f"{self.name}({options}){on}{using}"

    def __call__(self, model: Model, **how: Any) -> Model:
        return model.apply(self, **how)


def no_pass(name: str, span: Span) -> ArchError:
    """A0561: the nearest names, or how one of the user's own is found."""
    own = ("`archdsl passes` lists them",
           "a pass of your own is known once its module is imported: by Python, or by the entry point `archdsl.passes` of a package")
    return error("A0561", f"there is no pass `{name}`", span, "not known", help=did_you_mean(name, PASSES.every()) or own)


def read(node: tree.Transform, frame: Frame) -> Step:
    """The step that a `transform` says, its options evaluated in `frame`."""
    rule = PASSES.find(node.name)
    if rule is None:
        raise no_pass(node.name, _name_span(node))
    options = rule.options(node, "A0562", frame)
    if len(node.using) != len(rule.using):
        names = ", ".join(rule.using)
        wanted = f"needs {'an input' if len(rule.using) == 1 else f'{len(rule.using)} inputs'} ({names})" if rule.using else "uses no inputs"
        told = {0: "none is named", 1: "1 is named"}.get(len(node.using), f"{len(node.using)} are named")
        raise error("A0562", f"`{rule.name}` {wanted}, {told}", node.span, notes=(rule.signature,),
                    help=f"{rule.name}(…) using {names}" if rule.using else "leave out `using …`")
    return Step(rule.name, options, node.selector, node.using, node.span)


def _name_span(node: tree.Transform) -> Span:
    at = node.span.text.find(node.name)
    return Span(node.span.source, node.span.start + at, node.span.start + at + len(node.name)) if at >= 0 else node.span


class Steps:
    """`steps.centre(compress = True)`: a step for each pass, by attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        rule = PASSES.find(name)
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
        return list(PASSES.every())


steps = Steps()
