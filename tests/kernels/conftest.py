"""Where there is no card the kernels of these tests are interpreted, and of no others in the same process."""
from __future__ import annotations

import pytest

from archdsl.kernels import bindings


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch):
    monkeypatch.setattr(bindings, "INTERPRETER", True)
