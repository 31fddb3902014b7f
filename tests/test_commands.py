"""The server of tests/commands.py: a command ends with its client, and the server with its tests."""
from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import program

ROOT = Path(__file__).parent.parent
NET = """\
use std.embed { TokenEmbedding }
use std.linear { Linear }
model Net(vocab: int = 64)(tokens: int[B = 1, T = 16] in 0..<vocab) -> logits: [B, T, vocab] {
  return tokens |> TokenEmbedding(vocab, 4) |> Linear(vocab)
}
"""
LONG = ("train", "net.arch", "--task", "mqar(length = 16, pairs = 3)", "--steps", "100000", "-o", "out")


def test_a_command_ends_with_its_client(tmp_path):
    """It is in the middle of a training; that its output ends says that no process holds it."""
    (tmp_path / "net.arch").write_text(NET)
    log = tmp_path / "out/log.jsonl"
    with subprocess.Popen([program(), *LONG], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as client:
        ends = time.monotonic() + 500
        while client.poll() is None and not log.exists() and time.monotonic() < ends:
            time.sleep(0.01)
        assert client.poll() is None and log.exists()
        client.kill()
        client.communicate(timeout=500)


def test_a_command_writes_no_bytecode_where_it_is_told_so(tmp_path):
    """Under a limit of files Python would keep half of a module, and whoever imports it next could not."""
    (tmp_path / "mine.py").write_text("raise SystemExit(3)\n")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([program(), "import", "mine:made", "-o", "out"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "error[A0555]" in done.stderr and [p.name for p in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.proof
def test_a_time_limit_ends_the_command_and_the_tests(tmp_path):
    (tmp_path / "net.arch").write_text(NET)
    tests = f"import subprocess\nfrom tests.commands import program\nsubprocess.run([program(), *{LONG}], cwd={str(tmp_path)!r}, timeout=2)"
    done = subprocess.run([sys.executable, "-c", tests], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert "TimeoutExpired" in done.stderr
