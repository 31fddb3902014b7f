"""Rules: views, cutting and joining, reading by position."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl import shapes
from archdsl.capture import layouts
from archdsl.capture.rules import RULES, aten, last_or_front
from archdsl.dims import Size
from archdsl.graph import Value
from archdsl.ops.registry import OpError

if TYPE_CHECKING:
    from archdsl.capture.translate import Translation


# ---------------------------------------------------------------- layout
@aten("view.default", "reshape.default", "_unsafe_view.default")
def _view(t: Translation, self: Value, size: Any = None, shape: Any = None) -> Any:
    return layouts.reshape(t.flat, self, list(size if size is not None else shape))


@aten("reshape_as.default", "view_as.default")
def _view_as(t: Translation, self: Value, other: Value) -> Any:
    return layouts.reshape(t.flat, self, list(other.shape))


@aten("slice_scatter.default")
def _slice_scatter(t: Translation, self: Value, src: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    """x with a part along an axis replaced."""
    if step != 1:
        raise OpError("a write at every second place has no op")
    axis, start = dim % len(self.shape), start or 0
    start = start + self.shape[axis] if type(start) is int and start < 0 else start
    after = layouts.sliced(t.flat, self, axis, start + src.shape[axis], None)
    parts = [layouts.sliced(t.flat, self, axis, 0, start)] if type(start) is not int or start else []
    parts += [src] + ([after] if after.shape[axis] != 0 else [])
    return parts[0] if len(parts) == 1 else t.flat.op("concat", tuple(t.alike(parts)), axis=last_or_front(len(self.shape), dim))


@aten("select_scatter.default")
def _select_scatter(t: Translation, self: Value, src: Value, dim: int, index: int) -> Any:
    return _slice_scatter(t, self, _unsqueeze(t, src, dim), dim, index % t.fixed(self.shape[dim], "an axis that is written to"))


@aten("copy.default")
def _copy(t: Translation, self: Value, src: Value) -> Any:
    return layouts.expand(t.flat, t.cast_like(src, self), list(self.shape))


@aten("flatten.using_ints")
def _flatten(t: Translation, self: Value, start_dim: int = 0, end_dim: int = -1) -> Any:
    n = len(self.shape)
    a, b = start_dim % max(n, 1), end_dim % max(n, 1)
    middle: Size = 1
    for s in self.shape[a:b + 1]:
        middle = middle * s
    return layouts.reshape(t.flat, self, [*self.shape[:a], middle, *self.shape[b + 1:]])


@aten("unflatten.int")
def _unflatten(t: Translation, self: Value, dim: int, sizes: list[Size]) -> Any:
    a = dim % len(self.shape)
    given = list(sizes)
    if -1 in given:
        others: Size = 1
        for s in given:
            others = others if type(s) is int and s == -1 else others * s
        rest = shapes.divide(self.shape[a], others)
        if rest is None:
            raise OpError(f"{self.shape[a]} is not known to be a multiple of {others}")
        given[given.index(-1)] = rest
    return layouts.reshape(t.flat, self, [*self.shape[:a], *given, *self.shape[a + 1:]])


@aten("permute.default")
def _permute(t: Translation, self: Value, dims: list[int]) -> Any:
    return layouts.permute(t.flat, self, list(dims))


@aten("transpose.int", "swapaxes.default", "swapdims.default")
def _transpose(t: Translation, self: Value, dim0: int = 0, dim1: int = 1, axis0: Any = None, axis1: Any = None) -> Any:
    n = len(self.shape)
    a, b = (dim0 if axis0 is None else axis0) % n, (dim1 if axis1 is None else axis1) % n
    order = list(range(n))
    order[a], order[b] = b, a
    return layouts.permute(t.flat, self, order)


@aten("t.default", "numpy_T.default", "adjoint.default", "mT.default", "matrix_H.default")
def _t(t: Translation, self: Value) -> Any:
    return layouts.swapped(t.flat, self) if len(self.shape) > 1 else self


@aten("movedim.int")
def _movedim(t: Translation, self: Value, source: int, destination: int) -> Any:
    n = len(self.shape)
    order = [i for i in range(n) if i != source % n]
    order.insert(destination % n, source % n)
    return layouts.permute(t.flat, self, order)


@aten("unsqueeze.default")
def _unsqueeze(t: Translation, self: Value, dim: int) -> Any:
    n = len(self.shape)
    groups = [[i] for i in range(n)]
    outs = [list(g) for g in groups]
    outs.insert(dim % (n + 1), [])
    return layouts.rearrange(t.flat, self, list(self.shape), groups, outs)


@aten("squeeze.dim", "squeeze.dims", "squeeze.default")
def _squeeze(t: Translation, self: Value, dim: Any = None) -> Any:
    n = len(self.shape)
    chosen = range(n) if dim is None else [d % n for d in (dim if isinstance(dim, (list, tuple)) else [dim])]
    gone = {d for d in chosen if self.shape[d] == 1}
    return layouts.rearrange(t.flat, self, list(self.shape), [[] if i in gone else [i] for i in range(n)], [[i] for i in range(n) if i not in gone])


@aten("expand.default", "expand_as.default", "broadcast_to.default")
def _expand(t: Translation, self: Value, size: Any = None, other: Any = None) -> Any:
    return layouts.expand(t.flat, self, list(size if size is not None else other.shape))


@aten("repeat.default")
def _repeat(t: Translation, self: Value, repeats: list[Size]) -> Any:
    """Each axis, new ones in front, several times one after another: a new atom outside of it."""
    new = len(repeats) - len(self.shape)
    sizes = [*self.shape, *repeats]
    n = len(self.shape)
    outs = [[n + k, *([k - new] if k >= new else [])] for k in range(len(repeats))]
    return layouts.rearrange(t.flat, self, list(sizes), [[i] for i in range(n)], outs)


@aten("repeat_interleave.self_int")
def _repeat_interleave(t: Translation, self: Value, repeats: int, dim: int) -> Any:
    n = len(self.shape)
    return layouts.rearrange(t.flat, self, [*self.shape, repeats], [[i] for i in range(n)], [[i, n] if i == dim % n else [i] for i in range(n)])


@aten("slice.Tensor")
def _slice(t: Translation, self: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return layouts.sliced(t.flat, self, dim % len(self.shape), start, end, step)


@aten("narrow.default")
def _narrow(t: Translation, self: Value, dim: int, start: Any, length: Any) -> Any:
    return layouts.sliced(t.flat, self, dim % len(self.shape), start, start + length)


@aten("select.int")
def _select(t: Translation, self: Value, dim: int, index: Any) -> Any:
    return layouts.selected(t.flat, self, dim % len(self.shape), index)


@aten("unbind.int")
def _unbind(t: Translation, self: Value, dim: int = 0) -> Any:
    axis, names, parts = dim % len(self.shape), t.flat.name.split(","), list[Any]()
    for i in range(t.fixed(self.shape[axis], "an axis to take apart")):
        t.flat.name = names[i].strip() if i < len(names) else ""
        parts.append(layouts.selected(t.flat, self, axis, i))
    return tuple(parts)


@aten("split.Tensor", "split.sizes", "split_with_sizes.default")
def _split(t: Translation, self: Value, split_size: Any = None, split_sizes: Any = None, dim: int = 0) -> Any:
    axis = dim % len(self.shape)
    sizes = split_sizes
    if sizes is None:
        n, part = t.fixed(self.shape[axis], "an axis to split"), t.fixed(split_size, "the size of a part")
        sizes = [min(part, n - at) for at in range(0, n, part)]
    found = t.flat.op("split", self, sizes=tuple(sizes), axis=last_or_front(len(self.shape), dim))
    return found if isinstance(found, tuple) else (found,)


RULES["split.sizes"] = lambda t, self, split_size, dim=0: _split(t, self, split_sizes=split_size, dim=dim)


@aten("chunk.default", "tensor_split.sections")
def _chunk(t: Translation, self: Value, chunks: int = 1, sections: Any = None, dim: int = 0) -> Any:
    count = chunks if sections is None else sections
    n = t.fixed(self.shape[dim], "an axis to split")
    return _split(t, self, -(-n // count), None, dim) if sections is None or n % count == 0 else _uneven(count)


def _uneven(count: int) -> Any:
    raise OpError(f"an axis that {count} does not divide")


@aten("cat.default")
def _cat(t: Translation, tensors: list[Value], dim: int = 0) -> Any:
    kept = [x for x in tensors if not (len(x.shape) == 1 and x.shape[0] == 0)]
    return kept[0] if len(kept) == 1 else t.flat.op("concat", tuple(t.alike(kept)), axis=last_or_front(len(kept[0].shape), dim))


@aten("stack.default")
def _stack(t: Translation, tensors: list[Value], dim: int = 0) -> Any:
    return t.flat.op("stack", tuple(t.alike(tensors)), axis=dim)


@aten("meshgrid.default", "meshgrid.indexing")
def _meshgrid(t: Translation, tensors: list[Value], indexing: str = "ij") -> Any:
    n = len(tensors)
    order = [1, 0, *range(2, n)] if indexing == "xy" and n > 1 else list(range(n))
    sizes = [tensors[i].shape[0] for i in order]
    rows = [layouts.rearrange(t.flat, x, [x.shape[0]], [[0]], [[0] if order[k] == i else [] for k in range(n)]) for i, x in enumerate(tensors)]
    return tuple(layouts.expand(t.flat, x, list(sizes)) for x in rows)


@aten("pad.default", "constant_pad_nd.default")
def _pad(t: Translation, self: Value, pad: list[Size], mode: str = "constant", value: Any = None) -> Any:
    n = len(self.shape)
    widths: list[tuple[Size, Size]] = [(0, 0)] * n
    for k in range(len(pad) // 2):
        widths[n - 1 - k] = (pad[2 * k], pad[2 * k + 1])
    return self if all(w == (0, 0) for w in widths) else t.flat.op("pad", self, widths=tuple(widths), mode=mode, value=value or 0)


@aten("roll.default")
def _roll(t: Translation, self: Value, shifts: list[int], dims: list[int] = ()) -> Any:  # type: ignore[assignment]
    if not dims:
        raise OpError("a roll of the flattened tensor has no op")
    one = len(dims) == 1
    return t.flat.op("roll", self, shifts=shifts[0] if one else tuple(shifts), axes=dims[0] if one else tuple(dims))


@aten("flip.default")
def _flip(t: Translation, self: Value, dims: list[int]) -> Any:
    return t.flat.op("flip", self, axes=tuple(dims) if len(dims) > 1 else dims[0])


@aten("diff.default")
def _diff(t: Translation, self: Value, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Any:
    axis = dim % len(self.shape)
    parts = tuple(x for x in (prepend, self, append) if x is not None)
    x = parts[0] if len(parts) == 1 else t.flat.op("concat", parts, axis=last_or_front(len(self.shape), dim))
    for _ in range(n):
        x = t.flat.op("sub", layouts.sliced(t.flat, x, axis, 1, None), layouts.sliced(t.flat, x, axis, 0, x.shape[axis] - 1))
    return x


# ---------------------------------------------------------------- positions
@aten("index.Tensor")
def _index(t: Translation, self: Value, indices: list[Any]) -> Any:
    given = [(axis, i) for axis, i in enumerate(indices) if i is not None]
    if len(given) == 1 and given[0][1].dtype != "bool":
        axis, index = given[0]
        return t.flat.op("take", self, _from_front(t, index, self.shape[axis]), axis=axis)
    return NotImplemented


def _from_front(t: Translation, index: Value, n: Size) -> Value:
    """A written index that counts from the end, counted from the front."""
    if index.node.op != "literal" or type(n) is not int:
        return index

    def front(v: Any) -> Any:
        return tuple(front(w) for w in v) if isinstance(v, tuple) else v + n if v < 0 else v

    return t.flat.op("literal", value=front(index.node.attrs["value"]), dtype=index.dtype)


@aten("index_select.default")
def _index_select(t: Translation, self: Value, dim: int, index: Value) -> Any:
    return t.flat.op("take", self, index, axis=last_or_front(len(self.shape), dim))


@aten("gather.default")
def _gather(t: Translation, self: Value, dim: int, index: Value) -> Any:
    """Torch lets the other axes of the index be shorter; the op wants them equal."""
    axis = dim % len(self.shape)
    for k, n in enumerate(index.shape):
        self = self if k == axis else layouts.sliced(t.flat, self, k, 0, n)
    return t.flat.op("gather", self, index, axis=last_or_front(len(self.shape), dim))


@aten("embedding.default")
def _embedding(t: Translation, weight: Value, indices: Value) -> Any:
    t.tokens(indices, weight)
    return t.flat.op("embedding", indices, weight)


@aten("one_hot.default")
def _one_hot(t: Translation, self: Value, num_classes: int = -1) -> Any:
    if num_classes < 0:
        raise OpError("a one-hot of as many classes as the data shows has no fixed size")
    return t.flat.op("one_hot", self, n=num_classes)
