"""archdsl check --explicit: every argument of every block, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator

from archdsl.cli.output import show_json
from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.explicit import Application, Argument, applications
from archdsl.source import Span
from archdsl.spec import load

WORDS = {"argument": "written here", "default": "default", "header": "header", "setting": "setting"}


def explicit(paths: list[str], json: bool = False) -> int:
    """Prints the applications of sound specs, model by model."""
    if json:
        show_json([_data(model, a) for path in paths for model, found in _models(path) for a in found])
        return 0
    for path in paths:
        for model, found in _models(path):
            print(f"{model}:")
            for a in found:
                print(f"  {a.span.place}  {a.block}")
                width = max((len(f"{x.name} = {x.value}") for x in a.arguments), default=0)
                for x in a.arguments:
                    print(f"      {f'{x.name} = {x.value}':<{width}}  {_told(x)}")
    return 0


def _models(path: str) -> Iterator[tuple[str, list[Application]]]:
    """A file of blocks alone has no model, so nothing is applied."""
    try:
        models = load(path).models
    except ArchError as fault:
        if [d.code for d in fault.diagnostics] != ["A0606"]:
            raise
        return
    first = {name.partition(".")[0] for name in models if "." in name}  # a model with entries stands for its first one
    yield from ((name, applications(spec)) for name, spec in models.items() if name not in first)


def _told(a: Argument) -> str:
    return WORDS[a.origin] if a.origin == "argument" else f"{WORDS[a.origin]} {a.span.place}"


def _data(model: str, a: Application) -> dict[str, object]:
    rows = [{"name": x.name, "value": x.value, "origin": x.origin, **_where(x.span)} for x in a.arguments]
    return {"model": model, "block": a.block, **_where(a.span), "arguments": rows}


def _where(span: Span) -> dict[str, object]:
    line, column = span.source.position(span.start)
    return {"path": span.source.path, "line": line, "column": column}
