"""Specs that try to take the machine: name -> (text, the codes that may answer). No code at all: it may also be accepted, as long as it is quick."""
from __future__ import annotations

from collections.abc import Callable

USES = """use std.channel { MLP }
use std.linear { Linear }
use std.norm { BatchNorm, LayerNorm, RMSNorm }
use std.residual { Pre, Residual }
"""
MANY = "A0602"
TWICE = "block Twice(_ f: block)(x: [..., d]) -> [..., d] { return f(f(x)) }\n"

CASES: dict[str, tuple[str, tuple[str, ...]]] = {}


def case(name: str, text: str | Callable[[], str], *codes: str) -> None:
    assert name not in CASES
    CASES[name] = (text if isinstance(text, str) else text(), codes)


def model(body: str, params: str = "", header: str = "(x: [B, 8]) -> y: [B, 8]", before: str = "", after: str = "") -> str:
    return f"{USES}{before}\nmodel M({params}){header} {{\n{body}\n}}\n{after}\n"


def steps(first: str, again: str, last: str, n: int = 60) -> str:
    """`first`, `again` n times, `last`: one a line."""
    return "\n".join([first, *[again] * n, last])


# ---------------------------------------------------------------- loops
for what, head in {"range": "0..<1000000000", "range_function": "range(10 ** 9)", "linspace": "linspace(0, 1, 10 ** 9)", "repeat": "repeat(0, 10 ** 9)",
                   "huge_range": "0..<10 ** 30", "negative": "range(0, -(10 ** 12), -1)", "far": "10 ** 400..10 ** 400 + 10 ** 9", "string": '"x" * 10 ** 9',
                   "list": "[0] * 10 ** 9", "domain": "0..10 ** 9 step 1"}.items():
    case(f"loop_{what}", model(f"for i in {head} {{ x = x + 1 }}\nreturn x"), MANY, "A0204", "A0221")
case("loop_labelled", model("layers: for i in range(200000) { x = Linear(8)(x) }\nreturn x"), MANY)
case("loop_labelled_differing", model("layers: for i in range(200000) { x = Linear(8)(x) * i }\nreturn x"), MANY)
case("loop_unlabelled", model("for i in range(200000) { x = x * i }\nreturn x"), MANY)
case("loops_nested", model("for i in range(1000) { for j in range(1000) { for k in range(1000) { x = x + 1 } } }\nreturn x"), MANY)
case("loops_nested_empty", model("for i in range(1000) { for j in range(1000) { for k in range(1000) { } } }\nreturn x"), MANY)
case("loops_nested_labelled", model("a: for i in range(300) { b: for j in range(300) { c: for k in range(300) { x = Linear(8 + i + j)(Linear(8)(x)) as m |> Linear(8) } } }\nreturn x"), MANY)
case("loops_nested_long_list", model("n = range(100000)\nfor i in n { for j in n { } }\nreturn x"), MANY)
case("loop_of_functions", model("y = 0\nfor i in range(100000) { y = f(y) }\nreturn x * y", before="fn f(n: int) -> int { m = n; for i in range(1000) { m = m + i } return m }"), MANY)
case("functions_60_deep", model("return x * f60(1)", before="fn f0(n: int) -> int { return n }\n" + "\n".join(
    f"fn f{i}(n: int) -> int {{ return f{i - 1}(n) + f{i - 1}(n) }}" for i in range(1, 61))), MANY)
case("functions_500_deep", model("return x * f500(1)", before="fn f0(n: int) -> int { return n }\n" + "\n".join(
    f"fn f{i}(n: int) -> int {{ return f{i - 1}(n) + 1 }}" for i in range(1, 501))), MANY)
case("function_recursive", model("return x * f(1)", before="fn f(n: int) -> int { return f(n) }"), "A0226")
case("functions_recursive", model("return x * f(1)", before="fn f(n: int) -> int { return g(n) }\nfn g(n: int) -> int { return f(n) }"), "A0226")
case("blocks_recursive", model("return A()(x)", before="block A()(x: [B, d]) -> [B, d] { return C()(x) }\nblock C()(x: [B, d]) -> [B, d] { return A()(x) }"), "A0226")
case("blocks_500_deep", model("return A500()(x)", before="block A0()(x: [B, d]) -> [B, d] { return x }\n" + "\n".join(
    f"block A{i}()(x: [B, d]) -> [B, d] {{ return A{i - 1}()(x) + 1 }}" for i in range(1, 501))), MANY)
case("blocks_of_themselves", model("return Apply(Apply(Apply(Apply(relu))))(x)", before="block Apply(f: block)(x: [B, d]) -> [B, d] { return f(x) }"))

# ---------------------------------------------------------------- sizes
for what, shape in {"weight": "param w: [10 ** 30] = zeros()\nreturn x * sum(w)", "weight_product": "param w: [10 ** 10, 10 ** 10, 10 ** 10] = zeros()\nreturn x * sum(w)",
                    "weight_many_axes": f"param w: [{', '.join(['9'] * 3000)}] = zeros()\nreturn x * sum(w)", "weight_negative": "param w: [0 - 5] = zeros()\nreturn x * sum(w)",
                    "linear": "return x |> Linear(10 ** 30) as a |> Linear(8) as b", "linear_negative": "return x |> Linear(-3) as a |> Linear(8) as b",
                    "linear_nothing": "return x |> Linear(0) as a |> Linear(8) as b",
                    "constant": "return x * sum(ones([10 ** 30]))", "tensor": "y = rearrange(x, [B, d] -> [B, d, n], n = 10 ** 30)\nreturn mean(y, axis = 2)",
                    "iota": "return x * mean(iota(10 ** 30))", "pad": "return pad(x, [(0, 10 ** 30)])[:, :8]", "tower": "param w: [10 ** 30 ** 30] = zeros()\nreturn x"}.items():
    case(f"shape_{what}", model(shape.replace("[10 ** 30] =", "[n] =").replace("[10 ** 10, 10 ** 10, 10 ** 10]", "[m, m, m]"), "n: int = 10 ** 30, m: int = 10 ** 10"))
case("shape_input", model("return x", header="(x: [B, 1000000000000000000000000000000]) -> y: [B, _]"))
case("shape_input_example", model("return x", header="(x: [B = 1000000000000000000000000000000, 8]) -> y: [B, _]"))
case("dim_power", model("return x", header="(x: [B, T ** 1000000000]) -> y: [B, _]"))
for n in (2, 60, 5000, 10**9):
    case(f"dim_power_of_sum_{n}", model(f"require (B + T + 1) ** {n} >= 1\nreturn x", header="(x: [B, T, 8]) -> y: [B, T, 8]"))
    case(f"dim_power_{n}", model(f"require T ** {n} >= 1\nreturn x", header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case("dim_doubling", model(steps("n = B + T + 1", "n = n * n", "require n >= 1\nreturn x"), header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case("dim_doubling_sum", model(steps("n = B + T + 1", "n = n + n", "require n >= 1\nreturn x"), header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case("dim_floors", model(steps("n = B + T + 1", "n = floordiv(n * T + 1, 3) + n", "require n >= 1\nreturn x", 40), header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case("dim_many", model("return concat([" + ", ".join(f"x{i}" for i in range(400)) + "], axis = 0)", header="(" + ", ".join(f"x{i}: [N{i}, 8]" for i in range(400)) + ") -> y: [_, 8]"))
case("dim_many_products", model(steps("y = x0", "y = concat([y, y], axis = 0)", "return y"), header="(x0: [A + B * C, 8]) -> y: [_, 8]"))
case("dim_min_max", model(steps("n = T", "n = max(n + B, min(n * 2, B + 7)) - min(n, B)", "require n >= 1\nreturn x", 30), header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case("requires_many", model("\n".join(f"require (T + {i}) % {i} == 0" for i in range(2, 300)) + "\nreturn x", header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case("requires_large", model(f"require T % {2**127 - 1} == 0\nrequire T % {2**89 - 1} == 0\nrequire floordiv(T, 3) >= 10 ** 40\nreturn x", header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case("requires_cubic", model("require T * T * T + B * B * B == C * C * C\nrequire T * B == C + 1\nrequire B ** 5 >= T ** 7\nrequire floordiv(T * B, C) >= floordiv(C * T, B)\n" +
                             "x = concat([x, x], axis = 1)\nreturn x[:, :T]", header="(x: [B, T, 8], z: [C, 8]) -> y: [B, T, 8]"))

# ---------------------------------------------------------------- what doubles
for what, (first, again) in {
    "string": ('s = "ab"', "s = s + s"), "list": ("s = [1, 2]", "s = s + s"), "list_of_lists": ("s = [1, 2]", "s = [s, s]"), "tuple": ("s = (1, 2)", "s = (s, s)"),
    "int": ("s = 3", "s = s * s"), "int_power": ("s = 3", "s = s ** s"), "int_sum": ("s = 3", "s = s + s"), "float": ("s = 1.5", "s = s * s"), "fraction": ("s = float(1) / 3", "s = s * s"),
    "fraction_sum": ("s = float(1) / 3", "s = s + 1 / (s + 1)"), "mask_and": ("s = causal", "s = s & s"), "mask_or": ("s = causal", "s = s | s"), "mask_both": ("s = causal & window(3)", "s = (s & s) | s"),
    "initialiser": ("s = normal()", "s = s + s"), "initialiser_product": ("s = normal()", "s = s * s - s"), "template": ("s = relu >> gelu", "s = s >> s"),
    "template_block": ("s = Linear(8)", "s = s >> s"), "literal": ("s = relu", "s = block(y) => s(s(y))"), "block_parameter": ("s = relu", "s = Twice(s)"),
    "block_parameter_weights": ("s = Linear(8)", "s = Twice(s)"), "wrapped": ("s = Linear(8)", "s = Pre(RMSNorm(), s)"), "wrapped_twice": ("s = Linear(8)", "s = Pre(s, s)"),
    "list_of_templates": ("s = [Linear(8)]", "s = s + s"), "list_of_templates_nested": ("s = [Linear(8)]", "s = [s, s]"), "record": ("s = R(1, 2)", "s = R(s, s)"),
    "string_list": ('s = ["a"]', 's = [a + b for a in s for b in s]'.replace(" for b in s", "").replace("a + b", "a + a")), "str": ('s = ["a"]', "s = [str(s)]"),
    "str_list": ('s = ["a"]', "s = [str(s), str(s)]"), "zip": ("s = [1]", "s = zip(s, s)"), "enumerate": ("s = [1]", "s = enumerate(s) + enumerate(s)"),
    "tensor": ("s = x", "s = s + s"), "tensor_concat": ("s = x", "s = concat([s, s], axis = 1)"), "tensor_list": ("s = [x]", "s = s + s"), "tensor_list_nested": ("s = [x]", "s = [s, s]"),
    "rearranged": ("s = x", "s = rearrange(s, [B, d] -> [B, (d two)], two = 2)"), "rank": ("s = x", "s = rearrange(s, [*s] -> [*s, n], n = 2)"),
    "difference": ("s = x", "s = x + s * s"), "share": ("share f = Linear(8)\ns = f", "s = s >> s"), "share_literal": ("share f = Linear(8)\ns = f", "s = block(y) => s(s(y))"),
}.items():
    if what.startswith("tensor") or what in ("rearranged", "rank", "difference"):
        last = "return s" if what not in ("tensor_list", "tensor_list_nested") else "return sum(s)"
        header = "(x: [B, 8]) -> y: [...]" if what == "rank" else "(x: [B, 8]) -> y: [B, _]"
    elif what.startswith(("template", "literal", "block_parameter", "wrapped", "share")):
        last, header = "return s(x)", "(x: [B, 8]) -> y: [B, 8]"
    elif what.startswith("mask"):
        last, header = "return attention(x, x, x, mask = s)", "(x: [B, 2, T, 8]) -> y: [B, 2, T, 8]"
    elif what.startswith("initialiser"):
        last, header = "param w: [8] = s\nreturn x * w", "(x: [B, 8]) -> y: [B, 8]"
    else:
        last, header = "return x * len([s, s])", "(x: [B, 8]) -> y: [B, 8]"
    before = TWICE + ("record R { a: int | R, b: int | R }\n" if what == "record" else "")
    case(f"doubling_{what}", model(steps(first, again, last), header=header, before=before))
    if what not in ("share", "share_literal"):
        case(f"doubling_in_a_loop_{what}", model(f"{first}\nfor i in range(5000) {{ {again} }}\n{last}", header=header, before=before))

for what, inner in {"relu": "relu", "linear": "Linear(8)", "norm": "RMSNorm()"}.items():
    case(f"doubling_nested_{what}", model("return " + "Twice(" * 60 + inner + ")" * 60 + "(x) as f", before=TWICE))
    case(f"doubling_blocks_{what}", model("return T60()(x) as f", before=TWICE + f"block T0()(x: [..., d]) -> [..., d] {{ return {inner}(x) }}\n" + "\n".join(
        f"block T{i}()(x: [..., d]) -> [..., d] {{ return x |> T{i - 1}() as a |> T{i - 1}() as b }}" for i in range(1, 61))))
    case(f"doubling_wrap_blocks_{what}", model("return T50()(x) as f", before=f"wrap block T0()(x: [..., d]) -> [..., d] {{ return {inner}(x) as f }}\n" + "\n".join(
        f"wrap block T{i}()(x: [..., d]) -> [..., d] {{ return x |> T{i - 1}() as a |> T{i - 1}() as b }}" for i in range(1, 51))))
case("doubling_differing", model("return T60(1)(x) as f", before="block T0(n: int)(x: [..., d]) -> [..., d] { return Linear(d)(x) * n }\n" + "\n".join(
    f"block T{i}(n: int)(x: [..., d]) -> [..., d] {{ return x |> T{i - 1}(2 * n) as a |> T{i - 1}(2 * n + 1) as b }}" for i in range(1, 61))))
case("doubling_phases", model(steps("", "x = phase { train => x + 1 eval => x * 2 }", "return x")))
case("doubling_nested_phases", model("return " + "phase { train => x eval => " * 50 + "x" + " }" * 50))
case("doubling_phase_blocks", model("return P50()(x)", before="block P0()(x: [B, d]) -> [B, d] { return x + 1 }\n" + "\n".join(
    f"block P{i}()(x: [B, d]) -> [B, d] {{ return phase {{ train => P{i - 1}()(x) eval => P{i - 1}()(x) + 1 }} }}" for i in range(1, 51))))
case("doubling_header_defaults", model("return A()(x)", before="block A(" + "a0: list[int] = [1, 2], " + ", ".join(f"a{i}: list[int] = a{i - 1} + a{i - 1}" for i in range(1, 60)) +
                                      ")(x: [B, d]) -> [B, d] { return x * len(a59) }"))
case("doubling_model_defaults", model("return x * len(a59)", "a0: list[int] = [1, 2], " + ", ".join(f"a{i}: list[int] = a{i - 1} + a{i - 1}" for i in range(1, 60))))

# ---------------------------------------------------------------- values
for what, value in {
    "comprehension": "[[i for i in range(1000)] for j in range(1000)]", "comprehension_deep": "[[[0 for i in range(200)] for j in range(200)] for k in range(200)]",
    "comprehension_strings": '["x" * 100000 for i in range(10000)]', "comprehension_lists": "[repeat(0, 100000) for i in range(10000)]", "strings": '"x" * 10 ** 12',
    "strings_negative": '"x" * -(10 ** 12)', "lists": "[0] * 10 ** 12", "lists_of_lists": "[[[0] * 1000] * 1000] * 1000", "repeat": "repeat(0, 10 ** 12)", "repeat_lists": "repeat(repeat(repeat(0, 10 ** 5), 10 ** 5), 10 ** 5)",
    "linspace": "linspace(0, 1, 200000)", "linspace_wide": "linspace(10 ** 1000, 10 ** 1200 + 1, 200000)", "ramp": "ramp(0, 1, [200000] * 1000)", "ramp_wide": "ramp(0, 1, [10 ** 12])", "divisors": "divisors(10 ** 30)",
    "divisors_prime": "divisors(999999937)", "divisors_many": "[divisors(999999937) for i in range(10000)]", "split": '("a," * 50000).split(",")', "split_function": 'split("a," * 100000, ",")',
    "split_many": '[split("a," * 100000, ",") for i in range(1000)]', "tower": "2 ** 2 ** 2 ** 2 ** 2 ** 2", "tower_nine": "9 ** 9 ** 9 ** 9", "power": "10 ** 10 ** 10", "power_negative": "2 ** -(10 ** 9)",
    "power_fraction": "1.5 ** 10 ** 9", "power_fraction_negative": "1.000001 ** -(10 ** 8)", "power_zero": "0 ** -1", "power_of_negative": "(-1) ** 0.5", "power_float": "1e300 ** 1.5", "power_small": "1.1 ** 500",
    "power_many": "[1.1 ** 511 for i in range(100000)]", "power_int_many": "[3 ** 2500 for i in range(100000)]",
    "multiples": "multiples(1, 0, 10 ** 12)", "multiples_zero": "multiples(0, 0, 10)", "range_of_ranges": "[range(100000) for i in range(100000)]", "sorted": "sorted(reversed(range(200000)))",
    "sorted_mixed": 'sorted([1, "a", none, x])', "sum": "sum([10 ** 1000 for i in range(100000)])", "exp": "exp(10 ** 10)", "exp_wide": "exp(10 ** 1000)", "log": "log(0)", "log_wide": "log(10 ** 1200)", "sqrt": "sqrt(-1)",
    "sqrt_wide": "sqrt(10 ** 1200 + 1)", "int_text": 'int("9" * 100000)', "int_text_long": 'int("9" * 1000) ** 3', "int_signs": 'int("--5")', "int_superscript": 'int("²")', "int_none": "int(none)", "str_wide": "str(10 ** 1200)", "str_deep": "str([[[[[[1]]]]]])",
    "float_wide": "float(10 ** 1000)", "show_wide": "float(10 ** 1000) / 3", "float_literal": "1e999999999", "float_literal_small": "1e-999999999", "int_literal": "9" * 5000, "number_suffix": "9" * 1000 + "T",
    "float_many": "[1e300 for i in range(100000)]", "abs": 'abs("x")', "round": "round(1e300)", "slice": "range(100000)[::-1][:-1][10 ** 30:]", "slice_zero": "[1, 2][::0]", "index": "[1][10 ** 40]", "item_none": "none[0]",
    "contains": "[i in range(100000) for i in range(100000)]", "equal": "[range(100000) == range(100000) for i in range(100000)]", "joined": "[range(100000) + [i] for i in range(100000)]",
    "string_contains": '[("a" * 50000 + "b") in ("a" * 100000) for i in range(10000)]', "starts": '[starts_with("a" * 100000, "a" * 100000) for i in range(100000)]', "zip": "[zip(range(100000), range(100000)) for i in range(10000)]",
    "max": "[max(range(100000)) for i in range(10000)]", "records": "[R(1, i) for i in range(1000000)]", "all": "[all([true] * 100000) for i in range(10000)]", "len": '[len("a" * 100000) for i in range(100000)]',
    "nan": "1e308 * 10 - 1e308 * 10", "nan_float": "exp(709) * exp(709) - exp(709) * exp(709)", "infinity": "exp(709) * exp(709)", "floor_infinity": "floor(exp(709) * exp(709))", "fraction_infinity": "float(exp(709) * exp(709))",
    "int_infinity": "int(exp(709) * exp(709))", "modulo_zero": "5 % 0", "floor_zero": "5 // 0", "divide_zero": "1 / 0", "divide_zero_float": "exp(1) / 0", "modulo_infinity": "exp(1) % (exp(709) * exp(709) - exp(709) * exp(709))",
    "compare_infinity": "exp(709) * exp(709) > 10 ** 1000", "add_infinity": "exp(709) * exp(709) + 10 ** 1000", "mixed_wide": "exp(1) * 10 ** 1000", "mixed_wide_add": "10 ** 1000 + exp(1)", "mixed_floor": "10 ** 1000 // exp(1)",
}.items():
    case(f"value_{what}", model(f"v = {value}\nreturn x * len([v])", before="record R { a: int, b: int }"))
    if what.startswith(("nan", "infinity", "int_literal", "show", "float_w", "float_l", "str_wide", "tower", "power", "linspace", "strings")):
        case(f"used_{what}", model(f"v = {value}\nparam w: [8] = constant(v)\nrequire v == 1, \"v is {{v}}\"\nreturn x * v * w"))
        case(f"sized_{what}", model(f"v = {value}\nreturn x |> Linear(v) as a |> Linear(8) as b"))
        case(f"typed_{what}", model("return x |> Linear(v) as a |> Linear(8) as b", f"v: int = {value}"))
case("value_interpolated", model('s = "x" * 100000\nrequire 1 == 2, "' + "{s}" * 10000 + '"\nreturn x'))
case("value_interpolated_nested", model('s = "{s}"\nrequire 1 == 2, "' + "{" * 10000 + "s" + "}" * 10000 + '"\nreturn x'))
case("value_interpolated_expression", model('require 1 == 2, "{[[0 for i in range(1000)] for j in range(1000)]}"\nreturn x'))
case("value_address", model("return x |> Linear(8) as " + ".".join("a" for _ in range(50000)), ))
case("value_long_name", model(f"return x |> Linear(8) as {'a' * 1000000}"))

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
case("long_masks", model("return attention(x, x, x, mask = causal" + "".join(f" & window({i})" for i in range(1, 5000)) + ")", header="(x: [B, 2, T, 8]) -> y: [B, 2, T, 8]"))
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
case("long_outputs", model("return " + ", ".join("x" for i in range(5_000)), header="(x: [B, 8]) -> (" + ", ".join(f"y{i}: [B, 8]" for i in range(5_000)) + ")"))
case("long_shape", model("return x", header="(x: [" + ", ".join(f"A{i}" for i in range(5_000)) + "]) -> y: [...]"))
case("long_rearrange", model("return rearrange(x, [" + ", ".join(f"A{i}" for i in range(1000)) + "] -> [" + ", ".join(f"A{i}" for i in reversed(range(1000))) + "])",
                             header="(x: [" + ", ".join(f"A{i}" for i in range(1_000)) + "]) -> y: [...]"))
case("long_factors", model("return rearrange(x, [B, (" + " ".join(f"a{i}" for i in range(2000)) + " r)] -> [B, " + ", ".join(f"a{i}" for i in range(2000)) + ", r], " +
                           ", ".join(f"a{i} = 1" for i in range(2000)) + ")", header="(x: [B, 8]) -> y: [...]"))
case("long_variants", model("return x |> Linear(n) as a |> Linear(8) as b", "n: int = 3", after="\n".join(f"variant v{i} {{ n = {i + 4} }}" for i in range(5_000))))
case("long_variants_same", model("return x |> Linear(n) as a |> Linear(8) as b", "n: int = 3", after="\n".join(f"variant v{i} {{ n = 4 }}" for i in range(5_000))))
case("long_variants_heavy", model("layers: for i in range(n) { x = Linear(8 + i)(x) as a |> Linear(8) as b }\nreturn x", "n: int = 3",
                                  after="\n".join(f"variant v{i} {{ n = {1000 + i} }}" for i in range(500))))
case("long_variants_chain", model("return x |> Linear(n) as a |> Linear(8) as b", "n: int = 3",
                                  after="variant v0 {}\n" + "\n".join(f"variant v{i} of v{i - 1} {{ n = {i} }}" for i in range(1, 5_000))))
case("long_variants_circle", model("return x", "n: int = 3", after="variant v0 of v4999 {}\n" + "\n".join(f"variant v{i} of v{i - 1} {{ n = {i} }}" for i in range(1, 5_000))), "A0402")
case("long_variants_settings", model("return x", "n: int = 3", after="variant v { " + ", ".join("n = 4" for i in range(5_000)) + " }"), "A0402")
case("long_variants_accumulating", model("return x", ", ".join(f"a{i}: int = 0" for i in range(1000)), after="variant v0 {}\n" +
                                         "\n".join(f"variant v{i} of v{i - 1} {{ a{i} = 1 }}" for i in range(1, 1000))))
case("long_variants_value", model("return x", "n: list[int] = [3]", after="variant v { n = [[0 for i in range(1000)] for j in range(1000)] }"))
case("long_variants_addresses", model("layers: for i in range(100) { x = A()(x) as a }\nreturn x", before="block A(k: int = 3 in {3, 5})(x: [..., d]) -> [..., d] { return MLP(k)(x) as _ }",
                                      after="variant v { " + ", ".join(f"layers.{i}.*.k = 5" for i in range(5000)) + " }"))
case("long_claims", model("return x |> Linear(n) as a |> Linear(8) as b", "n: int = 3", after="claim { " + " ".join(f"params(n = {i}) > 0" for i in range(5_000)) + " }"))
case("long_claims_blocks", model("return x", after="\n".join("claim { params == 0 }" for i in range(5_000))))
case("long_claims_unknown", model("return x", after="claim { " + " ".join(f"nothing{i} == 0" for i in range(5_000)) + " }"), "A0403")
case("long_claims_targets", model("return x", after="\n".join(f"claim v{i} {{ params == 0 }}" for i in range(5_000))), "A0401")
case("long_uses", "use std.linear { Linear }\n" * 10_000 + model("return x")[len(USES):], "A0208")
case("long_uses_unknown", "\n".join(f"use std.nothing{i} {{ A }}" for i in range(5_000)) + model("return x")[len(USES):], "A0207")
case("long_blocks", model("return x", before="\n".join(f"block A{i}()(x: [..., d]) -> [..., d] {{ return Linear(d)(x) }}" for i in range(5_000))))
case("long_blocks_same", model("return x", before="\n".join("block A()(x: [..., d]) -> [..., d] { return Linear(d)(x) }" for i in range(5_000))), "A0208")
case("long_models", "\n".join(f"model M{i}(n: int = {i})(x: [B, 8]) -> y: [B, 8] {{ return x * n }}" for i in range(5_000)))
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
case("long_doc_lines", "/// x\n" * 300_000 + model("return x")[len(USES):])
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
    "parentheses": ("(", "x", ")"), "lists": ("[", "1", "]"), "calls": ("f(", "x", ")"), "indices": ("x[", "0", "]"), "literals": ("block(y) => ", "y", ""), "ifs": ("if true { ", "x", " } else { x }"),
    "matches": ("match 1 { 1 => ", "x", " _ => x }"), "phases": ("phase { train => x eval => ", "x", " }"), "minus": ("-", "1", ""), "not": ("not ", "true", ""), "powers": ("2 ** ", "1", ""),
    "comprehensions": ("[", "1", " for i in [1]]"), "ops": ("relu(", "x", ")"), "layouts": ("rearrange(", "x", ", [B, d] -> [d, B])"), "strings": ('("a" + ', '"b"', ")"),
}.items():
    for n in (60, 150, 10_000, 60_000):
        case(f"deep_{what}_{n}", model(f"v = {left * n}{middle}{right * n}\nreturn x"))
for what, (left, right) in {"braces": ("{", "}"), "brackets": ("[", "]"), "opening": ("(", ""), "mixed": ("([{", "}])"), "closing": ("", ")")}.items():
    case(f"deep_bare_{what}", left * 100_000 + right * 100_000, "A0101", "A0105", "A0106")
for n in (30, 100, 10_000):
    case(f"deep_loops_{n}", model("for i in range(1) { " * n + "x = x + 1" + " }" * n + "\nreturn x"))
    case(f"deep_labelled_loops_{n}", model("".join(f"l{i}: for i{i} in range(1) {{ " for i in range(n)) + "x = Linear(8)(x)" + " }" * n + "\nreturn x"))
    case(f"deep_if_statements_{n}", model("if true { " * n + "x = x + 1" + " }" * n + "\nreturn x"))
    case(f"deep_islands_{n}", model("f32 { " * n + "x = x + 1" + " }" * n + "\nreturn x"))
    case(f"deep_wrappers_{n}", model("return " + "Residual(" * n + "Linear(8)" + ")" * n + "(x) as a"))
    case(f"deep_blocks_{n}", model("return " + "Wrap(" * n + "Linear(8)" + ")" * n + "(x) as a", before="block Wrap(f: block)(x: [..., d]) -> [..., d] { return f(x) }"))
    case(f"deep_axis_{n}", model("return x", header="(x: [" + "(" * n + "B" + " + 1)" * n + "]) -> y: [...]"))
    case(f"deep_floors_{n}", model("return x", header="(x: [" + "floordiv(" * n + "B" + ", 2)" * n + "]) -> y: [...]"))
    case(f"deep_types_{n}", model("return x", "n: " + "list[" * n + "int" + "]" * n + " = []"))
    case(f"deep_members_{n}", model("return x" + ".a" * n))
    case(f"deep_items_{n}", model("return x" + "[0]" * n))
    case(f"deep_unders_{n}", model("return x |> " + "under([B, d] -> [d, B], " * n + "relu" + ")" * n))
    case(f"deep_composed_{n}", model("return " + "(relu >> " * n + "relu" + ")" * n + "(x)"))
    case(f"deep_let_values_{n}", model(steps("v = [1]", "v = [v]", "require v == [1], \"{v}\"\nreturn x", n)))
    case(f"deep_let_masks_{n}", model(steps("v = causal", "v = window(3) & (window(4) | v)", "return attention(x, x, x, mask = v)", n), header="(x: [B, 2, T, 8]) -> y: [B, 2, T, 8]"))
    case(f"deep_let_initialisers_{n}", model(steps("v = normal()", "v = v + 1", "param w: [8] = v\nreturn x * w", n)))
    case(f"deep_let_templates_{n}", model(steps("v = Linear(8)", "v = Residual(v)", "return v(x) as a", n)))
    case(f"deep_let_compositions_{n}", model(steps("v = relu", "v = v >> relu", "return v(x)", n)))
    case(f"deep_let_literals_{n}", model("v0 = relu\n" + "\n".join(f"v{i + 1} = block(y) => v{i}(y)" for i in range(n)) + f"\nreturn v{n}(x)"))
    case(f"deep_let_records_{n}", model(steps("v = R(none)", "v = R(v)", "return x * len([v, v])", n), before="record R { a: R? }"))

# ---------------------------------------------------------------- names of weights
LAYERS = "layers: for i in range(100) { x = MLP(8)(x) as a }\nreturn x"
for what, lines in {
    "stars": '"' + "*." * 60 + 'z" <-> ' + ".".join(["*"] * 60), "stars_together": '"*" <-> *.*.*.*.*.*', "lists": '"' + "{a, b}" * 40 + '" <-> ' + ".".join(["{a, b}"] * 40),
    "lists_wide": '"{' + ", ".join(f"a{i}" for i in range(20_000)) + '}" <-> layers.{' + ", ".join(f"b{i}" for i in range(20_000)) + "}",
    "indices": '"' + ".".join("{%s}" % c for c in "ijklmnopqr") + '" <-> ' + ".".join("{%s}" % c for c in "ijklmnopqr"), "powers": '"a.{i}" <-> layers.{10 ** 10 ** 10 * i}.a.up.weight',
    "expressions": '"a.{[[0 for a in range(1000)] for j in range(1000)]}" <-> layers.{i}.a.up.weight', "lines": "\n".join('"a.{i}.%d" <-> layers.{i}.a.up.weight' % i for i in range(3_000)),
    "conditions": '"a.{i}" <-> layers.{i}.a.up.weight when len([[0 for a in range(1000)] for j in range(1000)]) == 3', "drops": "\n".join('drop "layers.*" = 0' for i in range(3_000)),
    "ignores": 'ignore "' + "*" * 5_000 + '"', "aliases": "\n".join('alias "a{i}.%d" <-> layers.{i}.a.up.weight' % i for i in range(3_000)),
    "operations": '"a.{i}" <-> layers.{i}.a.up.weight ' + "transpose(1, 0) " * 5_000, "deep": '"' + "{" * 5_000 + "i" + "}" * 5_000 + '" <-> layers.{i}.a.up.weight', "long": f'"{"a" * 1_000_000}" <-> layers.0.a.up.weight',
    "splits": '"a.{i}" <-> layers.{i}.a.up.weight split(' + ", ".join(["1"] * 20_000) + ")", "open": '"a.{i" <-> layers.{i}.a.up.weight', "reshaped": '"a.{i}" <-> layers.{i}.a.up.weight rearrange([a, b] -> [(a b), c], c = 10 ** 30)',
}.items():
    case(f"names_{what}", model(LAYERS, after=f"names hf of M {{\n{lines}\n}}"))

# ---------------------------------------------------------------- spaces and claims
case("space_limits", model("return x", after="space s of M { " + " ".join("params <= 30" for i in range(5_000)) + " }"))
case("space_tower", model("return x", after="space s of M { params <= 10 ** 10 ** 10 }"))
