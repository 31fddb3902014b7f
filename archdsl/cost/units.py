"""Numbers as people read them."""
from __future__ import annotations


def short(number: int, unit: str = "") -> str:
    """Three digits and a decimal prefix: 22.9 MB, 1.25 G."""
    size, prefixes = float(number), iter(("", "k", "M", "G", "T", "P", "E"))
    prefix = next(prefixes)
    while size >= 999.5 and (following := next(prefixes, None)):
        size, prefix = size / 1000, following
    digits = f"{size:.3g}" if prefix else str(number)
    return f"{digits} {prefix}{unit}".rstrip()


def seconds(time: float) -> str:
    """Three digits: 4.83 ms, 210 µs."""
    return next(f"{time * f:.3g} {unit}" for f, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns")) if time * f >= 0.9995 or unit == "ns")
