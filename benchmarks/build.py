"""How long it takes to build and to compile: `python benchmarks/build.py [--markdown FILE]`.

Build: an 80-layer Llama with 70 billion parameters on the meta device, from its file, in a new process after the imports. Compile: eight equal
layers by `torch.compile`, where they share one class (as models are built) and where each has a class of its own.
"""
from __future__ import annotations

import statistics
import subprocess
import sys
import warnings
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import Table, ms, show

ROOT = Path(__file__).resolve().parents[1]
RUNS = 5
LIMIT = 1.0
BUILD = """
import torch, archdsl.lower.build, archdsl.names, archdsl.claims, archdsl.spaces, archdsl.elaborate.resolve, archdsl.spec
from benchmarks.build import build
build()
"""
COMPILE = "from benchmarks.build import compile_layers; compile_layers({shared})"


def build() -> None:
    """Prints the seconds to read and check the spec, to build the model on the meta device, and its parameters."""
    from archdsl.spec import resolve_source

    start = perf_counter()
    spec, variant = resolve_source("llama:llama2_70b")
    read = perf_counter()
    model = spec.build(variant, device="meta")
    built = perf_counter()
    count = sum(p.numel() for p in model.parameters())
    assert all(p.is_meta for p in model.parameters())
    print(read - start, built - read, count, len({type(m) for m in model.modules()}))


def compile_layers(shared: bool) -> None:
    """Prints the seconds to compile and run the first of eight layers, and the mean of the others."""
    import torch

    import archdsl

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    spec = archdsl.load(ROOT / "specs/language/llama.arch")
    model = spec.build(vocab=64, d=64, depth=8, heads=4, kv_heads=2, hidden=96)
    given = {}
    for layer in model.layers.children():
        layer.register_forward_pre_hook(lambda layer, args, kwargs: given.update({layer: (args, kwargs)}), with_kwargs=True)
    model(torch.randint(0, 64, (1, 16)))
    times = []
    for layer in model.layers.children():
        layer._forward_pre_hooks.clear()
        if not shared:
            layer.__class__ = type(type(layer).__name__, (type(layer),), {"forward": _own(type(layer).forward)})
        layer.compile(fullgraph=True)
        start = perf_counter()
        layer(*given[layer][0], **given[layer][1])
        times.append(perf_counter() - start)
    assert len(times) == 8 and len({type(layer) for layer in model.layers.children()}) == (1 if shared else 8)
    print(times[0], statistics.mean(times[1:]))


def _own(function):  # type: ignore[no-untyped-def]
    """A function that runs the same code as an object of its own: torch.compile keeps what it compiled by code object."""
    import types

    code = function.__code__.replace(co_firstlineno=function.__code__.co_firstlineno)
    return types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)


def run(code: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [float(x) for x in done.stdout.split()]


def main() -> None:
    rows = [run(BUILD) for _ in range(RUNS)]
    read, made = (statistics.median(r[k] for r in rows) for k in (0, 1))
    count, classes = int(rows[0][2]), int(rows[0][3])
    note = f"{count:,} parameters, {classes} classes; median of {RUNS} new processes. Limit: {ms(LIMIT)} ms to build."
    built = Table("Llama with 80 layers on the meta device", note,
                  ("", "ms", "within"), [("read and check the spec", ms(read), ""), ("build", ms(made), "yes" if made <= LIMIT else "no")])
    rows = [(name, *(f"{t:.3f}" for t in run(COMPILE.format(shared=shared)))) for name, shared in (("one class", True), ("a class each", False))]
    show([built, Table("Compiling 8 equal layers one by one", "`torch.compile(fullgraph=True)` of each layer, on its first call.",
                       ("", "first, s", "each of the others, s"), rows)])


if __name__ == "__main__":
    main()
