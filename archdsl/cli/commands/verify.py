"""archdsl verify: are the claims of a spec true?"""
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from archdsl.claims import Claim, untrue, verified
from archdsl.cli.output import count, show_diagnostics, show_json, show_table
from archdsl.diagnostics.model import ArchError, Collector
from archdsl.files import arch_files, located
from archdsl.spec import load, resolve_source


def verify(paths: list[str], json: bool = False) -> int:
    """Checks every claim of the specs, of `SPEC:NAME` those about that model or variant; 1 when one does not hold, or a spec does not check."""
    rows: list[dict[str, Any]] = []
    faults, wrong = Collector(), Collector()
    try:
        for path in arch_files(paths):
            try:
                for claim, row in _claims_of(path):
                    rows.append(row)
                    if (fault := untrue(claim, row)) is not None:
                        wrong.add(fault)
            except ArchError as fault:
                faults.add(fault)
    except ArchError as fault:  # of a folder
        faults.add(fault)
    _progress("")
    failed = sum(not row["passed"] for row in rows)
    show_diagnostics(faults.found, sys.stderr)
    if json:
        show_json(rows)
    else:
        if rows:
            show_table(("", "spec", "variant", "claim", "expected", "actual"), [_cells(row) for row in rows])
            print()
            show_diagnostics(wrong.found, sys.stdout)
            if wrong.found:
                print()
            print(f"{count(len(rows), 'claim')}: {f'{failed} not true' if failed else 'all true'}")
        elif not faults.found:
            print("no claims")
    return 1 if failed or faults.found else 0


def _claims_of(path: str) -> Iterator[tuple[Claim, dict[str, Any]]]:
    """Those of a spec; of `SPEC:NAME`, those about this model with its variants, or about this variant."""
    file = located(path)
    if os.path.exists(file) or not os.path.exists(located(path.partition(":")[0])):
        asked = [(s, s.claims) for s in load(path).models.values()]
    else:
        spec, variant = resolve_source(path)
        asked = [(spec, [c for c in spec.claims if variant in (None, c.variant)])]
    total = sum(len(claims) for _, claims in asked)
    _progress(f"{path}: {count(total, 'claim')}")
    for at, found in enumerate((found for s, claims in asked for found in verified(s, claims)), 1):
        yield found
        _progress(f"{path}: {at} of {total} claims")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return ("ok" if row["passed"] else "NO", row["path"], row["variant"] or "", row["claim"], _text(row["expected"]), _text(row["actual"]))


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: ""}[value]
    if isinstance(value, (int, float)):
        return f"{value:,}"
    return str(value)


def _progress(text: str) -> None:
    """On a terminal, the line that tells how far it is; the next one replaces it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
