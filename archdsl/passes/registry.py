"""One place per pass: signature, options, documentation, contract, what it needs and what it brings stand together, as for ops.

```
@graph_pass("fold_batch_norm() -> folded", contract=equal(phases=("eval",)), samples=["fold_batch_norm()"])
def fold_batch_norm(edit):
    \"\"\"Folds every batch norm into the convolution or linear map beside it.\"\"\"
    for node in edit.selected("batch_norm"): …
```
The body is the rewrite: it edits the `Edit` that it is given (edit.py) and returns nothing. It is pure and free of torch: the model that came in
stays as it was. A pass that has to look at weights or data first has a second function, `decide`, whose answer is JSON by address:

```
@fold.decide
def fold_decide(model, context, *, rate): return {"layers.3.mlp": 0.25}
```
`context.inputs(model.made)` gives what the names behind `using` stand for (context.py). Where decisions fill weights alone (`fills = True`), the
graph is known without them: such a variant can be checked and costed before anything is decided.
Packages add passes through the entry-point group `archdsl.passes`.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from archdsl.declared import Declared, Registry, name_of
from archdsl.passes.contract import Contract
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.passes.edit import Edit

OWN = ("bake", "batch_norm", "centre", "norm_scales", "recalibrate")
"""The modules that hold our own passes; none of them imports torch."""


@record(slots=False)
class Pass(Declared):
    """`body(edit, **options)` is the rewrite. `contract`: what holds between input and output, or a
    function of (edit after the rewrite, **options) that says it. `requires`: facts that earlier steps must have provided; `provides`, `destroys`:
    facts that hold, or no longer hold, behind this step. `using`: the kinds of inputs that are bound on the command line (data, model, table).
    `fills`: decisions are values of weights, and the graph does not depend on them. `samples`: steps for the test kit.
    """

    contract: Contract | Callable[..., Contract]
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    destroys: tuple[str, ...] = ()
    using: tuple[str, ...] = ()
    fills: bool = False
    samples: Sequence[str] = ()
    decider: Callable[..., dict[str, Any]] | None = None

    def decide(self, function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        """Registers the part that reads weights or data: (model, context, **options) -> {address: JSON value}."""
        self.decider = function
        return function

    def told(self) -> str:
        """The contract in words, at the default options for a model that narrows nothing."""
        if not callable(self.contract):
            return str(self.contract)
        try:
            return str(self.contract(Nominal, **self.defaults))
        except AttributeError:  # it looks at the graph
            return "depends on the model"

    def promise(self, edit: Edit, options: dict[str, Any]) -> Contract:
        """The contract of one application."""
        return self.contract(edit, **options) if callable(self.contract) else self.contract


class Nominal:
    """What a contract sees of an edit that has narrowed nothing."""

    phases = ("train", "eval")


PASSES: Registry[Pass] = Registry("pass", "archdsl.passes", tuple(f"archdsl.passes.{m}" for m in OWN), ("A0561", "A0562"))


def graph_pass(signature: str, source: str = "", **rules: Any) -> Callable[[Callable[..., None]], Pass]:
    """Registers the decorated rewrite under the name that starts the signature."""
    def register(body: Callable[..., None]) -> Pass:
        return PASSES.add(Pass(name_of(signature), signature, body, source, **rules))

    return register
