"""`use std { … }`: names of the library, wherever in it they are declared."""
from __future__ import annotations

import re
from typing import Any

import pytest

import archdsl
from archdsl.cli.pages import find_page
from archdsl.modules import Library, library_exports, library_modules, library_source, library_tree
from archdsl.records import fields
from archdsl.shelf import Shelf, shelf
from archdsl.source import Source, Span
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


def everything(node):
    """A tree with the places of all its nodes."""
    if isinstance(node, tree.Node):
        return type(node), node.span.start, node.span.end, *(everything(getattr(node, f.name)) for f in fields(node))
    return tuple(map(everything, node)) if isinstance(node, tuple) else repr(node) if not isinstance(node, Span) else (node.start, node.end)


@pytest.mark.parametrize("name", library_modules())
def test_a_declaration_read_alone_is_the_one_of_the_whole_text(name):
    source = library_source(name)
    decls: list[Any] = [d for d in library_tree(name).decls if not isinstance(d, tree.Use)]
    cut = shelf(source)
    assert list(cut.lines) == [d.name for d in decls]
    for d in decls:
        assert everything(cut.declaration(d.name)) == everything(d)
    uses = [d for d in library_tree(name).decls if isinstance(d, tree.Use)]
    assert list(cut.imports) == [n.alias or n.name for d in uses for n in d.names]
    assert all(d.names for d in uses), "a whole module is imported: its scope would have to be there"


@pytest.mark.parametrize("name", library_modules())
def test_a_declaration_comes_with_all_that_it_mentions(name):
    whole = Library().std(name).complete()
    assert set(whole.scope) == set(whole.names())
    for declared in shelf(whole.source).lines:
        alone = Library().std(name)
        alone.offer(declared)
        words = set(re.findall(r"[^\W\d]\w*", alone.scope[declared].decl.span.text))
        assert words & set(whole.scope) <= set(alone.scope)
        assert all(type(alone.scope[n]) is type(whole.scope[n]) and alone.scope[n].decl is whole.scope[n].decl for n in alone.scope)


def test_only_the_declarations_that_are_named_are_read(monkeypatch):
    read = []
    real = Shelf.declaration
    monkeypatch.setattr(Shelf, "declaration", lambda self, name: read.append(name) or real(self, name))
    archdsl.loads("use std.residual { Pre }\nuse std.norm { RMSNorm }\n" + MODEL.format("Pre(RMSNorm(), RMSNorm())(x)")).elaborate()
    assert set(read) == {"Pre", "RMSNorm"}


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


@pytest.mark.parametrize(("name", "help"), [
    ("gelu", ("`gelu` is an op: ops need no import",)), ("GELU", ("`gelu` is an op: ops need no import",)),
    ("Dropout", ("`dropout` is an op: ops need no import",)), ("exp", ("`exp` is an op: ops need no import",)),
])
def test_ops_are_not_imported(name, help):
    faults = [d for d in found(f"use std {{ Linear, {name} }}\n" + MODEL.format("Linear(d)(x)")) if d.severity == "error"]
    assert [(d.code, d.help, d.fixes) for d in faults] == [("A0207", help, ())]


@pytest.mark.parametrize(("name", "fix"), [("attention", "Attention"), ("Embedding", "TokenEmbedding"), ("conv", "Conv")])
def test_a_block_comes_before_an_op_of_its_name(name, fix):
    faults = [d for d in found(f"use std {{ Linear, {name} }}\n" + MODEL.format("Linear(d)(x)")) if d.severity == "error"]
    assert [d.fixes[0].edits[0][1] for d in faults] == [fix]


def test_explain_tells_of_it():
    assert re.search(r"`use std \{ LayerNorm, Linear }`", find_page("use")["text"].replace("\n", " "))
