"""`bake`: every expression of weights alone is computed once and left as a plain parameter, in a built model. The rewrite is the pass `bake`."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule


def bake(model: ArchModule) -> ArchModule:
    """A new model in eval mode that computes the same (up to rounding) without weight expressions. The given model is unchanged.
    Raises TypeError for what archdsl did not build."""
    import torch

    from archdsl.lower import lower
    from archdsl.lower.module import ArchModule
    from archdsl.passes.edit import Edit
    from archdsl.passes.model import state_of
    from archdsl.passes.step import Step
    from archdsl.passes.weights import Rewritten

    if not isinstance(model, ArchModule):
        raise TypeError(f"bake takes a model that archdsl built, not {type(model).__name__}")
    definition = type(model).definition
    dtype = getattr(torch, definition.dtype)
    step = Step("bake")
    edit = Edit(model.typed, step)
    step.rule.body(edit)
    done = edit.finish()
    weights = Rewritten(state_of(model, model.typed), done, lambda: dtype)
    device = next((w.device for w in weights.before.values()), torch.device("cpu"))
    new = lower(done.graph, dtype=dtype, device=device, emit=definition.emits)
    with torch.no_grad():
        new.load_state_dict({k: weights[k] for k in new.state_dict()})
        for name, buffer in new.named_buffers():
            if name in weights:  # consts are not saved
                buffer.copy_(weights[name])
    return new.eval()
