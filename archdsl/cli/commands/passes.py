"""archdsl passes: what a model can be rewritten by."""
from __future__ import annotations

from archdsl.cli.output import show_json, show_table
from archdsl.passes.registry import PASSES


def passes(json: bool = False) -> int:
    """Prints every pass with its options and what it does."""
    found = list(PASSES.every().values())
    if json:
        show_json([{"name": p.name, "signature": p.signature, "doc": p.doc, "contract": p.told(), "requires": list(p.requires),
                    "provides": list(p.provides), "destroys": list(p.destroys), "using": list(p.using), "source": p.source} for p in found])
    else:
        show_table(("pass", "what it does"), [(p.signature, _first(p.doc)) for p in found])
    return 0


def _first(doc: str) -> str:
    """The first sentence."""
    text = " ".join(doc.split())
    at = min((i for mark in (". ", ": ") if (i := text.find(mark)) > 0), default=len(text))
    return text[:at].rstrip(".")
