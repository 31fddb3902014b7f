"""archdsl list: the specs that come with archdsl."""
from __future__ import annotations

from pathlib import Path

from archdsl.cli.output import show_json, show_table
from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.source import Source, Span
from archdsl.spec import shipped

FACTS = ("domain", "task", "family")


def list_specs(json: bool = False, domain: str | None = None, task: str | None = None, family: str | None = None) -> int:
    """Prints the shipped models with their papers and variants, those of a domain, task or family alone where one is given; a paper may name
    several tasks. Raises ArchError A0606 for one that no spec has."""
    entries = shipped()
    for fact, wanted in zip(FACTS, (domain, task, family), strict=True):
        if wanted is not None:
            known = sorted({w for e in entries for w in _words(e[fact])})
            if wanted not in known:
                raise error("A0606", f"no spec is of the {fact} `{wanted}`", Span(Source(f"--{fact}", wanted), 0, len(wanted)), "not known",
                            help=did_you_mean(wanted, known) or (f"there are {', '.join(known)}",))
            entries = [e for e in entries if wanted in _words(e[fact])]
    if json:
        show_json(entries)
        return 0
    entries.sort(key=lambda e: [e[f] for f in FACTS])
    show_table(("domain", "task", "family", "spec", "model", "arXiv", "paper", "variants"),
               [(*(e[f] for f in FACTS), Path(e["path"]).stem, e["name"], e["arxiv"], e["title"], " ".join(e["variants"])) for e in entries])
    return 0


def _words(text: str) -> list[str]:
    return [w.strip() for w in text.split(",")]
