"""A test kit for passes, ours and other people's: random hybrid models, and what has to hold of a pass on each of them.

```
from archdsl.passes.testing import check_pass

def test_my_pass():
    check_pass("my_pass(rate = 0.5)", seeds=range(30))
```
On each model the pass either fits or refuses. Fitting: the input is left as it was, the same step gives the same graph again, the graph prints as a
spec of the same hash, the contract holds with numbers, and a second application changes nothing more. Refusing: with a reason, at a place in the
text, the input left as it was.
"""
from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from archdsl.diagnostics.model import ArchError
from archdsl.passes.check import compare, random_weights
from archdsl.passes.context import Given
from archdsl.passes.manager import rewrite
from archdsl.passes.model import Model
from archdsl.passes.step import Step
from archdsl.records import field, record
from archdsl.spec import Spec, loads

USES = """use std.channel { MLP, SwiGLU }
use std.embed { LearnedPositions, TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { BatchNorm, LayerNorm, RMSNorm }
use std.residual { LayerScale, Peri, Post, Pre, Residual }
use std.vision { Conv }

"""
NORMS = ("LayerNorm()", "LayerNorm()", "LayerNorm(bias = false)", "LayerNorm(affine = false)", "RMSNorm()")


# ---------------------------------------------------------------- random hybrids
def hybrid(seed: int) -> str:
    """The text of a small random model: tokens, vectors or images in; pre-, post- and peri-norm layers of several kinds, gains of branches, dropout,
    shared blocks, tied heads, expressions of weights, emitted values."""
    r = random.Random(seed)
    return USES + (_image if r.random() < 0.3 else _sequence)(r)


def _sequence(r: random.Random) -> str:
    d = r.choice((6, 8, 12))
    tokens = r.random() < 0.4
    uniform = r.choice(NORMS[:4]) if r.random() < 0.6 else None
    lines = [f"share embed = TokenEmbedding(11, {d})", "x = embed(tokens)"] if tokens else [f"x = Linear({d})(x) as start"] * (r.random() < 0.5)
    if tokens and r.random() < 0.5:
        lines.append("x = x |> LearnedPositions(16) as positions" + " |> dropout(0.2)" * (r.random() < 0.3))
    for i in range(r.randint(1, 3)):
        loop = f"layers{i}: for i in range({r.randint(1, 3)})"
        inside = [_layer(r, j, d, uniform) for j in range(r.randint(1, 2))]
        inside += ["emit hidden = x"] * (r.random() < 0.1)
        lines.append(loop + " {\n    " + "\n    ".join(inside) + "\n  }")
    if r.random() < 0.15:
        lines += [f"param {name}: [{d}, {d}] = normal(std = 0.3)" for name in ("base", "slope")] + ["x = x + linear(x, base + 0.5 * slope)"]
    if r.random() < 0.8:
        lines.append(f"x = x |> {uniform or r.choice(NORMS)} as norm")
    lines.append("return linear(x, embed.weight)" if tokens and r.random() < 0.5 else "return Linear(5)(x) as head")
    given = "tokens: int[B = 2, T = 5] in 0..<11" if tokens else f"x: [B = 2, T = 5, {d}]"
    return f"model Hybrid()({given}) -> y: [B, T, _] {{\n  " + "\n  ".join(lines) + "\n}\n"


def _layer(r: random.Random, at: int, d: int, uniform: str | None) -> str:
    norm = uniform or r.choice(NORMS)
    drop = r.choice(("0", "0", "0.1"))
    body = r.choice((f"Attention(2, bias = {r.choice(('true', 'false'))})", f"MLP({2 * d}, drop = {drop})", f"SwiGLU({d})", f"Linear({d}) as f"))
    wrap = r.choice(("Pre", "Pre", "Pre", "LayerScale", "Peri", "Post")) if uniform is None else r.choice(("Pre", "Pre", "LayerScale"))
    if uniform is None and r.random() < 0.1:
        return f"x = Residual({body})(x) as part{at}"
    return f"x = {wrap}({norm}, {body}{', scale = 0.5' if wrap == 'LayerScale' else ''})(x) as part{at}"


def _image(r: random.Random) -> str:
    c = r.choice((4, 6))
    lines = [f"x = image |> Conv({c}, 3, stride = 2, pad = 1, bias = {r.choice(('true', 'false'))}) as stem |> BatchNorm() as stem_norm |> relu"]
    for i in range(r.randint(1, 3)):
        kernel, groups = r.choice((1, 3)), r.choice((1, 2, c))
        conv = f"Conv({c}, {kernel}, pad = {kernel // 2}, groups = {groups}) as f"
        body = r.choice((f"BatchNorm() as norm |> {conv}", f"{conv} |> BatchNorm(affine = {r.choice(('true', 'false'))}) as norm",
                         f"relu |> BatchNorm() as norm |> {conv}", f"{conv} |> relu"))
        lines.append(f"stages{i}: for i in range({r.randint(1, 2)}) {{ x = x + (x |> {body}) }}")
    lines.append(f"return x |> reduce([B, c, Y, X] -> [B, c], mean) |> {r.choice(NORMS)} as norm |> Linear(3) as head")
    return "model Hybrid()(image: [B = 2, 3, H = 9, W = 7]) -> y: [B, 3] {\n  " + "\n  ".join(lines) + "\n}\n"


# ---------------------------------------------------------------- what has to hold
@record()
class Verdict:
    """On how many models a pass fitted and how many it refused, with the reasons."""

    fitted: int = 0
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def check_pass(step: Step | str, seeds: Iterable[int] = range(20), *, models: Iterable[str] = (), fits: int = 1, refuses: int = 0,
               idempotent: bool = True) -> Verdict:
    """Examines a step on random hybrids and on the `models` given as texts. `fits`, `refuses`: on how many at least. Raises AssertionError with the
    text of the model on which something does not hold."""
    step = Step.parse(step) if isinstance(step, str) else step
    verdict = Verdict()
    for name, text in [*((f"hybrid({s})", hybrid(s)) for s in seeds), *((f"model {i}", t) for i, t in enumerate(models))]:
        try:
            reason = examine(step, loads(text, "hybrid.arch"), idempotent=idempotent)
        except AssertionError as fault:
            raise AssertionError(f"{step} on {name}: {fault}\n\n{text}") from fault
        verdict.fitted += reason is None
        verdict.refused += reason is not None
        if reason is not None:
            verdict.reasons[reason] = verdict.reasons.get(reason, 0) + 1
    assert verdict.fitted >= fits, f"{step} fitted {verdict.fitted} models, at least {fits} were wanted: {verdict.reasons}"
    assert verdict.refused >= refuses, f"{step} refused {verdict.refused} models, at least {refuses} were wanted"
    return verdict


def examine(step: Step, spec: Spec, variant: str | None = None, *, idempotent: bool = True) -> str | None:
    """Examines a step on one model: None where it fits, else the reason of the refusal. Raises AssertionError for what does not hold."""
    import torch

    from archdsl.printer import print_graph

    made = spec.elaborate(variant)
    weights = random_weights(made)
    model = Model(made, weights, Model.start(spec, variant).names, dtype=torch.float64)
    before, text = made.graph.hash, print_graph(made)
    kept = {a: w.clone() for a, w in weights.items()}
    given = supplied(step, model)
    try:
        after = model.apply(step, given=given)
    except ArchError as fault:
        _untouched(made, before, text, weights, kept)
        return refusal(fault)
    _untouched(made, before, text, weights, kept)
    assert model.apply(step, given=given).graph.hash == after.graph.hash, "the same step gives another graph the second time"
    again = loads(print_graph(after.made), "graph.arch").elaborate()
    assert again.graph.hash == after.graph.hash, "the graph does not print as a spec of the same hash"
    assert set(after.weights) == {a for a, _ in after.graph.parameters()}, "weights and graph have other addresses"
    wrong = [f"{f}, {f.allowed:.2g} is allowed" for f in contract_of(model, after, step) if not f.holds]
    assert not wrong, "the contract does not hold:\n  " + "\n  ".join(wrong)
    if idempotent:
        try:
            twice = after.apply(step, given=given)
        except ArchError as fault:
            refusal(fault)
        else:
            assert twice.graph.hash == after.graph.hash, "a second application changes more"
    return None


def supplied(step: Step, model: Model) -> Given:
    """What the names behind `using` stand for: random samples, the model itself. Raises AssertionError for tables, which no one can guess."""
    from archdsl.inputs import sample_inputs

    made, kinds = model.made, list(zip(step.rule.using, step.using, strict=True))
    assert all(kind != "table" for kind, _ in kinds), f"`{step.name}` uses a table: apply it to models of your own"
    tensors = sample_inputs(made, made.example_sizes(small=True), seed=2, dtype=model.float_type)
    data = {i.name: x for i, x in zip(made.inputs, tensors)}
    return Given({n: data for kind, n in kinds if kind == "data"}, {n: model.build(form="parallel") for kind, n in kinds if kind == "model"})


def contract_of(before: Model, after: Model, step: Step) -> list[Any]:
    """Every comparison that the contract of a step asks for."""
    decisions = after.recipe[-1].decisions
    done = rewrite(before.made, step, decisions)
    assert done.contract is not None
    return list(compare(before, after, done, done.contract))


def refusal(fault: ArchError) -> str:
    """The reason of a refusal, which has to be one, with a place in the text."""
    (d,) = fault.diagnostics
    assert d.code in ("A0563", "A0564"), f"not a refusal: {fault}"
    assert d.span.source.text, f"a refusal names its place in the spec: {d.message}"
    return d.message


def _untouched(made: Any, before: str, text: str, weights: dict[str, Any], kept: dict[str, Any]) -> None:
    from archdsl.graph import structural_hash
    from archdsl.printer import print_graph

    assert structural_hash(made.graph) == before and print_graph(made) == text, "the step changed the graph that it was given"
    assert weights.keys() == kept.keys() and all(bool((weights[a] == w).all()) for a, w in kept.items()), "the step changed the weights it was given"
