"""Hover and completion at many places of one file, whole and broken, without the protocol."""
from __future__ import annotations

import pytest

from archdsl.lsp import addresses, telling
from archdsl.lsp.completing import complete
from archdsl.lsp.document import Document

DECODER = """\
use std.channel { SwiGLU }
use std.embed { TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.residual { Pre }
use std.vision

paper { title = "Mine", domain = "language" }

record Plan { kind: "a" | "b" = "a", width: int = 64 }

/// A gate of x.
block Gate(scale: float = 1, bias: bool = false, act: block = relu)(x: [..., d]) -> [..., d] {
  rate = Linear(d, bias = bias)(x) as rate
  return act(x) * sigmoid(scale * rate)
}

model Decoder(
  vocab: int = 320,
  /// The width.
  d: int = 64 in {32, 64},
  depth: int = 2,
)(tokens: int[B = 1, T = 16] in 0..<vocab) -> logits: [B, T, vocab] stream T {
  share embed = TokenEmbedding(vocab, d)
  x = embed(tokens)
  layers: for i in range(depth) {
    x = Pre(RMSNorm(), Attention(4, mask = causal))(x) as attn
    x = Pre(RMSNorm(), SwiGLU(4 * d))(x) as mlp
    x = x |> Gate() as gate
  }
  half = d // 2
  require half > 2, "a half of {half}"
  return linear(x |> RMSNorm() as norm, embed.weight)
}

variant tiny { d = 32, depth = 1 }
claim tiny { params > 10 }
"""
ADDRESSED = DECODER.replace("scale: float = 1,", "scale: float = 1 in {1, 2},") + """
claim { params(layers.0.attn) > 16_000; causal(logits, tokens) }
variant sharp { layers.1.gate.scale = 2 }
names theirs of Decoder {
  "embed.weight" <-> embed.weight
  "blocks.{i}.attn.{q, k, v, out}.*" <-> layers.{i}.attn.{q, k, v, out}.*
}
"""


def at(text: str, mark: str) -> int:
    """The place of `|` in a mark that is written with it; `\\n` in front of it, as in a string."""
    before, _, behind = mark.partition("¦")
    return text.index(before + behind) + len(before)


@pytest.fixture(scope="module")
def decoder():
    found = Document("a.arch", DECODER)
    assert not found.broken
    return found


@pytest.mark.parametrize(("mark", "parts"), [
    ("|> ¦Gate() as gate", ["block Gate(scale: float = 1", "A gate of x.", ": [B, T, 64]", "`layers.0.gate`: 4,096 parameters", "(one of 2)"]),
    ("(x) as ¦attn", [": [B, T, 64]", "`layers.0.attn`: "]),
    ("mask = ¦causal", ["causal: mask"]),
    ("4 ¦* d", ["4 * d: 256"]),
    ("in ¦range(depth", ["whole numbers from a", "range(depth): [0, 1]"]),
    ("for ¦i in", ["i: [0, 1]"]),
    ("of {¦half}", ["half: 32"]),
    ("rate = Linear(¦d, bias", ["d: 64"]),
    ("scale * ¦rate)", ["rate: [B, T, 64]"]),
    ("embed.¦weight)", ["embed.weight: [320, 64]"]),
    ("norm, ¦embed.w", ["share embed = TokenEmbedding(vocab, d)"]),
    ("T ¦= 16", []),
    ("B = 1, ¦T", ["`T`: 16 in examples"]),
    ("claim ¦tiny", ["variant tiny { d = 32, depth = 1 }"]),
    ("tiny { ¦d = 32", ["d: int = 64 in {32, 64}", "The width."]),
    ("model ¦Decoder", ["model Decoder(", "parameters, ", " MACs"]),
    ("Attention(4, ¦mask", ["mask: mask = full"]),
    ("std.¦channel", ["`SwiGLU`"]),
    ("¦relu)(x", ["op relu(x: [*s]) -> [*s]"]),
    ("/// The ¦width", []),
])
def test_hover(decoder, mark, parts):
    found = telling.hover(decoder, at(DECODER, mark))
    assert (found is None) == (not parts)
    assert found is None or all(part in found[0] for part in parts), found[0]


@pytest.mark.parametrize(("mark", "parts"), [
    ("{ ¦params(layers", ["`params` in claims: a number; told without torch", "`params(ADDRESS)`"]),
    ("¦causal(logits", ["a statement about the model; the model is run for it"]),
    ("(layers.0.¦attn", ["layers.0.attn: PreAttention", "parameters, ", "a.arch:28: `Pre(RMSNorm(), Attention(4, mask = causal))(x)`"]),
    ("<-> layers.{i}.¦attn.{", ["layers.0.attn: PreAttention", "one of 2: `layers.0.attn`, `layers.1.attn`"]),
    ("<-> layers.{i}.attn.{q, ¦k,", ["layers.0.attn.k: Linear", "one of 2"]),
    ("<-> layers.{i}.attn.{q, k, v, out}.¦*", ["param layers.0.attn.q.weight: [64, 64]", "one of 8"]),
    ("<-> embed.¦weight", ["param embed.weight: [320, 64]"]),
    ("layers.1.gate.¦scale", ["layers.1.gate.scale = 1"]),
    ('"embed.¦weight" <->', None),
])
def test_hover_on_addresses_and_words_of_claims(mark, parts):
    document = Document("a.arch", ADDRESSED)
    found = telling.hover(document, at(ADDRESSED, mark))
    assert parts is None or found is not None, (mark, document.diagnostics)
    assert found is None or all(part in found[0] for part in parts or ()), found


@pytest.mark.parametrize(("mark", "name"), [
    ("as ¦attn", "attn"), ("¦layers: for", "layers"), ("(layers.0.¦attn", "attn"), ("<-> layers.{i}.¦attn", "attn"), ("layers.1.¦gate.scale", "gate"),
])
def test_a_segment_of_addresses_is_not_renamed(mark, name):
    said = addresses.segment_of_address(Document("a.arch", ADDRESSED), at(ADDRESSED, mark))
    assert said.startswith(f"`{name}` is a segment of addresses")


@pytest.mark.parametrize("mark", ["¦half = d", "tiny { ¦d = 32", "variant ¦tiny", "model ¦Decoder"])
def test_other_names_are_no_segments(mark):
    assert addresses.segment_of_address(Document("a.arch", ADDRESSED), at(ADDRESSED, mark)) == ""


def test_an_argument_is_not_told_the_cost_of_the_call_around(decoder):
    found = telling.hover(decoder, at(DECODER, "mask = ¦causal"))
    assert found is not None and "parameters" not in found[0]


def test_a_file_with_a_fault_is_told_of_as_far_as_it_can_be_evaluated():
    broken = Document("a.arch", DECODER.replace("return linear(x", "return linear(x, x"))
    assert broken.broken and broken.good is None
    found = telling.hover(broken, at(broken.text, "|> ¦Gate() as gate"))
    assert found is not None and ": [B, T, 64]" in found[0]
    unreadable = Document("a.arch", DECODER.replace("half = d", "half = = d"), broken)
    assert unreadable.now is None and telling.hover(unreadable, at(DECODER, "¦Gate()"))


# ---------------------------------------------------------------- completion
def proposals(old: str, new: str) -> list[str]:
    """What is proposed at `¦` in the text that stands in the place of another one."""
    text, before = DECODER.replace(old, new.replace("¦", ""), 1), Document("a.arch", DECODER)
    assert not before.broken
    document = Document("a.arch", text, before)
    return [i.label for i in complete(document, text.index(new.replace("¦", "")) + new.index("¦"))]


@pytest.mark.parametrize(("old", "new", "first", "never"), [
    ("  half =", "  z = x |> ¦\n  half =", ["Gate", "SwiGLU"], ["x", "depth", "range"]),
    ("  half =", "  z = ¦\n  half =", ["x"], ["z", "Decoder"]),
    ("  half =", "  z = vision.¦\n  half =", ["Conv"], ["x", "Gate"]),
    ("  half =", "  z = embed.¦\n  half =", ["weight"], ["x"]),
    ("  half =", "  z = x |> Gate(¦\n  half =", ["scale", "bias", "act"], []),
    ("  half =", "  z = x |> Gate(scale = 2, ¦\n  half =", ["bias", "act"], ["scale"]),
    ("  half =", "  z = x |> Gate(bias = ¦\n  half =", ["true", "false"], []),
    ("mask = causal", "mask = ¦", ["causal", "full", "window"], []),
    ("  half =", "  sh¦\n  half =", ["x"], ["Gate", "relu"]),
    ("use std.vision", "use std.¦", ["std.channel", "std.embed"], ["x"]),
    ("use std.vision", "use std.vision { Conv, ¦ }", ["OffsetBias"], ["Conv"]),
    ("scale: float = 1", "scale: ¦", ["bf16"], ["x", "Gate"]),
    ("claim tiny", "variant more of ¦\nclaim tiny", ["Decoder", "tiny"], ["x"]),
    ("claim tiny", "variant more { ¦ }\nclaim tiny", ["vocab", "d", "depth"], ["x", "Gate"]),
    ("claim tiny", "variant more { d = ¦ }\nclaim tiny", ["32", "64"], []),
    ("claim tiny", "variant more { transform ¦ }\nclaim tiny", ["bake"], ["x"]),
    ("claim tiny { params > 10", "claim tiny { ¦", ["params", "macs"], ["Gate"]),
    ("params > 10", "count(¦", ["Gate", "SwiGLU"], ["params"]),
    ("claim tiny", "space small of ¦\nclaim tiny", ["Decoder"], ["tiny"]),
    ("claim tiny", "space small of Decoder { ¦ }\nclaim tiny", ["params"], ["shape"]),
    ("claim tiny", 'names hf of Decoder { "a" <-> ¦ }\nclaim tiny', ["embed", "layers", "norm"], ["x", "d"]),
    ("claim tiny", 'names hf of Decoder { "a" <-> layers.{i}.¦ }\nclaim tiny', ["attn", "mlp", "gate"], ["embed"]),
    ("domain =", "¦ =", ["title", "arxiv"], ["x"]),
    ("claim tiny", "mo¦\nclaim tiny", ["use", "block"], ["x", "return"]),
    ("  half =", "  # a no¦\n  half =", [], ["x"]),
    ("  half =", "  default ¦\n  half =", ["Gate"], ["x", "relu"]),
])
def test_completion(old, new, first, never):
    found = proposals(old, new)
    assert found[: len(first)] == first and not set(never) & set(found), found[:12]
    assert len(set(found)) == len(found)


def test_every_prefix_of_a_file_is_completed():
    """Whatever is in front of the cursor, and nothing behind it."""
    document = None
    for end in range(0, len(DECODER), 7):
        document = Document("a.arch", DECODER[:end], document)
        complete(document, end)
        telling.hover(document, max(end - 3, 0))
        telling.symbols(document)
