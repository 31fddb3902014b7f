"""Every lifting rule is an identity, and every written rule is found."""
from __future__ import annotations

import pytest
import torch

from archdsl import shapes
from archdsl.capture import flat as flat_module
from archdsl.capture import hierarchy
from archdsl.capture.flat import Flat
from archdsl.capture.lifting import RULES
from archdsl.capture.patterns import Rule, _build, _call
from archdsl.dims import Facts
from archdsl.elaborate.closures import free_names
from archdsl.graph import TensorType, Value
from archdsl.lower import lower

WRITTEN = [r for r in RULES if isinstance(r, Rule)]
ALL = (("slice", None, None, None),) * 2
NUMBERS = {"low": (*ALL, ("slice", None, 3, None)), "high": (*ALL, ("slice", 3, None, None)),
           "eps": 0.25, "s": 0.37, "c": 1.7, "drop": 0.4, "axis": -1}
ATTENTION = {"q": (2, 3, 5, 4), "kt": (2, 3, 4, 7), "v": (2, 3, 7, 6), "b": (3, 5, 7)}
ROWS = {"cosine": (3, 6), "sine": (1, 3, 6), "x": (2, 3, 6), "w": (6,), "b": (6,)}
LINEAR = {"x": (2, 3, 6), "w": (7, 6), "b": (7,)}


def shapes_of(rule: Rule) -> dict[str, tuple[int, ...]]:
    return ATTENTION if rule.name == "attention" else LINEAR if rule.name == "Linear" else ROWS


def program(rule: Rule, expression, monkeypatch, lifting: bool):
    """The outputs of an expression of the rule for random values, and the op that it ends in."""
    if not lifting:
        monkeypatch.setattr(flat_module, "lifted", lambda flat, node: None)
    with shapes.use_facts(Facts()):
        flat = Flat(Facts())
        binds, inputs = {}, []
        for name in free_names(rule._pattern):
            if name in NUMBERS:
                binds[name] = NUMBERS[name]
            elif name in shapes_of(rule):
                value = Value(flat.put("input", (), {"name": name}, (TensorType("float", shapes_of(rule)[name]),)))
                binds[name] = value
                inputs.append(value)
        value = _build(expression, flat, binds)
        graph = hierarchy.build(flat, "Net", tuple(inputs), (value,), (None,))
    monkeypatch.undo()
    g = torch.Generator().manual_seed(3)
    tensors = [torch.randn(shapes_of(rule)[v.node.attrs["name"]], generator=g, dtype=torch.float64) for v in inputs]
    if "sqrt" in rule.pattern and "mean" not in rule.pattern and "var" not in rule.pattern or "**" in rule.pattern and "tanh" not in rule.pattern:
        tensors = [t.abs() + 0.1 for t in tensors]
    return lower(graph, dtype=torch.float64).eval()(*tensors), value.node.op


@pytest.mark.parametrize("rule", WRITTEN, ids=[f"{r.name}: {r.pattern}" for r in WRITTEN])
def test_pattern_and_result_are_equal(rule, monkeypatch):
    wanted, _ = program(rule, rule._pattern, monkeypatch, lifting=False)
    found, _ = program(rule, rule._result, monkeypatch, lifting=False)
    assert wanted.shape == found.shape and wanted.abs().max() > 0.01
    assert (wanted - found).abs().max() <= 1e-12 * max(1, wanted.abs().max().item()) * (1e4 if "0.79" in rule.pattern else 1)


@pytest.mark.parametrize("rule", WRITTEN, ids=[f"{r.name}: {r.pattern}" for r in WRITTEN])
def test_the_pattern_is_found(rule, monkeypatch):
    """Code written like the pattern ends in the op of the result (or in what that is lifted to further)."""
    from archdsl.syntax import tree

    _, op = program(rule, rule._pattern, monkeypatch, lifting=True)
    if isinstance(rule._result, tree.Name):
        assert op == "input"
    else:
        assert op in {_call(rule._result)[0], "hardswish"}


@pytest.mark.parametrize(("halves", "found"), [((3, 3), 1), ((2, 4), 0)])
def test_rotary_positions_turn_halves(halves, found):
    """`rotate_half` is lifted where the parts are the halves of the last axis and in that order, and never otherwise."""
    class Turn(torch.nn.Module):
        def forward(self, x, angle):
            a, b = x[..., : halves[0]], x[..., halves[0] :]
            return x * angle.cos() + torch.cat((-b, a), -1) * angle.sin()

    class Other(Turn):
        def forward(self, x, angle):
            a, b = x[..., : halves[0]], x[..., halves[0] :]
            return x * angle.cos() + torch.cat((b, -a), -1) * angle.sin()

    import archdsl

    example = torch.randn(2, 5, 6), torch.randn(5, 6)
    for module, expected in ((Turn(), found), (Other(), 0)):
        captured = archdsl.capture(module, example)
        assert captured.lifts.get("RoPE", 0) == expected and ("rotary(" in captured.text) == bool(expected)
        assert torch.allclose(captured.build()(*example), module(*example), atol=1e-6)
