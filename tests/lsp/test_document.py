"""What the server knows about texts, without the protocol."""
from __future__ import annotations

import random
from pathlib import Path

import pytest

from archdsl.lsp import names, telling
from archdsl.lsp.completing import complete
from archdsl.lsp.document import Document
from archdsl.source import Span
from archdsl.spec import check_text, loads
from archdsl.syntax import tree

ROOT = Path(__file__).parents[2]
SPECS = [ROOT / "specs" / name for name in ("language/llama.arch", "vision/vit.arch", "vision/fit.arch", "vision/sret.arch")]


def renamed(text: str, spans: list[Span], new: str) -> str:
    for span in sorted(spans, key=lambda s: s.start, reverse=True):
        text = text[: span.start] + new + text[span.end :]
    return text


def keeps_models(path: Path, most: int | None) -> int:
    """Renames values one at a time, at most so many, chosen by chance: the graphs stay what they were. Returns how many were renamed."""
    text = path.read_text(encoding="utf-8")
    document = Document(str(path), text)
    spec = loads(text, str(path))
    before = {name: m.elaborate().graph.hash for name, m in spec.models.items()}
    done: set[tuple[str, int]] = set()
    uses = names.uses(document)
    for u in random.Random(0).sample(uses, len(uses)):
        if len(done) == most:
            break
        first = (u.name, names.references(document, u.span.start)[0].span.start)
        if first in done:
            continue
        try:
            spans = names.rename(document, u.span.start, "other_name")
        except names.CannotRename:
            continue
        done.add(first)
        new = loads(renamed(text, spans, "other_name"), str(path))
        assert [m.elaborate().graph.hash for m in new.models.values()] == list(before.values()), f"{u.name} at {u.span}"
    return len(done)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_renaming_changes_no_model(path):
    """Four values of a file get another name: the graphs stay what they were."""
    assert keeps_models(path, most=4) == 4


@pytest.mark.proof
@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_renaming_any_value_changes_no_model(path):
    """Every value that may be renamed."""
    assert keeps_models(path, most=None) > 4


def test_uses_stand_where_they_say():
    for path in SPECS:
        document = Document(str(path), path.read_text(encoding="utf-8"))
        assert all(u.span.text == u.name for u in names.uses(document))


def test_arguments_are_renamed_where_they_are_named():
    """In calls, defaults, settings, claims, spaces, foreign names; not those of others that are called the same."""
    text = (
        "use std.linear { Linear }\n"
        "block Gate(scale: float = 1, out: int = 4)(x: [..., d]) -> [..., out] { return scale * Linear(out = out)(x) as map }\n"
        "block Other(scale: float = 1)(x: [..., d]) -> [..., d] { return scale * x }\n"
        "model Net(out: int = 4, scale: float = 2)(x: [B, 4]) -> y: [B, out] {\n"
        "  default Gate(scale = 3)\n"
        "  return x |> Other(scale = scale) |> Gate(out = out) as gate\n"
        "}\n"
        "variant big { scale = 4, out = 4 }\n"
        "claim big { scale == 4; params(scale = 5) > 2 * scale }\n"
        "space small of Net { scale <= 8 }\n"
        'names theirs of Net { "w.*" <-> gate.map.* when scale > 0 }\n'
    )
    document = Document("a.arch", text)
    assert not document.broken, document.diagnostics
    lines = lambda mark: [s.source.position(s.start)[0] for s in names.rename(document, text.index(mark), "other")]
    assert lines("scale: float = 1, out") == [2, 2, 5]
    assert lines("scale: float = 2") == lines("scale = 4") == lines("scale <= 8") == [4, 6, 8, 9, 9, 9, 10, 11]
    assert lines("out: int = 4)(x") == [2, 2, 2, 6]


def test_names_in_messages_are_renamed():
    text = 'fn f(n: int) -> int {\n  half = n / 2\n  require half > 1, "{half} of {n}"\n  return half\n}\n'
    spans = names.rename(Document("a.arch", text), text.index("half"), "h")
    assert renamed(text, spans, "h") == text.replace("half", "h")


def test_faults_are_those_of_check():
    chance = random.Random(1)
    text = SPECS[0].read_text(encoding="utf-8")
    for _ in range(12):
        i = chance.randrange(len(text))
        broken = text[:i] + chance.choice(["", "x", "(", "}", ", "]) + text[i + chance.randrange(3) :]
        mine, theirs = Document("a.arch", broken).diagnostics, check_text(broken, "a.arch", lints=True, trials=False)
        assert [(d.code, d.message, d.span[1:]) for d in mine] == [(d.code, d.message, d.span[1:]) for d in theirs]


def test_shapes_are_those_of_the_graph():
    """The type beside each assignment of the body is that of a value of the graph."""
    path = SPECS[0]
    document = Document(str(path), path.read_text(encoding="utf-8"))
    spec = loads(document.text, str(path))
    types = {str(t) for g in spec.elaborate().graph.definitions() for n in g.nodes for t in n.types}
    hints = telling.inlay_hints(document, 0, len(document.text))
    assert len(hints) >= 5 and {h.strip(": ").removesuffix(" …") for _, h in hints} <= types


def test_what_was_known_stays_where_the_text_is_the_same():
    good = "model M(d: int = 4)(x: [B, d]) -> y: [B, d] {\n  a = x * 2\n  b = a + 1\n  return b\n}\n"
    first = Document("a.arch", good)
    assert [h for _, h in telling.inlay_hints(first, 0, 999)] == [": [B, 4]", ": [B, 4]", " [B, 4]"]
    broken = Document("a.arch", good.replace("b = a + 1", "b = a + "), first)
    assert broken.broken and broken.good is first.good is not None
    (node,) = (n for n in broken.node_at(good.index("x * 2"), (tree.Binary,)))
    assert telling.shapes(broken, node.span) == ["[B, 4]"]
    again = Document("a.arch", good.replace("b = a + 1", "b = a + 3"), broken)
    assert again.good is not None and again.good.text == again.text


def test_models_that_share_foreign_names_are_uses_of_them():
    text = "model A()(x: [B]) -> [B] { return x }\nmodel AB()(x: [B]) -> [B] { return x }\nnames n of A, AB { ignore \"A\" }\n"
    document = Document("a.arch", text)
    for name in ("A", "AB"):
        found = [u.span.start for u in names.references(document, text.index(f"model {name}(") + 6)]
        assert found == [text.index(f"{name}()"), text.index("of A, AB") + (3 if name == "A" else 6)]


def test_shared_foreign_names_know_the_addresses_and_arguments_of_all_their_models():
    text = "use std { Linear }\n" \
        "model A(k: int = 1)(x: [B, 8]) -> [B, 8] { return x |> Linear(8) as a }\n" \
        "model B(k: int = 1)(x: [B, 8]) -> [B, 8] { return x |> Linear(8) as a |> Linear(8) as b }\n" \
        'names n of A, B { "a.*" <-> a.*\n "b.*" <-> b.* when k > 0 }\n'
    document = Document("a.arch", text)
    assert not document.broken, document.diagnostics
    for mark, words in (("<-> a.*", "a: Linear"), ("<-> b.*", "b: Linear")):
        told = telling.hover(document, text.index(mark) + 4)
        assert told is not None and words in told[0]
    for model in "AB":
        assert text.index("k > 0") in [u.span.start for u in names.references(document, text.index(f"model {model}(k") + 8)]
    typed = 'names n of A, B { "a.*" <-> a.*\n "b.*" <-> '
    items = complete(Document("a.arch", text[: text.index("names")] + typed, document), text.index("names") + len(typed))
    assert {"a", "b"} <= {i.label for i in items}


def test_values_follow_what_a_block_elsewhere_gives():
    """The text of the model is the same, its tensors are not."""
    text = """use std.linear { Linear }
block Wide()(x: [B, d]) -> [B, _] { return Linear(2 * d)(x) as up }
model M(d: int = 4)(x: [B, d]) -> y: [B, _] { return Wide()(x) as wide }
"""
    document = None
    for factor in (2, 3):
        document = Document("a.arch", text.replace("2 * d", f"{factor} * d"), document)
        assert not document.diagnostics
        node = next(n for n in document.node_at(text.index("(x) as wide"), (tree.Named,)))
        assert [str(v.type) for v in document.values(node.span)] == [f"[B, {4 * factor}]"]


def test_a_text_in_a_folder_that_is_not_there_yet(tmp_path):
    """What it imports is missing, as it is beside any other text."""
    (fault,) = Document(str(tmp_path / "new" / "a.arch"), "use parts { half }\nblock B()(x: [..., d]) -> [..., d] { return half(x) }\n").diagnostics
    assert fault.code == "A0207" and "no module `parts`" in fault.message
