"""archdsl new: a small spec that works, to be changed into one's own."""
from __future__ import annotations

import os
import re

from archdsl.diagnostics.model import error
from archdsl.files import SUFFIX, unwritable
from archdsl.source import NOWHERE

TEXT = """\
use std { Attention, Linear, Pre, RMSNorm, Rope, SwiGLU, TokenEmbedding }

/// A small decoder over bytes.
model NAME(
  vocab: int = 256,
  d: int = 256 in 128..512 step 64,  # the default is what you publish, `in` what a search may try
  depth: int = 6 in 2..12,
  heads: int = 4 in {2, 4, 8},
)(tokens: int[B, T] in 0..<vocab) -> logits: [B, T, vocab] stream T {
  require d % heads == 0, "d ({d}) must be a multiple of heads ({heads})"
  default Linear(bias = false)

  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for i in range(depth) {  # layers.0.attn.q.weight, layers.0.mlp.gate.weight, …
    x = Pre(RMSNorm(), Attention(heads, mask = causal, positions = Rope()))(x) as attn
    x = Pre(RMSNorm(), SwiGLU(hidden = 4 * d))(x) as mlp
  }
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}

variant tiny { d = 128, depth = 2 }

claim { params <= 10M }
"""


def new(name: str) -> int:
    """Writes NAME.arch, and the folder before it, and says what to do with it. Raises A0627, A0652, A0653."""
    folder, stem = os.path.split(name.removesuffix(SUFFIX))
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", stem):
        raise error("A0653", f"`{stem}` cannot name a spec", NOWHERE, help="a letter, then letters, digits, `_` or `-`")
    model = "".join(part[:1].upper() + part[1:] for part in re.split("[_-]+", stem))
    path = os.path.join(folder, stem + SUFFIX)
    try:
        os.makedirs(folder or ".", exist_ok=True)
    except OSError as fault:
        raise unwritable(folder, fault) from None
    try:
        with open(path, "x", encoding="utf-8") as file:
            try:
                file.write(TEXT.replace("NAME", model, 1))
                file.flush()
            except BaseException:
                os.unlink(path)
                raise
    except FileExistsError:
        raise error("A0652", f"`{path}` exists already", NOWHERE, help="choose another name, or edit that file") from None
    except OSError as fault:
        raise unwritable(path, fault) from None
    print(f"{path} written. Next:")
    for command in (f"check {path}", f"cost {path} --by layer", f"compile {path} -o {os.path.join(folder, stem)}"):
        print(f"  archdsl {command}")
    return 0
