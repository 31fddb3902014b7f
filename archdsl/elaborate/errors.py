"""The pages of the codes A02 (names, types, addresses) and A03 (shapes and sizes)."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES: dict[str, Code] = {}
