"""archdsl list: the specs that come with archdsl."""
from __future__ import annotations

from typing import Annotated

import typer


def run(json: Annotated[bool, typer.Option("--json", help="Print the list as data.")] = False) -> None:
    """List the shipped specs and their variants."""
    from archdsl.cli.output import show_json, show_table
    from archdsl.spec import shipped

    entries = shipped()
    if json:
        show_json(entries)
    else:
        show_table(("model", "domain", "variants", "arXiv", "paper"),
                   [(e["name"], e["domain"], " ".join(e["variants"]), e["arxiv"] or "", e["title"] or "") for e in entries])
