"""archdsl check: syntax, names, shapes, claims that need no tensors."""
from __future__ import annotations

import sys

from archdsl.cli.output import count, show_diagnostics, show_json
from archdsl.diagnostics.model import ArchError, Collector, Diagnostic
from archdsl.diagnostics.render import to_json
from archdsl.files import arch_files
from archdsl.spec import check_file


def check(paths: list[str], json: bool = False, explicit: bool = False, fix: bool = False, no_lints: bool = False) -> int:
    """Prints what is wrong with the specs; 1 when there is an error. `fix`: applies the fixes that are offered first. `no_lints`: errors
    alone. `explicit`: every argument of every block, for files without errors."""
    found, files, fixed = Collector(), 0, 0
    try:
        for path in arch_files(paths):
            files += 1
            try:
                if fix:
                    left, done = _fix_one(path, not no_lints)
                    fixed += done
                else:
                    left = check_file(path, not no_lints)
                for diagnostic in left:
                    found.add(diagnostic)
            except ArchError as fault:
                found.add(fault)
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
              + (f", {count(warnings, 'warning')}" if warnings else "") + (f"; {_fixes(fixed)} applied" if fixed else ""))
    return 1 if errors else 0


def _fixes(n: int) -> str:
    return "1 fix" if n == 1 else f"{n} fixes"


def _fix_one(path: str, lints: bool) -> tuple[list[Diagnostic], int]:
    """Mends a file in one step. What is still wrong with it, and how many fixes were applied. Raises ArchError when it cannot be read or written."""
    from archdsl.diagnostics.fixing import fix_text
    from archdsl.files import read_source, replace_text
    from archdsl.spec import check_text

    source = read_source(path)
    made = fix_text(source.text, path, lambda text: check_text(text, path, lints))
    if made.text != source.text:
        replace_text(path, made.text)
    return made.left, len(made.done)
