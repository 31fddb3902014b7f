"""What the tests of this folder share."""

from __future__ import annotations

from typing import Any

import pytest

from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.source import Source
from archdsl.syntax.parser import parse, parse_recover


def module(text: str) -> Any:
    return parse(Source("test.arch", text))


def decl(text: str) -> Any:
    """The only declaration of a text."""
    (found,) = module(text).decls
    return found


def statements(text: str) -> Any:
    """Statements, as in the body of a block."""
    return decl("block A()(x: [d]) -> [d] {\n" + text + "\n}").body


def statement(text: str) -> Any:
    (found,) = statements(text)
    return found


def expression(text: str) -> Any:
    return statement("y = " + text).values[0]


def recovered(text: str) -> Any:
    """What can be read of a faulty text."""
    return parse_recover(Source("test.arch", text))[0]


def faults(text: str) -> list[Diagnostic]:
    """The diagnostics of a faulty text; the same ones must be raised."""
    source = Source("test.arch", text)
    found = parse_recover(source)[1]
    with pytest.raises(ArchError) as error:
        parse(source)
    assert error.value.diagnostics == found
    return found


def repaired(text: str, diagnostics: list[Diagnostic]) -> str:
    """A text after the first fix of each diagnostic."""
    edits = [edit for d in diagnostics for edit in d.fixes[0].edits]
    for span, new in sorted(edits, key=lambda e: (-e[0].start, -e[0].end)):
        text = text[: span.start] + new + text[span.end :]
    return text
