"""What `--pass`, `--decisions`, `--data`, `--model`, `--table`, `--check` and `--dump-after` mean on the command line."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from archdsl.diagnostics.model import ArchError, error
from archdsl.files import read_json
from archdsl.source import Source, Span

if TYPE_CHECKING:
    from archdsl.cli.source import Opened
    from archdsl.passes.model import Model, Passing
    from archdsl.passes.step import Step


class Asked(NamedTuple):
    """The options as they were given."""

    steps: list[str] = []
    decisions: str | None = None
    tables: list[str] = []
    check: bool = False
    dump_after: list[str] = []
    data: list[str] = []
    models: list[str] = []


def read_passing(opened: Opened, asked: Asked) -> Passing | None:
    """None where nothing of the model is rewritten. Raises A056x for what does not fit, A0568 for a file that cannot be used."""
    own = opened.spec.transforms(opened.variant)
    if not (own or any(asked)):
        return None
    from archdsl.passes.context import Given
    from archdsl.passes.model import Passing
    from archdsl.passes.step import Step

    steps = tuple(map(Step.parse, asked.steps))
    names = [*(t.name for t in own), *(s.name for s in steps)]
    for name in asked.dump_after:
        if name not in names:
            raise _option("A0561", "--dump-after", name, f"no step of this model is called `{name}`", f"its steps: {', '.join(names) or 'none'}")
    decisions = _object("--decisions", asked.decisions) if asked.decisions else {}
    for key in decisions:
        if key.partition("@")[2].partition(".")[0] not in names:
            raise _option("A0568", "--decisions", asked.decisions or "", f"the decision `{key}` belongs to no step of this model",
                          f"its steps: {', '.join(names) or 'none'}; keys are written `ADDRESS@step`")
    tables = {name: _object("--table", path) for name, path in (_bound("--table", t) for t in asked.tables)}
    given = Given(dict(_bound("--data", t) for t in asked.data), dict(_bound("--model", t) for t in asked.models), tables)
    return Passing(steps, decisions, given, asked.check, _earlier(opened), _Watch(asked))


def _earlier(opened: Opened) -> Any:
    """The recipe of the folder that is compiled again."""
    if opened.folder is None:
        return ()
    from archdsl.passes.model import Applied
    from archdsl.store import open_spec

    return tuple(map(Applied.from_json, open_spec(opened.folder)[1].recipe))


class _Watch:
    """Tells what a step did, where it was asked to."""

    def __init__(self, asked: Asked):
        self.asked = asked

    def __call__(self, step: Step, model: Model) -> None:
        for note in model.recipe[-1].notes:
            print(f"note: {step.name}: {note}", file=sys.stderr)
        if self.asked.check:
            print(f"checked: {step}", file=sys.stderr)
        if step.name in self.asked.dump_after:
            from archdsl.printer import print_graph

            print(f"# behind {step}\n{print_graph(model.made)}")


WHAT = {"--table": "FILE, for example `--table scores=scores.json`", "--data": "FILE, for example `--data calib=calib.safetensors`",
        "--model": "DIR, for example `--model teacher=out/teacher`"}


def _bound(option: str, text: str) -> tuple[str, str]:
    """NAME=PATH. Raises A0568."""
    name, equals, path = text.partition("=")
    if not equals or not name.isidentifier() or not path:
        raise _option("A0568", option, text, f"`{text}` binds no name", f"write NAME={WHAT[option]}")
    return name, path


def _object(option: str, path: str) -> dict[str, Any]:
    """A JSON object in a file. Raises A0568."""
    try:
        found = read_json(path)
    except (OSError, ValueError) as fault:
        raise _option("A0568", option, path, f"{path} cannot be read: {fault}", "a JSON object is needed") from None
    if not isinstance(found, dict):
        raise _option("A0568", option, path, f"{path} holds no JSON object", "a JSON object by address is needed")
    return cast("dict[str, Any]", found)


def _option(code: str, option: str, text: str, message: str, help: str) -> ArchError:
    return error(code, message, Span(Source(option, text), 0, len(text)), help=help)
