"""What the user sees when archdsl itself fails."""
from __future__ import annotations

import shlex
import sys
import tempfile
import traceback

from archdsl.cli.output import show_diagnostics
from archdsl.diagnostics.model import Diagnostic
from archdsl.source import NOWHERE


def report(fault: Exception) -> None:
    """A diagnostic A0901 on standard error; the traceback goes to a file of its own."""
    command = shlex.join(["archdsl", *sys.argv[1:]])
    with tempfile.NamedTemporaryFile("w", prefix="archdsl-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(f"$ {command}\n")
        traceback.print_exception(fault, file=file)
    what = f"{type(fault).__name__}: {fault}".rstrip(": ").split("\n")[0]
    message = f"this is a bug in archdsl, not in your spec ({what})"
    notes = (f"the traceback is in {file.name}", f"the command was `{command}`")
    show_diagnostics([Diagnostic("A0901", message, NOWHERE, notes=notes, help=("please report it with that file and the spec",))], sys.stderr)
