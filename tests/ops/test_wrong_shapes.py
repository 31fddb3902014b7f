"""Wrong ranks and sizes of every op's operands: a diagnostic, or a result that torch agrees with, and never anything else."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.dims import sym
from archdsl.elaborate.builder import Builder
from archdsl.elaborate.frame import Frame, Session
from archdsl.elaborate.ops import infer
from archdsl.graph import TensorType
from archdsl.modules import Library
from archdsl.ops.registry import OPS
from archdsl.ops.rules import Sample
from archdsl.source import Source, Span
from archdsl.syntax import tree
from tests.ops.cases import Call, map_tensors, operand_names, sample


def shapes(shape: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """What may go wrong with a shape: an axis more or less, no axes, one size larger, one size that only a run tells."""
    yield "one axis more", (*shape, 3)
    yield "one axis more in front", (2, *shape)
    yield "many axes", (2, 3, 2, 3, 2, 3, *shape)
    if shape:
        yield "no axes", ()
        yield "one axis less", shape[1:]
        yield "the last axis less", shape[:-1]
    for i, s in enumerate(shape):
        yield f"axis {i} larger", (*shape[:i], s + 1, *shape[i + 1 :])
        yield f"axis {i} varies", (*shape[:i], sym("N"), *shape[i + 1 :])


def wrong(arguments: dict[str, Any], names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The arguments of a sample with one of its tensors changed. Whole numbers are 0: an index that no axis is too short for."""
    tensors: list[TensorType] = []
    for n in names:
        map_tensors(arguments[n], tensors.append)
    for at, t in enumerate(tensors):
        for what, shape in shapes(t.shape):
            count = iter(range(len(tensors)))

            def one(old: TensorType, at: int = at, shape: Any = shape, count: Any = count) -> TensorType:
                kept = old.shape if next(count) != at else shape
                return Sample(old.dtype, kept, old.low, old.high if old.is_float else 1) if isinstance(old, Sample) else TensorType(old.dtype, kept)

            yield f"operand {at}: {what}", {k: map_tensors(v, one) if k in names else v for k, v in arguments.items()}


@pytest.fixture(scope="module")
def frame() -> Frame:
    library = Library()
    module = library.open(Source("test.arch", "model M()(x: [B, 1]) -> y: [B, 1] { return x }\n"), None)
    return Frame(Session(library), module, Builder())


def named_axes(name: str) -> bool:
    """Whether the signature names an axis of an operand, beside `*s` and `...`."""
    kinds = [p.type.item if isinstance(p.type, tree.OptionalType) else p.type for p in OPS[name].decl.params]
    return any(not isinstance(a, (tree.AnyAxes, tree.AxesVar)) for k in kinds if isinstance(k, tree.TensorType) for a in k.shape.axes)


# The results of `aten` are what the spec says. The forms with state are never written: they are made of ops whose shapes are known.
@pytest.mark.parametrize("name", [n for n, o in OPS.items() if operand_names(o) and n != "aten" and not n.endswith("_extend")])
@pytest.mark.filterwarnings("ignore")
def test_wrong_shapes(name: str, frame: Frame):
    op, span = OPS[name], Span(Source("test.arch", name), 0, len(name))
    refused = 0
    for i in range(len((op.samples or list)())):
        for what, arguments in wrong(sample(name, i), operand_names(op)):
            try:
                found = infer(frame, op, {k: map_tensors(v, lambda t: TensorType(t.dtype, t.shape)) for k, v in arguments.items()}, span, {})
            except ArchError as fault:
                refused += 1
                types, codes = None, {d.code for d in fault.diagnostics}
            else:
                types, codes = found, set[str]()
            assert codes <= {"A0304", "A0602"}, f"sample {i}, {what}: {arguments}"
            if types is None:
                continue
            if "varies" not in what:  # test_registry runs sizes that vary
                real = Call(name, i, arguments=arguments)()
                assert [tuple(r.shape) for r in real] == [t.shape for t in types], f"sample {i}, {what}: {arguments}"
    assert refused or not named_axes(name), "no wrong shape is refused"
