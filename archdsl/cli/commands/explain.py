"""archdsl explain: the long form of a diagnostic, an op, a block."""
from __future__ import annotations

from typing import Annotated

import typer


def run(
    topic: Annotated[str, typer.Argument(metavar="CODE|OP|BLOCK", help="A0303, linear, Attention", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print the page as data.")] = False,
) -> None:
    """Explain a diagnostic's code, an op or a block of the library."""
    from archdsl.cli.output import show_json
    from archdsl.cli.pages import find_page

    page = find_page(topic)
    if json:
        show_json(page)
    else:
        print(page["text"])
