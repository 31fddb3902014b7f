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
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archdsl.passes.contract import Contract
from archdsl.records import record

if TYPE_CHECKING:
    from archdsl.passes.edit import Edit
    from archdsl.syntax import tree

GROUP = "archdsl.passes"


@record(slots=False)
class Pass:
    """`signature`: name and options as the language writes them. `body(edit, **options)`. `contract`: what holds between input and output, or a
    function of (edit after the rewrite, **options) that says it. `requires`: facts that earlier steps must have provided; `provides`, `destroys`:
    facts that hold, or no longer hold, behind this step. `using`: the kinds of inputs that are bound on the command line (data, model, table).
    `fills`: decisions are values of weights, and the graph does not depend on them. `samples`: steps for the test kit.
    """

    name: str
    signature: str
    body: Callable[..., None]
    contract: Contract | Callable[..., Contract]
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    destroys: tuple[str, ...] = ()
    using: tuple[str, ...] = ()
    fills: bool = False
    source: str = ""
    samples: Sequence[str] = ()
    decider: Callable[..., dict[str, Any]] | None = None
    usual: dict[str, Any] | None = None  # the defaults of its options, once they have been read

    @property
    def doc(self) -> str:
        return (self.body.__doc__ or "").strip()

    @cached_property
    def params(self) -> tuple[tree.Param, ...]:
        """The options with their types and defaults."""
        from archdsl.syntax.parser import parse_signature

        return parse_signature(f"{self.signature} -> []").params

    def decide(self, function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        """Registers the part that reads weights or data: (model, context, **options) -> {address: JSON value}."""
        self.decider = function
        return function

    def told(self) -> str:
        """The contract in words, at the default options for a model that narrows nothing."""
        if not callable(self.contract):
            return str(self.contract)
        from archdsl.passes.step import defaults

        try:
            return str(self.contract(Nominal, **defaults(self)))
        except AttributeError:  # it looks at the graph
            return "depends on the model"

    def promise(self, edit: Edit, options: dict[str, Any]) -> Contract:
        """The contract of one application."""
        return self.contract(edit, **options) if callable(self.contract) else self.contract


class Nominal:
    """What a contract sees of an edit that has narrowed nothing."""

    phases = ("train", "eval")


PASSES: dict[str, Pass] = {}


def graph_pass(signature: str, **rules: Any) -> Callable[[Callable[..., None]], Pass]:
    """Registers the decorated rewrite under the name that starts the signature."""
    name = signature.split("(", 1)[0].strip()

    def register(body: Callable[..., None]) -> Pass:
        if name in PASSES:
            raise ValueError(f"two passes are called {name}")
        PASSES[name] = Pass(name, signature, body, **rules)
        return PASSES[name]

    return register


def find(name: str) -> Pass | None:
    """The pass of that name: one of ours, else one of an installed package."""
    load()
    if name not in PASSES:
        from archdsl.plugins import load_group

        load_group(GROUP)
    return PASSES.get(name)


def every() -> dict[str, Pass]:
    """All passes, those of installed packages included."""
    from archdsl.plugins import load_group

    load()
    load_group(GROUP)
    return dict(sorted(PASSES.items()))


_loaded = False


def load() -> None:
    """Imports the modules that hold our own passes (none of them imports torch)."""
    global _loaded
    if not _loaded:
        _loaded = True
        from archdsl.passes import bake, batch_norm, centre, norm_scales, recalibrate  # noqa: F401
