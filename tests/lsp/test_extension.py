"""The extension for VS Code: its own code, run by node, starts the server, shows what is wrong, and ends it."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pygls")
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def shown(command: str) -> dict[str, list[object]]:
    done = subprocess.run(["node", HERE / "extension.js", ROOT / "editors/vscode/extension.js", command], capture_output=True, text=True, timeout=500,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_starts_the_server_and_shows_a_diagnostic(tmp_path):
    program = tmp_path / "archdsl"
    code = "from archdsl.lsp import server; server.TRIED = 1e9; from archdsl.cli.main import run; run()"  # however long the editor takes to end it
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    program.chmod(0o755)
    assert shown(str(program)) == {"diagnostics": ["A0201"], "errors": [], "commands": ["archdsl.restart"], "exits": [0]}


def test_a_program_that_is_not_there_is_told(tmp_path):
    found = shown(str(tmp_path / "archdsl"))
    assert found["diagnostics"] == [] and len(found["errors"]) == 1
    assert "does not start" in str(found["errors"][0]) and "pip install 'archdsl[lsp]'" in str(found["errors"][0])
