"""Any typed graph as `.arch` text that elaborates to the same hash: one block per definition, concrete sizes, written addresses."""
from archdsl.printer.definitions import print_graph

__all__ = ["print_graph"]
