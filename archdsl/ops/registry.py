"""One place per op: signature, shape and dtype rule, cost, gradient kind, documentation and the reference body stand together.

```
@op("linear(x: [..., i], weight: [o, i], bias: [o]? = none) -> [..., o]", roles={"i": "contract"},
    macs=lambda x, weight, bias=None: x.numel * weight.shape[0], saves=("x", "weight"))
def linear(x, weight, bias):
    \"\"\"y = x Wᵀ + b.\"\"\"
    return F.linear(x, weight, bias)
```
The signature is written in the language. Parameters with a shape are operands, the others hyper attributes; all functions of an op
(`infer`, `macs`, the body) take them by these names. Lowering calls the body with fx proxies, so it is plain torch without
control flow on tensors; a size that varies at run time arrives as a proxy too.
"""
from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from archdsl.alone import alone
from archdsl.graph import STRUCTURE
from archdsl.records import field, record

if TYPE_CHECKING:
    from archdsl.graph import TensorType
    from archdsl.syntax import tree

Role = Literal["map", "contract", "normalise", "causal", "mix", "grouped"]
Grad = Literal["exact", "straight_through", "surrogate", "none", "score"]


class OpError(ValueError):
    """Raised by `infer` when operands or attributes do not fit: a sentence in the user's words.

    `about`: the parameter at fault; `help`: what to do; `require`: a condition that would make it legal;
    `mixed`: parameters whose element types differ.
    """

    def __init__(self, message: str, about: str | None = None, help: str | None = None, require: str | None = None, mixed: tuple[str, ...] = ()):
        super().__init__(message)
        self.message, self.about, self.help, self.require, self.mixed = message, about, help, require, mixed


LENGTH = "Length"
"""The symbol for how many positions a state has room for."""


@record()
class Extension:
    """How an op goes on from a state. `op`: takes the same operands, then those named in `states`, and gives the new ones behind its results; it
    may take `position` (how many positions came before) and `start` (for each row, where it begins).
    `states`: name -> type at the beginning, all zeros; `Length` in a shape is the room that the user gives. `attrs`: further ones of `op`.
    `within`: (a, b, how the op goes on where operand a is the first channels of operand b, which need not be kept twice).
    `idle`: what operands hold where there is no position yet, so that the op begins behind them as it does from zeros: name -> number, 0 for
    those that are not named; None where nothing does that. `ahead`: how many positions behind its own a result needs."""

    op: str
    states: dict[str, TensorType] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    within: tuple[str, str, Extension] | None = None
    idle: dict[str, float] | None = None
    ahead: int = 0


@record()
class Window:
    """How an op along time goes on whose results depend on so many positions before and behind their own: `past` and `ahead`. It takes them with its
    first operand, whose axis of time is `axis` from the left, with `attrs` that pad nothing along it. `outside`: what lies outside the sequence."""

    axis: int
    past: int
    ahead: int
    attrs: dict[str, Any]
    outside: float = 0


@record(slots=False)
class Op:
    """`infer(**arguments) -> TensorType | tuple` with operands as TensorType, number or None; absent: the signature alone decides,
    and the dtype is the one written there or else the operands' promoted one.
    `macs(**arguments) -> Size` counts multiply-accumulates (matrix products and convolutions only).
    `saves`: what autograd keeps for the backward pass: names of operands ("xs.0": the first of a list),
    "out" (the first result; "out1" the second) or TensorTypes;
    a dict says for which operand's gradient (`{"x": ("weight",), "weight": ("x",)}`); a callable computes either (and may take `needs`,
    the names of the operands that get a gradient). Ask `kept`. None: not told, for ops that only forms with state have; costs count nothing.
    `roles`: axis name of the signature -> role; others map. `phase`: behaves differently in training; the body takes `training`.
    `numbers`: operands that may be numbers beside a tensor. `own`: arguments that `infer` checks itself (they may
    be more than the signature can say).
    `filled`: operands have no axis of 0 positions: torch has no result for such ones.
    `view`: the result may alias the first operand. `keeps`: where the result has the first operand's shape, it is that operand.
    `samples`: argument sets for the registry test: () -> list[dict].
    `stream`: what the op does along time, where positions meet: called with `time` (operand -> its axes along the stream, from the right:
    -1 is the last) and the op's arguments, it gives the `Extension` that goes on from a state, a `Window` of earlier and later positions, or None
    where no positions meet; raises OpError where all later positions are needed. Without it, every axis that the signature or an attribute `axis`
    mixes is one along which nothing streams.
    `reference`: a plain form of the body, for ops whose body is a kernel: the registry test counts and compares with it.
    `plain`: a function of torch alone that does the same, whose text is copied into what `compile` writes.
    `form_of`: the op whose kernels its body chooses among when it is called: of a recurrence, for a form of it, or itself; the body takes `kernel`,
    the name of one.
    """

    name: str
    signature: str
    body: Callable[..., Any]
    infer: Callable[..., Any] | None = None
    macs: Callable[..., Any] | None = None
    saves: tuple[str, ...] | dict[str, tuple[str, ...]] | Callable[..., Any] | None = ()
    roles: dict[str, Role] = field(default_factory=dict)
    grad: Grad = "exact"
    phase: bool = False
    random: bool = False
    view: bool = False
    filled: bool = False
    keeps: bool = False
    numbers: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    source: str = ""
    samples: Callable[[], list[dict[str, Any]]] | None = None
    stream: Callable[..., Extension | Window | None] | None = None
    reference: Callable[..., Any] | None = None
    plain: Callable[..., Any] | None = None
    form_of: str = ""

    @property
    def doc(self) -> str:
        return (self.body.__doc__ or "").strip()

    def kept(self, arguments: dict[str, Any], needs: Collection[str] | None = None) -> tuple[Any, ...]:
        """What autograd keeps when gradients are needed for the operands `needs` (None: all float ones), each once: operand names, "out",
        "out1" and TensorTypes (tensors that only the op itself knows). Operands given as numbers or none are left out. For a 16-bit build,
        give its dtype in place of `float`: some ops widen. True for torch's CPU kernels; results that alias an operand are that operand's."""
        float_operands = [k for k, v in arguments.items() if any(getattr(t, "is_float", False) for t in (v if isinstance(v, tuple) else (v,)))]
        wanted = [k for k in float_operands if needs is None or k in needs]
        if not wanted or self.grad == "none" or self.saves is None:
            return ()
        needs_it = {"needs": set(wanted)} if callable(self.saves) and "needs" in _parameters(self.saves) else {}
        saves = self.saves(**arguments, **needs_it) if callable(self.saves) else self.saves
        items = [i for k in wanted for i in saves.get(k, ())] if isinstance(saves, dict) else list(saves)
        present = [i for i in items if not isinstance(i, str) or i.startswith("out") or "." in i or hasattr(arguments.get(i), "dtype")]
        return tuple(i for n, i in enumerate(present) if not isinstance(i, str) or i not in present[:n])

    @cached_property
    def decl(self) -> tree.OpDecl:
        from archdsl.syntax.parser import parse_signature

        return parse_signature(self.signature)


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a plain function's parameters."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


OPS: dict[str, Op] = {}
"""By name, in the order in which their families happened to be imported: what tells of several sorts them."""


def op(signature: str, **rules: Any) -> Callable[[Callable[..., Any]], Op]:
    """Registers the decorated body under the name that starts the signature."""
    name = signature.split("(", 1)[0].strip()

    def register(body: Callable[..., Any]) -> Op:
        if name in OPS:
            raise ValueError(f"two ops are called {name}")
        OPS[name] = Op(name, signature, body, **rules)
        return OPS[name]

    return register


def find(name: str) -> Op | None:
    """The op of that name: none begins with a capital, as blocks do. The families that most specs need are loaded first, the others where none of
    those has it."""
    found = OPS.get(name)
    if found is None and not _loaded and name not in STRUCTURE and not name[:1].isupper():
        found = of_function(name)
        if found is None:
            load()
            found = OPS.get(name)
    return found


def of_function(name: str) -> Op | None:
    """The op that a function of numbers is as well (`sqrt`), when it is given tensors: all of those are of the usual families."""
    if name not in OPS and not _loaded:
        _import(USUAL)
    return OPS.get(name)


def installed(name: str) -> bool:
    """Whether an installed package adds an op of that name (entry-point group `archdsl.ops`, read at the first name that nothing of ours has)."""
    from archdsl.plugins import load_group

    load()
    load_group("archdsl.ops")
    return name in OPS


FAMILIES = ("attention", "caches", "constants", "conv", "experts", "foreign", "gated", "indexing", "layout", "linear", "losses",
            "memories", "norms", "pointwise", "polynomials", "quantization", "random", "reduction", "ssd", "ssm", "time", "toeplitz", "wkv")
USUAL = ("attention", "constants", "conv", "indexing", "layout", "linear", "norms", "pointwise", "random", "reduction")
_loaded = _loading = False


def load() -> None:
    """Imports the modules that hold ops (none of them imports torch)."""
    if not _loaded:
        _load()


@alone
def _load() -> None:
    global _loaded, _loading
    if _loaded or _loading:
        return
    _loading = True
    try:
        _import(FAMILIES)
        import_module("archdsl.ops.packing").register_all()  # ops of all recurrences, so behind them
        _loaded = True  # not before: another thread would take what is not there yet for no op
    finally:
        _loading = False


def _import(families: Iterable[str]) -> None:
    for family in families:
        import_module(f"archdsl.ops.{family}")
