"""Domains of knobs: their values, what lies in them, mistakes in them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.spaces import knob_domain, knobs_in_search, spaces_of
from archdsl.spec import Spec, check_file, check_text, load, loads

MODEL = """
use std.linear {{ Linear }}
model M({params})(x: [B, 8]) -> [B, 8] {{
{body}
  return x
}}
"""
OF_FLOATS = "the domain of `k` has a scale of logarithms: its ends are floats, from about 2.2e-308 to 1.8e308"


@pytest.fixture
def spec(tmp_path):
    def make(params: str, body: str = "", more: str = "") -> Spec:
        path = tmp_path / "m.arch"
        path.write_text(MODEL.format(params=params, body=body) + more)
        return load(path)

    return make


def domain(spec: Spec, knob: str = "k"):
    found = knob_domain(spec, knob)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("param", "inside", "outside", "size"),
    [
        ("k: int = 3 in 1..5", (1, 5), (0, 6, "a", True), 5),
        ("k: int = 3 in 1..<5", (1, 4), (5,), 4),
        ("k: int = 64 in 64..256 step 64", (64, 128, 256), (96, 320), 4),
        ("k: int = 3 in {1, 3, 7}", (1, 7), (2, "3"), 3),
        ("k: int = 32 in multiples(16, 16, 64)", (16, 48), (8, 24, 80), 4),
        ("k: int = 3 in [1..3, 8]", (1, 2, 3, 8), (4,), 4),
        ("k: float = 0.1 in 0.0..0.5", (0, Fraction(1, 3), Fraction(1, 2)), (Fraction(51, 100),), None),
        ("k: float = 0.1 in 0.0..0.5 step 0.1", (0, Fraction(1, 5)), (Fraction(1, 4),), 6),
        ("k: int = 16 in 8..100 step * 2", (8, 16, 64), (24, 128, 0), 4),
        ("k: int = 8 in 8..<64 step * 2", (8, 32), (64,), 3),
        ("k: float = 0.1 in 0.001..1 step * 10", (Fraction(1, 1000), 1), (Fraction(1, 2),), 4),
        ("k: float = 0.1 in 0.0..<0.5 step 0.1", (0, Fraction(2, 5)), (Fraction(1, 2),), 5),
        ("k: float = 0.1 in 0.0..<0.55 step 0.1", (0, Fraction(1, 2)), (Fraction(3, 5),), 6),
        ("k: float = 0.01 in 1e-5..1e-2 step * 3.1622776601683795", (Fraction(1, 10**4), Fraction(1, 1000), Fraction(1, 100)), (1,), 7),
        ("k: float = 1 in 1..<2 step * 1.189207115002721", (1,), (2, Fraction(19999999999999996, 10**16)), 4),
        ("k: float = 2 in 1..2 step * 1.189207115002721", (1, 2), (Fraction(19999999999999996, 10**16),), 5),
        ("k: float = 0.1 in 1e-4..1 step * ...", (Fraction(1, 3), Fraction(1, 10**4)), (0, 2), None),
        ("k: list[int; 2] = [8, 16] in each 4..16 step * 2", ((4, 16),), ((12, 8),), 9),
        ("k: float? = none in {none, 1e-6}", (None, Fraction(1, 10**6)), (0,), 2),
        ("k: bool = true in {true, false}", (True, False), (1, 0), 2),
        ('k: "pre" | "post" = "pre" in {"pre", "post"}', ("post",), ("sandwich",), 2),
        ("k: list[int; 2] = [2, 3] in each 1..4", ((1, 4), (2, 2)), ((0, 1), (1, 2, 3), 2), 16),
        ("k: list[int; 2] = [2, 3] in each [1..2, [3, 5]]", ((1, 5),), ((3, 3), (1, 4)), 4),
        ("k: list[int; 2] = [2, 3] in each w => w..2 * w", ((4, 6),), ((5, 3), (4, 2)), 12),
    ],
)
def test_values(spec, param, inside, outside, size):
    d = domain(spec(param))
    assert all(d.contains(v) for v in inside)
    assert not any(d.contains(v) for v in outside)
    assert d.size == size


def test_values_follow_the_other_knobs(spec):
    s = spec("heads: int = 8, k: int = heads in {1, heads}", more="variant wide { heads = 16 }\n")
    assert domain(s).values == (1, 8)
    wide = knob_domain(s, "k", "wide")
    assert wide is not None and wide.values == (1, 16)


def test_knobs_inside(spec):
    s = spec(
        "n: int = 2",
        """
      layers: for i in range(n) {
        choose m { conv(width: int = 4 in {4, 8 * n}) => Linear(8)  skip => identity } = conv
        x = m(x)
      }""",
    )
    assert set(knobs_in_search(s)) == {f"layers.{i}.m{w}" for i in range(2) for w in ("", ".width")}
    assert domain(s, "layers.1.m").values == ("conv", "skip")
    assert domain(s, "layers.1.m.width").values == (4, 16)


def test_iteration(spec):
    assert list(domain(spec("k: int = 64 in 64..256 step 64"))) == [64, 128, 192, 256]
    with pytest.raises(TypeError):
        list(domain(spec("k: float = 0.1 in 0.0..0.5")))


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("k: int = 3 in 5..1", "the domain of `k` is empty: 5 lies above 1"),
        ("k: int = 3 in multiples(16, 1, 2)", "the domain of `k` is empty"),
        ("k: int = 3 in 1.5..4.5", "`k` is of type int: 1.5 (float) cannot be in its domain"),
        ('k: int = 3 in {3, "a"}', '`k` is of type int: "a" (str) cannot be in its domain'),
        ("k: int = 3 in 1..9 step 0", "the step of the domain of `k` must be positive"),
        ("k: int = 3 in 1..9 step * 1", "a range with `step *` goes up by a factor above 1, not 1"),
        ("k: int = 3 in 0..9 step * 3", "a range with `step *` begins above 0, not with 0"),
        ("k: int = 3 in 1..9 step * ...", "a range with `step *` needs a factor"),
        ("k: float = 3 in 0..9 step * ...", "the domain of `k` has a scale of logarithms: it goes from a number above 0 to a larger one"),
        ("k: float = 0.5 in 1e-5..<1 step * ...", "the domain of `k` has any float for a value: it has its end"),
        ("k: float = 0.5 in 0..<1", "the domain of `k` has any float for a value: it has its end"),
        ("k: float = 0.5 in 1e-400..1 step * ...", OF_FLOATS),
        ("k: float = 2 in 1..1e400 step * ...", OF_FLOATS),
        ("k: float = 1 in 1.0..<1.0 step * 2", "the domain of `k` is empty: 1 does not lie below 1, where `..<` ends"),
        ("k: float = 1 in 1.0..<1.0 step 0.5", "the domain of `k` is empty: 1 does not lie below 1, where `..<` ends"),
        ("k: int = 1 in 1..<1", "the domain of `k` is empty: 1 does not lie below 1, where `..<` ends"),
        ("k: int = 1 in 8..<8 step * 2", "the domain of `k` is empty: 8 does not lie below 8, where `..<` ends"),
        ("k: int = 3 in 3", "the domain of `k` is a range or a set of values, not 3 (int)"),
        ('k: str = "a" in 1..3', "`k` is of type str: it has no range of numbers"),
        ("k: int = 3 in each {1, 3}", "`each` is for lists; `k` is int"),
        ("k: list[int; 2] = [1, 2] in each [1..2]", "`k` has 2 items, here are 1 domains"),
    ],
)
def test_mistakes(tmp_path, param, message):
    path = tmp_path / "m.arch"
    path.write_text(MODEL.format(params=param, body=""))
    (found,) = check_file(str(path))
    assert (found.code, found.message) == ("A0408", message)


@pytest.mark.parametrize("factor", ["1.00001", "1.00000000000001"])
def test_exact_powers_have_an_end(factor):
    """Each power is exact and longer than the one before: what they weigh is bounded, not their number alone."""
    (found,) = check_text(MODEL.format(params=f"k: float = 1 in 1..2 step * {factor}", body=""), "m.arch")
    assert found.code == "A0602" and "bits is too large" in found.message


def test_a_power_is_no_factor():
    (found,) = check_text(MODEL.format(params="k: int = 8 in 8..512 step ** 2", body=""), "m.arch")
    assert (found.code, found.message, found.span.text) == ("A0101", "an expression is missing in a range", "**")
    assert check_text(MODEL.format(params="step: int = 2", body="  y = x * step ** 2"), "m.arch") == []


def test_an_open_end_of_floats_is_closed_by_its_fix():
    text = MODEL.format(params="k: float = 0.5 in 0 ..< 1", body="")
    (found,) = check_text(text, "m.arch")
    ((span, new),) = found.fixes[0].edits
    assert check_text(text[: span.start] + new + text[span.end :], "m.arch") == []


@pytest.mark.parametrize(
    ("param", "what"),
    [
        ("k: int = 3 in {1, 2}", "`k`"),
        ("k: int = 100 in 64..256 step 64", "`k`"),
        ("k: list[int; 2] = [1, 9] in each 1..4", "item 1 of `k`"),
    ],
)
def test_a_default_outside_of_its_own_domain(tmp_path, param, what):
    path = tmp_path / "m.arch"
    path.write_text(MODEL.format(params=param, body=""))
    (found,) = check_file(str(path))
    assert found.code == "A0407" and found.message.startswith(f"the default of {what} lies outside of its own domain")


def test_variants_may_leave_the_domain(spec):
    s = spec("k: int = 3 in {3, 5}", more="variant odd { k = 99 }\n")
    assert s.elaborate("odd").knobs["k"].value == 99


SPACE = """
model N(d: int = 8 in {8, 16}, depths: list[int; 2] = [1, 2] in each 1..4)(x: [B, 8]) -> [B, 8] {
  layers: for i in range(depths[1]) { choose m { lin => Linear(8)  skip => identity } = lin  x = m(x) }
  return x
}
"""


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (
            "params <= 30M;  depths[1] >= depths[0];  layers.0.m == lin;  layers.7.m != skip;  count(m == lin) <= 3;  sum(depths) < 9 and "
            "max(depths) <= d",
            None,
        ),
        ("macs(B = 1) <= 5G", None),
        ("parms <= 3", "A0403 `parms` is nothing that a limit can speak of"),
        ("layers.0.n == lin", "A0409 `N` has no knob at `layers.0.n`"),
        ("layers.0.m == conv", "A0403 `layers.0.m` has no arm `conv`"),
        ("params", "A0405 this limit says neither yes nor no: `params` is a value"),
        ("params(e = 3) <= 3", "A0404 `N` has neither a knob nor a run-time size `e`"),
        ("depths[5] >= 3", "A0221 index 5 is outside of a list of 2"),
        ("causal(x, y)", "A0404 a space limits costs and knobs"),
    ],
)
def test_spaces(tmp_path, limit, expected):
    path = tmp_path / "m.arch"
    path.write_text("use std.linear { Linear }\n" + SPACE + f"space small of N {{ {limit} }}\n")
    found = [f"{d.code} {d.message}" for d in check_file(str(path))]
    if expected is None:
        assert found == []
        assert list(spaces_of(load(path))) == ["small"]
    else:
        assert len(found) == 1 and found[0].startswith(expected), found


def test_a_space_of_nothing(tmp_path):
    path = tmp_path / "m.arch"
    path.write_text("use std.linear { Linear }\n" + SPACE + "space small of M { params <= 3 }\nspace a of N {}\nspace a of N {}\n")
    assert [d.code for d in check_file(str(path))] == ["A0401", "A0402"]


def test_check_spaces_reports_each_default_once(tmp_path):
    path = tmp_path / "m.arch"
    path.write_text(
        "block K(n: int = 3 in {1, 2})(x: [d]) -> [d] { return x * n }\nmodel M()(x: [8]) -> [8] { layers: for i in range(4) { x = K()(x) "
        "}  return x }\n"
    )
    assert [d.code for d in check_file(str(path))] == ["A0407"]
    with pytest.raises(ArchError):
        load(path)


def test_a_domain_that_other_settings_leave_empty_does_not_stop_the_model(spec):
    s = spec("w: int = 64, k: int = w in multiples(32, w / 2, w * 2)", more="variant narrow { w = 7 }\n")
    assert domain(s).values == (32, 64, 96, 128)
    assert s.elaborate("narrow").knobs["k"].value == 7
    with pytest.raises(ArchError, match="7 / 2 is not a whole number"):
        knob_domain(s, "k", "narrow")


@pytest.mark.parametrize("body", ["require d % 32 == 0\n  return x", "return x |> split(5, axis = -1)", "return nonsense[d]"])
def test_a_default_outside_of_its_domain_is_the_cause_of_what_follows(body):
    text = f"model M(d: int = 60 in 32..256 step 32, nonsense: list[int] = [1])(x: [B, d]) -> y: [B, d] {{\n  {body}\n}}\n"
    with pytest.raises(ArchError) as e:
        loads(text)
    assert [(d.code, d.span.text) for d in e.value.diagnostics] == [("A0407", "60")]
