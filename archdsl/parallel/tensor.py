"""A model over the ranks of a tensor-parallel group: its weights as DTensors by the plan, its forward pass over them.

torch's DTensor carries parts through the ops that it knows and adds sums over ranks where they are needed. What it does not know, our own ops and
attention, works on the parts of each rank where heads or channels are split; the axes in an op's signature say which.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ParallelStyle, parallelize_module
from torch.overrides import TorchFunctionMode

from archdsl.kernels.autocast import autocasts
from archdsl.ops.registry import Op, find
from archdsl.ops.signatures import tensor_of
from archdsl.parallel.overlap import sink_sums
from archdsl.parallel.plan import parallel_plan
from archdsl.syntax import tree

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from archdsl.lower.module import ArchModule


class SplitWeights(ParallelStyle):
    """Weights of a module by name as DTensors: split along an axis, the others whole on every rank. For torch's `parallelize_module`."""

    def __init__(self, axes: Mapping[str, int]):
        super().__init__()
        self.axes = dict(axes)

    def _apply(self, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        for name, p in list(module._parameters.items()):
            if p is not None and not isinstance(p, DTensor):
                placement = Shard(self.axes[name]) if name in self.axes else Replicate()
                given = distribute_tensor(p.data, device_mesh, [placement])
                module._parameters[name] = _parameter(given, p)
        return module


def _parameter(given: DTensor, p: nn.Parameter) -> nn.Parameter:
    """A weight in the place of p, whose gradient lies over the ranks as it does: a weight that is whole gets its sum."""
    made = nn.Parameter(given, requires_grad=p.requires_grad)
    if p.requires_grad:
        made.register_hook(lambda g: g.redistribute(given.device_mesh, given.placements))
    return made


def styles(plan: Mapping[str, int]) -> dict[str, ParallelStyle]:
    """The plan by module, "" for the model itself: each as `parallelize_module` takes it for that module."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for address, axis in plan.items():
        scope, _, name = address.rpartition(".")
        found[scope][name] = axis
    return {scope: SplitWeights(axes) for scope, axes in found.items()}


class TensorParallel(nn.Module):
    """The model over the ranks of a mesh. Inputs and results are whole on every rank, so a loss is computed on each alike; gradients are DTensors
    as the weights are."""

    def __init__(self, model: ArchModule, mesh: DeviceMesh, plan: Mapping[str, int]):
        super().__init__()
        self.model, self.mesh, self.plan = model, mesh, dict(plan)

    def forward(self, *inputs: Any) -> Any:
        whole = [Replicate()]
        with Parts(self.mesh):
            y = self.model(*(DTensor.from_local(x, self.mesh, whole, run_check=False) if isinstance(x, Tensor) else x for x in inputs))
        single = isinstance(y, Tensor)
        results = [r.redistribute(self.mesh, whole).to_local(grad_placements=whole) if isinstance(r, DTensor) else r for r in ((y,) if single else y)]
        return results[0] if single else tuple(results)


def tensor_parallel(model: ArchModule, mesh: DeviceMesh, plan: Mapping[str, int] | None = None) -> TensorParallel:
    """The model with its weights split over a mesh of one axis, in place, by `parallel_plan` unless another plan is given: rank 0's values are taken.
    Raises ValueError for a mesh of several axes (take one: `mesh["tp"]`) and for a plan that names weights that there are not."""
    if mesh.ndim != 1:
        raise ValueError(f"tensor_parallel: a mesh of one axis is needed, this one has {mesh.ndim}: mesh[\"tp\"] takes the one of that name")
    plan = parallel_plan(model.typed, mesh.size()) if plan is None else plan
    known = dict(model.named_parameters(remove_duplicate=False))
    if unknown := [a for a in plan if a not in known]:
        raise ValueError(f"tensor_parallel: the model has no weight `{unknown[0]}`")
    sink_sums(model)
    for scope, style in styles(plan).items():  # one by one, as not every torch finds the model itself, at "", in a dict
        parallelize_module(model.get_submodule(scope), mesh, style)
    tied: dict[int, nn.Parameter] = {}
    for module in model.modules():  # what the plan leaves out is whole on every rank
        for name, p in list(module._parameters.items()):
            if p is not None and not isinstance(p, DTensor):
                if id(p) not in tied:
                    tied[id(p)] = _parameter(distribute_tensor(p.data, mesh, [Replicate()]), p)
                module._parameters[name] = tied[id(p)]
    return TensorParallel(model, mesh, plan)


# ---------------------------------------------------------------- ops on parts
Rule = Callable[[list[Any], dict[str, Any], int], "Ways | None"]


class Ways:
    """How an op works on parts: the placement of each tensor operand by place or name, that of its gradient, those of the results."""

    def __init__(self, operands: dict[Any, Placement], results: Placement):
        self.operands, self.results = operands, results

    def gradient(self, key: Any) -> Placement:
        """An operand that is whole while the work is split gets a share of its gradient on each rank."""
        own = self.operands[key]
        return Partial() if isinstance(own, Replicate) and isinstance(self.results, Shard) else own


class Parts(TorchFunctionMode):
    """While it is on, plain tensors beside DTensors count as whole on every rank, and ops that DTensor does not know work on parts."""

    def __init__(self, mesh: DeviceMesh):
        super().__init__()
        self.mesh = mesh

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        given = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
        if not any(isinstance(x, DTensor) for x in given) or getattr(func, "__name__", "") in ("__get__", "__set__"):
            return func(*args, **kwargs)
        args, kwargs = self._carried(args), {k: self._carried(v) for k, v in kwargs.items()}
        rule = _rule(func)
        if func is F.linear and torch.is_grad_enabled() and _gives_sums(*args, **kwargs):
            return self._summed(*args, **kwargs)
        if func is F.linear and torch.is_grad_enabled() and _takes_columns(*args, **kwargs):
            return self._columns(*args, **kwargs)
        if rule is None:
            y = func(*args, **kwargs)
            if func is F.linear and isinstance(y.placements[0], Partial):  # the sum over ranks sets out at once, and is waited for where it is read
                y = y.redistribute(self.mesh, [Replicate()], async_op=True)
            return y
        return self._on_parts(func, list(args), kwargs, rule)

    def _carried(self, x: Any) -> Any:
        if isinstance(x, Tensor) and not isinstance(x, DTensor):
            return DTensor.from_local(x, self.mesh, [Replicate()], run_check=False)
        return [*map(self._carried, x)] if type(x) is list else tuple(map(self._carried, x)) if type(x) is tuple else x

    def _summed(self, x: DTensor, weight: DTensor, bias: DTensor | None = None) -> DTensor:
        """A map whose input channels are split, in 16 bits: each rank's share stays in float32 until all of them are added, as within one product on
        one device. Rounded before, they would lead training away from one device's by about as much as its whole rounding does."""
        local = x.to_local(grad_placements=x.placements), weight.to_local(grad_placements=weight.placements)
        y = _Summed.apply(*local, None if bias is None else bias.to_local(grad_placements=[Replicate()]), self.mesh.get_group())
        return DTensor.from_local(y, self.mesh, [Replicate()], run_check=False)

    def _columns(self, x: DTensor, weight: DTensor, bias: DTensor | None = None) -> DTensor:
        """A map whose output channels are split, in 16 bits: each rank's share of the gradient of x, which is whole, stays in float32 until all of
        them are added, as in `_summed`. Maps of one x are rounded one by one, as on one device: gradients differ in the order of sums alone."""
        parts = [None if t is None else t.to_local(grad_placements=[Shard(0)]) for t in (weight, bias)]
        y = _Columns.apply(x.to_local(grad_placements=[Replicate()]), *parts, self.mesh.get_group())
        return DTensor.from_local(y, self.mesh, [Shard(y.ndim - 1)], run_check=False)

    def _on_parts(self, func: Any, args: list[Any], kwargs: dict[str, Any], rule: Rule) -> Any:
        keyed: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        tensors = {k: x for k, x in keyed.items() if isinstance(x, DTensor)}
        ways = rule(args, kwargs, self.mesh.size()) or Ways(dict.fromkeys(tensors, Replicate()), Replicate())
        local = {k: x.redistribute(self.mesh, [ways.operands[k]]).to_local(grad_placements=[ways.gradient(k)]) for k, x in tensors.items()}
        found = func(*(local.get(i, a) for i, a in enumerate(args)), **{k: local.get(k, v) for k, v in kwargs.items()})

        def back(y: Any) -> Any:
            return DTensor.from_local(y.contiguous(), self.mesh, [ways.results], run_check=False) if isinstance(y, Tensor) else y

        return back(found) if isinstance(found, Tensor) else type(found)(map(back, found))


class _Summed(torch.autograd.Function):
    """x @ weight.T of all ranks, added in float32 and rounded once with the bias, to the dtype of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, group: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        y = _wide(_rows(x), weight.t())
        dist.all_reduce(y, group=group)
        y = y if bias is None else y.add_(bias)
        return y.to(x.dtype).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        pulled = _rows(grads[0])
        dx, dweight, dbias, _ = ctx.needs_input_grad
        return (pulled @ weight).view_as(x) if dx else None, pulled.t() @ _rows(x) if dweight else None, pulled.sum(0) if dbias else None, None


class _Columns(torch.autograd.Function):
    """x @ weight.T of a rank's part of the weight; the gradient of x is added over ranks in float32 and rounded once, to the dtype of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, group: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.group = group
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        pulled = _rows(grads[0])
        dx = _wide(pulled, weight)
        dist.all_reduce(dx, group=ctx.group)
        _, dweight, dbias, _ = ctx.needs_input_grad
        return dx.to(x.dtype).view_as(x), pulled.t() @ _rows(x) if dweight else None, pulled.sum(0) if dbias else None, None


def _rows(x: Tensor) -> Tensor:
    """[..., c] as [n, c]."""
    return x.flatten(0, -2) if x.ndim > 1 else x[None]


def _wide(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of 16 bits, in float32."""
    if a.is_cuda and hasattr(torch.ops.aten.mm, "dtype"):
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def _gives_sums(x: Any, weight: Any, bias: Any = None) -> bool:
    """Whether a linear map in 16 bits has its input channels split alike in both operands, so that ranks hold shares of a sum."""
    return _narrow(x, weight) and _split_axis(weight) == 1 and _split_axis(x) == x.ndim - 1 and (bias is None or _split_axis(bias) is None)


def _takes_columns(x: Any, weight: Any, bias: Any = None) -> bool:
    """Whether a linear map in 16 bits has its output channels split, as many for each rank, and x, whose gradient is wanted, whole, so that ranks
    hold shares of that."""
    whole = x.requires_grad and isinstance(x.placements[0], Replicate) and weight.shape[0] % weight.device_mesh.size() == 0
    return _narrow(x, weight) and whole and _split_axis(weight) == 0 and (bias is None or _split_axis(bias) == 0)


def _narrow(x: Any, weight: Any) -> bool:
    """Whether a product is of 16 bits as its operands are: what autocast makes of others is torch's."""
    kind = x.device.type
    cast = autocasts(kind) and torch.is_autocast_enabled(kind)
    return x.dtype == weight.dtype and weight.dtype in (torch.bfloat16, torch.float16) and not cast


def _tensors(x: Any) -> list[Tensor]:
    return [x] if isinstance(x, Tensor) else [t for y in x for t in _tensors(y)] if type(x) in (tuple, list) else []


def _split_axis(x: Any) -> int | None:
    """The axis along which a DTensor is split."""
    placement = x.placements[0] if isinstance(x, DTensor) else None
    return placement.dim % x.ndim if isinstance(placement, Shard) else None


def _rule(func: Any) -> Rule | None:
    """What is known of a function that DTensor does not know."""
    if func is F.scaled_dot_product_attention:
        return _heads
    if func is F.rms_norm:
        return _leading
    if func is F.softplus:  # torch 2.9
        return _alone
    if func in (torch.topk, Tensor.topk):  # torch 2.11 does not know its gradient
        return _whole
    name = str(func)
    op = find(name.split(".")[1].removesuffix("_unless_fused")) if name.startswith("archdsl.") else None
    return None if op is None else lambda args, kwargs, ranks: _by_signature(op, args, ranks)


def _heads(args: list[Any], kwargs: dict[str, Any], ranks: int) -> Ways | None:
    """Attention by head. Keys are split as queries are, or whole where all query heads share one."""
    q, k, v = args[:3]
    if not any(_split_axis(x) == 1 for x in (q, k, v)) or q.shape[1] % ranks or k.shape[1] != 1 and k.shape[1] % ranks:
        return None
    keys = Replicate() if k.shape[1] == 1 else Shard(1)
    operands: dict[Any, Placement] = {0: Shard(1), 1: keys, 2: keys}
    for key, mask in (*enumerate(args[3:], 3), *kwargs.items()):
        if isinstance(mask, DTensor):
            by_head = mask.ndim > 2 and mask.shape[-3] == q.shape[1]
            operands[key] = Shard(mask.ndim - 3) if by_head else Replicate()
    return Ways(operands, Shard(1))


def _alone(args: list[Any], kwargs: dict[str, Any], ranks: int) -> Ways | None:
    """A function of each number, where one axis is split evenly."""
    axis = _split_axis(args[0])
    return None if axis is None or args[0].shape[axis] % ranks else Ways({0: Shard(axis)}, Shard(axis))


def _whole(args: list[Any], kwargs: dict[str, Any], ranks: int) -> Ways | None:
    """Every rank computes all of it."""
    return None


def _leading(args: list[Any], kwargs: dict[str, Any], ranks: int) -> Ways | None:
    """A norm of the last axes, where one before them is split."""
    axis, normed = _split_axis(args[0]), args[1] if len(args) > 1 else kwargs["normalized_shape"]
    if axis is None or axis >= args[0].ndim - len(normed) or args[0].shape[axis] % ranks:
        return None
    others = {k: Replicate() for k, x in (*enumerate(args[1:], 1), *kwargs.items()) if isinstance(x, DTensor)}
    return Ways({0: Shard(axis), **others}, Shard(axis))


def _by_signature(op: Op, args: list[Any], ranks: int) -> Ways | None:
    """An op of ours along a channel axis that all its results have. Operands without it are whole, but those of the groups that heads share."""
    params = [t for t in map(tensor_of, op.decl.params) if t is not None]
    tensors = [i for i, x in enumerate(args) if isinstance(x, DTensor)]
    if any(i >= len(params) for i in tensors):
        return None  # states are given: a step is not split
    counts: dict[str, int] = {}
    names = {i: _names(params[i], args[i].ndim, counts) for i in tensors}
    results = [_names(o.type, None, counts) for o in op.decl.outs]
    wanted = [names[i][axis] for i in tensors if (axis := _split_axis(args[i])) is not None]
    name = next((n for n in wanted if n != "T" and op.roles.get(n, "map") == "map" and all(n in r for r in results)), None)
    if name is None or len({r.index(name) for r in results}) > 1:
        return None
    operands: dict[Any, Placement] = {}
    for i, own in names.items():
        groups = next((axis for axis, n in enumerate(own) if op.roles.get(n) == "grouped" and args[i].shape[axis] > 1), None)
        axis = own.index(name) if name in own else groups
        if axis is not None and args[i].shape[axis] % ranks or axis is None and _beside(own, args[i], name, results[0]):
            return None
        operands[i] = Replicate() if axis is None else Shard(axis)
    return Ways(operands, Shard(results[0].index(name)))


def _names(t: Any, rank: int | None, counts: dict[str, int]) -> list[str]:
    """The names of a tensor's axes; several that the signature does not tell apart are numbered: `…0`, `…1`, or `s0`, `s1` for `[*s]`. `rank`: none
    for a result, whose unnamed axes are as many as those of the operands that `counts` has seen."""
    found: list[str] = []
    for axis in t.shape.axes:
        if not isinstance(axis, (tree.AnyAxes, tree.AxesVar)):  # a name, or a size, which is the name of nothing
            found.append(axis.id if isinstance(axis, tree.AxisName) else f"#{len(found)}")
            continue
        several = axis.id if isinstance(axis, tree.AxesVar) else "…"
        if rank is not None:
            counts[several] = rank - len(t.shape.axes) + 1
        found += [f"{several}{i}" for i in range(counts[several])]
    return found


def _beside(own: list[str], x: Tensor, name: str, result: list[str]) -> bool:
    """Whether an operand of axes of its own, such as a table, has numbers for each part of the split axis, in its shape alone."""
    behind = len(result) - result.index(name)
    return not set(own) & set(result) and x.ndim >= behind and x.shape[-behind] > 1
