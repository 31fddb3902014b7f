"""Which kernel computes an op on a device: declared beside the kernel, chosen by one pure function, told with its reasons.

```
@kernel("ssd", "triton", devices=("cuda",), dtypes=("bf16", "f16", "f32"), needs=("triton",), fits=lambda types, attributes: None)
class Chunked:
    \"\"\"…\"\"\"
    @staticmethod
    def forward(x, dt, a, b, c, skip, memory): ...              # -> (results…, new states…)
    @staticmethod
    def gradient(dy, later, x, dt, a, b, c, skip, memory): ...  # -> gradients of operands and states; absent: the reference's
    @staticmethod
    def step(x, dt, a, b, c, skip, memory): ...                 # as `forward`, for one position and given states; absent: the reference's
    @staticmethod
    def packed(x, dt, a, b, c, skip, documents): ...            # results of documents behind each other; absent: one after the other
    @staticmethod
    def packed_gradient(dy, x, dt, a, b, c, skip, documents): ...
```
Operands come in the order of the op's signature, in their own dtypes, with whatever strides they have; one that may be absent is None, and so are
states that are zeros, and gradients of what nothing reads. Attributes come by name. Results leave in the dtype of the first operand, states in the
dtype that the signature says, gradients in any. The plain torch body of the op, `reference`, takes everything: it is what is left where nothing fits.

A kernel stands in a module of `FAMILIES`, or in one that an installed package names in the entry-point group `archdsl.kernels`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from archdsl.dims import Size
from archdsl.graph import TensorType
from archdsl.records import field, record

REFERENCE = "reference"
FAMILIES: tuple[str, ...] = (
    "gated",
    "linear",
    "rows",
    "decode",
    "flash_linear",
    "flex",
    "onednn",
    "written_out",
)
"""The modules of `archdsl.kernels` that declare kernels, in the order of preference. None of them imports torch or triton."""
Types = Mapping[str, TensorType | None]
Fits = Callable[[Types, Mapping[str, Any]], str | None]
Limits = Callable[[str, str, Types], str | None]


class KernelError(ValueError):
    """A kernel that was asked for by name and cannot be used: the reason in words."""


@record(slots=False)
class Binding:
    """One kernel of one op. `devices`, `dtypes`: of the first operand, as the language names types. `capability`: the least compute capability of a
    card. `needs`: modules that have to be installed. `fits(types, attributes)` says why operands of these types cannot be taken, or None; a size
    that varies at run time is a `Dim` there and counts as one that fits. `fuses`: a compiler of graphs does as well by fusing the op's body with what
    is around it, so that the kernel is for calls that are not compiled. `by_name`: taken where it is asked for, never by itself. `worth(types,
    attributes)` says why it is not taken by itself for operands that it could take, or None. `limits(device, dtype, types)`: as `fits`, what is so on
    one of the devices alone. `body` holds `forward`, and `gradient`, `step`, `inline` and `eager` where it has them."""

    op: str
    name: str
    body: Any
    devices: tuple[str, ...]
    dtypes: tuple[str, ...]
    capability: tuple[int, int]
    needs: tuple[str, ...]
    fits: Fits | None
    fuses: bool = False
    by_name: bool = False
    limits: Limits | None = None
    worth: Fits | None = None

    @property
    def doc(self) -> str:
        return (self.body.__doc__ or "").strip()

    @property
    def forward(self) -> Callable[..., Any]:
        return self.body.forward

    @property
    def asks(self) -> bool:
        """Whether `gradient` takes `needs`, for each operand whether its gradient is wanted."""
        return getattr(self.body, "asks", False)

    @property
    def spares(self) -> Mapping[str, tuple[str, ...]]:
        """Operands that are not kept for `gradient`, which gets tensors of their shapes without their numbers: each unless a gradient of these other
        operands is wanted."""
        return getattr(self.body, "spares", {})

    @property
    def gradient(self) -> Callable[..., Any] | None:
        return getattr(self.body, "gradient", None)

    @property
    def inline(self) -> Callable[..., Any] | None:
        """What stands in the graph in the place of the op, as its body would: torch, and what compiles a graph, see through it."""
        return getattr(self.body, "inline", None)

    @property
    def eager(self) -> Callable[..., Any] | None:
        """What the code of a model for the CPU calls in the place of torch's function (`archdsl/kernels/eager.py`), with its arguments: for tensors
        that hold numbers, with gradients of its own."""
        return getattr(self.body, "eager", None)

    @property
    def of(self) -> str:
        """The op of a model for which another kernel is asked for to have that instead: the kernel's own, or the one in whose place a recorded step
        computes more at once; "" for none."""
        return getattr(self.body, "of", self.op)

    @property
    def empty(self) -> tuple[str, ...]:
        """Operands that may hold no numbers."""
        return getattr(self.body, "empty", ())

    @property
    def step(self) -> Callable[..., Any] | None:
        return getattr(self.body, "step", None)

    def refusal(self, device: str, dtype: str, types: Types, attributes: Mapping[str, Any], capability: tuple[int, int] | None,
                installed: bool) -> str | None:
        """Why it cannot be used, or None."""
        if device not in self.devices and not (device == "cpu" and "triton" in self.needs and interpreted()):
            return f"it runs on {_list(self.devices)}, not on {device}"
        if capability is not None and capability < self.capability:
            return f"it needs compute capability {_dotted(self.capability)}, and this card has {_dotted(capability)}"
        missing = [m for m in self.needs if installed and not _installed(m)]
        if missing:
            return f"{_list(missing, 'and')} is not installed"
        if dtype not in self.dtypes:
            return f"it takes {_list(self.dtypes)}, not {dtype}"
        if any(t is not None and 0 in t.shape and name not in self.empty for name, t in types.items()):
            return "an operand is empty"
        why = self.limits(device, dtype, types) if self.limits is not None else None
        return why if why is not None or self.fits is None else self.fits(types, attributes)


@record(slots=False)
class Choice:
    """`binding`: None for the reference. `reasons`: why those in front of it are not taken, by name."""

    binding: Binding | None
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.binding.name if self.binding is not None else REFERENCE


BINDINGS: dict[str, dict[str, Binding]] = {}
"""Op -> name -> kernel. The op of a recurrence stands for its forms too (`ssd` for `ssd_extend` and `ssd_packed`)."""

VERSION = 0
"""Counts the changes of `BINDINGS`: what was chosen before one does not hold after it."""


def _changed() -> None:
    global VERSION
    VERSION += 1


def kernel(op: str, name: str, *, devices: tuple[str, ...] = ("cuda",), dtypes: tuple[str, ...], capability: tuple[int, int] = (8, 0),
           needs: tuple[str, ...] = ("triton",), fits: Fits | None = None, fuses: bool = False, by_name: bool = False,
           limits: Limits | None = None, worth: Fits | None = None) -> Callable[[type], type]:
    """Registers the decorated class as a kernel of an op. Raises ValueError where the name is taken."""
    def register(body: type) -> type:
        own = BINDINGS.setdefault(op, {})
        if name in own or name == REFERENCE:
            raise ValueError(f"{op} has a kernel called {name} already")
        own[name] = Binding(op, name, body, devices, dtypes, capability, needs, fits, fuses, by_name, limits, worth)
        _changed()
        return body

    return register


@contextmanager
def apart() -> Iterator[None]:
    """What is declared inside is gone afterwards: for tests and examples, which leave nothing behind in their process."""
    load()
    before = {op: dict(own) for op, own in BINDINGS.items()}
    try:
        yield
    finally:
        BINDINGS.clear()
        BINDINGS.update(before)
        _changed()


def later(module: str, name: str) -> Callable[..., Any]:
    """A function of one of our modules, which is imported when it is first called: none of those that declare kernels imports triton."""
    def call(*args: Any, **attributes: Any) -> Any:
        return getattr(import_module(f"archdsl.kernels.{module}"), name)(*args, **attributes)

    return staticmethod(call)


@cache
def load() -> None:
    """Imports the modules that declare kernels: ours, then those of installed packages."""
    from archdsl.plugins import load_group

    for family in FAMILIES:
        import_module(f"archdsl.kernels.{family}")
    load_group("archdsl.kernels")


def bindings(op: str) -> dict[str, Binding]:
    """The kernels of an op by name, the preferred one first."""
    load()
    return BINDINGS.get(op, {})


def owner(call: Callable[..., Any]) -> Binding | None:
    """The kernel that a function belongs to."""
    parts = ("forward", "gradient", "step", "packed", "packed_gradient")
    return next((k for own in BINDINGS.values() for k in own.values() if any(getattr(k.body, part, None) is call for part in parts)), None)


def devices() -> tuple[str, ...]:
    """The CPU, and every device that a kernel runs on."""
    load()
    return tuple(dict.fromkeys(("cpu", *(d for own in BINDINGS.values() for b in own.values() for d in b.devices))))


def choose(op: str, device: str, dtype: str, types: Types, attributes: Mapping[str, Any], *, asked: str | None = None,
           capability: tuple[int, int] | None = None, installed: bool = True) -> Choice:
    """The first kernel that takes operands of these types, or the one `asked` for. `device`: cpu, cuda, …; `dtype`: of the first operand;
    `types`: of operands and states by name, None for one that is absent. `installed`: False to ask for another machine, whatever is missing here.
    Raises KernelError where what is asked for does not exist or cannot be used."""
    known = bindings(op)
    if asked == REFERENCE:
        return Choice(None, dict.fromkeys(known, "the reference is asked for"))
    if asked is not None and asked not in known:
        raise KernelError(f"`{op}` has no kernel `{asked}`, only {_list([*(f'`{n}`' for n in known), f'`{REFERENCE}`'], 'and')}")
    reasons: dict[str, str] = {}
    for name, binding in known.items():
        if asked is not None and name != asked:
            reasons[name] = f"`{asked}` is asked for"
            continue
        if asked is None and device not in binding.devices:  # the interpreter is for those who ask for it
            reasons[name] = f"it runs on {_list(binding.devices)}, not on {device}"
            continue
        if asked is None and binding.by_name:
            reasons[name] = "it is taken where it is asked for by name"
            continue
        why = binding.refusal(device, dtype, types, attributes, capability, installed)
        if why is None and asked is None and binding.worth is not None:
            why = binding.worth(types, attributes)
        if why is None:
            return Choice(binding, reasons)
        if asked is not None:
            raise KernelError(f"the kernel `{asked}` of `{op}` cannot be used here: {why}")
        reasons[name] = why
    return Choice(None, reasons)


INTERPRETER = False
"""Whether kernels that are asked for may run in Triton's interpreter where there is no card: thousands of times slower, for tests."""


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on the CPU. Triton looks at the variable when it is imported."""
    import os

    return INTERPRETER and os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _installed(module: str) -> bool:
    return find_spec(module) is not None


def fixed(size: Size | None) -> int | None:
    """A size that is known, for `fits`."""
    return size if isinstance(size, int) else None


def _list(words: Any, last: str = "or") -> str:
    *first, end = words
    return f"{', '.join(first)} {last} {end}" if first else str(end)


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
