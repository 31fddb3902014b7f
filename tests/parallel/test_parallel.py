"""Plans for tensor-parallel groups, and models over two processes: the loss and every gradient are those of the whole model."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import archdsl
from tests.parallel.ranks import CARD, CASES

ROOT = Path(__file__).resolve().parents[2]


def plan(name: str, variant: str, ranks: int, block: str, **knobs: object) -> dict[str, int]:
    """The plan of one block, addresses without it."""
    found = archdsl.parallel_plan(archdsl.load(f"specs/language/{name}.arch").graph(variant, **knobs), ranks)
    return {a.removeprefix(block): axis for a, axis in found.items() if a.startswith(block)}


def test_rows_and_columns_meet_in_a_block():
    attention = {"attn.q.weight": 0, "attn.k.weight": 0, "attn.v.weight": 0, "attn.out.weight": 1}
    mlp = {"mlp.gate.weight": 0, "mlp.up.weight": 0, "mlp.down.weight": 1}
    assert plan("llama", "tiny", 2, "layers.0.") == attention | mlp
    assert plan("llama", "tiny", 4, "layers.0.") == mlp  # two key heads are not split over four ranks
    assert plan("llama", "tiny", 1, "") == {}
    whole = archdsl.parallel_plan(archdsl.load("llama").graph("tiny"), 2)
    assert all(a.startswith("layers.") for a in whole)  # what is not inside a block is whole


def test_heads_of_recurrences():
    by_head = {"q.weight": 0, "q.conv.weight": 0, "k.weight": 0, "k.conv.weight": 0, "v.weight": 0, "v.conv.weight": 0, "beta.weight": 0}
    assert plan("deltanet", "tiny", 2, "layers.0.mixer.") == by_head | {"out.weight": 1}
    own = {"A_log": 0, "D": 0, "dt_bias": 0, "inner_norm.weight": 0, "out_proj.weight": 1}
    assert plan("mamba2", "tiny", 2, "layers.1.mixer.") == own  # the rows of in_proj are five pieces
    rates = plan("gla", "tiny", 2, "layers.0.mixer.rate.")
    assert rates == {"up.weight": 0, "up.bias": 0}  # by heads, not by rank


def test_ranks_are_counted():
    with pytest.raises(ValueError, match="over 1 rank or more, not 0"):
        archdsl.parallel_plan(archdsl.load("llama").graph("tiny"), 0)


def compared(path: Path, *cases: str) -> dict[str, tuple[float, float]]:
    """Case -> (greatest relative deviation, share of the weights on a rank), in two processes."""
    command = [sys.executable, "-m", "tests.parallel.ranks", str(path / "meeting"), *cases]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    other, first = (subprocess.Popen(command, cwd=ROOT, env={**env, "RANK": rank}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                    for rank in "10")
    try:
        said, fault = first.communicate(timeout=500)
        _, others = other.communicate(timeout=500)
    finally:
        first.kill()
        other.kill()
    assert first.returncode == other.returncode == 0, fault + others
    rows = dict(line.rsplit(": ", 1) for line in said.splitlines() if ": " in line and not line.startswith("[Gloo]"))
    return {case: (float(numbers.split()[0]), float(numbers.split()[1])) for case, numbers in rows.items()}


def agree(found: dict[str, tuple[float, float]]) -> None:
    for case, (deviation, _) in found.items():
        assert deviation <= (1e-4 if case.endswith(CARD) else 1e-10), found


@pytest.mark.slow
def test_two_processes(tmp_path: Path):
    """A hybrid of attention and state spaces; layers sharded over data."""
    found = compared(tmp_path, "hybrid", f"hybrid{CARD}", "sharded", "rounded")
    assert len(found) == 4
    logits, gradients = found.pop("rounded")  # 0.6 and 1.0 where shares are rounded before they are added, or before a bias is
    assert logits <= 0.05 and gradients <= 0.3, (logits, gradients)
    agree(found)
    assert found["hybrid"][1] < 0.65 and found["sharded"][1] == 0.5, found


@pytest.mark.proof
def test_two_processes_every_case(tmp_path: Path):
    found = compared(tmp_path)
    assert set(found) == {*CASES, *(f"{case}{CARD}" for case in CASES), "sharded"}
    agree(found)
    assert found["llama"][1] < 0.65 and found["mamba2"][1] < 0.9, found
