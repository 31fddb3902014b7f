"""Graphs that are made when somebody looks into them. A check has to know that they can be made, and what their weights, knobs and results are;
most of the copies of a layer with other drop rates, and of what passes make, are looked into by nobody."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from archdsl.alone import ALONE
from archdsl.graph import Graph


class Later(Graph):
    """A graph that `make` gives when the first of the fields that are not known yet is asked for; a plain one from then on."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            _made(self)
        return object.__getattribute__(self, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        _made(self)
        return self.__reduce_ex__(protocol)  # of a plain graph now


def later(make: Callable[[], Graph], **known: Any) -> Graph:
    """The graph that `make` gives. `known`: what can be said of it without. What `make` raises, it raises again to whoever asks next."""
    graph = Later.__new__(Later)
    graph.__dict__.update(known, _make=make)
    return graph


def _made(graph: Graph) -> None:
    with ALONE:  # two threads see one set of nodes
        held = graph.__dict__
        make = held.get("_make")
        if make is not None:
            found = make()
            _made(found)  # which may be such a graph itself
            del held["_make"]
            for name, value in found.__dict__.items():
                held.setdefault(name, value)
            graph.__class__ = Graph


__all__ = ["later"]
