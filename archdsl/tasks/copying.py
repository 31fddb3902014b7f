"""Selective copying: what matters is to be told from what does not, and kept."""
from __future__ import annotations

from archdsl.tasks.model import IGNORE, Batch, Split, TokenTask, check_options, generator, tensors
from archdsl.tasks.registry import task, wrong_option

NOISE, ASK = 0, 1


@task("selective_copying(vocab: int = 16, length: int = 64, copies: int = 8)", source="arxiv 2312.00752, section 3.1 and appendix E.1")
class SelectiveCopying(TokenTask):
    """`copies` tokens stand at random places among noise (token 0) in the first `length` positions. Behind them come as many positions with token 1,
    at which the tokens are to be written in their order. Tokens are those from 2 up; one may come several times."""

    vocab: int
    length: int
    copies: int

    def setup(self) -> None:
        check_options(self, {"vocab": 3, "length": 1, "copies": 1})
        if self.copies > self.length:
            raise wrong_option(self, "copies", f"a length of {self.length} has no room for {self.copies}")
        self.tokens(self.vocab, self.length + self.copies)

    def batch(self, split: Split, index: int, size: int, seed: int = 0) -> Batch:
        import numpy

        draw = generator("selective_copying", seed, split, index)
        values = draw.integers(2, self.vocab, (size, self.copies))
        places = numpy.sort(draw.random((size, self.length)).argsort(-1)[:, :self.copies], -1)
        tokens = numpy.full((size, self.length + self.copies), NOISE)
        tokens[numpy.arange(size)[:, None], places] = values
        tokens[:, self.length:] = ASK
        targets = numpy.full_like(tokens, IGNORE)
        targets[:, self.length:] = values
        return tensors(tokens=tokens, targets=targets)
