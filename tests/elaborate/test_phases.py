"""What the arms of `phase` share with the body around them, and what cannot stand in them."""
from __future__ import annotations

import pytest
import torch

from archdsl.printer import print_graph
from archdsl.spec import loads
from tests.elaborate.helpers import USES, fault

AVERAGE = """
block Average()(x: [..., d]) -> [..., d] {
  buffer mean as running: [d] = zeros()
  update mean = 0.9 * mean + 0.1 * stop(reduce(x, [..., d] -> [d], mean))
  return x - mean
}
"""
EVEN = """
block Even()(x: [B, T, d]) -> [B, T, d] {
  require T % 2 == 0, "pad to an even length"
  return Linear(d)(x)
}
"""
OWN = """
extern block Own(width: int)(x: [..., d]) -> [..., d]
block Holder()(x: [..., d]) -> [..., d] { return Own(3)(x) as own }
"""


def text(body: str, declarations: str = "") -> str:
    return f"{USES}{declarations}\nmodel Net(d: int = 8)(x: [B = 2, T = 4, d]) -> y: [B, T, d] {{\n{body}\n}}\n"


@pytest.mark.parametrize(("declarations", "body"), [
    ("", "share f = MLP(12)\ny = phase { train => f(x) eval => x }\nreturn y + f(x)"),
    ("", "share f = MLP(12, drop = 0.1)\nshare g of f = MLP(12)\ny = phase { train => f(x) eval => g(x) }\nreturn y + g(x)"),
    ("", "share f = Linear(d)\nshare g = Linear(2 * d, bias = false)\nx = f(x)\n"
         "return phase { train => linear(g(x), rearrange(g.weight, [a, b] -> [b, a])) eval => x }"),
    ("", "share a = Linear(d)\nshare b = Linear(d)\nx = b(x)\ny = phase { train => a(x) eval => x }\nreturn y"),
    (EVEN, "share f = Even()\nreturn phase { train => f(x) eval => x }"),
    (EVEN, "share f = Even()\ny = phase { train => x eval => f(x) }\nreturn y + f(x)"),
])
def test_a_block_that_an_arm_applies_first_is_printed_there(declarations: str, body: str):
    """The printed graph is the same graph, with its weights in the same order and of the same values."""
    spec = loads(text(body, declarations), "net.arch")
    again = loads(print_graph(spec.elaborate()), "graph.arch")
    assert again.elaborate().graph.hash == spec.elaborate().graph.hash
    ours, theirs = spec.build(seed=2).state_dict(), again.build(seed=2).state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_what_a_block_in_an_arm_requires_holds_for_the_model():
    model = loads(text("share f = Even()\nreturn phase { train => f(x) eval => x }", EVEN)).build()
    with pytest.raises(ValueError, match="pad to an even length"):
        model(torch.zeros(1, 3, 8))


@pytest.mark.parametrize(("declarations", "body", "said"), [
    (AVERAGE, "share f = Average()\nreturn phase { train => f(x) eval => x }", "a buffer is updated in an arm of `phase`"),
    (AVERAGE, "return phase { train => Average()(x) eval => x }", "a buffer is updated in an arm of `phase`"),
    (AVERAGE, "layers: for i in range(2) { share f = Average() >> Linear(d)\nx = phase { train => x eval => f(x) } }\nreturn x",
     "a buffer is updated in an arm of `phase`"),
    (OWN, "return phase { train => Own(3)(x) eval => x }", "an extern block is applied in an arm of `phase`"),
    (OWN, "share f = Holder()\nreturn phase { train => f(x) eval => x }", "an extern block is applied in an arm of `phase`"),
])
def test_arms_neither_update_nor_hold_modules_of_others(declarations: str, body: str, said: str):
    found = fault(lambda: loads(text(body, declarations), "net.arch"))
    assert (found.code, found.message) == ("A0227", said) and found.help


def test_batch_norm_in_an_arm_keeps_its_statistics():
    body = "share norm = BatchNorm()\nz = x |> rearrange([B, T, d] -> [B, d, T])\ny = phase { train => norm(z) eval => z }\n" \
           "return y |> rearrange([B, d, T] -> [B, T, d])"
    model = loads(text(body)).build()
    x = torch.randn(3, 5, 8)
    model(x)
    torch.testing.assert_close(model.norm.running_mean, 0.1 * x.mean((0, 1)))
