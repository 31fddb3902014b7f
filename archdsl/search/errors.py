"""Codes of spaces: what cannot be searched, and candidates of another space."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES: dict[str, Code] = {
    "A0801": Code(
        "nothing to search",
        "A search decides the knobs that have a domain (`hidden: int = 16 in {16, 32}`) and the arms of `choose`. Knobs without a domain keep "
        "their values; this model has no others.",
        bad='archdsl.load("net.arch").models["Fixed"].space()',
        good='archdsl.load("net.arch").space()',
    ),
    "A0802": Code(
        "no candidate satisfies all conditions",
        "No setting of the knobs within their domains can be built and keeps within the limits, which is proved: all were counted. The message "
        "names conditions that exclude each other, the fewest for which that is known. Widen a domain, or take a limit back.",
        bad='archdsl.load("net.arch").space(limits = ["params <= 100"]).sample(0)',
        good='archdsl.load("net.arch").space(limits = ["params <= 300"]).sample(0)',
    ),
    "A0806": Code(
        "no candidate was found",
        "Where the assignments within the limits are neither counted nor drawn directly (a continuous knob, very many settings of the header, a "
        "condition on decisions of the body or on a figure that is no sum over parts), candidates are drawn until one fits, 3,000 times at most for "
        "each that is asked for, some of these from what breaks the limits by little. None did: there may be none, or few. The message says how many "
        "draws there were, what of them fitted, and how near to the limits they came. Widen a limit, set knobs by a variant, or begin with a "
        "candidate that is known.",
    ),
    "A0803": Code(
        "settings that are not in the space",
        "A candidate has a value of its domain for each active decision, can be built and keeps within the limits. The knob or the condition that "
        "does not fit is named.",
        bad='archdsl.load("net.arch").space().candidate({"hidden": 24})',
        good='archdsl.load("net.arch").space().candidate({"hidden": 32})',
    ),
    "A0804": Code(
        "no figure of a candidate",
        "Costs in a search are figures by their text: `params`, `macs(T = 2048)`, `state_bytes`, `count(Attention)`. They are those of the "
        "candidate, so sizes of the input can be given, knobs cannot.",
        bad='space = archdsl.load("net.arch").space()\nspace.costs(space.sample(0), ["params(hidden = 16)"])',
        good='space = archdsl.load("net.arch").space()\nspace.costs(space.sample(0), ["params", "macs(T = 16)"])',
    ),
    "A0805": Code(
        "no such space",
        "`space NAME of MODEL { … }` in the file gives limits a name; there is none of this name for this model.",
        bad='archdsl.load("net.arch").space("small")',
        good='archdsl.load("net.arch").space("tiny")',
    ),
}
