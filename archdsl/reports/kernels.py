"""`kernels`: which kernel computes each op of a model on a device, and why not another."""
from __future__ import annotations

from archdsl.cost.model import DTYPES
from archdsl.declared import wrong_option
from archdsl.graph import TensorType
from archdsl.kernels.bindings import bindings, choose, devices
from archdsl.kernels.target import Target, family
from archdsl.lower.fusing import fused
from archdsl.reports.model import Column, Report, Row
from archdsl.reports.registry import Subject, report
from archdsl.reports.work import Tensor, Work, program
from archdsl.streaming import source

COLUMNS = (Column("op"), Column("kernel"), Column("not taken"))


@report('kernels(device: str = "cuda", dtype: str = "bf16", step: int? = none)')
def kernels(subjects: list[Subject], *, device: str, dtype: str, step: int | None) -> Report:
    """What computes each op that has kernels beside the reference, plain torch, on `device` (cuda, cpu) for floats of type `dtype`: the first of its
    kernels that takes operands of these types and sizes. What a kernel computes together is one op, as in the built model. `not taken` says of those
    in front of it why they do not. What is installed on this machine counts for nothing; the compute capability of a card is taken to suffice.
    `build(kernels = …)` fixes a kernel by name.

    `step`: of the step that `generate` records, for so many rows of a batch, instead. `not taken` says there too why attention is not
    written into its cache by a kernel. It needs torch.
    """
    if dtype not in DTYPES:
        raise wrong_option("A0582", "dtype", dtype, f"it is one of {', '.join(DTYPES)}")
    if device not in devices():
        raise wrong_option("A0582", "device", device, f"it is one of {', '.join(devices())}")
    if step is not None and (step < 1 or device != "cuda"):
        raise wrong_option("A0582", "step", step, "it counts the rows of a batch, from 1 up" if step < 1 else "steps are recorded on cuda")
    rows: list[Row] = []
    notes: list[str] = []
    for subject in subjects:
        if step is not None:
            found, note = _step(subject, device, dtype, step)
            rows += found
            notes += [] if note is None else [f"{subject.name}: {note}"]
            continue
        graph = fused(subject.model.graph, Target(device), dtype, installed=False)
        works = [w for w in program(graph, subject.sizes).works if w.op not in ("input", "param")]
        chosen = [w for w in works if bindings(family(w.op))]
        rows += [_row(subject.name, w, device, dtype) for w in chosen]
        others = sorted({w.op for w in works} - {w.op for w in chosen})
        notes.append(f"{subject.name}: plain torch computes {', '.join(others)}" if others else f"{subject.name}: every op has kernels")
    return Report("kernels", COLUMNS, tuple(rows), {"device": device, "dtype": dtype, "step": step}, None, tuple(notes))


def _step(subject: Subject, device: str, dtype: str, rows: int) -> tuple[list[Row], str | None]:
    from archdsl.decoding.told import told

    found, note = told(source(subject.model), rows, subject.sizes, device, dtype)
    return [Row(subject.name, address, tuple(cells)) for address, *cells in found], note


def _row(source: str, work: Work, device: str, dtype: str) -> Row:
    types = {name: _type(arg, dtype) for name, arg in work.args.items()}
    first = next((t for t in types.values() if t is not None), None)
    found = choose(family(work.op), device, first.dtype if first is not None else dtype, types, work.attrs, installed=False)
    reasons = "; ".join(f"{name}: {why}" for name, why in found.reasons.items())
    return Row(source, work.path, (work.op, found.name, reasons))


def _type(arg: object, dtype: str) -> TensorType | None:
    if not isinstance(arg, Tensor):
        return None
    return TensorType(dtype, arg.type.shape) if arg.type.dtype == "float" else arg.type
