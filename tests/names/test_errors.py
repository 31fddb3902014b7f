"""What is said about names that do not fit, and where."""
from __future__ import annotations

import pytest

import archdsl
from tests.names.test_maps import ATTENTION, GAMMA, WEIGHTS, names

BIAS = '"h.{i}.{q, k, v}.bias" <-> layers.{i}.attn.{q, k, v}.bias'
ALL = '"h.{i}.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.*'
MATRIX = WEIGHTS + GAMMA % "x = Own(12, 4)(x) as own"


def faults(text: str) -> list[archdsl.Diagnostic]:
    try:
        archdsl.loads(text)
    except archdsl.ArchError as fault:
        return fault.diagnostics
    return []


CASES = {
    # the line, the code, what the mark covers, a part of the message
    "brace": ('"h.{i" <-> layers.{i}.attn.q.weight', "A0437", '"h.{i"', "a brace"),
    "empty place": ('"h.{i,}" <-> layers.{i}.attn.q.weight', "A0437", '"h.{i,}"', "an empty place"),
    "empty": ('"" <-> layers.{i}.attn.q.weight', "A0437", '""', "empty"),
    "bad expression": ('"h.{i +}" <-> layers.{i}.attn.q.weight', "A0101", '"h.{i +}"', "`{i +}`"),
    "negative": ('"h.{i - 5}.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.*', "A0437", '"h.{i - 5}.{q, k, v}.*"', "is -5"),
    "unknown argument": ('"h.{i * heads}.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.*', "A0435", '"h.{i * heads}.{q, k, v}.*"',
                         "nothing tells what `heads` is"),
    "unknown arguments": ('"h.{i + d + c + b + a}.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.*', "A0435", '"h.{i + d + c + b + a}.{q, k, v}.*"',
                          "nothing tells what `a` is"),
    "unknown in a condition": (ALL + " when heads > 1", "A0201", "heads", "not in scope"),
    "condition is no bool": (ALL + " when d", "A0222", "d", "must be a bool"),
    "one-sided list": ('"h.{i}.w.*" <-> layers.{i}.attn.{q, k, v}.*', "A0435", "layers.{i}.attn.{q, k, v}.*", "stands on one side only"),
    "one-sided index": ('"h.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.*', "A0435", "layers.{i}.attn.{q, k, v}.*", "`{i}` stands on one side only"),
    "foreign index": ('"h.{i}.{j}.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.*', "A0435", '"h.{i}.{j}.{q, k, v}.*"', "`{j}` stands on one side only"),
    "indices of two names": ('"h.{j}.{q, k, v}.*" <-> layers.{i}.attn.{q, k, v}.*', "A0435", '"h.{j}.{q, k, v}.*"', "`{i}` and `{j}` do not pair"),
    "lengths": ('"h.{i}.{q, k}.*" <-> layers.{i}.attn.{q, k, v}.*', "A0435", '"h.{i}.{q, k}.*"', "do not pair"),
    "wildcards": ('"h.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.*', "A0435", "layers.{i}.attn.{q, k, v}.*", "the same text on both sides"),
    "deep wildcard": ('"**.h.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.*', "A0435", '"**.h.{i}.{q, k, v}"', "ignored"),
    "ambiguous": ('"h.{i}.{a, b, c}" <-> layers.{i}.{q, k, v}.{x, y, z} concat', "A0435", '"h.{i}.{a, b, c}"', "cannot be told"),
    "two unknown indices": ('"h.{i}.{j}" <-> layers.{i + j}.attn.q.weight', "A0435", "layers.{i + j}.attn.q.weight", "cannot both be found"),
    "nothing to join": (ALL + " concat", "A0435", "concat", "has nothing to join"),
    "twice": ('"h.{q, k, v}.{i - i}.*" <-> layers.{i}.attn.{q, k, v}.*', "A0434", '"h.{q, k, v}.{i - i}.*"', "mapped twice by one line"),
    "unknown operation": (ALL + " concatenate", "A0436", "concatenate", "is no operation"),
    "reduce": (ALL + " reduce([a, b] -> [a], mean)", "A0436", "reduce([a, b] -> [a], mean)", "cannot be undone"),
    "lossy rearrange": ('"w.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight rearrange([o, c] -> [o])', "A0308", "rearrange([o, c] -> [o])",
                        "on the left only"),
    "broadcast": ('"w.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight rearrange([o, c] -> [o, c, two], two = 2)', "A0436",
                  "rearrange([o, c] -> [o, c, two], two = 2)",
                  "makes [8, 8, 2] of [8, 8]"),
    "rank": ('"w.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight rearrange([o] -> [o, 1])', "A0308", "rearrange([o] -> [o, 1])", "does not fit"),
    "size of an argument": ('"w.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight rearrange([d, c] -> [c, d])', "A0308",
                            "rearrange([d, c] -> [c, d])", "does not fit"),
    "transpose of a vector": (BIAS + " transpose", "A0436", "transpose", "needs two axes"),
    "one axis": (BIAS + " transpose(0)", "A0436", "transpose(0)", "two axes, or none"),
    "axis": ('"w.{i}" <-> layers.{i}.attn.{q, k, v}.weight concat(axis = 2)', "A0436", "concat(axis = 2)", "no axis 2"),
    "plain argument": ('"w.{i}" <-> layers.{i}.attn.{q, k, v}.weight concat(1)', "A0436", "concat(1)", "takes no plain argument"),
    "named argument": ('"w.{i}" <-> layers.{i}.attn.{q, k, v}.weight stack(dim = 1)', "A0436", "dim = 1", "has no argument `dim`"),
    "sizes of a join": ('"w.{i}" <-> layers.{i}.attn.{q, k, v}.weight concat(sizes = [8, 4, 4])', "A0436", "concat(sizes = [8, 4, 4])",
                        "the sizes are known"),
    "shapes to join": ('"w.{i}" <-> layers.{i}.attn.{q, k, v}.weight concat(axis = 1)', "A0436", "concat(axis = 1)", "cannot be joined along axis 1"),
    "shapes to stack": ('"w.{i}" <-> layers.{i}.attn.{q, k, v}.weight stack', "A0436", "stack", "cannot be stacked"),
    "zero": (BIAS + " scale(0)", "A0436", "scale(0)", "cannot be undone"),
    "no number": (BIAS + ' add("1")', "A0436", '"1"', "takes a number"),
    "alias of a list": ('alias "w.{i}" <-> layers.{i}.attn.{q, k, v}.weight', "A0435", "layers.{i}.attn.{q, k, v}.weight", "stands on one side only"),
    "dropped to no number": ('drop "layers.{i}.attn.q.bias" = [1]', "A0436", "[1]", "is a number"),
    "wildcards to ignore": ('ignore "**a**b**c**d"', "A0437", '"**a**b**c**d"', "too many"),
    "typing mistake": ('"h.{i}.{q, k, v}.*" <-> layers.{i}.atn.{q, k, v}.*', "A0432", "atn", "no weight has an address like"),
    "typing mistake in a list": ('"h.{i}.{q, k, v}.*" <-> layers.{i}.attn.{q, k, vv}.*', "A0432", "vv",
                                 "no weight has `vv`"),
}


def test_a_star_is_one_segment():
    for line, wanted in (('"h.{i}.*" <-> layers.{i}.attn.*', "layers.{i}.attn.*.*"), ('"h.*" <-> layers.*', "layers.*.*.*.*")):
        found = [d for d in faults(ATTENTION + names(line)) if d.code == "A0432"]
        assert found and found[0].help[0].startswith(f"`*` is one segment: `{wanted}` has weights such as `layers.0.attn."), found


@pytest.mark.parametrize(("line", "code", "marked", "said"), CASES.values(), ids=CASES)
def test_a_line_that_does_not_fit(line, code, marked, said):
    found = [d for d in faults(ATTENTION + names(line)) if d.code == code]
    assert found, [str(archdsl.ArchError(d)) for d in faults(ATTENTION + names(line))]
    assert found[0].span.text == marked
    assert said in found[0].message


SPLITS = {
    "unequal": ('"{a, b, c, d, e}" <-> own.w concat', "does not fall into 5 equal parts"),
    "sum": ('"{a, b}" <-> own.w concat(sizes = [6, 5])', "cannot be split into 6 + 5"),
    "number of sizes": ('"{a, b}" <-> own.w concat(sizes = [6, 3, 3])', "holds 2 whole numbers"),
    "index without a count": ('"x.{e}" <-> own.w concat', "how many parts there are"),
    "list of another length": ('"{a, b}" <-> own.w stack', "no axis 0 of 2"),
}


@pytest.mark.parametrize(("line", "said"), SPLITS.values(), ids=SPLITS)
def test_a_split_that_does_not_fit(line, said):
    (found,) = faults(MATRIX + names(line))
    assert found.code in ("A0435", "A0436") and said in found.message


def test_several_faults_in_one_run_each_once():
    text = ATTENTION + "variant deep { depth = 3 }\nvariant wide { d = 16 }\n" + names('"a.{i}" <-> layers.{i}.attn.q.bias transpose',
                                                                                       '"b.{j}" <-> layers.{i}.attn.k.bias')
    assert [d.code for d in faults(text)] == ["A0436", "A0435"]


def test_a_fault_of_one_variant_says_so():
    text = ATTENTION + "variant odd { plain = [1] }\n" + names('"w.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight',
                                                               '"b" <-> layers.{i}.attn.{q, k, v}.bias concat stack')
    assert faults(text) == []
    text = ATTENTION + "variant thin { d = 10 }\n" + names(
        BIAS, '"h.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight rearrange([(n two), c] -> [(two n), c], two = 4)')
    (found,) = faults(text)
    assert "in the variant `thin`" in found.notes and "for `layers.0.attn.q.weight`" in found.notes


def test_weights_that_no_line_maps_are_counted_by_kind():
    (found,) = faults(ATTENTION + names('"h.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight',
                                        '"h.0.{q, k, v}.bias" <-> layers.0.attn.{q, k, v}.bias'))
    assert found.code == "A0433" and found.span.text == "names n of Net" and "3 weights" in found.message
    assert found.notes == ("layers.1.attn.q.bias\nlayers.1.attn.k.bias\nlayers.1.attn.v.bias",)


def test_an_incomplete_list_is_not_joined():
    text = ATTENTION.replace("k = x |> Linear(d / 2) as k", "k = x |> Linear(d / 2, bias = false) as k")
    found = faults(text + names('"h.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight', '"h.{i}.bias" <-> layers.{i}.attn.{q, k, v}.bias concat'))
    assert [d.code for d in found] == ["A0435"] and "`k` of `{q, k, v}` is missing beside `layers.0.attn.q.bias`" in found[0].message


def test_two_lines_for_one_key_show_both():
    (found,) = faults(ATTENTION + names(ALL, 'alias "h.{i}.q.bias" <-> layers.{i}.attn.q.bias'))
    assert found.code == "A0434" and found.span.text == '"h.{i}.q.bias"' and found.labels[0].span.text == '"h.{i}.{q, k, v}.*"'
    (found,) = faults(ATTENTION + names(ALL, 'drop "layers.{i}.attn.q.bias" = 0'))
    assert found.code == "A0434" and found.labels[0].span.text == "layers.{i}.attn.{q, k, v}.*"


def test_a_line_that_fits_in_one_variant_only_is_fine():
    text = ATTENTION.replace("bias: bool = true, plain", "bias: bool = false, plain") + "variant biased { bias = true }\n"
    lines = '"h.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight', '"h.{i}.{q, k, v}.bias" <-> layers.{i}.attn.{q, k, v}.bias'
    assert faults(text + names(*lines)) == []
    assert [d.code for d in faults(text.replace("variant biased { bias = true }\n", "") + names(*lines))] == ["A0432"]
    assert faults(text.replace("variant biased { bias = true }\n", "") + names(lines[0], lines[1] + " when bias")) == []


def test_a_line_that_never_holds_speaks_of_names_that_there_are():
    """Nothing tells its weights, but a name is written somewhere."""
    text = ATTENTION.replace("bias: bool = true, plain", "bias: bool = false, plain")
    lines = '"h.{i}.{q, k, v}" <-> layers.{i}.attn.{q, k, v}.weight', '"h.{i}.{q, k, v}.bias" <-> layers.{i}.attn.{q, k, v}.bias when bias'
    assert faults(text + names(*lines)) == []
    (found,) = faults(text + names(lines[0], lines[1].replace("attn", "attm")))
    assert found.code == "A0432" and found.span.text == "attm" and found.fixes[0].title == "replace by `attn`"
    (found,) = faults(text + names(lines[0], lines[1].replace("v}.bias when", "vv}.bias when")))
    assert found.code == "A0432" and found.span.text == "vv"


def test_near_addresses_are_proposed():
    found = [d for d in faults(ATTENTION + names('"h.{i}.{q, k, v}.*" <-> layers.{i}.atn.{q, k, v}.*')) if d.code == "A0432"]
    assert found[0].fixes[0].title == "replace by `attn`"
    found = [d for d in faults(ATTENTION + names('"h.{i}.{q, k, v}.*" <-> layers.{i}.{q, k, v}.*')) if d.code == "A0432"]
    assert "`layers.{i}.attn.q.weight`" in found[0].help[0]


def test_names_of_no_model_and_twice():
    found = faults(ATTENTION + names(ALL) + names(ALL) + names(ALL).replace("n of Net", "n of Ne"))
    assert [d.code for d in found] == ["A0438", "A0431"] and found[1].fixes[0].title == "replace by `Net`"


PAIR = ATTENTION + """
model Pair(d: int = 8)(x: [B, T, d]) -> [B, T, 3] {
  layers: for i in range(2) { x = Attn()(x) as attn }
  return x |> Linear(3) as head
}
variant wide of Pair { d = 16 }
"""


def shared(*lines: str) -> str:
    return PAIR + names(*lines).replace("n of Net", "n of Net, Pair")


def test_names_of_several_models():
    """A line may be about one of them only; of each, every weight is named."""
    assert faults(shared(ALL, '"out.*" <-> head.*')) == []
    (found,) = faults(shared(ALL))
    assert found.code == "A0433" and "2 weights of `Pair`" in found.message and found.notes[-1] == "in the model `Pair`"
    assert found.span.text == "names n of Net, Pair"
    found = faults(shared(ALL, '"out.*" <-> head.*', '"more.*" <-> heads.*'))
    assert [(d.code, d.span.text) for d in found] == [("A0432", "heads")]
    found = faults(shared(ALL, '"out" <-> head.weight', '"bias" <-> head.bias transpose'))
    assert found[0].code == "A0436" and found[0].notes[-1] == "in the model `Pair`"


def test_several_models_that_are_not_there_or_twice():
    both = shared(ALL, '"out.*" <-> head.*')
    assert [d.code for d in faults(both + names(ALL))] == ["A0438"]
    (found,) = faults(both.replace("of Net, Pair", "of Net, Pai"))
    assert found.code == "A0431" and found.fixes[0].title == "replace by `Pair`"
    (found,) = faults(both.replace("of Net, Pair", "of Pair, Net, Pair"))
    assert found.code == "A0438" and "are of `Pair` twice" in found.message


def test_keys_without_end_are_refused():
    """A spec from a stranger must not take the machine."""
    text = WEIGHTS + GAMMA % "x = Own(10_000_000_000_000, 4)(x) as own"
    (found,) = faults(text + names('"x.{e}" <-> own.w stack'))
    assert found.code == "A0602"
