"""`recalibrate_batch_norm`: running means and variances of batch norms, measured again on data."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import error
from archdsl.graph import Node, Value
from archdsl.passes.context import Context, Data
from archdsl.passes.contract import approximate
from archdsl.passes.edit import Edit
from archdsl.passes.registry import graph_pass

if TYPE_CHECKING:
    from archdsl.lower.statistics import Moments
    from archdsl.passes.model import Model


@graph_pass("recalibrate_batch_norm(batch: int = 64)", contract=approximate("outputs", at="init", phases=("eval",)), using=("data",), fills=True,
            source="arxiv 2105.07576", samples=["recalibrate_batch_norm() using calib"])
def recalibrate_batch_norm(edit: Edit, *, batch: int) -> None:
    """Sets the running mean and variance of batch norms to those of data: of all numbers that reach a channel, while each norm normalises by the
    `batch` samples that it sees, as in training, and nothing is dropped. For weights whose statistics are stale: averaged or pruned ones, or those
    of a part of a supernet. A norm that is applied several times gets the statistics of all applications together."""
    wanted = running(edit)
    if not wanted:
        raise edit.refuse("it applies no batch norm with running statistics", label="this model")
    if batch < 1:
        raise edit.refuse(f"a batch has at least one sample, not {batch}", label="this model", help="`batch = 64` takes 64 samples at a time")
    if not edit.decisions:
        return
    for address, n in wanted.items():
        numbers = edit.decisions.get(address)
        size = edit.params[address].type.shape[0]
        if not isinstance(numbers, list) or len(numbers) != size or not all(isinstance(v, (int, float)) for v in numbers):
            told = "nothing" if numbers is None else f"{len(numbers)} numbers" if isinstance(numbers, list) else f"`{numbers}`"
            raise error("A0568", f"the decisions say {told} of `{address}`, where {size} numbers are needed", edit.step.span, "this step",
                        help=f'"{address}@{edit.step.name}": [{size} numbers]')
        held = Node("literal", (), {"value": tuple(numbers), "dtype": "float"}, (edit.params[address].type,), n.span)  # of no block: the graph stays
        edit.values[address] = Value(held)
    edit.note(f"{len(wanted) // 2} of its batch norms have the statistics of other data")


def running(edit: Edit) -> dict[str, Node]:
    """The addresses of running means and variances of the selected norms, each with a node that reads it."""
    out: dict[str, Node] = {}
    for n in edit.selected("batch_norm"):
        if n.args[3] is None:
            continue
        for v in n.args[3:5]:
            if v.node.op != "param":
                raise edit.refuse("the running statistics of a batch norm are computed, not saved", n, "this norm")
            out[v.node.attrs["path"]] = n
    return out


@recalibrate_batch_norm.decide
def measure(model: Model, context: Context, *, batch: int) -> dict[str, Any]:
    """Address of a running mean or variance -> its numbers. Raises ArchError A0569, A0571, A0628 for data that cannot be used."""
    edit = Edit(model.graph, context.step, model.made.facts, tables=dict(context.given.tables))
    recalibrate_batch_norm.body(edit, batch=batch)  # refuses what does not fit before any data are read
    pairs = dict.fromkeys(tuple(v.node.attrs["path"] for v in n.args[3:5]) for n in running(edit).values())
    (data,) = context.inputs(model.made)
    moments = _moments(model, data, batch, {mean for mean, _ in pairs})
    out: dict[str, Any] = {}
    for mean, variance in pairs:
        out[mean], out[variance] = moments[mean].mean.tolist(), moments[mean].variance.tolist()
    return out


def _moments(model: Model, data: Data, batch: int, wanted: set[str]) -> dict[str, Moments]:
    """Address of a running mean -> what reaches its norm. A norm that was not selected normalises as in evaluation."""
    from archdsl.lower.statistics import moments

    built: Any = model.build(form="parallel")
    owners = {id(b): a for a, b in built.named_buffers(remove_duplicate=False) if a in wanted}
    inputs = (tuple(x.to(model.float_type) if x.is_floating_point() else x for x in given) for given in data.batches(batch))
    try:
        found = moments(built, inputs, lambda mean: id(mean) in owners)
    except ValueError as fault:  # torch: "Expected more than 1 value per channel when training"
        raise data.wrong(str(fault), "give more samples, or another `batch`") from None
    return {owners[id(m.running[0])]: m for m in found}
