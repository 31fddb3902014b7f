"""The pages of the codes A0813, A0814, A0816 to A0819, A0842 and A0843: evaluators."""
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
    "A0816": Code(
        "an evaluator cannot work with this option",
        "`device` is one that torch finds on this machine: `cpu`, `cuda`, `cuda:1`; counts of steps, batches and samples are 1 at least. With "
        "`--engine ray`, each worker looks for the device on its own machine.",
        bad="archdsl search vit --objective latency_ms:min --evaluator latency:gpu --workers 0 --budget 4 -o study",
    ),
    "A0817": Code(
        "there is no supernet in this folder",
        "`--evaluator supernet:FOLDER` reads what `archdsl.supernet.training.train_supernet(spec, task, steps, out = FOLDER)` or "
        "`archdsl.supernet.folder.save` wrote: supernet.json, the spec and weights.safetensors. The folder lacks one of them, or they do not belong "
        "together: a library of another version may give the candidates other weights.",
        bad="archdsl search vit --objective accuracy:max --evaluator supernet:missing --workers 0 --budget 4 -o study",
    ),
    "A0818": Code(
        "the supernet is of another space",
        "A candidate is evaluated on its part of the supernet's weights, so it has to be a candidate of the space that the supernet was trained for: "
        "the same spec and variant, and limits that are no wider. A supernet that was saved without a task needs one: "
        "`supernet(folder = \"…\", task = \"digits\")`.",
    ),
    "A0819": Code(
        "the table of latencies cannot be used",
        "What was measured is kept in a SQLite file, `archdsl/latency.db` in the user's cache folder unless the evaluator is told another one: "
        "`latency(table = \"FILE\")`. It cannot be opened or written, or it is no such table. It can be deleted at any time.",
    ),
    "A0842": Code(
        "there is no such proxy",
        "`--evaluator proxy:NAME` measures zero-cost proxies: one name, or several with commas between. Packages add some through the entry points "
        "`archdsl.proxies`. `archdsl explain synflow` tells about one: its formula, its paper, and what it needs of a model.",
        bad="archdsl search vit --objective naswat:max --evaluator proxy:naswat --workers 0 --budget 4 -o study",
    ),
    "A0843": Code(
        "a proxy cannot be used so",
        "A proxy is a formula for networks of a certain kind. `naswot` counts linear regions, which smooth activations do not have; `zen` multiplies "
        "the scales of batch norms; `epe_nas` needs one class for each example; those of a loss need scores. It says nothing about other models, and "
        "a number would be meaningless, so there is none. Options of a proxy are written behind its name: `proxy:\"zico(batches = 4)\"`.",
        bad="archdsl search vit --objective naswot:max --evaluator proxy:naswot --workers 0 --budget 4 -o study",
        good="archdsl search vit --objective synflow:max --evaluator 'proxy(name = \"synflow\", batch = 2)' --limit 'params <= 10M' --workers 0 "
        "--budget 1 -o study",
    ),
}
