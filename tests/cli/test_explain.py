"""archdsl explain: a page for every code, op and block."""
from __future__ import annotations

import json

import pytest

from archdsl.cli.pages import code_page, find_page
from archdsl.cli.words import WORDS
from archdsl.diagnostics.codes import Code, all_codes
from archdsl.diagnostics.model import ArchError


def test_page_of_a_code(archdsl, golden):
    assert archdsl("explain", "A0624").stdout == golden
    assert archdsl("explain", "a0624").stdout == golden
    assert archdsl("explain", "[A0624]").stdout == golden


def test_page_with_an_example(golden):
    words = "Two paragraphs, the first one long enough " + "that it has to be folded " * 4 + "\n\nand another."
    page = Code("a title", words, bad="\nx = (\n  y\n", good="x = (y)")
    assert code_page("A0199", page) == golden


def test_json(archdsl):
    page = json.loads(archdsl("explain", "A0624", "--json").stdout)
    assert (page["topic"], page["kind"]) == ("A0624", "code") and "UTF-8" in page["text"]


def test_unknown_names_propose_near_ones(archdsl):
    assert "near it: `A0" in archdsl("explain", "A0699", code=1).stderr
    assert "`linear`" in archdsl("explain", "linaer", code=1).stderr


def test_op_page():
    page = find_page("linear")
    assert page["kind"] == "op" and page["text"].startswith("op linear(x: [..., i], weight: [o, i]") and "axis i: contract" in page["text"]


def test_every_code_has_a_page():
    for code, page in all_codes().items():
        assert len(page.title) > 8 and not page.title.endswith("."), code
        assert len(page.explanation) > 60, f"{code}: a page explains"
        assert bool(page.bad) >= bool(page.good), f"{code}: a good example without the bad one"
        assert find_page(code)["kind"] == "code"


def test_two_pages_with_one_number_refuse(monkeypatch):
    from archdsl.diagnostics import codes

    monkeypatch.setattr(codes, "OWNERS", ("archdsl.files", "archdsl.cli.errors"))
    monkeypatch.setattr("archdsl.cli.errors.CODES", {"A0621": Code("again", "")})
    with pytest.raises(ValueError, match=r"A0621 .*archdsl\.files .*archdsl\.cli\.errors"):
        all_codes.__wrapped__()


def test_no_page():
    with pytest.raises(ArchError) as caught:
        find_page("no such thing")
    assert caught.value.diagnostics[0].code == "A0651"


@pytest.mark.parametrize(("topic", "kind", "said"), [
    ("causal", "mask", "key ≤ query"), ("window", "mask", "mask window(n)"), ("zeros", "initialiser", "initialiser zeros()"),
    ("multiples", "function", "function multiples(k, low, high)"), ("std.norm", "module", "  LayerNorm  (x - mean)"),
    ("choose", "word", "A knob with"), ("max", "op", "function max(xs, …)"),
])
def test_words_of_the_language(archdsl, topic, kind, said):
    page = json.loads(archdsl("explain", topic, "--json").stdout)
    assert page["kind"] == kind and said in page["text"]
    assert all(len(line) <= 140 for line in page["text"].splitlines())


def test_every_word_has_a_page():
    from archdsl.elaborate import library
    from archdsl.modules import library_modules
    from archdsl.syntax.lexer import STATEMENTS

    for name in (*library.names(), *library_modules(), *STATEMENTS):
        assert len(find_page(name)["text"]) > 20, name


def test_examples_of_words_are_text_of_the_language():
    from archdsl.source import Source
    from archdsl.syntax.parser import parse

    for word, (example, _) in WORDS.items():
        text = example.replace("{ … }", "{ return x }").replace("(…)", "()").replace("…; ", "")
        body = f"block F()(x: [B, d]) -> [B, d] {{ {text} }}"
        tries = (text, body, f"block F()(x: [B, d]) -> [B, d] {{ y = {text} }}", f"model F({text})(x: [B, d]) -> [B, d] {{ }}",
                 f"model F() {{ {text} }}", f"block F()(x: [B, d]) -> [B, d] {{ choose f {{ {text} }} = nothing }}")
        faults = []
        for attempt in tries:
            try:
                parse(Source(word, attempt))
                break
            except ArchError as fault:
                faults.append(fault)
        else:
            raise AssertionError(f"{word}: {text}: {faults[0]}")
