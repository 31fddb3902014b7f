"""Pictures of typed graphs: a view model with equal neighbours folded, an HTML page that needs nothing but a browser, SVG and PNG through dot.
Free of torch."""
from archdsl.draw.view import Edge, Item, View, view

__all__ = ["Edge", "Item", "View", "view"]
