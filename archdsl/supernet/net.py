"""A supernet: every candidate of a space in one set of weights.

A candidate's weights are parts of the supernet's: of each group of channels the first ones, of the taps of a kernel those that read the same
positions, all combinations of a product of groups (`heads × width`), each piece in its own piece (coupling). A candidate runs as itself, on those
parts: norms see the channels that are there, heads that are left out cost nothing, and what `extract` gives is bit for bit what was trained. Nothing
here knows a model.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from archdsl.coupling import channels, groups_of, places, within
from archdsl.coupling.places import Places
from archdsl.diagnostics.model import error
from archdsl.graph import Graph
from archdsl.kernels.target import Target
from archdsl.lower.build import float_type, lower
from archdsl.lower.init import Initial, plain_torch
from archdsl.lower.module import ArchModule
from archdsl.records import record
from archdsl.search.model import Candidate
from archdsl.search.space import SearchSpace
from archdsl.source import Source, Span
from archdsl.supernet.together import Asked, fits, taken, together
from archdsl.supernet.widest import Held, Key, Widest, grown, learned

KEPT = 256
"""So many lowered candidates are kept, one at least, unless `Supernet.kept` is set to another number."""
Settings = Mapping[str, Any]


@record()
class Part:
    """A candidate in the supernet. `parts`: for each weight its key and the places on its axes, int64 on the weight's device where they are no range;
    `own`: what is computed from the sizes alone."""

    module: ArchModule
    graph: Graph
    parts: dict[str, tuple[Key, tuple[range | Tensor, ...]]]
    own: dict[str, Tensor]


class Supernet(nn.Module):
    """`spec.supernet()` makes one. `set(candidate)` chooses who answers; `net(x)` runs it; `extract(candidate)` is a model of its own.

    `largest`, `smallest`: the candidates with the most and the fewest parameters that were found. `parameters()` are those of all candidates.
    """

    def __init__(self, space: SearchSpace, seed: int = 0, device: str | torch.device = "cpu", dtype: torch.dtype | str | None = None):
        super().__init__()
        self.space, self.dtype, self.kept = space, float_type(dtype), KEPT
        self.widest = Widest(space)
        self.largest: Candidate = self.widest.largest
        self.smallest: Candidate = self.widest.smallest
        self._names: dict[Key, str] = {}
        self._parts: dict[str, Part] = {}
        initials: dict[int, Initial] = {}
        for key, held in self.widest.held.items():
            self._register(key, held, initials, seed, torch.device(device))
        self.current: Candidate = self.largest
        self.task: str | None = None  # what it is trained for, told in its folder

    @property
    def identity(self) -> str:
        """The same for supernets of one space in one element type: one may go on with the training of the other."""
        from archdsl.supernet.folder import identity

        return identity(self)

    def prepare(self, folder: Path) -> None:
        """Writes what its folder holds beside weights: the spec, the space. Raises ArchError A0627."""
        from archdsl.supernet.folder import prepare

        prepare(self, folder)

    def _register(self, key: Key, held: Held, initials: dict[int, Initial], seed: int, device: torch.device) -> None:
        """One weight under its address; under `ADDRESS@RANK` where another arm gives that address another number of axes."""
        initial = initials.setdefault(id(held.graph), Initial(held.graph, seed, self.dtype))
        before = initial.params[held.address]
        initial.params[held.address] = grown(held)
        initial.forget(held.address)
        with plain_torch():
            value = initial.value(held.address).clone()
        initial.params[held.address] = before
        initial.forget(held.address)
        value = value.to(device, self.dtype if held.param.type.dtype == "float" else value.dtype)
        address, rank = key
        *path, name = address.split(".")
        owner: nn.Module = self
        for segment in path:
            if segment not in owner._modules:
                owner.register_module(segment, nn.Module())
            owner = owner.get_submodule(segment)
        if hasattr(owner, name):
            name = f"{name}@{rank}"
        self._names[key] = ".".join((*path, name))
        if held.param.kind == "param":
            owner.register_parameter(name, nn.Parameter(value))
        else:
            owner.register_buffer(name, value)

    def weight(self, key: Key) -> Tensor:
        """The full tensor of a weight."""
        *path, name = self._names[key].split(".")
        owner: Any = self
        for segment in path:  # as `get_submodule` does, which costs as much as taking the part
            owner = owner._modules[segment]
        return getattr(owner, name)

    def _apply(self, fn: Any, recurse: bool = True) -> Supernet:
        """As torch moves or converts a module; lowered candidates are of the device and the element type with which they were made."""
        before = self._kind()
        super()._apply(fn, recurse)
        if self._kind() != before:
            self.dtype = self._kind()[1]
            self._parts.clear()
        return self

    def _kind(self) -> tuple[torch.device, torch.dtype]:
        """The device, and the element type of weights that the spec leaves open."""
        device, dtype = next(self.parameters()).device, self.dtype
        return device, next((self.weight(key).dtype for key, held in self.widest.held.items() if held.param.type.dtype == "float"), dtype)

    # ---------------------------------------------------------------- candidates
    def candidate(self, given: Candidate | Settings) -> Candidate:
        """The candidate of these settings, the others at the spec's defaults. Raises ArchError A0803 for settings outside of the space."""
        return given if isinstance(given, Candidate) else self.space.candidate(given)

    def set(self, candidate: Candidate | Settings) -> Candidate:
        """Chooses who answers from now on. Raises ArchError A0803, A0841."""
        chosen = self.candidate(candidate)
        self._part(chosen)
        self.current = chosen
        return chosen

    def _part(self, candidate: Candidate) -> Part:
        found = self._parts.get(candidate.key)
        if found is None:
            while self._parts and len(self._parts) >= self.kept:
                self._parts.pop(next(iter(self._parts)))
            found = self._parts[candidate.key] = self._made(candidate)
        return found

    def _made(self, candidate: Candidate) -> Part:
        graph = self.space.model(candidate).graph
        why = self.widest.fault(candidate, graph)
        if why is not None:
            text = ", ".join(f"{a} = {v}" for a, v in candidate.items())
            raise error("A0841", f"this candidate is no part of the supernet: {why}", Span(Source("candidate", text), 0, len(text)),
                        help="a supernet holds what the space's own candidates need: is this one of another space, or outside of its limits?")
        parts, device = {}, next(self.parameters()).device
        module = lower(graph, device="meta", dtype=self.dtype, made_for=Target(device.type))
        groups = groups_of(graph)
        for address, p in learned(graph).items():
            key = address, len(p.sizes)
            wide = self.widest.held[key]
            parts[address] = key, tuple(_on(device, within(w, g)) for w, g in zip(wide.groups, groups[address]))
        initial, own = Initial(graph, 0, self.dtype), {}
        with plain_torch():
            for address in initial.params.keys() - parts.keys():
                own[address] = initial.value(address).clone()
        own = {a: t.to(device, self.dtype if t.is_floating_point() and initial.params[a].type.dtype == "float" else t.dtype) for a, t in own.items()}
        return Part(module, graph, parts, own)

    def weights(self, candidate: Candidate | Settings) -> dict[str, Tensor]:
        """A candidate's weights by its own addresses: views of the supernet's where their channels lie side by side, gathered otherwise; gradients
        flow to the supernet's."""
        part = self._part(self.candidate(candidate))
        return {**{a: taken(self.weight(key), axes) for a, (key, axes) in part.parts.items()}, **part.own}

    # ---------------------------------------------------------------- running
    def forward(self, *inputs: Any) -> Any:
        """The current candidate on these inputs."""
        return self.run(self.current, *inputs)

    def run(self, candidate: Candidate | Settings, *inputs: Any) -> Any:
        """One candidate on these inputs; its running statistics are written back in training."""
        chosen = self.candidate(candidate)
        part, weights = self._part(chosen), self.weights(chosen)
        if part.module.training != self.training:
            part.module.train(self.training)
        result = functional_call(part.module, weights, inputs)
        if self.training:
            self.keep_statistics(part, weights)
        return result

    def run_each(self, candidates: Sequence[Candidate | Settings], *inputs: Tensor) -> Any:
        """Several candidates in one forward pass: the batch (the first axis of every input) is cut into as many equal parts, each runs through its
        own candidate, and the results stand one behind another. Raises ValueError for a batch that does not divide."""
        count = len(candidates)
        if not count or any(x.shape[0] % count for x in inputs):
            raise ValueError(f"run_each: {count} candidates need a batch that they divide, this has {[x.shape[0] for x in inputs]} rows")
        each = [*zip(*(x.chunk(count) for x in inputs))]
        if any(x.requires_grad for x in inputs):
            results = [self.run(c, *part) for c, part in zip(candidates, each)]
        else:
            results = self.ask(candidates, [lambda model, part=part: model(*part) for part in each])
        if isinstance(results[0], tuple):
            return tuple(torch.cat(r) for r in zip(*results))
        return torch.cat(results)

    def ask(self, candidates: Sequence[Candidate | Settings], tasks: Sequence[Callable[[nn.Module], Any]]) -> list[Any]:
        """What each task gives of its candidate, a tensor or a tuple of them. Gradients reach the supernet's weights, not other tensors that a task
        uses. Raises ValueError where there are not as many of one as of the other."""
        if len(candidates) != len(tasks):
            raise ValueError(f"ask: one task for each candidate, not {len(tasks)} for {len(candidates)}")
        chosen = [self.candidate(c) for c in candidates]
        if len(chosen) > 1 and fits(self):
            return together(self, [self._part(c) for c in chosen], tasks)
        return [task(Asked(partial(self.run, c), self.training)) for c, task in zip(chosen, tasks)]

    def keep_statistics(self, part: Part, weights: dict[str, Tensor]) -> None:
        """Buffers that were gathered are copies: what training wrote into them goes where it came from."""
        with torch.no_grad():
            for address, (key, axes) in part.parts.items():
                if self.widest.held[key].param.kind == "buffer" and any(not isinstance(a, range) for a in axes):
                    held = self.weight(key)
                    at = (torch.tensor(list(a), device=held.device) if isinstance(a, range) else a for a in axes)
                    held[torch.meshgrid(*at, indexing="ij")] = weights[address]

    # ---------------------------------------------------------------- models of their own
    def extract(self, candidate: Candidate | Settings) -> ArchModule:
        """The candidate as a model of its own, as `spec.build` makes it, with copies of its part of the weights."""
        chosen = self.candidate(candidate)
        weights = self.weights(chosen)
        model = self.space.spec.build(self.space.variant, device="meta", dtype=self.dtype, form="parallel", knobs=dict(chosen))
        model = model.to_empty(device=next(self.parameters()).device)
        with torch.no_grad():
            state = model.state_dict(keep_vars=True)
            for address, value in weights.items():
                if address in state:
                    state[address].copy_(value)
        return model.train(self.training)

    # ---------------------------------------------------------------- order of channels
    @torch.no_grad()
    def sort_channels(self, optimizer: torch.optim.Optimizer | None = None, scaled: bool = True) -> int:
        """Puts the channels of every group that may be permuted into falling order of importance: the sum of absolute values of all weights that
        they take part in, each weight's mean as the unit, or plain (`scaled = False`, as arxiv 2109.00642 has it). No candidate of full width changes
        what it computes; narrower ones then keep the most important channels. What the optimizer keeps for each number of a weight moves with it.
        Gives the number of groups sorted."""
        uses: dict[Any, list[tuple[Key, int]]] = {}
        for key, held in self.widest.held.items():
            for axis, group in enumerate(held.merged):
                for leaf in set(group.leaves()):
                    uses.setdefault(leaf, []).append((key, axis))
        orders: dict[Any, list[int]] = {}
        for leaf, where in uses.items():
            if leaf.fixed or not isinstance(leaf.size, int) or leaf.size < 2 or any(self.widest.held[k].merged[a].size != self.weight(k).shape[a]
                                                                                    for k, a in where):
                continue
            importance = sum((self._importance(key, axis, leaf, scaled) for key, axis in where), torch.zeros(leaf.size))
            orders[leaf] = importance.argsort(descending=True, stable=True).tolist()
        for key, held in self.widest.held.items():
            weight = self.weight(key)
            moments = () if optimizer is None else optimizer.state.get(weight, {}).values()
            tensors = [weight, *(m for m in moments if isinstance(m, Tensor) and m.shape == weight.shape)]
            for axis, group in enumerate(held.merged):
                if any(leaf in orders for leaf in group.leaves()):
                    order = torch.tensor(list(places(group, orders)), device=weight.device)
                    for t in tensors:
                        t.copy_(t.index_select(axis, order))
        return len(orders)

    def _importance(self, key: Key, axis: int, leaf: Any, scaled: bool) -> Tensor:
        """What each channel of a group weighs in one weight."""
        weight = self.weight(key).float().abs()
        other = [i for i in range(weight.dim()) if i != axis]
        along = weight.sum(other) if other else weight
        along = along / weight.mean().clamp(min=1e-12) if scaled else along
        at = torch.tensor(channels(self.widest.held[key].merged[axis], leaf), device=along.device)
        found = torch.zeros(leaf.size, device=along.device)
        return found.index_add_(0, at[at >= 0], along[at >= 0]).cpu()


def _on(device: torch.device, at: Places) -> range | Tensor:
    """Places as they are used each time: a CUDA graph cannot record that they are copied to the card."""
    return at if isinstance(at, range) else torch.tensor(list(at), device=device)
