"""Every op with every odd value for every argument: a diagnostic, or a model that runs."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import pytest
import torch

from archdsl.diagnostics.model import ArchError
from archdsl.dims import evaluate
from archdsl.elaborate.values import show
from archdsl.graph import TensorType
from archdsl.inputs import sample_inputs
from archdsl.ops import registry
from archdsl.ops.rules import torch_dtype
from archdsl.spec import loads
from tests.fuzz.drive import DATA

registry.load()
UNCALLED = {"rearrange", "reduce", "einsum", "aten"}  # they have a syntax of their own
ODD = """none true 1.5 -1 0 3 7 10**9 10**30 1e308 -1e308 0-1.5 "a" "" "sum" [] [1] [-1] [0] [1,2,3] [1.5] [none] ["a"] [[1]] (1,2) [(1,2)]
[[1,2],[3]] causal full
normal() relu Linear(4) block(z)=>z R(1) R odd T T+1 floordiv(T,2) [T] [odd] [odd,1] [odd,odd] odd>0 T>3 w f normal iota sum keys(odd>0)""".split()


def declared(t: TensorType) -> str:
    return f"{'' if t.dtype == 'float' else t.dtype}[{', '.join(map(str, t.shape))}]" + (f" in 0..<{int(t.high)}" if t.dtype == "int" else "")  # type: ignore[attr-defined]


def names_of(inputs: list[str]) -> set[str]:
    return {i.partition(":")[0] for i in inputs}


def results_of(op: registry.Op) -> str:
    """Names for the results: v, or v0, v1, …"""
    n = len(op.decl.outs)
    return "v" if n == 1 else ", ".join(f"v{i}" for i in range(n))


def texts(op: registry.Op) -> Iterator[tuple[str, str]]:
    """(the call, a model with it) for the first samples of an op."""
    assert op.samples is not None
    for sample in op.samples()[:2]:
        inputs, good = ["odd: [B = 2, T = 4, 8]"], {}
        for k, v in sample.items():
            operands = [o for o in (v if isinstance(v, tuple) else (v,)) if isinstance(o, TensorType)]
            if operands:
                names = [f"{k}_{i}" for i in range(len(operands))]
                inputs += [f"{n}: {declared(o)}" for n, o in zip(names, operands) if getattr(o, "high", 1) != float("inf")]
                good[k] = f"[{', '.join(names)}]" if isinstance(v, tuple) else names[0]
            else:
                good[k] = show(v)
        for p in op.decl.params:
            mine = good.get(p.name, "")
            other_types = (
                [f"({mine} > 0)", f'cast({mine}, "int")', f'cast({mine}, "f32")', f'cast({mine}, "bf16")'] if mine in names_of(inputs) else []
            )
            for odd in [*ODD, *other_types]:
                call = f"{op.name}({', '.join(f'{k} = {v}' for k, v in {**good, p.name: odd}.items())})"
                yield (
                    call,
                    (
                        "use std.linear { Linear }\nrecord R { a: int }\n"
                        f"model M()({', '.join(inputs)}) -> y: [B, T, 8] {{\n"
                        f"  param w: [8] = ones()\n  share f = Linear(8)\n  z = f(odd)\n  {results_of(op)} = {call}\n  return z\n}}"
                    ),
                )


def runs(text: str) -> bool:
    """Whether it is accepted; then it runs, and its results are of the types that they were said to have."""
    try:
        spec = loads(text)
    except ArchError:
        return False
    made = spec.elaborate()
    names = next(line for line in text.split("\n") if line.startswith("  v")).strip().partition(" = ")[0].split(", ")
    used = text.replace("  return z\n", f"{''.join(f'  emit {n} = {n}{chr(10)}' for n in names)}  return z\n")
    try:
        made = loads(used).elaborate()
    except ArchError:  # v is no tensor
        return True
    sizes = made.example_sizes()
    types = {path: value.type for path, value in made.graph.emits.items()}
    shapes = {path: tuple(s if isinstance(s, int) else evaluate(s, sizes) for s in t.shape) for path, t in types.items()}
    if any(prod(shape) > 10**7 for shape in shapes.values()):
        return True
    model = loads(used).build(emit=list(types), dtype=torch.float64)
    try:
        _, emitted = model(*sample_inputs(made, sizes, dtype=torch.float64))
    except (IndexError, RuntimeError, ValueError) as fault:
        if any(told in str(fault) for told in DATA):
            return True
        raise
    for path, t in types.items():
        assert tuple(emitted[path].shape) == shapes[path]
        assert emitted[path].dtype == torch_dtype(t.dtype, torch.float64)
    return True


def check(cases: list[tuple[str, str]]) -> None:
    accepted = 0
    for call, text in cases:
        try:
            accepted += runs(text)
        except Exception as fault:
            raise AssertionError(f"{call}\n{text}") from fault
    assert accepted < len(cases)


@pytest.mark.parametrize("name", sorted(set(registry.OPS) - UNCALLED))
def test_a_few_arguments(name: str):
    cases = list(texts(registry.OPS[name]))
    check(cases[hash_of(name) % 31 :: 31])


@pytest.mark.proof
@pytest.mark.parametrize("name", sorted(set(registry.OPS) - UNCALLED))
def test_all_arguments(name: str):
    check(list(texts(registry.OPS[name])))


def emptied(op: registry.Op) -> Iterator[tuple[str, str]]:
    """(the call, a model with it) for samples of an op whose operands have axes of 0 positions: wherever one of the sample's sizes stood."""
    assert op.samples is not None
    for sample in op.samples():
        operands = {k: [o for o in (v if isinstance(v, tuple) else (v,)) if isinstance(o, TensorType)] for k, v in sample.items()}
        if any(getattr(o, "high", 1) == float("inf") for of in operands.values() for o in of):
            continue
        for size in sorted({s for of in operands.values() for o in of for s in o.shape}, key=str):
            inputs, given = ["odd: [B = 2, T = 4, 8]"], {k: show(v) for k, v in sample.items() if not operands[k]}
            for k, of in operands.items():
                for i, o in enumerate(of):
                    shape = ", ".join("0" if s == size else str(s) for s in o.shape)
                    kind = f"{'' if o.dtype == 'float' else o.dtype}[{shape}]"
                    inputs.append(f"{k}_{i}: {kind}" + (f" in 0..<{int(o.high)}" if o.dtype == "int" else ""))  # type: ignore[attr-defined]
                names = [f"{k}_{i}" for i in range(len(of))]
                given |= {k: f"[{', '.join(names)}]" if isinstance(sample[k], tuple) else names[0]} if of else {}
            call = f"{op.name}({', '.join(f'{k} = {v}' for k, v in given.items())})"
            yield call, f"model M()({', '.join(inputs)}) -> y: [B, T, 8] {{\n  z = relu(odd)\n  {results_of(op)} = {call}\n  return z\n}}"


@pytest.mark.parametrize("name", sorted(set(registry.OPS) - UNCALLED))
def test_axes_of_no_positions(name: str):
    for call, text in emptied(registry.OPS[name]):
        try:
            runs(text)
        except Exception as fault:
            raise AssertionError(f"{call}\n{text}") from fault


def hash_of(name: str) -> int:
    return sum(map(ord, name))
