"""The pages of the codes A084x: supernets."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES = {
    "A0841": Code(
        "A candidate that is no part of the supernet",
        "A supernet holds the largest size of every axis of every weight that its space's candidates have. A candidate of another space, or one "
        "beyond the limits of this one, may need more.",
    ),
}
