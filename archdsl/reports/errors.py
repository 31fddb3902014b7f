"""The pages of the codes A058x: reports."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES = {
    "A0581": Code(
        "There is no such report",
        "A report is one of archdsl or of an installed package. `archdsl explain timeline` tells about one.",
        bad="archdsl report timelin llama.arch",
        good="archdsl report timeline llama.arch",
    ),
    "A0582": Code(
        "An option that the report does not take",
        "The options of a report, their types and defaults stand in its signature, and what they mean below it: `archdsl explain REPORT`. They are "
        "written as in a call, `'timeline(devices = 4)'`, quoted for the shell.",
        bad="archdsl report 'timeline(device = 4)' llama.arch",
        good="archdsl report 'timeline(devices = 4)' llama.arch",
    ),
}
