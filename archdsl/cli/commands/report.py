"""archdsl report: tables about one model or several."""
from __future__ import annotations

from typing import Any

from archdsl.cli.output import show_json, show_table
from archdsl.cli.source import open_source, read_settings
from archdsl.cost.sizes import model_sizes, parse_sizes
from archdsl.elaborate.values import show
from archdsl.reports.registry import REPORTS, Subject


def report(name: str, sources: list[str], at: list[str], settings: list[str], json: bool) -> int:
    """Prints the report `name`, which may carry options, about all sources at the same sizes, as far as each has them."""
    rule, options = REPORTS.parse(name)
    sizes, spans = parse_sizes(",".join(at)) if at else ({}, {})
    subjects: list[Subject] = []
    for source in sources:
        opened = open_source(source)
        made = opened.spec.elaborate(opened.variant, read_settings(settings))
        subjects.append(Subject(source, made, model_sizes(made, sizes, spans)))
    found = rule(subjects, **options)
    if json:
        show_json(found.to_json())
        return 0
    given = ", ".join(f"{k} = {_written(v)}" for k, v in found.options.items() if v is not None)
    sizes = dict.fromkeys(", ".join(f"{k}={v}" for k, v in s.sizes.items()) for s in subjects)
    print(f"{found.name}({given}) at {'; '.join(s or 'its only size' for s in sizes)}\n")
    heads, rows = found.table()
    words = {heads.index(c.name) for i, c in enumerate(found.columns) if c.shown and any(isinstance(r.cells[i], str) for r in found.rows)}
    show_table(heads, rows, right=set(range(heads.index("") + 1, len(heads))) - words)
    for note in found.notes:
        print(f"\n{note}")
    return 0


def _written(value: Any) -> str:
    """A value as an option is written: 400T, not 400000000000000."""
    for suffix, scale in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if type(value) in (int, float) and value >= 10 * scale and value % scale == 0:
            return f"{int(value) // scale}{suffix}"
    return show(value)
