"""Mamba-2's state space in chunks of positions: within a chunk products of matrices, between chunks a state that is carried. Both passes are written
out, a block of chunks at a time.

Shapes: k chunks in front, then the batch, then q positions of a chunk, g groups of r heads, p channels of a head and n numbers of the state for each
of them. States are [k, B, g, n, (r p)]: heads of a group stand side by side, so that they read and write in one product."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.lazy import torch
from archdsl.ops.gates import LOG2_E, length, padded
from archdsl.ops.recurrent import recurrent
from archdsl.ops.registry import OpError
from archdsl.ops.rules import floats, size, volume

CHUNK = 64
"""Positions that are computed by products of matrices, a power of two."""
BLOCK = 1024
"""Positions whose chunks are computed at a time: what they need between stays in the processor's cache."""
Product = Callable[..., Any]
FLOOR = -1100.0
"""2 to this power is 0 in every dtype: smaller logarithms would only cost digits of the sums that they are in."""


def _shared(x: TensorType, b: TensorType, **_: Any) -> None:
    """Groups share the heads evenly."""
    heads, groups = x.shape[-2], b.shape[-2]
    if groups == 0 or isinstance(heads, int) and isinstance(groups, int) and heads % groups:
        raise OpError(f"{heads} heads cannot share {groups} groups of `b` and `c` evenly", "b")


def _macs(x: TensorType, b: TensorType, **_: Any) -> Size:
    """Each position adds one outer product to each head's memory and reads it once."""
    return 2 * volume(x.shape) * b.shape[-1]


@recurrent("ssd(x: [..., T, h, p], dt: f32[..., T, h], a: f32[h], b: [..., T, g, n], c: [..., T, g, n], skip: f32[h]? = none) "
           "-> [..., T, h, p]", state={"memory": "f32[..., h, p, n]"}, roles={"n": "contract", "g": "grouped"}, macs=_macs, fit=_shared,
           source="arxiv 2405.21060, listing 1",
           samples=lambda: [
               {"x": floats(2, 5, 4, 3), "dt": floats(2, 5, 4, low=0.01, high=2), "a": floats(4, low=-3, high=-0.1), "b": floats(2, 5, 2, 6),
                "c": floats(2, 5, 2, 6), "skip": floats(4)},
               {"x": floats(1, 2, 1), "dt": floats(1, 2, low=0.1, high=1), "a": floats(2, low=-3, high=-1), "b": floats(1, 1, 3),
                "c": floats(1, 1, 3)},
               {"x": floats(67, 2, 2), "dt": floats(67, 2, low=0.01, high=30), "a": floats(2, low=-16, high=-0.01), "b": floats(67, 2, 1),
                "c": floats(67, 2, 1)}])
def ssd(x, dt, a, b, c, skip, memory):
    """Mamba-2's state space, one decay for each head, whose memory is p × n: memory ← exp(dt a) memory + dt x bᵀ, y = memory c + skip x. The heads
    share g groups of b and c, h / g in a row each. `dt` is positive (behind its softplus), `a` negative."""
    return scan(_times, x, dt, a, b, c, skip, memory)


def scan(times, x, dt, a, b, c, skip, memory):
    """`ssd` with the products of states by `times`: `_times` says what it gives."""
    blocks = _blocks(times, x, dt, a, b, c)
    y, room, last = _like(x, 3, blocks[0].q), _room(blocks[0], len(blocks[0].x)), _grouped(memory, b.shape[-2])
    for block in blocks:
        states, out = room[:len(block.x) + 1], block.heads(y)
        states[0] = last
        inner = block.pairs().mul_(block.scores()[:, :, :, None]) @ block.by_head(block.x, block.dt)
        block.read(states, inner.movedim(4, 2), out)
        if skip is not None:
            out.addcmul_(skip.view_as(block.a)[..., None], block.x)
        last = states[-1].clone()
    return _cut(y, x, 3), _ungrouped(last, memory)


@ssd.step
def one_position(x, dt, a, b, c, skip, memory):
    each = size(x, -2) // size(b, -2)
    b, c = b.repeat_interleave(each, -2), c.repeat_interleave(each, -2)
    memory = torch.exp(dt * a)[..., None, None] * memory + (dt[..., None] * x)[..., :, None] @ b[..., None, :]
    y = (memory @ c[..., :, None])[..., 0]
    return (y if skip is None else y + skip[:, None] * x), memory


@ssd.gradient
def _ssd_gradient(dy, later, x, dt, a, b, c, skip, memory):
    return scan_back(_times, dy, later, x, dt, a, b, c, skip, memory)


def scan_back(times, dy, later, x, dt, a, b, c, skip, memory):
    """The gradients of `scan`: the states once more, forwards; then their gradients, backwards."""
    blocks = _blocks(times, x, dt, a, b, c)
    q, many = blocks[0].q, len(blocks[0].x)
    states, room = _room(blocks[0], sum(len(block.x) for block in blocks)), _room(blocks[0], many)
    states[0] = _grouped(memory, b.shape[-2])
    fronts = [states[i * many:i * many + len(block.x) + 1] for i, block in enumerate(blocks)]
    written = [block.keys() for block in blocks]
    for block, own, keys in zip(blocks, fronts, written):
        block.carry(own, keys)
    dy, last = _rows(dy, 3, q), _grouped(later, b.shape[-2])
    dx, ddt, db, dc = (_like(v, n, q) for v, n in ((x, 3), (dt, 2), (b, 3), (c, 3)))
    da, dskip = torch.zeros_like(blocks[0].a, dtype=torch.float64), torch.zeros_like(blocks[0].a)
    for block, own, keys in reversed([*zip(blocks, fronts, written)]):
        g, grads = block.heads(dy), room[:len(block.x) + 1]
        grads[-1] = last
        du, dlog = _pull(block, g, own[:-1], keys, grads, block.chunks(db), block.chunks(dc))
        last = grads[0].clone()
        da += (dlog * block.dt).sum((0, 1, 2))
        torch.add((du * block.x).sum(-1), dlog * block.a, out=block.heads(ddt))
        torch.mul(du, block.dt[..., None], out=block.heads(dx))
        if skip is not None:
            block.heads(dx).addcmul_(skip.view_as(block.a)[..., None], g)
            dskip += (g * block.x).sum((0, 1, 2, -1))
    return (_cut(dx, x, 3), _cut(ddt, dt, 2), da.flatten().to(a.dtype), _cut(db, b, 3), _cut(dc, c, 3),
            None if skip is None else dskip.flatten(), _ungrouped(last, memory))


def _pull(block: _Block, g: Any, met: Any, keys: Any, grads: Any, db: Any, dc: Any) -> tuple[Any, Any]:
    """For gradients g of the results, [k, B, q, g, r, p], the states in front of the chunks, their `keys` and, in the last place of `grads`, the
    gradient of the last one: fills `grads`, db and dc. Gives the gradients of dt x, and those of the logarithms dt a in float64."""
    of_start, of_end, of_all, taken = block.carry_back(block.side_by_side(g, block.start), keys, grads, met, db, dc)
    of_end, of_all = (of_end * block.dt * block.end).double(), of_all * block.start[:, :, -1]
    pairs, scores, g = block.pairs(), block.scores(), g.movedim(2, 4).contiguous()
    weights = (g @ block.by_head(block.x, block.dt).mT).mul_(pairs)
    shared = weights.sum(3)
    db.add_((shared.mT @ block.c).transpose(2, 3))
    dc.add_((shared @ block.b).transpose(2, 3))
    ways = weights.mul_(scores.tril(-1)[:, :, :, None]).double()  # of what a position wrote nothing fades where it is
    between = of_start + (ways.sum(-1) - ways.sum(-2)).movedim(4, 2)  # in float64, for most of it cancels in what follows
    dlog = between.flip(2).cumsum(2).flip(2) + (of_end.cumsum(2) - of_end) + of_all[:, :, None]
    return torch.addcmul((pairs.mul_(scores[:, :, :, None]).mT @ g).movedim(4, 2), taken, block.end[..., None]), dlog


def _times(a: Any, b: Any, way: int) -> Any:
    """a b of matrices, [k, B, g, …, …], chunk by chunk as they are asked for, [B, g, …, …] each, from the first (1) or from the last (-1): what is
    used at once is still in the processor's cache."""
    return map(torch.matmul, a.unbind()[::way], b.unbind()[::way])


class _Block:
    """Chunks that are computed together. x is [k, B, q, g, r, p], dt [k, B, q, g, r], b and c are [k, B, g, q, n]. `start` is what is left at a
    position of the state in front of its chunk, `end` what is left at the end of the chunk of what the position wrote, [k, B, q, g, r]."""

    def __init__(self, times: Product, positions: slice, q: int, x: Any, dt: Any, a: Any, b: Any, c: Any):
        self.times, self.positions, self.q, self.groups = times, positions, q, b.shape[-2]
        self.x, self.dt, self.a = self.heads(x), self.heads(dt), a.unflatten(0, (self.groups, -1))
        self.b, self.c = self.chunks(b).transpose(2, 3), self.chunks(c).transpose(2, 3)
        self.log = (self.dt.double() * self.a * LOG2_E).clamp_(min=FLOOR).cumsum(2)
        self.start, self.end = (torch.exp2(v).to(x.dtype) for v in (self.log, self.log[:, :, -1:] - self.log))

    def chunks(self, v: Any) -> Any:
        """[B, T, …] at the positions of the block, as a view [k, B, q, …]."""
        return v[:, self.positions].unflatten(1, (-1, self.q)).movedim(1, 0)

    def heads(self, v: Any) -> Any:
        """The same of [B, T, h, …]: [k, B, q, g, r, …]."""
        return self.chunks(v).unflatten(3, (self.groups, -1))

    def by_head(self, v: Any, scale: Any) -> Any:
        """[k, B, q, g, r, p] times [k, B, q, g, r] as [k, B, g, r, q, p], in order in memory."""
        v = v.movedim(2, 4)
        return torch.mul(v, scale.movedim(2, 4)[..., None], out=v.new_empty(v.shape))

    def side_by_side(self, v: Any, scale: Any) -> Any:
        """The same as [k, B, g, q, (r p)]."""
        return (v * scale[..., None]).flatten(-2).transpose(2, 3)

    def by_position(self, v: Any) -> Any:
        """[…, B, g, q, (r p)] as […, B, q, g, r, p]."""
        return v.unflatten(-1, self.x.shape[-2:]).transpose(-4, -3)

    def pairs(self) -> Any:
        """What is left at position i of what position j wrote, [k, B, g, r, q (i), q (j)], 0 where i < j."""
        log = self.log.movedim(2, 4).contiguous()
        return (log[..., :, None] - log[..., None, :]).to(self.x.dtype).exp2_().tril_()

    def scores(self) -> Any:
        """[k, B, g, q (i), q (j)], the same for all heads of a group."""
        return self.c @ self.b.mT

    def keys(self) -> Any:
        """What each position leaves at the end of its chunk, [k, B, g, q, (r p)]."""
        return self.side_by_side(self.x, self.dt * self.end)

    def left(self) -> tuple[Any, ...]:
        """Of each chunk: what it leaves of a state, [B, g, 1, (r p)]."""
        return self.start[:, :, -1, :, :, None].expand(self.x[:, :, 0].shape).flatten(-2)[..., None, :].unbind()

    def carry(self, states: Any, keys: Any) -> None:
        """Of [k + 1, B, g, n, (r p)] fills all but the first: the states behind the chunks."""
        for _ in self.states(states, keys):
            pass

    def states(self, states: Any, keys: Any) -> Iterator[Any]:
        """`carry`, giving the state in front of each chunk, and then filling the next one."""
        each = states.unbind()
        for written, left, before, state in zip(self.times(self.b.mT, keys, 1), self.left(), each, each[1:]):
            torch.addcmul(written, left, before, out=state)
            yield before

    def read(self, states: Any, inner: Any, out: Any) -> None:
        """`carry`, and out = inner + start c · state of each position, [k, B, q, g, r, p]."""
        parts = zip(self.times(self.c, states[:-1], 1), inner.unbind(), self.start[..., None].unbind(), out.unbind())
        for _ in self.states(states, self.keys()):
            found, own, start, to = next(parts)
            torch.addcmul(own, self.by_position(found), start, out=to)

    def carry_back(self, read: Any, keys: Any, grads: Any, met: Any, db: Any, dc: Any) -> tuple[Any, ...]:
        """Fills all but the last of `grads`: the gradients of the states, whose results have the gradients `read`; and of db and dc what comes
        through the states `met` in front of the chunks. Gives three sums of products of numbers and their gradients, and gradients: of what is left
        of a state at each position, of what is left of each position at the end, [k, B, q, g, r], of what is left of a state at the end,
        [k, B, g, r]; of what positions write, [k, B, q, g, r, p]."""
        (k, batch, groups, _, wide), q, (each, p) = met.shape, self.q, self.x.shape[-2:]
        of_start, of_end = (met.new_empty(k, batch, q, groups, each) for _ in range(2))
        of_all, taken, room = met.new_empty(k, batch, groups, each), met.new_empty(k, batch, groups, q, wide), torch.empty_like(grads[0])
        after = grads[1:]
        products = (self.times(a, b, -1) for a, b in ((self.c.mT, read), (self.b, after), (keys, after.mT), (self.c, met), (read, met.mT)))
        lists = (v.unbind()[::-1] for v in (grads[:-1], after, met, read, self.x, of_start, of_end, of_all, taken, db, dc))
        for own, got, by_b, back, by_c, left, grad, later, state, g, x, start, end, total, to, b, c in zip(*products, self.left()[::-1], *lists):
            torch.addcmul(own, left, later, out=grad)
            torch.sum(torch.mul(later, state, out=room).unflatten(-1, (each, p)), (-3, -1), out=total)
            to.copy_(got)
            torch.sum(self.by_position(to) * x, -1, out=end)
            torch.sum(self.by_position(back.mul_(g)), -1, out=start)
            b.copy_(by_b.transpose(1, 2))
            c.copy_(by_c.transpose(1, 2))
        return of_start, of_end, of_all, self.by_position(taken)


def _blocks(times: Product, x: Any, dt: Any, a: Any, b: Any, c: Any) -> list[_Block]:
    q = length(x.shape[-3], CHUNK)
    x, dt, b, c = _rows(x, 3, q), _rows(dt, 2, q), _rows(b, 3, q), _rows(c, 3, q)
    step = q * max(1, BLOCK // q)
    return [_Block(times, slice(at, at + step), q, x, dt, a, b, c) for at in range(0, x.shape[1], step)]


def _rows(v: Any, axes: int, q: int) -> Any:
    """One axis for the batch, and whole chunks: time is the first of the last axes, and zeros behind the end change no state."""
    v = v.flatten(0, -axes - 1) if v.ndim > axes else v[None]
    missing = -v.shape[1] % q
    return padded(v, 0, missing, -axes) if missing else v


def _like(v: Any, axes: int, q: int) -> Any:
    """Room for the gradients of `_rows(v, axes, q)`, or for results of its shape."""
    n = v.shape[-axes]
    return v.new_empty(v.shape[:-axes].numel(), n + -n % q, *v.shape[v.ndim - axes + 1:])


def _cut(rows: Any, like: Any, axes: int) -> Any:
    """The first positions as many as `like` has, in its shape."""
    return rows[:, :like.shape[-axes]].reshape(like.shape)


def _grouped(memory: Any, groups: int) -> Any:
    """[..., h, p, n] as [B, g, n, (r p)]."""
    return (memory.flatten(0, -4) if memory.ndim > 3 else memory[None]).unflatten(1, (groups, -1)).flatten(2, 3).mT


def _ungrouped(state: Any, like: Any) -> Any:
    return state.mT.reshape(like.shape)


def _room(block: _Block, chunks: int) -> Any:
    """For states in front of chunks, and the last one."""
    _, batch, _, groups, each, p = block.x.shape
    return block.x.new_empty(chunks + 1, batch, groups, block.b.shape[-1], each * p)
