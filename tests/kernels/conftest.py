"""Where there is no card the kernels of these tests are interpreted, and of no others in the same process. On a card every test waits for what it
launched: a fault is told of the test that caused it, and the tests behind it in the same process, which cannot run any more, name that one."""
from __future__ import annotations

import pytest
import torch

from archdsl.kernels import bindings

_broken: list[str] = []
"""The test that broke the card's context of this process."""


@pytest.fixture(autouse=True)
def _interpreter(monkeypatch):
    monkeypatch.setattr(bindings, "INTERPRETER", True)


@pytest.fixture(autouse=True)
def _context(request):
    marked = request.node.get_closest_marker("gpu") is not None
    if marked and _broken:
        pytest.fail(f"the card's context broke in {_broken[0]}", pytrace=False)
    yield
    if marked and torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError as fault:
            _broken.append(request.node.nodeid)
            pytest.fail(f"the card's context broke in this test: {str(fault).splitlines()[0]}", pytrace=False)
