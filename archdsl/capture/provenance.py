"""Where a node of torch.export comes from: the modules around it, and the variables of its line."""
from __future__ import annotations

import re
from typing import Any

from archdsl.capture.export import legal
from archdsl.capture.flat import Invocation, Scope

_ASSIGNS = re.compile(r"^([a-z_]\w*(?:\s*,\s*[a-z_]\w*)*)\s*(?::[^=]+)?=[^=]")


def scope_of(node: Any) -> Scope:
    """The modules around a node, each below the one before; what a module calls outside of itself counts as its own code."""
    found: list[Invocation] = []
    for key, (path, kind) in (node.meta.get("nn_module_stack") or {}).items():
        path = legal(re.sub(r"@\d+", "", path)) if path else ""
        if key.startswith("_") or not path or found and not path.startswith(found[-1].path + "."):
            continue
        found.append(Invocation(key, path, kind.__name__ if isinstance(kind, type) else str(kind).rsplit(".", 1)[-1]))
    return tuple(found)


def variables_of(node: Any) -> str:
    """The variable, or the variables with commas between, that the foreign line gives its result to."""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    code = next((line for line in reversed(lines) if line and not line.startswith(("File ", "~", "^"))), "")
    found = _ASSIGNS.match(code)
    return found.group(1) if found else ""
