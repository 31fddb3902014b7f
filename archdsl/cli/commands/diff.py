"""archdsl diff: what differs between two models."""
from __future__ import annotations

import os
import sys
from typing import Any

from archdsl.cli.output import progress, show_json
from archdsl.cli.source import Opened, open_source, read_settings
from archdsl.cost.sizes import parse_sizes
from archdsl.diagnostics.model import error
from archdsl.diffing import Side, difference
from archdsl.diffing.model import sizes_for
from archdsl.files import write_whole
from archdsl.source import Source, Span


def diff(a: str, b: str, at: list[str], settings: list[str], before: list[str], after: list[str], out: str | None, json: bool) -> int:
    """Prints what differs, or writes it side by side to `out`. `settings`: of both; `before`, `after`: of one alone, before those."""
    if out is not None and os.path.splitext(out)[1].lower() != ".html":
        raise error("A0661", f"`{out}` does not say which kind of file is wanted", Span(Source("-o", out), 0, len(out)), "does not end in .html",
                    help="a difference is written side by side as FILE.html; text and --json are printed")
    sizes, _ = parse_sizes(",".join(at)) if at else ({}, {})
    opened, knobs = [open_source(s) for s in (a, b)], [read_settings(settings) | read_settings(own) for own in (before, after)]
    names = [", ".join((s, *own)) for s, own in ((a, before), (b, after))]
    made = [o.spec.elaborate(o.variant, k) for o, k in zip(opened, knobs)]
    with progress("comparing"):
        sides = [_side(n, o, k, sizes_for(o.spec, m, sizes, other)) for n, o, k, m, other in zip(names, opened, knobs, made, reversed(made))]
        found = difference(sides[0], sides[1])
    if out is not None:
        from archdsl.diffing.page import html_page

        write_whole(out, html_page(found).encode())
        print(f"{out}: {names[0]} → {names[1]}")
    elif json:
        show_json(found.to_json())
    else:
        from archdsl.diffing.text import text_of

        sys.stdout.write(text_of(found))
    return 0


def _side(name: str, opened: Opened, knobs: dict[str, Any], sizes: dict[str, int]) -> Side:
    return Side.of(name, opened.spec, opened.variant, knobs, sizes, opened.folder is None)
