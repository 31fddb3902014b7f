"""Layouts of names alone: `[..., T, (heads width)] -> [..., heads, T, width]`, as most are.

They are read once, and solved here where sizes fit at sight. What does not is none of the business of this module: `layouts` solves it, or says what
is wrong with it."""
from __future__ import annotations

from typing import Any

from archdsl import shapes
from archdsl.dims import Size
from archdsl.elaborate.frame import Session
from archdsl.syntax import tree

Groups = tuple[tuple[int, ...], ...]
Axis = str | tuple[str, ...] | None
"""A name, the factors of one axis, or None for `...`."""


class PlainLayout:
    """Both sides of an arrow. `names`: in the order of the left side, which those of the right side are as well."""

    def __init__(self, source: list[Axis], target: list[Axis]):
        self.source, self.target = source, target
        self.rest = source.index(None) if None in source else -1
        self._groups: dict[int, tuple[Groups, Groups]] = {}

    def groups(self, rest: int) -> tuple[Groups, Groups]:
        """The atoms of each axis on the left and on the right by number, where `...` stands for so many axes."""
        if rest not in self._groups:
            left, right = (_spread(side, rest) for side in (self.source, self.target))
            number = {name: i for i, name in enumerate(n for group in left for n in group)}
            ins, outs = (tuple([tuple([number[n] for n in group]) for group in side]) for side in (left, right))
            self._groups[rest] = ins, outs
        return self._groups[rest]

    def solve(self, names: dict[str, Any], shape: tuple[Size, ...]) -> tuple[tuple[Size, ...], Groups, Groups] | None:
        """The sizes of all atoms and the groups of both sides, for a tensor of this shape and names that may be sizes in scope. None where that
        cannot be told at sight."""
        rest = len(shape) - len(self.source) + (self.rest >= 0)
        if rest < 0 or rest and self.rest < 0:
            return None
        pairs: list[tuple[Axis, Any]] = list(zip(self.source, shape))
        if self.rest >= 0:
            pairs[self.rest :] = zip(self.source[self.rest :], (shape[self.rest : self.rest + rest], *shape[self.rest + rest :]))
        found: dict[str, Any] = {}
        for axis, size in pairs:
            if isinstance(axis, str):
                known = names.get(axis, size)
                if known is not size and (known.__class__ is not int or size.__class__ is not int or known != size):
                    return None
                found[axis] = size
        for axis, size in pairs:
            if isinstance(axis, tuple) and not _factors(axis, size, names, found):
                return None
        sizes: list[Any] = []
        for axis, size in pairs:
            if axis is None:
                sizes += size
            else:
                sizes += [size] if isinstance(axis, str) else [found[n] for n in axis]
        return tuple([shapes.normal(s) for s in sizes]), *self.groups(rest)


def _factors(axis: tuple[str, ...], size: Any, names: dict[str, Any], found: dict[str, Any]) -> bool:
    """Adds the factors of an axis to what was found, where at most one is new and the others are numbers."""
    product: Any = 1
    new: str | None = None
    for name in axis:
        known: Any = found.get(name, names.get(name))
        if known is None and name not in names:
            if new is not None:
                return False
            new = name
        elif known.__class__ is not int:
            return False
        else:
            product *= known
            found[name] = known
    if size.__class__ is not int or product < 1 or size % product or new is None and size != product:
        return False
    if new is not None:
        found[new] = size // product
    return True


def _spread(side: list[Axis], rest: int) -> list[tuple[str, ...]]:
    out: list[tuple[str, ...]] = []
    for axis in side:
        if axis is None:
            out += [(f"...{k}",) for k in range(rest)]
        else:
            out.append((axis,) if isinstance(axis, str) else axis)
    return out


def plain_layout(session: Session, node: tree.LayoutCall) -> PlainLayout | None:
    """The layout of a call, read when it is met first; None where it is of another kind."""
    known = session.layouts.get(id(node))
    if known is None or known[0] is not node:
        assert node.output is not None
        source, target = _side(node.inputs[0]), _side(node.output)
        plain = source is not None and target is not None and sorted(_names(source)) == sorted(_names(target))
        known = session.layouts[id(node)] = node, PlainLayout(source, target) if plain else None  # type: ignore[arg-type]
    return known[1]


def _side(shape: tree.Shape) -> list[Axis] | None:
    """The axes of one side; None where a number, an expression or a name twice stands there."""
    out: list[Axis] = []
    for axis in shape.axes:
        if type(axis) is tree.AxisName:
            out.append(axis.id)
        elif type(axis) is tree.AnyAxes:
            out.append(None)
        elif type(axis) is tree.AxisFactors and all(type(a) is tree.AxisName for a in axis.items):
            out.append(tuple([a.id for a in axis.items if isinstance(a, tree.AxisName)]))
        else:
            return None
    names = _names(out)
    return out if len(set(names)) == len(names) and "_" not in names else None


def _names(side: list[Axis]) -> list[str]:
    return [n for axis in side for n in (("...",) if axis is None else (axis,) if isinstance(axis, str) else axis)]


__all__ = ["PlainLayout", "plain_layout"]
