"""Random trees and broken texts: printing and parsing are inverse, formatting keeps everything, nothing but diagnostics is raised."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.source import Source
from archdsl.syntax.fmt import format_module
from archdsl.syntax.parser import parse, parse_recover
from archdsl.syntax.printer import print_node
from tests.effort import calls
from tests.syntax import trees
from tests.syntax.texts import TEXTS

SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example, HealthCheck.filter_too_much)
QUICK = settings(max_examples=20, suppress_health_check=SLOW)
LONG = settings(max_examples=3000, derandomize=False, suppress_health_check=SLOW)


def check_printing(module):
    """The printed tree parses to the tree, and is already formatted but for line breaks that are kept as written."""
    text = print_node(module)
    again = parse(Source("printed.arch", text))
    assert again == module
    assert [getattr(d, "doc", "") for d in again.decls] == [getattr(d, "doc", "") for d in module.decls]
    check_formatting(text)


def check_formatting(text: str):
    """Formatting keeps the tree, the comments, the documentation, and what it wrote itself."""
    module = parse(Source("before.arch", text))
    once = format_module(Source("before.arch", text))
    again = parse(Source("after.arch", once))
    assert again == module
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in module.comments)
    assert format_module(Source("after.arch", once)) == once
    assert not any(line != line.rstrip() for line in once.split("\n"))


@QUICK
@given(trees.modules)
def test_print_and_parse_are_inverse(module):
    check_printing(module)


@pytest.mark.proof
@LONG
@given(trees.modules)
def test_print_and_parse_are_inverse_at_length(module):
    check_printing(module)


@QUICK
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False))
def test_comments_survive_anywhere(text: str, rng: random.Random):
    check_formatting(with_comments(text, rng))


@pytest.mark.proof
@LONG
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False))
def test_comments_survive_anywhere_at_length(text: str, rng: random.Random):
    check_formatting(with_comments(text, rng))


def with_comments(text: str, rng: random.Random) -> str:
    """A text with comments and line breaks put between some of its tokens."""
    from archdsl.syntax.lexer import lex
    from archdsl.syntax.table import load

    lexed = lex(text, load().words)
    out, at = [], 0
    kept = set(range(1, len(lexed.tokens)))
    for i, token in enumerate(lexed.tokens):
        gap = text[at : token[2]]
        if i in kept and gap and rng.random() < 0.08:
            gap += rng.choice([f" # c{i}\n", f"\n# own {i}\n", "\n", "\n\n\n", f"\n\n  # own {i}\n\n"])
        out += [gap, text[token[2] : token[3]]]
        at = token[3]
    return "".join(out)


def broken(text: str, rng: random.Random) -> str:
    """A text with a few random changes."""
    pieces = [
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        ",",
        ";",
        "=",
        "|>",
        ">>",
        '"',
        "'",
        "\n",
        " ",
        "#",
        "///",
        "..",
        "block",
        "in",
        "return",
        "γ",
        "1e999",
        "\\",
        "model",
    ]
    for _ in range(rng.randint(1, 4)):
        at, n = rng.randrange(len(text) + 1), rng.choice([0, 0, 1, 1, 3, 20])
        text = text[:at] + rng.choice([*pieces, "", "", ""]) + text[at + n :]
    return text


def check_broken(text: str):
    """Only diagnostics, quickly, and each with a place in the text and something to say."""
    source = Source("broken.arch", text)
    module, faults = parse_recover(source)
    assert calls(lambda: parse_recover(source)) <= 1_000 * len(text) + 50_000  # some milliseconds: about 50 calls a character
    assert module.decls is not None
    for fault in faults:
        assert fault.message and 0 <= fault.span.start <= fault.span.end <= len(text)
        assert fault.code.startswith("A01") and "None" not in fault.message
        assert not any(word in fault.message for word in ("LPAR", "_CALL", "__", "$END"))
    assert raised(source) == faults


def raised(source: Source) -> list[Diagnostic]:
    try:
        parse(source)
    except ArchError as error:
        return error.diagnostics
    return []


@QUICK
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False))
def test_broken_texts_give_diagnostics(text: str, rng: random.Random):
    check_broken(broken(text, rng))


@pytest.mark.proof
@LONG
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False))
def test_broken_texts_give_diagnostics_at_length(text: str, rng: random.Random):
    check_broken(broken(text, rng))


@QUICK
@given(st.text(max_size=80))
@example("{}(" * 20)
@example('"' * 3)
@example("block A()(x: [d]) -> [d] { return x } }")
def test_any_text_gives_diagnostics(text: str):
    check_broken(text)


@pytest.mark.parametrize("axis", ["n // (heads size)", "n // (heads size) + 1", "n // (2 size)"])
def test_axes_divided_by_several_are_no_comments(axis: str):
    module = parse(Source("a.arch", f"block A()(x: [B,\n  {axis},\n]) -> [B] {{\n  return x\n}}\n"))
    assert not module.comments and len(module.decls) == 1
