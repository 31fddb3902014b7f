"""Latency by a table: what each block takes is measured once, on a named device, and a candidate's latency is the sum over its blocks."""
from __future__ import annotations

from archdsl.search.latency.model import Latency
from archdsl.search.latency.validate import Validation, validate

__all__ = ["Latency", "Validation", "validate"]
