"""archdsl explain: the long form of a diagnostic, an op, a block."""
from __future__ import annotations

from archdsl.cli.output import show_json
from archdsl.cli.pages import find_page


def explain(topic: str, json: bool = False) -> int:
    """Prints the page about a code, an op or a block."""
    page = find_page(topic)
    if json:
        show_json(page)
    else:
        print(page["text"])
    return 0
