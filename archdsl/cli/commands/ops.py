"""archdsl ops: what tensor code can be made of."""
from __future__ import annotations

from archdsl.cli.output import show_json, show_table
from archdsl.ops.registry import OPS, load
from archdsl.plugins import load_group


def ops(json: bool = False) -> int:
    """Prints every op with its signature and what it does."""
    load()
    load_group("archdsl.ops")
    ops = [OPS[name] for name in sorted(OPS)]
    if json:
        show_json([{"name": o.name, "signature": o.signature, "doc": o.doc, "roles": o.roles, "grad": o.grad, "random": o.random, "phase": o.phase}
                   for o in ops])
    else:
        show_table(("op", "what it does"), [(o.signature, o.doc.split("\n")[0]) for o in ops])
    return 0
