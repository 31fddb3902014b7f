"""archdsl fmt: one layout for all specs."""
from __future__ import annotations

import os
import sys

from archdsl.cli.output import count, show_diagnostics
from archdsl.diagnostics.model import ArchError, Diagnostic, error
from archdsl.files import arch_files, read_source
from archdsl.source import Source, Span
from archdsl.syntax.fmt import format_module


def fmt(paths: list[str], check: bool = False) -> int:
    """Rewrites the specs that are not formatted and prints their paths; 1 when one cannot be parsed, or with `check` when one would change."""
    faults: list[Diagnostic] = []
    changed = files = 0
    for path in arch_files(paths):
        files += 1
        try:
            source = read_source(path)
            text = format_module(source)
        except ArchError as fault:
            faults += fault.diagnostics
            continue
        if text != source.text:
            changed += 1
            print(path)
            if not check:
                replace_text(path, text)
    sys.stdout.flush()
    show_diagnostics(faults, sys.stderr)
    print(f"{count(files, 'file')}: {changed or 'none'} {'not formatted' if check else 'changed'}", file=sys.stderr)
    return 1 if faults or (check and changed) else 0


def replace_text(path: str, text: str) -> None:
    """Writes a file in one step, so that an interruption leaves either text whole; its permissions stay. Raises A0654."""
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
