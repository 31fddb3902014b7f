"""Foreign names: the `names` blocks of a spec as maps between its weights and those of timm, transformers or a paper's own code.

Operations read from the address to the foreign name: `"qkv.weight" <-> {q, k, v}.weight concat transpose` says that joining q, k and v and
transposing the result gives the foreign tensor. Import undoes them.
"""
from __future__ import annotations

from archdsl.names.check import check_names, part_of_names, parts_agree
from archdsl.names.compile import compile_names, weight_maps
from archdsl.names.errors import CODES
from archdsl.names.lines import Compiled, own_shapes

__all__ = ["CODES", "Compiled", "check_names", "compile_names", "own_shapes", "part_of_names", "parts_agree", "weight_maps"]
