"""`use std { … }`: names of the library, wherever in it they are declared."""
from __future__ import annotations

import re

import pytest

import archdsl
from archdsl.cli.pages import find_page
from archdsl.modules import Library, library_exports, library_modules, library_tree
from archdsl.source import Source
from archdsl.spec import check_text
from archdsl.syntax import tree

MODEL = "model M(d: int = 8)(x: [B, d]) -> y: [B, d] {{ return {} }}\n"


def found(text: str):
    return check_text(text, "a.arch", lints=True, trials=False)


def test_the_index_is_what_the_modules_declare():
    declared = [(d.name, m) for m in library_modules() for d in library_tree(m).decls if isinstance(d, (tree.Block, tree.Record, tree.Fn))]
    assert dict(declared) == library_exports()
    assert len({name for name, _ in declared}) == len(declared), "two modules declare the same name"


def test_it_means_what_the_modules_mean():
    one = archdsl.loads("use std { LayerNorm as N, MLP, Pre }\n" + MODEL.format("Pre(N(), MLP(4))(x)")).elaborate()
    uses = "use std.channel { MLP }\nuse std.norm { LayerNorm as N }\nuse std.residual { Pre }\n"
    other = archdsl.loads(uses + MODEL.format("Pre(N(), MLP(4))(x)"))
    assert one.graph.hash == other.elaborate().graph.hash
    assert archdsl.loads("use std\n" + MODEL.format("std.Pre(std.LayerNorm(), std.MLP(4))(x)")).elaborate().graph.hash == one.graph.hash


def test_only_what_is_named_is_read():
    library = Library()
    library.open(Source("a.arch", "use std { Linear }\n" + MODEL.format("Linear(d)(x)")), None)
    assert list(library.read) == ["std.linear"]


@pytest.mark.parametrize(("text", "code", "fixed"), [
    ("use std { Linaer }\n" + MODEL.format("Linear(d)(x)"), "A0207", "use std { Linear }\n" + MODEL.format("Linear(d)(x)")),
    ("use std { Linear }\n" + MODEL.format("LayerNorm()(Linear(d)(x) as a)"), "A0201",
     "use std { Linear, LayerNorm }\n" + MODEL.format("LayerNorm()(Linear(d)(x) as a)")),
    ("use std { Linear }\n" + MODEL.format("LayrNorm()(Linear(d)(x) as a)"), "A0201",
     "use std { Linear, LayerNorm }\n" + MODEL.format("LayerNorm()(Linear(d)(x) as a)")),
    ("use sdt { Linear }\n" + MODEL.format("Linear(d)(x)"), "A0207", "use std { Linear }\n" + MODEL.format("Linear(d)(x)")),
    ("use archdsl { Linear }\n" + MODEL.format("Linear(d)(x)"), "A0207", "use std { Linear }\n" + MODEL.format("Linear(d)(x)")),
    ("use std { Linear, MLP }\n" + MODEL.format("Linear(d)(x)"), "A0701", "use std { Linear }\n" + MODEL.format("Linear(d)(x)")),
])
def test_mistakes_and_their_fixes(text, code, fixed):
    (fault,) = found(text)
    assert fault.code == code
    for span, new in sorted(fault.fixes[0].edits, key=lambda e: e[0].start, reverse=True):
        text = text[:span.start] + new + text[span.end:]
    assert text == fixed


def test_a_failed_import_hides_no_other_fault():
    codes = [d.code for d in found("use std { Nothing }\n" + MODEL.format("x + y"))]
    assert codes == ["A0207", "A0201"]


def test_explain_tells_of_it():
    assert re.search(r"`use std \{ LayerNorm, Linear }`", find_page("use")["text"].replace("\n", " "))
