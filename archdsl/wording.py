"""English of messages that are put together."""
from __future__ import annotations


def with_article(noun: str) -> str:
    """`an int`, `a Linear`: by the first letter, as names of types are read."""
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"


__all__ = ["with_article"]
