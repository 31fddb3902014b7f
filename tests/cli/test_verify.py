"""archdsl verify: claims that hold, claims that do not, data, faulty specs."""
from __future__ import annotations

import json

import pytest

SPEC = """\
use std.linear { Linear }

model Stack(d: int = 4, depth: int = 2) (x: [B = 1, d]) -> [B, d] {
  layers: for i in range(depth) {
    x = x |> Linear(d, bias = false) as f
  }
  return x
}

variant wide { d = 8 }

claim { params == 32 }
claim wide { params == 128;  macs(B = 2) == 256 }
"""


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "stack.arch").write_text(SPEC)
    return "stack.arch"


def test_claims_that_hold(archdsl, spec, golden):
    assert archdsl("verify", spec).stdout == golden
    rows = json.loads(archdsl("verify", spec, "--json").stdout)
    assert all(set(r) == {"path", "variant", "claim", "passed", "expected", "actual"} for r in rows)
    wanted = [(None, 32, 32, True), ("wide", 128, 128, True), ("wide", 256, 256, True)]
    assert [(r["variant"], r["expected"], r["actual"], r["passed"]) for r in rows] == wanted


def test_claims_that_do_not(archdsl, tmp_path, golden):
    (tmp_path / "stack.arch").write_text(SPEC.replace("== 128", "== 129"))
    assert archdsl("verify", ".", code=1).stdout == golden
    rows = json.loads(archdsl("verify", "stack.arch", "--json", code=1).stdout)
    assert [r["passed"] for r in rows] == [True, False, True]


def test_a_faulty_spec_does_not_stop_the_others(archdsl, spec, tmp_path):
    (tmp_path / "broken.arch").write_text("model {")
    done = archdsl("verify", "broken.arch", spec, "--json", code=1)
    assert "error[A01" in done.stderr and len(json.loads(done.stdout)) == 3


def test_a_faulty_spec_is_not_said_to_have_no_claims(archdsl, spec, tmp_path):
    (tmp_path / "broken.arch").write_text("model {")
    assert archdsl("verify", "broken.arch", code=1).stdout == ""
    (tmp_path / spec).write_text("model M()(x: [B]) -> y: [B] { return x }")
    assert archdsl("verify", spec).stdout == "no claims\n"


def test_claims_of_one_variant(archdsl, spec):
    """`SPEC:NAME`: about one variant, or about one model with its variants; a name that is none is told as in the text of a spec."""
    asked = {name: [r["variant"] for r in json.loads(archdsl("verify", f"{spec}:{name}", "--json").stdout)] for name in ("wide", "Stack")}
    assert asked == {"wide": ["wide", "wide"], "Stack": [None, "wide", "wide"]}
    for name, help in (("nope", "it has Stack, wide"), ("weid", "did you mean `wide`?")):
        told = archdsl("verify", f"{spec}:{name}", code=1).stderr
        assert f"error[A0401]: `{name}` is neither a model nor a variant of stack.arch" in told and f"= help: {help}\n" in told
    with open(spec, "a", encoding="utf-8") as file:
        file.write("claim weid { params == 1 }\n")
    told = archdsl("verify", spec, code=1).stderr
    assert "error[A0401]: `weid` is neither a model nor a variant of this file" in told and "= help: replace by `wide`\n" in told
