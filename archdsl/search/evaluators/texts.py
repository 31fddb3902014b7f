"""How evaluators are written: `cost`, `proxy:synflow`, `proxy(name = "synflow", batch = 8)`, `package.module:function`."""
from __future__ import annotations

import re
from typing import Any

from archdsl.declared import Declared
from archdsl.search.registry import EVALUATORS

FUNCTION = "function"
"""The evaluator that calls a function of the user's own."""


def canonical(text: str) -> str:
    """`NAME:REST` as `NAME(option = "REST")`, where NAME is an evaluator and `option` its first one; else as `function(target = "NAME:REST")`."""
    name, colon, rest = text.strip().partition(":")
    if not colon or not re.fullmatch(r"[\w.]+", name):
        return text.strip()
    quoted = '"' + rest.replace("\\", "\\\\").replace('"', '\\"') + '"'
    rule = EVALUATORS.find(name)
    if rule is not None and rule.params:
        return f"{name}({rule.params[0].name} = {quoted})"
    return f'{FUNCTION}(target = "{name}:{rest}")'


def read_evaluator(text: str) -> tuple[Declared, dict[str, Any]]:
    """The evaluator and its options. Raises A0813, A0814."""
    return EVALUATORS.parse(canonical(text))
