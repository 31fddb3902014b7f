"""What the values of an op's body are called: local variables of the body, and words in the text of a layout."""
from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from torch import fx

from archdsl.graph import Node
from archdsl.ops import registry


@contextlib.contextmanager
def body_names() -> Iterator[None]:
    """Values are called what the local variables of the op's body that hold them at its end are called."""
    before = sys.getprofile()

    def leave(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "return" or not code.co_filename.startswith(_OPS):
            return
        given = code.co_argcount + code.co_kwonlyargcount
        for name in code.co_varnames[given:]:
            value = frame.f_locals.get(name)
            if isinstance(value, fx.Proxy) and value.node.op not in ("placeholder", "get_attr") and not name.startswith("_"):
                value.node.meta.setdefault("hint", name)
                value.node.meta.setdefault("soft", True)

    sys.setprofile(leave)
    try:
        yield
    finally:
        sys.setprofile(before)


_OPS = os.path.dirname(registry.__file__)


def split_names(node: Node) -> list[tuple[str, ...]]:
    """What the text of a layout calls the sizes of each axis that it splits, first axes first: `[B, T, (heads w)] -> …` gives [("heads", "w")]."""
    split = [len(group) for group in node.attrs["ins"]]
    for pattern in re.findall(r"\[([^\[\]]*)\]", node.span.text)[:2]:
        axes = [a.strip("()").split() for a in re.findall(r"\([^()]*\)|[^,\s]+", pattern)]
        axes = [whole for a in axes for whole in ([a] if a[0][0] not in ".*" else [a] * (len(split) - len(axes) + 1))]
        if [len(a) if a != ["1"] else 0 for a in axes] == split:
            return [tuple(n if n.isidentifier() else "" for n in a) for a in axes if len(a) > 1]
    return []
