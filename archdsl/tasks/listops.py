"""ListOps: nested lists of operations on digits, whose value is a digit."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.tasks.model import IGNORE, Batch, Split, TokenTask, check_options, generator, tensors
from archdsl.tasks.registry import task, wrong_option

OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "MIN": min, "MAX": max,
    "MED": lambda xs: (sorted(xs)[(len(xs) - 1) // 2] + sorted(xs)[len(xs) // 2]) // 2,
    "SM": lambda xs: sum(xs) % 10,
}
NAMES = tuple(OPERATIONS)
WORDS = (*map(str, range(10)), *(f"[{name}" for name in NAMES), "]", "<pad>")
"""The vocabulary: a token is a place in it."""
CLOSE, PAD = WORDS.index("]"), WORDS.index("<pad>")


@task("listops(length: int = 64, depth: int = 4, arguments: int = 5)", source="arxiv 1804.06028; arxiv 2011.04006, section 2.2.1")
class ListOps(TokenTask):
    """The value of an expression such as `[MAX 2 9 [MIN 4 7 ] 0 ]`: operations MIN, MAX, MED (the median, the mean of the two middle ones rounded
    down) and SM (the sum modulo 10) of 2 to `arguments` digits or further operations, at most `depth` inside each other. An expression has at most
    `length` tokens and ends the sequence, behind padding; its value, a digit, is asked for at the last position. There are 16 tokens, the words of
    `archdsl.tasks.listops.WORDS`."""

    length: int
    depth: int
    arguments: int

    def setup(self) -> None:
        check_options(self, {"length": 4, "depth": 1, "arguments": 2})
        if self.depth > 50:
            raise wrong_option(self, "depth", "it is 50 at most")
        self.tokens(len(WORDS), self.length)

    def batch(self, split: Split, index: int, size: int, seed: int = 0) -> Batch:
        import numpy

        draw = generator("listops", seed, split, index)
        tokens = numpy.full((size, self.length), PAD, "int64")
        targets = numpy.full((size, self.length), IGNORE, "int64")
        for row in range(size):
            words, value = self._expression(draw, self.length, 1)
            tokens[row, self.length - len(words):] = words
            targets[row, -1] = value
        return tensors(tokens=tokens, targets=targets)

    def own(self, batch: Batch) -> Any:
        return batch["tokens"] != PAD

    def _expression(self, draw: Any, room: int, level: int) -> tuple[list[int], int]:
        """An operation of at most `room` tokens (4 or more), and its value."""
        name = NAMES[int(draw.integers(len(NAMES)))]
        count = int(draw.integers(2, min(self.arguments, room - 2) + 1))
        left = room - 2 - count  # tokens beyond one for each argument
        words, values = [WORDS.index(f"[{name}")], []
        for _ in range(count):
            if level < self.depth and left >= 3 and draw.random() < 0.5:
                inner, value = self._expression(draw, left + 1, level + 1)
                left -= len(inner) - 1
                words += inner
            else:
                value = int(draw.integers(10))
                words.append(value)
            values.append(value)
        return [*words, CLOSE], OPERATIONS[name](values)
