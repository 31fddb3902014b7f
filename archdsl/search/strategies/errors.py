"""The pages of the codes A0811, A0812 and A0815: strategies."""
from __future__ import annotations

from importlib import import_module
from types import ModuleType

from archdsl.diagnostics.codes import Code
from archdsl.diagnostics.model import ArchError, error
from archdsl.source import NOWHERE

CODES = {
    "A0811": Code(
        "There is no such strategy",
        "A strategy is one of archdsl or of an installed package (entry-point group `archdsl.strategies`). `archdsl explain nsga2` tells about one.",
        bad="from archdsl.search.registry import STRATEGIES\n\nSTRATEGIES.parse('nsga4')",
        good="from archdsl.search.registry import STRATEGIES\n\nSTRATEGIES.parse('nsga2')",
    ),
    "A0812": Code(
        "An option that the strategy does not take, or a space that it cannot serve",
        "The options of a strategy, their types and defaults stand in its signature, and what they mean below it: `archdsl explain STRATEGY`. They "
        "are written as in a call, `'nsga2(population = 40)'`, quoted for the shell. Some strategies ask more of a search: `grid` needs finite "
        "domains, `milp` a budget for its table of scores, and both say what is missing.",
        bad="from archdsl.search.registry import STRATEGIES\n\nSTRATEGIES.parse('nsga2(pop = 40)')",
        good="from archdsl.search.registry import STRATEGIES\n\nSTRATEGIES.parse('nsga2(population = 40)')",
    ),
    "A0815": Code(
        "A library that the strategy needs is not installed",
        "`tpe` is Optuna's and `milp` is solved by HiGHS: `pip install 'archdsl[search]'` installs both. The others need nothing else.",
    ),
}


def needed(module: str, package: str, strategy: str) -> ModuleType:
    """An optional library. Raises A0815 where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module.split(".")[0]:  # it is there, and something that it imports is not
            raise
        raise error("A0815", f"the strategy `{strategy}` needs the package {package}", NOWHERE, help="pip install 'archdsl[search]'") from missing


def unfit(strategy: str, why: str, *help: str) -> ArchError:
    """A0812 for a search that a strategy cannot serve."""
    return error("A0812", f"`{strategy}` cannot serve this search: {why}", NOWHERE, help=help)
