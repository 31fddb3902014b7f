"""archdsl fmt: one layout for all specs."""
from __future__ import annotations

import os
import sys
from typing import Annotated

import typer


def run(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Specs, or folders to search for them; - formats standard input.", show_default=False)],
    check: Annotated[bool, typer.Option("--check", help="Change nothing; list what is not formatted and exit 1.")] = False,
) -> None:
    """Lay out specs in the one standard way. Comments stay, the meaning never changes."""
    from archdsl.cli.output import count, show_diagnostics
    from archdsl.diagnostics.model import ArchError
    from archdsl.files import arch_files, read_source
    from archdsl.source import Source
    from archdsl.syntax.fmt import format_module

    if paths == ["-"] and not check:
        sys.stdout.write(format_module(Source("<stdin>", sys.stdin.read())))
        return
    faults: list[ArchError] = []
    changed = files = 0
    for path in arch_files(paths):
        files += 1
        try:
            source = read_source(path)
            text = format_module(source)
        except ArchError as fault:
            faults.append(fault)
            continue
        if text != source.text:
            changed += 1
            print(path)
            if not check:
                replace_text(path, text)
    show_diagnostics([d for fault in faults for d in fault.diagnostics], sys.stderr)
    sys.stdout.flush()
    print(f"{count(files, 'file')}: {changed} {'not formatted' if check else 'changed'}", file=sys.stderr)
    if faults or (check and changed):
        raise typer.Exit(1)


def replace_text(path: str, text: str) -> None:
    """Writes a file in one step, so that an interruption leaves either text whole; its permissions stay. Raises A0654."""
    from archdsl.diagnostics.model import error
    from archdsl.source import Source, Span

    real = os.path.realpath(path)
    new = f"{real}.{os.getpid()}.new"
    try:
        with open(new, "x", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(new, os.stat(real).st_mode)
        os.replace(new, real)
    except OSError as fault:
        if os.path.exists(new):
            os.unlink(new)
        raise error("A0654", f"`{path}` cannot be written: {(fault.strerror or str(fault)).lower()}", Span(Source(path, ""), 0, 0)) from None
