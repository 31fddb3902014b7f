"""Associative recall: which value went with a key, earlier in the sequence."""
from __future__ import annotations

from typing import Any

from archdsl.tasks.model import IGNORE, Batch, Split, TokenTask, check_options, generator, tensors
from archdsl.tasks.registry import task, wrong_option


def distinct(draw: Any, rows: int, count: int, among: int) -> Any:
    """`count` different numbers below `among` for each row, in random order. int64 [rows, count]"""
    return draw.random((rows, among)).argsort(-1)[:, :count]


@task("mqar(vocab: int = 64, length: int = 64, pairs: int = 8, gap: float = 0.1)", source="arxiv 2312.04927, section 4 and appendix E")
class MQAR(TokenTask):
    """Multi-query associative recall. A sequence begins with `pairs` keys, each followed by its value; later every key comes once more, and the value
    that went with it is asked for there. Keys are tokens 1 to vocab / 2 - 1, values those above; the rest of the sequence is token 0. How far behind
    the pairs a key is asked for follows a power law: place i has a weight of i^(gap - 1), so a smaller `gap` asks earlier."""

    vocab: int
    length: int
    pairs: int
    gap: float

    def setup(self) -> None:
        check_options(self, {"vocab": 4, "length": 3, "pairs": 1})
        if self.pairs > self.vocab // 2 - 1:
            raise wrong_option(self, "pairs", f"a vocabulary of {self.vocab} has {self.vocab // 2 - 1} keys")
        if 3 * self.pairs > self.length:
            raise wrong_option(self, "pairs", f"{self.pairs} pairs and their queries need a length of {3 * self.pairs}, this is {self.length}")
        if self.gap <= 0:
            raise wrong_option(self, "gap", "it is above 0")
        self.tokens(self.vocab, self.length)

    def batch(self, split: Split, index: int, size: int, seed: int = 0) -> Batch:
        import numpy

        draw = generator("mqar", seed, split, index)
        n, half = self.pairs, self.vocab // 2
        keys = 1 + distinct(draw, size, n, half - 1)
        values = draw.integers(half, self.vocab, (size, n))
        tokens = numpy.zeros((size, self.length), "int64")
        targets = numpy.full((size, self.length), IGNORE, "int64")
        tokens[:, 0:2 * n:2], tokens[:, 1:2 * n:2] = keys, values
        room = self.length - 2 * n
        weights = numpy.arange(1, room + 1) ** (self.gap - 1.0)
        # n places without replacement by weight: the n smallest of exponential times with these rates
        times = draw.exponential(size=(size, room)) / weights
        places = 2 * n + times.argsort(-1)[:, :n]
        rows = numpy.arange(size)[:, None]
        tokens[rows, places], targets[rows, places] = keys, values
        return tensors(tokens=tokens, targets=targets)


LETTERS, DIGITS, COLON, NEWLINE = 26, 10, 36, 37
"""Tokens of a phone book: 0 to 25 are letters, 26 to 35 digits, then the two signs."""


@task("phonebook(entries: int = 8, letters: int = 3, digits: int = 4)", source="arxiv 2402.01032, section 3.2; arxiv 2406.07887, section 3.3.2")
class Phonebook(TokenTask):
    """A phone book, `entries` lines of a name and a number, then one of the names: its number is to be written, digit by digit. Tokens are
    characters: 26 letters, 10 digits, the colon and the end of a line, 38 in all. Names are different from each other, numbers need not be."""

    entries: int
    letters: int
    digits: int

    def setup(self) -> None:
        check_options(self, {"entries": 1, "letters": 1, "digits": 1})
        if self.letters > 6 or self.entries > LETTERS ** self.letters // 2:
            which = "letters" if self.letters > 6 else "entries"
            raise wrong_option(self, which, "names have 1 to 6 letters, and a book holds at most half of all names")
        line = self.letters + self.digits + 2
        self.tokens(LETTERS + DIGITS + 2, self.entries * line + self.letters + self.digits)

    def batch(self, split: Split, index: int, size: int, seed: int = 0) -> Batch:
        import numpy

        draw = generator("phonebook", seed, split, index)
        names = numpy.stack([_different(draw, self.entries, LETTERS ** self.letters) for _ in range(size)])
        spelled = names[..., None] // LETTERS ** numpy.arange(self.letters) % LETTERS
        numbers = LETTERS + draw.integers(0, DIGITS, (size, self.entries, self.digits))
        asked = draw.integers(0, self.entries, size)
        sign = lambda token: numpy.full((size, self.entries, 1), token)
        book = numpy.concatenate([spelled, sign(COLON), numbers, sign(NEWLINE)], -1).reshape(size, -1)
        rows = numpy.arange(size)
        query = numpy.concatenate([spelled[rows, asked], numpy.full((size, 1), COLON), numbers[rows, asked]], -1)
        whole = numpy.concatenate([book, query], -1)
        targets = whole[:, 1:].copy()
        targets[:, :-self.digits] = IGNORE
        return tensors(tokens=whole[:, :-1], targets=targets)


def _different(draw: Any, count: int, among: int) -> Any:
    """`count` different numbers below `among`, at least twice as many, in the order in which they are drawn."""
    found: dict[int, None] = {}
    while len(found) < count:
        found.update(dict.fromkeys(draw.integers(0, among, count - len(found)).tolist()))
    return list(found)
