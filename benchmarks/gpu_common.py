"""What the sections of benchmarks/gpu.py share: the options, clocks, rows that are printed and kept as soon as they are there."""
from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "transformers", "flash-linear-attention")


def options(description: str | None, more: Callable[[argparse.ArgumentParser], None] | None = None) -> argparse.Namespace:
    """The options of a section. `tiny` and `device cpu` rehearse it: what is printed then says nothing about speed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for a rehearsal")
    parser.add_argument("--only", default="", help="a pattern: rows whose name it does not match are left out")
    parser.add_argument("--skip", default="", help="a pattern: rows whose name it matches are left out")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--kept", type=Path, default=Path("gpu.jsonl"), help="where rows are kept, one JSON object a line")
    if more is not None:
        more(parser)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: `--tiny --device cpu` rehearses")
    return args


def card(device: str) -> str:
    """The device and the versions, one line."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, a rehearsal"
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join([name, *found])


class Rows:
    """The rows of a section: each is measured, printed and kept by itself, so that one that fails takes nothing with it."""

    def __init__(self, section: str, args: argparse.Namespace):
        self.section, self.args, self.card = section, args, card(args.device)

    def wanted(self, name: str) -> bool:
        return re.search(self.args.only, name) is not None and not (self.args.skip and re.search(self.args.skip, name))

    def measure(self, table: str, name: str, run: Callable[[], Mapping[str, Any]]) -> dict[str, Any] | None:
        """The cells of a row, or None where it was not wanted or failed; the reason is printed and kept in its place."""
        if not self.wanted(name):
            return None
        start = time.perf_counter()
        try:
            cells = dict(run())
        except Exception as fault:  # whatever stops one row, the others are measured
            traceback.print_exc(limit=-6)
            cells = {"failed": f"{type(fault).__name__}: {(str(fault).strip().splitlines() or [''])[0][:200]}"}
        taken = round(time.perf_counter() - start, 1)
        row = {"section": self.section, "table": table, "name": name, "cells": cells, "card": self.card, "took": taken}
        with self.args.kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{table} · {name}: " + ", ".join(f"{k} {v}" for k, v in cells.items()) + f"  [{taken} s]", flush=True)
        release(self.args.device)
        return None if "failed" in cells else cells


def read(kept: Path) -> list[dict[str, Any]]:
    """The rows of a file; of those with one name the last that did not fail, at its first place."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in kept.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        key = row["section"], row["table"], row["name"]
        if key not in found or "failed" not in row["cells"] or "failed" in found[key]["cells"]:
            found[key] = row
    return list(found.values())


# ---------------------------------------------------------------- clocks
def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def release(device: str) -> None:
    """Gives back what the last row left."""
    gc.collect()
    torch._dynamo.reset()
    if device == "cuda":
        torch.cuda.empty_cache()


def seconds(run: Callable[[], Any], device: str) -> float:
    """Wall seconds of one run, to the end of what it started on the device."""
    wait(device)
    start = time.perf_counter()
    run()
    wait(device)
    return time.perf_counter() - start


def median(run: Callable[[], Any], device: str, repeats: int, warm: int = 3) -> float:
    """The median of wall seconds."""
    for _ in range(warm):
        run()
    return statistics.median(seconds(run, device) for _ in range(repeats))


def kernel_seconds(run: Callable[[], Any], device: str, repeats: int) -> float:
    """The median of device seconds, the level-2 cache swept before each run, as a kernel amid a model finds it."""
    if device != "cuda":
        return median(run, device, min(repeats, 3), 1)
    sweep = torch.empty(2**28, dtype=torch.int8, device=device)
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        sweep.zero_()
        torch.cuda._sleep(4_000_000)  # some 2 ms, in which Python enqueues all that is timed
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        times.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in times) / 1e3


def peak_gib(run: Callable[[], Any], device: str) -> float | None:
    """The greatest device memory in use during one run, GiB; None elsewhere."""
    if device != "cuda":
        run()
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


# ---------------------------------------------------------------- cells
def ms(s: float | None) -> str:
    return "" if s is None else f"{1e3 * s:.3g}" if s < 0.1 else f"{1e3 * s:.0f}"


def ratio(ours: float | None, theirs: float | None) -> str:
    return "" if not ours or not theirs else f"{ours / theirs:.2f}"


def relative(x: torch.Tensor, reference: torch.Tensor) -> float:
    """The norm of the difference over the norm of the reference, in float64."""
    reference = reference.double()
    return float((x.double() - reference).norm() / reference.norm().clamp_min(1e-300))


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """Tables of rows, those of one title together, with all columns that any of its rows has."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault(row["table"], []).append(row)
    text = []
    for title, members in tables.items():
        columns = list(dict.fromkeys(c for r in members for c in r["cells"]))
        cards = " · ".join(dict.fromkeys(r["card"] for r in members))
        lines = [("", *columns), ("---",) * (1 + len(columns)), *((r["name"], *(str(r["cells"].get(c, "")) for c in columns)) for r in members)]
        text.append(f"### {title}\n{cards}\n\n" + "\n".join(f"| {' | '.join(x.replace('|', '/') for x in line)} |" for line in lines) + "\n")
    return "\n".join(text)


def quiet() -> None:
    """Neither warnings nor transformers' advice between the rows."""
    import warnings

    warnings.simplefilter("ignore")
    try:
        import transformers

        transformers.logging.set_verbosity_error()
    except ImportError:
        print("transformers is not here: its rows fail", file=sys.stderr)
