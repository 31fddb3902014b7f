"""archdsl fmt: one layout for all specs."""
from __future__ import annotations

import sys

from archdsl.cli.output import count, show_diagnostics
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.files import arch_files, read_source, replace_text
from archdsl.syntax.fmt import format_module


def fmt(paths: list[str], check: bool = False) -> int:
    """Rewrites the specs that are not formatted and prints their paths; 1 when one cannot be parsed, or with `check` when one would change."""
    faults: list[Diagnostic] = []
    changed = files = broken = 0
    try:
        for path in arch_files(paths):
            files += 1
            try:
                source = read_source(path)
                text = format_module(source)
                if text != source.text and not check:
                    replace_text(path, text)
            except ArchError as fault:
                faults += fault.diagnostics
                broken += 1
                continue
            if text != source.text:
                changed += 1
                print(path)
    except ArchError as fault:  # of a folder
        faults += fault.diagnostics
    sys.stdout.flush()
    show_diagnostics(faults, sys.stderr)
    told = f"{changed} {'not formatted' if check else 'changed'}" if changed else "" if broken else "all formatted" if check else "none changed"
    print(f"{count(files, 'file')}: {', '.join(filter(None, (told, f'{broken} cannot be formatted' if broken else '')))}", file=sys.stderr)
    return 1 if faults or (check and changed) else 0
