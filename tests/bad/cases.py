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
for what, head in {
    "range": "0..<1000000000",
    "range_function": "range(10 ** 9)",
    "linspace": "linspace(0, 1, 10 ** 9)",
    "repeat": "repeat(0, 10 ** 9)",
    "huge_range": "0..<10 ** 30",
    "negative": "range(0, -(10 ** 12), -1)",
    "far": "10 ** 400..10 ** 400 + 10 ** 9",
    "string": '"x" * 10 ** 9',
    "list": "[0] * 10 ** 9",
    "domain": "0..10 ** 9 step 1",
}.items():
    case(f"loop_{what}", model(f"for i in {head} {{ x = x + 1 }}\nreturn x"), MANY, "A0204", "A0221")
case("loop_labelled", model("layers: for i in range(200000) { x = Linear(8)(x) }\nreturn x"), MANY)
case("loop_labelled_differing", model("layers: for i in range(200000) { x = Linear(8)(x) * i }\nreturn x"), MANY)
case("loop_unlabelled", model("for i in range(200000) { x = x * i }\nreturn x"), MANY)
case("loops_nested", model("for i in range(1000) { for j in range(1000) { for k in range(1000) { x = x + 1 } } }\nreturn x"), MANY)
case("loops_nested_empty", model("for i in range(1000) { for j in range(1000) { for k in range(1000) { } } }\nreturn x"), MANY)
case(
    "loops_nested_labelled",
    model(
        "a: for i in range(300) { b: for j in range(300) { c: for k in range(300) {\n"
        "x = Linear(8 + i + j)(x) as up |> Linear(8) as down } } }\nreturn x"
    ),
    MANY,
)
case("loops_nested_long_list", model("n = range(100000)\nfor i in n { for j in n { } }\nreturn x"), MANY)
case(
    "loop_of_functions",
    model(
        "y = 0\nfor i in range(100000) { y = f(y) }\nreturn x * y",
        before="fn f(n: int) -> int { m = n; for i in range(1000) { m = m + i } return m }",
    ),
    MANY,
)
case(
    "functions_60_deep",
    model(
        "return x * f60(1)",
        before="fn f0(n: int) -> int { return n }\n"
        + "\n".join(f"fn f{i}(n: int) -> int {{ return f{i - 1}(n) + f{i - 1}(n) }}" for i in range(1, 61)),
    ),
    MANY,
)
case(
    "functions_500_deep",
    model(
        "return x * f500(1)",
        before="fn f0(n: int) -> int { return n }\n" + "\n".join(f"fn f{i}(n: int) -> int {{ return f{i - 1}(n) + 1 }}" for i in range(1, 501)),
    ),
    MANY,
)
case("function_recursive", model("return x * f(1)", before="fn f(n: int) -> int { return f(n) }"), "A0226")
case("functions_recursive", model("return x * f(1)", before="fn f(n: int) -> int { return g(n) }\nfn g(n: int) -> int { return f(n) }"), "A0226")
case(
    "blocks_recursive",
    model("return A()(x)", before="block A()(x: [B, d]) -> [B, d] { return C()(x) }\nblock C()(x: [B, d]) -> [B, d] { return A()(x) }"),
    "A0226",
)
case(
    "blocks_500_deep",
    model(
        "return A500()(x)",
        before="block A0()(x: [B, d]) -> [B, d] { return x }\n"
        + "\n".join(f"block A{i}()(x: [B, d]) -> [B, d] {{ return A{i - 1}()(x) + 1 }}" for i in range(1, 501)),
    ),
    MANY,
)
case("blocks_of_themselves", model("return Apply(Apply(Apply(Apply(relu))))(x)", before="block Apply(f: block)(x: [B, d]) -> [B, d] { return f(x) }"))

# ---------------------------------------------------------------- sizes
for what, shape in {
    "weight": "param w: [10 ** 30] = zeros()\nreturn x * sum(w)",
    "weight_product": "param w: [10 ** 10, 10 ** 10, 10 ** 10] = zeros()\nreturn x * sum(w)",
    "weight_many_axes": f"param w: [{', '.join(['9'] * 3000)}] = zeros()\nreturn x * sum(w)",
    "weight_negative": "param w: [0 - 5] = zeros()\nreturn x * sum(w)",
    "linear": "return x |> Linear(10 ** 30) as a |> Linear(8) as b",
    "linear_negative": "return x |> Linear(-3) as a |> Linear(8) as b",
    "linear_nothing": "return x |> Linear(0) as a |> Linear(8) as b",
    "constant": "return x * sum(ones([10 ** 30]))",
    "tensor": "y = rearrange(x, [B, d] -> [B, d, n], n = 10 ** 30)\nreturn mean(y, axis = 2)",
    "iota": "return x * mean(iota(10 ** 30))",
    "pad": "return pad(x, [(0, 10 ** 30)])[:, :8]",
    "tower": "param w: [10 ** 30 ** 30] = zeros()\nreturn x",
}.items():
    case(
        f"shape_{what}",
        model(shape.replace("[10 ** 30] =", "[n] =").replace("[10 ** 10, 10 ** 10, 10 ** 10]", "[m, m, m]"), "n: int = 10 ** 30, m: int = 10 ** 10"),
    )
case("shape_input", model("return x", header="(x: [B, 1000000000000000000000000000000]) -> y: [B, _]"))
case("shape_input_example", model("return x", header="(x: [B = 1000000000000000000000000000000, 8]) -> y: [B, _]"))
case("dim_power", model("return x", header="(x: [B, T ** 1000000000]) -> y: [B, _]"))
for n in (2, 60, 5000, 10**9):
    case(f"dim_power_of_sum_{n}", model(f"require (B + T + 1) ** {n} >= 1\nreturn x", header="(x: [B, T, 8]) -> y: [B, T, 8]"))
    case(f"dim_power_{n}", model(f"require T ** {n} >= 1\nreturn x", header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case("dim_doubling", model(steps("n = B + T + 1", "n = n * n", "require n >= 1\nreturn x"), header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case("dim_doubling_sum", model(steps("n = B + T + 1", "n = n + n", "require n >= 1\nreturn x"), header="(x: [B, T, 8]) -> y: [B, T, 8]"))
case(
    "dim_floors",
    model(steps("n = B + T + 1", "n = floordiv(n * T + 1, 3) + n", "require n >= 1\nreturn x", 40), header="(x: [B, T, 8]) -> y: [B, T, 8]"),
)
case(
    "dim_many",
    model(
        "return concat([" + ", ".join(f"x{i}" for i in range(400)) + "], axis = 0)",
        header="(" + ", ".join(f"x{i}: [N{i}, 8]" for i in range(400)) + ") -> y: [_, 8]",
    ),
)
case("dim_many_products", model(steps("y = x0", "y = concat([y, y], axis = 0)", "return y"), header="(x0: [A + B * C, 8]) -> y: [_, 8]"))
case(
    "dim_min_max",
    model(steps("n = T", "n = max(n + B, min(n * 2, B + 7)) - min(n, B)", "require n >= 1\nreturn x", 30), header="(x: [B, T, 8]) -> y: [B, T, 8]"),
)
case(
    "requires_many", model("\n".join(f"require (T + {i}) % {i} == 0" for i in range(2, 300)) + "\nreturn x", header="(x: [B, T, 8]) -> y: [B, T, 8]")
)
case(
    "requires_large",
    model(
        f"require T % {2**127 - 1} == 0\nrequire T % {2**89 - 1} == 0\nrequire floordiv(T, 3) >= 10 ** 40\nreturn x",
        header="(x: [B, T, 8]) -> y: [B, T, 8]",
    ),
)
case(
    "requires_cubic",
    model(
        "require T * T * T + B * B * B == C * C * C\nrequire T * B == C + 1\nrequire B ** 5 >= T ** 7\n"
        + "require floordiv(T * B, C) >= floordiv(C * T, B)\nx = concat([x, x], axis = 1)\nreturn x[:, :T]",
        header="(x: [B, T, 8], z: [C, 8]) -> y: [B, T, 8]",
    ),
)

# ---------------------------------------------------------------- what doubles
for what, (first, again) in {
    "string": ('s = "ab"', "s = s + s"),
    "list": ("s = [1, 2]", "s = s + s"),
    "list_of_lists": ("s = [1, 2]", "s = [s, s]"),
    "tuple": ("s = (1, 2)", "s = (s, s)"),
    "int": ("s = 3", "s = s * s"),
    "int_power": ("s = 3", "s = s ** s"),
    "int_sum": ("s = 3", "s = s + s"),
    "float": ("s = 1.5", "s = s * s"),
    "fraction": ("s = float(1) / 3", "s = s * s"),
    "fraction_sum": ("s = float(1) / 3", "s = s + 1 / (s + 1)"),
    "mask_and": ("s = causal", "s = s & s"),
    "mask_or": ("s = causal", "s = s | s"),
    "mask_both": ("s = causal & window(3)", "s = (s & s) | s"),
    "initialiser": ("s = normal()", "s = s + s"),
    "initialiser_product": ("s = normal()", "s = s * s - s"),
    "template": ("s = relu >> gelu", "s = s >> s"),
    "template_block": ("s = Linear(8)", "s = s >> s"),
    "literal": ("s = relu", "s = block(y) => s(s(y))"),
    "block_parameter": ("s = relu", "s = Twice(s)"),
    "block_parameter_weights": ("s = Linear(8)", "s = Twice(s)"),
    "wrapped": ("s = Linear(8)", "s = Pre(RMSNorm(), s)"),
    "wrapped_twice": ("s = Linear(8)", "s = Pre(s, s)"),
    "list_of_templates": ("s = [Linear(8)]", "s = s + s"),
    "list_of_templates_nested": ("s = [Linear(8)]", "s = [s, s]"),
    "record": ("s = R(1, 2)", "s = R(s, s)"),
    "string_list": ('s = ["a"]', "s = [a + b for a in s for b in s]".replace(" for b in s", "").replace("a + b", "a + a")),
    "str": ('s = ["a"]', "s = [str(s)]"),
    "str_list": ('s = ["a"]', "s = [str(s), str(s)]"),
    "zip": ("s = [1]", "s = zip(s, s)"),
    "enumerate": ("s = [1]", "s = enumerate(s) + enumerate(s)"),
    "tensor": ("s = x", "s = s + s"),
    "tensor_concat": ("s = x", "s = concat([s, s], axis = 1)"),
    "tensor_list": ("s = [x]", "s = s + s"),
    "tensor_list_nested": ("s = [x]", "s = [s, s]"),
    "rearranged": ("s = x", "s = rearrange(s, [B, d] -> [B, (d two)], two = 2)"),
    "rank": ("s = x", "s = rearrange(s, [*s] -> [*s, n], n = 2)"),
    "difference": ("s = x", "s = x + s * s"),
    "condition": ("s = T >= 3 and T % 2 == 0", "s = s and s"),
    "share": ("share f = Linear(8)\ns = f", "s = s >> s"),
    "share_literal": ("share f = Linear(8)\ns = f", "s = block(y) => s(s(y))"),
}.items():
    if what.startswith("tensor") or what in ("rearranged", "rank", "difference"):
        last = "return s" if what not in ("tensor_list", "tensor_list_nested") else "return sum(s)"
        header = "(x: [B, 8]) -> y: [...]" if what == "rank" else "(x: [B, 8]) -> y: [B, _]"
    elif what.startswith(("template", "literal", "block_parameter", "wrapped", "share")):
        last, header = "return s(x)", "(x: [B, 8]) -> y: [B, 8]"
    elif what.startswith("mask"):
        last, header = "return attention(x, x, x, mask = s)", "(x: [B, 2, T, 8]) -> y: [B, 2, T, 8]"
    elif what == "condition":
        last, header = "require s\nreturn x", "(x: [B, T, 8]) -> y: [B, T, 8]"
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
    case(
        f"doubling_blocks_{what}",
        model(
            "return T60()(x) as f",
            before=TWICE
            + f"block T0()(x: [..., d]) -> [..., d] {{ return {inner}(x) }}\n"
            + "\n".join(f"block T{i}()(x: [..., d]) -> [..., d] {{ return x |> T{i - 1}() as a |> T{i - 1}() as b }}" for i in range(1, 61)),
        ),
    )
    case(
        f"doubling_wrap_blocks_{what}",
        model(
            "return T50()(x) as f",
            before=f"wrap block T0()(x: [..., d]) -> [..., d] {{ return {inner}(x) as f }}\n"
            + "\n".join(f"wrap block T{i}()(x: [..., d]) -> [..., d] {{ return x |> T{i - 1}() as a |> T{i - 1}() as b }}" for i in range(1, 51)),
        ),
    )
case(
    "doubling_differing",
    model(
        "return T60(1)(x) as f",
        before="block T0(n: int)(x: [..., d]) -> [..., d] { return Linear(d)(x) * n }\n"
        + "\n".join(
            f"block T{i}(n: int)(x: [..., d]) -> [..., d] {{ return x |> T{i - 1}(2 * n) as a |> T{i - 1}(2 * n + 1) as b }}" for i in range(1, 61)
        ),
    ),
)
case("doubling_phases", model(steps("", "x = phase { train => x + 1 eval => x * 2 }", "return x")))
case("doubling_nested_phases", model("return " + "phase { train => x eval => " * 50 + "x" + " }" * 50))
case(
    "doubling_phase_blocks",
    model(
        "return P50()(x)",
        before="block P0()(x: [B, d]) -> [B, d] { return x + 1 }\n"
        + "\n".join(
            f"block P{i}()(x: [B, d]) -> [B, d] {{ return phase {{ train => P{i - 1}()(x) eval => P{i - 1}()(x) + 1 }} }}" for i in range(1, 51)
        ),
    ),
)
case(
    "doubling_header_defaults",
    model(
        "return A()(x)",
        before="block A("
        + "a0: list[int] = [1, 2], "
        + ", ".join(f"a{i}: list[int] = a{i - 1} + a{i - 1}" for i in range(1, 60))
        + ")(x: [B, d]) -> [B, d] { return x * len(a59) }",
    ),
)
case(
    "doubling_model_defaults",
    model("return x * len(a59)", "a0: list[int] = [1, 2], " + ", ".join(f"a{i}: list[int] = a{i - 1} + a{i - 1}" for i in range(1, 60))),
)

# ---------------------------------------------------------------- values
for what, value in {
    "comprehension": "[[i for i in range(1000)] for j in range(1000)]",
    "comprehension_deep": "[[[0 for i in range(200)] for j in range(200)] for k in range(200)]",
    "comprehension_strings": '["x" * 100000 for i in range(10000)]',
    "comprehension_lists": "[repeat(0, 100000) for i in range(10000)]",
    "strings": '"x" * 10 ** 12',
    "strings_negative": '"x" * -(10 ** 12)',
    "lists": "[0] * 10 ** 12",
    "lists_of_lists": "[[[0] * 1000] * 1000] * 1000",
    "repeat": "repeat(0, 10 ** 12)",
    "repeat_lists": "repeat(repeat(repeat(0, 10 ** 5), 10 ** 5), 10 ** 5)",
    "linspace": "linspace(0, 1, 200000)",
    "linspace_wide": "linspace(10 ** 1000, 10 ** 1200 + 1, 200000)",
    "ramp": "ramp(0, 1, [200000] * 1000)",
    "ramp_wide": "ramp(0, 1, [10 ** 12])",
    "divisors": "divisors(10 ** 30)",
    "divisors_prime": "divisors(999999937)",
    "divisors_many": "[divisors(999999937) for i in range(10000)]",
    "split": '("a," * 50000).split(",")',
    "split_function": 'split("a," * 100000, ",")',
    "split_many": '[split("a," * 100000, ",") for i in range(1000)]',
    "tower": "2 ** 2 ** 2 ** 2 ** 2 ** 2",
    "tower_nine": "9 ** 9 ** 9 ** 9",
    "power": "10 ** 10 ** 10",
    "power_negative": "2 ** -(10 ** 9)",
    "power_fraction": "1.5 ** 10 ** 9",
    "power_fraction_negative": "1.000001 ** -(10 ** 8)",
    "power_zero": "0 ** -1",
    "power_of_negative": "(-1) ** 0.5",
    "power_float": "1e300 ** 1.5",
    "power_small": "1.1 ** 500",
    "power_many": "[1.1 ** 511 for i in range(100000)]",
    "power_int_many": "[3 ** 2500 for i in range(100000)]",
    "multiples": "multiples(1, 0, 10 ** 12)",
    "multiples_zero": "multiples(0, 0, 10)",
    "range_of_ranges": "[range(100000) for i in range(100000)]",
    "sorted": "sorted(reversed(range(200000)))",
    "sorted_mixed": 'sorted([1, "a", none, x])',
    "sum": "sum([10 ** 1000 for i in range(100000)])",
    "exp": "exp(10 ** 10)",
    "exp_wide": "exp(10 ** 1000)",
    "log": "log(0)",
    "log_wide": "log(10 ** 1200)",
    "sqrt": "sqrt(-1)",
    "sqrt_wide": "sqrt(10 ** 1200 + 1)",
    "int_text": 'int("9" * 100000)',
    "int_text_long": 'int("9" * 1000) ** 3',
    "int_signs": 'int("--5")',
    "int_superscript": 'int("²")',
    "int_none": "int(none)",
    "str_wide": "str(10 ** 1200)",
    "str_deep": "str([[[[[[1]]]]]])",
    "float_wide": "float(10 ** 1000)",
    "show_wide": "float(10 ** 1000) / 3",
    "float_literal": "1e999999999",
    "float_literal_small": "1e-999999999",
    "int_literal": "9" * 5000,
    "number_suffix": "9" * 1000 + "T",
    "float_many": "[1e300 for i in range(100000)]",
    "abs": 'abs("x")',
    "round": "round(1e300)",
    "slice": "range(100000)[::-1][:-1][10 ** 30:]",
    "slice_zero": "[1, 2][::0]",
    "index": "[1][10 ** 40]",
    "item_none": "none[0]",
    "contains": "[i in range(100000) for i in range(100000)]",
    "equal": "[range(100000) == range(100000) for i in range(100000)]",
    "joined": "[range(100000) + [i] for i in range(100000)]",
    "string_contains": '[("a" * 50000 + "b") in ("a" * 100000) for i in range(10000)]',
    "starts": '[starts_with("a" * 100000, "a" * 100000) for i in range(100000)]',
    "zip": "[zip(range(100000), range(100000)) for i in range(10000)]",
    "max": "[max(range(100000)) for i in range(10000)]",
    "records": "[R(1, i) for i in range(1000000)]",
    "all": "[all([true] * 100000) for i in range(10000)]",
    "len": '[len("a" * 100000) for i in range(100000)]',
    "nan": "1e308 * 10 - 1e308 * 10",
    "nan_float": "exp(709) * exp(709) - exp(709) * exp(709)",
    "infinity": "exp(709) * exp(709)",
    "floor_infinity": "floor(exp(709) * exp(709))",
    "fraction_infinity": "float(exp(709) * exp(709))",
    "int_infinity": "int(exp(709) * exp(709))",
    "modulo_zero": "5 % 0",
    "floor_zero": "5 // 0",
    "divide_zero": "1 / 0",
    "divide_zero_float": "exp(1) / 0",
    "modulo_infinity": "exp(1) % (exp(709) * exp(709) - exp(709) * exp(709))",
    "compare_infinity": "exp(709) * exp(709) > 10 ** 1000",
    "add_infinity": "exp(709) * exp(709) + 10 ** 1000",
    "mixed_wide": "exp(1) * 10 ** 1000",
    "mixed_wide_add": "10 ** 1000 + exp(1)",
    "mixed_floor": "10 ** 1000 // exp(1)",
}.items():
    case(f"value_{what}", model(f"v = {value}\nreturn x * len([v])", before="record R { a: int, b: int }"))
    if what.startswith(("nan", "infinity", "int_literal", "show", "float_w", "float_l", "str_wide", "tower", "power", "linspace", "strings")):
        case(f"used_{what}", model(f'v = {value}\nparam w: [8] = constant(v)\nrequire v == 1, "v is {{v}}"\nreturn x * v * w'))
        case(f"sized_{what}", model(f"v = {value}\nreturn x |> Linear(v) as a |> Linear(8) as b"))
        case(f"typed_{what}", model("return x |> Linear(v) as a |> Linear(8) as b", f"v: int = {value}"))
case("value_interpolated", model('s = "x" * 100000\nrequire 1 == 2, "' + "{s}" * 10000 + '"\nreturn x'))
case("value_interpolated_nested", model('s = "{s}"\nrequire 1 == 2, "' + "{" * 10000 + "s" + "}" * 10000 + '"\nreturn x'))
case("value_interpolated_expression", model('require 1 == 2, "{[[0 for i in range(1000)] for j in range(1000)]}"\nreturn x'))
case(
    "value_address",
    model(
        "return x |> Linear(8) as " + ".".join("a" for _ in range(50000)),
    ),
)
case("value_long_name", model(f"return x |> Linear(8) as {'a' * 1000000}"))
