"""Long and deep texts, names of weights, spaces."""

from __future__ import annotations

from tests.bad.cases import USES, case, model, steps

# ---------------------------------------------------------------- long texts
case("long_statements", model("\n".join("x = x + 1" for _ in range(100_000)) + "\nreturn x"))
case("long_statements_differing", model("\n".join(f"x = x + {i}" for i in range(50_000)) + "\nreturn x"))
case("long_pipe", model("return x" + " |> relu" * 10_000))
case("long_pipe_blocks", model("return x" + "".join(f" |> Linear(8) as l{i}" for i in range(10_000))))
case("long_sum", model("return " + "x + " * 10_000 + "x"))
case("long_numbers", model("v = " + "1 + " * 10_000 + "1\nreturn x * v"))
case("long_and", model("require " + "true and " * 10_000 + "true\nreturn x"))
case("long_comparison", model("require " + "1 < " * 10_000 + "2\nreturn x"))
case("long_compose", model("f = relu" + " >> relu" * 10_000 + "\nreturn f(x)"))
case("long_mask", model("return attention(x, x, x, mask = causal" + " & window(3)" * 10_000 + ")", header="(x: [B, 2, T, 8]) -> y: [B, 2, T, 8]"))
case(
    "long_masks",
    model(
        "return attention(x, x, x, mask = causal" + "".join(f" & window({i})" for i in range(1, 5000)) + ")",
        header="(x: [B, 2, T, 8]) -> y: [B, 2, T, 8]",
    ),
)
case("long_else", model("if 1 == 2 { x = x }" + " else if 1 == 2 { x = x }" * 10_000 + "\nreturn x"))
case("long_else_expression", model("y = if 1 == 2 { x }" + " else if 1 == 2 { x }" * 10_000 + " else { x }\nreturn y"))
case("long_if_nested", model("if 1 == 1 { " * 10_000 + "x = x" + " }" * 10_000 + "\nreturn x"))
case("long_match", model("y = match 20000 { " + " ".join(f"{i} => x" for i in range(20_000)) + " _ => x }\nreturn y"))
case("long_match_patterns", model('y = match "b" { "a"' + ' | "a"' * 50_000 + " => x _ => x }\nreturn y"))
case("long_match_none", model("y = match 7777777 { " + " ".join(f"{i} => x" for i in range(20_000)) + " }\nreturn y"))
case("long_match_statements", model("match 7 { " + " ".join(f"{i} => {{ x = x }}" for i in range(20_000)) + " }\nreturn x"))
case("long_choose", model("choose f { " + " ".join(f"a{i} => relu" for i in range(10_000)) + " } = a9999\nreturn f(x)"))
case("long_choose_parameters", model("choose f { a(" + ", ".join(f"k{i}: int = {i} in 0..9" for i in range(5_000)) + ") => relu } = a\nreturn f(x)"))
case("long_chooses", model("\n".join(f"choose f{i} {{ a => relu b => gelu }} = a\nx = f{i}(x)" for i in range(5000)) + "\nreturn x"))
case("long_list", model("v = [" + "1, " * 200_001 + "1]\nreturn x * len(v)"))
case("long_arguments", model("return f(" + "x, " * 20_000 + "x)", before="block A()(x: [B, d]) -> [B, d] { return x }"))
case("long_named_arguments", model("return Linear(" + ", ".join(f"a{i} = 1" for i in range(10_000)) + ")(x)"))
case("long_header", model("return x", ", ".join(f"a{i}: int = {i} in 0..{i + 1}" for i in range(10_000))))
case("long_header_same", model("return x", ", ".join("a: int = 1" for i in range(10_000))))
case("long_inputs", model("return x0", header="(" + ", ".join(f"x{i}: [B, 8]" for i in range(5_000)) + ") -> y: [B, 8]"))
case(
    "long_outputs",
    model("return " + ", ".join("x" for i in range(5_000)), header="(x: [B, 8]) -> (" + ", ".join(f"y{i}: [B, 8]" for i in range(5_000)) + ")"),
)
case("long_shape", model("return x", header="(x: [" + ", ".join(f"A{i}" for i in range(5_000)) + "]) -> y: [...]"))
case(
    "long_rearrange",
    model(
        "return rearrange(x, [" + ", ".join(f"A{i}" for i in range(1000)) + "] -> [" + ", ".join(f"A{i}" for i in reversed(range(1000))) + "])",
        header="(x: [" + ", ".join(f"A{i}" for i in range(1_000)) + "]) -> y: [...]",
    ),
)
case(
    "long_factors",
    model(
        "return rearrange(x, [B, ("
        + " ".join(f"a{i}" for i in range(2000))
        + " r)] -> [B, "
        + ", ".join(f"a{i}" for i in range(2000))
        + ", r], "
        + ", ".join(f"a{i} = 1" for i in range(2000))
        + ")",
        header="(x: [B, 8]) -> y: [...]",
    ),
)
case(
    "long_variants",
    model("return x |> Linear(n) as a |> Linear(8) as b", "n: int = 3", after="\n".join(f"variant v{i} {{ n = {i + 4} }}" for i in range(5_000))),
)
case(
    "long_variants_same",
    model("return x |> Linear(n) as a |> Linear(8) as b", "n: int = 3", after="\n".join(f"variant v{i} {{ n = 4 }}" for i in range(5_000))),
)
case(
    "long_variants_heavy",
    model(
        "layers: for i in range(n) { x = Linear(8 + i)(x) as a |> Linear(8) as b }\nreturn x",
        "n: int = 3",
        after="\n".join(f"variant v{i} {{ n = {1000 + i} }}" for i in range(500)),
    ),
)
case(
    "long_variants_chain",
    model(
        "return x |> Linear(n) as a |> Linear(8) as b",
        "n: int = 3",
        after="variant v0 {}\n" + "\n".join(f"variant v{i} of v{i - 1} {{ n = {i} }}" for i in range(1, 5_000)),
    ),
)
case(
    "long_variants_circle",
    model("return x", "n: int = 3", after="variant v0 of v4999 {}\n" + "\n".join(f"variant v{i} of v{i - 1} {{ n = {i} }}" for i in range(1, 5_000))),
    "A0402",
)
case("long_variants_settings", model("return x", "n: int = 3", after="variant v { " + ", ".join("n = 4" for i in range(5_000)) + " }"), "A0402")
case(
    "long_variants_accumulating",
    model(
        "return x",
        ", ".join(f"a{i}: int = 0" for i in range(1000)),
        after="variant v0 {}\n" + "\n".join(f"variant v{i} of v{i - 1} {{ a{i} = 1 }}" for i in range(1, 1000)),
    ),
)
case("long_variants_value", model("return x", "n: list[int] = [3]", after="variant v { n = [[0 for i in range(1000)] for j in range(1000)] }"))
case(
    "long_variants_addresses",
    model(
        "layers: for i in range(100) { x = A()(x) as a }\nreturn x",
        before="block A(k: int = 3 in {3, 5})(x: [..., d]) -> [..., d] { return MLP(k)(x) as _ }",
        after="variant v { " + ", ".join(f"layers.{i}.*.k = 5" for i in range(5000)) + " }",
    ),
)
case(
    "long_claims",
    model(
        "return x |> Linear(n) as a |> Linear(8) as b", "n: int = 3", after="claim { " + " ".join(f"params(n = {i}) > 0" for i in range(5_000)) + " }"
    ),
)
case("long_claims_blocks", model("return x", after="\n".join("claim { params == 0 }" for i in range(5_000))))
case("long_claims_unknown", model("return x", after="claim { " + " ".join(f"nothing{i} == 0" for i in range(5_000)) + " }"), "A0403")
case("long_claims_targets", model("return x", after="\n".join(f"claim v{i} {{ params == 0 }}" for i in range(5_000))), "A0401")
case("long_uses", "use std.linear { Linear }\n" * 10_000 + model("return x")[len(USES) :])
case("long_uses_unknown", "\n".join(f"use std.nothing{i} {{ A }}" for i in range(5_000)) + model("return x")[len(USES) :], "A0207")
case("long_blocks", model("return x", before="\n".join(f"block A{i}()(x: [..., d]) -> [..., d] {{ return Linear(d)(x) }}" for i in range(5_000))))
case(
    "long_blocks_same",
    model("return x", before="\n".join("block A()(x: [..., d]) -> [..., d] { return Linear(d)(x) }" for i in range(5_000))),
    "A0208",
)
case("long_models", "\n".join(f"model M{i}(n: int = {i})(x: [B, 8]) -> y: [B, 8] {{ return x * n }}" for i in range(5_000)))
case("long_conditions", model(steps("s = T >= 3", "s = s and s", "require s\nreturn x", 5_000), header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case(
    "long_conditions_differing",
    model(
        "s0 = T >= 1\n" + "\n".join(f"s{i} = s{i - 1} and T + {i} * B >= {i}" for i in range(1, 1_000)) + "\nrequire s999\nreturn x",
        header="(x: [B, T, 8]) -> y: [B, T, 8]",
    ),
)
case("long_unknown_names", model("\n".join(f"y{i} = unknown{i}" for i in range(10_000)) + "\nreturn x"), "A0201")
case("long_wrong_shapes", model("\n".join(f"y{i} = x + {'y' + str(i - 1) if i else 'x'}[:, :3]" for i in range(5_000)) + "\nreturn x"))
case("long_defaults", model("\n".join("default Linear(bias = false)" for i in range(5_000)) + "\nreturn Linear(8)(x)"))
case("long_shares", model("\n".join(f"share f{i} = Linear(8)" for i in range(5_000)) + "\nreturn f0(x)"))
case("long_params", model("\n".join(f"param w{i}: [8] = zeros()" for i in range(10_000)) + "\nreturn x * w0"))
case("long_params_same", model("\n".join("param w: [8] = zeros()" for i in range(5_000)) + "\nreturn x * w"))
case("long_emits", model("\n".join(f"emit e{i} = x" for i in range(10_000)) + "\nreturn x"))
case("long_requires", model("\n".join("require B >= 1" for i in range(10_000)) + "\nreturn x"))
case("long_requires_differing", model("\n".join(f"require B >= {i}" for i in range(2_000)) + "\nreturn x"))
case("long_comments", "# " + "x" * 5_000_000 + "\n" + model("return x"))
case("long_comment_lines", "# x\n" * 500_000 + model("return x"))
case("long_doc_lines", "/// x\n" * 300_000 + model("return x")[len(USES) :])
case("long_spaces", " \n" * 1_000_000 + model("return x"))
case("long_string", model(f's = "{"x" * 1_000_000}"\nreturn x'))
case("long_string_open", model(f's = "{"x" * 1_000_000}'))
case("long_escapes", model('s = "' + "\\" * 999_999 + '"\nreturn x'))
case("long_quotes", '"' * 300_001)
case("long_word", "x" * 5_000_000)
case("long_number", "9" * 5_000_000)
case("long_digits", model("return x * " + "9" * 100_000))
case("long_underscores", model("return x * 1" + "_0" * 100_000))
case("long_decimals", model("return x * 0." + "1" * 100_000))
case("long_faults", model("x = )\n" * 20_000))
case("long_zeros", "\0" * 100_000)
case("long_signs", "|> " * 100_000)
case("long_words_of_axis", model("return x", header="(x: [" + "B + " * 10_000 + "B]) -> y: [...]"))
case("long_products_of_axis", model("return x", header="(x: [" + "B * " * 10_000 + "B]) -> y: [...]"))
case("long_axis_product_sum", model("return x", header="(x: [" + " * ".join(f"(A{i} + 1)" for i in range(60)) + "]) -> y: [...]"))
case("long_domain", model("return x", "n: int = 3 in {" + ", ".join(map(str, range(100_000))) + "}"))
case("long_domain_range", model("return x", "n: int = 3 in 0..10 ** 30"))
case("long_domain_list", model("return x", "n: list[int] = [3] in each range(10 ** 9)"))
case("long_domain_each", model("return x", "n: list[int] = repeat(3, 100000) in each w => multiples(1, 0, 100000)"))
case("long_union", model("return x", "n: " + " | ".join(f'"a{i}"' for i in range(10_000)) + ' = "a9999"'))
case("long_list_type", model("return x", "n: " + "list[" * 150 + "int" + "]" * 150 + " = []"))
case("long_list_length", model("return x", "n: list[int; 10 ** 30] = []"))
case("long_paper", "paper { " + ", ".join(f'a{i} = "x"' for i in range(10_000)) + " }\n" + model("return x"))
case("long_paper_deep", "paper { a = " + "[" * 5_000 + "]" * 5_000 + " }\n" + model("return x"))

# ---------------------------------------------------------------- deep texts
for what, (left, middle, right) in {
    "parentheses": ("(", "x", ")"),
    "lists": ("[", "1", "]"),
    "calls": ("f(", "x", ")"),
    "indices": ("x[", "0", "]"),
    "literals": ("block(y) => ", "y", ""),
    "ifs": ("if true { ", "x", " } else { x }"),
    "matches": ("match 1 { 1 => ", "x", " _ => x }"),
    "phases": ("phase { train => x eval => ", "x", " }"),
    "minus": ("-", "1", ""),
    "not": ("not ", "true", ""),
    "powers": ("2 ** ", "1", ""),
    "comprehensions": ("[", "1", " for i in [1]]"),
    "ops": ("relu(", "x", ")"),
    "layouts": ("rearrange(", "x", ", [B, d] -> [d, B])"),
    "strings": ('("a" + ', '"b"', ")"),
}.items():
    for n in (60, 150, 10_000, 60_000):
        case(f"deep_{what}_{n}", model(f"v = {left * n}{middle}{right * n}\nreturn x"))
for what, (left, right) in {
    "braces": ("{", "}"),
    "brackets": ("[", "]"),
    "opening": ("(", ""),
    "mixed": ("([{", "}])"),
    "closing": ("", ")"),
}.items():
    case(f"deep_bare_{what}", left * 100_000 + right * 100_000, "A0101", "A0105", "A0106")
for n in (30, 100, 10_000):
    case(f"deep_loops_{n}", model("for i in range(1) { " * n + "x = x + 1" + " }" * n + "\nreturn x"))
    case(
        f"deep_labelled_loops_{n}", model("".join(f"l{i}: for i{i} in range(1) {{ " for i in range(n)) + "x = Linear(8)(x)" + " }" * n + "\nreturn x")
    )
    case(f"deep_if_statements_{n}", model("if true { " * n + "x = x + 1" + " }" * n + "\nreturn x"))
    case(f"deep_islands_{n}", model("f32 { " * n + "x = x + 1" + " }" * n + "\nreturn x"))
    case(f"deep_wrappers_{n}", model("return " + "Residual(" * n + "Linear(8)" + ")" * n + "(x) as a"))
    case(
        f"deep_blocks_{n}",
        model("return " + "Wrap(" * n + "Linear(8)" + ")" * n + "(x) as a", before="block Wrap(f: block)(x: [..., d]) -> [..., d] { return f(x) }"),
    )
    case(f"deep_axis_{n}", model("return x", header="(x: [" + "(" * n + "B" + " + 1)" * n + "]) -> y: [...]"))
    case(f"deep_floors_{n}", model("return x", header="(x: [" + "floordiv(" * n + "B" + ", 2)" * n + "]) -> y: [...]"))
    case(f"deep_types_{n}", model("return x", "n: " + "list[" * n + "int" + "]" * n + " = []"))
    case(f"deep_members_{n}", model("return x" + ".a" * n))
    case(f"deep_items_{n}", model("return x" + "[0]" * n))
    case(f"deep_unders_{n}", model("return x |> " + "under([B, d] -> [d, B], " * n + "relu" + ")" * n))
    case(f"deep_composed_{n}", model("return " + "(relu >> " * n + "relu" + ")" * n + "(x)"))
    case(f"deep_let_values_{n}", model(steps("v = [1]", "v = [v]", 'require v == [1], "{v}"\nreturn x', n)))
    case(
        f"deep_let_masks_{n}",
        model(
            steps("v = causal", "v = window(3) & (window(4) | v)", "return attention(x, x, x, mask = v)", n),
            header="(x: [B, 2, T, 8]) -> y: [B, 2, T, 8]",
        ),
    )
    case(f"deep_let_initialisers_{n}", model(steps("v = normal()", "v = v + 1", "param w: [8] = v\nreturn x * w", n)))
    case(f"deep_let_templates_{n}", model(steps("v = Linear(8)", "v = Residual(v)", "return v(x) as a", n)))
    case(f"deep_let_compositions_{n}", model(steps("v = relu", "v = v >> relu", "return v(x)", n)))
    case(f"deep_let_literals_{n}", model("v0 = relu\n" + "\n".join(f"v{i + 1} = block(y) => v{i}(y)" for i in range(n)) + f"\nreturn v{n}(x)"))
    case(f"deep_let_records_{n}", model(steps("v = R(none)", "v = R(v)", "return x * len([v, v])", n), before="record R { a: R? }"))

# ---------------------------------------------------------------- names of weights
LAYERS = "layers: for i in range(100) { x = MLP(8)(x) as a }\nreturn x"
for what, lines in {
    "stars": '"' + "*." * 60 + 'z" <-> ' + ".".join(["*"] * 60),
    "stars_together": '"*" <-> *.*.*.*.*.*',
    "lists": '"' + "{a, b}" * 40 + '" <-> ' + ".".join(["{a, b}"] * 40),
    "lists_wide": '"{' + ", ".join(f"a{i}" for i in range(20_000)) + '}" <-> layers.{' + ", ".join(f"b{i}" for i in range(20_000)) + "}",
    "indices": '"' + ".".join(f"{{{c}}}" for c in "ijklmnopqr") + '" <-> ' + ".".join(f"{{{c}}}" for c in "ijklmnopqr"),
    "powers": '"a.{i}" <-> layers.{10 ** 10 ** 10 * i}.a.up.weight',
    "expressions": '"a.{[[0 for a in range(1000)] for j in range(1000)]}" <-> layers.{i}.a.up.weight',
    "lines": "\n".join(f'"a.{{i}}.{i}" <-> layers.{{i}}.a.up.weight' for i in range(3_000)),
    "conditions": '"a.{i}" <-> layers.{i}.a.up.weight when len([[0 for a in range(1000)] for j in range(1000)]) == 3',
    "drops": "\n".join('drop "layers.*" = 0' for i in range(3_000)),
    "ignores": 'ignore "' + "*" * 5_000 + '"',
    "aliases": "\n".join(f'alias "a{{i}}.{i}" <-> layers.{{i}}.a.up.weight' for i in range(3_000)),
    "operations": '"a.{i}" <-> layers.{i}.a.up.weight ' + "transpose(1, 0) " * 5_000,
    "deep": '"' + "{" * 5_000 + "i" + "}" * 5_000 + '" <-> layers.{i}.a.up.weight',
    "long": f'"{"a" * 1_000_000}" <-> layers.0.a.up.weight',
    "splits": '"a.{i}" <-> layers.{i}.a.up.weight split(' + ", ".join(["1"] * 20_000) + ")",
    "open": '"a.{i" <-> layers.{i}.a.up.weight',
    "reshaped": '"a.{i}" <-> layers.{i}.a.up.weight rearrange([a, b] -> [(a b), c], c = 10 ** 30)',
}.items():
    case(f"names_{what}", model(LAYERS, after=f"names hf of M {{\n{lines}\n}}"))

# ---------------------------------------------------------------- spaces and claims
case("space_limits", model("return x", after="space s of M { " + " ".join("params <= 30" for i in range(5_000)) + " }"))
case("space_tower", model("return x", after="space s of M { params <= 10 ** 10 ** 10 }"))
