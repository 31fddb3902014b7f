"""archdsl check: syntax, names, shapes, claims that need no tensors."""
from __future__ import annotations

import sys

from archdsl.cli.output import count, show_diagnostics, show_json
from archdsl.diagnostics.model import ArchError, Collector
from archdsl.diagnostics.render import to_json
from archdsl.files import arch_files
from archdsl.spec import check_file


def check(paths: list[str], json: bool = False, explicit: bool = False) -> int:
    """Prints what is wrong with the specs; 1 when something is. `explicit`: every argument of every block, for files without errors."""
    found, files = Collector(), 0
    try:
        for path in arch_files(paths):
            files += 1
            _check_one(path, found)
    except ArchError as fault:  # a folder without specs
        found.add(fault)
    errors = sum(d.severity == "error" for d in found.found)
    if explicit and not errors:
        from archdsl.cli.commands.explicit import explicit as tell

        show_diagnostics(found.found, sys.stderr if json else sys.stdout)
        if found.found and not json:
            print()
        return tell(list(arch_files(paths)), json)
    if json:
        show_json(to_json(found.found))
    else:
        show_diagnostics(found.found, sys.stdout)
        warnings = len(found.found) - errors
        print(("\n" if found.found else "") + f"{count(files, 'file')} checked: {count(errors, 'error') if errors else 'no errors'}"
              + (f", {count(warnings, 'warning')}" if warnings else ""))
    return 1 if errors else 0


def _check_one(path: str, found: Collector) -> None:
    try:
        for diagnostic in check_file(path):
            found.add(diagnostic)
    except ArchError as fault:
        found.add(fault)
