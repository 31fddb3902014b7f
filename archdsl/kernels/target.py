"""What a model is built for: the device, and the kernels that are asked for by name."""
from __future__ import annotations

from collections.abc import Mapping

from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.graph import Graph
from archdsl.kernels.bindings import REFERENCE, bindings
from archdsl.records import record
from archdsl.source import Source, Span

Kernels = str | Mapping[str, str] | None


@record(frozen=True)
class Target:
    """`device`: cpu, cuda, …. `every`: the reference for all ops. `named`: (op, kernel). `caches`: "" for ops as they are; `in_place`:
    a step writes into the caches it is given; `fresh`: several positions go into caches that hold none."""

    device: str = "cpu"
    every: bool = False
    named: tuple[tuple[str, str], ...] = ()
    caches: str = ""

    @property
    def plain(self) -> bool:
        """Whether ops are lowered as they are: nothing is asked for, and a compiler of graphs fuses them for the device."""
        return self.device in ("cpu", "meta") and not self.named and not self.every and not self.caches

    def asked(self, op: str) -> str | None:
        return dict(self.named).get(op, REFERENCE if self.every else None)


PLAIN = Target()
JOINED = {"swiglu": ("silu", "mul"), "rotary": ("neg", "concat", "slice", "mul", "add"), "poly_norm": ("rms_norm", "mul", "add", "as_type")}
"""Ops that others are joined to where a kernel computes them together (`archdsl/lower/fusing.py`), and which ones."""


def target(graph: Graph, device: str, kernels: Kernels) -> Target:
    """`kernels`: None or `auto`, `reference`, or op -> kernel. Raises ArchError A0519 for an op that the graph does not have, and for a kernel that
    the op does not have."""
    device = "cpu" if device == "meta" else device
    if kernels is None or kernels == "auto":
        return Target(device)
    if kernels == REFERENCE:
        return Target(device, every=True)
    if not isinstance(kernels, Mapping):
        raise _error(str(kernels), str(kernels), f"`{kernels}` says nothing of kernels",
                     'it is `auto`, `reference`, or kernels by op: {"ssd": "triton"}; on the command line `ssd=triton,rms_norm=reference`')
    present = {family(n.op) for g in graph.definitions() for n in g.nodes}
    present |= {op for op, parts in JOINED.items() if present.issuperset(parts)}
    for op, name in kernels.items():
        if not (isinstance(op, str) and isinstance(name, str)):
            at = repr(name if isinstance(op, str) else op)
            raise _error(at, f"{op!r}: {name!r}", f"ops and kernels are told by their names, not by {at}", 'for example {"ssd": "triton"}')
        known = [*bindings(op), REFERENCE, "auto"]
        if op not in present:
            have = sorted(p for p in present if bindings(p))
            raise _error(op, f"{op} = {name}", f"the model has no op `{op}`",
                         did_you_mean(op, have) or (f"its ops with kernels: {', '.join(have) or 'none'}",))
        if name not in known:
            raise _error(name, f"{op} = {name}", f"`{op}` has no kernel `{name}`", did_you_mean(name, known) or (f"it has {', '.join(known)}",))
    return Target(device, named=tuple(sorted((op, name) for op, name in kernels.items() if name != "auto")))


def parse_kernels(text: str | None) -> Kernels:
    """What `--kernels` says: `reference`, `auto` or `op=kernel,…`. Raises A0519."""
    if text is None or text in ("auto", REFERENCE):
        return text
    found: dict[str, str] = {}
    for part in text.split(","):
        op, eq, name = (p.strip() for p in part.partition("="))
        if not (eq and op and name):
            raise _error(part, text, f"`{part}` says nothing of kernels", "write `reference`, or kernels by op: `ssd=triton,rms_norm=reference`")
        found[op] = name
    return found


def family(op: str) -> str:
    """The op whose kernels an op uses: that of which it is a form, else itself."""
    from archdsl.ops.registry import find

    found = find(op)
    return op if found is None else found.form_of or op


def _error(at: str, text: str, message: str, help: object) -> Exception:
    return error("A0519", message, Span(Source("kernels", text), text.find(at), text.find(at) + len(at)), "asked for here", help=help)  # type: ignore[arg-type]
