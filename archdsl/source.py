"""Where text comes from: sources, half-open character spans, lines and columns."""
from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple


class Source:
    """One text and the name under which diagnostics show it."""

    __slots__ = ("_starts", "module", "path", "text")

    def __init__(self, path: str, text: str, module: str = ""):
        self.path, self.text, self.module = path, text, module
        self._starts: list[int] | None = None

    @property
    def whole(self) -> Source:
        """The text that this one is a part of: itself, but for a `Piece`."""
        return self

    def at(self, offset: int) -> int:
        """The place of an offset in the whole text."""
        return offset

    def _line_starts(self) -> list[int]:
        if self._starts is None:
            starts, at = [0], self.text.find("\n")
            while at >= 0:
                starts.append(at + 1)
                at = self.text.find("\n", at + 1)
            self._starts = starts
        return self._starts

    def position(self, offset: int) -> tuple[int, int]:
        """The 1-based (line, column) of a character offset."""
        starts = self._line_starts()
        line = bisect_right(starts, offset) - 1
        return line + 1, offset - starts[line] + 1

    def line(self, number: int) -> str:
        """The text of a 1-based line, without its end."""
        starts = self._line_starts()
        if not 1 <= number <= len(starts):
            return ""
        end = starts[number] - 1 if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r")

    def __repr__(self) -> str:
        return f"Source({self.path!r})"

    def __getstate__(self) -> tuple[str, str, str]:
        return self.path, self.text, self.module

    def __setstate__(self, state: tuple[str, str, str]) -> None:
        (self.path, self.text, self.module), self._starts = state, None


class Piece(Source):
    """Lines of a text, read on their own: places in them stay what they are while the text before them changes. `move` says where they stand now."""

    __slots__ = ("_base", "_whole")

    def __init__(self, whole: Source, start: int, end: int):
        super().__init__(whole.path, whole.text[start:end], whole.module)
        self.move(whole, start)

    def move(self, whole: Source, start: int) -> None:
        """The lines stand at this place of that text from now on."""
        self._whole, self._base = whole, start

    @property
    def whole(self) -> Source:
        return self._whole

    def at(self, offset: int) -> int:
        return self._base + offset

    def position(self, offset: int) -> tuple[int, int]:
        return self._whole.position(self._base + offset)

    def line(self, number: int) -> str:
        return self._whole.line(number)


class Span(NamedTuple):
    """Characters `start` (included) to `end` (excluded) of a source."""

    source: Source
    start: int
    end: int

    @property
    def text(self) -> str:
        return self.source.text[self.start : self.end]

    @property
    def absolute(self) -> Span:
        """The same characters in the whole text."""
        return Span(self.source.whole, self.source.at(self.start), self.source.at(self.end))

    def to(self, other: Span) -> Span:
        """From the start of this span to the end of another one."""
        return Span(self.source, self.start, other.end)

    def starts_in(self, other: Span) -> bool:
        """Whether its start lies inside of another one."""
        return self.source is other.source and other.start <= self.start < other.end

    @property
    def place(self) -> str:
        """`path:line:column` of its start."""
        line, column = self.source.position(self.start)
        return f"{self.source.path}:{line}:{column}"

    def __repr__(self) -> str:
        return self.place


NOWHERE = Span(Source("<none>", ""), 0, 0)
