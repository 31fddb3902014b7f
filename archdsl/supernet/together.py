"""Several candidates of a supernet in one step, each as itself: their parts of the weights are taken once, their gradients written into one tensor of
each weight, and where the processor has several threads, candidates run beside each other. A candidate has a small part of the batch, whose products
are too small to be divided among threads."""
from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from archdsl.ops.registry import find

if TYPE_CHECKING:
    from archdsl.graph import Graph
    from archdsl.supernet.net import Part, Supernet

Axes = tuple[Any, ...]
Task = Callable[[nn.Module], Any]
"""What is asked of a candidate: a function of the model, which gives a tensor or a tuple of them."""

_POOLS: dict[tuple[int, int], ThreadPoolExecutor] = {}
os.register_at_fork(after_in_child=_POOLS.clear)  # a fork has none of the threads


class Asked(nn.Module):
    """A candidate as a model: its weights are the supernet's."""

    def __init__(self, run: Callable[..., Any], training: bool) -> None:
        super().__init__()
        self.run, self.training = run, training

    def forward(self, *inputs: Any) -> Any:
        return self.run(*inputs)


def taken(weight: Tensor, axes: Axes) -> Tensor:
    """A part of a weight."""
    for axis, at in enumerate(axes):
        if isinstance(at, range):
            if len(at) != weight.shape[axis]:
                weight = weight.narrow(axis, 0, len(at))
        else:
            weight = weight.index_select(axis, at)
    return weight


def fits(net: Supernet) -> bool:
    """Whether candidates may be run so: gradients are wanted, of weights on the CPU, and nothing of torch watches single ops."""
    return (torch.is_grad_enabled() and next(net.parameters()).device.type == "cpu" and not torch.compiler.is_compiling()
            and not torch._C._are_functorch_transforms_active() and not torch._C._len_torch_dispatch_stack()
            and not torch._C._len_torch_function_stack())


def together(net: Supernet, parts: Sequence[Part], tasks: Sequence[Task]) -> list[Any]:
    """What each task gives of its candidate, with gradients for the supernet's weights alone, once."""
    work = _Work(net, parts, tasks)
    flat = iter(_Together.apply(work, *work.weights))  # pyright: ignore[reportArgumentType]
    return [tuple(next(flat) for _ in r) if isinstance(r, tuple) else next(flat) for r in work.results]


class _Work:
    """`keys`: the weights that learn, `weights` the tensors; `leaves`: of each candidate its parts of them, by its own addresses."""

    def __init__(self, net: Supernet, parts: Sequence[Part], tasks: Sequence[Task]) -> None:
        self.net, self.parts, self.tasks = net, parts, tasks
        keys = dict.fromkeys(key for part in parts for key, _ in part.parts.values())
        self.keys = {key: w for key in keys if (w := net.weight(key)).requires_grad}
        self.weights = list(self.keys.values())
        self.leaves: list[dict[str, Tensor]] = []
        self.results: list[Any] = [None] * len(parts)
        for part in parts:
            if part.module.training != net.training:
                part.module.train(net.training)
        groups: dict[int, list[int]] = {}
        for i, part in enumerate(parts):
            groups.setdefault(id(part.module), []).append(i)
        self.groups = list(groups.values())
        apart = not torch.is_autocast_enabled("cpu") and not (net.training and any(_in_order(net, part) for part in parts))
        self.pool = _pool(len(self.groups)) if apart else None

    def each(self, do: Callable[[int], None]) -> None:
        """Does something with every candidate, those of one module one after another."""
        if self.pool is None:
            for i in range(len(self.parts)):
                do(i)
            return

        def group(members: list[int]) -> None:
            for i in members:
                do(i)

        list(self.pool.map(group, self.groups))

    def run(self) -> None:
        net = self.net
        held = {key: net.weight(key).detach() for part in self.parts for key, _ in part.parts.values()}
        with torch.no_grad():
            own = [{a: taken(held[key], axes) for a, (key, axes) in part.parts.items()} for part in self.parts]
        self.leaves = [{a: t.requires_grad_() for a, t in mine.items() if part.parts[a][0] in self.keys} for part, mine in zip(self.parts, own)]

        def do(i: int) -> None:
            part, weights = self.parts[i], {**own[i], **self.parts[i].own}
            with torch.enable_grad():
                self.results[i] = self.tasks[i](Asked(lambda *inputs: functional_call(part.module, weights, inputs), net.training))
            if net.training:
                net.keep_statistics(part, weights)

        self.each(do)

    @property
    def flat(self) -> list[Tensor]:
        return [t for r in self.results for t in (r if isinstance(r, tuple) else (r,))]

    def gradients(self, given: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Of each weight the sum over the candidates, in their order."""
        per: list[list[tuple[Tensor, Tensor]]] = []
        left = iter(given)
        for r in self.results:
            outs = r if isinstance(r, tuple) else (r,)
            per.append([(t, g) for t, g in zip(outs, [next(left) for _ in outs]) if g is not None and t.requires_grad])
        keep = torch._C._autograd._get_current_graph_task_keep_graph()  # pyright: ignore[reportAttributeAccessIssue]
        found: list[dict[str, Tensor | None]] = [{} for _ in self.parts]
        sums: dict[Any, Tensor | None] = dict.fromkeys(self.keys)

        def do(i: int) -> None:
            if per[i]:
                outs, grads = zip(*per[i])
                leaves = self.leaves[i]
                found[i] = dict(zip(leaves, torch.autograd.grad(outs, [*leaves.values()], grads, retain_graph=keep, allow_unused=True)))
            if self.pool is None:
                for key, axes, g in pieces(i):
                    sums[key] = _added(self.keys[key], sums[key], axes, g)

        def pieces(i: int) -> list[tuple[Any, Axes, Tensor]]:
            mine, found[i] = found[i], {}  # memory of gradients that were added is free for the next ones
            return [(*self.parts[i].parts[a], g) for a, g in mine.items() if g is not None]

        def summed(of: list[tuple[Any, Axes, Tensor]]) -> None:
            for key, axes, g in of:
                sums[key] = _added(self.keys[key], sums[key], axes, g)

        self.each(do)
        if self.pool is not None:
            per_key: dict[Any, list[tuple[Any, Axes, Tensor]]] = {}
            for i in range(len(self.parts)):
                for piece in pieces(i):
                    per_key.setdefault(piece[0], []).append(piece)
            list(self.pool.map(summed, per_key.values()))
        return list(sums.values())


class _Together(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, work: _Work, *weights: Tensor) -> tuple[Tensor, ...]:
        work.run()
        ctx.work = work
        ctx.set_materialize_grads(False)
        results = tuple(t.detach() for t in work.flat)
        ctx.mark_non_differentiable(*(r for r, t in zip(results, work.flat) if not t.requires_grad))
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, *ctx.work.gradients(grads)


def _added(weight: Tensor, total: Tensor | None, axes: Axes, g: Tensor) -> Tensor:
    """The gradient of a weight with that of a part of it."""
    if total is None:
        if g.shape == weight.shape and all(isinstance(a, range) for a in axes):
            return g.clone()
        total = torch.zeros_like(weight)
    place, indexed = total, [i for i, a in enumerate(axes) if not isinstance(a, range)]
    for axis, at in enumerate(axes):
        if isinstance(at, range) and len(at) != place.shape[axis]:
            place = place.narrow(axis, 0, len(at))
    if not indexed:
        place.add_(g)
    elif len(indexed) == 1:
        place.index_add_(indexed[0], axes[indexed[0]], g)
    else:
        each = [torch.arange(len(a)) if isinstance(a, range) else a for a in axes]
        place[torch.meshgrid(*each, indexing="ij")] += g  # places of a part differ
    return total


def _in_order(net: Supernet, part: Part) -> bool:
    """Whether a candidate has to run behind those before it: it draws numbers, or changes statistics that all share."""
    if part.ordered is None:
        shared = any(net.widest.held[key].param.kind == "buffer" for key, _ in part.parts.values())
        part.ordered = shared or _draws(part.graph, set())
    return part.ordered


def _draws(graph: Graph, seen: set[int]) -> bool:
    if id(graph) in seen:
        return False
    seen.add(id(graph))
    below = [v for n in graph.nodes for v in n.attrs.values() if isinstance(v, type(graph))]
    return any((op := find(n.op)) is not None and op.random for n in graph.nodes) or any(_draws(g, seen) for g in (*graph.children.values(), *below))


def _pool(tasks: int) -> ThreadPoolExecutor | None:
    """As many threads as there are tasks and torch has for its ops, which are divided among them; None for one."""
    threads = torch.get_num_threads()
    workers = min(tasks, threads)
    if workers < 2:
        return None
    at = workers, threads // workers
    if at not in _POOLS:
        pool, here = ThreadPoolExecutor(workers, "candidates"), Barrier(workers)

        def begin(_: int) -> None:
            here.wait()
            torch.get_num_threads()  # asked first, a thread takes over torch's number, whatever it was set to
            torch.set_num_threads(at[1])  # of this thread alone
            here.wait()

        list(pool.map(begin, range(workers)))
        torch.set_num_threads(threads)  # threads that come later ask for it
        _POOLS[at] = pool
    return _POOLS[at]
