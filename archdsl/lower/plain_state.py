"""The state of a form in written models: the methods that tell and begin it, its check, and the lines of `forward` that read and write it."""
from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from archdsl.diagnostics.model import error
from archdsl.dims import Dim, Size, sym, symbols
from archdsl.lower import parts
from archdsl.lower.sizes import Axes
from archdsl.lower.wrapping import wrapped
from archdsl.ops.registry import LENGTH
from archdsl.ops.rules import torch_dtype
from archdsl.streaming import Streamed

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%"}


class Kept:
    """Prepares the graph of a root so that a tensor of the state is read where it is needed, and written under its address."""

    def __init__(self, graph: fx.Graph, addresses: tuple[str, ...]):
        self.addresses = addresses
        state = next(n.args[0] for n in graph.nodes if n.target is parts.holds)
        state.meta["fixed"] = "state"
        reads = {n.args[1]: n for n in graph.nodes if n.target is operator.getitem and n.args[0] is state}
        for node in list(graph.nodes):
            if node.target is parts.fit:  # the state has its own check
                node.args = tuple(a for a in node.args if a[0] not in reads.values())
                if all(n.op == "placeholder" for n in node.all_input_nodes):
                    next(n for n in graph.nodes if n.op != "placeholder").prepend(node)
        for node in [n for n in graph.nodes if n.target is parts.fit and not n.args]:
            graph.erase_node(node)
        place = {n: i for i, n in enumerate(graph.nodes)}
        for node in sorted(reads.values(), key=lambda n: -len(n.users)):  # what is read once stands next to its user, and so inside of its line
            if users := [u for u in node.users if u.op != "output"]:
                min(users, key=place.__getitem__).prepend(node)
            node.meta["soft"] = len(node.users) == 1
        words = " ".join(str(w) for n in graph.nodes for w in (n.name, n.target, n.args, n.meta.get("hint")))
        mark = next("_" * k for k in range(1, len(words) + 2) if f"READ{'_' * k}" not in words and f"STATE{'_' * k}" not in words)
        self.mark = mark  # of names that the spec has not
        self.reads = {node: f"READ{mark}{i}_" for i, node in enumerate(reads.values())}  # written at first: lines are as long for any address
        self.old = {f"READ{mark}{i}_": str(address) for i, address in enumerate(reads)}
        result = next(iter(reversed(graph.nodes)))
        self.new: dict[str, str] = {}  # the name that a new tensor gets at first -> its address
        self._name(result, reads)

    def _name(self, result: fx.Node, reads: dict[Any, fx.Node]) -> None:
        held: Any = result.args[0]
        held = next(p for p in (held, held[0]) if isinstance(p, tuple) and isinstance(p[-1], dict) and p[-1].keys() == set(self.addresses))
        seen: set[fx.Node] = set(reads.values())
        for i, (address, node) in enumerate(held[-1].items()):
            if node.op not in ("placeholder", "get_attr") and node not in seen:
                seen.add(node)
                self.new[f"STATE{self.mark}{i}_"] = address
                node.meta.update(hint=f"STATE{self.mark}{i}_", soft=False)

    def written(self, statements: list[str]) -> list[str]:
        """The lines, with the new state in a dict `new`."""
        found: list[str] = []
        *body, last = statements
        head, _, tail = last.rpartition("{")
        own, close = tail[:tail.index("}")], tail[tail.index("}") + 1:]
        for address, value in re.findall(r"'([^']*)': ([^,]+)(?:, |$)", own):
            if self.new.get(value) != address:
                body.append(f'new["{address}"] = {value}')
        for line in [*body, f"{head}new{close}"]:
            line = re.sub(rf"\bSTATE{self.mark}\d+_\b", lambda m: f'new["{self.new[m[0]]}"]', line)
            line = re.sub(rf"\bREAD{self.mark}\d+_\b", lambda m: f'state["{self.old[m[0]]}"]', line)
            if 'new["' in line and "new: dict" not in "".join(found):
                found.append("new: dict[str, Tensor] = {}")
            found.append(line)
        return found


# ---------------------------------------------------------------- what a model tells of its state
class Sizes:
    """How a model calls the sizes of its state: `batch`, `length`, the others as the spec does. `given` are those that its inputs tell."""

    def __init__(self, streamed: Streamed):
        self.streamed = streamed
        inputs = streamed.graph.inputs[:len(streamed.graph.inputs) - len(streamed.slots)]
        self.told = {str(s): (i, axis) for i, v in reversed(list(enumerate(inputs))) for axis, s in reversed(list(enumerate(v.shape)))}
        self.needed = sorted({n for slot in streamed.slots for s in slot.type.shape for n in symbols(s)}, key=lambda n: (self.order(n), n))
        self.given = {self.name(n): self.told[n] for n in self.needed if n in self.told}
        self.own = {self.name(n): self._read(n) for n in self.needed if n not in self.told}
        self.axes = Axes(_no_axis, _arithmetic)
        for n in self.needed:
            self.axes.give(sym(n), self.name(n))

    def order(self, symbol: str) -> int:
        return 0 if symbol == str(self.streamed.batch) else 1 if symbol == LENGTH else 2

    def name(self, symbol: str) -> str:
        return ("batch", "length", symbol)[self.order(symbol)]

    def _read(self, symbol: str) -> tuple[str, int, int]:
        """The address, axis and number of axes of a tensor that tells a size."""
        for slot in self.streamed.slots:
            for axis, size in enumerate(slot.type.shape):
                if isinstance(size, Dim) and size == sym(symbol):
                    return slot.address, axis, len(slot.type.shape)
        raise error("A0514", f"no tensor of the state has an axis of the size `{symbol}`", self.streamed.graph.span, "this model")

    @property
    def heads(self) -> list[str]:
        return [f"{self.name(n)}: int" for n in self.needed]

    def shape(self, shape: tuple[Size, ...]) -> str:
        items = [str(self.axes(s)) for s in shape]
        items = [i[1:-1] if i.startswith("(") and i.endswith(")") and "(" not in i[1:-1] else i for i in items]
        return f"({', '.join(items)}{',' * (len(items) == 1)})"


def _no_axis(value: Any, axis: int) -> Any:
    raise AssertionError("sizes of a state are told by name")


def _arithmetic(op: str, *operands: Any) -> str:
    if op == "neg":
        return f"(-{operands[0]})"
    return f"({operands[0]} {_SIGNS[op]} {operands[1]})" if op in _SIGNS else f"{op}({', '.join(map(str, operands))})"


def check(node: fx.Node, streamed: Streamed, arg: Callable[[Any], str]) -> str:
    """The line that checks the state."""
    inputs = [n for n in node.graph.nodes if n.op == "placeholder"]
    given = [f"{name}={arg(inputs[i])}.size({axis})" for name, (i, axis) in Sizes(streamed).given.items()]
    return f"self.check_state(state, {', '.join([*given, f'new={arg(node.args[2])}'])})"


# ---------------------------------------------------------------- methods
def methods(streamed: Streamed, dtype: str) -> list[str]:
    """`state_shapes`, `init_state`, `check_state`, and `delay` and `end_state` where results come late."""
    sizes = Sizes(streamed)
    parts = (*([_end(streamed)] if streamed.delay else []), _shapes(sizes, dtype), _init(sizes), _check(sizes))
    lines = [line for part in parts for line in ("", *part)][1:]
    return [line for text in lines for line in (wrapped(text, 4) if text else [""])]


def _end(streamed: Streamed) -> list[str]:
    return [f"delay = {streamed.delay}  # results come so many positions late: at position t those of t - delay, and 0 before the first", "",
            "def end_state(self, state: dict[str, Tensor]) -> dict[str, Tensor]:",
            '    """The state of a sequence that ends here: `delay` more positions, whatever they hold, bring its last results."""',
            '    return {**state, "end": torch.where(state["end"] == 0, state["position"], state["end"])}']


_SHAPES = "dict[str, tuple[tuple[int, ...], torch.dtype]]"


def _shapes(sizes: Sizes, dtype: str) -> list[str]:
    room = "; `length` is the room for positions" if sizes.streamed.has_length else ""
    lines = [f"def state_shapes({', '.join(['self', *sizes.heads])}) -> {_SHAPES}:",
             f'    """Shape and element type of each tensor of the state by its address{room}."""', f"    shapes: {_SHAPES} = {{}}"]
    rows = [(s.address, f"{sizes.shape(s.type.shape)}, {torch_dtype(s.type.dtype, getattr(torch, dtype))}") for s in sizes.streamed.slots]
    for start, stop, group in _runs(rows):
        if stop is None:
            lines += [f'    shapes["{address}"] = {text}' for address, text in group]
        else:
            lines.append(f"    for i in range({f'{start}, ' if start else ''}{stop}):")
            lines += [f'        shapes[f"{address}"] = {text}' for address, text in group]
    return [*lines, "    return shapes"]


Rows = list[tuple[str, str]]


def _runs(rows: Rows) -> Iterator[tuple[int, int | None, Rows]]:
    """(first number, number behind the last, rows with `{i}` in its place) where numbered neighbours have equal rows; (0, None, row) elsewhere."""
    groups: list[tuple[str, int, Rows]] = []
    for address, text in rows:
        found = re.match(r"(.*?)(?<![^.])(\d+)\.(.*)", address)
        before, number, after = (found[1], int(found[2]), found[3]) if found else (address, -1, "")
        if groups and found and groups[-1][:2] == (before, number):
            groups[-1][2].append((after, text))
        else:
            groups.append((before, number, [(after, text)]))
    at = 0
    while at < len(groups):
        before, number, inside = groups[at]
        n = 1
        while at + n < len(groups) and number >= 0 and groups[at + n] == (before, number + n, inside):
            n += 1
        if n > 1:
            yield number, number + n, [(f"{before}{{i}}.{after}", text) for after, text in inside]
        else:
            yield 0, None, [(f"{before}{number}.{after}" if number >= 0 else before, text) for after, text in inside]
        at += n


def _init(sizes: Sizes) -> list[str]:
    """`batch` and `length` are there whether the state needs them or not, so that all models are begun alike."""
    s = sizes.streamed
    example = None if s.example is None else s.example + s.delay
    most = example if s.longest is None or example is None else min(example, s.longest)
    length = "length: int | None = None" if not s.has_length else "length: int" if most is None else f"length: int = {most}"
    others = [f"{sizes.name(n)}: int" for n in sizes.needed if sizes.order(n) == 2]
    batch = "batch: int = 1" if s.batch is not None and (most is not None or not s.has_length) else "batch: int"
    heads = [batch, length] if s.batch is not None else [length]
    heads += ["*", *others] if others else []
    told = f"zeros, with room for `length` positions{f', {s.longest} at most' if s.longest is not None else ''}" if s.has_length else "zeros"
    lines = [f"def init_state({', '.join(['self', *heads])}) -> dict[str, Tensor]:", f'    """The state before the first position: {told}."""']
    if s.has_length and s.longest is not None:
        lines += [f"    if length > {s.longest}:", f'        raise ValueError(f"this model has {s.longest} positions at most, not {{length}}")']
    device = "next(self.parameters()).device" if any(p.kind in ("param", "frozen") for _, p in s.graph.parameters()) else '"cpu"'
    lines.append(f"    device, shapes = {device}, self.state_shapes({', '.join(f'{sizes.name(n)}' for n in sizes.needed)})")
    return [*lines, "    return {name: torch.zeros(shape, dtype=dtype, device=device) for name, (shape, dtype) in shapes.items()}"]


def _check(sizes: Sizes) -> list[str]:
    s = sizes.streamed
    heads = ["state: dict[str, Tensor]", *(f"{name}: int" for name in sizes.given), "new: int"]
    told = "the model, with room for `new` more positions" if s.has_length else "the model"
    ones = ", ".join(f"{sizes.name(n)}=1" for n in sizes.needed)
    lines = [f"def check_state({', '.join(['self', *heads])}) -> None:", f'    """Raises ValueError unless this is a state of {told}."""',
             "    if new < 1:", '        raise ValueError("a call takes one position or more: this one has none")',
             f"    names = self.state_shapes({ones}).keys()", "    if not isinstance(state, dict) or state.keys() != names:",
             '        raise ValueError(f"the state is a dict of the tensors {list(names)}, as init_state gives it")']
    for name, (address, axis, rank) in sizes.own.items():
        lines += [f'    x = state["{address}"]', f"    {name} = x.size({axis}) if isinstance(x, Tensor) and x.dim() == {rank} else 0"]
    lines += [f"    for name, (shape, dtype) in self.state_shapes({', '.join(sizes.name(n) for n in sizes.needed)}).items():",
              "        x = state[name]",
              "        if not isinstance(x, Tensor) or tuple(x.shape) != shape or x.dtype != dtype:",
              '            told = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__',
              '            raise ValueError(f"the state `{name}` is {dtype} {list(shape)}: this is {told}")']
    if "position" in s.addresses and (s.has_length or s.longest is not None):
        lines += ['    if state["position"].device.type == "cpu" and not torch.compiler.is_compiling():',
                  '        after = int(state["position"]) + new']
        if s.longest is not None:
            lines += [f"        if after > {s.longest}:",
                      f'            raise ValueError(f"this model has {s.longest} positions at most: {{after}} are too many")']
        if s.has_length:
            lines += ["        if after > length:",
                      '            raise ValueError(f"the state has room for {length} positions, {after} are needed: init_state(length={after})")']
    return lines
