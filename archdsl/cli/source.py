"""What SOURCE and `--set` mean on the command line."""
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from archdsl.spec import Spec


class Opened(NamedTuple):
    """A spec and its variant; `folder` when SOURCE was a folder written by compile."""

    spec: Spec
    variant: str | None
    folder: str | None


def open_source(source: str) -> Opened:
    """`SPEC[:model][.variant]`, the name of a shipped spec, or a folder written by compile."""
    if os.path.isdir(source):
        from archdsl.store import open_spec

        return Opened(open_spec(source)[0], None, source)
    from archdsl.spec import resolve_source

    return Opened(*resolve_source(source), None)


def read_settings(texts: list[str]) -> dict[str, Any]:
    """`--set ADDRESS=VALUE`, repeated: address -> setting. Raises A0402 for an address that is set twice, A0605 for what is no setting."""
    from archdsl.diagnostics.model import error
    from archdsl.spec import text_setting

    found: dict[str, Any] = {}
    for s in map(text_setting, texts):
        if s.address in found:
            first = found[s.address].span.text
            raise error("A0402", f"`{s.address}` is set twice", s.span, "the second", help=f"leave out this one or the first, `{first}`")
        found[s.address] = s
    return found


def complete_source(incomplete: str) -> list[str]:
    """For the shell's completion: shipped specs with their variants."""
    from archdsl.spec import shipped

    stems = {os.path.basename(row["path"]).removesuffix(".arch"): row["variants"] for row in shipped()}
    names = [n for stem, variants in stems.items() for n in (stem, *(f"{stem}:{v}" for v in variants))]
    return [name for name in names if name.startswith(incomplete)]
