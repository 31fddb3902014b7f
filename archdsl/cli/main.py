"""The command `archdsl`. Exit 0 on success, 1 on a finding, 2 on wrong usage or a fault of ours; 130 and 141 after Ctrl-C and a closed pipe."""
from __future__ import annotations

import errno
import gc
import os
import sys
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper

TYPE_CHECKING = False  # as of `typing`: what takes long to load is loaded where Ctrl-C is known already
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, TextIO

# Verbs that take paths and these flags alone. Called so, they start without typer, which (with pydantic, that it loads to convert
# arguments) takes 0.1 s: twice as long as checking a spec. Whatever else the user writes, help included, goes through typer.
PLAIN = {"check": ("--json", "--fix", "--no-lints"), "fmt": ("--check",)}
BROKEN_PIPE, INTERRUPTED = 141, 130  # as a shell reports the two signals
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run() -> NoReturn:
    """The process `archdsl`: `main`, and out. Taking apart what a check has built, object by object, would cost a tenth of its time."""
    try:
        main()
        sys.exit(0)
    except KeyboardInterrupt:  # before `main` looks out for it, or while it ends
        os._exit(INTERRUPTED)
    except SystemExit as end:
        if not isinstance(end.code, int) or "torch" in sys.modules:
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)


def main() -> None:
    """Reads the command line and ends in SystemExit. What is neither an ArchError nor wrong usage is a fault of archdsl: it says so
    and keeps the traceback in a file."""
    _open_streams()
    try:
        try:
            _dispatch()
        finally:
            _flush()  # here: what goes wrong with it later would be told by Python
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as fault:
        code = _without_folder(fault) or _unwritable(fault)
        if code is None:  # the last line of defence: reported as ours, in full
            from archdsl.cli.bug import report

            with suppress(OSError):
                report(fault)
            _is_lost(sys.stderr)
            code = 2
        sys.exit(code)


def _open_streams() -> None:
    if sys.stdout is None or sys.stderr is None:  # the caller closed them
        nothing = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  until the process ends
        sys.stdout, sys.stderr = sys.stdout or nothing, sys.stderr or nothing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a narrow locale must not end a report


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _dispatch() -> None:
    verb, *arguments = sys.argv[1:] or [""]
    if verb in PLAIN and any(not a.startswith("-") for a in arguments) and all(a in PLAIN[verb] or not a.startswith("-") for a in arguments):
        sys.exit(guarded(lambda: _run_plain(verb, arguments)))
    from archdsl.cli.shell import app

    app(prog_name="archdsl")


def _run_plain(verb: str, arguments: list[str]) -> int:
    gc.set_threshold(500_000, 20, 20)  # all objects of a check are alive until it ends: looking for garbage among them finds none
    from archdsl import helper

    helper.allow()
    command = getattr(import_module(f"archdsl.cli.commands.{verb}"), verb)
    flags = {a.removeprefix("--").replace("-", "_"): True for a in arguments if a.startswith("-")}
    return command([a for a in arguments if not a.startswith("-")], **flags)


def guarded(call: Callable[[], int]) -> int:
    """The exit code of a command; what a user or a spec did wrong is shown on standard error."""
    from archdsl.diagnostics.model import ArchError

    try:
        try:
            code = call()
            sys.stdout.flush()
            return code
        except ArchError as fault:
            from archdsl.cli.output import show_diagnostics

            sys.stdout.flush()
            show_diagnostics(fault.diagnostics, sys.stderr)
            return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as fault:
        code = _unwritable(fault)
        if code is None:
            raise
        return code


def _without_folder(fault: Exception) -> int | None:
    """The exit code where the folder that the command was called in has been removed, of which a path that is made absolute tells."""
    if not isinstance(fault, FileNotFoundError):
        return None
    try:
        os.getcwd()
    except FileNotFoundError:
        from archdsl.cli.output import show_diagnostics
        from archdsl.files import folder_is_gone

        show_diagnostics(folder_is_gone().diagnostics, sys.stderr)
        return 1
    return None


def _unwritable(fault: Exception) -> int | None:
    """The exit code where standard output or error takes nothing more: a reader that went away is told nothing, a full disk on the other stream.
    None for any other fault."""
    if not isinstance(fault, OSError) or fault.filename is not None:
        return None
    lost = [name for name, stream in (("standard output", sys.stdout), ("standard error", sys.stderr)) if _is_lost(stream)]
    if not lost and fault.errno in FULL:  # what did not fit is gone: a flush has nothing to complain of
        lost = ["standard output"]
    if isinstance(fault, BrokenPipeError):
        return BROKEN_PIPE
    if lost == ["standard output"]:
        from archdsl.cli.output import show_diagnostics
        from archdsl.files import unwritable

        with suppress(OSError):
            show_diagnostics(unwritable("standard output", fault).diagnostics, sys.stderr)
        _is_lost(sys.stderr)
    return 1 if lost else None


def _is_lost(stream: TextIO) -> bool:
    """Whether a stream takes nothing more; then it leads nowhere from here on, or Python would complain of it at exit."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False


if __name__ == "__main__":
    run()
