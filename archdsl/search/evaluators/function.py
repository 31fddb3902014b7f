"""The user's own function."""
from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from archdsl.declared import Declared
from archdsl.diagnostics.model import ArchError, error
from archdsl.elaborate.hints import did_you_mean
from archdsl.search.model import Candidate, Objective, Space
from archdsl.search.registry import evaluator
from archdsl.source import Source, Span
from archdsl.wording import with_article

OFFERED = ("seed", "fidelity", "spec", "space")


@evaluator("function(target: str)")
class Function:
    """A function of yours, `module:function`: it is given the candidate, a mapping address -> value that `spec.build(**candidate)` takes, and
    returns a mapping of names to numbers. If its signature names them, it also gets `seed`, `fidelity`, `spec` and `space`.

    The module is looked for in the current folder, then where Python finds modules.
    """

    rule: ClassVar[Declared]

    def __init__(self, target: str) -> None:
        self.target = target

    def setup(self, space: Space, objectives: Sequence[Objective]) -> None:
        self.function = load_function(self.target)
        self.space = space
        self.wanted = self._wanted()

    def _wanted(self) -> list[str]:
        """Those of what is offered that the signature names. Raises A0814 for one that needs something else."""
        try:
            params = list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):  # of a builtin: it is called with the candidate alone
            return []
        if not params or params[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise _unfit(self.target, f"`{self.target}` does not take a candidate")
        for p in params[1:]:
            if p.name not in OFFERED and p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
                raise _unfit(self.target, f"`{self.target}` needs `{p.name}`, which nothing gives it")
        every = any(p.kind is p.VAR_KEYWORD for p in params)
        return [n for n in OFFERED if every or any(p.name == n for p in params[1:])]

    def __call__(self, candidate: Candidate, *, seed: int, fidelity: float) -> Mapping[str, float]:
        offered = {"seed": seed, "fidelity": fidelity, "space": self.space, "spec": getattr(self.space, "spec", None)}
        return self.function(candidate, **{n: offered[n] for n in self.wanted})


def load_function(target: str) -> Callable[..., Any]:
    """What `module:function` names. Raises A0814."""
    path, _, name = target.partition(":")
    if not path or not name:
        raise _unfit(target, f"`{target}` names no function")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # it stays: what the function imports when it is called is looked for there too
    try:
        found: Any = importlib.import_module(path)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as fault:
        files = [f.removesuffix(".py") for f in os.listdir(here) if f.endswith(".py")]
        raise _unfit(target, f"there is no module `{fault.name}`", *did_you_mean(fault.name or "", files)) from None
    except AttributeError:
        raise _unfit(target, f"`{path}` has no `{name}`", *did_you_mean(name, vars(sys.modules[path]) if path in sys.modules else ())) from None
    except (Exception, SystemExit) as fault:
        last = traceback.extract_tb(fault.__traceback__)[-1]
        raise _unfit(target, f"importing `{path}` raises {type(fault).__name__}: {fault} ({os.path.basename(last.filename)}:{last.lineno})") from None
    if not callable(found):
        raise _unfit(target, f"`{target}` is {with_article(type(found).__name__)}, not a function")
    return found


def _unfit(target: str, message: str, *help: str) -> ArchError:
    return error("A0814", message, Span(Source("--evaluator", target), 0, len(target)),
                 help=help or ("write `package.module:function`; it takes a candidate and returns a mapping of names to numbers",))
