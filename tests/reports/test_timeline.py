"""The timeline against the recurrences of the Ladder-residual paper, whose figures it has to give."""
from __future__ import annotations

import pytest

import archdsl
from archdsl.cost.sizes import model_sizes
from archdsl.diagnostics.model import ArchError
from archdsl.reports.registry import REPORTS, Subject

LADDER = "specs/language/ladder.arch"
EVEN = """use std.linear { Linear }
use std.norm { RMSNorm }

block Branch()(x: [..., d]) -> [..., d] { return x |> RMSNorm() as norm |> Linear(2 * d) as up |> relu |> Linear(d) as down }

model Net(d: int = 8, depth: int = 4, ladder: bool = false)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  before = x
  layers: for i in range(depth) {
    y = Branch()(if ladder { before } else { x }) as branch
    before = x
    x = x + y
  }
  return x
}
"""
WORK = 4 * 2 * 2 * 8 * 16  # operations of one branch: two products of 4 positions, 8 by 16
SENT = 4 * 8 * 4  # bytes of its result


def timeline(subjects, at=None, **options):
    rule, defaults = REPORTS.parse("timeline")
    return rule([Subject(name, made, model_sizes(made, at or {})) for name, made in subjects.items()], **{**defaults, **options})


def starts(report, source):
    return [row.cells[0] for row in report.rows if row.source == source and row.address]


@pytest.mark.parametrize(("r", "standard", "ladder", "begins"), [(0.5, 6, 4.5, [0, 1, 2, 3]), (2, 12, 9, [0, 1, 3, 5])])
def test_the_figures_of_the_paper(r, standard, ladder, begins):
    """Four branches of 1 s on each of two devices, all-reduces of r s."""
    spec = archdsl.loads(EVEN)
    found = timeline({"standard": spec.elaborate(), "ladder": spec.elaborate(knobs={"ladder": True})}, devices=2, flops=WORK / 2, bandwidth=SENT / r,
                     dtype="f32")
    assert found.of("standard")["total"] == pytest.approx(standard) and found.of("ladder")["total"] == pytest.approx(ladder)
    assert starts(found, "ladder") == pytest.approx(begins)
    assert found.of("ladder")["speed-up"] == pytest.approx(standard / ladder) and found.baseline == "standard"
    assert found.of("standard")["hidden"] == 0 and found.of("ladder")["communication"] == pytest.approx(4 * r)
    assert [found.of("ladder", f"layers.{i}.branch")["waits for"] for i in range(4)] == [None, None, "layers.0.branch", "layers.1.branch"]
    assert [found.of("standard", f"layers.{i}.branch")["waits for"] for i in range(2)] == [None, "layers.0.branch"]


# ---------------------------------------------------------------- the shipped models
D, HEADS, KV, HIDDEN, VOCAB, DEPTH, T = 64, 8, 4, 96, 128, 4, 32
SIZES = {"vocab": VOCAB, "d": D, "depth": DEPTH, "heads": HEADS, "kv_heads": KV, "hidden": HIDDEN}


def branch_costs(p):
    """Multiply-adds of one device: attention, MLP, head."""
    attention = T * D * (2 * D + 2 * D * KV // HEADS) + 2 * T * T * D
    return attention / p, 3 * T * D * HIDDEN / p, T * D * VOCAB


def recurrence(reads, costs, r):
    """e_k = max(e_(k-1), end of the all-reduce that branch k needs) + c_k. `reads[k]`: the last branch in the stream that k reads."""
    compute = link = 0.0
    arrived = []
    for needed, c in zip(reads, costs):
        compute = max(compute, arrived[needed] if needed >= 0 else 0.0) + c
        link = max(compute, link) + r
        arrived.append(link)
    return compute, link


@pytest.mark.parametrize("ladder", [[], [0, 1, 2, 3], [2, 3], [0, 2], [1]])
@pytest.mark.parametrize("ratio", [0.1, 0.7, 1.5, 4.0])
@pytest.mark.parametrize("p", [2, 4])
def test_any_layers_of_ladder(ladder, ratio, p):
    spec = archdsl.load(LADDER)
    attention, mlp, head = branch_costs(p)
    flops, size = 1e6, 2 * (p - 1) / p * T * D * 2
    r = ratio * 2 * attention / flops
    found = timeline({"m": spec.elaborate(knobs={**SIZES, "ladder": ladder})}, {"T": T}, devices=p, flops=flops, bandwidth=size / r)
    costs = [2 * (mlp if k % 2 else attention) / flops for k in range(2 * DEPTH)]
    reads = [k - 2 if k // 2 in ladder else k - 1 for k in range(2 * DEPTH)]
    compute, link = recurrence(reads, costs, r)
    total = max(compute, link) + 2 * head / p / flops
    whole = found.of("m")
    assert whole["total"] == pytest.approx(total)
    assert whole["compute"] == pytest.approx(sum(costs) + 2 * head / p / flops) and whole["communication"] == pytest.approx(2 * DEPTH * r)
    assert whole["compute"] + whole["idle"] == pytest.approx(whole["total"])
    names = [row.address for row in found.rows[1:]]
    assert names == [f"layers.{k // 2}.{'mlp' if k % 2 else 'attn'}" for k in range(2 * DEPTH)] + ["head"]
    waits = [row.cells[-1] for row in found.rows[1:-1]]
    assert waits == [names[k] if k >= 0 else None for k in reads], "a branch of a ladder layer needs no all-reduce of the branch before it"


@pytest.mark.parametrize("reduced", [[0, 1, 2, 3, 4, 5, 6, 7], [1, 3, 5, 7], [7], [2, 7]])
def test_desync(reduced):
    """Reductions stand alone, nothing beside them; a device does its lane, and its part of the head."""
    p, flops, r = 2, 1e6, 0.01
    spec = archdsl.load(LADDER).models["Desync"]
    made = spec.elaborate(knobs={**SIZES, "devices": p, "reduced": reduced})
    bandwidth = T * D * 2 / r
    found = timeline({"m": made}, {"T": T}, devices=99, flops=flops, bandwidth=bandwidth, lanes="shards")
    attention, mlp, head = branch_costs(p)
    assert found.of("m")["communication"] == pytest.approx(len(reduced) * r)
    assert found.of("m")["total"] == pytest.approx(2 * (DEPTH * (attention + mlp) + head / p) / flops + len(reduced) * r)


def test_the_three_residuals_side_by_side():
    """With all-reduces as long as half a branch: standard slowest; ladder hides all but the last; desync halves what standard waits."""
    spec = archdsl.load(LADDER)
    flops, p = 1e6, 2
    r = branch_costs(p)[1] / flops
    models = {"standard": spec.elaborate("standard", SIZES), "ladder": spec.elaborate(None, SIZES),
              "desync": spec.models["Desync"].elaborate(knobs={**SIZES, "devices": p})}
    found = timeline(models, {"T": T}, devices=p, flops=flops, bandwidth=T * D * 2 / r, lanes="shards")
    assert found.of("standard")["idle"] == pytest.approx(2 * DEPTH * r) and found.of("ladder")["idle"] == pytest.approx(r)
    assert found.of("ladder")["hidden"] == pytest.approx((2 * DEPTH - 1) * r) and found.of("desync")["idle"] == pytest.approx(DEPTH * r)
    assert found.of("standard")["compute"] == pytest.approx(found.of("ladder")["compute"]) == pytest.approx(found.of("desync")["compute"])


def test_llama_3_70b_on_eight_devices():
    """A token at a time, weights read from memory: where an all-reduce takes 30% of a branch, the ladder gives the 30% of the abstract. (That time is
    no figure of the paper: it follows from the rates.)"""
    spec = archdsl.load(LADDER)
    models = {v: spec.elaborate(v, {"ladder": None} if v == "standard" else {}) for v in ("llama3_70b",)}
    models = {"standard": spec.elaborate("llama3_70b", {"ladder": None}), **models}
    plain = timeline(models, {"T": 1}, memory=3.35e12, flops=989e12)
    compute = plain.of("standard")["compute"]
    assert compute == pytest.approx(2 * (70_553_706_496 - 128_256 * 8192) / 8 / 3.35e12, rel=0.01), "bytes of all weights but the table of tokens"
    found = timeline(models, {"T": 1}, memory=3.35e12, flops=989e12, latency=0.3 * compute / 160)
    assert found.of("llama3_70b")["speed-up"] == pytest.approx(1.3, abs=0.01)


def test_rates():
    """Latency counts once for each all-reduce; memory bounds products from below; one device sends nothing."""
    made = archdsl.loads(EVEN).elaborate()
    base = dict(devices=2, flops=WORK / 2, bandwidth=SENT, dtype="f32")
    total = timeline({"m": made}, **base).of("m")["total"]
    assert timeline({"m": made}, **{**base, "latency": 3}).of("m")["total"] == pytest.approx(total + 4 * 3)
    moved = (4 * 8 + 8 * 16 + 16 + 4 * 16) * 4 + (4 * 16 + 8 * 16 + 8 + 4 * 8) * 4
    assert timeline({"m": made}, **{**base, "memory": moved / 20}).of("m")["compute"] == pytest.approx(4 * 20 / 2)
    alone = timeline({"m": made}, **{**base, "devices": 1}).of("m")
    assert alone["communication"] == 0 and alone["total"] == pytest.approx(8)


@pytest.mark.parametrize(("options", "words"), [
    ({"devices": 0}, "more than 0"), ({"flops": -1}, "more than 0"), ({"bandwidth": 0}, "more than 0"), ({"memory": 0}, "more than 0"),
    ({"latency": -1}, "0 or more"), ({"dtype": "f8"}, "bf16"), ({"lanes": "shrads"}, "no model"),
])
def test_options_that_make_no_sense(options, words):
    with pytest.raises(ArchError, match=words) as fault:
        timeline({"m": archdsl.loads(EVEN).elaborate()}, **options)
    assert fault.value.diagnostics[0].code == "A0582"


def test_what_is_not_known_is_said():
    """A block of the user's own costs nothing here, and the report says so; without products there is nothing to tell."""
    text = EVEN.replace("model Net", "extern block Scan()(x: [B, T, d]) -> [B, T, d]\n\nmodel Net")
    text = text.replace("return x\n", "return Scan()(x) as scan\n")
    found = timeline({"m": archdsl.loads(text).elaborate()}, devices=2, dtype="f32")
    assert found.notes == ("m: the cost of scan is not known and left out",) and len(found.rows) == 5
    empty = timeline({"m": archdsl.loads("model M()(x: [B = 2, 3]) -> y: [B, 3] { return relu(x) }").elaborate()})
    assert empty.of("m")["total"] == 0 and empty.of("m")["speed-up"] is None and len(empty.rows) == 1


def test_training_arms_are_left_out():
    """Evaluation is told: attention of the arm for training, which drops weights, is not counted besides."""
    spec = archdsl.load("specs/language/gpt2.arch")
    knobs = {"vocab": 40, "d": 32, "depth": 1, "heads": 4}
    totals = [timeline({"m": spec.elaborate(knobs={**knobs, "drop": drop})}, {"T": 8}).of("m")["compute"] for drop in (0, 0.5)]
    assert totals[0] == totals[1] > 0


def test_a_report_has_a_cell_for_each_column():
    from archdsl.reports import Column, Report, Row

    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        Report("r", (Column("a"),), (Row("m", "layer", (1, 2)),))
    found = Report("r", (Column("size", "B"), Column("n")), tuple(Row("m", f"layers.{i}.f", (1500 if i else 20_000_000, 7)) for i in range(3)))
    assert found.table() == (["", "size", "n"], [["layers.0.f", "20 MB", "7"], ["layers.1..2.f ×2", "1.5 kB", "7"]])
    with pytest.raises(KeyError):
        found.of("m", "nothing")
