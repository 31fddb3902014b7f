"""Specs that try to take the machine: a diagnostic (or a quick yes), within 2 seconds of CPU and 500 MB, no traceback, nothing read outside."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bad.cases import CASES

CPU, BYTES = 2.0, 500 << 20
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def server():
    """One process that forks for every run, so that a case costs its own time alone."""
    with subprocess.Popen([sys.executable, "-m", "tests.bad.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        def ask(argv, cwd):
            process.stdin.write(json.dumps({"argv": argv, "cwd": str(cwd), "cpu": 10}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def run(server, tmp_path, text):
    (tmp_path / "spec.arch").write_text(text, encoding="utf-8")
    return server(["check", "spec.arch", "--json"], tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_check_stays_within_its_budgets(name, server, tmp_path):
    text, codes = CASES[name]
    answer = run(server, tmp_path, text)
    shown = f"{answer['err'][-500:]}\n{answer['out'][:300]}"
    assert "Traceback" not in answer["err"] and "A0901" not in answer["err"], shown
    assert answer["rc"] in (0, 1), shown
    assert answer["cpu"] <= CPU and answer["bytes"] <= BYTES, f"{answer['cpu']:.1f} s, {answer['bytes'] >> 20} MB"
    found = [d["code"] for d in json.loads(answer["out"])]
    assert (answer["rc"] == 1) == bool(found)
    if codes and found:
        assert set(found) & {*codes, "A0602", "A0211"}, shown  # two owners at one address may be met before the budget ends


@pytest.mark.parametrize("module", ["..secret", "a.b.c", "link", "linked.secret", "std.nothing"])
def test_nothing_outside_is_read(module, server, tmp_path):
    """A module is looked for beside the spec and in the library; links that lead out are refused unread."""
    inside = tmp_path / "inside"
    inside.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.arch").write_text("fn f() -> int { return 1 }\n")
    (tmp_path / "secret.arch").write_text("fn f() -> int { return 1 }\n")
    os.symlink(outside / "secret.arch", inside / "link.arch")
    os.symlink(outside, inside / "linked")
    answer = run(server, inside, f"use {module} {{ f }}\nmodel M()(x: [B, 8]) -> y: [B, 8] {{ return x }}\n")
    assert answer["rc"] == 1 and "Traceback" not in answer["err"], answer["err"][-300:]
    read = [p for p in answer["opened"] if p.endswith("secret.arch") or p.startswith(str(outside)) or p.startswith("!")]
    assert not read, read
