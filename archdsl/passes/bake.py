"""`bake`: expressions of weights alone are computed once and left as plain weights."""
from __future__ import annotations

from archdsl.flatten import copy_node
from archdsl.graph import Node, Value
from archdsl.passes.contract import equal
from archdsl.passes.edit import Edit
from archdsl.passes.expressions import DATA, WEIGHT, stages
from archdsl.passes.registry import graph_pass


@graph_pass("bake()", contract=equal(phases=("eval",)), provides=("baked",), destroys=("expressions",), samples=["bake()"])
def bake(edit: Edit) -> None:
    """Leaves a plain weight in place of every expression that depends on weights alone. The result is for evaluation: updates of buffers,
    dropout and the training arms of phases go."""
    for_evaluation(edit)
    stage = stages(edit)
    edit.bake(v for n in edit.live() if n.op != "param" and stage[id(n)] == WEIGHT for v in n.values
              if edit.given(v) or any(stage[id(u)] == DATA for u in edit.users(v)))


def for_evaluation(edit: Edit) -> None:
    """Takes out what evaluation does not run."""
    while phases := [n for n in edit.nodes if n.op == "phase"]:
        open_arm(edit, phases[0])
    for n in [n for n in edit.nodes if n.op in ("dropout", "drop_path")]:
        edit.replace(Value(n), n.args[0])
    for n in [n for n in edit.nodes if n.op == "update"]:
        edit.remove(n)


def open_arm(edit: Edit, phase: Node) -> None:
    """A phase becomes the nodes of its evaluation arm."""
    arm = phase.attrs["eval"]
    known: dict[Value, Value] = dict(zip(arm.inputs, phase.args))
    for inner in arm.nodes:
        if inner.op not in ("input", "update"):
            copy = edit.put(copy_node(inner, known.__getitem__), edit.scope(phase))
            known.update(zip(inner.values, copy.values))
    for old, new in zip(phase.values, arm.outputs):
        edit.replace(old, known[new])
    edit.remove(phase)
