"""The pages of the codes A0813 and A0814: evaluators."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES = {
    "A0813": Code(
        "there is no such evaluator",
        "`--evaluator` takes the name of an evaluator (`cost`), with options if wanted (`proxy(name = \"synflow\", batch = 8)`). Behind a colon "
        "stands the first option alone, so `proxy:synflow` is `proxy(name = \"synflow\")`. Anything else with a colon is a function of yours, "
        "`package.module:function`. Packages add evaluators through the entry points `archdsl.evaluators`.",
        bad="archdsl search vit --objective params:min --evaluator costs --budget 4 -o study",
        good="archdsl search vit --objective params:min --evaluator cost --budget 4 -o study",
    ),
    "A0814": Code(
        "an evaluator cannot be used so",
        "Its options are those of its signature. A function of yours, `module:function`, is looked for in the folder where the command runs and "
        "where Python finds modules. It is called with the candidate, a mapping address -> value, and with those of `seed`, `fidelity`, `spec` and "
        "`space` that its signature names; it returns a mapping of names to numbers.",
        bad="archdsl search vit --objective accuracy:max --evaluator mine:evaluate -o study",
    ),
}
