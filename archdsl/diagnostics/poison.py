"""What stands for a value whose fault has been reported, so that nothing more is said of it."""
from __future__ import annotations


class Poison:
    """The value of an expression whose fault has been reported: whatever uses it stays silent."""

    def __repr__(self) -> str:
        return "<error>"


POISON = Poison()


class Poisoned(Exception):
    """Evaluation met a value whose fault has been reported already."""


__all__ = ["POISON", "Poison", "Poisoned"]
