"""The command `archdsl`: parse arguments, call the facade, print. Exit 0 on success, 1 on a finding, 2 on wrong usage or a fault of ours."""
from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

VERBS = ("check", "fmt", "explain", "cost", "compile", "verify", "list", "ops", "new")
BROKEN_PIPE, INTERRUPTED = 141, 130  # as a shell reports the signals


class Commands(TyperGroup):
    """Imports a command's module when it is asked for, and turns what goes wrong into an exit code."""

    def invoke(self, ctx: Any) -> Any:
        from archdsl.diagnostics.model import ArchError

        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ArchError as fault:
            from archdsl.cli.output import show_diagnostics

            sys.stdout.flush()
            show_diagnostics(fault.diagnostics, sys.stderr)
            raise typer.Exit(1) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit complains
            raise typer.Exit(BROKEN_PIPE) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands, name="archdsl", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"archdsl {version('archdsl')}")
        raise typer.Exit()


@app.callback()
def archdsl(version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Neural architectures as text: check, cost, compile and verify .arch specs."""


def _register(arguments: list[str]) -> None:
    """Adds the commands: all of them for help and completion, otherwise the one that the arguments start with (start-up time)."""
    verbs = arguments[:1] if arguments and arguments[0] in VERBS else VERBS
    for verb in verbs:
        module = import_module(f"archdsl.cli.commands.{verb}")
        app.command(verb)(module.run)


def main() -> None:
    """The entry point. Whatever is no ArchError and no wrong usage is a fault of archdsl: it says so and keeps the traceback in a file."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue] a narrow locale must not end a report
    try:
        _register(sys.argv[1:])
        app(prog_name="archdsl")
    except Exception as fault:  # the last line of defence: reported as ours, in full
        from archdsl.cli.bug import report

        report(fault)
        sys.exit(2)


if __name__ == "__main__":
    main()
