"""Small images: handwritten digits."""
from __future__ import annotations

from functools import cache
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.source import NOWHERE
from archdsl.tasks.model import Axis, Batch, Split, Task, check_options, generator, rows_of, tensors
from archdsl.tasks.registry import task, wrong_option

SIDE = 8  # pixels of an image of scikit-learn
EXAMPLES = {"train": slice(0, 1257), "valid": slice(1257, 1527), "test": slice(1527, None)}  # 70 %, 15 %, 15 % of 1,797


@cache
def _digits() -> tuple[Any, Any]:
    """Images float32 [1797, 8, 8] in -1..1 and digits [1797], in one fixed random order. Raises ArchError A0598 without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as fault:
        raise error("A0598", "the task `digits` needs the package scikit-learn", NOWHERE, help="pip install 'archdsl[tasks]'") from fault
    found: Any = load_digits()
    order = generator("digits").permutation(len(found.target))
    return (found.images[order] / 8 - 1).astype("float32"), found.target[order].astype("int64")


@task("digits(channels: int = 1, size: int = 8)", source="https://archive.ics.uci.edu/dataset/80, as in scikit-learn")
class Digits(Task):
    """Which digit an image shows: 1,797 handwritten digits of 8 by 8 pixels, grey values from -1 to 1, of which 1,257 are for training and 270 each
    for validation and testing. `channels` repeats the image, `size` (a multiple of 8) enlarges its pixels, for models that want it so. An epoch is a
    permutation of the training images."""

    channels: int
    size: int

    def setup(self) -> None:
        check_options(self, {"channels": 1, "size": SIDE})
        if self.size % SIDE:
            raise wrong_option(self, "size", f"it is a multiple of {SIDE}")
        self.images, self.digits = _digits()
        self.inputs = (Axis("image", "float", ("B", self.channels, "H", "W")),)
        self.sizes, self.classes = {"H": self.size, "W": self.size}, 10

    def count(self, split: Split) -> int:
        return len(self.digits[EXAMPLES[split]])

    def targets_shape(self, size: int) -> tuple[int, ...]:
        return (size,)

    def batch(self, split: Split, index: int, size: int, seed: int = 0) -> Batch:
        rows = rows_of(self.count(split), split, index, size, seed)
        image = self.images[EXAMPLES[split]][rows][:, None]
        scale = self.size // SIDE
        image = image.repeat(self.channels, 1).repeat(scale, 2).repeat(scale, 3)
        return tensors(image=image, targets=self.digits[EXAMPLES[split]][rows])
