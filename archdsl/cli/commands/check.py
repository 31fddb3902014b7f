"""archdsl check: syntax, names, shapes, claims that need no tensors."""
from __future__ import annotations

import sys
from typing import Annotated

import typer


def run(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Specs, or folders to search for them.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print the diagnostics as data.")] = False,
) -> None:
    """Check specs: syntax, names, shapes, search constraints. Imports no torch, builds nothing."""
    from archdsl.cli.output import count, show_diagnostics, show_json
    from archdsl.diagnostics.model import ArchError, Collector
    from archdsl.files import arch_files
    from archdsl.spec import check_file

    found, files = Collector(), 0
    try:
        for path in arch_files(paths):
            files += 1
            try:
                for diagnostic in check_file(path):
                    found.add(diagnostic)
            except ArchError as fault:
                found.add(fault)
    except ArchError as fault:  # a folder without specs
        found.add(fault)
    errors = sum(d.severity == "error" for d in found.found)
    if json:
        from archdsl.diagnostics.render import to_json

        show_json(to_json(found.found))
    else:
        show_diagnostics(found.found, sys.stdout)
        warnings = len(found.found) - errors
        extra = f", {count(warnings, 'warning')}" if warnings else ""
        print(("\n" if found.found else "") + f"{count(files, 'file')} checked: {count(errors, 'error') if errors else 'no errors'}{extra}")
    if errors:
        raise typer.Exit(1)
