"""Kernels of `linear_attention` and of `ssd`: one family, whose memory fades by one number for each head and position (`scalar_decay.py`)."""
# pyright: reportCallIssue=false, reportArgumentType=false
# (a kernel's operands are tensors of its own language, and its launch takes more than its signature)
from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from archdsl.dims import Size
from archdsl.kernels.bindings import Types, fixed, kernel
from archdsl.lazy import torch
from archdsl.records import record

WIDEST = 512
"""Numbers of a key or a value of one head. `_one` holds a whole key of the memory."""
CHUNK = 64
"""Positions whose mutual influence is one product of matrices."""


class Tile(NamedTuple):
    """Numbers of keys and values that one program holds, its warps, how many loads are under way, and the most registers of a thread (None: 255)."""

    keys: int
    values: int
    warps: int
    stages: int
    registers: int | None = None


TILES: dict[str, dict[str, Tile]] = {
    "sm_90": {"states": Tile(128, 128, 4, 3), "outputs": Tile(64, 128, 4, 3), "queries": Tile(128, 64, 4, 3), "values": Tile(64, 64, 8, 3, 128)},
}
"""Of 16-bit operands, pinned by card: nothing is tried out at run time. A card without an entry has those of the first. With 128 registers two
programs of 8 warps share a multiprocessor."""
WIDE_TILES = {"states": Tile(32, 32, 4, 2), "outputs": Tile(32, 64, 4, 2), "queries": Tile(32, 32, 8, 2), "values": Tile(32, 32, 4, 2)}
"""Of float32 operands, and of float16 ones, whose memories are float32."""
WIDE_CHUNK = 32
LONGEST = 65_535 * WIDE_CHUNK
"""Positions: chunks are counted along an axis of the grid that CUDA limits."""


@record(slots=False)
class Heads:
    """One call: q and k [B, groups, T, K], v [B, H, T, V], the last axis without gaps; g, w [B, H, T], skip [H], memory [B, H, K, V] in float32, or
    [B, H, V, K] where it is `turned`; None for what is absent. `gated`: the gradient of g is wanted."""

    q: Any
    k: Any
    v: Any
    g: Any
    w: Any
    skip: Any
    memory: Any
    turned: bool
    scale: float
    gated: bool = True

    def __post_init__(self) -> None:
        self.q, self.k, self.v = (x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous() for x in (self.q, self.k, self.v))
        self.memory, self.skip = (None if x is None else x.contiguous() for x in (self.memory, self.skip))
        self.scale = float(self.scale)  # Triton compiles a whole number of 1 into a kernel of its own
        self.batch, self.heads, self.length, self.wide = self.v.shape
        self.deep, self.each = self.q.shape[-1], self.heads // self.q.shape[1]
        half = self.v.dtype == torch.bfloat16
        self.chunk = min(CHUNK if half else WIDE_CHUNK, max(16, _power(self.length)))
        self.tiles = _tiles(self.v.device) if half else WIDE_TILES
        self.chunks = -(-self.length // self.chunk)

    def settings(self, name: str) -> dict[str, Any]:
        """What a kernel is compiled for. Products of wider types than bfloat16 are made of parts that are computed in registers."""
        from archdsl.kernels.chunks import generation

        tile = self.tiles[name]
        wide = self.v.dtype == torch.float32
        return {"K": self.deep, "V": self.wide, "BT": self.chunk, "BK": min(tile.keys, max(16, _power(self.deep))),
                "BV": min(tile.values, max(16, _power(self.wide))), "HAS_G": self.g is not None, "HAS_W": self.w is not None, "WIDE": wide,
                "PRECISION": "tf32x3" if wide else "tf32", "num_warps": tile.warps, "num_stages": tile.stages,
                **({} if tile.registers is None else {"maxnreg": tile.registers}), **({} if self.v.dtype == torch.bfloat16 else generation())}

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.length, self.heads, self.each, self.chunks

    @property
    def gates(self) -> tuple[int, ...]:
        """The strides of g and w."""
        return (*_strides(self.g, 3), *_strides(self.w, 3))

    def memories(self, x: Any, y: Any, first: Any, back: bool) -> tuple[Any, Any]:
        """The memories in front of all chunks, or the gradients of those behind them (`back`), and what is left at the other end."""
        from archdsl.kernels.scalar_decay import _states

        dtype = torch.bfloat16 if self.v.dtype == torch.bfloat16 else torch.float32
        kept = torch.empty(self.batch, self.heads, self.chunks, self.deep, self.wide, dtype=dtype, device=x.device)
        axes = (self.wide, self.deep) if self.turned else (self.deep, self.wide)
        last = torch.empty(self.batch, self.heads, *axes, dtype=torch.float32, device=x.device)
        s = self.settings("states")
        s["HAS_W"] = s["HAS_W"] and not back  # a gradient behind a chunk knows nothing of what the chunk writes
        grid = (self.batch * self.heads, -(-self.deep // s["BK"]), -(-self.wide // s["BV"]))
        _states[grid](x, y, self.g, self.w, first, kept, last, self.scale, *self.sizes, *_strides(x, 3), *_strides(y, 3), *self.gates,
                      BACK=back, TURNED=self.turned, HAS_FIRST=first is not None, **s)
        return kept, last

    def forward(self, out: Any) -> Any:
        """Fills out, [B, H, T, V]; gives the new memory."""
        states, last = self.memories(self.k, self.v, self.memory, False)
        self.outputs(states, out)
        return last

    def outputs(self, states: Any, out: Any) -> None:
        """Fills out from the memories in front of the chunks."""
        from archdsl.kernels.scalar_decay import _outputs

        s = self.settings("outputs")
        grid = (self.batch * self.heads, self.chunks, -(-self.wide // s["BV"]))
        _outputs[grid](self.q, self.k, self.v, self.g, self.w, self.skip, states, out, self.scale, *self.sizes, *_strides(self.q, 3),
                       *_strides(self.k, 3), *_strides(self.v, 3), *self.gates, *_strides(out, 3), HAS_SKIP=self.skip is not None, **s)

    def backward(self, dy: Any, later: Any, dq: Any, dk: Any, dv: Any) -> tuple[Any, Any, Any, Any]:
        """Fills the gradients, of the shapes of q, k, v and with a last axis without gaps, from that of y and of the new memory (None: zeros). Gives
        those of g, of w (of what is multiplied with it), of skip at each position, and of the memory; None where there is nothing."""
        dy = dy if dy.stride(-1) == 1 or dy.shape[-1] == 1 else dy.contiguous()
        states, _ = self.memories(self.k, self.v, self.memory, False)
        grads, first = self.memories(self.q, dy, None if later is None else later.contiguous(), True)
        self.queries(dy, states, grads, dq, dk)
        dg, dw, dskip = self.values(dy, states, grads, dv)
        return dg, dw, dskip, first

    def queries(self, dy: Any, states: Any, grads: Any, dq: Any, dk: Any) -> None:
        """Fills dq and dk from the memories in front of the chunks and the gradients of those behind them."""
        from archdsl.kernels.scalar_decay import _keys_back, _queries_back

        s, parts = self.settings("queries"), self._parts()
        grid = (self.batch * self.q.shape[1] * parts, self.chunks, -(-self.deep // s["BK"]))
        for x, other, run, memories in ((dq, self.k, _queries_back, states), (dk, self.q, _keys_back, grads)):
            into = x[None] if parts == 1 else x.new_empty(parts, *x.shape, dtype=torch.float32)
            run[grid](other, self.v, dy, self.g, self.w, memories, into, self.scale, *self.sizes, parts, *_strides(other, 3), *_strides(self.v, 3),
                      *_strides(dy, 3), *self.gates, *_strides(into, 4), **s)
            if parts > 1:
                x.copy_(into.sum(0))

    def values(self, dy: Any, states: Any, grads: Any, dv: Any) -> tuple[Any, Any, Any]:
        """Fills dv; gives the gradients of g, of w and of skip, None where there is none."""
        from archdsl.kernels.scalar_decay import _values_back

        s = self.settings("values")
        blocks = -(-self.wide // s["BV"])
        wanted = self.g is not None and self.gated
        made = [self._sums(dy, blocks) if some else None for some in (wanted, self.w is not None, self.skip is not None)]
        _values_back[(self.batch * self.heads, self.chunks, blocks)](
            self.q, self.k, self.v, dy, self.g, self.w, self.skip, states, grads, dv, *made, self.scale, *self.sizes, *_strides(self.q, 3),
            *_strides(self.k, 3), *_strides(self.v, 3), *_strides(dy, 3), *self.gates, *_strides(dv, 3),
            *_strides(next((x for x in made if x is not None), None), 4), HAS_SKIP=self.skip is not None, WANTED=wanted, **s)
        dg, dw, dskip = (None if x is None else _summed(x) for x in made)
        return dg, dw, dskip

    def _sums(self, like: Any, blocks: int) -> Any:
        """Room for a number of each position, from each of some blocks."""
        return like.new_empty(blocks, self.batch, self.heads, self.length, dtype=torch.float32)

    def _parts(self) -> int:
        """Into how many parts the heads of a group are cut, so that there are programs for a whole card."""
        programs, parts = self.batch * self.q.shape[1] * self.chunks, 1
        while programs * parts < 1024 and parts < self.each and self.each % (2 * parts) == 0:
            parts *= 2
        return parts

    def step(self, out: Any) -> Any:
        """One position: fills out, [B, H, 1, V], and gives the new memory."""
        from archdsl.kernels.scalar_decay import _one

        last = torch.empty_like(self.memory)
        deep = max(16, _power(self.deep))
        values = min(max(16, _power(self.wide)), max(16, 4096 // deep))
        _one[(self.batch * self.heads, -(-self.wide // values))](
            self.q, self.k, self.v, self.g, self.w, self.skip, self.memory, out, last, self.scale, self.heads, self.each, *_strides(self.q, 2),
            *_strides(self.k, 2), *_strides(self.v, 2), *_strides(self.g, 2), *_strides(self.w, 2), *_strides(out, 2), K=self.deep, V=self.wide,
            BK=deep, BV=values, TURNED=self.turned, HAS_G=self.g is not None, HAS_W=self.w is not None, HAS_SKIP=self.skip is not None, num_warps=4)
        return last


@cache
def _tiles(device: Any) -> dict[str, Tile]:
    card = "sm_{}{}".format(*torch.cuda.get_device_capability(device)) if device.type == "cuda" else ""
    return TILES.get(card) or next(iter(TILES.values()))


def _summed(blocks: Any) -> Any:
    return blocks[0] if len(blocks) == 1 else blocks.sum(0)


def _strides(x: Any, axes: int) -> tuple[int, ...]:
    return (0,) * axes if x is None else tuple(x.stride())[:axes]


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _rows(x: Any, axes: int) -> Any:
    """[..., and the last axes] with one axis in front of them; a view where it can be. None stays None."""
    if x is None:
        return None
    return x[None] if x.ndim == axes else x.flatten(0, x.ndim - axes - 1)


def _narrow(length: Size, wide: dict[str, int | None]) -> str | None:
    if (n := fixed(length)) is not None and n > LONGEST:
        return f"there are {n:,} positions, and {LONGEST:,} is the most"
    for name, size in wide.items():
        if size is not None and size > WIDEST:
            return f"the {name} are {size} wide, and {WIDEST} is the most"
    return None


# ---------------------------------------------------------------- linear attention
def _attends(types: Types, attributes: Mapping[str, Any]) -> str | None:
    q, v = types["q"], types["v"]
    assert q is not None and v is not None
    leads = {name: t.shape[:-2 + (name == "decay")] for name, t in types.items() if t is not None and name != "memory"}
    if len(set(leads.values())) > 1:
        return "its operands differ in the axes in front"
    mixed = {t.dtype for name, t in types.items() if t is not None and name in "qkv"}
    if len(mixed) > 1:
        return f"q, k and v are of the types {', '.join(sorted(mixed))}"
    return _narrow(q.shape[-2], {"keys": fixed(q.shape[-1]), "values": fixed(v.shape[-1])})


@kernel("linear_attention", "triton", dtypes=("bf16", "f16", "f32"), fits=_attends)
class LinearAttention:
    """Chunks of 64 positions: memories in front of them in one walk over the chunks, then all chunks at once (arxiv 2405.21060, section 6)."""

    @staticmethod
    def forward(q: Any, k: Any, v: Any, decay: Any, memory: Any, *, scale: float) -> tuple[Any, Any]:
        y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        last = _heads(q, k, v, decay, memory, scale).forward(_headed(y))
        return y, last.view(*v.shape[:-2], q.shape[-1], v.shape[-1])

    asks = True

    @staticmethod
    def gradient(dy: Any, later: Any, q: Any, k: Any, v: Any, decay: Any, memory: Any, *, scale: float, needs: Any = None) -> tuple[Any, ...]:
        call = _heads(q, k, v, decay, memory, scale)
        call.gated = needs is None or needs[3]
        dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        dg, _, _, first = call.backward(_headed(dy), later, *map(_headed, (dq, dk, dv)))
        return dq, dk, dv, None if dg is None else dg.view(decay.shape), None if memory is None else first.view(memory.shape)

    @staticmethod
    def packed(q: Any, k: Any, v: Any, decay: Any, documents: Any, *, scale: float) -> tuple[Any, ...]:
        return LinearAttention.forward(q, k, v, _begun(decay, documents, q), None, scale=scale)[:1]

    @staticmethod
    def packed_gradient(dy: Any, q: Any, k: Any, v: Any, decay: Any, documents: Any, *, scale: float) -> tuple[Any, ...]:
        needs = (True, True, True, decay is not None)
        return LinearAttention.gradient(dy, None, q, k, v, _begun(decay, documents, q), None, scale=scale, needs=needs)[:4]

    @staticmethod
    def step(q: Any, k: Any, v: Any, decay: Any, memory: Any, *, scale: float) -> tuple[Any, Any]:
        y = torch.empty(v.shape, dtype=v.dtype, device=v.device)
        return y, _heads(q, k, v, decay, memory, scale).step(_headed(y)).view(memory.shape)


def _begun(decay: Any, documents: Any, like: Any) -> Any:
    """The decays, [..., T], with nothing left of the memory where a document begins."""
    g = torch.zeros(like.shape[:-1], dtype=torch.float32, device=like.device) if decay is None else decay
    return g.masked_fill(_first(documents), -torch.inf)


def _first(documents: Any) -> Any:
    """Whether a position is the first of its document, [T]."""
    return torch.cat([torch.ones_like(documents[:1], dtype=torch.bool), documents[1:] != documents[:-1]])


def _headed(x: Any) -> Any:
    """[..., T, c] as [B, H, T, c]."""
    return x[None, None] if x.ndim == 2 else _rows(x, 3)


def _heads(q: Any, k: Any, v: Any, decay: Any, memory: Any, scale: float) -> Heads:
    g = None if decay is None else decay[None, None] if decay.ndim == 1 else _rows(decay, 2)
    return Heads(_headed(q), _headed(k), _headed(v), g, None, None, memory, False, scale)


# ---------------------------------------------------------------- Mamba-2
def _scans(types: Types, attributes: Mapping[str, Any]) -> str | None:
    x, b = types["x"], types["b"]
    assert x is not None and b is not None
    mixed = {t.dtype for name, t in types.items() if t is not None and name in "xbc"}
    if len(mixed) > 1:
        return f"x, b and c are of the types {', '.join(sorted(mixed))}"
    if x.shape[:-3] != b.shape[:-3]:
        return "its operands differ in the axes in front"
    return _narrow(x.shape[-3], {"channels of a head": fixed(x.shape[-1]), "numbers of the state": fixed(b.shape[-1])})


@kernel("ssd", "triton", dtypes=("bf16", "f16", "f32"), fits=_scans)
class Ssd:
    """Linear attention with queries c, keys b and values x, weighted by dt, and decays dt a (arxiv 2405.21060): heads of a group share c and b."""

    @staticmethod
    def forward(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any, documents: Any = None) -> tuple[Any, Any]:
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        last = _scan(x, dt, a, b, c, skip, memory, documents).forward(_apart(y))
        return y, last.view(*x.shape[:-3], x.shape[-2], x.shape[-1], b.shape[-1])

    @staticmethod
    def gradient(dy: Any, later: Any, x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any, documents: Any = None) -> tuple[Any, ...]:
        call = _scan(x, dt, a, b, c, skip, memory, documents)
        dx, db, dc = (torch.empty(v.shape, dtype=v.dtype, device=v.device) for v in (x, b, c))
        dlog, ddt, dskip, first = call.backward(_apart(dy), later, *map(_apart, (dc, db, dx)))
        assert dlog is not None and ddt is not None
        dlog, ddt = dlog.mT, ddt.mT  # [B, T, h]
        da = (dlog * _rows(dt, 2)).sum((0, 1))
        ddt = torch.addcmul(ddt, dlog, a)
        dskip = None if skip is None else dskip.sum((0, 2))
        return dx, ddt.reshape(dt.shape), da, db, dc, dskip, None if memory is None else first.view(memory.shape)

    @staticmethod
    def packed(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, documents: Any) -> tuple[Any, ...]:
        return Ssd.forward(x, dt, a, b, c, skip, None, documents)[:1]

    @staticmethod
    def packed_gradient(dy: Any, x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, documents: Any) -> tuple[Any, ...]:
        return Ssd.gradient(dy, None, x, dt, a, b, c, skip, None, documents)[:-1]

    @staticmethod
    def step(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any) -> tuple[Any, Any]:
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        return y, _scan(x, dt, a, b, c, skip, memory).step(_apart(y)).view(memory.shape)


def _apart(x: Any) -> Any:
    """[..., T, h, c] as [B, h, T, c]."""
    return _rows(x, 3).transpose(1, 2)


def _scan(x: Any, dt: Any, a: Any, b: Any, c: Any, skip: Any, memory: Any, documents: Any = None) -> Heads:
    w = _rows(dt, 2).mT
    g = w * a[:, None]
    g = g if documents is None else g.masked_fill(_first(documents), -torch.inf)
    return Heads(_apart(c), _apart(b), _apart(x), g, w, skip, memory, True, 1.0)
