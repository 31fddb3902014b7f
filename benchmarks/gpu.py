"""Kernels, training, decoding and parity on a CUDA device, beside their peers in the same run.

    python benchmarks/gpu.py [SECTION …] [--only PATTERN] [--skip PATTERN] [--repeats 20] [--kept gpu.jsonl] [--seconds 600] [--markdown FILE]
    python benchmarks/gpu.py --tiny --device cpu          # a rehearsal of every line without a device
    python benchmarks/gpu.py --show --kept gpu.jsonl      # the tables of what was measured elsewhere

Sections: kernels, training, decode, parity; all when none is named, each in a process of its own. A row is printed and kept as soon as it is
measured, and one that fails is kept with its reason. `--seconds`: a section that is not done by then, all sections together, is ended; its rows stay.
Peers: transformers, and flash-linear-attention where it can be imported. A section's further options: `python benchmarks/gpu_SECTION.py --help`.
"""
from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SECTIONS = ("kernels", "training", "decode", "parity")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = list(takewhile(lambda a: not a.startswith("-"), sys.argv[1:]))
    parser.add_argument("--kept", type=Path, default=Path("gpu.jsonl"))
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--markdown", type=Path)
    args, passed = parser.parse_known_args(sys.argv[1 + len(sections):])
    unknown = [s for s in sections if s not in SECTIONS]
    if unknown:
        parser.error(f"no section is called {unknown[0]}; there are {', '.join(SECTIONS)}")
    end = time.monotonic() + args.seconds
    failed = [] if args.show else [s for s in sections or SECTIONS if not ran(s, [*passed, "--kept", str(args.kept.absolute())], end)]
    from benchmarks.gpu_common import markdown, read

    text = markdown(read(args.kept)) if args.kept.exists() else ""
    print(text)
    if args.markdown is not None:
        args.markdown.write_text(text, encoding="utf-8")
    if failed:
        raise SystemExit(f"not finished: {', '.join(failed)}")


def ran(section: str, options: list[str], end: float) -> bool:
    """Whether a section came to its end within the time."""
    left = end - time.monotonic()
    print(f"# {section}", flush=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run([sys.executable, str(ROOT / f"benchmarks/gpu_{section}.py"), *options], cwd=ROOT, env=environment,
                              timeout=None if left == float("inf") else max(left, 1))
    except subprocess.TimeoutExpired:
        print(f"# {section}: no time left", flush=True)
        return False
    return done.returncode == 0


if __name__ == "__main__":
    main()
