"""Addresses where they are written: in claims, limits of spaces, settings of variants and foreign names. What is told of what is there."""
from __future__ import annotations

import re

from archdsl.claims.words import WORDS, Word
from archdsl.cost.layers import count_params
from archdsl.elaborate.values import show
from archdsl.graph import Knob, Param
from archdsl.lsp.document import Document, Facts
from archdsl.lsp.names import SCOPES, models_of, word_at
from archdsl.records import record
from archdsl.source import Span
from archdsl.syntax import tree

SEGMENT = r"(?:\w+|\*|\{[\w\s,]*\})"
ADDRESS = re.compile(rf"{SEGMENT}(?:\s*\.\s*{SEGMENT})+|{SEGMENT}")
FEW = 3  # addresses that are listed


@record(frozen=True)
class Written:
    """An address up to the segment at a place: its text, where that stands, and the model that it is an address of."""

    text: str
    span: Span
    facts: Facts


def written(document: Document, offset: int) -> Written | None:
    """The address at a place."""
    around = document.node_at(offset, (tree.Names, tree.Variant, tree.Space, tree.Claim))
    about = _about(document, around[0]) if around else []
    place = _region(document, offset)
    if not about or place is None:
        return None
    for m in ADDRESS.finditer(document.text, *place):
        if m.start() <= offset <= m.end():
            found = [_cut(document, m[0], m.start(), offset, facts) for facts in about]
            return next((w for w in found if matching(w.text, w.facts.addresses)), found[0])  # of models that share names, one that has it
    return None


def _about(document: Document, decl: tree.Node) -> list[Facts]:
    decls = {d.name: d for d in document.module.tree.decls if isinstance(d, SCOPES)}
    models = models_of(decl, decls, {d.name: d for d in document.module.tree.decls if isinstance(d, tree.Variant)})
    version = document.now or document.good
    return [f for model in models for f in (version.facts if version is not None else ()) if f.name == model.name]


def _region(document: Document, offset: int) -> tuple[int, int] | None:
    """Where an address may stand around a place."""
    for n in document.node_at(offset, (tree.NameLine, tree.Setting, tree.Claim, tree.Space)):
        start, end = n.span.absolute.start, n.span.absolute.end
        if isinstance(n, tree.NameLine):
            arrow = document.text.find("<->", start, end)
            return (arrow + 3, end) if 0 <= arrow < offset else None
        if isinstance(n, tree.Setting):
            place = n.address_span.absolute
            if not place.start <= offset <= place.end:
                return None
            return place.start, place.end
        return start, end
    return None


def _cut(document: Document, text: str, start: int, offset: int, facts: Facts) -> Written:
    """The address without the segments behind the place, and of alternatives in braces the one at the place."""
    depth, end = 0, len(text)
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        if c == "." and depth == 0 and start + i >= offset:
            end = i
            break
    text = text[:end]
    brace = text.rfind("{", 0, max(offset - start, 0))
    if brace >= 0 and text.find("}", brace) >= offset - start:
        inside = next((m for m in re.finditer(r"\w+", text[brace:]) if start + brace + m.start() <= offset <= start + brace + m.end()), None)
        if inside is not None and "," in text[brace:]:
            text = text[:brace] + inside[0]
    return Written(re.sub(r"\s", "", text), Span(document.source, start, start + end), facts)


def matching(address: str, known: list[str]) -> list[str]:
    """The known addresses, or parts of them, that an address means."""
    def segment(text: str) -> str:
        if text.startswith("{") and "," in text:
            return f"(?:{'|'.join(map(re.escape, text[1:-1].split(',')))})"
        return r"[^.]+" if text == "*" or text.startswith("{") else re.escape(text)

    parts = re.findall(r"\{[^{}]*\}|[^.{}]+", address)
    pattern = re.compile(r"\.".join(map(segment, parts)) + r"(?=\.|$)")
    return list(dict.fromkeys(m[0] for k in known if (m := pattern.match(k))))


def hover(document: Document, offset: int) -> tuple[str, Span] | None:
    """Markdown about the address at a place: what is there, its size, and where it is declared."""
    found = written(document, offset)
    if found is None or found.facts.graph is None:
        return None
    facts, graph = found.facts, found.facts.graph
    for known, tell in ((facts.layers, _block), (dict(graph.parameters()), _weight), (facts.knobs, _knob)):
        same = [a for a in matching(found.text, list(known)) if a in known]
        if same:
            listed = ", ".join(f"`{a}`" for a in same[:FEW]) + (", …" if len(same) > FEW else "")
            return tell(facts, same[0]) + (f"\n\none of {len(same)}: {listed}" if len(same) > 1 else ""), found.span
    return None


def _block(facts: Facts, address: str) -> str:
    row = facts.layers[address]
    calls = next(((span, graph) for span, every in facts.calls.items() for a, graph in every if a == address), None)
    params = count_params(calls[1]) if calls is not None else row.params
    text = f"```arch\n{address}: {row.block} -> {list(row.output)}\n```\n\n{params:,} parameters, {row.macs:,} MACs"
    return text + _line(calls[0] if calls is not None else None)


def _weight(facts: Facts, address: str) -> str:
    assert facts.graph is not None
    p: Param = dict(facts.graph.parameters())[address]
    above = address.rpartition(".")[0]
    place = next((span for span, every in facts.calls.items() for a, _ in every if a == above), p.span)
    return f"```arch\n{p.kind} {address}: {p.type}\n```" + _line(place)


def _knob(facts: Facts, address: str) -> str:
    knob: Knob = facts.knobs[address]
    return f"```arch\n{address} = {show(knob.value)}\n```"


def _line(span: Span | None) -> str:
    """Where something is declared."""
    if span is None or not span.source.path:
        return ""
    place = span.absolute
    return f"\n\n{place.source.path.rpartition('/')[2]}:{place.source.position(place.start)[0]}: `{place.text.splitlines()[0].strip()}`"


# ---------------------------------------------------------------- words of claims
def claim_word(document: Document, offset: int) -> tuple[str, Span] | None:
    """What a word of a claim or a limit means."""
    at = word_at(document.text, offset)
    word: Word | None = WORDS.get(at[0]) if at is not None else None
    name = next(iter(document.node_at(offset)), None)
    if at is None or word is None or not isinstance(name, tree.Name) or not document.node_at(offset, (tree.Claim, tree.Space)):
        return None
    kind = {"truth": "a statement about the model", "number": "a number", "shape": "a shape"}[word.kind]
    how = f"it will come with {word.comes}" if word.comes else "the model is run for it" if word.torch else "told without torch"
    return f"`{word.name}` in claims: {kind}; {how}. Written {word.usage}.", Span(document.source, at[1], at[2])


def segment_of_address(document: Document, offset: int) -> str:
    """Why the name at a place cannot be renamed, when it is a segment of addresses; "" where it is none."""
    for n in document.node_at(offset, (tree.Named, tree.For)):
        place = n.name_span.absolute if isinstance(n, tree.Named) else None
        label = n.label if isinstance(n, tree.For) else None
        start = n.span.absolute.start
        if place is not None and place.start <= offset <= place.end or label and start <= offset <= start + len(label):
            return _reason(n.name if isinstance(n, tree.Named) else str(label))
    found = written(document, offset)
    if found is not None and found.facts.graph is not None:
        last = found.text.rpartition(".")[2]
        if matching(found.text, found.facts.addresses) and ("." in found.text or last not in found.facts.knobs):
            return _reason(last)
    return ""


def _reason(name: str) -> str:
    return (f"`{name}` is a segment of addresses, by which weights in checkpoints, knobs and foreign names are found: renaming it would leave those "
            "behind. Change it in the text, then `archdsl check` shows what names it")
