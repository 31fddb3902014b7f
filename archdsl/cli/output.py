"""How the commands print: diagnostics, tables, JSON. Colour and `rich` come in only on a terminal."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from archdsl.diagnostics.model import Diagnostic
from archdsl.diagnostics.render import WIDTH, render


def wants_color(stream: TextIO) -> bool:
    """On a terminal, unless the user said otherwise (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show_diagnostics(diagnostics: Iterable[Diagnostic], stream: TextIO) -> None:
    """The diagnostics, an empty line between each two."""
    color, width = wants_color(stream), WIDTH
    if stream.isatty():
        from shutil import get_terminal_size

        width = get_terminal_size((WIDTH, 24)).columns
    for at, diagnostic in enumerate(diagnostics):
        stream.write(("\n" if at else "") + render(diagnostic, color, width) + "\n")


def show_json(data: Any) -> None:
    """One JSON document on standard output."""
    import json

    json.dump(data, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> None:
    """Aligned columns, those in `right` to the right. A pipe gets plain text of any width, a terminal bold heads and folded cells."""
    rows, right = [list(row) for row in rows], set(right)
    if wants_color(sys.stdout):
        _show_rich(header, rows, right)
        return
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print("  ".join(f"{cell:>{w}}" if i in right else f"{cell:<{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip())


def _show_rich(header: Sequence[str], rows: list[list[str]], right: set[int]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i in right else "left", overflow="fold", no_wrap=i in right)  # digits stay together
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


@contextmanager
def progress(doing: str) -> Generator[Callable[[str], None], None, None]:
    """Says on a terminal what is being done, until it is done, and how far it is, which it is told; a pipe gets nothing."""
    if not wants_color(sys.stderr):
        yield lambda how_far: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{doing} …") as status:
        yield lambda how_far: status.update(f"{doing}: {how_far} …")


def count(n: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
