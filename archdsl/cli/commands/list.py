"""archdsl list: the specs that come with archdsl."""
from __future__ import annotations

import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

from archdsl.cli.output import show_json
from archdsl.cli.pages import WIDTH
from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.source import Source, Span
from archdsl.spec import shipped

FACTS = ("domain", "task", "family")


def list_specs(json: bool = False, word: str | None = None, domain: str | None = None, task: str | None = None, family: str | None = None) -> int:
    """Prints the shipped models with their papers and variants, those of a domain, task or family, or that speak of a word, alone where one is
    given; a paper may name several tasks. Raises ArchError A0606 for one that no spec has."""
    entries = shipped()
    for fact, wanted in zip(FACTS, (domain, task, family), strict=True):
        if wanted is not None:
            known = sorted({w for e in entries for w in _words(e[fact])})
            if wanted not in known:
                raise error("A0606", f"no spec is of the {fact} `{wanted}`", Span(Source(f"--{fact}", wanted), 0, len(wanted)), "not known",
                            help=did_you_mean(wanted, known) or (f"there are {', '.join(known)}",))
            entries = [e for e in entries if wanted in _words(e[fact])]
    if word is not None:
        known = sorted({Path(e["path"]).stem for e in entries})
        entries = [e for e in entries if word.lower() in _facts(e)]
        if not entries:
            raise error("A0606", f"no spec speaks of `{word}`", Span(Source("WORD", word), 0, len(word)),
                        help=did_you_mean(word, known) or ("`archdsl list` prints them all",))
    if json:
        show_json(entries)
        return 0
    entries.sort(key=lambda e: [e[f] for f in FACTS])
    specs = {id(e): Path(e["path"]).stem for e in entries}
    widths = [max(map(len, specs.values())), *(max(len(e[k]) for e in entries) for k in ("name", "arxiv"))]
    for facts, group in groupby(entries, lambda e: [e[f] for f in FACTS]):
        print(" · ".join(facts))
        for e in group:
            names = "  ".join(f"{text:<{w}}" for text, w in zip((specs[id(e)], e["name"], e["arxiv"]), widths, strict=True))
            lines = [e["title"], *([f"variants: {' '.join(e['variants'])}"] if e["variants"] else [])]
            for at, line in enumerate(lines):
                print(textwrap.fill(line, WIDTH, initial_indent=f"  {names if at == 0 else ' ' * len(names)}  ",
                                    subsequent_indent=" " * (len(names) + 4 + 2 * at), break_on_hyphens=False))
    return 0


def _facts(entry: dict[str, Any]) -> str:
    return " ".join([Path(entry["path"]).stem, *(str(v) for k, v in entry.items() if k not in ("path", "variants")), *entry["variants"]]).lower()


def _words(text: str) -> list[str]:
    return [w.strip() for w in text.split(",")]
