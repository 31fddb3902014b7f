"""The pages of the codes A084x: supernets."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES = {
    "A0841": Code(
        "A candidate that is no part of the supernet",
        "A supernet holds the largest size of every axis of every weight that its space's candidates have. A candidate of another space, or one "
        "beyond the limits of this one, may need more.",
    ),
    "A0849": Code(
        "a value of a knob that no candidate of a supernet can have",
        "A search leaves out what does not fit. A supernet is trained for all values of its knobs, so one that never fits is a mistake: an arm of "
        "`choose` whose result has another shape than the place where it goes takes, or a width of 0 where channels are normalised or summed. Nor "
        "can the arms of a choice give the model results of different shapes, which no one target fits. Limits leave values out on purpose and are "
        "not meant.",
    ),
}
