"""Random search and the grid: what others are compared with."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archdsl.declared import wrong_option
from archdsl.search.model import Proposal
from archdsl.search.registry import strategy
from archdsl.search.strategies.base import Base, numbers
from archdsl.search.strategies.errors import unfit

FRUITLESS = 100_000
"""The grid gives up after so many assignments in a row that are not valid."""


@strategy("random(batch: int = 64)", source="Bergstra and Bengio, JMLR 13 (2012)")
class Random(Base):
    """Draws from the space, uniformly where its valid assignments can be counted; none twice.

    `batch`: proposals in a round.
    """

    def __init__(self, batch: int = 64) -> None:
        self.batch = positive("batch", batch)

    def next(self) -> Proposal | None:
        return self.new(self.sample)


@strategy("grid(start: int = 0, shuffle: bool = false, batch: int = 64)")
class Grid(Base):
    """Goes through all assignments in mixed-radix order, the first decision fastest, and passes over those that are not valid or the same graph as
    one before. A space of any size: it begins with the assignment of number `start`, and comes round.

    `shuffle`: in an order drawn from the seed, each assignment still once. `batch`: proposals in a round.
    """

    def __init__(self, start: int = 0, shuffle: bool = False, batch: int = 64) -> None:
        if start < 0:
            raise wrong_option("A0812", "start", start, "assignments are numbered from 0")
        self.start, self.shuffle, self.batch = start, shuffle, positive("batch", batch)

    def begin(self) -> None:
        try:
            self.count = numbers(self.space)
        except ValueError as told:
            raise unfit("grid", str(told), "give it steps: `in 0.1..0.9 step 0.1`", "`random` draws from any space") from told
        self.asked = 0
        self.order = Shuffle(self.count, self.random.fresh()) if self.shuffle else None

    def next(self) -> Proposal | None:
        fruitless = 0
        while self.asked < self.count:
            number = (self.start + self.asked) % self.count
            candidate = self.space.at(self.order(number) if self.order else number)
            self.asked += 1
            if candidate is not None and self.memory.add(candidate.key):
                return Proposal(candidate, origin="grid")
            fruitless += 1
            if fruitless == FRUITLESS:
                raise unfit("grid", f"{FRUITLESS:,} numbers up to {number:,} are of no valid assignment", "`random` draws valid ones alone")
        return None

    def save(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def load(self, state: Mapping[str, Any]) -> None:
        self.asked = state["asked"]


class Shuffle:
    """A permutation of 0 … count − 1 without a table, for counts of any length: a Feistel network of four rounds over the next even power of two, and
    numbers that fall outside are sent through again (Black and Rogaway 2002, cycle walking)."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.half = count, max((count - 1).bit_length() + 1, 2) // 2
        self.keys = [f"{seed}.{round}." for round in range(4)]

    def __call__(self, number: int) -> int:
        while True:
            number = self._once(number)
            if number < self.count:
                return number

    def _once(self, number: int) -> int:
        from hashlib import blake2b

        mask = (1 << self.half) - 1
        left, right = number >> self.half, number & mask
        for key in self.keys:
            size = min(64, self.half // 8 + 1)
            mixed = b"".join(blake2b(f"{key}{right}.{part}".encode(), digest_size=size).digest() for part in range(self.half // 512 + 1))
            left, right = right, left ^ int.from_bytes(mixed, "big") & mask
        return left << self.half | right


def positive(name: str, value: int) -> int:
    """The value of an option that is at least one. Raises A0812."""
    if value < 1:
        raise wrong_option("A0812", name, value, "at least one")
    return value
