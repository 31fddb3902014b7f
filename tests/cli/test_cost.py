"""archdsl cost: the table, rows by layer with equal layers folded, data, wrong sizes."""
from __future__ import annotations

import json

import pytest

import archdsl as archdsl_package
from archdsl.cli.commands.cost import Branch, branches
from archdsl.cost import Layer
from archdsl.cost.units import short

SPEC = """\
use std.linear { Linear }

model Stack(d: int = 4, depth: int = 5) (x: [B = 2, N = 3, d]) -> [B, N, d] {
  layers: for i in range(depth) {
    x = x + Linear(d)(x) as f
  }
  return x |> Linear(d, bias = false) as head
}

variant wide { d = 8 }
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "stack.arch").write_text(SPEC)
    return "stack.arch"


def test_total(archdsl, spec, golden):
    assert archdsl("cost", f"{spec}:wide", "--at", "N=7").stdout == golden


def test_by_layer(archdsl, spec, golden):
    assert archdsl("cost", spec, "--by", "layer").stdout == golden


def test_json(archdsl, spec):
    data = json.loads(archdsl("cost", spec, "--json", "--set", "d=6", "--set", "depth=1", "--at", "B=1,N=1").stdout)
    assert data["params"] == 6 * 6 + 6 + 6 * 6 and data["macs"] == 2 * 6 * 6
    assert all(isinstance(data[k], int) for k in ("params", "weight_bytes", "macs", "saved_bytes", "peak_bytes", "state_bytes"))
    assert data["sizes"] == {"B": 1, "N": 1}
    rows = json.loads(archdsl("cost", spec, "--json", "--by", "layer").stdout)["layers"]
    assert [r["path"] for r in rows[:4]] == ["", "layers.0", "layers.0.f", "layers.1"] and rows[0]["params"] == 5 * 20 + 16


def test_bytes_follow_the_type(archdsl, spec):
    wide, narrow = (json.loads(archdsl("cost", spec, "--json", "--dtype", t).stdout) for t in ("f64", "bf16"))
    assert wide["weight_bytes"] == 4 * narrow["weight_bytes"] == 8 * wide["params"]


@pytest.mark.parametrize(("options", "code"), [
    (("--at", "Q=1"), "A0641"), (("--at", "B"), "A0642"), (("--at", "B=0"), "A0642"), (("--dtype", "f8"), "A0644"), (("--form", "step"), "A0501"),
    (("--set", "e=1"), "A02"), (("--set", "d"), "A06"),
    (("--set", "d=6", "--set", "d = 8"), "A0402"),
])
def test_what_it_refuses(archdsl, spec, options, code):
    assert f"error[{code}" in archdsl("cost", spec, *options, code=1).stderr


@pytest.mark.parametrize("options", [("--by", "colour"), ("--form", "sideways"), ("--at",)])
def test_wrong_usage(archdsl, spec, options):
    assert options[0] in archdsl("cost", spec, *options, code=2).stderr


def test_unknown_sources(archdsl, spec):
    assert "A0621" in archdsl("cost", "absent.arch", code=1).stderr
    assert "did you mean `wide`" in archdsl("cost", f"{spec}:wid", code=1).stderr


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (999, "999"), (1000, "1 k"), (999_499, "999 k"), (999_500, "1 M"), (22_869_664, "22.9 M"),
                                              (1_253_683_200, "1.25 G"), (10**24, "1e+06 E")])
def test_short_numbers(number, text):
    assert short(number) == text


def row(path: str, params: int = 1) -> Layer:
    return Layer(path, "b", params, 0, 0, (1,))


def names(branch: Branch) -> list[str]:
    return [f"{b.name}-{b.last}" if b.last else b.name for b in branch.below]


def test_only_equal_neighbours_fold():
    rows = [row(""), row("a.0"), row("a.1"), row("a.2", 2), row("a.3"), row("a.5"), row("b.6"), row("norm"), row("norm2")]
    assert names(branches(tuple(rows))) == ["a.0-a.1", "a.2", "a.3", "a.5", "b.6", "norm", "norm2"]


def periodic(*params: int) -> Branch:
    return branches((row(""), *(row(f"a.{i}", n) for i, n in enumerate(params)), row("norm")))


def told(branch: Branch) -> list[tuple[str, int, int]]:
    return [(name, b.period, b.row.params) for name, b in zip(names(branch), branch.below)]


def test_patterns_fold():
    """A row of a pattern has the sums of one pass through it; what the pass consists of stands below."""
    made = periodic(1, 2, 1, 2, 1, 2)
    assert told(made) == [("a.0-a.5", 2, 3), ("norm", 1, 1)] and told(made.below[0]) == [("a.0", 1, 1), ("a.1", 1, 2)]
    made = periodic(*(5, 1, 1, 1) * 3, 5, 5)  # as sliding windows and full attention
    assert told(made) == [("a.0-a.11", 4, 8), ("a.12-a.13", 1, 5), ("norm", 1, 1)]
    assert told(made.below[0]) == [("a.0", 1, 5), ("a.1-a.3", 1, 1)]
    made = periodic(*(1, 2, 1, 2, 3, 4) * 2)
    assert told(made) == [("a.0-a.11", 6, 13), ("norm", 1, 1)]
    assert told(periodic(1, 2, 3)) == [("a.0", 1, 1), ("a.1", 1, 2), ("a.2", 1, 3), ("norm", 1, 1)]


def test_patterns_of_patterns_count_every_pass():
    made = periodic(*(1, 2, 1, 2, 7) * 3)
    assert told(made) == [("a.0-a.14", 5, 13), ("norm", 1, 1)]
    assert sum(b.row.params * (b.ends[1] - b.ends[0] + 1) // b.period for b in made.below[:1]) == 3 * 13


@pytest.mark.parametrize("source", ["specs/language/jamba.arch", "specs/language/mamba2_hybrid.arch", "specs/vision/nextvit.arch"])
def test_a_folded_table_comes_to_the_total(source):
    found = archdsl_package.load(source).cost()
    plain = {r.path: r for r in found.layers}

    def layers_of(b: Branch) -> int:
        return 1 if not b.last else b.ends[1] - b.ends[0] + 1

    root = branches(found.layers)
    for figure in ("params", "macs"):
        every = sum(getattr(r, figure) for path, r in plain.items() if path and not any(p and path.startswith(f"{p}.") for p in plain))
        assert sum(getattr(b.row, figure) * layers_of(b) // b.period for b in root.below) == every


def test_layers_that_differ_below_do_not_fold():
    rows = [row(""), row("a.0"), row("a.0.x"), row("a.1"), row("a.1.y"), row("a.2"), row("a.2.y")]
    assert names(branches(tuple(rows))) == ["a.0", "a.1-a.2"]


STATIC = """model Fixed(d: int = 4)(image: [B = 1, 3, H = 8, W = 8]) -> y: [B, 3, H, W] {
  static H, W
  param positions: [3, H, W] = zeros()
  return image + positions
}
"""


def test_a_static_size_is_given_once(archdsl, tmp_path):
    (tmp_path / "fixed.arch").write_text(STATIC)
    assert "384" in archdsl("cost", "fixed.arch", "--at", "H=8", "--set", "W=16").stdout
    said = archdsl("cost", "fixed.arch", "--at", "H=8,B=2", "--set", "H=9", code=1).stderr
    assert "error[A0645]: the static size `H` is given twice: 8 as a size and 9 as a setting" in said and "H=9" in said


def test_static_sizes_stand_in_the_manifest(archdsl, tmp_path):
    import json

    (tmp_path / "fixed.arch").write_text(STATIC + "variant wide { W = 16 }\n")
    archdsl("compile", "fixed.arch:wide", "--set", "H=5", "-o", "out")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["knobs"] == {"d": 4, "H": 5, "W": 16}


ENTRIES = """model Two(d: int = 8) {
  entry encode(x: [B, d]) -> y: [B, d] { return x }
  entry decode(x: [B, d]) -> y: [B, d] { return 2 * x }
}
variant wide { d = 16 }
"""


def test_an_unknown_entry(archdsl, tmp_path):
    (tmp_path / "two.arch").write_text(ENTRIES)
    for name, help in (("Two.decod", "did you mean `decode` or `encode`?"), ("Two.x", "its entries are encode, decode"),
                       ("Two.wid", "did you mean `wide`?")):
        said = archdsl("cost", f"two.arch:{name}", code=1).stderr
        assert f"error[A0401]: `Two` has neither an entry nor a variant `{name[4:]}`" in said and help in said
        assert f"two.arch:{name}" in said
    for name in ("Two.wide", "Two.decode.wide"):
        assert archdsl("cost", f"two.arch:{name}").stdout.startswith(f"{name} at")
