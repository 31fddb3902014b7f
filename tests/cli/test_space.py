"""archdsl space as a user meets it."""
from __future__ import annotations

import json
from itertools import product

import pytest

import archdsl as package

NET = """\
use std.channel { MLP }
use std.linear { Linear }
use std.norm { LayerNorm }
use std.residual { Pre }

model Net(
  d: int = 16 in 8..32 step 8,
  depth: int = 2 in 1..3,
  ratio: int = 2 in {1, 2, 4},
)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  require d * depth <= 64
  layers: for i in range(depth) {
    choose mixer {
      wide(hidden: int = 32 in {16, 32}) => MLP(hidden)
      nothing => identity
    } = wide
    x = Pre(LayerNorm(), mixer)(x) as mix
  }
  return x |> LayerNorm() as norm |> Linear(ratio * d) as up |> Linear(d) as head
}

variant deep { depth = 3 }
space small of Net { params <= 3k }
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.arch").write_text(NET)
    (tmp_path / "fixed.arch").write_text("model Fixed(d: int = 4)(x: [B = 1, d]) -> y: [B, d] { return 2 * x }\n")
    return tmp_path


def params(spec, d, depth, ratio):
    """Parameters of each candidate with these settings of the header."""
    for mixers in product(("nothing", 16, 32), repeat=depth):
        arms = {f"layers.{i}.mixer": "nothing" if m == "nothing" else "wide" for i, m in enumerate(mixers)}
        hidden = {f"layers.{i}.mixer.hidden": m for i, m in enumerate(mixers) if m != "nothing"}
        yield spec.cost(d=d, depth=depth, ratio=ratio, **arms, **hidden).params


def test_what_is_counted_is_there(archdsl, folder):
    told = json.loads(archdsl("space", "net.arch", "--space", "small", "--limit", "ratio >= 2", "--json").stdout)
    spec = package.load("net.arch")
    costs = [p for d, depth, ratio in product((8, 16, 24, 32), (1, 2, 3), (2, 4)) if d * depth <= 64 for p in params(spec, d, depth, ratio)]
    assert told["size"] == told["at_least"] == told["at_most"] == sum(p <= 3000 for p in costs)
    assert told["uniform"] and told["why"] == "" and told["drawn"] == 100
    assert told["limits"] == ["ratio >= 2", "params <= 3k"]
    assert min(costs) <= told["figures"]["params"]["least"] <= told["figures"]["params"]["median"] <= told["figures"]["params"]["most"] <= 3000
    rows = {r["address"]: (r["count"], r["domains"], r["default"]) for r in told["decisions"]}
    assert rows["d"] == (1, ["8..32 step 8"], "16") and rows["layers.*.mixer"] == (3, ['{"wide", "nothing"}'], "wide")


def test_text_for_readers(archdsl, folder):
    done = archdsl("space", "net.arch:deep", "--figure", "macs(T = 8)", "--draw", 10)
    assert done.stderr == "" and done.stdout.startswith("net.arch:deep: Net.deep\n")
    whole = 3 * (4 * 3 + 4 * 3**2 + 2 * 3**3)  # ratios; widths that fit, and three arms a layer, for each depth
    assert f"candidates   {whole}\n" in done.stdout
    assert "of 10 candidates" in done.stdout and "macs(T = 8)" in done.stdout


def test_what_a_variant_sets(archdsl, folder):
    told = "deep sets depth: searched all the same, unless `--fixed` is said"
    assert told in archdsl("space", "net.arch:deep", "--draw", 0).stdout
    fixed = json.loads(archdsl("space", "net.arch:deep", "--fixed", "--json").stdout)
    assert fixed["size"] == 3 * 2 * 3**3 and "depth" not in {r["address"] for r in fixed["decisions"]}, "at 8 or 16 channels"
    options = ("--objective", "params:min", "--strategy", "random", "--budget", 2)
    assert told in archdsl("search", "net.arch:deep", *options, "-o", "free").stderr
    assert archdsl("search", "net.arch:deep", "--fixed", *options, "-o", "study").stderr == ""
    assert "depth" not in json.loads(archdsl("study", "show", "study", "--json").stdout)["pareto"][0]["knobs"]
    assert "A0822" in archdsl("search", "net.arch:deep", *options, "-o", "free", "--fixed", "--resume", code=1).stderr


def test_what_cannot_be_counted(archdsl, folder):
    assert "A0801" in archdsl("space", "fixed.arch", code=1).stderr
    excluded = archdsl("space", "net.arch", "--limit", "d >= 32", "--limit", "depth >= 3", code=1).stderr
    assert "A0802" in excluded and "d >= 32" in excluded
    assert "A0805" in archdsl("space", "net.arch", "--space", "smal", code=1).stderr
    told = archdsl("space", "net.arch:small", code=1).stderr
    assert "A0401" in told and "`small` is a space" in told and "`--space small`" in told
    assert "A0804" in archdsl("space", "net.arch", "--figure", "params(d = 8)", code=1).stderr
    assert "A0403" in archdsl("space", "net.arch", "--figure", "nope", "--draw", 0, code=1).stderr, "without a candidate that has it as well"


def test_an_arm_that_fits_nowhere_is_told(archdsl, folder):
    """Its error would otherwise only take it out of the space."""
    text = NET.replace("nothing => identity", "nothing => identity\n      bad(k: int = 1 in {1, 2}) => block(y) => concat([y] * (k + 1), axis = -1)")
    (folder / "net.arch").write_text(text)
    told = json.loads(archdsl("space", "net.arch", "--json").stdout)
    assert [(u["arm"], u["addresses"][0]) for u in told["unfit"]] == [("bad", "layers.0.mixer")]
    assert "no candidate has layers.0.mixer = bad" in archdsl("space", "net.arch", "--draw", 3).stdout
    options = ("--objective", "params:min", "--strategy", "random", "--budget", 3, "--limit", "params <= 3k")
    assert "no candidate has layers.0.mixer = bad" in archdsl("search", "net.arch", *options, "-o", "study").stderr
    (folder / "net.arch").write_text(NET)
    assert json.loads(archdsl("space", "net.arch", "--limit", "count(Linear) <= 2", "--json").stdout)["unfit"] == []
    assert "no candidate has" not in archdsl("search", "net.arch", *options, "-o", "other").stderr


def test_long_domains_are_shown_in_short(archdsl, tmp_path):
    """Of what hangs on other decisions a reader sees a few domains, `--json` has all."""
    (tmp_path / "wide.arch").write_text(
        "model Wide(d: int = 64 in 16..512 step 16, hidden: int = 2 * d in multiples(8, d, 4 * d), odd: int = 1 in {1, 2, 3, 5, 8, 13, 21, 34})"
        "(x: [B = 1, d]) -> y: [B, d] { return x * hidden * odd }\n")
    rows = {line.split()[0]: line for line in archdsl("space", "wide.arch").stdout.splitlines() if line}
    assert max(map(len, rows.values())) < 120
    assert " 64..256 step 8; " in rows["hidden"] and "more  128" in rows["hidden"] and "{1, 2, 3, 5, 8, …, 34}" in rows["odd"]
    told = json.loads(archdsl("space", "wide.arch", "--json").stdout)
    hidden = next(r["domains"] for r in told["decisions"] if r["address"] == "hidden")
    assert len(hidden) > 5 and hidden[0] == "{" + ", ".join(map(str, range(64, 257, 8))) + "}"


def test_a_choice_inside_an_if_is_there_for_the_layers_that_apply_it(archdsl, tmp_path):
    """Outside of it, for all layers."""
    choice = "choose f { wide => MLP(8)  nothing => identity } = wide"
    inside = f"if i % 2 == 1 {{ g = MLP(4) }} else {{ {choice}\n g = f }}"
    outside = f"{choice}\n g = if i % 2 == 1 {{ MLP(4) }} else {{ f }}"
    for body, size in ((inside, 2 ** 2), (outside, 2 ** 4)):
        text = f"model M()(x: [B = 1, 4]) -> y: [B, 4] {{\n layers: for i in range(4) {{ {body}\n x = g(x) as g }}\n return x }}\n"
        (tmp_path / "some.arch").write_text(f"use std {{ MLP }}\n{text}")
        assert json.loads(archdsl("space", "some.arch", "--json").stdout)["size"] == size
