"""archdsl list: the specs that come with archdsl."""
from __future__ import annotations

from pathlib import Path

from archdsl.cli.output import show_json, show_table
from archdsl.spec import shipped


def list_specs(json: bool = False) -> int:
    """Prints every shipped model with its paper and variants."""
    entries = shipped()
    if json:
        show_json(entries)
    else:
        show_table(("spec", "model", "domain", "arXiv", "paper", "variants"),
                   [(Path(e["path"]).stem, e["name"], e["domain"], e["arxiv"], e["title"], " ".join(e["variants"])) for e in entries])
    return 0
