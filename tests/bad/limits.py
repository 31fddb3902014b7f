"""Each limit and each fault of a value by itself: what a spec may take is counted wherever it is made."""

from __future__ import annotations

from tests.bad.cases import MANY, case, model, steps

SIZES = "(x: [B, T, 8]) -> y: [B, T, 8]"
NUMBER = "A0221"

# ---------------------------------------------------------------- sizes
case("limit_floors_inside", model(steps("n = T", "n = floordiv(n * B + 1, 3)", "require n >= 0\nreturn x", 100), header=SIZES), MANY)
case("limit_coefficient", model("n = T * 2 ** 4000\nn = n * 2 ** 200\nrequire n >= 0\nreturn x", header=SIZES), MANY)
case(
    "limit_power_of_a_replaced_size",
    model(
        "return A()(concat([x, y], axis = 0))",
        header="(x: [B, 8], y: [T, 8]) -> z: [_, 8]",
        before="block A()(x: [N, 8]) -> [N, 8] { require N ** 3000 >= 1\n return x }",
    ),
    MANY,
)
case(
    "limit_terms_of_replaced_sizes",
    model(
        "return A()(concat([x, y, z], axis = 0))",
        header="(x: [B, 8], y: [T, 8], z: [S, 8]) -> r: [_, 8]",
        before="block A()(x: [N, 8]) -> [N, 8] { require " + " + ".join(f"N ** {i}" for i in range(1, 100)) + " >= 1\n return x }",
    ),
)
case(
    "limit_conditions_of_and",
    model("c = (T + 2) % 2 == 0\n" + "\n".join(f"c = c and (T + {i}) % {i} == 0" for i in range(3, 700)) + "\nrequire c\nreturn x", header=SIZES),
    MANY,
)
case("limit_the_same_condition", model("c = T % 2 == 0\n" + "c = c and T % 2 == 0\n" * 2_000 + "require c\nreturn x", header=SIZES))

# ---------------------------------------------------------------- numbers and lists
for what, value in {
    "linspace": "linspace(float(1) / 3 ** 2000, 1, 100000)",
    "fractions": "sum([float(1) / (2 * i + 1) for i in range(5000)])",
    "divisors": "divisors(10 ** 30)",
    "repeat": "repeat(0, 200001)",
    "range": "range(200001)",
    "ramp": "ramp(0, 1, [10 ** 9])",
    "product": "2 ** 4000 * 2 ** 200",
    "power": "3 ** 5000",
    "string": '"ab" * 100001',
}.items():
    case(f"limit_{what}", model(f"v = {value}\nreturn x * len([v])"), MANY)
for what, value in {
    "smallest_of_none": "min([])",
    "largest_of_none": "max([])",
    "negative_length": "ramp(0, 1, [-1])",
    "digits": 'int("\u0967\u0968")',
    "huge_digits": f'int("{"9" * 2000}")',
    "root": "sqrt(-1)",
    "by_zero": "1 / (2 - 2)",
    "size_by_zero": "8 % 0",
}.items():
    case(f"number_{what}", model(f"v = {value}\nreturn x * len([v])"), NUMBER, "A0204")
case("number_beyond_floats", model("param w: [8] = normal(std = float(10 ** 400) / 3)\nreturn x * w"), NUMBER)
case("number_beyond_floats_beside_initialisers", model("param w: [8] = normal() * (float(10 ** 400) / 3)\nreturn x * w"), NUMBER)
case("number_beyond_floats_in_a_message", model('v = float(10 ** 400) / 3\nrequire 1 == 2, "{v}"\nreturn x'), "A0310")

# ---------------------------------------------------------------- what would be computed twice, and twice, and …
for what, body in {
    "not": "return not f{}(n)",
    "and": "return true and f{}(n)",
    "or": "return false or f{}(n)",
    "if": "return if f{}(n) {{ true }} else {{ false }}",
}.items():
    functions = "fn f0(n: int) -> bool { return n > 3 }\n" + "\n".join(f"fn f{i + 1}(n: int) -> bool {{ {body.format(i)} }}" for i in range(50))
    case(f"doubling_conditions_{what}", model("require f50(4)\nreturn x", before=functions))

# ---------------------------------------------------------------- many mistakes
case("faults_of_claims", model("return x", after="claim {\n" + "\n".join(f"nothing{i} == 3" for i in range(5_000)) + "\n}"), "A0403")
case("faults_of_variants", model("return x", "n: int = 3", after="\n".join(f'variant v{i} {{ n = "a" }}' for i in range(2_000))), "A0204")
case(
    "faults_of_names",
    model("return Linear(8)(x) as a", after="names hf of M {\n" + "\n".join(f'"b{i}" <-> nothing{i}.weight' for i in range(2_000)) + "\n}"),
)
case("faults_of_spaces", model("return x", after="space s of M {\n" + "\n".join(f"nothing{i} <= 3" for i in range(5_000)) + "\n}"))
case("faults_of_a_body", model("\n".join(f"y{i} = relu(nothing{i})" for i in range(5_000)) + "\nreturn x"), "A0201")
case("faults_of_shapes", model("\n".join(f"y{i} = x + ones_like(x)[:, :{1 + i % 7}]" for i in range(2_000)) + "\nreturn x"), "A0304")

# ---------------------------------------------------------------- long and flat
case("long_documentation", "/// a line\n" * 60_000 + model("return x"))
case("long_weights_and_names", model("\n".join(f"v{i} = {i}\nparam w{i}: [8] = normal(std = v{i} + 1)" for i in range(2_000)) + "\nreturn x"))
case("long_calls", model("return x + " + " + ".join(f"max([{', '.join(map(str, range(40)))}], [1])" for i in range(100))))
case(
    "long_literals",
    model("\n".join(f"v{i} = {i}" for i in range(2_000)) + "\nf = block(y) => y + 1\n" + "\n".join("x = f(x)" for i in range(1_000)) + "\nreturn x"),
)
case("phase_of_a_number", model("return x * phase { train => 1 eval => 2 }"), "A0227")
case("phase_of_a_block", model("f = phase { train => relu eval => relu }\nreturn f(x)"), "A0227")
case("phase_of_values_outside", model("return " + "phase { train => x eval => " * 30 + "x" + " }" * 30))
