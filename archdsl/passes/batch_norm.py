"""`fold_batch_norm`: batch norms in evaluation are scales and shifts of channels; they move into the maps beside them."""
from __future__ import annotations

from archdsl.graph import Node, Value
from archdsl.passes.affine import Blocked, readers, refused, scale_columns, scale_rows, writer
from archdsl.passes.contract import equal
from archdsl.passes.edit import Edit
from archdsl.passes.registry import graph_pass


@graph_pass("fold_batch_norm()", contract=equal(phases=("eval",)), provides=("batch_norm_folded",), samples=["fold_batch_norm()"])
def fold_batch_norm(edit: Edit) -> None:
    """Folds every batch norm into the convolution or linear map before it, else into those behind it: with s = γ / √(σ² + eps), W becomes s W and b
    becomes s (b - μ) + β; behind it, W becomes W s and b becomes b + W (β - s μ). For evaluation, with the running statistics. A norm that stands
    beside no such map stays, and a note says why."""
    found = [n for n in edit.selected("batch_norm") if n.args[3] is not None]
    waiting = {id(n): n for n in found}
    blocked: dict[int, Blocked] = {}
    made: list[Value] = []
    while waiting:
        before = len(waiting)
        for n in list(waiting.values()):
            done = _fold(edit, n)
            if isinstance(done, Blocked):
                blocked[id(n)] = done
            else:
                made += done
                waiting.pop(id(n))
        if len(waiting) == before:  # a norm that stood between another one and its map may be gone the next time
            break
    if not found:
        raise edit.refuse("it applies no batch norm with running statistics", label="this model")
    if len(waiting) == len(found):
        n = found[0]
        raise refused(edit, f"its batch norms ({len(found)}) stand beside no map that could take them", n, "this norm", blocked[id(n)])
    edit.note_blocked([(n, blocked[id(n)].reason) for n in waiting.values()], "a batch norm stays", "batch norms stay")
    edit.bake(made)


def _fold(edit: Edit, n: Node) -> list[Value] | Blocked:
    x, weight, bias, mean, variance = n.args
    before = writer(edit, x, 1, shift=True, evaluation=True)
    behind = readers(edit, Value(n), 1, shift=True, evaluation=True) if isinstance(before, Blocked) else None
    if isinstance(before, Blocked) and isinstance(behind, Blocked):
        return behind if edit.given(x) or len(edit.users(x)) > 1 else before
    scale = edit.add("rsqrt", edit.add("add", variance, n.attrs["eps"], at=n), at=n)
    scale = edit.add("mul", weight, scale, at=n) if weight is not None else scale
    moved = edit.add("mul", mean, scale, at=n)
    shift = edit.add("sub", bias, moved, at=n) if bias is not None else edit.add("neg", moved, at=n)
    edit.replace(Value(n), x)
    edit.remove(n)
    if isinstance(before, Node):
        return scale_rows(edit, before, scale, shift)
    assert isinstance(behind, tuple)
    return [e for u in behind[0] for e in scale_columns(edit, u, scale, shift)]
