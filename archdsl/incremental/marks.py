"""What a part of a tree depends on outside of itself: the declarations that it mentions, and those that they mention.

Trees stay the same objects from version to version while their text does, though a name in them may mean something else. So whatever is kept of
them goes by object and mark: a number that is the same while every name in reach means the same.
"""
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from archdsl.modules import Module

_WORD = re.compile(r"[^\W\d]\w*")


def meaning(module: Module) -> dict[str, Any]:
    """What each name of a module stands for, as an object that is the same while the name means the same."""
    found: dict[str, Any] = dict(module.modules)
    found.update((name, getattr(ref, "decl", ref)) for name, ref in module.scope.items())
    return found


class Marks:
    """The marks of one version, and of those behind it in which names mean the same. `intern`: a number for a key. Trees are told by their ids: those
    of all versions have to stay alive."""

    def __init__(self, module: Module, intern: Callable[[Any], int], before: Marks | None = None):
        self.source, self.intern = module.source, intern
        self.meaning = meaning(module)
        self.words: dict[int, frozenset[str]] = {} if before is None else before.words
        self.bits = {name: 1 << i for i, name in enumerate(self.meaning)}
        self.numbers = [intern(("means", name, id(found))) for name, found in self.meaning.items()]
        self.reach = self._closure()
        self.of: dict[int, int] = {}
        self.known: dict[int, int] = {}

    def at(self, module: Module) -> Marks:
        """The marks of the next version."""
        now = meaning(module)
        if len(now) != len(self.meaning) or any(self.meaning.get(name) is not found for name, found in now.items()):
            return Marks(module, self.intern, self)
        self.source = module.source
        return self

    def __call__(self, node: Any) -> int:
        """The mark of a tree; 0 for those of other files, which stay what they are."""
        found = self.of.get(id(node))
        if found is None:
            found = self.of[id(node)] = self._mark(node) if node.span.source.whole is self.source else 0
        return found

    def _mark(self, node: Any) -> int:
        mask = 0
        for word in self._words(node) & self.bits.keys():
            mask |= self.reach[word]
        if mask not in self.known:
            self.known[mask] = self.intern(("mark", tuple([n for i, n in enumerate(self.numbers) if mask >> i & 1])))
        return self.known[mask]

    def _words(self, node: Any) -> frozenset[str]:
        found = self.words.get(id(node))
        if found is None:
            found = self.words[id(node)] = frozenset(_WORD.findall(node.span.text))
        return found

    def _closure(self) -> dict[str, int]:
        """Of each name: itself and what its declaration reaches, as bits."""
        reach = dict(self.bits)
        direct: dict[str, list[str]] = {}
        for name, found in self.meaning.items():
            span = getattr(found, "span", None)
            if span is not None and span.source.whole is self.source:
                direct[name] = [w for w in self._words(found) if w in reach and w != name]
        grown = True
        while grown:  # a declaration mostly mentions those above it: once, and once more to see that nothing is added
            grown = False
            for name, others in direct.items():
                mask = reach[name]
                for other in others:
                    mask |= reach[other]
                if mask != reach[name]:
                    reach[name], grown = mask, True
        return reach
