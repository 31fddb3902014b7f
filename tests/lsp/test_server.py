"""The language server as an editor meets it."""
from __future__ import annotations

import asyncio
import random

import pytest

from archdsl.lsp import trying
from archdsl.spec import check_text

NET = """\
use std.channel { SwiGLU }
use std.linear { Linear }
use std.norm { RMSNorm }

# 🦙 a comment beyond the basic plane
/// Twice the width and back.
block Wide(hidden: int)(x: [..., d]) -> [..., d] {
  y = x |> Linear(hidden) as up |> relu
  return Linear(d)(y) as down
}

model Net(d: int = 8, depth: int = 2)(x: [B = 2, d]) -> y: [B, d] {
  x = Linear(d)(x) as stem  # "🦙"
  layers: for i in range(depth) { x = Wide(2 * d)(x) as wide }
  left, right = split(RMSNorm()(x) as norm, 2)
  return concat([right, left])
}

variant big { d = 32 }
claim { params > 0 }
"""


def titles(found):
    return sorted(d["code"] for d in found)


def test_diagnostics_as_one_types(editor):
    assert titles(editor.open("a.arch", NET)) == ["A0701"]
    assert titles(editor.type("a.arch", NET.replace("Linear(d)(x)", "Lineer(d)(x)"))) == ["A0201"]
    (fault,) = editor.type("a.arch", NET.replace("Wide(2 * d)", "Wyde(2 * d)"))
    assert fault["severity"] == 1 and editor.text_in("a.arch", fault["range"]) == "Wyde"
    for cut in (10, 200, 420, 500):
        assert editor.type("a.arch", NET[:cut]) != []
    (unused,) = editor.type("a.arch", NET)
    assert unused["severity"] == 2 and unused["tags"] == [1] and editor.text_in("a.arch", unused["range"]) == "SwiGLU"


def test_quick_changes_end_with_the_last(editor):
    editor.open("a.arch", NET)
    for at in range(20):
        editor.type("a.arch", NET + f"# {at}\n", wait=False)
    assert titles(editor.type("a.arch", NET + "claim { parms > 0 }\n")) == ["A0403"]
    assert titles(editor.type("a.arch", NET)) == ["A0701"] and editor.notices.empty()


@pytest.mark.parametrize("editor", [True], ids=["rests"], indirect=True)
def test_fixes_are_tried_in_a_pause(editor):
    """As `archdsl check` tries them: a block that does not give what its application needs is told where the number stands."""
    editor.open("a.arch", NET)
    (fault,) = editor.type("a.arch", text := NET.replace("Linear(d)(y)", "Linear(hidden)(y)"))
    assert titles([fault]) == ["A0305"] and editor.text_in("a.arch", fault["range"]) == "Linear(hidden)(y) as down"
    (tried,) = editor.told("textDocument/publishDiagnostics")["diagnostics"]
    (checked,) = check_text(text, "a.arch", lints=True)
    assert editor.text_in("a.arch", tried["range"]) == checked.span.text == "2 * d" and checked.label in tried["message"]
    asked = {**editor.place("a.arch", "2 * d"), "range": tried["range"], "context": {"diagnostics": []}}
    (action,) = editor.ask("textDocument/codeAction", asked)
    assert [edit["newText"] for edit in action["edit"]["changes"][editor.uri("a.arch")]] == [new for _, new in checked.fixes[0].edits] == ["d"]
    editor.type("a.arch", text + "\n")  # a key ends what is under way for an older version
    assert titles(editor.type("a.arch", NET)) == ["A0701"]


def test_trying_fixes_runs_nothing_of_the_folder(tmp_path, monkeypatch):
    """A module that stands beside the text, named as one that is imported, is not."""
    (tmp_path / "pickle.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    found = asyncio.run(trying.tried(str(tmp_path / "a.arch"), NET + "claim { parms > 0 }\n"))
    assert [d.code for d in found] == ["A0403"]


def test_hover(editor):
    editor.open("a.arch", NET)

    def hover(mark, shift=0):
        found = editor.ask("textDocument/hover", editor.place("a.arch", mark, shift))
        return found and found["contents"]["value"]

    assert "block Wide(hidden: int)(x: [..., d]) -> [..., d]" in hover("Wide(2") and "Twice the width and back." in hover("Wide(2")
    assert "`layers.0.wide`: 280 parameters, 512 MACs (one of 2)" in hover("Wide(2")
    assert "x: [B, 8]" in hover("x = Linear")
    assert "op relu(" in hover("relu")
    assert "depth: int = 2" in hover("depth)") and "depth: 2" in hover("depth)")
    assert "right: [B, 4]" in hover("right = ")
    assert hover("comment") is None
    editor.type("a.arch", NET.replace("left, right = split(RMSNorm()(x) as norm, 2)", "left, right = split(RMSNo"))
    assert "x: [B, 8]" in hover("x = Linear"), "the last good tree is kept"


def test_a_text_that_is_not_open(editor):
    """Its file is read; where there is none, or one that cannot be read, there is no answer and nothing in the log."""
    editor.texts["b.arch"] = 1, NET
    (editor.folder / "b.arch").write_text(NET, encoding="utf-8")
    assert "Wide" in editor.ask("textDocument/hover", editor.place("b.arch", "Wide(2"))["contents"]["value"]
    editor.open("a.arch", NET)
    editor.tell("textDocument/didSave", {"textDocument": {"uri": editor.uri("a.arch")}})
    assert editor.told("textDocument/publishDiagnostics")["uri"] == editor.uri("a.arch")
    (editor.folder / "b.arch").write_bytes(b"\xff\xfe")
    assert editor.ask("textDocument/hover", editor.place("b.arch", "Wide(2")) is None
    (editor.folder / "b.arch").unlink()
    assert editor.ask("textDocument/hover", editor.place("b.arch", "Wide(2")) is None
    assert editor.ask("textDocument/documentSymbol", {"textDocument": {"uri": editor.uri("b.arch")}}) is None and editor.notices.empty()


def test_a_folder_whose_name_is_escaped_in_addresses(editor):
    (editor.folder / "my nets +ü").mkdir()
    assert titles(editor.open("my nets +ü/a.arch", NET)) == ["A0701"]
    assert titles(editor.type("my nets +ü/a.arch", NET.replace("Linear(d)(x)", "Lineer(d)(x)"))) == ["A0201"]


def test_completion(editor):
    editor.open("a.arch", NET)

    def labels(text, mark):
        editor.type("a.arch", text, wait=False)
        place = editor.place("a.arch", mark, len(mark))
        return {i["label"]: i for i in editor.ask("textDocument/completion", place)["items"]}

    new = labels(NET.replace("left, right", "z = Att\n  left, right"), "z = Att")
    assert {"Attention", "Wide", "Linear", "relu", "depth", "x"} <= set(new)
    assert [e["newText"] for e in new["Attention"]["additionalTextEdits"]] == ["\nuse std.mixer { Attention }"]
    assert "additionalTextEdits" not in new["Linear"] or new["Linear"]["additionalTextEdits"] is None
    arguments = labels(NET.replace("Linear(d)(x)", "Linear(d, )(x)"), "Linear(d, ")
    assert arguments["bias"]["insertText"] == "bias = "
    assert {"std.norm", "std.mixer"} <= set(labels("use std.n", "use std.n"))
    assert set(labels("use std.norm { }", "use std.norm {")) >= {"LayerNorm", "RMSNorm"}
    assert set(labels(NET + "variant more of ", "more of ")) == {"Net", "big"}
    assert set(labels(NET + "variant more of big { d", "of big { d")) == {"d", "depth", "transform"}
    assert labels(NET + "# a comm", "# a comm") == {}


def test_definitions_references_and_symbols(editor):
    editor.open("a.arch", NET)
    at = lambda mark, shift=0: editor.place("a.arch", mark, shift)
    found = editor.ask("textDocument/definition", at("Wide(2"))
    assert (found["uri"], found["range"]["start"]["line"]) == (editor.uri("a.arch"), 6)
    assert editor.ask("textDocument/definition", at("RMSNorm()"))["uri"].endswith("std" "lib/norm.arch")
    context = {"context": {"includeDeclaration": True}}
    places = editor.ask("textDocument/references", {**at("y = x"), **context})
    assert [p["range"]["start"]["line"] for p in places] == [7, 8]
    assert len(editor.ask("textDocument/references", {**at("Linear(hidden)"), **context})) == 4
    tree = editor.ask("textDocument/documentSymbol", {"textDocument": {"uri": editor.uri("a.arch")}})
    assert [s["name"] for s in tree] == ["Wide", "Net", "big", "claim"]
    assert [s["name"] for s in tree[1]["children"]] == ["d", "depth"]


def test_rename(editor):
    editor.open("a.arch", NET)

    def renamed(mark, new):
        edit = editor.ask("textDocument/rename", {**editor.place("a.arch", mark), "newName": new})
        return edit and [e["range"]["start"]["line"] for e in edit["changes"][editor.uri("a.arch")]]

    assert renamed("y = x", "wide") == [7, 8]
    assert renamed("Wide(2", "Broad") == [6, 13]
    assert renamed("right = ", "back") == [14, 15]
    assert renamed("depth)", "layers_") == [11, 13]
    assert renamed("d = 32", "width") == [11, 11, 11, 12, 13, 18], "the setting of a variant, and the argument that it sets"
    for mark, new in (("y = x", "x"), ("y = x", "for"), ("y = x", "2y"), ("RMSNorm()", "Norm")):
        assert renamed(mark, new) is None
        assert editor.told("window/showMessage")["message"]
    place = editor.place("a.arch", "as wide }", 3)
    assert editor.ask("textDocument/rename", {**place, "newName": "other"}) is None
    assert "`wide` is a segment of addresses, by which weights in checkpoints" in editor.told("window/showMessage")["message"]


def test_fixes_format_and_hints(editor):
    editor.open("a.arch", NET.replace("Wide(2 * d)", "Wide(2   *  d)").replace("RMSNorm()", "RMSNrm()"))
    place = editor.place("a.arch", "RMSNrm")["position"]
    context = {"textDocument": {"uri": editor.uri("a.arch")}, "range": {"start": place, "end": place}, "context": {"diagnostics": []}}
    (action,) = editor.ask("textDocument/codeAction", context)
    (edit,) = action["edit"]["changes"][editor.uri("a.arch")]
    assert edit["newText"] == "RMSNorm" and editor.text_in("a.arch", edit["range"]) == "RMSNrm"
    options = {"textDocument": {"uri": editor.uri("a.arch")}, "options": {"tabSize": 2, "insertSpaces": True}}
    (edit,) = editor.ask("textDocument/formatting", options)
    assert "Wide(2 * d)(x) as wide" in edit["newText"] and "🦙" in edit["newText"]
    editor.type("a.arch", "block (")
    assert editor.ask("textDocument/formatting", options) is None
    editor.type("a.arch", NET)
    whole = {"start": {"line": 0, "character": 0}, "end": {"line": 99, "character": 0}}
    hints = editor.ask("textDocument/inlayHint", {"textDocument": {"uri": editor.uri("a.arch")}, "range": whole})
    assert [h["label"] for h in hints] == [": [B, 16]", " [B, 8]", ": [B, 8]", ": [B, 8]", ": [B, 4]", ": [B, 4]", " [B, 8]"]


def test_files_beside_it(editor):
    editor.open("parts.arch", "fn half(n: int) -> int { return n // 2 }\n")
    assert editor.open("b.arch", "use parts { half }\nblock B(d: int)(x: [..., d]) -> [..., d] { return x * half(d) }\n") == []
    found = editor.ask("textDocument/definition", editor.place("b.arch", "half(d)"))
    assert found["uri"] == editor.uri("parts.arch")
    (editor.folder / "parts.arch").write_text("fn third(n: int) -> int { return n // 3 }\n")
    editor.tell("textDocument/didSave", {"textDocument": {"uri": editor.uri("b.arch")}})
    told = [editor.told("textDocument/publishDiagnostics") for _ in range(2)]
    assert {t["uri"]: titles(t["diagnostics"]) for t in told}[editor.uri("b.arch")] == ["A0207"]


def test_files_that_others_write_and_remove(editor):
    """The editor is asked to watch them, and a text that imports one is checked again without a key."""
    (watched,) = editor.told("client/registerCapability")["registrations"]
    assert watched["method"] == "workspace/didChangeWatchedFiles" and watched["registerOptions"]["watchers"] == [{"globPattern": "**/*.arch"}]
    parts = editor.folder / "parts.arch"

    def told(kind):
        editor.tell(watched["method"], {"changes": [{"uri": editor.uri("parts.arch"), "type": kind}]})
        return titles(editor.told("textDocument/publishDiagnostics")["diagnostics"])

    text = "use parts { half }\nblock B(d: int)(x: [..., d]) -> [..., d] { return x * half(d) }\n"
    assert titles(editor.open("b.arch", text)) == ["A0207"]
    parts.write_text("fn half(n: int) -> int { return n // 2 }\n")
    assert told(1) == []
    hovered = editor.ask("textDocument/hover", editor.place("b.arch", "half(d)"))
    parts.unlink()
    assert hovered and told(3) == ["A0207"]


def test_no_text_ends_it(editor):
    """Random cuts, doublings and signs, with every request behind each; the process lives, and knows a good text again."""
    editor.open("a.arch", NET)
    chance = random.Random(0)
    for _ in range(12):
        text = NET
        for _ in range(chance.randrange(1, 4)):
            i, j = sorted(chance.randrange(len(text) + 1) for _ in range(2))
            text = chance.choice([text[:i] + text[j:], text[:j] + text[i:], text[:i] + chance.choice('{}()[]"|>=,.\x00🦙\r\n') + text[i:]])
        editor.type("a.arch", text, wait=False)
        place = {"textDocument": {"uri": editor.uri("a.arch")}, "position": {"line": chance.randrange(25), "character": chance.randrange(80)}}
        whole = {"start": {"line": 0, "character": 0}, "end": place["position"]}
        for method, more in (("hover", {}), ("completion", {}), ("definition", {}), ("references", {"context": {"includeDeclaration": True}}),
                             ("documentSymbol", {}), ("rename", {"newName": "other"}), ("inlayHint", {"range": whole}),
                             ("codeAction", {"range": whole, "context": {"diagnostics": []}})):
            editor.ask(f"textDocument/{method}", {**place, **more})
    assert titles(editor.type("a.arch", NET)) == ["A0701"]
    assert editor.process.poll() is None


def test_it_ends_when_the_editor_is_gone(editor):
    editor.open("a.arch", NET)
    editor.process.stdin.close()
    assert editor.process.wait(timeout=500) == 0
