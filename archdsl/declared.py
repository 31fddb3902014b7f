"""What is declared by a signature of the language with one body of Python: passes, reports, tasks, strategies, evaluators. A `Registry` is the table
of one kind; packages add to it through its entry-point group. Nothing here is loaded before the first lookup that needs it."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.records import record
from archdsl.source import Source, Span
from archdsl.syntax import tree
from archdsl.wording import with_article

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Frame


@record(slots=False)
class Declared:
    """`signature`: name and options as the language writes them, `timeline(devices: int = 2)`. `body`: the function or class behind it.
    `source`: paper and equation, where there is one."""

    name: str
    signature: str
    body: Callable[..., Any]
    source: str

    @property
    def doc(self) -> str:
        return (self.body.__doc__ or "").strip()

    @cached_property
    def params(self) -> tuple[tree.Param, ...]:
        """The options with their types and defaults."""
        from archdsl.syntax.parser import parse_signature

        return parse_signature(f"{self.signature} -> []").params

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The options that have defaults, with them."""
        from archdsl.elaborate.expressions import evaluate

        frame = frame_of_options()
        return {p.name: plain(evaluate(frame, p.default)) for p in self.params if p.default is not None}

    def options(self, node: tree.Transform, code: str, frame: Frame | None = None) -> dict[str, Any]:
        """The options that a text gives, with the defaults of the others. Raises `code` for those that do not belong, A0204 for values."""
        from archdsl.elaborate.expressions import evaluate
        from archdsl.elaborate.headers import convert

        frame = frame or frame_of_options()
        types = {p.name: p.type for p in self.params}
        names = list(types)
        given: dict[str, Any] = {}
        for at, a in enumerate(node.args):
            name = a.name or (names[at] if at < len(names) else None)
            if name is None or name not in names:
                what = f"has no option `{a.name}`" if a.name else f"takes {len(names)} options at most"
                raise error(code, f"`{self.name}` {what}", a.name_span or a.span, "not taken", notes=(self.signature,),
                            help=did_you_mean(a.name or "", names))
            if name in given:
                raise error(code, f"`{name}` is given twice", a.span, notes=(self.signature,))
            given[name] = convert(frame, evaluate(frame, a.value), types[name], a.value.span, name)
        missing = [p.name for p in self.params if p.default is None and p.name not in given]
        if missing:
            raise error(code, f"`{self.name}` needs `{missing[0]}`", node.span, notes=(self.signature,), help=f"write {self.name}({missing[0]} = …)")
        return {n: plain(given.get(n, self.defaults.get(n))) for n in names}


R = TypeVar("R", bound=Declared)


class Registry(dict[str, R]):
    """All of one kind by name. `kind`: what messages call one of them, `group`: the entry points of packages that add some, `modules`: those whose
    import registers our own, `codes`: of an unknown name and of options that do not belong."""

    def __init__(self, kind: str, group: str, modules: tuple[str, ...], codes: tuple[str, str]) -> None:
        super().__init__()
        self.kind, self.group, self.modules, self.codes = kind, group, modules, codes

    def add(self, rule: R) -> R:
        """Registers it. Raises ValueError where its name is taken."""
        if rule.name in self:
            raise ValueError(f"there is {with_article(self.kind)} called {rule.name} already")
        self[rule.name] = rule
        return rule

    def load(self) -> None:
        """Imports the modules that hold our own."""
        for module in self.modules:
            import_module(module)

    def own(self) -> dict[str, R]:
        """Those that archdsl itself has, in the order of their names: the same in every process, whatever is installed or registered beside them."""
        self.load()
        return {name: rule for name, rule in sorted(self.items()) if rule.body.__module__ in self.modules}

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What is registered inside is gone afterwards: for tests and examples, which leave nothing behind in their process."""
        before = self.every()
        try:
            yield
        finally:
            self.clear()
            self.update(before)

    def find(self, name: str) -> R | None:
        """The one of that name: ours, else that of an installed package."""
        self.load()
        return self[name] if name in self else self.every().get(name)

    def every(self) -> dict[str, R]:
        """All of them in the order of their names, those of installed packages included."""
        from archdsl.plugins import load_group

        self.load()
        load_group(self.group)
        return dict(sorted(self.items()))

    def parse(self, text: str) -> tuple[R, dict[str, Any]]:
        """The rule and its options in `name` or `name(option = 4)`. Raises A01 for its syntax, `codes` for its name and options, A0204 for values."""
        from archdsl.syntax.parser import parse_transform

        unknown, unfit = self.codes
        node = parse_transform(text if "(" in text else f"{text}()", self.kind.upper())
        rule = self.find(node.name)
        if rule is None:
            at = Span(node.span.source, node.span.start, node.span.start + len(node.name))
            raise error(unknown, f"there is no {self.kind} `{node.name}`", at, "not known",
                        help=did_you_mean(node.name, self.every()) or (f"there are {', '.join(self.every())}",))
        if node.selector or node.using:
            raise error(unfit, f"{with_article(self.kind)} has options alone", node.span, "neither `on` nor `using`", notes=(rule.signature,))
        return rule, rule.options(node, unfit)


def name_of(signature: str) -> str:
    """The name that starts a signature."""
    return signature.split("(", 1)[0].strip()


def wrong_option(code: str, name: str, value: Any, why: str) -> Exception:
    """The error for a value that the option's type allows and the body does not."""
    text = f"{name} = {value}"
    return error(code, f"`{name}` cannot be {value}: {why}", Span(Source("options", text), 0, len(text)), why)


def plain(value: Any) -> Any:
    """Exact fractions as Python's numbers."""
    from fractions import Fraction

    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    return tuple(map(plain, value)) if isinstance(value, tuple) else value


def frame_of_options() -> Frame:
    """A frame for options that stand in no spec: numbers, strings, lists."""
    from archdsl.elaborate.builder import Builder
    from archdsl.elaborate.frame import Frame, Session
    from archdsl.modules import Library

    module = Library().open(Source("<options>", ""), None)
    return Frame(Session(module.library), module, Builder())
