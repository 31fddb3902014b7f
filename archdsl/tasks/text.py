"""Text that ships with Python, byte by byte."""
from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.source import NOWHERE
from archdsl.tasks.model import SPLITS, Batch, Split, TokenTask, check_options, generator, tensors
from archdsl.tasks.registry import task, wrong_option

PARTS = {"train": (0.0, 0.9), "valid": (0.9, 0.95), "test": (0.95, 1.0)}


@cache
def corpus() -> bytes:
    """The texts of Python's `help()`, in the order of their names, UTF-8. Raises ArchError A0598 where the distribution lacks them."""
    try:
        from pydoc_data.topics import topics
    except ImportError as fault:
        raise error("A0598", "this Python comes without the texts of `help()` (pydoc_data)", NOWHERE,
                    help="a Python from python.org has them; Linux distributions may keep them in a package of their own") from fault
    return "\n\n".join(topics[name] for name in sorted(topics)).encode()


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
