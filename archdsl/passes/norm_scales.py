"""`fold_norm_scales` and `fold_layer_scale`: the learned scale and shift of norms, and the gain of branches, moved into the maps beside them."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.graph import Node, Value
from archdsl.passes.affine import Blocked, readers, refused, scale_columns, scale_rows, writer
from archdsl.passes.contract import Contract, equal
from archdsl.passes.edit import Edit
from archdsl.passes.expressions import DATA, WEIGHT
from archdsl.passes.registry import graph_pass
from archdsl.wording import with_article

NORMS = {"layer_norm": -1, "rms_norm": -1, "group_norm": 1}
FORM = 'form: "folded" | "train" = "folded"'


def by_form(edit: Edit, form: str = "folded", **options: Any) -> Contract:
    """Folded weights are others: gradients agree at the inputs. In the training form the weights are the old ones, and so are their gradients."""
    return equal(gradients="params" if form == "train" else "inputs", phases=edit.phases)


@graph_pass(f"fold_norm_scales({FORM})", contract=by_form, provides=("norms_folded",),
            samples=["fold_norm_scales()", 'fold_norm_scales(form = "train")'])
def fold_norm_scales(edit: Edit, *, form: str) -> None:
    """Moves γ and β of layer, RMS and group norms into all maps that read them: W becomes W diag(γ), b becomes b + W β. A norm that anything else
    reads keeps them, and a note says why. `form = "train"` leaves them as weight expressions: the same parameters, computed on each pass."""
    found = [n for n in edit.selected() if n.op in NORMS and any(a is not None for a in n.args[1:])]
    _fold(edit, found, fold_affine, form, "norm", ("keeps its scale", "keep their scales"))


def fold_affine(edit: Edit, n: Node) -> list[Value] | Blocked:
    """Moves the scale and shift of one norm into its readers; returns the new expressions."""
    _, scale, *rest = n.args
    shift = rest[0] if rest else None
    axis = NORMS[n.op] % len(n.types[0].shape)
    found = readers(edit, Value(n), axis, shift=shift is not None)
    if isinstance(found, Blocked):
        return found
    edit.set(n, n.args[0], *((None,) * (len(n.args) - 1)))
    return [e for u in found[0] for e in scale_columns(edit, u, scale, shift)]


@graph_pass(f"fold_layer_scale({FORM})", contract=by_form, provides=("layer_scale_folded",), samples=["fold_layer_scale()"])
def fold_layer_scale(edit: Edit, *, form: str) -> None:
    """Moves a learned gain of channels, γ · f(x), into the map that makes f(x): W becomes diag(γ) W, b becomes γ b."""
    found = [n for n in edit.selected("mul") if gain(edit, n) is not None]
    _fold(edit, found, fold_gain, form, "gain", ("stays", "stay"))


def gain(edit: Edit, n: Node) -> tuple[Value, Value, int] | None:
    """(vector, what it scales, axis) of a product of data with one weight for each channel; None for other products."""
    for g, y in (n.args, n.args[::-1]):
        if isinstance(g, Value) and isinstance(y, Value) and edit.stage(g) == WEIGHT and edit.stage(y) == DATA:
            long = [i for i, s in enumerate(g.shape) if s != 1]
            if len(long) == 1 and y.type == n.types[0]:
                axis = long[0] + len(n.types[0].shape) - len(g.shape)
                if y.shape[axis] == g.shape[long[0]]:
                    return g, y, axis
    return None


def fold_gain(edit: Edit, n: Node) -> list[Value] | Blocked:
    """Moves one gain into the map behind it and takes the product out; returns the new expressions."""
    known = gain(edit, n)
    assert known is not None
    g, y, axis = known
    made = writer(edit, y, axis, shift=False)
    if isinstance(made, Blocked):
        return made
    if len(g.shape) > 1:
        at = next(i for i, s in enumerate(g.shape) if s != 1)
        g = edit.add("slice", g, items=tuple(("slice", None, None, None) if i == at else ("int", 0) for i in range(len(g.shape))), at=n)
    edit.replace(Value(n), y)
    edit.remove(n)
    return scale_rows(edit, made, g, None)


def _fold(edit: Edit, found: list[Node], fold: Callable[[Edit, Node], list[Value] | Blocked], form: str, what: str, stays: tuple[str, str]) -> None:
    """Folds each node that can be; a note names the others, and the edit is refused where that is all of them."""
    blocked: list[tuple[Node, Blocked]] = []
    made: list[Value] = []
    for n in found:
        done = fold(edit, n)
        if isinstance(done, Blocked):
            blocked.append((n, done))
        else:
            made += done
    if not found:
        raise edit.refuse(f"it has no {what} with a scale to fold", label="this model")
    if len(blocked) == len(found):
        raise refused(edit, f"no {what} can be folded", blocked[0][0], f"this {what}", blocked[0][1])
    edit.note_blocked([(n, why.reason + _way_out(why)) for n, why in blocked], f"{with_article(what)} {stays[0]}", f"{what}s {stays[1]}")
    if form == "folded":
        edit.bake(made)


def _way_out(why: Blocked) -> str:
    return ", which `fold_batch_norm()` may take out first" if why.node is not None and why.node.op == "batch_norm" else ""


__all__ = ["fold_affine", "fold_gain", "fold_layer_scale", "fold_norm_scales", "gain"]
