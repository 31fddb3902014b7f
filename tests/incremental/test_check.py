"""What is kept from one version of a text to the next changes nothing: after any edits the diagnostics are those of a check from nothing."""
from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from archdsl.diagnostics.model import Diagnostic, error
from archdsl.incremental import pieces
from archdsl.incremental.check import Checker
from archdsl.incremental.pieces import Reader, split
from archdsl.source import Source, Span
from archdsl.spec import check_text
from archdsl.syntax.parser import parse_some
from archdsl.syntax.tree import children
from benchmarks.generate import generated

ROOT = Path(__file__).parents[2]
SPECS = [ROOT / "specs" / f"{name}.arch" for name in ("language/llama", "language/ladder", "vision/fit", "vision/swin", "vision/nextvit")]
HYBRID = """\
use std.norm { LayerNorm, RMSNorm }
use std.linear { Linear }
use std.residual { Pre }
use std.mixer

record Sizes { hidden: int = 16 in {8, 16}, act: block = gelu }

/// The layers with attention.
fn every(n: int, k: int) -> list[bool] { return [i % k == 0 for i in range(n)] }

block Narrow(...Sizes, bias: bool = true)(x: [..., d]) -> [..., d] {
  return x |> Linear(hidden, bias = bias) as up |> act |> Linear(d) as down
}

wrap block Scaled(body: block)(x: [..., d]) -> [..., d] {
  param gain: [d] = ones()
  return gain * body(x)
}

block Both(hidden: int)(x: [..., d]) -> [..., d] { return x |> Narrow(hidden) as one |> Narrow(hidden, bias = false) as two }

extern block Scan(width: int)(x: [..., T, d]) -> [..., T, d]

# two models over the same blocks
model Net(d: int = 8, depth: int = 4, k: int = 2)(x: [B = 1, T = 6, d]) -> y: [B, T, d] stream T {
  default Linear(bias = true)
  layers: for i, attend in enumerate(every(depth, k)) {
    x = if attend { Pre(RMSNorm(), mixer.Attention(2))(x) as mix } else { Pre(RMSNorm(), Both(2 * d))(x) as mix }
  }
  return x |> LayerNorm() as norm
}

model Two(d: int = 4)  {
  share embed = Linear(d)
  entry encode(x: [B, d]) -> z: [B, d] { return embed(x) |> Scaled(Narrow(8)) as body }
  entry decode(z: [B, d]) -> x: [B, d] { return embed(z) }
}

variant deep of Net { depth = 6 }
variant odd of deep { k = 3, d = 2 * 6 }
claim deep { params > 10; count(Attention) == 3 }
space small of Net { params <= 30k }
names theirs of Net { "n.*" <-> norm.*  "l.{i}.*.*" <-> layers.{i}.mix.*.*  "l.{i}.*.*.*" <-> layers.{i}.mix.*.*.* }
"""

FOLDED = """\
use std { BatchNorm, Conv }

/// A layer.
block Layer(c: int)(x: [B, k, H, W]) -> [B, c, H, W] {
  return x |> Conv(c, 3, pad = 1) as conv |> BatchNorm() as norm |> relu
}

model Net(c: int = 8 in 4..16, n: int = 2)(x: [B = 1, 3, H = 8, W = 8]) -> y: [B, _, _, _] {
  stem: for k in [c, c] { x = x |> Conv(k, 1) as conv }
  layers: for i in range(n) { x = Layer(c)(x) as layer }
  return x
}

variant deep { n = 3 }
variant folded of deep { transform fold_batch_norm() }
claim folded { params < 4000; count(batch_norm) == 0 }
"""


def told(found: list[Diagnostic]) -> list[object]:
    """All of a diagnostic but the identity of its sources."""
    def place(span: Span) -> object:
        return span.source.path, span.start, span.end, span.text

    return [(d.code, d.severity, d.message, place(d.span), d.label, d.notes, d.help, [(place(label.span), label.message) for label in d.labels],
             [(f.title, [(place(span), new) for span, new in f.edits]) for f in d.fixes]) for d in found]


def edited(text: str, first: str, chance: random.Random) -> str:
    """The text after an accident, a deliberate change, or an undo of all."""
    kind = chance.random()
    words = list(re.finditer(r"[^\W\d]\w*", text)) or list(re.finditer("", text))
    lines = text.split("\n")
    if kind < 0.25:  # another name or number in the place of one
        one = chance.choice(words)
        return text[: one.start()] + chance.choice(words)[0] + text[one.end() :]
    if kind < 0.45 and (numbers := list(re.finditer(r"\d+", text))):
        one = chance.choice(numbers)
        return text[: one.start()] + str(chance.randrange(12)) + text[one.end() :]
    if kind < 0.55:
        lines.insert(chance.randrange(len(lines) + 1), chance.choice([*lines, "", "  # a comment", "# allow A0702", "/// documentation"]))
        return "\n".join(lines)
    if kind < 0.62:
        del lines[chance.randrange(len(lines))]
        return "\n".join(lines)
    if kind < 0.70:  # a declaration moves, or is there twice
        cuts = [text[a:b] for a, b in split(text)]
        moved = chance.choice(cuts)
        if chance.random() < 0.5:
            cuts.remove(moved)
        cuts.insert(chance.randrange(len(cuts) + 1), moved)
        return "".join(cuts)
    if kind < 0.80:
        i = chance.randrange(len(text) + 1)
        return text[:i] + chance.choice(["", "x", "(", "}", "{", ", ", " = ", "\n", '"', "\n}\n", "1", ".", "#"]) + text[i + chance.randrange(3) :]
    return first


def held_against_cold(text: str, path: str, seed: int, edits: int) -> int:
    """The number of versions without an error. Each version comes from the one before it by up to three edits."""
    chance, checker, first, clean = random.Random(seed), Checker(path), text, 0
    for _ in range(edits):
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            text = edited(text, first, chance)
        found = checker.check(text)
        assert told(found.diagnostics) == told(check_text(text, path, lints=True, trials=False)), text
        clean += not found.broken
    return clean


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.proof) for seed in (2, 3))])
def test_edits_of_a_file_with_all_kinds_of_declarations(seed, tmp_path):
    assert held_against_cold(HYBRID, str(tmp_path / "a.arch"), seed, 80) > 4


def test_edits_of_a_file_with_a_transform(tmp_path):
    assert held_against_cold(FOLDED, str(tmp_path / "a.arch"), 2, 50) > 4


@pytest.mark.parametrize("path", [p if i < 3 else pytest.param(p, marks=pytest.mark.proof) for i, p in enumerate(SPECS)], ids=lambda p: p.stem)
def test_edits_of_specs(path):
    assert held_against_cold(path.read_text(encoding="utf-8"), str(path), 7, 12) > 0


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(40))
def test_many_edits(seed, tmp_path):
    texts = [HYBRID, FOLDED, generated(250), *(p.read_text(encoding="utf-8") for p in sorted((ROOT / "specs").rglob("*.arch")))]
    held_against_cold(texts[seed % len(texts)], str(tmp_path / "a.arch"), seed, 150)


def test_a_header_that_changes_beside_a_mistake(tmp_path):
    """What stands beside the mistake is read together with it, and has its old tree again when that is mended: what it calls has changed since."""
    text = """use std.linear {{ Linear }}
block One(d: int)(x: [B, {size}, d]) -> [B, _, d] {{ return Linear(d)(x) as a }}
block Two(d: int)(x: [B, 4, d]) -> [B, _, d] {{ return One(d)(x) as b {mistake} }}
model M(d: int = 8)(x: [B, 4, d]) -> y: [B, _, d] {{ return Two(d)(x) as c }}
"""
    checker = Checker(str(tmp_path / "a.arch"))
    assert not checker.check(text.format(size=4, mistake="")).broken
    assert checker.check(text.format(size=9, mistake="elsx")).broken
    found = checker.check(text.format(size=9, mistake=""))
    assert [d.code for d in found.diagnostics] == ["A0301"]


def test_typed_letter_by_letter(tmp_path):
    """A spec as it grows, from an empty file on."""
    path, checker = str(tmp_path / "a.arch"), Checker(str(tmp_path / "a.arch"))
    text = HYBRID.split("\nextern")[0]
    for end in range(0, len(text), 5):
        assert told(checker.check(text[:end]).diagnostics) == told(check_text(text[:end], path, lints=True, trials=False)), text[:end]


def test_files_beside_it(tmp_path):
    path, parts = str(tmp_path / "a.arch"), tmp_path / "parts.arch"
    checker = Checker(path)
    text = "use parts { half }\nblock B(d: int)(x: [..., d]) -> [..., d] { return x * half(d) }\n"

    def same() -> list[str]:
        found = checker.check(text).diagnostics
        assert told(found) == told(check_text(text, path, lints=True, trials=False))
        return [d.code for d in found]

    assert same() == ["A0207"]
    parts.write_text("fn half(n: int) -> int { return n // 2 }\n")
    assert same() == [] and same() == []
    parts.write_text("fn half(n: int) -> int { return n // 2\n")
    assert same() == same() != []
    parts.write_text("fn third(n: int) -> int { return n // 3 }\n")
    assert same() == ["A0207"]
    (tmp_path / "a.arch").write_text(text)
    parts.write_text("use a { B }\nfn half(n: int) -> int { return n // 2 }\n")
    assert same() == ["A0216"]


def test_limits_count_all_the_work(tmp_path):
    """A loop that is too long for the budget of a file is told of, and not told of again when it is gone."""
    path = str(tmp_path / "a.arch")
    checker, long = Checker(path), HYBRID.replace("range(n)]", "range(150_000)]")
    for text in (HYBRID, long, long + "\n", HYBRID, HYBRID + "\n"):
        assert told(checker.check(text).diagnostics) == told(check_text(text, path, lints=True, trials=False))
    assert any(d.code == "A0602" for d in checker.check(long).diagnostics)


# ---------------------------------------------------------------- what is read again
def tree_of(module, text):
    """A tree as nested tuples, its places in the text."""
    def shown(n):
        return type(n).__name__, n.span.absolute[1:], n.span.text, getattr(n, "doc", ""), [shown(c) for c in children(n)]

    return [shown(d) for d in module.decls], [(c.span.absolute[1:], c.text, c.own_line) for c in module.comments]


@pytest.mark.parametrize("text", [HYBRID, generated(250), *(p.read_text(encoding="utf-8") for p in SPECS)])
def test_trees_are_those_of_the_whole_text(text):
    chance, reader, first = random.Random(3), Reader(), text
    for _ in range(40):
        source = Source("a.arch", text)
        found = reader.read(source)
        module, faults, tokens = parse_some(source, 250_000)
        assert told(found.faults) == told(faults) and found.tokens == tokens
        assert tree_of(found.tree, text) == tree_of(module, text)
        text = edited(text, first, chance)


def test_one_declaration_is_read_again(monkeypatch):
    read: list[str] = []
    run = pieces.Run.result
    monkeypatch.setattr(pieces.Run, "result", lambda self: (read.append(self.source.text), run(self))[1])
    reader = Reader()
    reader.read(Source("a.arch", HYBRID))
    everything = len(read)
    read.clear()
    reader.read(Source("a.arch", HYBRID.replace("2 * d", "3 * d")))
    assert everything > 10 and len(read) == 1 and "model Net" in read[0] and "model Two" not in read[0]


@pytest.mark.parametrize(("mark", "typed"), [
    ("  stages: for i, (w, blocks) in enumerate", "  x = x |> relu |> dropout(0.1)"), ("  y = attention(q, k, v", "  q = q |> RMSNorm() as q_norm"),
    ("variant deep0 of", "variant deeper of Image0 { depths = [4, 5, 4] }")])
def test_mistakes_while_a_line_is_typed_are_read_with_their_neighbours_alone(mark, typed, monkeypatch):
    """The rest of a long file is not read again: that takes longer than all else."""
    read: list[str] = []
    monkeypatch.setattr(pieces, "whole", lambda source: (read.append(source.text), pieces.Reading(source, *parse_some(source, 250_000), []))[1])
    text, reader = generated(250), Reader()
    at = text.index(mark)
    for end in (*range(0, len(typed), 2), len(typed)):
        found = reader.read(Source("a.arch", f"{text[:at]}{typed[:end]}\n{text[at:]}"))
        assert found.parts and not read, typed[:end]
        assert end < len(typed) or not found.faults


def test_one_model_is_elaborated_again(tmp_path, monkeypatch):
    from archdsl import spec

    text, done, elaborate = generated(250), [], spec.elaborate
    monkeypatch.setattr(spec, "elaborate", lambda module, decl, *rest: (done.append(decl.name), elaborate(module, decl, *rest))[1])
    checker = Checker(str(tmp_path / "a.arch"))
    checker.check(text)
    assert len(done) == 5 * 3  # models and variants of three chapters
    done.clear()
    assert not checker.check(text.replace("|> relu6\n  y = y |> Conv(out", "|> relu\n  y = y |> Conv(out", 1)).broken
    assert done == ["Image0", "Image0"]
    done.clear()
    checker.check("# above\n" + text.replace("|> relu6\n  y = y |> Conv(out", "|> relu\n  y = y |> Conv(out", 1))
    assert done == []


def test_a_transform_is_not_run_again_on_what_it_has_seen(tmp_path, monkeypatch):
    from archdsl.passes import manager

    done, rewrite = [], manager.rewrite
    monkeypatch.setattr(manager, "rewrite", lambda made, step, *rest: (done.append(step.name), rewrite(made, step, *rest))[1])
    checker = Checker(str(tmp_path / "a.arch"))
    for text, runs in ((FOLDED, 1), (FOLDED.replace("|> relu", "|> relu  # an activation"), 1), (FOLDED.replace("|> relu", "|> gelu"), 2),
                       (FOLDED.replace("range(n)", "range(n + 1)"), 3), (FOLDED, 3)):
        assert not checker.check(text).broken and len(done) == runs


def test_faults_in_what_a_transform_made_point_at_the_text_of_now(tmp_path, monkeypatch):
    """The model behind it is kept from a version in which the block had a line less."""
    path, told_of = str(tmp_path / "a.arch"), []

    def last_call(module, models):
        graph = models["Net"].elaborate("folded").graph
        told_of.append(next(n.span for g in graph.definitions() for n in g.nodes if n.op == "relu"))
        return error("A0411", "not so", told_of[-1]).diagnostics

    monkeypatch.setattr("archdsl.claims.check_claims", last_call)
    checker = Checker(path)
    for text in (FOLDED, FOLDED.replace("  return x |> Conv(c, 3", "  # a note\n  return x |> Conv(c, 3")):
        assert told(checker.check(text).diagnostics) == told(check_text(text, path, lints=True, trials=False))
    assert len({span.absolute.start for span in told_of}) == 2


def test_a_loop_that_the_edit_does_not_reach_is_not_elaborated_again(tmp_path, monkeypatch):
    """The stem beside the layers, in a model of which the rest depends on the block that was edited."""
    from archdsl.elaborate import loops

    done, body = [], loops._body_graph
    monkeypatch.setattr(loops, "_body_graph", lambda frame, s, *rest: (done.append(s.label), body(frame, s, *rest))[1])
    checker = Checker(str(tmp_path / "a.arch"))
    checker.check(FOLDED)
    assert {*done} == {"stem", "layers"}
    done.clear()
    assert not checker.check(FOLDED.replace("|> relu", "|> gelu")).broken
    assert {*done} == {"layers"}


def test_a_record_that_is_gone_takes_its_fields_along(tmp_path):
    """While the text cannot be read in full, nothing is elaborated, and a header that spreads the record has what the record has then."""
    path = str(tmp_path / "a.arch")
    checker, gone = Checker(path), HYBRID.replace("record Sizes", "record Others").replace("use std.norm {", "use std.nrm {")
    for text in (HYBRID, gone, HYBRID, HYBRID.replace("hidden: int = 16 in", "hidden: int = 8 in"), gone):
        assert told(checker.check(text).diagnostics) == told(check_text(text, path, lints=True, trials=False))
