"""Diagnostics of capturing."""
from __future__ import annotations

from typing import TYPE_CHECKING

from archdsl.diagnostics.codes import Code

if TYPE_CHECKING:
    from archdsl.graph import Graph

CODES = {
    "A0550": Code("torch.export cannot trace this module",
                  "A foreign module is traced by torch.export, which follows one way through its code. Code that decides by the values "
                  "of a tensor (`if x.sum() > 0`, `.item()`) has no one way, and other code may not run under tracing. "
                  "The place shown is the innermost line that is not torch's own."),
    "A0551": Code("something in this module has no counterpart",
                  "Every aten op of a captured module is translated to ops of the language. This one, or these arguments of it, cannot be said: the "
                  "message names the op, the place is the line of foreign code, the note the module."),
    "A0552": Code("this op may not stay opaque",
                  "An aten op without a counterpart stays in the graph as `extern aten.x(…)` if it is on the list of pure ops: functions of "
                  "tensors and numbers. Others are refused: aten has ops that read files, draw numbers, or take text."),
    "A0553": Code("this module cannot be a graph",
                  "A graph takes tensors and returns tensors, and changes nothing else in evaluation mode. This module returns no tensor, or changes "
                  "a buffer (a cache)."),
    "A0554": Code("example and dynamic do not fit the module",
                  "`capture(module, example, dynamic)` calls the module with the example and lets the axes that `dynamic` names vary. Names are "
                  "upper-case, the axes exist, the example has at least 2 along them, and the module itself does not fix them."),
    "A0555": Code("there is no module to import",
                  "`archdsl import MODULE:FUNCTION -o DIR` imports a Python module, found in the current folder or where Python finds modules, and "
                  "calls a function of it without arguments. It returns a PyTorch module and an example, and may add which sizes vary: "
                  '`return MyModel(), torch.zeros(2, 8), {0: "B"}`.'),
}


def changed(graph: Graph, read: Graph) -> Exception:
    """The printed text is another graph: a fault of ours."""
    return AssertionError(f"the text of `{graph.name}` elaborates to {read.hash}, not {graph.hash}")
