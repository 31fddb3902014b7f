"""What differs in one block itself: its type, its weights, its ops."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from fractions import Fraction
from typing import Any

from archdsl.elaborate.values import is_list, show
from archdsl.graph import Graph, InitExpr, Mask, Node, Param, TensorType, Value
from archdsl.ops.registry import find
from archdsl.records import record, replace

_STRUCTURE = ("input", "param")
_DERIVED = ("sizes", "path", "graph")  # attributes that follow from others
_KINDS = 8  # of ops that one note lists


@record(frozen=True)
class Note:
    """One thing that differs. `size`: it is a size alone. `common`: what to say of several layers of which each has a number of its own."""

    text: str
    size: bool = False
    common: str = ""

    def __str__(self) -> str:
        return self.text

    def of(self, several: bool) -> str:
        """The text, of one layer or of several."""
        return self.common if several and self.common else self.text


def notes_on(a: Graph, b: Graph, names: Mapping[str, str], named: bool = True) -> tuple[Note, ...]:
    """Sentences without a verb. `names`: path after -> path before of the blocks that both call; `named`: the blocks' own names say more than
    their addresses do, as those of a loop's layers do not."""
    found = [*_types(a, b), *_weights(a, b), *_counted(_ops(a, b, names)), *map(Note, _guards(a, b))]
    if named and a.name != b.name:
        found.insert(0, Note(f"block {a.name} → {b.name}"))
    if all(n.size for n in found) and _keys(a, {}) == _keys(b, names) and _wires(a, {}) != _wires(b, names):
        found.append(Note("connected in another way"))
    return tuple(found)


def _keys(g: Graph, names: Mapping[str, str]) -> list[Any]:
    return [_key(n, names) for n in g.nodes if n.op not in _STRUCTURE]


def _wires(g: Graph, names: Mapping[str, str]) -> list[Any]:
    """Which result each operand is."""
    numbers = {id(n): i for i, n in enumerate(n for n in g.nodes if n.op != "param")}

    def wire(v: Value) -> Any:
        return v.node.attrs["path"] if v.node.op == "param" else (numbers[id(v.node)], v.index)

    return [(_key(n, names), list(map(wire, n.operands()))) for n in g.nodes if n.op not in _STRUCTURE] + [list(map(wire, g.outputs))]


def _is_size(x: TensorType, y: TensorType) -> bool:
    return x.dtype == y.dtype and len(x.shape) == len(y.shape)


def _types(a: Graph, b: Graph) -> Iterator[Note]:
    for what, xs, ys in (("input", a.inputs, b.inputs), ("output", a.outputs, b.outputs)):
        left, right = [v.type for v in xs], [v.type for v in ys]
        if left != right:
            s = "s" if max(len(left), len(right)) > 1 else ""
            size = len(left) == len(right) and all(map(_is_size, left, right))
            yield Note(f"{what}{s} {', '.join(map(str, left)) or 'none'} → {', '.join(map(str, right)) or 'none'}", size)


# ---------------------------------------------------------------- weights
def param_pairs(a: Graph, b: Graph) -> list[tuple[Param | None, Param | None]]:
    """The weights that two blocks own themselves, before and after: by name, then by type and initialiser."""
    left, right = {p.path: p for p in a.params}, {p.path: p for p in b.params}
    out: list[tuple[Param | None, Param | None]] = [(p, right.get(path)) for path, p in left.items()]
    new = [p for path, p in right.items() if path not in left]
    for i, (x, y) in enumerate(out):
        if x is not None and y is None:
            same = next((p for p in new if (p.kind, p.type, p.init) == (x.kind, x.type, x.init)), None)
            if same is not None:
                new.remove(same)
                out[i] = x, same
    return out + [(None, p) for p in new]


def _weights(a: Graph, b: Graph) -> Iterator[Note]:
    pairs = param_pairs(a, b)
    sized = [v.type for v in a.inputs] != [v.type for v in b.inputs] or any(x and y and x.type != y.type for x, y in pairs)
    for x, y in pairs:
        if y is None and x is not None:
            yield Note(f"{x.kind} {x.path}: {x.type} removed")
        elif x is None and y is not None:
            yield Note(f"{y.kind} {y.path}: {y.type} added")
        elif x is not None and y is not None:
            name = x.path if x.path == y.path else f"{x.path} → {y.path}"
            parts = [f"{old} → {new}" for old, new in ((x.kind, y.kind), (str(x.type), str(y.type))) if old != new]
            if (old := init_text(x.init)) != (new := init_text(y.init)):
                old, new = (init_text(p.init, 6) for p in (x, y)) if init_text(x.init, 6) != init_text(y.init, 6) else (old, new)
                parts.append(f"init {old} → {new}")
            size = sized and x.path == y.path and x.kind == y.kind and _is_size(x.type, y.type) and _form(x.init) == _form(y.init)
            if parts or x.path != y.path:
                yield Note(f"{x.kind} {name}" + (": " + ", ".join(parts) if parts else ""), size)


def _form(e: Any) -> Any:
    """An initialiser without its numbers: where sizes differ, its bounds do."""
    return (e.op, *map(_form, e.args), *(k for k, _ in e.attrs)) if isinstance(e, InitExpr) else None


def init_text(e: Any, digits: int | None = None) -> str:
    """An initialiser as the language writes it, nearly; numbers in full or in some digits."""
    if not isinstance(e, InitExpr):
        return f"{e:.{digits}g}" if digits and isinstance(e, float) else show(e)
    attrs = [f"{k} = {init_text(v, digits)}" for k, v in e.attrs]
    return f"{e.op}({', '.join([*(init_text(a, digits) for a in e.args), *attrs])})" if e.args or attrs else e.op


# ---------------------------------------------------------------- ops
def _ops(a: Graph, b: Graph, names: Mapping[str, str]) -> Iterator[Note]:
    left, right = ([n for n in g.nodes if n.op not in _STRUCTURE] for g in (a, b))
    keys = [_key(n, {}) for n in left], [_key(n, names) for n in right]
    for kind, i, j, k, m in SequenceMatcher(None, *keys, autojunk=False).get_opcodes():
        if kind == "equal":
            for x, y in zip(left[i:j], right[k:m]):
                yield from _attributes(x, y)
            continue
        gone, new = ([n.op for n in nodes if n.op != "call"] for nodes in (left[i:j], right[k:m]))
        if gone and new:
            yield Note(f"{_listed(gone)} → {_listed(new)}")
        elif gone:
            yield Note(f"without {_listed(gone)}")
        elif new:
            yield Note(f"with {_listed(new)}")


def _counted(notes: Iterable[Note]) -> Iterator[Note]:
    """Equal notes as one: `slice: [:, 8:] → [:, 4:]  × 2`."""
    yield from (replace(note, text=f"{note.text}  × {n}") if n > 1 else note for note, n in Counter(notes).items())


def _listed(ops: list[str]) -> str:
    """`cast × 4, mul, add × 2`."""
    found = [op + (f" × {n}" if n > 1 else "") for op, n in Counter(ops).items()]
    return ", ".join(found[:_KINDS]) + (f" and {len(found) - _KINDS} other{'s' * (len(found) > _KINDS + 1)}" if len(found) > _KINDS else "")


def _key(n: Node, names: Mapping[str, str]) -> Any:
    if n.op == "call":
        return "call", names.get(n.attrs["path"], n.attrs["path"])
    return n.op


def _attributes(x: Node, y: Node) -> Iterator[Note]:
    sizes, op = _sizes(x, y), find(x.op)
    if x.op == "rearrange" and _layout(x) != _layout(y):
        yield Note(f"rearrange: {_layout(x)} → {_layout(y)}")
    for name in dict.fromkeys((*x.attrs, *y.attrs)):
        if name not in _DERIVED and not (x.op == "rearrange" and name in ("ins", "outs")):
            old, new = x.attrs.get(name), y.attrs.get(name)
            if not _same(old, new):
                text = _written(old, new, _places) if x.op == "slice" and name == "items" else f"{name} {_written(old, new)}"
                drops = name == "rate" and op is not None and op.random and op.phase
                yield Note(f"{x.op}: {text}", _follows(old, new, sizes), f"{x.op}: another rate in each" if drops else "")
    if x.op != "call":
        for i, (p, q) in enumerate(zip(x.args, y.args)):
            if not isinstance(p, (Value, tuple)) and not isinstance(q, (Value, tuple)) and p != q:
                yield Note(f"{x.op}: operand {i + 1} {_written(p, q)}")


def _sizes(x: Node, y: Node) -> set[tuple[Any, Any]]:
    """(before, after) of each size of what a node reads and gives."""
    left, right = ([*(v.type for v in n.operands()), *n.types] for n in (x, y))
    return {pair for p, q in zip(left, right) if len(p.shape) == len(q.shape) for pair in zip(p.shape, q.shape)} if len(left) == len(right) else set()


def _same(old: Any, new: Any) -> bool:
    """Whether two attributes read the same; of numbers, whether they are equal: a printed graph may say `0` where a spec says `0.0`."""
    numbers = all(isinstance(v, (int, float, Fraction)) and not isinstance(v, bool) for v in (old, new))
    return old == new if numbers else _text(old) == _text(new)


def _follows(old: Any, new: Any, sizes: set[tuple[Any, Any]]) -> bool:
    """Whether an attribute only says what the sizes around it say."""
    if is_list(old) and is_list(new) and len(old) == len(new):
        return all(_follows(p, q, sizes) for p, q in zip(old, new))
    return _text(old) == _text(new) or isinstance(old, int) and not isinstance(old, bool) and (old, new) in sizes


def _written(old: Any, new: Any, text: Callable[[Any], str] | None = None) -> str:
    """Both values; numbers in six digits where that tells them apart."""
    if isinstance(old, float) and isinstance(new, float) and f"{old:.6g}" != f"{new:.6g}":
        return f"{old:.6g} → {new:.6g}"
    return " → ".join(map(text or _text, (old, new)))


def _layout(n: Node) -> str:
    """`[a, b, (c d)] -> [b, a, c, d]`: atoms by their order."""

    def word(groups: Any) -> str:
        names = [" ".join(f"{chr(97 + i % 26)}{i // 26 or ''}" for i in g) for g in groups]
        return f"[{', '.join(f'({x})' if len(g) != 1 else x for g, x in zip(groups, names))}]"

    return f"{word(n.attrs['ins'])} -> {word(n.attrs['outs'])}"


def _places(items: Any) -> str:
    """The items of a slice as the language writes them."""

    def one(kind: str, *numbers: Any) -> str:
        first, *rest = ("" if n is None else _text(n) for n in (numbers or (None,)))
        return "none" if kind == "new" else first if kind == "int" else ":".join([first, *(n for i, n in enumerate(rest) if n or not i)])

    return f"[{', '.join(one(*item) for item in items)}]"


def _text(value: Any) -> str:
    if isinstance(value, Graph):
        return f"{value.name or 'graph'} {value.hash[:6]}"
    if isinstance(value, Mask):
        inside = [_text(v) for v in value.args if not isinstance(v, Value)]
        return value.kind + (f"({', '.join(inside)})" if inside else "")
    return show(value)


def _guards(a: Graph, b: Graph) -> Iterator[str]:
    left, right = ({f"{g.left} {g.op} {g.right}" for g in x.guards} for x in (a, b))
    yield from (f"no longer requires {g}" for g in sorted(left - right))
    yield from (f"requires {g}" for g in sorted(right - left))
