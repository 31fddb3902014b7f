"""The table of latencies: what its pieces are, what is measured and when, and that its sums are the sums."""
from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode

import archdsl
from archdsl.cost.layers import count_params
from archdsl.diagnostics.model import ArchError
from archdsl.files import located, shipped_files
from archdsl.lower.build import instance
from archdsl.lower.plan import Definition
from archdsl.search.evaluators.latency import LatencyTable
from archdsl.search.latency import Latency, validate
from archdsl.search.latency.bench import Bench, Measured
from archdsl.search.latency.model import EMPTY
from archdsl.search.latency.pieces import between, cut, loops
from archdsl.search.latency.validate import kendall, spearman
from tests.search.specs import CHOICES

NET = """
use std.channel { MLP }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.residual { Pre }

model Net(d: int = 8 in {8, 16}, depth: int = 2 in 1..4)(tokens: int[B, T = 6] in 0..9) -> logits: [B, T, 10] stream T {
  param table: [10, d] = normal(std = 1)
  x = 2 * embedding(tokens, table)
  layers: for i in range(depth) {
    choose mixer { attention(heads: int = 2 in {2, 4}) => Attention(heads, mask = causal)  mlp => MLP(2 * d) } = attention
    x = Pre(RMSNorm(), mixer)(x) as block
  }
  return x |> Linear(10) as head |> tanh
}
"""
STAGES = """
use std.linear { Linear }
use std.norm { BatchNorm }

block Unit(out: int)(x: [B, c, H, W]) -> [B, out, H, W] {
  param w: [out, c, 3, 3] = kaiming_uniform()
  return relu(conv(x, w, pad = 1) |> BatchNorm() as norm)
}

block Stage(out: int, n: int)(x: [B, c, H, W]) -> [B, out, H, W] {
  x = Unit(out)(x) as first
  units: for i in range(n) { x = Unit(out)(x) as unit }
  return x
}

model Conv(width: int = 4 in {4, 8}, n: int = 1 in 1..3)(x: [B, 3, H = 7, W = 5]) -> y: [B, 2] {
  stages: for i in range(2) { x = Stage((i + 1) * width, n)(x) as stage }
  return mean(x, axis = [2, 3]) |> Linear(2) as head
}
"""


@pytest.fixture
def table(tmp_path: Path) -> str:
    return str(tmp_path / "cache" / "latency.db")


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """How many pieces each round of measurements was about; all run, nothing is timed: the n-th takes 2ⁿ seconds."""
    rounds: list[int] = []

    def in_turns(self, calls, wanted, repeats):
        first = sum(rounds)
        for call in calls:
            with torch.inference_mode():
                call()
        rounds.append(len(wanted))
        return [Measured(2.0 ** (first + i), 0.0) for i in range(len(wanted))]

    monkeypatch.setattr(Bench, "in_turns", in_turns)
    return rounds


def test_equal_layers_are_one_piece_and_what_stands_between_is_one():
    latency = Latency(table=":memory:")
    space = archdsl.loads(NET).space()
    mixed = {"d": 8, "depth": 4, "layers.0.mixer": "mlp", "layers.1.mixer": "mlp", "layers.3.mixer": "mlp", "layers.2.mixer.heads": 4}
    counts = latency.pieces(space.model(space.candidate(mixed)))
    assert sorted((p.block, n) for p, n in counts.values()) == [(False, 1), (True, 1), (True, 1), (True, 3)]
    (rest,) = [p for p, _ in counts.values() if not p.block]
    assert [str(g) for g in rest.inputs] == ["int[1, 6] in 0..9", "float[1, 6, 10]"]
    shallow = latency.pieces(space.model(space.candidate({**{k: v for k, v in mixed.items() if "2" not in k and "3" not in k}, "depth": 2})))
    assert set(shallow) < set(counts) and len(shallow) == 3


def test_stages_are_opened_and_deep_ones_need_no_further_pieces():
    latency = Latency(table=":memory:", batch=2)
    space = archdsl.loads(STAGES).space()
    one, three = (latency.pieces(space.model(space.candidate({"n": n}))) for n in (1, 3))
    assert set(one) == set(three)
    assert sum(n for _, n in one.values()) + 4 == sum(n for _, n in three.values())
    assert {str(p.inputs[0]) for p, _ in one.values() if p.definition.name in ("Unit", "Pass")} >= {"float[2, 3, 7, 5]", "float[2, 8, 7, 5]"}


def test_the_pieces_compute_what_the_model_computes():
    """Run one after another on the model's weights, they give its result: nothing is left out."""
    made = archdsl.loads(NET).elaborate(None, {})
    model = archdsl.loads(NET).build(dtype=torch.float64)
    latency = Latency(table=":memory:", dtype="f64")
    root, inputs, sizes = latency.program(made)
    tokens = torch.tensor([[1, 2, 9, 0, 4, 4]])
    found = between(root)
    assert found is not None and not loops(found[0]) and len(cut(root, inputs, sizes)) == 3
    rest = instance(found[0], dtype=torch.float64).eval()
    rest.load_state_dict({"table": model.table})
    x, _ = rest(tokens, torch.zeros(1, 6, 10, dtype=torch.float64))
    for layer in model.layers:
        x = layer(x)
    _, out = rest(tokens, model.head(x))
    torch.testing.assert_close(out, model(tokens), rtol=1e-12, atol=1e-12)


def test_the_sum_is_that_of_the_table(table: str, counted: list[int]):
    latency = Latency(table=table)
    made = archdsl.loads(NET).elaborate(None, {})
    total = latency.predict(made)
    known = latency._known
    counts = latency.pieces(made)
    assert counted == [4] and latency.measured == 4 and known[EMPTY].seconds == 1.0
    (layer,), (head,), (rest,) = ([k for k, (p, n) in counts.items() if (p.block, n) == kind] for kind in ((True, 2), (True, 1), (False, 1)))
    assert total == 1.0 + 2 * known[layer].seconds + known[head].seconds + known[rest].seconds - 1.0
    assert sorted(m.seconds for m in known.values()) == [1.0, 2.0, 4.0, 8.0]


def test_each_piece_is_measured_once_and_kept(table: str, counted: list[int]):
    space = archdsl.loads(NET).space()
    latency = Latency(table=table)
    first, second = (space.candidate({"d": 8, "depth": n}) for n in (2, 4))
    a = latency.predict(space.model(first))
    b = latency.predict(space.model(second))
    assert counted == [4] and b > a
    other = Latency(table=table)
    assert other.predict(space.model(second)) == b and other.measured == 0 and counted == [4]
    other.predict(space.model(space.candidate({"d": 16})))
    assert counted == [4, 3]


def test_the_file_is_open_while_it_is_used(table: str, counted: list[int], monkeypatch):
    made, opened, connect = archdsl.loads(NET).elaborate(None, {}), [], sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **how: (opened.append(connect(*args, **how)), opened[-1])[1])
    Latency(table=table).predict(made)
    Latency(table=table).predict(made)
    assert counted == [4] and len(opened) >= 4
    for db in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
            db.execute("SELECT 1")


@pytest.mark.parametrize("how", [{"dtype": "f64"}, {"batch": 2}, {"at": {"T": 7}}, {"form": "extend"}])
def test_what_makes_another_key(table: str, counted: list[int], how: dict):
    made = archdsl.loads(NET).elaborate(None, {})
    Latency(table=table).predict(made)
    before = sum(counted)
    Latency(table=table, **how).predict(made)
    assert sum(counted) - before >= 3


def test_another_device_and_another_torch_have_other_keys(table: str, counted: list[int], monkeypatch):
    made = archdsl.loads(NET).elaborate(None, {})
    Latency(table=table).predict(made)
    monkeypatch.setattr(Bench, "name", "another machine")
    Latency(table=table).predict(made)
    monkeypatch.setattr("archdsl.search.latency.model.torch", SimpleNamespace(__version__="9.9"))
    Latency(table=table).predict(made)
    assert counted == [4, 4, 4]
    with closing(sqlite3.connect(table)) as db:
        told = [json.loads(k) for (k,) in db.execute("SELECT key FROM latency")]
    assert {t["device"] for t in told} > {"another machine"} and {t["dtype"] for t in told} == {"float32"} and len(told) == 12


def test_initial_values_take_no_time():
    a, b = (archdsl.loads(NET.replace("std = 1", f"std = {s}")).elaborate(None, {}) for s in (1, 2))
    latency = Latency(table=":memory:")
    assert a.graph.hash != b.graph.hash and set(latency.pieces(a)) == set(latency.pieces(b))


class Counted(TorchFunctionMode):
    """Inside, the clock of measurements tells how many numbers torch's functions have been given and have made: a microsecond each."""

    def __init__(self, monkeypatch) -> None:
        self.seconds = 0.0
        monkeypatch.setattr("archdsl.search.latency.bench.time", SimpleNamespace(perf_counter=lambda: self.seconds))
        super().__init__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.seconds += 1e-6 * sum(t.numel() for t in (*args, made) if isinstance(t, torch.Tensor))
        return made


def test_times_are_measured(table: str, monkeypatch):
    """A hundred times the work takes longer; the evaluator says milliseconds."""
    space = archdsl.loads(NET.replace("{8, 16}", "{8, 512}").replace("T = 6", "T = 64")).space()
    evaluator = LatencyTable(repeats=3, table=table)
    evaluator.setup(space, ())
    with Counted(monkeypatch):
        small, large = (evaluator(space.candidate({"d": d}), seed=0, fidelity=1.0)["latency_ms"] for d in (8, 512))
    assert 0 < 30 * small < large
    assert evaluator(space.candidate({"d": 8}), seed=5, fidelity=0.5)["latency_ms"] == small
    assert Latency(table=table).predict(space.model(space.candidate({"d": 8}))) == pytest.approx(1e-3 * small)


@pytest.mark.parametrize("form", ["step", "extend"])
def test_forms_with_state_run(table: str, form: str):
    latency = Latency(table=table, form=form, repeats=1)
    made = archdsl.loads(NET).elaborate(None, {})
    assert latency.predict(made) > 0
    out, state = latency.whole(made)()
    assert out.shape == (1, 1 if form == "step" else 6, 10) and set(state) == set(latency.program(made)[0].state)


def test_pieces_are_measured_among_the_others(monkeypatch):
    """All run equally often, in turns; only what is wanted is told."""
    looks = count()
    monkeypatch.setattr("archdsl.search.latency.bench.time", SimpleNamespace(perf_counter=lambda: 1e-7 * next(looks)))
    ran: list[int] = []
    found = Bench("cpu", "f32").in_turns([lambda i=i: ran.append(i) for i in range(3)], [2, 0], 3)
    assert len(found) == 2 and all(m.seconds > 0 for m in found)
    turns = ran[-3 * 3 * 20:]  # three repeats of twenty turns: calls that take no time
    assert turns == [0, 1, 2] * 60
    ran.clear()
    assert len(Bench("cpu", "f32").by_itself([lambda i=i: ran.append(i) for i in range(2)], 2)) == 2
    assert ran[-42:] == [0] * 21 + [1] * 21


def test_validation(table: str, monkeypatch):
    """Errors and ranks from known figures: predictions 1.1 and 0.9 times what is measured, in turns."""
    space = archdsl.loads(NET).space()
    latency = Latency(table=table)
    monkeypatch.setattr(latency, "predict", lambda made: float(sum(p.type.numel for _, p in made.graph.parameters())))
    monkeypatch.setattr(latency, "whole", lambda made: made)
    monkeypatch.setattr(latency.bench, "by_itself", lambda models, repeats: [
        Measured(latency.predict(m) / (1.1 if i % 2 else 0.9), 0.0) for i, m in enumerate(models)])
    found = validate(space, 6, 0, latency)
    assert len(found.rows) == 6 and found.error == pytest.approx(0.1) and found.bias == pytest.approx(0.0, abs=1e-12)
    assert "6 models: mean relative error 10.0%, bias" in str(found)


def test_ranks():
    """Ties on both sides; the figures are those of scipy.stats.spearmanr and kendalltau."""
    a, b = [3.0, 1.0, 2.0, 2.0, 9.0, -1.0], [1.0, 0.5, 2.0, 0.7, 0.7, -3.0]
    assert spearman(a, b) == pytest.approx(0.6323529411764706) and kendall(a, b) == pytest.approx(0.5)
    assert spearman([1.0, 1.0], [1.0, 2.0]) != spearman([1.0, 1.0], [1.0, 2.0])  # NaN


def test_bad_options(table: str, tmp_path: Path):
    space = archdsl.loads(NET).space()
    wrong = [({"device": "gpu"}, "there is no device `gpu` here"), ({"device": "meta"}, "computes nothing"), ({"form": "warp"}, "it is one of"),
             ({"repeats": 0}, "`repeats` cannot be 0"), ({"dtype": "i8"}, "no float type"), ({"at": "Q=3"}, "no run-time size `Q`"),
             ({"table": str(tmp_path)}, "cannot be used")]
    for how, said in wrong:
        with pytest.raises(ArchError, match=said):
            LatencyTable(**{"table": table, **how}).setup(space, ())
    (tmp_path / "text.db").write_text("no database, but a text of some length\n" * 40)
    with pytest.raises(ArchError, match="A0819"):
        LatencyTable(table=str(tmp_path / "text.db")).setup(space, ())


def ops(made: Definition) -> int:
    """How many ops a definition applies, those of the blocks that it calls included."""
    inside = sum(ops(made.children[n.attrs["path"]]) for n in made.graph.nodes if n.op == "call")
    return inside + sum(n.op not in ("input", "param", "read", "call", "commit", "phase") for n in made.graph.nodes)


SHIPPED = {Path(f).stem: f for f in shipped_files()}


@pytest.mark.parametrize("path", [pytest.param(SHIPPED[n], id=n) for n in ("llama", "vit", "convnext", "swin", "nextvit")])
def test_pieces_of_shipped_specs_leave_nothing_out(path: str):
    """Every op of the model is in a piece, and in one alone. (What feeds a phase node that a training alone needs is in none.)"""
    spec = archdsl.load(located(path))
    variant = next((v for v in spec.variants if "tiny" in v), None)
    root, inputs, sizes = Latency(table=":memory:").program(spec.elaborate(variant))
    counts = cut(root, inputs, sizes)
    assert sum(times * ops(p.definition) for p, times in counts.values()) == ops(root)
    assert sum(times for _, times in counts.values()) > len(counts) or not loops(root)


# ---------------------------------------------------------------- as a limit and an objective
def test_latency_limits_a_search(monkeypatch, tmp_path):
    """A machine whose time is its parameters: one second for 10⁹ of them and batch 1, T = 4."""
    asked: list[dict[str, int]] = []

    def predict(self, made):
        asked.append(self.at)
        return count_params(made.graph) * self.at.get("T", 4) / 4e9

    monkeypatch.setattr(Latency, "predict", predict)
    table = f'table = "{tmp_path}/here.db"'
    spec = archdsl.loads(CHOICES)
    free, limited = spec.space(), spec.space(limits=[f"latency({table}) <= 3us", f"latency({table}, T = 8) >= 4us"])
    sizes = [free.costs(c, ["params"])["params"] for c in map(free.sample, range(20))]
    assert min(sizes) < 2000 and max(sizes) > 3000
    found = [limited.sample(seed) for seed in range(10)]
    assert all(2000 <= limited.costs(c, ["params"])["params"] <= 3000 for c in found)
    assert all(2000 <= limited.costs(limited.mutate(c, 1), ["params"])["params"] <= 3000 for c in found)
    assert limited.size is None and "is measured" in limited.bounds[2] and {"T": 8} in asked and {} in asked
    assert limited.costs(found[0], [f"latency({table})"]) == {f"latency({table})": limited.costs(found[0], ["params"])["params"] / 1e9}
    with pytest.raises(ArchError, match=r"A0806(?s:.*)0 of 20 others keep within `latency\(.*\) <= 0.01us`"):
        spec.space(limits=[f"latency({table}) <= 0.01us"]).sample(0)


def test_latency_that_cannot_be_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # the table of whoever runs this may be of another format
    for limit, said in (('latency(device = "gpu") <= 5ms', "A0816"), ('latency(devise = "cpu") <= 5ms', "A0404.*neither a knob nor a run-time size"),
                        ("latency(device = cuda) <= 5ms", "A0404.*a text in quotes"), ("latency(dtype = f31) <= 5ms", "A0404.*a float type"),
                        ('latency(form = "step") <= 5ms', "A0501"), ("latency(n = 2) <= 5ms", "A0804"), ("latency", "A0405")):
        with pytest.raises(ArchError, match=said):
            archdsl.loads(CHOICES).space(limits=[limit]).sample(0)
    with pytest.raises(ArchError, match=r"A0404.*a claim holds on every machine"):
        archdsl.loads(CHOICES + "claim { latency <= 5ms }\n")
    assert archdsl.loads(CHOICES + "space quick of Net { latency(B = 2) <= 2.5ms }\n").space("quick").limits[0].text == "latency(B = 2) <= 2.5ms"
