"""`WeightMap`: how one set of named tensors is made from another, as data. Without torch but for `apply`.

An entry gives a list of target tensors from a list of source tensors by invertible steps. Name maps go from a model's own addresses to
foreign keys; renames, slices and whatever else moves weights about take the same form. A map is inverted by swapping the sides of every
entry and undoing its steps from the last to the first, so nothing is written twice for import and export.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any, Literal, cast

from archdsl.lazy import torch
from archdsl.records import field, record, replace

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Side = Literal["source", "target"]
_OTHER: dict[Side, Side] = {"source": "target", "target": "source"}


class MapError(ValueError):
    """A step that does not fit the shapes it gets: a sentence in the user's words."""


# ---------------------------------------------------------------- steps
@record(frozen=True)
class Step:
    """One operation on a list of tensors.

    rearrange  item (sizes, ins, outs) for each tensor: atoms by number, their sizes, the atoms of every axis before and after
    transpose  item (a, b) for each tensor: two axes change places
    add scale  item (k,) for each tensor: x + k, x * k (k ≠ 0)
    concat     item (axis, sizes) for each result: as many tensors as sizes, joined along the axis; undone by split
    stack      item (axis, count) for each result: count tensors of one shape, joined along a new axis; undone by unstack
    """

    kind: str
    items: tuple[tuple[Any, ...], ...]

    def inverse(self) -> Step:
        kind, item = KINDS[self.kind].inverse
        return Step(kind, tuple(map(item, self.items)))

    def shapes(self, before: list[Shape]) -> list[Shape]:
        """The shapes after the step. Raises MapError."""
        return self._run(before, KINDS[self.kind].shape)

    def apply(self, tensors: list[Tensor]) -> list[Tensor]:
        return self._run(tensors, KINDS[self.kind].body)

    def _run(self, values: list[Any], rule: Callable[..., list[Any]]) -> list[Any]:
        out: list[Any] = []
        at = 0
        for item in self.items:
            n = KINDS[self.kind].takes(item)
            if at + n > len(values):
                raise MapError(f"{self.kind} needs {at + n} tensors, there are {len(values)}")
            out += rule(values[at : at + n], item)
            at += n
        if at != len(values):
            raise MapError(f"{self.kind} takes {at} tensors, there are {len(values)}")
        return out


@record(frozen=True)
class Kind:
    """`inverse`: the kind that undoes it, and its item; `takes`: how many tensors an item is about; `shape` and `body`: what becomes of them."""

    inverse: tuple[str, Callable[[tuple[Any, ...]], tuple[Any, ...]]]
    takes: Callable[[tuple[Any, ...]], int]
    shape: Callable[[list[Shape], tuple[Any, ...]], list[Shape]]
    body: Callable[[list[Tensor], tuple[Any, ...]], list[Tensor]]


def show(shape: Shape) -> str:
    """`[64, 3]`"""
    return f"[{', '.join(map(str, shape))}]"


def _rearrange_shape(before: list[Shape], item: tuple[Any, ...]) -> list[Shape]:
    sizes, ins, outs = item
    expected = tuple(prod(sizes[a] for a in g) for g in ins)
    if before[0] != expected:
        raise MapError(f"rearrange takes {show(expected)}, this is {show(before[0])}")
    return [tuple(prod(sizes[a] for a in g) for g in outs)]


def _rearrange(tensors: list[Tensor], item: tuple[Any, ...]) -> list[Tensor]:
    sizes, ins, outs = item
    first, last = [a for g in ins for a in g], [a for g in outs for a in g]
    first, last = [a for a in first if a in last], [a for a in last if a in first]  # an atom on one side alone has size 1
    x = tensors[0].reshape([sizes[a] for a in first]).permute([first.index(a) for a in last])
    return [x.reshape([prod(sizes[a] for a in g) for g in outs])]


def _transpose_shape(before: list[Shape], item: tuple[Any, ...]) -> list[Shape]:
    shape, (a, b) = list(before[0]), item
    if max(a, b) >= len(shape):
        raise MapError(f"transpose exchanges axes {a} and {b}, this is {show(before[0])}")
    shape[a], shape[b] = shape[b], shape[a]
    return [tuple(shape)]


def _concat_shape(before: list[Shape], item: tuple[Any, ...]) -> list[Shape]:
    axis: int = item[0]
    sizes: tuple[int, ...] = item[1]
    if any(len(s) <= axis for s in before):
        raise MapError(f"concat joins along axis {axis}, this is {' and '.join(map(show, before))}")
    rests = {(*s[:axis], *s[axis + 1 :]) for s in before}
    if len(rests) != 1 or tuple(s[axis] for s in before) != tuple(sizes):
        raise MapError(f"{' and '.join(map(show, before))} cannot be joined along axis {axis}")
    return [(*before[0][:axis], sum(sizes), *before[0][axis + 1 :])]


def _split_shape(before: list[Shape], item: tuple[Any, ...]) -> list[Shape]:
    (shape,), (axis, sizes) = before, item
    if len(shape) <= axis or shape[axis] != sum(sizes):
        raise MapError(f"{show(shape)} cannot be split into {' + '.join(map(str, sizes))} along axis {axis}")
    return [(*shape[:axis], s, *shape[axis + 1 :]) for s in sizes]


def _stack_shape(before: list[Shape], item: tuple[Any, ...]) -> list[Shape]:
    axis, count = item
    if len(set(before)) != 1 or axis > len(before[0]):
        raise MapError(f"{' and '.join(dict.fromkeys(map(show, before)))} cannot be stacked along a new axis {axis}")
    return [(*before[0][:axis], count, *before[0][axis:])]


def _unstack_shape(before: list[Shape], item: tuple[Any, ...]) -> list[Shape]:
    (shape,), (axis, count) = before, item
    if len(shape) <= axis or shape[axis] != count:
        raise MapError(f"{show(shape)} has no axis {axis} of {count} tensors")
    return [(*shape[:axis], *shape[axis + 1 :])] * count


def _same(x: Any) -> Any:
    return x


def _one(item: tuple[Any, ...]) -> int:
    return 1


KINDS: dict[str, Kind] = {
    "rearrange": Kind(("rearrange", lambda i: (i[0], i[2], i[1])), _one, _rearrange_shape, _rearrange),
    "transpose": Kind(("transpose", _same), _one, _transpose_shape, lambda x, i: [x[0].transpose(*i)]),
    # in float64, so that the 1 + w of a 16-bit file keeps every bit in a float32 model
    "add": Kind(("add", lambda i: (-i[0],)), _one, lambda s, i: s, lambda x, i: [x[0].double() + float(i[0])]),
    "scale": Kind(("scale", lambda i: (1 / i[0],)), _one, lambda s, i: s, lambda x, i: [x[0].double() * i[0].numerator / i[0].denominator]),
    "concat": Kind(("split", _same), lambda i: len(i[1]), _concat_shape, lambda x, i: [torch.cat(x, i[0])]),
    "split": Kind(("concat", _same), _one, _split_shape, lambda x, i: list(torch.split(x[0], list(i[1]), i[0]))),
    "stack": Kind(("unstack", _same), lambda i: i[1], _stack_shape, lambda x, i: [torch.stack(x, i[0])]),
    "unstack": Kind(("stack", _same), _one, _unstack_shape, lambda x, i: list(x[0].unbind(i[0]))),
}


# ---------------------------------------------------------------- the map
@record(frozen=True)
class Entry:
    """`target` tensors are what the steps make of `source` tensors, in order."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    steps: tuple[Step, ...] = ()

    def inverted(self) -> Entry:
        return Entry(self.target, self.source, tuple(s.inverse() for s in reversed(self.steps)))

    def shapes(self, source: Mapping[str, Shape]) -> dict[str, Shape]:
        """Target name -> shape. Raises MapError where the steps do not fit."""
        shapes = [source[s] for s in self.source]
        for step in self.steps:
            shapes = step.shapes(shapes)
        return dict(zip(self.target, shapes, strict=True))

    def apply(self, source: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tensors = [source[s] for s in self.source]
        for step in self.steps:
            tensors = step.apply(tensors)
        return dict(zip(self.target, tensors, strict=True))


@record(frozen=True)
class Alias:
    """Further names, on `side`, of what the other side has: `entry` makes them of tensors that another entry reads as well."""

    entry: Entry
    side: Side = "target"


@record(frozen=True)
class Constant:
    """A tensor on `side` that the other side does not have: `value` everywhere."""

    key: str
    value: Fraction
    side: Side = "source"


@record(frozen=True)
class Ignored:
    """Names on `side` that mean nothing on the other one: those that the regular expression matches as a whole."""

    pattern: str
    side: Side = "target"


@record(frozen=True)
class Fit:
    """How shapes on the target side agree with the map. `mis_shaped`: name -> (expected, found); `aliases` and `ignored`: names that are there."""

    missing: dict[str, Shape] = field(default_factory=dict)
    unexpected: tuple[str, ...] = ()
    mis_shaped: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def perfect(self) -> bool:
        return not (self.missing or self.unexpected or self.mis_shaped)

    @property
    def faults(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.mis_shaped)


@record(frozen=True)
class WeightMap:
    """From source names to target names. As a spec's `names` gives it: from a model's own addresses to foreign keys."""

    entries: tuple[Entry, ...] = ()
    aliases: tuple[Alias, ...] = ()
    constants: tuple[Constant, ...] = ()
    ignored: tuple[Ignored, ...] = ()

    def sources(self) -> list[str]:
        """The source names that entries read, in order."""
        return [s for e in self.entries for s in e.source]

    def targets(self) -> list[str]:
        """The target names that entries make, in order."""
        return [t for e in self.entries for t in e.target]

    def invert(self) -> WeightMap:
        """From target names to source names. `m.invert().invert() == m`."""
        return WeightMap(tuple(e.inverted() for e in self.entries), tuple(replace(a, side=_OTHER[a.side]) for a in self.aliases),
                         tuple(replace(c, side=_OTHER[c.side]) for c in self.constants), tuple(replace(i, side=_OTHER[i.side]) for i in self.ignored))

    def shapes(self, source: Mapping[str, Shape]) -> dict[str, Shape]:
        """Target name -> shape, aliases included, for the shapes of the sources. Raises MapError."""
        out: dict[str, Shape] = {}
        for e in self.entries:
            out.update(e.shapes(source))
        for a in self.repeated("target"):
            out.update(a.shapes(source))
        return out

    def apply(self, source: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Target names and tensors, aliases last. Tensors may be views of the sources."""
        for e in self.entries:
            yield from e.apply(source).items()
        for a in self.repeated("target"):
            yield from a.apply(source).items()

    def repeated(self, side: Side) -> list[Entry]:
        """The entries of the aliases on a side."""
        return [a.entry for a in self.aliases if a.side == side]

    def fit(self, source: Mapping[str, Shape], target: Mapping[str, Shape]) -> Fit:
        """Compares target shapes that someone has with those that the map makes of the sources. An alias may be absent, and it may stand in
        for the names that it duplicates."""
        expected = self.shapes(source)
        aliases = [k for a in self.repeated("target") for k in a.target if k in target]
        stand_ins = {s for a in self.repeated("target") if all(k in target for k in a.target) for s in a.source}
        missing: dict[str, Shape] = {}
        for e in self.entries:
            if not stand_ins.issuperset(e.source):
                missing.update({t: expected[t] for t in e.target if t not in target})
        patterns = [re.compile(i.pattern) for i in self.ignored if i.side == "target"]
        others = [k for k in target if k not in expected]
        ignored = tuple(k for k in others if any(p.fullmatch(k) for p in patterns))
        wrong = {k: (expected[k], tuple(target[k])) for k in expected if k in target and expected[k] != tuple(target[k])}
        return Fit(missing, tuple(k for k in others if k not in set(ignored)), wrong, tuple(aliases), ignored)

    # ---------------------------------------------------------------- data
    def to_json(self) -> dict[str, Any]:
        """Lists, strings and whole numbers; `from_json` reads it."""
        return {
            "entries": [_encode_entry(e) for e in self.entries],
            "aliases": [[_encode_entry(a.entry), a.side] for a in self.aliases],
            "constants": [[c.key, str(c.value), c.side] for c in self.constants],
            "ignored": [[i.pattern, i.side] for i in self.ignored],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WeightMap:
        """Raises KeyError, TypeError or ValueError for data that no map has written."""
        aliases = tuple(Alias(_decode_entry(e), side) for e, side in data["aliases"])
        constants = tuple(Constant(k, Fraction(v), side) for k, v, side in data["constants"])
        return cls(tuple(map(_decode_entry, data["entries"])), aliases, constants, tuple(Ignored(*i) for i in data["ignored"]))


def _encode_entry(e: Entry) -> dict[str, Any]:
    return {"source": list(e.source), "target": list(e.target), "steps": [_encode_step(s) for s in e.steps]}


def _decode_entry(e: Mapping[str, Any]) -> Entry:
    return Entry(tuple(e["source"]), tuple(e["target"]), tuple(_decode_step(s) for s in e["steps"]))


def _encode_step(step: Step) -> list[Any]:
    return [step.kind, *_encode(step.items)]


def _decode_step(data: list[Any]) -> Step:
    kind, *items = data
    if kind not in KINDS:
        raise ValueError(f"no step is called {kind!r}")
    return Step(kind, tuple(_decode(i) for i in items))


def _encode(x: Any) -> Any:
    if isinstance(x, tuple):
        return [_encode(v) for v in cast("tuple[Any, ...]", x)]
    return str(x) if isinstance(x, Fraction) else x


def _decode(x: Any) -> Any:
    if isinstance(x, list):
        return tuple(_decode(v) for v in cast("list[Any]", x))
    return Fraction(x) if isinstance(x, str) else x
