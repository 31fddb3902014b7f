"""Selectors: which nodes of a graph a step is about.

`layers[8:24].*.q` the blocks at these addresses (and the ops that read weights there), `op:linear` every application of an op, `block:Attention`
what stands inside applications of a block, `branch:attention` what stands in residual branches of a kind, `lowest(n, scores)` and
`highest(n, scores)` the n best addresses of a table; joined by `&`, `|`, `-` and parentheses.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate.hints import did_you_mean
from archdsl.graph import Node
from archdsl.passes.expressions import DATA, own_stage
from archdsl.passes.flat import Flat, ordered
from archdsl.source import Source, Span

TOKEN = re.compile(r"\s*(?:(\d+)|([A-Za-z_]\w*)|(.))")


def select(flat: Flat, text: str, span: Span | None = None, tables: Mapping[str, Any] | None = None) -> list[Node]:
    """The nodes that a selector chooses, in order of evaluation. Raises A0563 when there are none, or for a word without a meaning."""
    reader = _Reader(flat, text, span, tables or {})
    found = reader.any()
    if not found:
        raise reader.fault(f"the selector `{text}` chooses nothing", help=reader.hints())
    return ordered([n for n in flat.nodes if id(n) in found])


def select_weights(flat: Flat, text: str, span: Span | None = None) -> list[str]:
    """The addresses of the parameters that a selector chooses, in the graph's order: those at or below its paths, and those that the nodes of its
    `op:`, `block:` and `branch:` read, through expressions of weights too. Raises A0563 when there are none, or for a word without a meaning."""
    reader = _WeightReader(flat, text, span, {})
    found = reader.any()
    if not found:
        raise reader.fault(f"the selector `{text}` chooses no parameters", help=reader.hints())
    return [a for a in reader.parameters if a in found]


def addresses(flat: Flat, nodes: list[Node]) -> list[str]:
    """The addresses at which nodes stand, in order, each once."""
    return list(dict.fromkeys(flat.address(n) for n in nodes))


class _Reader:
    """Evaluates a selector while it reads it. The grammar has checked its form."""

    def __init__(self, flat: Flat, text: str, span: Span | None, tables: Mapping[str, Any]):
        self.flat, self.text, self.tables = flat, text, tables
        self.span = span if span is not None and span.source.text else Span(Source("<selector>", text), 0, len(text))
        self.tokens = [m.group(1) or m.group(2) or m.group(3) for m in TOKEN.finditer(text) if m.group().strip()]
        self.at = 0
        self.nodes = {id(n): n for n in flat.live() if n.op != "input"}
        self.seen: list[str] = []

    def fault(self, message: str, **more: Any) -> ArchError:
        return error("A0563", message, self.span, **more)

    def hints(self) -> tuple[str, ...]:
        known = sorted({part for a in self._places() for part in a.split(".") if part and not part.isdigit()})
        found = [h for word in self.seen for h in did_you_mean(word, known)]
        return tuple(found) or (f"there are {', '.join(known[:12])}",)

    def _places(self) -> set[str]:
        return {a for n in self.nodes.values() for a in self._standing(n)}

    # ------------------------------------------------------------ reading
    def peek(self, n: int = 0) -> str:
        return self.tokens[self.at + n] if self.at + n < len(self.tokens) else ""

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def any(self) -> set[Any]:
        found = self.term()
        while self.peek() in ("&", "|", "-") and self.peek():
            sign, other = self.next(), self.term()
            found = found & other if sign == "&" else found | other if sign == "|" else found - other
        return found

    def term(self) -> set[Any]:
        if self.peek() == "(":
            self.next()
            found = self.any()
            self.next()
            return found
        if self.peek(1) == ":":
            kind, _, name = self.next(), self.next(), self.next()
            return self.kind(kind, name)
        if self.peek(1) == "(":
            return self.call()
        return self.path()

    # ------------------------------------------------------------ terms
    def kind(self, kind: str, name: str) -> set[Any]:
        """The nodes of `op:NAME`, `block:NAME` or `branch:NAME`. Raises ArchError for a name that the model has not."""
        if kind == "op":
            from archdsl.ops.registry import OPS, find

            if find(name) is None:
                raise self.fault(f"there is no op `{name}`", help=did_you_mean(name, sorted(OPS)))
            return {i for i, n in self.nodes.items() if n.op == name}
        if kind == "block":
            chosen = {id(s) for s in self.flat.scopes if s.graph.name == name or name in s.graph.applied}
            if not chosen:
                known = {b for s in self.flat.scopes for b in (s.graph.name, *s.graph.applied)}
                help = did_you_mean(name, known) or (f"it applies {', '.join(sorted(known)[:12])}",)
                raise self.fault(f"this model applies no block `{name}`", help=help)
            inner = self._innermost(name, chosen)
            return {i for i, n in self.nodes.items() if any(id(s) in inner for s in self.flat.scope(n).chain())}
        if kind == "branch":
            from archdsl.passes.streams import KINDS, branches

            if name not in KINDS:
                raise self.fault(f"there is no kind of branch `{name}`", help=did_you_mean(name, KINDS) or (f"they are {', '.join(KINDS)}",))
            return {id(n) for b in branches(self.flat) if b.kind == name for n in b.nodes} & set(self.nodes)
        raise self.fault(f"`{kind}:` cannot be selected by yet", help="`op:`, `block:` and `branch:` can")

    def _innermost(self, name: str, chosen: set[int]) -> set[Any]:
        """Without the scopes that merely hold others of these: a model that applies blocks of that name in blocks of its own."""
        named = {id(s) for s in self.flat.scopes if id(s) in chosen and s.graph.name == name}
        return named or chosen

    def call(self) -> set[Any]:
        """The nodes at the n addresses with the `lowest(n, table)` or `highest(n, table)` scores."""
        name, _ = self.next(), self.next()
        inside: list[str] = []
        while self.peek() != ")":
            if self.peek() != ",":
                inside.append(self.peek())
            self.next()
        self.next()
        if name not in ("lowest", "highest") or len(inside) != 2 or not inside[0].isdigit():
            raise self.fault(f"`{name}({', '.join(inside)})` is no selector", help="`lowest(n, scores)` is, and `highest(n, scores)`, with a table")
        table = self.tables.get(inside[1])
        if not isinstance(table, Mapping):
            raise self.fault(f"no table `{inside[1]}` is given", help=f"`--table {inside[1]}=FILE` gives one: a JSON object of address and score")
        order = sorted(table, key=lambda a: (table[a], a), reverse=name == "highest")[:int(inside[0])]
        return set().union(*({i for i, n in self.nodes.items() if any(a == p or a.startswith(f"{p}.") for a in self._standing(n))} for p in order))

    def path(self) -> set[Any]:
        """The nodes at a path."""
        fits = self.at_path()
        return {i for i, n in self.nodes.items() if any(map(fits, self._standing(n)))}

    def at_path(self) -> Callable[[str], bool]:
        """`layers[8:24].*.q`: one test for each segment."""
        tests: list[Any] = [self.segment()]
        while self.peek() in (".", "["):
            if self.next() == ".":
                tests.append(self.segment())
            else:
                tests.append(self.index())
        hits: dict[str, bool] = {}

        def fits(address: str) -> bool:
            if address not in hits:
                parts = address.split(".") if address else []
                hits[address] = len(parts) >= len(tests) and all(t(p, parts[:i]) for i, (t, p) in enumerate(zip(tests, parts)))
            return hits[address]

        return fits

    def segment(self) -> Any:
        token = self.next()
        if token == "*":
            return lambda part, before: True
        if token == "{":
            names: set[str] = set()
            while self.peek() != "}":
                names.add(self.next())
            self.next()
            return lambda part, before: part in names
        self.seen.append(token)
        return lambda part, before: part == token

    def index(self) -> Any:
        """The test of `[3]` or `[start:stop]`: whether a segment is such a pass of the loop before it."""
        text = ""
        while self.peek() != "]":
            text += self.next()
        self.next()
        parts = text.split(":")
        if not all(re.fullmatch(r"-?\d*", p) for p in parts) or len(parts) > 3 or not text:
            raise self.fault(f"`[{text}]` is no index of passes", help="a number or `start:stop`, for example `layers[8:24]`")
        counts: dict[str, int] = {}

        def fits(part: str, before: list[str]) -> bool:
            if not part.isdigit():
                return False
            prefix = ".".join(before)
            if prefix not in counts:
                counts[prefix] = 1 + max(int(p[len(before)]) for a in self._places() if (p := a.split("."))[:len(before)] == before
                                         and len(p) > len(before) and p[len(before)].isdigit())
            if len(parts) == 1:
                wanted = int(parts[0])
                return int(part) == (wanted if wanted >= 0 else wanted + counts[prefix])
            return int(part) in range(*slice(*(int(p) if p else None for p in parts)).indices(counts[prefix]))

        return fits

    def _standing(self, n: Node) -> Iterator[str]:
        """The addresses of a node: its block's, and those of the weights that it reads itself."""
        yield self.flat.address(n)
        yield from (v.node.attrs["path"] for v in n.operands() if v.node.op == "param")
        if n.op in ("param", "update"):
            yield n.attrs["path"]


class _WeightReader(_Reader):
    """The same language, about parameters: sets hold addresses."""

    def __init__(self, flat: Flat, text: str, span: Span | None, tables: Mapping[str, Any]):
        super().__init__(flat, text, span, tables)
        self.parameters = [a for a, p in flat.params.items() if p.kind == "param"]

    def path(self) -> set[Any]:
        fits = self.at_path()
        return {a for a in self.parameters if fits(a)}

    def kind(self, kind: str, name: str) -> set[Any]:
        chosen = super().kind(kind, name)
        read = _reads(self.flat, lambda n: id(n) in chosen, {}, (lambda n: n.op == name) if kind == "op" else None)
        return read & set(self.parameters)

    def _places(self) -> set[str]:
        return {*super()._places(), *self.parameters}


def _reads(flat: Flat, chosen: Callable[[Node], bool], given: Mapping[int, frozenset[str]], inside: Callable[[Node], bool] | None,
           prefix: str = "") -> set[str]:
    """The weights that chosen nodes are or read, through expressions of weights alone. `given`: the weights that inputs stand for, by id. The arms of
    a phase are looked into for nodes that are `inside`."""
    made: dict[int, frozenset[str] | None] = {}  # of which weights alone a node is made; None for data
    found: set[str] = set()
    for n in flat.order():
        parts = [made[id(v.node)] for v in flat.reads(n)]
        if n.op == "param":
            made[id(n)] = frozenset((prefix + n.attrs["path"],))
        elif n.op == "input":
            made[id(n)] = given.get(id(n))
        else:
            made[id(n)] = None if None in parts or own_stage(n) == DATA else frozenset().union(*(p for p in parts if p is not None))
        if chosen(n):
            found.update(*(p for p in (*parts, made[id(n)] if n.op == "param" else None) if p is not None))
        if n.op == "phase" and inside is not None:
            for below in (Flat(n.attrs["train"]), Flat(n.attrs["eval"])):
                formal = {id(v.node): p for v, p in zip(below.root.inputs, parts) if p is not None}
                found |= _reads(below, inside, formal, inside, prefix + flat.scope(n).prefix)
    return found
