"""Texts made to hurt: each gives a diagnostic, or a tree, in linear time and without recursion."""

from __future__ import annotations

import subprocess
import sys

import pytest

from archdsl.diagnostics.model import Diagnostic
from archdsl.source import Source
from archdsl.syntax.fmt import format_module
from archdsl.syntax.parser import MAX_DEPTH, parse, parse_recover
from tests.effort import calls

BODY = "block A()(x: [d]) -> [d] {\n  y = %s\n  return y\n}\n"
DEEP = {
    "parentheses": BODY % ("(" * 100_000),
    "closed parentheses": BODY % ("(" * 100_000 + "x" + ")" * 100_000),
    "lists": BODY % ("[" * 100_000),
    "signs": BODY % ("-" * 100_000 + "x"),
    "negations": BODY % ("not " * 50_000 + "x"),
    "powers": BODY % ("x ** " * 50_000 + "x"),
    "literals": BODY % ("block(x) => " * 20_000 + "x"),
    "bodies": "block A()(x: [d]) -> [d] " + "{ f32 " * 30_000,
    "types": "block A(x: " + "list[" * 30_000 + "int" + "]" * 30_000 + ")(x: [d]) -> [d] {}",
    "axes": "block A()(x: [" + "(" * 30_000 + "a b" + ")" * 30_000 + "]) -> [d] {}",
    "domains": "block A(x: int in " + "each " * 30_000 + "[1])(x: [d]) -> [d] {}",
    "sums": BODY % ("x + " * 30_000 + "x"),
    "comparisons": BODY % ("x and " * 30_000 + "x"),
    "calls": BODY % ("f" + "(x)" * 30_000),
    "members": BODY % ("f" + ".a" * 30_000),
    "sizes": "block A()(x: [" + "d + " * 30_000 + "d]) -> [d] {}",
    "sums in calls": BODY % ("f(" * 60 + "x" + " + x + x + x + x + x)" * 60),
}
LARGE = {
    "strings": (BODY % ('"' + "a" * 9_000_000 + '"'), None),
    "an unended string": (BODY % ('"' + "a" * 9_000_000), "A0102"),
    "characters": ("x" * 10_000_001, "A0105"),
    "words": ("use a\n" * 300_000, "A0105"),
    "comments": ("# c\n/// d\n" * 100_000, None),
    "a number": (BODY % ("1" * 100_000), "A0104"),
    "an exponent": (BODY % "1e999999999", "A0104"),
    "signs without meaning": (BODY % ("? " * 100_000), "A0101"),
    "other letters": ("\0" * 100_000, "A0107"),
    "quotes": ('"\n' * 100_000, "A0102"),
    "mistakes": ("block A()(x: [d]) -> [d] { y = = 3 }\n" * 10_000, "A0101"),
    "open bodies": ("block A()(x: [d]) -> [d] {\n" * 5_000, "A0109"),
    "alternatives": (BODY % ("if a { b } " + "else if a { b } " * 20_000), "A0101"),
    "layout words": (BODY % ("rearrange(" * 5_000 + "x"), None),
}


def parsed(text: str) -> list[Diagnostic]:
    """What is wrong with a text, found by work that is linear in its length: up to 27 calls a character. What is quadratic makes millions here."""
    found: list[Diagnostic] = []
    parse_recover(Source("small.arch", "model"))  # loads the tables
    assert calls(lambda: found.extend(parse_recover(Source("large.arch", text))[1])) <= 60 * len(text) + 5_000
    return found


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in DEEP.items()])
def test_depth_is_limited(text: str):
    assert [d.code for d in parsed(text)] == ["A0106"]


@pytest.mark.parametrize(("text", "code"), [pytest.param(*case, id=name) for name, case in LARGE.items()])
def test_size_is_limited(text: str, code: str | None):
    found = parsed(text)
    if code is not None:
        assert code in {d.code for d in found}
    assert len(found) <= 51


def test_what_is_let_through_can_be_walked():
    """The deepest tree is printed, compared and parsed again without running out of stack."""
    text = BODY % ("x + " * (MAX_DEPTH - 15) + "x")
    source = Source("deep.arch", text)
    assert parse(Source("again.arch", format_module(source))) == parse(source)
    nested = BODY % ("f(" * 60 + "x" + ")" * 60)
    assert parse(Source("again.arch", format_module(Source("deep.arch", nested)))) == parse(Source("deep.arch", nested))


GARBAGE = """
class Loop:
    alive = 0

    def __init__(self):
        self.me = self
        Loop.alive += 1

    def __del__(self):
        Loop.alive -= 1

parser.OLD = 5_000
for _ in range(100):
    with parser.no_collection():
        [Loop() for _ in range(100)]
assert Loop.alive <= 6_000, Loop.alive
assert gc.isenabled() and not gc.get_freeze_count()
"""
FROZEN = """
class Loop:
    pass

for _ in range(1_000):
    loop = Loop()
    loop.me = loop
seen = weakref.ref(loop)
del loop
gc.freeze()
for _ in range(2):
    with parser.no_collection():
        pass
gc.collect()
assert seen() is not None, "garbage that was frozen was found: it had thawed"
gc.unfreeze()
gc.collect()
assert seen() is None
"""


@pytest.mark.parametrize("program", [GARBAGE, FROZEN], ids=["garbage of many texts is found", "frozen objects stay frozen"])
def test_what_is_parsed_is_old_at_once(program: str):
    """It is looked through when it has become much, and what the program froze stays so: in a process of its own, with little to look through."""
    done = subprocess.run([sys.executable, "-c", f"import gc, weakref\nfrom archdsl.syntax import parser\n{program}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
