"""archdsl explain: a page for every code, op and block."""
from __future__ import annotations

import json

import pytest

from archdsl.cli.pages import code_page, find_page
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
