"""Nearest names."""

from __future__ import annotations

from collections.abc import Iterable

from archdsl.diagnostics.model import Fix
from archdsl.source import Span

TORCH = {
    "dim": ("axis", "axes"), "dims": ("axes", "axis"), "keepdim": ("keep",), "p": ("rate",), "kernel_size": ("kernel", "size"), "padding": ("pad",),
    "output_padding": ("output_pad",), "negative_slope": ("slope",), "num_heads": ("heads",), "num_groups": ("groups",),
    "out_features": ("out",), "out_channels": ("out",), "min": ("low",), "max": ("high",), "split_size_or_sections": ("sizes",),
}
"""What an argument is called in torch -> here."""


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """At most three names that look like `name`, or are what torch calls so, the closest first."""
    from difflib import get_close_matches

    pool = [n for n in dict.fromkeys(names) if not n.startswith("__")]
    same = [n for n in TORCH.get(name, ()) if n in pool and n != name][:1]
    if same:
        return same
    lower = {n.lower().replace("_", ""): n for n in reversed(pool)}
    exact = lower.get(name.lower().replace("_", ""))
    close = get_close_matches(name, pool, n=3, cutoff=0.6)
    return ([exact] if exact and exact != name else []) + [c for c in close if c not in (exact, name)]


def nearest_help(name: str, names: Iterable[str], span: Span | None) -> tuple[tuple[str, ...], tuple[Fix, ...]]:
    """(help, fixes): the nearest name as a fix of `span`, and all near ones as help when there are several or nothing to mend."""
    close = nearest(name, names)
    if not close or span is None:
        return did_you_mean(name, close), ()
    return did_you_mean(name, close) if len(close) > 1 else (), (Fix(f"replace by `{close[0]}`", ((span, close[0]),)),)


def did_you_mean(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """A help line, or none."""
    close = nearest(name, names)
    return (f"did you mean {' or '.join(f'`{c}`' for c in close[:3])}?",) if close else ()
