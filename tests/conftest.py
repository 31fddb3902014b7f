"""Shared fixtures: `golden` files that maintain themselves, marks for hardware; what makes all tests together quicker."""
from __future__ import annotations

import ctypes
import difflib
import gc
import os
import random
import re
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.reading import keeping

TESTS = Path(__file__).parent
if not os.path.exists("/dev/nvidiactl"):  # without a card Triton has its interpreter alone, and has to know before anything imports it
    os.environ.setdefault("TRITON_INTERPRET", "1")


settings.register_profile("same", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")  # the same examples everywhere, however long they take; others: `--hypothesis-profile=default`


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files with what the tests produce (never in CI)")


def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # what shells start in the background ignores Ctrl-C, and so would its children
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--update-golden") and os.environ.get("CI"):
        raise pytest.UsageError("golden files are updated by hand and reviewed, not in CI")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """What collecting makes stays to the end, torch and thousands of tests: the garbage collector need not look through it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000)  # 700 new objects, which Python looks through unless told, are a few lines of elaboration
        gc.enable()


TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
_file: Path | None = None  # of the last test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """A test that patches anything reads its specs anew.

    What the tests of a file leave behind, specs that are kept and modules, stays to the end too: to look through all of it takes most of a second,
    and Python would every few seconds.
    """
    global _file
    if item.path != _file:
        _file = item.path
        gc.collect()
        gc.freeze()
        if TRIM is not None:
            TRIM(0)  # room of large models that are gone: glibc would keep what lies below anything that is not
    _seed()
    with keeping("monkeypatch" not in item.fixturenames):
        return (yield)


def _seed() -> None:
    """A test that draws without a seed of its own draws the same alone, behind any other tests, and in any process."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)  # the CPU's: `torch.manual_seed` keeps a traceback of each call for cards to come


def pytest_collection_modifyitems(items):
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu:
        import torch

        if not torch.cuda.is_available():
            for item in gpu:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


class Golden:
    """Equal to the text in its file: `assert text == golden`. The file is named after the test, or given by `golden.at(path)`."""

    def __init__(self, path: Path, update: bool, test: str):
        self.path, self.update, self.test = path, update, test

    def at(self, path: str | Path) -> Golden:
        """The golden file at a path relative to tests/golden."""
        return Golden(TESTS / "golden" / path, self.update, self.test)

    def __eq__(self, text: object) -> bool:
        assert isinstance(text, str), "golden files hold text"
        text = text.rstrip("\n") + "\n"
        if self.update:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(text, encoding="utf-8")
            return True
        assert self.path.exists(), f"no golden file: {self.again()}"
        return self.path.read_text(encoding="utf-8") == text

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"golden {self.path.relative_to(TESTS)}"

    def again(self) -> str:
        return f"write it with: python -m pytest '{self.test}' --update-golden"


def pytest_assertrepr_compare(op, left, right):
    if op == "==" and isinstance(right, Golden) and isinstance(left, str):
        old = right.path.read_text(encoding="utf-8").splitlines()
        return [f"differs from {right}", *difflib.unified_diff(old, left.splitlines(), "golden", "now", lineterm=""), right.again()]
    return None


@pytest.fixture
def golden(request) -> Golden:
    """The golden file of this test: tests/golden/<test file without test_>/<test name>.txt."""
    folder = request.path.relative_to(TESTS).with_suffix("")
    name = re.sub(r"[^\w.=-]+", "_", request.node.name.removeprefix("test_")).strip("_")
    path = TESTS / "golden" / folder.parent / folder.name.removeprefix("test_") / f"{name}.txt"
    return Golden(path, request.config.getoption("--update-golden"), request.node.nodeid)
