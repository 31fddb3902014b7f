"""What every node is, and walking over nodes."""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

from archdsl.records import field, fields, record
from archdsl.source import Span

_T = TypeVar("_T", bound=type)
_PLAIN = frozenset({"str", "str | None", "bool", "int", "int | Fraction", "Span", "Span | None", "tuple[str, ...]", "tuple[str | None, ...]"})


@dataclass_transform(field_specifiers=(field,))
def node(cls: _T) -> _T:
    """A record with slots, whose equality and text are written once, in Node."""
    define: Any = record(eq=False, repr=False)
    made = define(cls)
    found = fields(made)
    made.below = tuple(f.name for f in found if f.type not in _PLAIN)
    made.compared = tuple(f.name for f in found if f.compare)
    return made


@node
class Node:
    """`below`: the names of the fields that may hold nodes; `compared`: of those that count in equality."""

    if TYPE_CHECKING:
        below: ClassVar[tuple[str, ...]]
        compared: ClassVar[tuple[str, ...]]
    span: Span = field(compare=False, repr=False)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.compared)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if f.repr)
        return f"{type(self).__name__}({shown})"


def children(node: Any) -> list[Node]:
    """The nodes directly below a node (or in a tuple), in the order of the text."""
    out: list[Node] = []
    if isinstance(node, Node):
        for name in node.below:
            value: Any = getattr(node, name)
            if isinstance(value, Node):
                out.append(value)
            elif isinstance(value, tuple):
                _gather(value, out)  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(node, tuple):
        _gather(node, out)  # pyright: ignore[reportUnknownArgumentType]
    return out


def below(node: Any) -> Iterator[Node]:
    """A node (or those of a tuple) and every node below, in the order of the text."""
    stack = [node]
    while stack:
        n = stack.pop()
        if isinstance(n, Node):
            yield n
        stack += reversed(children(n))


def _gather(items: tuple[Any, ...], out: list[Node]) -> None:
    for item in items:
        if isinstance(item, Node):
            out.append(item)
        elif isinstance(item, tuple) and not isinstance(item, Span):
            _gather(item, out)  # pyright: ignore[reportUnknownArgumentType]


class Seq(tuple[Any, ...]):
    """A tuple of nodes that knows the `span` of its brackets: bodies, branches, settings, parameter lists, arguments. Equal to the plain tuple."""

    span: Span

    @classmethod
    def at(cls, span: Span, items: Any) -> Seq:
        self = cls(items)
        self.span = span
        return self
