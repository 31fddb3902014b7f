"""A text as pieces that are parsed on their own, and read again only when they change.

A piece is whole lines with whole declarations, so that what it means does not depend on the text around it. A piece with a mistake is read together
with its neighbours, as far as recovery from the mistake looks (`Window`); where that is too far, the whole text is read.
"""
from __future__ import annotations

import re
from typing import Any

from archdsl.diagnostics.model import Diagnostic
from archdsl.source import Piece, Source, Span
from archdsl.syntax import tree
from archdsl.syntax.lexer import DECLARATIONS, Lexed, Token
from archdsl.syntax.parser import MAX_TOKENS, Run, one_per_line, parse_some

_STARTS = re.compile(rf"^(?:{'|'.join(sorted(DECLARATIONS))})\b", re.MULTILINE)
_ENDS = re.compile(r"\}[ \t\r]*(?:#.*)?$")  # a line behind which a declaration may start; documentation must not stand there
_WORD = re.compile(r"[^\W\d]\w*")


class Part:
    """A piece that was read without a fault. `words`: what may be a name in it; `tokens`: how many it has; `odd`: it has a `}` further left than
    the line of its `{`, on which the explanation of a mistake elsewhere may depend."""

    __slots__ = ("comments", "decls", "odd", "piece", "tokens", "words")

    def __init__(self, piece: Piece, module: tree.Module, tokens: list[Token]):
        self.piece, self.decls, self.comments = piece, module.decls, module.comments
        self.tokens = len(tokens) - 1
        self.words = frozenset(_WORD.findall("\n".join([t[1] for t in tokens])))
        self.odd = _odd(piece.text, tokens)


class Reading:
    """What reading a text gave: its tree, its faults, how many tokens it has, and the parts that the tree is made of."""

    __slots__ = ("faults", "parts", "source", "tokens", "tree")

    def __init__(self, source: Source, module: tree.Module, faults: list[Diagnostic], tokens: int, parts: list[Part]):
        self.source, self.tree, self.faults, self.tokens, self.parts = source, module, faults, tokens, parts


class Reader:
    """Reads versions of one text, `source` the last one. The parts of that are kept by their text."""

    def __init__(self) -> None:
        self.known: dict[str, list[Part]] = {}
        self.source = Source("", "")

    def read(self, source: Source) -> Reading:
        """The tree and the faults, as `parse_some` gives them but that spans may lie in pieces."""
        self.source, cuts = source, split(source.text)
        free = {text: list(parts) for text, parts in self.known.items()}
        parts = [self._part(source, a, b, free) for a, b in cuts]
        kept: dict[str, list[Part]] = {}
        for p in parts:
            if p is not None:
                kept.setdefault(p.piece.text, []).append(p)
        self.known = kept
        broken = [i for i, p in enumerate(parts) if p is None]
        found = _joined(source, parts) if not broken else self._mended(source, cuts, parts, broken)
        return found if found is not None and found.tokens <= MAX_TOKENS else whole(source)

    def _part(self, source: Source, start: int, end: int, free: dict[str, list[Part]]) -> Part | None:
        """The part of these lines, None where they have a fault."""
        same = free.get(source.text[start:end])
        if same:
            part = same.pop(0)
            part.piece.move(source, start)
            return part
        piece = Piece(source, start, end)
        run = Sound(piece, "start")
        module = run.result()
        if module is None or run.faults.found:
            return None
        return Part(piece, module, run.lexed.tokens)

    def _mended(self, source: Source, cuts: list[tuple[int, int]], parts: list[Part | None], broken: list[int]) -> Reading | None:
        """Reads what is broken with a piece before and two behind it; None where that does not tell all."""
        first, last = max(broken[0] - 1, 0), min(broken[-1] + 2, len(cuts) - 1)
        before, behind = parts[:first], parts[last + 1 :]
        if any(p is not None and p.odd for p in (*before, *behind)):
            return None
        run = Window(source, cuts[first][0], cuts[last][1])
        module = run.result()
        if run.too_far or not isinstance(module, tree.Module):
            return None
        out = _joined(source, [*before, *behind])
        assert out is not None
        at = sum(len(p.decls) for p in before if p is not None)
        decls = (*out.tree.decls[:at], *module.decls, *out.tree.decls[at:])
        comments = sorted((*out.tree.comments, *module.comments), key=lambda c: c.span.absolute.start)
        made = tree.Module(out.tree.span, decls)
        made.comments = tuple(comments)
        return Reading(source, made, one_per_line(run.faults.found), out.tokens + len(run.lexed.tokens) - 1, out.parts)


def whole(source: Source) -> Reading:
    """The reading of a text that is not cut."""
    return Reading(source, *parse_some(source, MAX_TOKENS), [])


def _joined(source: Source, parts: list[Part | None]) -> Reading:
    every = [p for p in parts if p is not None]
    module = tree.Module(Span(source, 0, len(source.text)), tuple(d for p in every for d in p.decls))
    module.comments = tuple(c for p in every for c in p.comments)
    return Reading(source, module, [], sum(p.tokens for p in every) + 1, every)


def split(text: str) -> list[tuple[int, int]]:
    """Where pieces start and end: in front of a line that starts with a declaration's word, with the comments above it, behind a line that ends
    with `}`."""
    starts = [0]
    for m in _STARTS.finditer(text):
        at = m.start()
        while at:
            line = text.rfind("\n", 0, at - 1) + 1
            said = text[line : at - 1].strip()
            if said and said[0] != "#" and not said.startswith("///"):
                break
            at = line
        if at > starts[-1] and _ENDS.search(text, text.rfind("\n", 0, at - 1) + 1, at - 1):
            starts.append(at)
    return list(zip(starts, [*starts[1:], len(text)]))


def _odd(text: str, tokens: list[Token]) -> bool:
    """Whether a `}` leads its line further left than the line of its `{` starts."""
    stack: list[int] = []
    for _, sign, at, _ in tokens:
        if sign in ("{", "}"):
            start = text.rfind("\n", 0, at) + 1
            margin = len(line := text[start:at]) - len(line.lstrip())
            if sign == "{":
                stack.append(margin)
            elif stack and stack.pop() > margin == len(line):
                return True
    return False


class Sound(Run):
    """Reads a text without a fault; one with a fault gives None."""

    def loop(self, tokens: list[Token]) -> Any:
        return self.values[-1] if self.advance(tokens, 0) < 0 else None


class Tokens(list[Token]):
    """Tokens of a window. `far`: something asked for one behind its end."""

    watched = False
    far = False

    def __getitem__(self, at: Any) -> Any:
        if self.watched:
            stop = at.stop if isinstance(at, slice) else at
            if stop is None or stop < 0 or stop + (not isinstance(at, slice)) >= len(self):
                self.far = True
        return super().__getitem__(at)


class Window(Run):
    """Reads lines of a text as they are read in it. `too_far`: explaining a mistake, or going on behind it, took more than these lines."""

    def __init__(self, source: Source, start: int, stop: int):
        super().__init__(source, "start", start, stop)
        self.end = stop
        self.tokens = Tokens()

    def read(self) -> Lexed:
        found = super().read()
        self.tokens = Tokens(found.tokens)
        return found._replace(tokens=self.tokens)

    def loop(self, tokens: list[Token]) -> Any:
        from archdsl.syntax.recover import recover

        at = 0
        while (at := self.advance(tokens, at)) >= 0:
            self.tokens.watched = True
            at = recover(self, tokens, at)
            self.tokens.watched = False
            if at < 0 or self.too_far:
                return None
        return self.values[-1]

    @property
    def too_far(self) -> bool:
        return self.tokens.far and self.end < len(self.source.text)
