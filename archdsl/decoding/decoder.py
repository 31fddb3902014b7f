"""Decoding with nothing but device work: a step, the draw of the next token and the bookkeeping, recorded once, replayed for each token.

State, tokens and results lie in buffers that stay where they are; what the step gives anew is copied into them, caches are written in place.
Nothing in a step waits for the device, so a recording (on CUDA a graph of kernels) serves every position.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from archdsl.decoding.fuse import fuse, fuse_any
from archdsl.decoding.fuse_states import memories
from archdsl.decoding.ops import take
from archdsl.decoding.sampling import drawn
from archdsl.decoding.stages import Rewrite, Stage, staged
from archdsl.lower.forms import sibling
from archdsl.lower.state import State, device_of, row_axis
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule

COMPILE: dict[str, Any] = {"fullgraph": True, "dynamic": False}
FEW = 2
"""The most rows of which linear maps are joined: with more, products of matrices read the weights faster."""
EVERY = 8
"""After how many tokens it is looked whether all rows have ended."""


def rewrite_for(rows: int) -> Rewrite:
    """How a step of so many rows is rewritten."""
    return fuse if rows <= FEW else fuse_any


class Recording(Protocol):
    """What has recorded the work of a function, and does it again."""

    def replay(self) -> None: ...


class Rerun:
    """A recording that calls the function again: for devices that record nothing, and for tests."""

    def __init__(self, run: Callable[[], None], generator: torch.Generator | None):
        self.replay = run


class CudaGraph:
    """A recorded graph of kernels, on the current card. The function runs twice before, so that what is made at first use is there."""

    def __init__(self, run: Callable[[], None], generator: torch.Generator | None):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                run()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        if generator is not None:
            self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # what other threads do meanwhile is none of its business
            run()

    def replay(self) -> None:
        self.graph.replay()


@record(frozen=True)
class Plan:
    """What a decoder is made for: the most rows of a batch, room for positions and for new tokens, how a token is drawn (temperature, top_k, top_p),
    the tokens that end a row, whether draws have a seed, whether the step is compiled, the type of autocast where it is on, how products are
    computed (`precision`), the type in which recurrences' memories are kept, None for their own."""

    batch: int
    room: int
    new: int
    draw: tuple[float, int | None, float | None] = (0.0, None, None)
    eos: tuple[int, ...] = ()
    seeded: bool = False
    compiled: bool = False
    autocast: torch.dtype | None = None
    precision: tuple[Any, ...] = ()
    memories: torch.dtype | None = None


class Decoder:
    """A model's step with its buffers, for one plan. `begin` loads what lies behind the prompts, `step` makes a token."""

    def __init__(self, model: ArchModule, plan: Plan, recording: Callable[..., Recording]):
        self.plan, self.device = plan, device_of(model)
        self.rows, self.left = plan.batch, None
        with self._planned():
            self._make(model, recording)

    def _make(self, model: ArchModule, recording: Callable[..., Recording]) -> None:
        plan, device = self.plan, self.device
        self.step_form = sibling(model, "step", caches="in_place")
        self.weights = places(model)
        root, stages = staged(self.step_form, rewrite_for(plan.batch))
        if plan.compiled:
            for stage in stages:
                stage.compile(**COMPILE)
        self.run, self.stages = root.eval(), [root, *stages]
        streamed = self.step_form.__dict__["_streamed"]
        self.axes = {s.address: row_axis(streamed, s) for s in streamed.slots}
        self.state: State = self.step_form.init_state(plan.batch, **({"length": plan.room} if streamed.has_length else {}))
        if plan.memories is not None:
            self._narrow(root, plan.memories)
        self.tokens = torch.zeros(plan.batch, dtype=torch.int64, device=device)
        self.ended = torch.zeros(plan.batch, dtype=torch.bool, device=device)
        self.ends = torch.tensor(plan.eos, dtype=torch.int64, device=device)
        self.history = torch.zeros(plan.batch, plan.new, dtype=torch.int64, device=device)
        self.count = torch.zeros(plan.batch, dtype=torch.int64, device=device)
        self.generator = torch.Generator(device) if plan.seeded else None
        kept = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        self.recording = recording(self._once, self.generator)
        if kept is not None:
            torch.cuda.set_rng_state(kept, device)

    def _narrow(self, root: Stage, dtype: torch.dtype) -> None:
        found = memories(root)
        if not found:
            raise ValueError(f"generate: this model's step has no memory that is kept in {dtype}: those of `gla` and `ssd` are, by their kernels")
        for address in found:
            self.state[address] = self.state[address].to(dtype)

    @contextmanager
    def _planned(self) -> Iterator[None]:
        """What all its work is done under, whatever the caller's modes are by then: ordinary tensors without gradients, the model's card, the
        plan's autocast, which keeps no weight that it has cast: weights change."""
        kind, dtype = self.device.type, self.plan.autocast
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(self.device) if kind == "cuda" else nullcontext(), \
                torch.autocast(kind, dtype=dtype, enabled=dtype is not None, cache_enabled=False):
            yield

    def _once(self) -> None:
        """A token more: all of it on the device."""
        y, new = self.run(self.tokens[:, None], self.state)
        y = y[0] if isinstance(y, tuple) else y
        self._keep(new)
        y = y[:, -1]
        if self.plan.draw[0] == 0:
            torch.ops.archdsl.decode_take(y, self.tokens, self.ended, self.ends, self.history, self.count)
        else:
            self._take(drawn(y.float(), self.generator, *self.plan.draw))

    def _keep(self, new: State) -> None:
        """What the step gives anew, into the buffers: first all that reads one of them, then all writing."""
        held = {x.untyped_storage()._cdata for x in self.state.values()}
        pairs = [(self.state[a], x) for a, x in new.items() if not _same(x, self.state[a])]
        sources = [x.clone() if x.untyped_storage()._cdata in held else x for _, x in pairs]
        together: dict[torch.dtype, list[tuple[Tensor, Tensor]]] = {}
        for (kept, _), x in zip(pairs, sources):
            together.setdefault(kept.dtype, []).append((kept, x))
        for members in together.values():  # a few launches for all layers
            torch._foreach_copy_([kept for kept, _ in members], [x for _, x in members])  # pyright: ignore[reportPrivateImportUsage]

    def _take(self, tokens: Tensor) -> None:
        take(tokens, self.tokens, self.ended, self.ends, self.history, self.count)

    def begin(self, state: State, logits: Tensor, seed: int | None) -> None:
        """Loads the state behind the prompts and draws their first token from its logits [batch, vocab]. The rows beyond the batch go along with
        whatever their state holds, and count as ended."""
        with self._planned():
            if self.left is not None:
                self.left.wait()
            for stage in self.stages:
                stage.refresh()
            self.rows = len(logits)
            for address, x in state.items():
                kept, axis = self.state[address], self.axes[address]
                (kept if axis is None else kept.narrow(axis, 0, self.rows)).copy_(x)
            self.ended.zero_()
            self.ended[self.rows:] = True
            self.count.zero_()
            if self.generator is not None and seed is not None:
                self.generator.manual_seed(seed)
            tokens = drawn(logits, self.generator, *self.plan.draw)
            self._take(torch.cat([tokens, tokens.new_zeros(self.plan.batch - self.rows)]) if self.rows < self.plan.batch else tokens)

    def leave(self) -> None:
        """Ends a call: the next one may come on another stream, and waits for what is under way on this one."""
        if self.device.type == "cuda":
            with self._planned():
                self.left = torch.cuda.Event()
                self.left.record()

    def generate(self, new: int) -> Tensor:
        """The tokens from the one of `begin` on, [batch, n], n at most `new`, fewer where all rows end before."""
        with self._planned():
            flag, told = self._flag()
            for i in range(1, new):
                if self.plan.eos and i % EVERY == 0:
                    if told() and bool(flag):
                        break
                    flag, told = self._flag()
                self.recording.replay()
        return cut(self.history[:self.rows, :new], self.plan.eos).clone()

    def stream(self, new: int) -> Iterator[Tensor]:
        """The same tokens, [batch] at a time."""
        yield self.tokens[:self.rows].clone()
        for _ in range(1, new):
            if self.plan.eos and bool(self.ended.all()):
                return
            with self._planned():  # not while the caller has the token
                self.recording.replay()
            yield self.tokens[:self.rows].clone()

    def _flag(self) -> tuple[Tensor, Callable[[], bool]]:
        """Whether all rows have ended, on its way to the host, and whether it has arrived."""
        if self.ended.device.type != "cuda":
            return self.ended.all(), lambda: True
        flag = torch.empty((), dtype=torch.bool, pin_memory=True)
        flag.copy_(self.ended.all(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return flag, event.query


def _same(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors are the same places of memory: compiled code gives a cache that it wrote into as another view of it."""
    return x is y or x.untyped_storage()._cdata == y.untyped_storage()._cdata and (x.storage_offset(), x.shape, x.stride()) == (
        y.storage_offset(), y.shape, y.stride())


def cut(tokens: Tensor, eos: tuple[int, ...]) -> Tensor:
    """[batch, n] up to the column in which the last row ends."""
    if not eos:
        return tokens
    running = (~torch.isin(tokens, tokens.new_tensor(eos)).cumsum(1).gt(0)).any(0)
    return tokens[:, :int(running.sum()) + 1]


def precision() -> tuple[Any, ...]:
    """What torch's settings of products are: a recording has the kernels that were chosen under them."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    tf32 = [getattr(x, "fp32_precision", None) or x.allow_tf32 for x in (matmul, cudnn)]
    return (*tf32, getattr(torch.backends, "fp32_precision", None), *(getattr(matmul, name, None) for name in (
        "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction", "allow_fp16_accumulation")))


def places(model: torch.nn.Module) -> tuple[Any, ...]:
    """Where the weights lie, and their types: a recording reads them there, as these."""
    return tuple((t.data_ptr(), t.dtype) for t in (*model.parameters(), *model.buffers()))
