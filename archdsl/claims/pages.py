"""The pages of the codes A04."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES: dict[str, Code] = {}
