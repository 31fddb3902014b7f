"""archdsl graph: a model as a page or a picture."""
from __future__ import annotations

import os

from archdsl.cli.output import count, progress
from archdsl.cli.source import open_source, read_settings
from archdsl.cost.sizes import parse_sizes
from archdsl.cost.units import short
from archdsl.diagnostics.model import error
from archdsl.draw import View, view
from archdsl.files import write_whole
from archdsl.source import Source, Span

KINDS = (".html", ".svg", ".png", ".dot")


def graph(source: str, out: str, at: list[str], settings: list[str], nodes: int) -> int:
    """Writes the picture; the end of the file's name says which kind. Raises A0661 for another one."""
    kind = os.path.splitext(out)[1].lower()
    if kind not in KINDS:
        raise error("A0661", f"`{out}` does not say which kind of picture is wanted", Span(Source("-o", out), 0, len(out)), "ends in none of these",
                    help=f"a name that ends in {', '.join(KINDS)}")
    sizes, _ = parse_sizes(",".join(at)) if at else ({}, {})
    opened = open_source(source)
    made, sizes = opened.spec.sized(opened.variant, sizes, read_settings(settings))
    name = opened.spec.name + (f".{opened.variant}" if opened.variant else "") + "".join(f", {s}" for s in settings)
    found = view(made, sizes, name, opening=nodes)
    with progress(f"drawing {source}"):
        data = _drawn(found, kind, out)
    write_whole(out, data)
    print(f"{out}: {name}, {short(found.cost.params)} parameters, {count(len(found.visible()), 'node')}")
    return 0


def _drawn(found: View, kind: str, out: str) -> bytes:
    if kind == ".html":
        from archdsl.draw.page import html_page

        return html_page(found).encode()
    from archdsl.draw.dot import dot_text, rendered

    return dot_text(found).encode() if kind == ".dot" else rendered(found, kind[1:], out)
