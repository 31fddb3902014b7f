"""Views as `rearrange`: reshapes, permutations and repeats written with the atoms that both sides share. No torch here."""
from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from archdsl import shapes
from archdsl.dims import Size, floordiv
from archdsl.graph import Node, Value
from archdsl.ops.registry import OpError
from archdsl.ops.rules import volume

if TYPE_CHECKING:
    from archdsl.capture.flat import Flat

Groups = list[list[int]]


def reshape(flat: Flat, x: Value, target: list[Size]) -> Value:
    """x in row-major order as `target`, where one size may be -1. Raises OpError where the sizes are not known to fit."""
    out = _solved(x.shape, target)
    split = _common(list(x.shape), out)
    if split is not None:
        return rearrange(flat, x, *split)
    merged, split = _regions(list(x.shape), out)
    middle = rearrange(flat, x, *_merging(x.shape, merged))
    return rearrange(flat, middle, *split)


def _solved(shape: tuple[Size, ...], target: list[Size]) -> list[Size]:
    """The target with -1 replaced by what is left."""
    if not any(type(s) is int and s == -1 for s in target):
        return [shapes.normal(s) for s in target]
    at = next(i for i, s in enumerate(target) if type(s) is int and s == -1)
    whole, others = volume(shape), volume(s for i, s in enumerate(target) if i != at)
    rest = shapes.divide(whole, others)
    if rest is None:
        raise _misfit(shape, target, whole, others * floordiv(whole, others))
    return [shapes.normal(rest if i == at else s) for i, s in enumerate(target)]


def _misfit(shape: Any, target: Any, whole: Size, wanted: Size) -> OpError:
    """What the numbers of elements lack to be equal."""
    told = f"[{', '.join(map(str, shape))}] is not known to fit [{', '.join(map(str, target))}]"
    return OpError(told, require=shapes.facts().suggest(whole, wanted))


def _one(s: Size) -> bool:
    return type(s) is int and s == 1


def _common(shape: list[Size], out: list[Size]) -> tuple[list[Size], Groups, Groups] | None:
    """(sizes, ins, outs) of a rearrange that only splits and merges, or None where the cuts do not nest."""
    sizes: list[Size] = []
    ins: Groups = [[] for _ in shape]
    outs: Groups = [[] for _ in out]
    left = [(i, s) for i, s in enumerate(shape) if not _one(s)]
    right = [(j, s) for j, s in enumerate(out) if not _one(s)]
    while left and right:
        (i, a), (j, b) = left.pop(0), right.pop(0)
        if shapes.same(a, b) is True:
            atom: Size = a
        elif (rest := shapes.divide(a, b)) is not None:
            atom = b
            left.insert(0, (i, rest))
        elif (rest := shapes.divide(b, a)) is not None:
            atom = a
            right.insert(0, (j, rest))
        else:
            return None
        ins[i].append(len(sizes))
        outs[j].append(len(sizes))
        sizes.append(shapes.normal(atom))
    return (sizes, ins, outs) if not left and not right else None


def _regions(shape: list[Size], out: list[Size]) -> tuple[Groups, tuple[list[Size], Groups, Groups]]:
    """Where cuts do not nest: the input axes to merge first, and the split of what they become."""
    regions: Groups = []
    i = j = 0
    while i < len(shape) or j < len(out):
        start, a, b = i, 1, 1
        a, i = (shape[i], i + 1) if i < len(shape) else (1, i)
        b, j = (out[j], j + 1) if j < len(out) else (1, j)
        while shapes.same(a, b) is not True:
            if i < len(shape) and (shapes.divide(b, a) is not None or j == len(out)):
                a, i = a * shape[i], i + 1
            elif j < len(out):
                b, j = b * out[j], j + 1
            elif i < len(shape):
                a, i = a * shape[i], i + 1
            else:
                raise _misfit(shape, out, volume(shape), volume(out))
        regions.append(list(range(start, i)))
    merged = [r for r in regions if r]
    split = _common([volume(shape[k] for k in r) for r in merged], out)
    if split is None:
        raise _misfit(shape, out, volume(shape), volume(out))
    return merged, split


def _merging(shape: tuple[Size, ...], groups: Groups) -> tuple[list[Size], Groups, Groups]:
    sizes = list(shape)
    return sizes, [[i] for i in range(len(sizes))], groups


# ---------------------------------------------------------------- the op
def permute(flat: Flat, x: Value, order: list[int]) -> Value:
    """The axes of x in another order."""
    n = len(x.shape)
    return rearrange(flat, x, list(x.shape), [[i] for i in range(n)], [[a % n] for a in order])


def expand(flat: Flat, x: Value, target: list[Size]) -> Value:
    """x repeated along axes of size 1 and new leading ones; -1 keeps an axis."""
    new = len(target) - len(x.shape)
    sizes: list[Size] = []
    ins: Groups = []
    outs: Groups = []
    for k, wanted in enumerate(target):
        have = x.shape[k - new] if k >= new else None
        keep = type(wanted) is int and wanted == -1 or have is not None and shapes.same(have, wanted) is True
        sizes.append(have if keep else shapes.normal(wanted))  # type: ignore[arg-type]
        if have is not None:
            ins.append([k] if keep else [])
        outs.append([k])
    return rearrange(flat, x, sizes, ins, outs)


def rearrange(flat: Flat, x: Value, sizes: list[Size], ins: Groups, outs: Groups) -> Value:
    """The node, joined with a rearrange that x comes from, in the numbering of the language; x itself where nothing changes."""
    before = x.node if x.node.op == "rearrange" else None
    joined = _joined(before, sizes, ins, outs) if before is not None else None
    if before is not None and joined is not None:
        whole = _tidy(*joined)
        if whole[1] == whole[2]:
            return before.args[0]
        if flat.scopes[id(before)] == flat.at:  # a module's own view stays in it
            x, (sizes, ins, outs) = before.args[0], whole
    sizes, ins, outs = _tidy(sizes, ins, outs)
    if ins == outs:
        return x
    return flat.op("rearrange", x, sizes=tuple(sizes), ins=tuple(map(tuple, ins)), outs=tuple(map(tuple, outs)))


def _tidy(sizes: list[Size], ins: Groups, outs: Groups) -> tuple[list[Size], Groups, Groups]:
    """Atoms of size 1 left out, neighbours on both sides joined, numbered as they are met."""
    ins = [[a for a in g if not _one(sizes[a])] for g in ins]
    outs = [[a for a in g if not _one(sizes[a])] for g in outs]
    sizes = list(sizes)
    while True:
        after = {p for h in outs for p in pairwise(h)}
        pair = next((p for g in ins for p in pairwise(g) if p in after), None)
        if pair is None:
            break
        a, b = pair
        sizes[a] = shapes.normal(sizes[a] * sizes[b])
        ins, outs = ([[c for c in g if c != b] for g in side] for side in (ins, outs))
    order = list(dict.fromkeys(a for g in (*ins, *outs) for a in g))
    number = {a: i for i, a in enumerate(order)}
    return [sizes[a] for a in order], *([[number[a] for a in g] for g in side] for side in (ins, outs))  # type: ignore[return-value]


def _joined(before: Node, sizes: list[Size], ins: Groups, outs: Groups) -> tuple[list[Size], Groups, Groups] | None:
    """Two rearranges as one, over atoms that refine both; None where the cuts of the axes between them do not nest."""
    first: list[Size] = list(before.attrs["sizes"])
    parts1: dict[int, list[int]] = {}
    parts2: dict[int, list[int]] = {}
    atoms: list[Size] = []
    for g1, g2 in zip(before.attrs["outs"], ins):
        split = _common([first[a] for a in g1], [sizes[a] for a in g2])
        if split is None:
            return None
        found, cut1, cut2 = split
        base = len(atoms)
        atoms += found
        parts1.update({a: [base + k for k in c] for a, c in zip(g1, cut1)})
        parts2.update({a: [base + k for k in c] for a, c in zip(g2, cut2)})
    for a in {a for g in before.attrs["ins"] for a in g} - parts1.keys():  # size 1, left out by the first
        parts1[a] = []
    for a in {a for g in outs for a in g} - parts2.keys():  # new in the second
        parts2[a] = [len(atoms)]
        atoms.append(sizes[a])
    whole_in = [[p for a in g for p in parts1[a]] for g in before.attrs["ins"]]
    whole_out = [[p for a in g for p in parts2[a]] for g in outs]
    return atoms, whole_in, whole_out


def swapped(flat: Flat, x: Value) -> Value:
    """x with its last two axes exchanged."""
    n = len(x.shape)
    return permute(flat, x, [*range(n - 2), n - 1, n - 2])


def sliced(flat: Flat, x: Value, axis: int, start: Any, stop: Any, step: int = 1) -> Value:
    """x[start:stop:step] along an axis; x itself where that is all of it."""
    n = x.shape[axis]
    start = None if type(start) is int and (start == 0 or type(n) is int and start <= -n) else start
    whole = stop is None or type(stop) is int and (stop >= 2**62 or type(n) is int and stop >= n) or shapes.same(stop, n) is True
    stop = None if whole else stop
    if start is None and stop is None and step == 1:
        return x
    item = ("slice", start, stop, None if step == 1 else step)
    return flat.op("slice", x, items=(("slice", None, None, None),) * axis + (item,))


def selected(flat: Flat, x: Value, axis: int, index: Any) -> Value:
    """x[index] along an axis, which goes."""
    return flat.op("slice", x, items=(("slice", None, None, None),) * axis + (("int", index),))
