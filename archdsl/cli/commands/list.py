"""archdsl list: the specs that come with archdsl."""
from __future__ import annotations

from archdsl.cli.output import show_json, show_table
from archdsl.spec import shipped


def list_specs(json: bool = False) -> int:
    """Prints every shipped model with its paper and variants."""
    entries = shipped()
    if json:
        show_json(entries)
    else:
        show_table(("model", "domain", "variants", "arXiv", "paper"),
                   [(e["name"], e["domain"], " ".join(e["variants"]), e["arxiv"] or "", e["title"] or "") for e in entries])
    return 0
