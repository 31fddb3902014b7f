"""The first training step of a 24-layer Llama, ours compiled by layer beside transformers' compiled whole.

    python benchmarks/first_step.py [--runs 3] [--markdown FILE]

Each in a new process with an empty compile cache: seconds from the built model to the end of the first step (forward, backward, AdamW), then the
median of ten further steps. Limits: first step at most 0.35 of the peer's, further steps within 3%.
"""
from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.tables import Table, show

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"vocab": 4000, "d": 256, "depth": 24, "heads": 4, "kv_heads": 4, "hidden": 704}
STEPS = 10


def measure(ours: bool) -> None:
    """Prints [seconds to the first step, seconds of each further step] as JSON."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(int(os.environ.get("THREADS", "2")))
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
    start = perf_counter()
    if ours:
        archdsl.compile_layers(model)
    else:
        run = torch.compile(model)
    times = []
    for _ in range(STEPS + 1):
        logits = run(tokens)
        logits = logits if ours else logits.logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()
        times.append(perf_counter() - start)
        start = perf_counter()
    print(json.dumps(times))


def fresh(ours: bool) -> list[float]:
    with tempfile.TemporaryDirectory() as cache:
        code = f"from benchmarks.first_step import measure; measure({ours})"
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "PYTHONPATH": path}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> list[Table]:
    rows: list[tuple[str, ...]] = []
    for i in range(int(sys.argv[sys.argv.index("--runs") + 1]) if "--runs" in sys.argv else 3):
        ours, peer = fresh(True), fresh(False)
        first, later = ours[0] / peer[0], statistics.median(ours[1:]) / statistics.median(peer[1:])
        cells = [ours[0], peer[0], statistics.median(ours[1:]), statistics.median(peer[1:])]
        rows.append((str(i + 1), *(f"{c:.3f}" for c in cells), f"{first:.3f}", f"{later:.3f}", "yes" if first <= 0.35 and later <= 1.03 else "no"))
        print(*rows[-1], flush=True)
    head = ("run", "ours, first step, s", "peer, first step, s", "ours, later, s", "peer, later, s", "first, ratio", "later, ratio", "within")
    return [Table("The first training step of a 24-layer Llama", "Ours compiled by layer, transformers' whole; limits 0.35 and 1.03.", head, rows)]


if __name__ == "__main__":
    show(main())
