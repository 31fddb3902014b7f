"""archdsl ops: what tensor code can be made of."""
from __future__ import annotations

import textwrap

from archdsl.cli.output import show_json
from archdsl.cli.pages import WIDTH, sentence
from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean, of_torch
from archdsl.ops.registry import OPS, load
from archdsl.plugins import load_group
from archdsl.source import Source, Span


def ops(json: bool = False, word: str | None = None) -> int:
    """Prints every op with its signature and what it does; with `word` those that speak of it. Raises A0651 where none does."""
    load()
    load_group("archdsl.ops")
    found = [OPS[name] for name in sorted(OPS)]
    if word is not None:
        found = [o for o in found if word.lower() in f"{o.signature} {o.doc}".lower()]
        if not found:
            told = of_torch(word)
            raise error("A0651", f"no op speaks of `{word}`", Span(Source("WORD", word), 0, len(word)),
                        help=(told[0] if told is not None else did_you_mean(word, sorted(OPS))) or ("`archdsl ops` lists all ops",))
    if json:
        show_json([{"name": o.name, "signature": o.signature, "doc": o.doc, "roles": o.roles, "grad": o.grad, "random": o.random, "phase": o.phase}
                   for o in found])
        return 0
    for o in found:
        print(textwrap.fill(o.signature, WIDTH, subsequent_indent=" " * 8, break_long_words=False, break_on_hyphens=False))
        print(textwrap.fill(sentence(o.doc), WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4))
    return 0
