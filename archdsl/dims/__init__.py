"""Symbolic axis sizes: `Size = int | Dim`, arithmetic in normal form, and what is known of run-time sizes (`Facts`)."""
from archdsl.dims.facts import Facts, exact_div, is_exact
from archdsl.dims.floors import ceildiv, floordiv, maximum, minimum, mod, substitute
from archdsl.dims.poly import (
    Atom,
    Dim,
    NotInteger,
    Size,
    TooLarge,
    atoms,
    evaluate,
    key,
    largest,
    product,
    sym,
    symbols,
    terms,
)
from archdsl.dims.windows import conv_out, conv_transpose_out, pool_out

__all__ = [
    "Atom", "Dim", "Facts", "NotInteger", "Size", "TooLarge", "atoms", "ceildiv", "conv_out", "conv_transpose_out", "evaluate", "exact_div",
    "floordiv", "is_exact", "key", "largest", "maximum", "minimum", "mod", "pool_out", "product", "substitute", "sym", "symbols", "terms",
]
