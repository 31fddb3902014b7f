"""archdsl ops: what tensor code can be made of."""
from __future__ import annotations

from typing import Annotated

import typer


def run(json: Annotated[bool, typer.Option("--json", help="Print the table as data.")] = False) -> None:
    """List the ops: functions of tensors that own no weights."""
    from archdsl.cli.output import show_json, show_table
    from archdsl.ops.registry import OPS, load

    load()
    ops = [OPS[name] for name in sorted(OPS)]
    if json:
        show_json([{"name": o.name, "signature": o.signature, "doc": o.doc, "roles": o.roles, "grad": o.grad, "random": o.random, "phase": o.phase} for o in ops])
    else:
        show_table(("op", "what it does"), [(o.signature, o.doc.split("\n")[0]) for o in ops])
