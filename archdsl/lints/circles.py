"""Values that are read for nothing but their own next value: in loops, carried by scans."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from archdsl.diagnostics.model import Diagnostic
from archdsl.elaborate.bindings import bindings
from archdsl.lints.survey import Survey, named, survey
from archdsl.source import Span
from archdsl.syntax import tree


def circles(d: Any, seen: Survey) -> Iterator[Diagnostic]:
    """A0702 of one declaration: what takes part in making itself anew, and in nothing that is returned, yielded, emitted, asked or applied."""
    if not isinstance(d, tree.Block | tree.Model | tree.Fn | tree.Entry) or d.body is None:
        return
    for e in d.body if isinstance(d, tree.Model) else ():
        yield from circles(e, seen)
    feeds: dict[str, set[str]] = {}
    carried: list[tree.Carry] = []
    alive = _reads(d.body, feeds, carried)
    places = [*((name, span) for name, span, _ in bindings(d.body)), *((c.name, c.span) for c in carried)]
    used = _from(alive, feeds)
    dead = {n: found for n, found in feeds.items() if n not in used and n in seen.read and not n.startswith("_")}
    told = _in_circles(dead) | dead.keys() & {c.name for c in carried}
    for name, span in places:
        if name in told:
            told.remove(name)
            yield Diagnostic("A0702", f"`{name}` goes into nothing but its own next values", Span(span.source, span.start, span.start + len(name)),
                             "a value for nothing", severity="warning")


def _in_circles(feeds: dict[str, set[str]]) -> set[str]:
    """The names that are left when those that no other reads are taken away, again and again."""
    readers = Counter(n for found in feeds.values() for n in found)
    left, idle = set(feeds), [n for n in feeds if not readers[n]]
    while idle:
        name = idle.pop()
        left.remove(name)
        readers.subtract(feeds[name])
        idle += [n for n in feeds[name] if n in left and not readers[n]]
    return left


def _reads(body: Any, feeds: dict[str, set[str]], carried: list[tree.Carry]) -> set[str]:
    """The names that are read for anything but a name of the body. `feeds`: those that each name of the body is made of."""
    read: set[str] = set()
    stack = list(body)
    while stack:
        n = stack.pop()
        if isinstance(n, tree.Assign):
            made, of = [t.name for t in n.targets], survey((n.values, tuple(t.type for t in n.targets if t.type is not None))).read
        elif isinstance(n, tree.Next | tree.Carry):
            made, of = [n.name], survey((n.value,) if isinstance(n, tree.Next) else (n.type, n.init)).read
            carried += [n] if isinstance(n, tree.Carry) else []
        else:
            read.update(named(n))
            stack += tree.children(n)
            continue
        for name in made:
            feeds.setdefault(name, set()).update(of)
    return read


def _from(names: set[str], feeds: dict[str, set[str]]) -> set[str]:
    """The names and all that they are made of."""
    found, stack = set(names), list(names)
    while stack:
        new = feeds.get(stack.pop(), set()) - found
        found |= new
        stack += new
    return found
