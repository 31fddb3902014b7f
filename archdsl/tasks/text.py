"""Text that ships with Python, byte by byte."""
from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.source import NOWHERE
from archdsl.tasks.model import IGNORE, SPLITS, Batch, Split, TokenTask, check_options, generator, tensors
from archdsl.tasks.registry import task, wrong_option

PARTS = {"train": (0.0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1.0)}


@cache
def documents() -> tuple[bytes, ...]:
    """The texts of Python's `help()`, in the order of their names, UTF-8. Raises ArchError A0598 where the distribution lacks them."""
    try:
        from pydoc_data.topics import topics
    except ImportError as fault:
        raise error("A0598", "this Python comes without the texts of `help()` (pydoc_data)", NOWHERE,
                    help="a Python from python.org has them; Linux distributions may keep them in a package of their own") from fault
    return tuple(topics[name].encode() for name in sorted(topics))


@cache
def corpus() -> bytes:
    """The texts of Python's `help()`, one behind the other. Raises ArchError A0598 where the distribution lacks them."""
    return b"\n\n".join(documents())


@task("characters(length: int = 128)", source="pydoc_data.topics of the running Python")
class Characters(TokenTask):
    """The next byte of text: the reference texts behind Python's `help()`, some 700,000 bytes of English and code. Tokens are bytes, 256 of them;
    every position is asked. The first 90 % are for training, the rest for validation and testing, half and half. The text differs between versions of
    Python, not between runs."""

    length: int

    def setup(self) -> None:
        check_options(self, {"length": 1})
        self.parts = {s: corpus()[int(PARTS[s][0] * len(corpus())):int(PARTS[s][1] * len(corpus()))] for s in SPLITS}
        if self.length >= min(map(len, self.parts.values())):
            raise wrong_option(self, "length", f"the shortest split has {min(map(len, self.parts.values())):,} bytes")
        self.tokens(256, self.length)

    @property
    def digest(self) -> str:
        return hashlib.blake2b(corpus(), digest_size=8).hexdigest()

    def batch(self, split: Split, index: int, size: int, seed: int = 0) -> Batch:
        import numpy

        text = numpy.frombuffer(self.parts[split], "uint8")
        starts = generator("characters", seed, split, index).integers(0, len(text) - self.length, size)
        windows = text[starts[:, None] + numpy.arange(self.length + 1)]
        return tensors(tokens=windows[:, :-1], targets=windows[:, 1:])

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, float]:
        """As all tasks, and `bits`: the cross-entropy in bits for each byte."""
        found = super().metrics(outputs, batch)
        return {**found, "bits": found["loss"] / 0.6931471805599453}


PADDING = 0
"""A byte that no text holds."""


@task("topics(length: int = 1024)", source="pydoc_data.topics of the running Python")
class Topics(TokenTask):
    """The next byte of whole texts: an example is one of the texts behind Python's `help()`, some 80 documents of 200 to 60,000 bytes, or its first
    `length + 1` bytes. Shorter ones are followed by padding, token 0, where nothing is asked; a model with `ragged T` takes them behind each other
    without it. Tokens are bytes, 256 of them. Every tenth text is for validation, every tenth for testing, the rest for training."""

    length: int

    def setup(self) -> None:
        check_options(self, {"length": 1})
        place = {0: "valid", 5: "test"}
        self.parts = {s: [d for i, d in enumerate(documents()) if place.get(i % 10, "train") == s] for s in SPLITS}
        self.tokens(256, self.length)

    @property
    def digest(self) -> str:
        return hashlib.blake2b(corpus(), digest_size=8).hexdigest()

    def batch(self, split: Split, index: int, size: int, seed: int = 0) -> Batch:
        import numpy

        texts = self.parts[split]
        tokens = numpy.full((size, self.length), PADDING, "int64")
        targets = numpy.full((size, self.length), IGNORE, "int64")
        for row, which in enumerate(generator("topics", seed, split, index).integers(0, len(texts), size)):
            text = numpy.frombuffer(texts[which][:self.length + 1], "uint8")
            tokens[row, :len(text) - 1], targets[row, :len(text) - 1] = text[:-1], text[1:]
        return tensors(tokens=tokens, targets=targets)

    def own(self, batch: Batch) -> Any:
        return batch["tokens"] != PADDING
