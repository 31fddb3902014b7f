"""Costs before a tensor exists: parameters, multiply-accumulates, bytes. Free of torch."""
from archdsl.cost.decode import Context, Decoding, decode
from archdsl.cost.devices import DEVICES, Device
from archdsl.cost.layers import Layer
from archdsl.cost.model import DTYPES, FIGURES, FORMS, Cost, cost, figure, inside, state

__all__ = ["DEVICES", "DTYPES", "FIGURES", "FORMS", "Context", "Cost", "Decoding", "Device", "Layer", "cost", "decode", "figure", "inside", "state"]
