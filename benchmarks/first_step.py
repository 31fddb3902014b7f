"""The first training step of a 24-layer Llama, ours compiled by layer beside transformers' compiled whole, and where its time goes.

    python benchmarks/first_step.py [--runs 3] [--threads 2] [--states cold,warm] [--markdown FILE]

Each run is a process of its own with an empty compile cache, ours and the peer in turns: seconds from the built model to the end of the first step
(forward, backward, AdamW), then the median of twenty further steps. Limits: first step at most 0.35 of the peer's, further steps within 3%.

torch precompiles a header and probes the processor's vector instructions before the first C++ kernel of a machine. `cold`: each process does both
again. `warm`: neither does, since something else has been compiled on the machine before and the probes are answered by TORCHINDUCTOR_VEC_ISA_OK
(torch 2.11 imports torch in six processes for them, whatever is on disk). No kernel of the two models is in the cache in either state.
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import current_thread, main_thread
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import Table, show

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"vocab": 4000, "d": 256, "depth": 24, "heads": 4, "kv_heads": 4, "hidden": 704}
STEPS = 20
PARTS = ("tracing", "AOTAutograd", "inductor, Python", "probes of vector instructions", "precompiled header", "waiting for g++", "the rest")


def measure(ours: bool) -> None:
    """Prints as JSON: seconds of the first step and of each further one, the parts of the first, its CPU seconds, C++ files compiled."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(int(os.environ["THREADS"]))
    torch.manual_seed(0)
    tokens = torch.randint(0, SIZES["vocab"], (4, 256))
    if ours:
        import archdsl

        model = run = archdsl.load(ROOT / "specs/language/llama.arch").build(**SIZES)
    else:
        from transformers import LlamaConfig, LlamaForCausalLM

        model = LlamaForCausalLM(LlamaConfig(vocab_size=SIZES["vocab"], hidden_size=SIZES["d"], intermediate_size=SIZES["hidden"], use_cache=False,
                                             num_hidden_layers=SIZES["depth"], num_attention_heads=SIZES["heads"]))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    clocks = watch()
    before, cpu, start = kernels(), processors(), perf_counter()
    if ours:
        archdsl.compile_layers(model)
    else:
        run = torch.compile(model)
    times, parts, used = [], {}, 0.0
    for _ in range(STEPS + 1):
        logits = run(tokens)
        logits = logits if ours else logits.logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()
        times.append(perf_counter() - start)
        if not parts:
            parts, used = split(times[0], clocks), processors() - cpu
        start = perf_counter()
    print(json.dumps({"times": times, "parts": parts, "cpu": used, "kernels": kernels() - before}))


def kernels() -> int:
    """C++ files of kernels in the cache."""
    return sum(1 for _ in Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rglob("*.main.cpp"))


def processors() -> float:
    """CPU seconds of this process and of the children that have ended."""
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def watch() -> dict[str, float]:
    """Imports inductor, which transformers does on its own, and times what torch does not time: the dictionary fills while it compiles."""
    from torch._inductor import codecache, compile_fx, cpu_vec_isa  # noqa: F401

    clocks: dict[str, float] = {}

    def timed(holder: Any, name: str, part: str) -> None:
        inner: Callable[..., Any] = getattr(holder, name)

        def outer(*args: Any, **kw: Any) -> Any:
            begun = perf_counter()
            try:
                return inner(*args, **kw)
            finally:
                if current_thread() is main_thread():  # what runs beside it is not waited for
                    clocks[part] = clocks.get(part, 0.0) + perf_counter() - begun

        setattr(holder, name, outer)

    timed(cpu_vec_isa.VecISA, "check_build", "probes of vector instructions")
    timed(codecache, "_precompile_header", "precompiled header")
    return clocks


def split(total: float, clocks: dict[str, float]) -> dict[str, float]:
    """The first step's wall seconds by what they went into; `the rest` runs the model and the optimizer."""
    from torch._dynamo.utils import compilation_time_metrics as spent

    def of(*names: str) -> float:
        return sum(sum(times) for key, times in spent.items() if key.split(".")[-1] in names)

    fixed = {p: clocks.get(p, 0.0) for p in ("probes of vector instructions", "precompiled header")}
    inductor, waiting = of("fw_compiler_base", "bw_compiler"), of("wait")
    parts = {
        "tracing": of("compile_inner") - of("call_user_compiler"),
        "AOTAutograd": of("call_user_compiler") - of("fw_compiler_base"),
        "inductor, Python": inductor - sum(fixed.values()) - waiting,
        **fixed,
        "waiting for g++": waiting,
    }
    return {**parts, "the rest": total - sum(parts.values())}


def compile_something() -> None:
    """What the warm state starts from: an unrelated function, compiled forward and backward."""
    import torch

    torch.compile(lambda x: x.exp().sin().sum())(torch.randn(64, 64, requires_grad=True)).backward()


def process(code: str, cache: Path, shared: Path, threads: int, warm: bool) -> str:
    """The output of Python code in a new process: cache holds compiled kernels, shared the header that torch keeps in the temporary folder."""
    cache.mkdir(parents=True, exist_ok=True)
    shared.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache), "TMPDIR": str(shared), "THREADS": str(threads),
           "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **({"TORCHINDUCTOR_VEC_ISA_OK": "1"} if warm else {})}
    command = [sys.executable, "-c", f"from benchmarks import first_step; first_step.{code}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def fresh(ours: bool, threads: int, base: Path | None) -> dict[str, Any]:
    """One run; base: the folder of the warm state, of which each run gets a copy of the compile cache."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        if base is not None:
            shutil.copytree(base / "cache", cache)
        shared = base / "shared" if base else Path(folder) / "shared"
        return json.loads(process(f"measure({ours})", cache, shared, threads, base is not None).splitlines()[-1])


def rows_of(state: str, runs: int, threads: int) -> tuple[list[tuple[str, ...]], list[dict[str, Any]], list[dict[str, Any]]]:
    rows: list[tuple[str, ...]] = []
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) if state == "warm" else None
        if base:
            process("compile_something()", base / "cache", base / "shared", threads, warm=True)
        for i in range(runs):
            for ours in (True, False) if i % 2 else (False, True):
                found[not ours].append(fresh(ours, threads, base))
            mine, theirs = found[0][-1]["times"], found[1][-1]["times"]
            first, later = mine[0] / theirs[0], statistics.median(mine[1:]) / statistics.median(theirs[1:])
            cells = [mine[0], theirs[0], statistics.median(mine[1:]), statistics.median(theirs[1:])]
            rows.append((state, str(i + 1), *(f"{c:.3f}" for c in cells), f"{first:.3f}", f"{later:.3f}",
                         "yes" if first <= 0.35 and later <= 1.03 else "no"))
            print(*rows[-1], flush=True)
    return rows, *found


def where(state: str, mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The parts of the first step, the median over the runs."""
    def row(name: str, get: Callable[[dict[str, Any]], float]) -> tuple[str, ...]:
        return (state, name, *(f"{statistics.median(map(get, runs)):.1f}" for runs in (mine, theirs)))

    rows = [row(part, lambda r, part=part: r["parts"][part]) for part in PARTS]
    return [*rows, row("CPU seconds, children too", lambda r: r["cpu"]), (state, "C++ kernels", str(mine[0]["kernels"]), str(theirs[0]["kernels"]))]


def main() -> list[Table]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--states", default="cold,warm")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    rows: list[tuple[str, ...]] = []
    parts: list[tuple[str, ...]] = []
    for state in args.states.split(","):
        found, mine, theirs = rows_of(state, args.runs, args.threads)
        rows += found
        parts += where(state, mine, theirs)
    head = ("state", "run", "ours, first, s", "peer, first, s", "ours, later, s", "peer, later, s", "first, ratio", "later, ratio", "within")
    note = "Ours compiled by layer, transformers' whole; limits 0.35 and 1.03. Cold: with torch's header and probes; warm: without, for both."
    return [Table("The first training step of a 24-layer Llama", note, head, rows),
            Table("Where the first step goes", "Wall seconds.", ("state", "part", "ours", "peer"), parts)]


if __name__ == "__main__":
    show(main())
