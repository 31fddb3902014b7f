"""Readable Python from an fx graph: nested expressions, names of the spec, one statement a line, tensors freed after their last use.

The order of evaluation is that of the graph. Of the nodes' meta: `hint` is the name to use, `soft` allows folding a hinted value into its
only use, `results` is the number of results of a call that gives several, `arch` the span in the spec.
"""
from __future__ import annotations

import builtins
import inspect
import keyword
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node
from torch.fx.node import _get_qualified_name

WIDTH = 112
_CALL, _UNARY, _ATOM, _COMPARES = 16, 13, 18, 6
_BINARY: dict[Any, tuple[str, int]] = {
    operator.add: ("+", 11), operator.sub: ("-", 11), operator.mul: ("*", 12), operator.truediv: ("/", 12), operator.floordiv: ("//", 12),
    operator.mod: ("%", 12), operator.matmul: ("@", 12), operator.pow: ("**", 14), operator.and_: ("&", 9), operator.or_: ("|", 7),
    operator.xor: ("^", 8), operator.lshift: ("<<", 10), operator.rshift: (">>", 10), operator.lt: ("<", 6), operator.le: ("<=", 6),
    operator.gt: (">", 6), operator.ge: (">=", 6), operator.eq: ("==", 6), operator.ne: ("!=", 6),
}
_UNARIES: dict[Any, str] = {operator.neg: "-", operator.pos: "+", operator.invert: "~"}
_RESERVED = frozenset(keyword.kwlist) | frozenset(dir(builtins)) | {"self", "torch", "F", "math", "nn"}


_VIEWS = frozenset("contiguous expand flatten permute reshape squeeze to transpose unflatten unsqueeze view".split())
_VIEWED = frozenset(getattr(torch, name) for name in _VIEWS if hasattr(torch, name))
_SHORT = {"scaled_dot_product_attention": "attended", "matmul": "product", "gt": "mask", "ge": "mask", "le": "mask", "lt": "mask", "eq": "mask",
          "ne": "mask", **dict.fromkeys(("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "where"), "y")}
_METHODS = {torch.unflatten: "unflatten", torch.roll: "roll", torch.flatten: "flatten"}
_UNPACKED = frozenset(("permute", "expand", "view", "reshape"))
_KEYWORDS: dict[Any, tuple[str, ...]] = {
    torch.cat: ("", "dim"), torch.stack: ("", "dim"), torch.softmax: ("", "dim"), torch.log_softmax: ("", "dim"), F.softmax: ("", "dim"),
    torch.cumsum: ("", "dim"), torch.roll: ("shifts", "dims"),
}
"""How arguments that are given by place read better."""


@dataclass
class Statement:
    """One line: `node` computed with `folded` operands inside; `unpacked`: the getitem nodes that its results are bound to."""

    node: Node
    unpacked: list[Node] = field(default_factory=list)
    text: str = ""


@dataclass
class Code:
    """`text` defines `forward`; `lines[i]` is the node computed in line i + 1 (None: no node); `globals` are what the text refers to."""

    text: str
    lines: list[Node | None]
    globals: dict[str, Any]
    statements: list[str] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)


Special = Callable[[Node, "Writer"], tuple[str, int] | None]
"""A node's text and how tightly it binds, where it is not to be written in the usual way."""


def generate(graph: Graph, *, free: bool = True, names: dict[str, str] | None = None, special: Special | None = None, hints: bool = False,
             taken: frozenset[str] = frozenset()) -> Code:
    """The `forward` of a graph. `free`: let go of tensors after their last use. `names`: how to write attribute targets (default `self.…`).
    `hints`: sizes with names in the spec stand behind them, `\x00name\x00size`. `taken`: names that no value gets."""
    return Writer(graph, free, names or {}, special, hints, taken).write()


class Writer:
    def __init__(self, graph: Graph, free: bool, names: dict[str, str], special: Special | None, hints: bool = False,
                 taken: frozenset[str] = frozenset()):
        self.graph, self.free, self.targets, self.special, self.hints, self.taken = graph, free, names, special, hints, taken
        self.forced: set[Node] = set()
        self.folded: set[Node] = set()
        self.names: dict[Node, str] = {}
        self.globals: dict[str, Any] = {"torch": torch, "F": F, "math": math}
        self.operands = {node: _operands(node) for node in graph.nodes}

    def write(self) -> Code:
        while True:
            self.folded = set()
            statements = self._statements()
            self._name(statements)
            long = next((s for s in statements if _width(s.text) > WIDTH - 6 * self.hints and self._unfold(s.node)), None)
            if long is None:
                break
        inputs = [self.names[n] for n in self.graph.nodes if n.op == "placeholder"]
        head = f"def forward({', '.join(['self', *inputs])}):"
        text = "\n".join([head, *(f"    {s.text}" for s in statements)]) + "\n"
        return Code(text, [None, *(s.node for s in statements)], self.globals, [s.text for s in statements], inputs)

    # ---------------------------------------------------------------- what is a statement
    def _statements(self) -> list[Statement]:
        statements: list[Statement] = []
        pending: list[Node] = []
        done: set[Node] = set()
        for node in self.graph.nodes:
            if node.op in ("placeholder", "get_attr") or node in done:
                continue
            operands = [n for n in self.operands[node] if n in pending]
            start = max(0, len(pending) - len(operands))
            if pending[start:] == operands:
                self.folded.update(operands)
                del pending[start:]
            else:
                statements += map(Statement, pending)
                pending.clear()
            if self._foldable(node):
                pending.append(node)
                continue
            statements += map(Statement, pending)
            pending.clear()
            parts = _parts(node)
            done.update(parts)
            statements.append(Statement(node, parts))
        return statements + [Statement(n) for n in pending]

    def _foldable(self, node: Node) -> bool:
        if node.op == "output" or node in self.forced or _parts(node) or len(node.users) != 1:
            return False
        (user,) = node.users
        if node.meta.get("hint") and not node.meta.get("soft") and not (user.op == "output" and user.args[0] is node and node.next is user):
            return False
        return sum(n is node for n in self.operands[user]) == 1

    def _unfold(self, node: Node) -> bool:
        """Marks the longest operand inside a line as a statement of its own."""
        inside: list[Node] = []

        def visit(n: Node) -> None:
            for o in self.operands[n]:
                if o in self.folded and o not in inside:
                    inside.append(o)
                    visit(o)

        visit(node)
        inside = [n for n in inside if not (node.op == "output" and node.args[0] is n)]  # a name for what is returned makes no line shorter
        if not inside:
            return False
        half = [n for n in inside if len(self._expr(n)[0]) <= 0.7 * len(self._right(node))] or inside
        self.forced.add(max(half, key=lambda n: len(self._expr(n)[0])))
        return True

    # ---------------------------------------------------------------- names
    def _name(self, statements: list[Statement]) -> None:
        last: dict[Node, int] = {}
        for i, s in enumerate(statements):
            for n in self._variables(s.node):
                last[n] = i
        self.names, live = {}, {}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self._bind(node, -2, last, live)  # inputs never share a name
        for i, s in enumerate(statements):
            right = self._right(s.node)
            dying = [n for n in self._variables(s.node) if last[n] == i and live.get(self.names[n]) is n]
            if s.node.op == "output":
                s.text = f"return {right}"
                continue
            targets = s.unpacked or [s.node]
            if not any(t.users for t in targets):
                s.text = right
            else:
                count = s.node.meta.get("results", 0) if s.unpacked else 0
                bound = {t.args[1] if s.unpacked else 0: self._bind(t, i, last, live) for t in targets}
                left = ", ".join(bound.get(k, "_") for k in range(count)) if count else bound[0]
                s.text = f"{left}{',' if count == 1 else ''} = {right}"
            gone = [self.names[n] for n in dying if live.get(self.names[n]) is n and n.op != "placeholder" and not n.meta.get("soft")]
            for name in gone:
                live.pop(name)
            if gone and self.free and statements[i + 1].node.op != "output":
                s.text += f"; del {', '.join(gone)}"

    def _bind(self, node: Node, at: int, last: dict[Node, int], live: dict[str, Node]) -> str:
        """A name for a value: its hint, unless another value that is needed later has it."""
        hint = re.sub(r"\W", "_", str(_called(node))) or "x"
        hint = f"{hint}_" if hint in _RESERVED or hint in self.globals or hint in self.taken else f"_{hint}" if hint[0].isdigit() else hint
        hint = node.meta.get("fixed", hint)
        name, k = hint, 1
        while name in live and last.get(live[name], -1) > at:
            name, k = f"{hint}_{k}", k + 1
        live[name] = node
        self.names[node] = name
        return name

    def _variables(self, node: Node) -> list[Node]:
        """The values that a line reads by name."""
        found: list[Node] = []
        for n in self.operands[node]:
            if n in self.folded:
                found += self._variables(n)
            elif n.op != "get_attr":
                found.append(n)
        return list(dict.fromkeys(found))

    # ---------------------------------------------------------------- expressions
    def _right(self, node: Node) -> str:
        if node.op == "output":
            value = node.args[0]
            if isinstance(value, (tuple, list)) and len(value) > 1:
                return ", ".join(self.arg(v) for v in value)
            return self.arg(value)
        return self._expr(node)[0]

    def _expr(self, node: Node) -> tuple[str, int]:
        own = self.special(node, self) if self.special else None
        if own is not None:
            return own
        if node.op == "get_attr":
            return self._target(str(node.target)), _CALL
        if node.op == "call_module":
            return f"{self._target(str(node.target))}({self._args(node.args, node.kwargs)})", _CALL
        if node.op == "call_method":
            args, kwargs = node.args[1:], {k: v for k, v in node.kwargs.items() if (k, v) != ("keepdim", False)}
            args = args[:-1] if args and args[-1] is None and node.target in ("sum", "mean") else args
            if node.target in _UNPACKED and len(args) == 1 and isinstance(args[0], (list, tuple)):
                args = tuple(args[0])
            return f"{self.at(node.args[0], _CALL)}.{node.target}({self._args(args, kwargs)})", _CALL
        f, args = node.target, node.args
        if f in _BINARY and len(args) == 2 and not node.kwargs:
            sign, level = _BINARY[f]
            right_assoc = f is operator.pow
            left = level + (right_assoc or level == _COMPARES)  # `a < b < c` means something else in Python
            a, b = self.at(args[0], left), self.at(args[1], level + (not right_assoc))
            return f"{a}**{b}" if sign == "**" and _SIMPLE.fullmatch(a) and _SIMPLE.fullmatch(b) else f"{a} {sign} {b}", level
        if f in _UNARIES:
            return f"{_UNARIES[f]}{self.at(args[0], _UNARY)}", _UNARY
        if f is getattr and len(args) == 2:
            return f"{self.at(args[0], _CALL)}.{args[1]}", _CALL
        if f is operator.getitem:
            return f"{self.at(args[0], _CALL)}[{self._index(args[1])}]", _CALL
        args, kwargs = _said(f, args, node.kwargs)
        if f in _METHODS and args:
            return f"{self.at(args[0], _CALL)}.{_METHODS[f]}({self._args(*_named(f, self._sizes(node, args[1:]), kwargs))})", _CALL
        return f"{self._function(f)}({self._args(*_named(f, args, kwargs))})", _CALL

    def _sizes(self, node: Node, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of a method; sizes that the spec names tell their names, where the text is to be cut into arguments."""
        sizes = args[-1] if args else None
        if not isinstance(sizes, (list, tuple)):
            return args
        names = node.meta.get("sizes", ()) if self.hints else ()
        shown = (Hinted(s, n) if n and isinstance(s, int) and s > 0 else s for s, n in zip(sizes, names)) if len(names) == len(sizes) else sizes
        return *args[:-1], tuple(shown)

    def _target(self, path: str) -> str:
        if path in self.targets:
            return self.targets[path]
        return "self" + "".join(f"[{s}]" if s.isdigit() else f".{s}" for s in path.split("."))

    def _function(self, f: Any) -> str:
        name = _get_qualified_name(f)
        module, _, last = name.rpartition(".")
        if module in ("torch", "torch._C._nn", "torch.nn.functional", "torch._C") and getattr(F, last, None) is f:
            return f"F.{last}"
        if module == "torch._C._linalg":
            return f"torch.linalg.{last.removeprefix('linalg_')}"
        if module in ("builtins", ""):
            return last
        if module.startswith("torch.") and getattr(torch, last, None) is f:
            return f"torch.{last}"
        if name.startswith(("torch.", "math.")):
            return name
        while self.globals.setdefault(last, f) is not f:
            last += "_"
        return last

    def _args(self, args: Any, kwargs: Any) -> str:
        return ", ".join([*(self.arg(a) for a in args), *(f"{k}={self.arg(v)}" for k, v in kwargs.items())])

    def arg(self, value: Any) -> str:
        return self.at(value, 0)

    def at(self, value: Any, level: int) -> str:
        """An operand, in parentheses if it binds looser than its place."""
        if isinstance(value, Node):
            if value in self.folded or value.op == "get_attr":
                text, own = self._expr(value)
                return f"({text})" if own < level else text
            return self.names[value]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and level > _UNARY:
            text = self._constant(value)
            return f"({text})" if text.startswith("-") or level == _CALL else text
        return self._constant(value)

    def _constant(self, value: Any) -> str:
        if isinstance(value, Hinted):
            return f"\x00{value.name}\x00{value.size}"
        if isinstance(value, tuple):
            return f"({', '.join(self.arg(v) for v in value)}{',' if len(value) == 1 else ''})"
        if isinstance(value, list):
            return f"[{', '.join(self.arg(v) for v in value)}]"
        if isinstance(value, dict):
            return f"{{{', '.join(f'{k!r}: {self.arg(v)}' for k, v in value.items())}}}"
        if isinstance(value, slice):
            return f"slice({self.arg(value.start)}, {self.arg(value.stop)}, {self.arg(value.step)})"
        if value is Ellipsis:
            return "..."
        if isinstance(value, float) and not math.isfinite(value):
            return "math.nan" if math.isnan(value) else "math.inf" if value > 0 else "-math.inf"
        if isinstance(value, torch.device):
            return f"torch.device({str(value)!r})"
        if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.layout, torch.memory_format)):
            text = repr(value) if not isinstance(value, (torch.layout, torch.memory_format)) else str(value)
            return quoted(value) if isinstance(value, str) else text
        if isinstance(value, (torch.Size,)):
            return self._constant(tuple(value))
        name = f"_{type(value).__name__.lower()}"
        while self.globals.setdefault(name, value) is not value:
            name += "_"
        return name

    def _index(self, index: Any) -> str:
        items = index if isinstance(index, tuple) else (index,)
        if not items:
            return "()"
        text = ", ".join(self._slice(i) if isinstance(i, slice) else self.arg(i) for i in items)
        return f"{text}," if isinstance(index, tuple) and len(items) == 1 and isinstance(items[0], (list, tuple)) else text

    def _slice(self, s: slice) -> str:
        start, stop = ("" if v is None else self.arg(v) for v in (s.start, s.stop))
        simple = all(re.fullmatch(r"[-+~]*\w*", t) for t in (start, stop))
        between = ":" if simple else f"{start and ' '}:{stop and ' '}"
        return f"{start}{between}{stop}" + ("" if s.step is None else f":{self.arg(s.step)}")


def _called(node: Node) -> str:
    """What a value is called: its hint, or what the value is called that it is a view of; positions for an arange, else the function."""
    of = node
    while not of.meta.get("hint") and of.args and isinstance(of.args[0], Node):
        within = of.args[0]
        if of.target is operator.getitem and within.target is getattr:
            return "size" if within.args[1] == "shape" else node.name
        view = of.target in _VIEWED or of.op == "call_method" and of.target in _VIEWS
        if not (view or of.target is operator.getitem and not within.meta.get("results")):
            break
        of = within
    if of.meta.get("hint"):
        return of.meta["hint"]
    if of.op in ("placeholder", "get_attr"):
        return str(of.target).rpartition(".")[2]
    if of.target is torch.arange:
        return "position"
    plain = re.sub(r"_\d+$", "", of.name)
    return _SHORT.get(plain, of.name if of is node else plain)


_SIMPLE = re.compile(r"[-+~]*[\w.\x00]+")  # what a formatter puts next to ** without spaces


@dataclass(frozen=True)
class Hinted:
    """A size with its name in the spec: `\x00name\x00size` in the text."""

    size: int
    name: str


def quoted(text: str) -> str:
    """A string literal in double quotes, where that needs no more escapes."""
    plain = repr(text)
    return f'"{plain[1:-1]}"' if plain[0] == "'" and '"' not in plain and "\\'" not in plain else plain


def _named(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by name, where the place alone says little."""
    names = _KEYWORDS.get(f, ())
    given = {n: a for n, a in zip(names, args) if n}
    return tuple(a for i, a in enumerate(args) if i >= len(names) or not names[i]), {**given, **kwargs}


def _width(text: str) -> int:
    """The length of a line, all numbers taken as equally long: equal code with other numbers is broken at the same places."""
    text = re.sub(r"\x00([^\x00]*)\x00\d+", r"self.\1", text)
    return len(re.sub(r"\b\d[\d.]*(e[+-]?\d+)?", "0000", text))


def _said(f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments without those that repeat a default (torch's functions spell all of them out when they are traced)."""
    defaults = _defaults(f)
    kept = {k: v for k, v in kwargs.items() if not (k in defaults and type(v) is type(defaults[k]) and v == defaults[k])}
    while f in _BIASED and args and args[-1] is None:
        args = args[:-1]
    return args, kept


_BIASED = frozenset((F.linear, F.conv1d, F.conv2d, F.conv3d))
_ATTENTION = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "scale": None, "enable_gqa": False}


@lru_cache(None)
def _defaults(f: Any) -> dict[str, Any]:
    if f is F.scaled_dot_product_attention:
        return _ATTENTION
    try:
        known = inspect.signature(f).parameters.items()
    except (TypeError, ValueError):
        return {}
    return {k: p.default for k, p in known if p.default is not p.empty and not isinstance(p.default, torch.Tensor)}


def _operands(node: Node) -> list[Node]:
    """The operand nodes in the order in which their text stands, with repetitions."""
    found: list[Node] = []

    def visit(value: Any) -> None:
        if isinstance(value, Node):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            for v in value:
                visit(v)
        elif isinstance(value, dict):
            for v in value.values():
                visit(v)
        elif isinstance(value, slice):
            visit((value.start, value.stop, value.step))

    visit(node.args)
    visit(node.kwargs)
    return found


def _parts(node: Node) -> list[Node]:
    """The getitem nodes to which a call with several results is unpacked; [] when it is used in another way."""
    if not node.meta.get("results") or not node.users:
        return []
    parts = [u for u in node.users if u.target is operator.getitem and isinstance(u.args[1], int)]
    indices = {i for u in parts if isinstance(i := u.args[1], int)}
    return parts if len(parts) == len(node.users) == len(indices) and all(0 <= i < node.meta["results"] for i in indices) else []
