"""How diagnostics look: golden texts, and what must hold for every span of every text."""
from __future__ import annotations

import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archdsl.diagnostics.model import Collector, Diagnostic, Fix, Label, error
from archdsl.diagnostics.render import render, to_json
from archdsl.source import NOWHERE, Source, Span

SPEC = """\
use std.embed { TokenEmbedding }

/// A decoder.
model Tiny(vocab: int = 100) (tokens: int[B, T]) -> logits: [B, T, vocab] {
  x = TokenEmbedding(vocab, 768)(tokens)
  layers: for i in range(2) {
    x = Pre(RMSNorm(), Attention(heads = 7))(x)
    x = Pre(RMSNorm(), MLP(hidden = 4 * d))(x)
  }
  return x |> Linear(vocab) as head
}
"""


def at(source: Source, text: str, nth: int = 0) -> Span:
    start = -1
    for _ in range(nth + 1):
        start = source.text.index(text, start + 1)
    return Span(source, start, start + len(text))


@pytest.fixture
def spec() -> Source:
    return Source("specs/tiny.arch", SPEC)


def test_two_lines(spec, golden):
    fault = error(
        "A0303", "`heads` must divide the width of `x`", at(spec, "heads = 7"), "768 / 7 is not a whole number",
        labels=(Label(at(spec, "768"), "the width 768 comes from here"),), help="6 (width 128 a head), 8 (96) and 12 (64) divide it",
    )
    assert str(fault) == golden


def test_secondary_line_below_the_primary(spec, golden):
    d = Diagnostic("A0211", "two sets of weights have the address `layers.{i}.norm`", at(spec, "RMSNorm()"), "the first one",
                   labels=(Label(at(spec, "RMSNorm()", 1), "the second"),), help=("name the branches with `as`",))
    assert render(d) == golden


def test_several_labels_on_one_line(spec, golden):
    d = Diagnostic("A0301", "these do not fit", at(spec, "Attention"), "this takes 4 axes",
                   labels=(Label(at(spec, "(x)"), "has 3 axes"), Label(at(spec, "Pre"), "asks for both"), Label(at(spec, "RMSNorm()"))))
    assert render(d) == golden


def test_label_inside_another(spec, golden):
    d = Diagnostic("A0301", "nested", at(spec, "Pre(RMSNorm(), Attention(heads = 7))(x)"), "the call",
                   labels=(Label(at(spec, "heads = 7"), "its argument"),))
    assert render(d) == golden


def test_two_labels_at_one_place(spec, golden):
    d = Diagnostic("A0301", "twice", at(spec, "768"), "once", labels=(Label(at(spec, "768"), "again"),))
    assert render(d) == golden


def test_span_over_lines(spec, golden):
    loop = at(spec, "for").to(at(spec, "  }\n"))
    assert render(Diagnostic("A0212", "a loop that owns weights needs a label", loop, "this loop")) == golden


def test_two_adjacent_lines_show_no_gap(golden):
    source = Source("a.arch", "x = f(a,\n      b)\n")
    assert render(Diagnostic("A0301", "split call", at(source, "f(a,\n      b)"), "here")) == golden


def test_other_file(spec, golden):
    other = Source("lib/mixer.arch", "\n\nblock Attention(heads: int)(x: [..., d]) -> [..., d] {\n")
    d = Diagnostic("A0303", "`heads` must divide d", at(spec, "heads = 7"), "7 does not divide 768",
                   labels=(Label(at(other, "heads: int"), "declared here"), Label(at(spec, "768"), "the width")), notes=("d = 768",))
    assert render(d) == golden


def test_notes_help_and_fixes(spec, golden):
    fix = Fix("write `heads = 8`", ((at(spec, "7", 1), "8"),))
    d = Diagnostic("A0303", "message", at(spec, "heads = 7"), "", notes=("one fact", "a fact\nof two lines"), help=("do this",), fixes=(fix,))
    assert render(d) == golden


def test_warning(spec, golden):
    assert render(Diagnostic("A0206", "`vocab` is never used", at(spec, "vocab"), severity="warning")) == golden


def test_end_of_file(golden):
    source = Source("a.arch", "model M() {\n  x = 1\n\n")
    assert render(Diagnostic("A0101", "the file ends inside a block", Span(source, len(source.text), len(source.text)), "expected `}`")) == golden


def test_end_of_file_without_newline(golden):
    source = Source("a.arch", "model M() {")
    assert render(Diagnostic("A0101", "the file ends inside a block", Span(source, 11, 11), "expected `}`")) == golden


def test_empty_file(golden):
    assert render(Diagnostic("A0101", "there is nothing in it", Span(Source("a.arch", ""), 0, 0), help=("write a model",))) == golden


def test_no_place(golden):
    assert render(Diagnostic("A0901", "this is a bug", NOWHERE, notes=("a fact",))) == golden


def test_tabs_and_wide_characters(golden):
    source = Source("a.arch", "\tname = \"模型\" + e\u0301 + bad\n")
    d = Diagnostic("A0201", "`bad` is not in scope", at(source, "bad"), "unknown", labels=(Label(at(source, "模型"), "two columns each"),))
    assert render(d) == golden


def test_windows_line_ends(golden):
    source = Source("a.arch", "x = 1\r\ny = oops\r\nz = 2\r\n")
    assert render(Diagnostic("A0201", "`oops` is not in scope", Span(source, 11, 17), "unknown")) == golden


def test_long_line(golden):
    source = Source("a.arch", "x = [" + "1, " * 200 + "oops, " + "2, " * 200 + "]\n")
    assert render(Diagnostic("A0201", "`oops` is not in scope", at(source, "oops"), "unknown"), width=80) == golden


def test_control_characters_never_reach_the_terminal():
    evil = "a\x1b[2J\x07\u202eb"
    source = Source(f"{evil}.arch", f"x = {evil} + bad\n")
    text = render(Diagnostic("A0201", f"no `{evil}`", at(source, "bad"), evil, notes=(evil,), help=(evil,)))
    assert not set("\x1b\x07\u202e") & set(text)


def test_a_span_of_many_lines_shows_its_ends(spec):
    source = Source("a.arch", "model {\n" + "  x\n" * 10_000 + "}\n")
    assert len(render(Diagnostic("A0101", "m", Span(source, 6, len(source.text)), "here")).splitlines()) == 8


def test_color_changes_nothing_but_color(spec):
    d = Diagnostic("A0303", "m", at(spec, "heads = 7"), "label", labels=(Label(at(spec, "768"), "width"),), notes=("n",), help=("h",))
    colored = render(d, color=True)
    assert "\x1b[1;31m^^^^^^^^^\x1b[0m" in colored and "\x1b[1;34m---" in colored
    assert re.sub(r"\x1b\[[\d;]*m", "", colored) == render(d)


def test_plain_text_needs_no_rich():
    code = "import sys; from archdsl.diagnostics.model import *; from archdsl.source import *;"
    code += "str(error('A0101', 'm', Span(Source('a', 'b'), 0, 1)));sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_json(spec):
    d = Diagnostic("A0303", "m", at(spec, "heads = 7"), "7 is odd", labels=(Label(at(spec, "768"), "the width"),), notes=("a fact",), help=("h",))
    assert to_json([d]) == [{
        "code": "A0303", "severity": "error", "message": "m", "path": "specs/tiny.arch", "line": 7, "column": 34, "end_line": 7, "end_column": 43,
        "help": ["h"],
        "notes": [
            {"message": "7 is odd", "path": "specs/tiny.arch", "line": 7, "column": 34},
            {"message": "the width", "path": "specs/tiny.arch", "line": 5, "column": 29},
            {"message": "a fact", "path": "specs/tiny.arch", "line": 7, "column": 34},
        ],
    }]


def test_collector_keeps_each_fault_once(spec):
    collector = Collector()
    for _ in range(2):
        collector.add(error("A0201", "m", at(spec, "vocab")))
    collector.add(error("A0201", "m", at(spec, "tokens")))
    assert [d.span.start for d in collector.found] == [at(spec, "vocab").start, at(spec, "tokens").start]


def columns(text: str) -> int:
    """Terminal columns of a text, counted apart from the renderer."""
    return sum(0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


texts = st.text(alphabet="ab \t\n\r模é́\x00\u202e🙂{}", max_size=60)


@given(texts, st.data())
def test_every_span_renders(text, data):
    source = Source("a.arch", text)
    ends = [sorted(data.draw(st.tuples(st.integers(0, len(text)), st.integers(0, len(text))))) for _ in range(3)]
    primary, *others = [Span(source, a, b) for a, b in ends]
    width = data.draw(st.integers(10, 40))
    d = Diagnostic("A0101", "m", primary, "primary!", labels=tuple(Label(s, f"label{i}!") for i, s in enumerate(others)))
    shown = render(d, width=width)
    assert all(c.isprintable() or c == "\n" for c in shown)
    if text:
        assert "^" in shown and all(shown.count(m) == 1 for m in ("primary!", "label0!", "label1!"))
    assert all(columns(row) <= max(width, 24) + 3 for row in shown.splitlines()[1:] if re.match(r" *\d+ \|", row))
    entry = to_json([d])[0]
    assert (entry["line"], entry["column"]) <= (entry["end_line"], entry["end_column"])


@given(st.text(alphabet="abc模é🙂", min_size=1, max_size=30), st.data())
def test_carets_stand_under_what_they_mark(line, data):
    start = data.draw(st.integers(0, len(line) - 1))
    end = data.draw(st.integers(start + 1, len(line)))
    shown = render(Diagnostic("A0101", "m", Span(Source("a.arch", line), start, end))).splitlines()
    carets = shown[-1].removeprefix("  | ")
    assert columns(line[:start]) == len(carets) - len(carets.lstrip(" ")) and carets.count("^") == columns(line[start:end])


def test_endless_words_are_shortened():
    """In all that is said about a text, not in the places that a program reads."""
    name = "a" * 5_000
    where = Span(Source("t.arch", name), 0, 5_000)
    d = Diagnostic("A0702", f"`{name}` is never read", where, f"`{name}` here", notes=(name,), help=(f"remove `{name}`",))
    (entry,) = to_json([d])
    for text in (render(d), repr(entry)):
        assert len(text) < 2_500 and "a…a" in text
    assert (entry["column"], entry["end_column"]) == (1, 5_001)
