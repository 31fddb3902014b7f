"""Differences between two models: structure, parameters, costs, knobs, claims. Free of torch."""
from archdsl.diffing.model import Difference, Side, difference
from archdsl.diffing.structure import Change

__all__ = ["Change", "Difference", "Side", "difference"]
