"""The formatter: the tree printed in one layout, with the comments and blank lines of its text."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from archdsl.diagnostics.model import ArchError
from archdsl.source import Source
from archdsl.syntax import tree as t
from archdsl.syntax.layout import BLANK, HARD, Comment, Doc, IfBroken, layout
from archdsl.syntax.parser import Run, deep
from archdsl.syntax.printer import WIDTH, Printer


def format_module(source: Source) -> str:
    """The text in the one layout. The tree and the comments stay as they are. Raises ArchError for a text that does not parse."""
    run = Run(source, "start")
    module = run.result()
    if run.faults.found:
        raise ArchError(*run.faults.found)
    with deep():
        text = layout(Formatter(source, module.comments, run.builder.parens).node(module), WIDTH)
    return text.rstrip("\n") + "\n" if text.strip() else ""


class Formatter(Printer):
    """Prints a tree together with the comments of its text: before the statement, item or declaration that they precede, or at the end of its
    line. A comment in the middle of anything else moves up to stand before its statement."""

    def __init__(self, source: Source, comments: Sequence[t.Comment], parens: set[tuple[int, int]]):
        super().__init__(source, parens)
        self.text = source.text
        self.comments = list(comments)
        self.at = 0
        self.moved: list[t.Comment] = []  # comments that stood inside of an expression

    def take(self, end: int | None) -> list[t.Comment]:
        """The comments before an offset that have not been printed."""
        found: list[t.Comment] = []
        while end is not None and self.at < len(self.comments) and self.comments[self.at].span.start < end:
            found.append(self.comments[self.at])
            self.at += 1
        return found

    def pending(self, end: int | None) -> bool:
        return end is not None and self.at < len(self.comments) and self.comments[self.at].span.start < end

    def comments_in(self, node: t.Node) -> bool:
        return self.pending(node.span.end)

    def before(self, start: int | None) -> list[Doc]:
        self.moved += self.take(start)
        return []

    def after_bracket(self, start: int | None) -> list[Doc]:
        if start is None or self.at >= len(self.comments):
            return []
        self.moved += self.take(start)
        if self.at < len(self.comments) and not self.text[start : self.comments[self.at].span.start].strip(" \t"):
            comment = self.comments[self.at]
            self.at += 1
            return [Comment(comment.text)]
        return []

    # ------------------------------------------------------------ sequences
    def lines(self, nodes: Sequence[t.Node], doc: Callable[[Any], Doc], end: int | None) -> list[Doc]:
        """Nodes one a line, with the comments before and behind them and single blank lines where there were some."""
        return self.sequence(nodes, lambda node, last: doc(node), end)

    def items(self, nodes: Sequence[t.Node], docs: Callable[[Any], Doc], end: int | None, separator: str) -> list[Doc]:
        if not nodes and not self.pending(end):
            return []
        if not self.pending(end):
            return super().items(nodes, docs, end, separator)
        return [self.sequence(nodes, lambda node, last: [docs(node), IfBroken(separator) if last else separator], end)]

    def sequence(self, nodes: Sequence[t.Node], doc: Callable[[Any, bool], Doc], end: int | None) -> list[Doc]:
        """Documents of nodes with comments, joined by line breaks."""
        out: list[Doc] = []
        last_end: int | None = None  # where the text of what was printed last ends

        def place(comment: t.Comment) -> None:
            nonlocal last_end
            if last_end is not None and not comment.own_line and "\n" not in self.text[last_end : comment.span.start]:
                out.append(Comment(comment.text))
            else:
                self.separate(out, last_end, comment.span.start)
                out.append([comment.text])
            last_end = comment.span.end

        for i, node in enumerate(nodes):
            for comment in self.take(node.span.start):
                place(comment)
            saved, self.moved = self.moved, []
            body = doc(node, i == len(nodes) - 1)
            moved, self.moved = self.moved, saved
            self.separate(out, last_end, node.span.start)
            for comment in moved:
                out += [comment.text, HARD]
            out.append(body)
            last_end = node.span.end
        for comment in self.take(end):
            place(comment)
        return out

    def separate(self, out: list[Doc], last_end: int | None, start: int) -> None:
        """A line break, and a blank line where there is one between two offsets of the text."""
        if last_end is not None:
            out.append(BLANK if self.text.count("\n", last_end, start) > 1 else HARD)

    def between(self, previous: t.Node, node: t.Node) -> list[Doc]:
        out: list[Doc] = []
        for comment in self.take(node.span.start):
            if not comment.own_line and not out:
                out.append(Comment(comment.text))
            else:
                out += [HARD, comment.text]
        return out


__all__ = ["Formatter", "format_module"]
