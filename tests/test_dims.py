"""Sizes against direct evaluation: hypothesis builds expressions as trees, `value` computes them with Python's ints."""
from __future__ import annotations

import ast
import copy
import os
import pickle
import subprocess
import sys
from fractions import Fraction
from functools import reduce
from itertools import product as cartesian
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from archdsl import dims
from archdsl.dims import Dim, Facts, NotInteger, Size, sym
from archdsl.dims.poly import scale

NAMES: tuple[str, ...] = ("H", "T", "W")
H, T, W = map(sym, NAMES)
S, B = sym("S"), sym("B")
_CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
quick = settings(max_examples=80, suppress_health_check=_CHECKS)

# ---------------------------------------------------------------- expressions as trees
leaves = st.sampled_from(NAMES) | st.integers(-9, 12)
divisors = st.integers(1, 8) | st.sampled_from(["P", "P + 1"])  # P: always positive


def _more(inner: st.SearchStrategy) -> st.SearchStrategy:
    return (
        st.tuples(st.sampled_from("+-*"), inner, inner)
        | st.tuples(st.sampled_from(["//", "%", "ceil"]), inner, st.integers(1, 8))
        | st.tuples(st.sampled_from(["//", "ceil"]), inner, st.sampled_from(["H", "T"]))
        | st.tuples(st.sampled_from(["min", "max"]), inner, inner)
        | st.tuples(st.just("**"), inner, st.integers(0, 3))
    )


trees = st.recursive(leaves, _more, max_leaves=7)
linear = st.tuples(st.integers(-5, 6), st.integers(-3, 6), st.integers(-9, 9)).map(
    lambda c: ("+", ("+", ("*", c[0], "H"), ("*", c[1], "W")), c[2])
)


def _more_floors(inner: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(st.sampled_from(["//", "%", "ceil"]), inner, st.integers(2, 6)) | st.tuples(st.sampled_from("+-"), inner, inner)


floors = st.recursive(linear | st.sampled_from(["H", "W"]), _more_floors, max_leaves=4)
points = st.fixed_dictionaries({n: st.integers(1, 40) for n in NAMES})


def build(tree: Any) -> Size:
    if isinstance(tree, str):
        return sym(tree)
    if isinstance(tree, int):
        return tree
    op, *rest = tree
    a, b = map(build, rest)
    if op == "**":
        return a**b  # type: ignore[operator]
    if op in ("min", "max"):
        return (dims.minimum if op == "min" else dims.maximum)(a, b)
    functions = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "//": lambda: a // b, "%": lambda: a % b,
                 "ceil": lambda: dims.ceildiv(a, b)}
    return functions[op]()


def value(tree: Any, at: dict[str, int]) -> int:
    if isinstance(tree, str):
        return at[tree]
    if isinstance(tree, int):
        return tree
    op, *rest = tree
    a, b = (value(r, at) for r in rest)
    functions = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "**": lambda: a**b, "//": lambda: a // b, "%": lambda: a % b,
                 "ceil": lambda: -(-a // b), "min": lambda: min(a, b), "max": lambda: max(a, b)}
    return functions[op]()


# ---------------------------------------------------------------- normal form
@quick
@given(trees, points)
def test_the_normal_form_has_the_value_of_the_expression(tree, at):
    assert dims.evaluate(build(tree), at) == value(tree, at)


@quick
@given(floors, points)
def test_floors_of_floors_have_the_value_of_the_expression(tree, at):
    assert dims.evaluate(build(tree), at) == value(tree, at)


@quick
@given(trees, points)
def test_bounds_hold(tree, at):
    from archdsl.dims.floors import bounds

    low, high = bounds(build(tree))
    v = value(tree, at)
    assert low is None or low <= v
    assert high is None or v <= high


def parse(text: str) -> Size:
    """A little evaluator of the printed text; `/` is exact division, which printed sizes claim."""

    def go(node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            return sym(node.id)
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.UnaryOp):
            return -go(node.operand)
        if isinstance(node, ast.Call):
            named = {"floordiv": dims.floordiv, "ceildiv": dims.ceildiv, "mod": dims.mod, "min": dims.minimum, "max": dims.maximum}
            return named[node.func.id](*map(go, node.args))  # type: ignore[attr-defined]
        assert isinstance(node, ast.BinOp), ast.dump(node)
        a, b = go(node.left), go(node.right)
        if isinstance(node.op, ast.Div):
            return scale(a, Fraction(1, b))
        return {ast.Add: lambda: a + b, ast.Sub: lambda: a - b, ast.Mult: lambda: a * b, ast.Pow: lambda: a**b}[type(node.op)]()

    return go(ast.parse(text, mode="eval").body)


@quick
@given(trees)
def test_what_is_printed_parses_back(tree):
    size = build(tree)
    assert parse(str(size)) is size or parse(str(size)) == size


@quick
@given(floors, st.sampled_from([2, 4, 6, 12]), st.sampled_from([1, 3]))
def test_what_is_printed_under_facts_parses_back(tree, m, k):
    facts = Facts()
    facts.require_divides(H, m)
    facts.require_divides(W - 1, k)
    size = facts.normal(build(tree))
    assert facts.normal(parse(str(size))) == size
    assert parse(str(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (3 * H * W, "3*H*W"),
        (W * 4096 * H, "4096*H*W"),
        (H // 4 * (W // 4), "floordiv(H, 4)*floordiv(W, 4)"),
        (H // 4 // 2, "floordiv(H, 8)"),
        ((H - 4) // 4 + 1, "floordiv(H, 4)"),
        ((4 * H + 3) // 4, "H"),
        (dims.ceildiv(H, 2), "ceildiv(H, 2)"),
        (-dims.floordiv(-H, 4), "ceildiv(H, 4)"),
        (H % 4, "H - 4*floordiv(H, 4)"),
        (1 - T, "1 - T"),
        (-T - 1, "-T - 1"),
        (H**2 + 2 * H + 1, "H**2 + 2*H + 1"),
        (T * (T + 1) // 2, "(T**2 + T)/2"),
        (H * W // W, "H"),
        ((H + 1) * (W + 2) // (W + 2), "H + 1"),
        (H * W // (2 * W), "floordiv(H, 2)"),
        (H // W // 2, "floordiv(H, 2*W)"),
        (dims.minimum(T, 512, T + 3), "min(T, 512)"),
        (dims.maximum(T * 4, 4096), "4*max(T, 1024)"),
        (dims.minimum(H + T, H + W), "H + min(T, W)"),
        (dims.maximum(T, 1), "T"),
        ((W - 1) // W, "0"),
        (dims.product([H, 2, W, 3]), "6*H*W"),
    ],
)
def test_texts(size, text):
    assert str(size) == text


def test_constants_are_ints():
    assert type(H - H) is int
    assert type(0 * H) is int
    assert type((H + 3) - H) is int
    assert type(H**0) is int
    assert type(dims.minimum(H, 1)) is int
    assert dims.floordiv(7, 2) == 3
    assert dims.ceildiv(7, 2) == 4
    assert dims.mod(-7, 4) == 1
    assert dims.maximum(3, 9, 2) == 9


def test_one_object_per_normal_form():
    assert (H + W) * (H - W) is H * H - W * W
    assert dims.minimum(H, W) is dims.minimum(W, H, H)
    for size in (H, 3 * H * W + 1, H // 4, dims.minimum(H // 2, W) * T, T * (T + 1) // 2):
        assert copy.deepcopy(size) is size
        assert copy.copy(size) is size
        assert pickle.loads(pickle.dumps(size)) is size
        assert dims.key(size) == str(size)
        assert hash(size) == hash(pickle.loads(pickle.dumps(size)))
    assert copy.deepcopy({"a": [H // 4]}) == {"a": [H // 4]}
    assert H != 1
    assert H != W


def test_another_process_writes_the_same_text_and_its_pickle_is_the_same_object():
    code = """
import pickle, sys
from archdsl.dims import key, minimum, sym
W, junk, H = sym("W"), [sym(f"x{i}") * i for i in range(2, 99)], sym("H")
size = (minimum(W, H // 2) + W // 3) * (W + H)
sys.stdout.buffer.write(pickle.dumps((size, key(size))))
"""
    for seed in ("1", "2"):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        size, text = pickle.loads(run.stdout)
        assert size is (W // 3 + dims.minimum(H // 2, W)) * (W + H)
        assert text == dims.key(size)


def test_nothing_grows_without_limit():
    with pytest.raises(OverflowError, match="exponent 65"):
        _ = H**65
    with pytest.raises(OverflowError):
        _ = (H + W + T + S) ** 40
    with pytest.raises(OverflowError):
        dims.product([H + sym(f"x{i}") for i in range(12)])
    with pytest.raises(OverflowError):
        reduce(lambda x, _: x * x, range(40), 3 * H)
    with pytest.raises(OverflowError):
        reduce(lambda x, _: x * x, range(40), H)
    with pytest.raises(OverflowError):
        reduce(lambda x, i: dims.maximum(x * W, T + i) if i % 2 else dims.minimum(x + W, S * i + 1), range(500), H)
    assert str(10**30 * H) == f"{10**30}*H"


def test_hostile_sizes_are_answered_in_time():
    facts = Facts()
    big = 10**30
    assert facts.equal(H // big * big, H) is False
    assert facts.suggest(H // big * big, H) == f"H == {big}*floordiv(H, {big})"
    assert facts.equal(dims.minimum(T, big), T) is False
    many = [sym(f"x{i}") for i in range(40)]
    total = sum((x // (i + 2) * (i + 2) for i, x in enumerate(many)), H)
    assert facts.equal(total * W, sum(many, H) * W) is False
    assert facts.positive(total - 10**6) is False
    assert facts.positive(dims.maximum(*[x * (50 - i) for i, x in enumerate(many)])) is True
    wide = sum((x * y for x in many[:16] for y in many[16:]), H)
    assert dims.symbols(wide // 7 * 7 - wide) == dims.symbols(wide)
    assert facts.equal(wide // 7 * 7, wide) in (False, None)
    assert facts.suggest(wide // 7 * 7, wide) is not None


def test_faults():
    with pytest.raises(ZeroDivisionError):
        _ = H // 0
    with pytest.raises(ZeroDivisionError):
        _ = H % 0
    with pytest.raises(KeyError, match="W"):
        dims.evaluate(H + W, {"H": 1})
    with pytest.raises(ValueError, match="power"):
        _ = H**-1
    with pytest.raises(TypeError):
        2**H  # type: ignore[operator]
    with pytest.raises(TypeError):
        H + 0.5  # type: ignore[operator]
    with pytest.raises(NotInteger):
        dims.evaluate(scale(H, Fraction(1, 4)), {"H": 7})


def test_queries():
    size = 3 * H * W**2 + dims.minimum(T // 2, S) - 1
    assert dims.symbols(size) == {"H", "W", "T", "S"}
    assert [a.text for a in dims.atoms(size)] == ["H", "W", "min(S, floordiv(T, 2))"]
    assert [(c, [(a.text, p) for a, p in m]) for c, m in dims.terms(3 * H * W**2 - 1)] == [(3, [("H", 1), ("W", 2)]), (-1, [])]
    assert dims.terms(5) == [(5, ())]
    assert dims.terms(0) == []
    assert dims.symbols(4) == frozenset()
    assert dims.is_exact(T * (T + 1) // 2)
    assert dims.is_exact(7)
    assert not dims.is_exact(scale(H, Fraction(1, 2)))


@quick
@given(trees, trees, points)
def test_substitution(tree, other, at):
    into, size = build(other), build(tree)
    replaced = value(other, at)
    assume(replaced >= 1)
    assert dims.evaluate(dims.substitute(size, {"T": into}), at) == value(tree, {**at, "T": replaced})


def test_substitution_is_simultaneous():
    assert dims.substitute(H - W, {"H": W, "W": H}) is W - H
    assert dims.substitute(H // 4, {"H": 4 * T + 1}) is T
    assert dims.substitute(H // 4, {"H": 9}) == 2


def test_exact_division():
    assert dims.exact_div(12, 4) == 3
    assert dims.exact_div(12, 5) is None
    assert dims.exact_div(H * H - W * W, H + W) is H - W
    assert dims.exact_div(6 * H, 4) is None
    assert dims.exact_div(H, 0) is None
    assert dims.exact_div(H, W) is None
    assert dims.exact_div(T * (T + 1), 2) is T * (T + 1) // 2


# ---------------------------------------------------------------- facts
@st.composite
def worlds(draw: Any) -> tuple[Facts, list]:
    """Facts, and the same as conditions on values."""
    facts, checks = Facts(), []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["divides", "divides", "equal", "at_least", "at_most"]))
        tree = draw(st.sampled_from(["H", "W", "T", ("*", "H", "W"), ("min", "H", "T"), ("+", "H", "W"), ("//", "H", 3)]) | floors)
        if kind == "divides":
            k = draw(st.integers(2, 6))
            verdict = facts.require_divides(build(tree), k)
            check = (lambda at, tree=tree, k=k: value(tree, at) % k == 0)
        elif kind == "equal":
            other = draw(st.sampled_from(["H", "W", "T", ("*", 2, "T"), ("//", "T", 2), ("+", "W", 1), 12, ("*", "T", "W")]))
            verdict = facts.require_equal(build(tree), build(other))
            check = (lambda at, tree=tree, other=other: value(tree, at) == value(other, at))
        else:
            other = draw(st.integers(1, 20) | st.sampled_from(["W", "T"]))
            pair = (tree, other) if kind == "at_least" else (other, tree)
            verdict = facts.require_at_least(build(pair[0]), build(pair[1]))
            check = (lambda at, pair=pair: value(pair[0], at) >= value(pair[1], at))
        checks.append((check, verdict))
    return facts, checks


RANGE = list(cartesian(range(1, 15), repeat=3))


def allowed(checks: list) -> list[dict[str, int]]:
    """All small values that satisfy the facts that were taken up; a refused fact must hold nowhere among them."""
    out = [dict(zip(NAMES, p, strict=True)) for p in RANGE]
    for check, verdict in checks:
        good = [at for at in out if check(at)]
        if verdict is True:
            assert good == out, "a fact called known is not"
        if verdict is False:
            assert not good, "a fact called a contradiction can hold"
        else:
            out = good
    return out


# no shrinking: it would take minutes where a call takes milliseconds
slow = settings(max_examples=40, suppress_health_check=_CHECKS, phases=(Phase.explicit, Phase.reuse, Phase.generate))


@slow
@given(worlds(), floors | trees)
def test_normal_keeps_the_value_wherever_the_facts_hold(world, tree):
    facts, checks = world
    inside = allowed(checks)
    size = facts.normal(build(tree))
    for at in inside[:: 1 + len(inside) // 60]:
        assert dims.evaluate(size, at) == value(tree, at)
        assert facts.holds(at)


@slow
@given(worlds(), floors | trees, floors | trees)
def test_equality_is_never_wrong(world, one, two):
    facts, checks = world
    inside = allowed(checks)
    a, b = build(one), build(two)
    verdict = facts.equal(a, b)
    if verdict is True:
        assert all(value(one, at) == value(two, at) for at in inside)
        assert facts.counterexample(a, b) is None
        return
    witness = facts.counterexample(a, b)
    if inside and verdict is False and dims.symbols(a) | dims.symbols(b):
        assert witness is not None
    if witness is not None:
        at = {"H": 1, "T": 1, "W": 1, **witness}
        assert set(witness) == dims.symbols(a) | dims.symbols(b)
        assert value(one, at) != value(two, at)
        if set(witness) == set(NAMES):
            assert all(check(at) for check, verdict in checks if verdict is not False)


@slow
@given(worlds(), floors)
def test_a_tree_equals_what_it_is_rewritten_to(world, tree):
    facts, checks = world
    allowed(checks)
    size = build(tree)
    assert facts.equal(size, facts.normal(size)) is not False
    if not (facts.rules or facts.divides):  # congruences and bounds alone lead to one normal form
        assert facts.equal(size, facts.normal(size)) is True
        assert facts.normal(facts.normal(size)) == facts.normal(size)


@slow
@given(worlds(), floors | trees)
def test_signs_are_never_wrong(world, tree):
    facts, checks = world
    inside = allowed(checks)
    verdict = facts.positive(build(tree))
    if verdict is True:
        assert all(value(tree, at) >= 1 for at in inside)


@slow
@given(worlds(), floors, st.integers(2, 6) | st.sampled_from(["H", "W", ("*", 2, "H")]))
def test_division_under_facts(world, tree, by):
    facts, checks = world
    inside = allowed(checks)
    size = facts.divide(build(tree), build(by))
    if size is not None:
        for at in inside[:: 1 + len(inside) // 60]:
            assert dims.evaluate(size, at) * value(by, at) == value(tree, at)


@slow
@given(floors, floors)
def test_a_suggestion_makes_them_equal(one, two):
    facts = Facts()
    a, b = build(one), build(two)
    text = facts.suggest(a, b)
    if text is None:
        return
    for at in (dict(zip(NAMES, p, strict=True)) for p in RANGE[::7]):
        names = {"floordiv": lambda x, y: x // y, "ceildiv": lambda x, y: -(-x // y), "min": min, "max": max}
        if eval(text, {**names, **at}):
            assert value(one, at) == value(two, at), text


def test_floors_become_quotients():
    facts = Facts()
    assert facts.require_divides(H, 32) is None
    assert facts.require_divides(H, 8) is True
    quarter = facts.normal(H // 4)
    assert str(quarter) == "H/4"
    assert quarter * 4 is H
    assert facts.exact(quarter)
    assert not dims.is_exact(quarter)
    assert str(facts.normal(dims.floordiv(quarter - 1, 2))) == "H/8 - 1"
    assert str(facts.normal(dims.ceildiv(H, 64))) == "ceildiv(H, 64)"
    assert facts.normal(H // 64) is H // 64
    assert facts.equal(dims.conv_out(H, 7, 2, 3), quarter * 2) is True
    assert facts.equal(H // 64 * 64, H) is False
    assert facts.counterexample(H // 64 * 64, H) == {"H": 96}
    assert facts.suggest(H // 64 * 64, H) == "H % 64 == 0"
    assert facts.divide(H * W, 16) == facts.normal(H // 16) * W
    assert facts.divide(H, 64) is None
    other = facts.copy()
    assert other.require_divides(W, 3) is None
    assert facts.divide(W, 3) is None
    assert facts.require_divides(H + 1, 2) is False


def test_divisibility_of_sums_and_products():
    facts = Facts()
    facts.require_divides(H * W, 4)
    assert str(facts.normal(H * W // 4)) == "H*W/4"
    assert facts.divide(3 * H * W, 4) == scale(H * W, Fraction(3, 4))
    facts.require_divides(T + S, 2)
    assert facts.divide(T + S, 2) is not None
    assert facts.divide(T, 2) is None
    assert facts.equal((T + S) // 2 * 2, T + S) is True
    assert facts.equal((T + S + 1) // 2 * 2, T + S) is True
    nested = Facts()
    nested.require_divides(H // 4, 7)
    assert nested.divide(H // 4, 7) is H // 28
    assert nested.equal(H // 28 * 7, H // 4) is True
    by_symbol = Facts()
    by_symbol.require_divides(H, W)
    assert by_symbol.equal(H // W * W, H) is True
    assert by_symbol.divide(H, W) is H // W


def test_equations_are_solved():
    facts = Facts()
    assert facts.require_equal(T, S) is None
    assert facts.require_equal(S, T) is True
    assert facts.normal(3 * T) is 3 * S
    assert facts.require_equal(S, T + 1) is False
    assert facts.require_equal(H // 4, 7) is None
    assert facts.normal(H // 4 * W) is 7 * W
    assert facts.equal(H // 8, 3) is True
    sides = Facts()
    assert sides.require_equal(H, 224) is None
    assert sides.normal(H // 16) == 14
    assert sides.require_divides(H, 5) is False
    assert sides.require_divides(H, 32) is True
    assert sides.counterexample(H, W) == {"H": 224, "W": 1}
    twice = Facts()
    assert twice.require_equal(2 * H, 3 * W) is None
    assert twice.equal(H // 3 * 3, H) is True
    assert twice.equal(W % 2, 0) is True
    odd = Facts()
    assert odd.require_equal(2 * H, 4 * W + 1) is False
    cells = Facts()
    cells.require_equal(3 * H * W * S, 588 * S)
    assert cells.normal(H * W * T) is 196 * T
    shifted = Facts()
    shifted.require_divides(T, 8)
    shifted.require_equal(T, S + 3)
    assert shifted.equal((S + 3) // 8 * 8, T) is True
    assert shifted.positive(S - 4) is True


def test_an_equation_with_floors_that_is_a_divisibility_becomes_one():
    facts = Facts()
    assert facts.require_equal(H % 6, 1) is None
    assert facts.congruences == {"H": (6, 5)}
    assert facts.normal((H + 5) // 6 * 6) is H + 5
    assert facts.require_equal(H % 6, 7) is False
    assert facts.require_equal(H % 3, 0) is False
    both = Facts()
    assert both.require_equal(H // 4 * (W // 4) * 16, H * W) is None
    assert both.congruences == {"H": (4, 0), "W": (4, 0)}
    assert both.require_equal(T % (10**12), 5) is None
    assert both.divide(T - 5, 10**12) is not None
    assert Facts().require_equal(H // 4 * 4, H + 1) is False
    assert Facts().require_equal(H // 2 * 4, 2 * H - 1) is False


def test_a_u_net_needs_what_its_skips_say():
    facts = Facts()
    skips, size = [], H
    for _ in range(4):
        skips.append(size)
        size = dims.conv_out(size, 2, 2)
    for skip in reversed(skips):
        up = dims.conv_transpose_out(size, 2, 2)
        if facts.equal(up, skip) is not True:
            assert facts.counterexample(up, skip) is not None
            assert facts.require_equal(up, skip) is None
        size = skip
    assert facts.congruences == {"H": (16, 0)}
    assert not facts.rules


def test_windows_over_padded_maps():
    facts = Facts()
    facts.require_divides(H, 32)
    quarter = facts.normal(dims.conv_out(H, 4, 4))
    padded = facts.normal(quarter + (-quarter) % 7)
    assert str(padded) == "7*ceildiv(H, 28)"
    assert facts.divide(B * padded, 7) is B * dims.ceildiv(H, 28)
    assert Facts().divide(T + (-T) % 64, 64) is dims.ceildiv(T, 64)


def test_bounds_are_known():
    facts = Facts()
    assert facts.require_at_least(H, 32) is None
    assert facts.positive(dims.floordiv(H, 32)) is True
    assert facts.positive(H // 64) is False
    assert facts.normal(dims.maximum(H, 8)) is H
    assert facts.require_at_least(H, 7) is True
    assert facts.require_at_least(20, H) is False
    facts.require_at_least(T, S)
    assert facts.positive(T - S + 1) is True
    assert facts.positive(2 * T - S) is True
    assert facts.positive(S - T) is False
    assert facts.normal(dims.maximum(T, S)) is T
    assert facts.equal(dims.minimum(T, S) + T, S + T) is True
    assert dims.maximum(H, H * W) is H * W
    facts.require_at_least(32, H)
    assert facts.normal(H) == 32
    deep = Facts()
    deep.require_at_least(H // 4, 2)
    assert deep.positive(H - 7) is True
    plain = Facts()
    assert plain.positive(H) is True
    assert plain.positive(H - H // 2) is True
    assert plain.positive(H - H // 2 * 2) is False
    assert plain.positive(dims.ceildiv(H, 32)) is True
    assert plain.positive(dims.minimum(H, W + 3)) is True
    assert plain.at_least(H, H // 3 * 3) is True
    assert plain.at_least(H * W, H) is True


def test_minima_of_one_symbol_are_decided():
    facts = Facts()
    assert facts.equal(dims.minimum(T + 1, 512) - 1, dims.minimum(T, 511)) is True
    assert facts.equal(dims.minimum(T, 8) + dims.maximum(T, 8), T + 8) is True
    assert facts.equal(dims.minimum(2 * T, T + 3) - T, dims.minimum(T, 3)) is True
    assert facts.equal(dims.maximum(T - 2, 0) + dims.minimum(T, 2), T) is True
    assert facts.equal(dims.minimum(dims.maximum(T, 4), 3), 3) is True
    assert facts.equal(dims.minimum(T, 700), T) is False
    assert facts.counterexample(dims.minimum(T, 700), T) == {"T": 701}
    assert facts.equal(W * dims.minimum(T, 3), W * T) is False
    assert facts.require_at_least(64, T) is None
    assert facts.equal(dims.minimum(T, 700), T) is True


def test_suggestions():
    facts = Facts()
    assert facts.suggest(T, S) == "T == S"
    assert facts.suggest(S, T) == "S == T"
    assert facts.suggest(8 * T * W, 8 * S * W) == "T == S"
    assert facts.suggest(H, 224) == "H == 224"
    assert facts.suggest(224, H) == "H == 224"
    assert facts.suggest(H, H // 32 * 32) == "H % 32 == 0"
    assert facts.suggest(H * W, H // 4 * (W // 2) * 8) == "H % 4 == 0 and W % 2 == 0"
    assert facts.suggest(H, H // 2 * 2 + 1) == "H % 2 == 1"
    assert facts.suggest(T, T + 1) is None
    assert facts.suggest(T + S + 1, 1) is None
    assert facts.suggest(H // 4, S) == "S == floordiv(H, 4)"
    assert facts.suggest(H // 32 // 7 * (W // 32 // 7) * 224**2, H * W) == "H % 224 == 0 and W % 224 == 0"
    known = Facts()
    known.require_divides(H, 4)
    assert known.suggest(dims.conv_out(H // 4, 2, 2) * 8, H) == "H % 8 == 0"


# ---------------------------------------------------------------- windows
def test_windows_are_exact_for_symbols():
    for kernel, stride, pad, dilation in cartesian((1, 2, 3, 7), (1, 2, 4), (0, 1, 3), (1, 2)):
        size = dims.conv_out(H, kernel, stride, pad, dilation)
        for h in range(1, 30):
            assert dims.evaluate(size, {"H": h}) == dims.conv_out(h, kernel, stride, pad, dilation)
        if 2 * pad <= kernel:
            for ceil_mode in (False, True):
                size = dims.pool_out(H, kernel, stride, pad, ceil_mode, dilation)
                for h in range(1, 30):
                    assert dims.evaluate(size, {"H": h}) == dims.pool_out(h, kernel, stride, pad, ceil_mode, dilation)
    assert dims.conv_out(H, 4, 4) is H // 4
    assert dims.conv_out(H, 3, 2, 1) is dims.ceildiv(H, 2)
    assert dims.conv_out(H, 3, 1, (2, 0)) is H
    assert dims.conv_transpose_out(H, 4, 2, 1) is 2 * H


def test_windows_are_those_of_torch():
    torch = pytest.importorskip("torch")
    tried = 0
    for size, kernel, stride, pad, dilation in cartesian((1, 2, 5, 6, 7, 12, 13), (1, 2, 3, 5), (1, 2, 3, 4), (0, 1, 2), (1, 2)):
        x = torch.empty(1, 1, size, device="meta")
        shown = dims.conv_out(size, kernel, stride, pad, dilation)
        if size + 2 * pad >= dilation * (kernel - 1) + 1:
            assert torch.conv1d(x, torch.empty(1, 1, kernel, device="meta"), None, stride, pad, dilation).shape[-1] == shown
        extra = min(1, stride - 1)
        up: Any = dims.conv_transpose_out(size, kernel, stride, pad, dilation, extra)
        if up >= 1:
            assert torch.conv_transpose1d(x, torch.empty(1, 1, kernel, device="meta"), None, stride, pad, extra, 1, dilation).shape[-1] == up
        for ceil_mode in (False, True):
            out: Any = dims.pool_out(size, kernel, stride, pad, ceil_mode, dilation)
            if 2 * pad <= kernel and out >= 1:
                plane = torch.zeros(1, 1, size, size)
                real = torch.nn.functional.max_pool2d(plane, kernel, stride, pad, dilation, ceil_mode).shape[-1]
                assert real == out, (size, kernel, stride, pad, dilation, ceil_mode)
                tried += 1
    assert tried > 500


def test_the_front_end_needs_no_torch():
    code = "import sys, archdsl.dims; assert 'torch' not in sys.modules and 'sympy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dims_are_sizes():
    assert isinstance(H, Dim)
    assert not isinstance(H - H, Dim)
