"""`check --explicit`: every argument, and where it comes from."""

from __future__ import annotations

import json

import pytest

import archdsl
from archdsl.cli.commands.check import check
from archdsl.elaborate.explicit import applications

TEXT = """use std.linear { Linear }
use std.norm { RMSNorm }
use std.residual { Pre }

block Gate(width: int = 2 * d, act: block = sigmoid, rate: int = 3 in {3, 5})(x: [..., d]) -> [..., d] {
  return x * act(Linear(width)(x) as up |> Linear(d) as down)
}

model Net(d: int = 8)(x: [B, d]) -> y: [B, d] {
  default Linear(bias = false)
  x = Pre(RMSNorm(), Gate(act = block(y) => 2 * sigmoid(y)))(x) as gate
  return Linear(d, bias = true)(x) as out
}
"""


@pytest.fixture(scope="module")
def told():
    return applications(archdsl.loads(TEXT, "net.arch"))


def line(argument):
    return argument.name, argument.value, argument.origin, repr(argument.span)


def test_all_origins(told):
    last = next(a for a in told if repr(a.span) == "net.arch:12:10")
    assert [line(x)[:3] for x in last.arguments[:2]] == [("out", "8", "argument"), ("bias", "true", "argument")]
    assert line(last.arguments[0])[3] == "net.arch:12:17" and line(last.arguments[1])[3].startswith("net.arch:12:")
    up = next(a for a in told if repr(a.span) == "net.arch:6:18")
    assert [line(x)[:3] for x in up.arguments[:2]] == [("out", "16", "argument"), ("bias", "false", "default")]
    assert line(up.arguments[1])[3] == "net.arch:10:18"
    gate = next(a for a in told if a.block == "Gate")
    assert [line(x)[:3] for x in gate.arguments] == [
        ("width", "16", "header"), ("act", "block(y) => 2 * sigmoid(y)", "argument"), ("rate", "3", "header")]
    assert line(gate.arguments[0])[3] == "net.arch:5:25"


def test_a_setting_is_told():
    spec = archdsl.loads(TEXT, "net.arch")
    from archdsl.elaborate.frame import Session
    from archdsl.elaborate.model import elaborate
    from archdsl.spec import python_setting

    session = Session(spec.module.library)
    session.told = []
    elaborate(spec.module, spec.decl, (python_setting("gate.rate", 5),), session)
    assert ("rate", 5, "setting") in [row[:3] for _, block, rows in session.told if block == "Gate" for row in rows]


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.arch").write_text(TEXT)
    (tmp_path / "blocks.arch").write_text("block F(n: int = 2)(x: [B, 8]) -> [B, 8] { return n * x }\n")
    assert check(["."], explicit=True) == 0
    out = capsys.readouterr().out
    assert "\nNet:\n" in out and "      bias = false" in out and "default ./net.arch:10:18" in out and "written here" in out
    assert check(["net.arch"], json=True, explicit=True) == 0
    rows = json.loads(capsys.readouterr().out)
    out = {"name": "out", "value": "8", "origin": "argument", "path": "net.arch", "line": 12, "column": 17}
    assert {r["model"] for r in rows} == {"Net"} and out in [x for r in rows for x in r["arguments"]]


def test_errors_come_first(tmp_path, capsys):
    (tmp_path / "net.arch").write_text(TEXT.replace("as out", "as gate"))
    assert check([str(tmp_path)], explicit=True) == 1
    assert "A0211" in capsys.readouterr().out


LOOP = """use std.linear { Linear }

block F(rate: float)(x: [..., d]) -> [..., d] { return Linear(d)(x) |> dropout(rate) }

model Net(d: int = 8)(x: [B, d]) -> y: [B, d] {
  layers: for i in range(3) { x = F(float(i) / 10)(x) as f }
  return x
}
"""


def test_passes_that_differ_in_a_drop_rate_are_all_told():
    told = applications(archdsl.loads(LOOP, "net.arch"))
    assert [a.arguments[0].value for a in told if a.block == "F"] == ["0", "0.1", "0.2"]


def test_entries_are_told_once(tmp_path, capsys):
    (tmp_path / "two.arch").write_text("""use std.linear { Linear }

model Two(d: int = 8) {
  share f = Linear(d)
  entry one(x: [B, d]) -> y: [B, d] { return f(x) }
  entry two(x: [B, 3, d]) -> y: [B, 3, d] { return f(x) }
}
""")
    assert check([str(tmp_path / "two.arch")], explicit=True) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")] == ["Two.one:", "Two.two:"]


def test_warnings_come_first(tmp_path, capsys):
    path = tmp_path / "net.arch"
    path.write_text(TEXT.replace("Linear(width)", "Linear(rate * width // rate)").replace("RMSNorm }", "LayerNorm, RMSNorm }"))
    assert check([str(path)], explicit=True) == 0
    out = capsys.readouterr().out
    assert out.startswith("warning[A07") and "\n\nNet:\n" in out
    assert check([str(path)], json=True, explicit=True) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("warning[A07") and json.loads(shown.out)
