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
    """`--set ADDRESS=VALUE`, repeated: address -> setting; the last one of an address wins."""
    from archdsl.spec import text_setting

    settings = [text_setting(text) for text in texts]
    return {s.address: s for s in settings}


def complete_source(incomplete: str) -> list[str]:
    """For the shell's completion: shipped specs with their variants."""
    from archdsl.spec import shipped

    stems = {os.path.basename(row["path"]).removesuffix(".arch"): row["variants"] for row in shipped()}
    names = [n for stem, variants in stems.items() for n in (stem, *(f"{stem}:{v}" for v in variants))]
    return [name for name in names if name.startswith(incomplete)]
