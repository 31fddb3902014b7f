"""The pages of the codes A043x: foreign names."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

_MODEL = """use std.linear { Linear }
use std.norm { LayerNorm }

model Net(depth: int = 2)(x: [B, 8]) -> [B, 8] {
  layers: for i in range(depth) {
    x = LayerNorm()(x) as norm
    q = x |> Linear(8, bias = false) as q
    k = x |> Linear(8, bias = false) as k
    x = q + k
  }
  return x
}
"""
_MAPS = '"h.{i}.{q, k}" <-> layers.{i}.{q, k}.weight'
_NORM = '"h.{i}.ln.*" <-> layers.{i}.norm.*'


def _with(*lines: str, head: str = "names other of Net") -> str:
    return "\n".join([_MODEL, f"{head} {{", *(f"  {line}" for line in lines), "}"])


CODES = {
    "A0431": Code(
        "names of a model that is not in the file",
        "`names SOURCE of MODEL { … }` belongs to a model of the same file.",
        bad=_with(head="names other of Nett"),
        good=_with(_MAPS, _NORM),
    ),
    "A0432": Code(
        "an address that fits no weight",
        "The right side of `<->` is an address of the model: loop labels with their indices, then `as` names, `share` names or block names. "
        "`archdsl cost --by layer` shows them. A line may fit nothing in some variants, but not in all of them; of lines whose `when` never "
        "holds each word has to be a name that stands somewhere in the text.",
        bad=_with(_MAPS, '"h.{i}.ln.*" <-> layers.{i}.nrom.*'),
        good=_with(_MAPS, _NORM),
    ),
    "A0433": Code(
        "weights without a foreign name",
        "Every weight and buffer of the model is mapped exactly once: otherwise an import would leave it at its random initial value. A weight that "
        "the foreign file does not have is dropped with the value that it takes on import: `drop \"layers.{i}.k.bias\" = 0`. Export refuses to write "
        "a model in which it has another value.",
        bad=_with(_MAPS, '"h.{i}.ln.weight" <-> layers.{i}.norm.weight'),
        good=_with(_MAPS, '"h.{i}.ln.weight" <-> layers.{i}.norm.weight', 'drop "layers.{i}.norm.bias" = 0'),
    ),
    "A0434": Code(
        "one weight or foreign key in two lines",
        "Each weight and each foreign key has one partner. A foreign key that repeats another one, as the tied head of many language models, is an "
        "`alias`. Lines for different settings are told apart by `when`.",
        bad=_with(_MAPS, _NORM, '"h.{i}.key" <-> layers.{i}.k.weight'),
        good=_with(_MAPS, _NORM, 'alias "h.{i}.key" <-> layers.{i}.k.weight'),
    ),
    "A0435": Code(
        "the two sides of a line do not pair",
        "Both sides of `<->` name the same loop indices (`{i}`, or an expression such as `{2 * i + 1}`), the same wildcards (`*` is one segment), "
        "and lists of the same length, which pair in order. A list or an index that stands on one side alone is joined by `concat` or `stack`.",
        bad=_with('"h.{i}.qk" <-> layers.{i}.{q, k}.weight', _NORM),
        good=_with('"h.{i}.qk" <-> layers.{i}.{q, k}.weight concat', _NORM),
    ),
    "A0436": Code(
        "an operation of a name map does not fit",
        "The operations are `concat`, `stack` (both with `axis = 0`), `transpose` (the last two axes, or `transpose(a, b)`), "
        "`rearrange([…] -> […])`, `add(k)` and `scale(k)`. They read from the address to the foreign name, and each can be undone, so that one line "
        "serves import and export. `concat(sizes = […])` splits one weight over a list of foreign keys when the parts are not equal.",
        bad=_with(_MAPS, f"{_NORM} transpose"),
        good=_with(f"{_MAPS} transpose", _NORM),
    ),
    "A0437": Code(
        "a name pattern that cannot be read",
        "Braces in a name hold one loop index, one expression of whole numbers, or a list of alternatives, and do not nest.",
        bad=_with('"h.{i.{q, k}" <-> layers.{i}.{q, k}.weight', _NORM),
        good=_with(_MAPS, _NORM),
    ),
    "A0438": Code(
        "two names blocks of one name",
        "`import_weights(model, weights, source = \"timm\")` must find one block. "
        "Models that share lines have one together: `names timm of A, B { … }`.",
        bad=_with(_MAPS, _NORM) + "\n\nnames other of Net {\n}",
        good=_with(_MAPS, _NORM),
    ),
}
