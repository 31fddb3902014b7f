"""The pages of the codes A040x: variants, claims and spaces."""

from __future__ import annotations

from archdsl.diagnostics.codes import Code

_NET = """use std.linear { Linear }

model Net(d: int = 8 in {8, 16})(x: [B, T, d]) -> y: [B, T, d] stream T {
  layers: for i in range(2) {
    choose f { wide => Linear(d)  skip => identity } = wide
    x = f(x)
  }
  return x
}

variant large { d = 16 }

"""

CODES: dict[str, Code] = {
    "A0401": Code(
        "no model or variant of that name",
        "Variants, claims and spaces speak of a model of the same file, of one of its variants, or of `model.variant`. On the command "
        "line, `SPEC:NAME` "
        "chooses one.",
        bad=_NET + "claim larg { params == 1 }",
        good=_NET + "claim large { params == 544 }",
    ),
    "A0402": Code(
        "variants that contradict themselves",
        "Each variant and each space has a name of its own, sets a knob once, and builds on a model or on another variant, never in a circle.",
        bad=_NET + "variant a of b { d = 8 }\nvariant b of a { d = 16 }",
        good=_NET + "variant a of large {}\nvariant b of a { d = 8 }",
    ),
    "A0403": Code(
        "a word that claims do not know",
        "Claims and limits speak of costs (params, macs, bops, weight_bytes, quantized_bytes, saved_bytes, peak_bytes), of structure (`count(OP)`, "
        "`count(Block)`, "
        "`count(knob == value)`, `shape(NAME)`), of behaviour (`causal(output, input)`, `equal(variant)`, `interchangeable(a, b)`, "
        "`fails(expression)`), of streaming (state_bytes, delay, `forms(output)`, `constant_state(T)`), "
        "of knobs and functions of the file, and of a knob inside by its address.",
        bad=_NET + "claim { parms == 144 }",
        good=_NET + "claim { params == 144 }",
    ),
    "A0404": Code(
        "a claim that asks the wrong way",
        "Keywords set run-time sizes (`macs(T = 2048)`) or knobs of the model (`params(d = 16)`). `causal` needs an output and an input "
        "along the axis "
        "that the header streams: `… stream T`.",
        bad=_NET + "claim { params(T = 3) == 144 }",
        good=_NET + "claim { params(d = 16) == 544;  macs(T = 3) == 384 }",
    ),
    "A0405": Code(
        "a claim that says neither yes nor no",
        "A claim or a limit is a comparison, or a word that is true or false by itself, such as `causal(y, x)`.",
        bad=_NET + "claim { params }",
        good=_NET + "claim { params == 144 }",
    ),
    "A0406": Code(
        "a tolerance without an equality",
        "`within 0.5%` (of the expected number) or `within 1e-6` (absolute) belongs to `==`, or to `equal(variant)`.",
        bad=_NET + "claim { params <= 150 within 2% }",
        good=_NET + "claim { params == 145 within 2% }",
    ),
    "A0407": Code(
        "a default outside of its own domain",
        "The default of a knob is the paper's value, its domain what a search may try: a search that cannot find the paper's own model is a mistake. "
        "Variants may leave the domain.",
        bad="model Net(d: int = 12 in 16..64 step 16)(x: [B, d]) -> [B, d] { return x }",
        good="model Net(d: int = 16 in 16..64 step 16)(x: [B, d]) -> [B, d] { return x }",
    ),
    "A0408": Code(
        "a domain that holds no values of its knob",
        "A domain is a range (`4..80`, `64..512 step 64`), a set (`{8, 16, heads}`), a list such as `multiples(64, d, 4 * d)`, and for list knobs "
        "`each D` or `each [D1, …]`. Its values have the knob's type.",
        bad="model Net(d: int = 8 in 64..16)(x: [B, d]) -> [B, d] { return x }",
        good="model Net(d: int = 8 in 8..16)(x: [B, d]) -> [B, d] { return x }",
    ),
    "A0409": Code(
        "no knob at that address",
        "Knobs inside a model are the choices and the hyper arguments with a domain, at the address of the block that has them: "
        "`layers.0.f`. The index "
        "may belong to a layer that other settings have.",
        bad=_NET + "space small of Net { layers.0.g == skip }",
        good=_NET + "space small of Net { layers.0.f == skip }",
    ),
    "A0410": Code(
        "a model that does not run for its claim",
        "`causal(y, x)`, `forms(y)` and `equal(variant)` run the model with random weights and inputs. An index computed in the model may lie beyond "
        "its table for inputs that the spec allows; that shows only then. Inputs of whole numbers say which they hold: `in 0..<vocab`.",
    ),
    "A0411": Code(
        "a figure that is not what the model has",
        "`archdsl verify` counted something else than the claim says. The figure is wrong, or the model is: which of the two, the paper says. "
        "`within 1%` allows for rounding, `from \"table 2\"` says where a figure comes from.",
    ),
}
