"""Costs before a tensor exists: parameters, multiply-accumulates, bytes. Free of torch."""
from archdsl.cost.layers import Layer
from archdsl.cost.model import DTYPES, FIGURES, FORMS, Cost, cost

__all__ = ["DTYPES", "FIGURES", "FORMS", "Cost", "Layer", "cost"]
