"""What a proxy looks at: an untrained candidate and batches of data. torch is loaded when one is made."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from archdsl.elaborate.model import Elaborated
from archdsl.lazy import F, torch
from archdsl.ops.registry import find
from archdsl.search.proxies.needs import LOOKUPS, map_weights

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from archdsl.tasks.model import Task

Batch = tuple[tuple[Any, ...], Any]
See = Callable[[str, tuple[Any, ...], Any], Any]


class Probe:
    """`built(dtype)`: the candidate with its initial weights; `inputs(i)`: the i-th batch of inputs and its targets, where a task gives them.

    The model is in evaluation, but for batch norms, which normalise by the batch and keep no statistics: dropout would be noise, and running
    statistics say nothing before training. Without a task, targets are classes drawn uniformly, one for each position of the scores; the loss is the
    mean cross-entropy along the last axis of the first output.
    """

    def __init__(self, made: Elaborated, built: Callable[[Any], Module], inputs: Callable[[int], Batch], size: int, task: Task | None = None) -> None:
        self.made, self.size, self.task = made, size, task
        self._built, self._inputs, self._targets = built, cache(inputs), {}
        self._addresses = map_weights(made)

    @cached_property
    def model(self) -> Module:
        """Made when a proxy first looks at it: some look at `fresh` ones alone."""
        return prepared(self._built(torch.float32))

    @cached_property
    def weights(self) -> list[Tensor]:
        """Those of maps, of `model`."""
        return self.weights_of(self.model)

    def fresh(self, dtype: Any = None) -> Module:
        """Another one with the same initial weights, which a proxy may change."""
        return prepared(self._built(dtype or torch.float32))

    def weights_of(self, model: Module) -> list[Tensor]:
        """The weights of maps in order: parameters of two axes or more that multiply activations."""
        held = dict(model.named_parameters(remove_duplicate=False))
        return [held[a] for a in self._addresses]

    # ---------------------------------------------------------------- data
    def inputs(self, i: int = 0) -> tuple[Any, ...]:
        return self._inputs(i)[0]

    def targets(self, i: int = 0) -> Any:
        """Classes: those of the task, else drawn."""
        given = self._inputs(i)[1]
        if given is not None:
            return given
        if i not in self._targets:
            with torch.no_grad():
                scores = self.scores(i)
            draw = torch.Generator().manual_seed(i)
            self._targets[i] = torch.randint(scores.shape[-1], scores.shape[:-1], generator=draw).to(scores.device)
        return self._targets[i]

    # ---------------------------------------------------------------- results
    def scores(self, i: int = 0) -> Tensor:
        """The first output for the i-th batch."""
        return first(self.model(*self.inputs(i)))

    def loss(self, i: int = 0, model: Module | None = None) -> Tensor:
        """The mean cross-entropy in nats; the objective of a task. `model`: another one, whose element type the inputs take."""
        targets, given = self.targets(i), self.inputs(i)
        if model is not None:
            dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
            given = tuple(x.to(dtype) if x.is_floating_point() else x for x in given)
        model = self.model if model is None else model
        if self.task is not None:
            return self.task.objective(model, {**dict(zip([a.name for a in self.task.inputs], given)), "targets": targets})[0]
        return F.cross_entropy(first(model(*given)).flatten(0, -2), targets.flatten())

    def gradients(self, i: int = 0) -> list[Tensor]:
        """Of the loss, for each of the weights."""
        return gradients(self.loss(i), self.weights)

    @cached_property
    def slopes(self) -> list[Tensor]:
        """`gradients(0)`, which several proxies look at."""
        return self.gradients(0)

    # ---------------------------------------------------------------- what is inside
    @contextmanager
    def seeing(self, see: See, model: Module | None = None) -> Iterator[None]:
        """Inside, each op of a call is shown: see(name of the op, operands, result) gives the result that is used."""
        from archdsl.lower.watching import watched

        def shown(address: str, node: Any, args: tuple[Any, ...], result: Any) -> Any:
            return see(node.meta["op"], args, result) if "op" in node.meta else result

        with watched(self.model if model is None else model, shown):
            yield

    def outputs_of_maps(self) -> tuple[Tensor, list[tuple[int, Tensor]]]:
        """The loss, and for each application of a map its channel axis and its result, by which the loss can be differentiated."""
        known = {id(w) for w in self.weights}
        found: list[tuple[int, Any]] = []

        def see(op: str, args: tuple[Any, ...], result: Any) -> Any:
            rule = find(op)
            if rule is not None and "contract" in rule.roles.values() and op not in LOOKUPS and any(_of(a, known) for a in args):
                found.append((1 if op.startswith("conv") else result.dim() - 1, result))
            return result

        self.targets()  # they are made of the scores of another call, where they are drawn
        with self.seeing(see):
            loss = self.loss()
        return loss, found

    def sensitivity(self) -> Tensor:
        """∂ Σ scores / ∂ input for each example, [size, n]. Whole numbers have no slope: there it is by the rows that were looked up for them."""
        given = self.inputs()
        leaves = [x.detach().requires_grad_() for x in given if _by_example(x, self.size)]
        if leaves:
            taken = iter(leaves)
            y = first(self.model(*(next(taken) if _by_example(x, self.size) else x for x in given)))
        else:
            def see(op: str, args: tuple[Any, ...], result: Any) -> Any:
                if op in LOOKUPS and result.shape[0] == self.size and (args[0].dim() > 1 or any(args[0] is x for x in given)):
                    leaves.append(result.detach().requires_grad_())
                    return leaves[-1]
                return result

            with self.seeing(see):
                y = first(self.model(*given))
        if not leaves:
            raise ValueError("no input has one entry for each example of the batch")
        return torch.cat([g.flatten(1) for g in gradients(y.sum(), leaves)], 1)


def gradients(of: Tensor, by: Sequence[Tensor]) -> list[Tensor]:
    """d of / d by; zeros where it does not depend."""
    found = torch.autograd.grad(of, list(by), allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(by, found)]


def first(outputs: Any) -> Any:
    """The first of a model's outputs."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def prepared(model: Module) -> Module:
    """In evaluation; batch norms normalise by the batch, and leave their statistics alone."""
    from archdsl.lower.parts import PhaseOp

    def copied(module: Any, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(o.clone() if i in (3, 4) and o is not None else o for i, o in enumerate(operands))

    model.eval()
    for m in model.modules():
        if isinstance(m, PhaseOp) and m.op == "batch_norm":
            m.train()
            m.register_forward_pre_hook(copied)
    return model


def _of(x: Any, known: set[int]) -> bool:
    """Whether it is one of these weights, or a view of one."""
    return isinstance(x, torch.Tensor) and (id(x) in known or id(x._base) in known)


def _by_example(x: Any, size: int) -> bool:
    return x.is_floating_point() and x.dim() > 0 and x.shape[0] == size
