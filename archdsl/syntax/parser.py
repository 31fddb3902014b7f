"""Text to tree: the loop that runs the parse table, and the ways in.

    parse(source) -> Module                     raises ArchError with every syntax fault
    parse_recover(source) -> (Module, faults)   the same, and what could be read of a faulty text
    parse_signature, parse_expression, parse_selector, parse_transform, parse_setting   for texts that stand alone

Lark compiles the grammar (table.py); the loop is our own: it starts in a tenth of the time, builds the tree without a second one in between,
and its stacks are at hand when a mistake is to be explained and skipped.
"""
from __future__ import annotations

import gc
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from archdsl.alone import ALONE
from archdsl.diagnostics.model import ArchError, Collector, Diagnostic
from archdsl.source import Source, Span
from archdsl.syntax import table as tables
from archdsl.syntax import tree as t
from archdsl.syntax.build import Builder
from archdsl.syntax.lexer import Lexed, Token, lex

_FOREIGN_COMMENT = re.compile(  # a line that starts with `//`, which may be a division, or goes on behind the first one as divisions rarely do
    r"^[ \t]*//(?!/)|/\*|--[ \t]|//[ \t]*\w+(?:[ \t]*=|:[ \t])|//[^/#\"\n]*(?:->|[^=<>!]=(?!=))|"
    r"^[^#\"/\n]*(?:/(?!/)[^#\"/\n]*)*//(?!/)(?:[^#\"\n]*(?:'|(?<!\w)\w++[ \t]++\w)|[^\"#\n]*[\[(][^\[(\n]*,)",
    re.MULTILINE)
MAX_CHARACTERS = 10_000_000
MAX_TOKENS = 250_000
MAX_STACK = 400      # entries on the parser's stack: brackets and what binds to the right
MAX_DEPTH = 200      # levels of the tree: what later stages may walk by recursion
MAX_FAULTS = 25


def parse(source: Source) -> t.Module:
    """The tree of a file. Raises ArchError with all its syntax faults."""
    module, faults = parse_recover(source)
    if faults:
        raise ArchError(*faults)
    return module


def parse_recover(source: Source) -> tuple[t.Module, list[Diagnostic]]:
    """The tree of what could be read, and the faults in order of appearance."""
    module, faults, _ = parse_some(source, MAX_TOKENS)
    return module, faults


def parse_some(source: Source, most: int) -> tuple[t.Module, list[Diagnostic], int]:
    """The same for a text of at most so many tokens, and how many it has."""
    run = Run(source, "start")
    run.max_tokens = most
    module = run.result()
    if module is None:
        module = t.Module(Span(source, 0, len(source.text)), ())
    return module, one_per_line(run.faults.found), len(run.lexed.tokens)


def parse_lines(source: Source, start: int, stop: int) -> t.Module:
    """The tree of some lines of a text that hold whole declarations, with its spans where they stand. Raises ArchError with their syntax faults."""
    run = Run(source, "start", start, stop)
    module = run.result()
    if run.faults.found:
        raise ArchError(*run.faults.found)
    return module


def one_per_line(faults: list[Diagnostic]) -> list[Diagnostic]:
    """Without the A0101 that follow from another fault of their line: what stands behind a misread word is rarely read right."""
    lines: dict[int, Diagnostic] = {}
    for d in faults:
        line = d.span.source.position(d.span.start)[0]
        if line not in lines or lines[line].code == "A0101" != d.code:
            lines[line] = d
    return [d for d in faults if d.code != "A0101" or lines[d.span.source.position(d.span.start)[0]] is d]


def parse_signature(text: str, path: str = "<signature>") -> t.OpDecl:
    """An op's signature, such as `linear(x: [..., i], weight: [o, i]) -> [..., o]`."""
    return _alone(text, path, "signature")


def parse_expression(text: str, path: str = "<expression>") -> t.Expr:
    """A value or a domain, such as `4 * d`, `{1, 2}`, `2..8 step 2`."""
    return _alone(text, path, "expression")


def parse_selector(text: str, path: str = "<selector>") -> str:
    """A selector such as `layers[8:24].*.q & op:linear`, checked and on one line."""
    return _alone(text, path, "selection")[1]


def parse_transform(text: str, path: str = "<pass>") -> t.Transform:
    """A step `name(options) on SELECTOR using INPUT`, without the word `transform`."""
    return _alone(text, path, "step")


def parse_setting(text: str, path: str = "<setting>") -> t.Setting:
    """An override `address = value`."""
    return _alone(text, path, "override")


def _alone(text: str, path: str, start: str) -> Any:
    run = Run(Source(path, text), start)
    value = run.result()
    if run.faults.found:
        raise ArchError(*run.faults.found)
    return value


OLD = 1_000_000  # objects made old without a look before all are looked through
_old = 0
_frozen = False  # whether the program keeps objects frozen: asked until it does, as counting them takes longer than most texts


@contextmanager
def no_collection() -> Generator[None]:
    """A tree is all live objects: looking for garbage while it grows would take a third of the time, and one look when it is done a tenth.

    So what was made here is old at once (`unfreeze` puts it there), and Python looks through old objects only now and then. It would not count these
    among the reasons to do so: that is done here.
    """
    global _old, _frozen
    was = gc.isenabled()
    if was and _old > OLD:
        _old = 0
        gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            _frozen = _frozen or gc.get_freeze_count() > 0
            if not _frozen:  # else they would thaw
                _old += gc.get_count()[0]
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextmanager
def deep() -> Generator[None]:
    """Room for recursion over the deepest tree that the parser lets through."""
    with ALONE:  # Python has one limit for all threads
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, 10_000))
        try:
            yield
        finally:
            sys.setrecursionlimit(limit)


class Run:
    """One parse: the stacks, the tokens, the faults."""

    def __init__(self, source: Source, start: str, first: int = 0, stop: int | None = None):
        self.source, self.start, self.place = source, start, (first, stop)
        self.table = tables.load()
        self.faults = Collector()
        self.lexed = Lexed([], [], {}, [])
        self.builder = Builder(source, {})
        self.states: list[int] = [self.table.start[start]]
        self.values: list[Any] = []
        self.starts: list[int] = []
        self.deepest = 0
        self.resumed = -1  # the token at which reading went on after a fault
        self.max_faults, self.max_stack, self.max_tokens = MAX_FAULTS, MAX_STACK, MAX_TOKENS

    def result(self) -> Any:
        """The value of the start rule, or None where nothing could be read; faults are in `faults`."""
        text = self.source.text
        if len(text) > MAX_CHARACTERS:
            self.fault("A0105", f"the text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read", 0, 0, "this file is too large")
            return None
        with no_collection():
            self.lexed = self.read()
            if len(self.lexed.tokens) > self.max_tokens:
                at = self.lexed.tokens[self.max_tokens]
                whole = "the text has" if self.max_tokens == MAX_TOKENS else "a spec and its modules have"
                self.fault("A0105", f"{whole} more than {MAX_TOKENS:,} words and signs", at[2], at[3], "reading stopped here")
                return None
            self.builder.docs = self.lexed.docs
            if '"""' in text or "'''" in text:
                from archdsl.syntax.habit_comments import docstrings

                for told in docstrings(self.source, self.lexed):
                    self.faults.add(told)
            if _FOREIGN_COMMENT.search(text):
                from archdsl.syntax.habit_comments import comments

                for told in comments(self.source, self.lexed, {*self.table.words.word, *self.table.words.reserved}):
                    self.faults.add(told)
            if self.lexed.bad:
                from archdsl.syntax.signs import explain_bad

                for token in self.lexed.bad[:MAX_FAULTS]:
                    self.faults.add(explain_bad(self.source, token))
            value = self.loop(self.lexed.tokens)
            if isinstance(value, t.Module):
                value.comments = tuple(self.comments())
            if not self.check_depth(value):
                value = None  # nobody is to walk it
        for fault in self.builder.faults[:MAX_FAULTS]:
            self.faults.add(fault)
        self.faults.found.sort(key=lambda fault: fault.span.start)
        return value

    def read(self) -> Lexed:
        """The tokens of the text."""
        return lex(self.source.text, self.table.words, self.max_tokens, *self.place)

    def loop(self, tokens: list[Token]) -> Any:
        """Run the table over the tokens, recovering at statements and declarations."""
        at = 0
        while True:
            at = self.advance(tokens, at)
            if at < 0:
                return self.values[-1]
            from archdsl.syntax.recover import recover

            at = recover(self, tokens, at)
            if at < 0:
                return None

    def advance(self, tokens: list[Token], at: int) -> int:
        """Shift and reduce until the end (-1) or the first token that fits nowhere (its index)."""
        table, states, values, starts = self.table, self.states, self.values, self.starts
        actions, goto, rules, fallback, end_state = table.actions, table.goto, table.rules, table.words.fallback, table.end[self.start]
        methods, builder = table.methods, self.builder
        final = table.ids["$END"]
        state = states[-1]
        last_end = tokens[at - 1][3] if at else 0
        deepest = self.deepest
        value: Any
        while True:
            token = tokens[at]
            kind = token[0]
            while True:
                act = actions[state].get(kind)
                if act is None:
                    kind = fallback.get(kind)
                    if kind is None:
                        self.deepest = max(deepest, len(states))
                        return at
                    continue
                if act >= 0:
                    break
                size, left, how, which, _ = rules[~act]
                if how == 0 and size == 1:  # PASS: the value stays
                    states[-1] = state = goto[states[-2]][left]
                    if state == end_state and kind == final:
                        self.deepest = deepest
                        return -1
                    continue
                if size:
                    start = starts[-size]
                    parts = values[-size:]
                    if len(states) > deepest:
                        deepest = len(states)
                    del states[-size:], values[-size:], starts[-size:]
                else:
                    start, parts = last_end, []
                if how == 1:    # BUILD
                    value = methods[~act](builder, parts, start, last_end)
                elif how == 2:  # PICK
                    parts.append(None)
                    value = methods[~act](builder, which(parts), start, last_end)
                elif how == 0:
                    value = parts[which]
                elif how == 5:  # GROW: `list: list item`
                    value = parts[0]
                    for i, inline in which[1:]:
                        if inline:
                            value += parts[i]
                        else:
                            value.append(None if i < 0 else parts[i])
                else:           # FLATTEN, LIST
                    value = []
                    for i, inline in which:
                        if inline:
                            value += parts[i]
                        else:
                            value.append(None if i < 0 else parts[i])
                    if how == 3:
                        value = methods[~act](builder, value, start, last_end)
                state = goto[states[-1]][left]
                states.append(state)
                values.append(value)
                starts.append(start)
                if state == end_state and kind == final:
                    self.deepest = deepest
                    return -1
            states.append(act)
            values.append(token)
            starts.append(token[2])
            state = act
            last_end = token[3]
            at += 1
            if len(states) > MAX_STACK:
                self.deepest = len(states)
                return at

    def comments(self) -> Generator[t.Comment]:
        """Every comment of the file as a node."""
        text = self.source.text
        for start, end in self.lexed.comments:
            before = text[text.rfind("\n", 0, start) + 1 : start]
            yield t.Comment(Span(self.source, start, end), text[start:end].rstrip(), not before.strip())

    def check_depth(self, value: Any) -> bool:
        """Refuse a tree that later stages cannot walk. Cheap for common texts: neither deep nor with long chains."""
        if self.deepest * max(self.builder.longest, 3) < 3 * MAX_DEPTH:
            return True
        level: list[Any] = [value]
        depth = 0
        while level:
            depth += 1
            if depth > MAX_DEPTH:
                span = next((n.span for n in level if isinstance(n, t.Node)), Span(self.source, 0, 0))
                self.fault("A0106", f"the text nests deeper than {MAX_DEPTH} levels", span.start, span.end, "this is too deep",
                           help="bind the inner parts to names")
                return False
            level = [child for node in level for child in t.children(node)]
        return True

    def fault(self, code: str, message: str, start: int, end: int, label: str = "", help: str = "") -> None:
        self.faults.add(Diagnostic(code, message, Span(self.source, start, end), label, help=(help,) if help else ()))
