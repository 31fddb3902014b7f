"""archdsl lsp without pygls; with it: tests/lsp."""
from __future__ import annotations

import sys


def test_without_pygls(archdsl, monkeypatch):
    for name in [m for m in sys.modules if m.partition(".")[0] in ("pygls", "lsprotocol") or m == "archdsl.lsp.server"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pygls", None)
    said = archdsl("lsp", code=1).stderr
    assert "error[A0654]" in said and "pip install 'archdsl[lsp]'" in said
