"""The table of all diagnostic codes. Each stage owns its rows, in a table `CODES` beside the code that raises them."""
from __future__ import annotations

from functools import cache
from importlib import import_module

from archdsl.records import record


@record(frozen=True)
class Code:
    """What `archdsl explain CODE` prints: a one-line title, paragraphs, a text that raises the code and a mended one.

    `bad` and `good` are whole modules, or shell commands where the code is about files and the command line; empty when neither fits.
    """

    title: str
    explanation: str
    bad: str = ""
    good: str = ""


OWNERS = (
    "archdsl.syntax.errors",     # A01 syntax
    "archdsl.elaborate.errors",  # A02 names, types, addresses; A03 shapes and dims
    "archdsl.claims",            # A04 claims, variants, spaces
    "archdsl.names",             # A04 foreign names
    "archdsl.lower.errors",      # A05 lowering, binding
    "archdsl.weights",           # A05 weights from files and foreign models
    "archdsl.passes.errors",     # A056x passes
    "archdsl.reports.errors",    # A058x reports
    "archdsl.tasks.errors",      # A059x tasks
    "archdsl.search.strategies.errors",  # A081x search strategies
    "archdsl.training.errors",   # A059x training
    "archdsl.tying",             # A05 models with weights in common
    "archdsl.modules",           # A06 imports
    "archdsl.store",             # A052x compiled folders
    "archdsl.capture.errors",    # A055x capturing foreign modules
    "archdsl.files",             # A062x files
    "archdsl.checkpoints",       # A0628
    "archdsl.cost.errors",       # A064x sizes that costs are asked for
    "archdsl.search.errors",     # A080x spaces
    "archdsl.supernet.errors",   # A084x supernets
    "archdsl.lints",             # A07 lints
    "archdsl.search.evaluators.errors",  # A0813 to A0819 evaluators
    "archdsl.study.errors",      # A082x, A083x studies
    "archdsl.draw.errors",       # A066x pictures
    "archdsl.cli.errors",        # A06 command line, A09 internal
)


@cache
def all_codes() -> dict[str, Code]:
    """Every code with its page, sorted by number. Two pages with one number are a mistake of ours: ValueError."""
    table: dict[str, Code] = {}
    owner_of: dict[str, str] = {}
    for owner in OWNERS:
        for number, page in _codes_of(owner).items():
            if number in table:
                raise ValueError(f"{number} is explained in {owner_of[number]} and again in {owner}")
            table[number], owner_of[number] = page, owner
    return dict(sorted(table.items()))


def _codes_of(owner: str) -> dict[str, Code]:
    try:
        return getattr(import_module(owner), "CODES", {})  # a code that is raised and explained nowhere is found by a test
    except ModuleNotFoundError as missing:
        if missing.name != owner:  # something that the owner imports is missing: not ours to hide
            raise
        return {}
