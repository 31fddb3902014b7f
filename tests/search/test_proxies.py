"""Zero-cost proxies: each against its formula, written again in plain torch; which models they say something about; as an evaluator."""
from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, hessian, jacrev

import archdsl
from archdsl.cli.pages import find_page
from archdsl.diagnostics.model import ArchError
from archdsl.inputs import sample_inputs
from archdsl.search.evaluators.proxy import Proxies
from archdsl.search.proxies.needs import map_weights
from archdsl.search.proxies.probe import Probe
from archdsl.search.proxies.registry import PROXIES, proxy
from archdsl.study.session import Asked, Hands, search
from tests.reading import rows
from tests.search.test_trained import CONV, MQAR, TOKENS

SIZE = 6
SMALL = 700_000
NAMES = list(PROXIES.own())


def probe(text: str, size: int = SIZE, **knobs: Any) -> Probe:
    """A candidate in float64 with random numbers in every parameter."""
    spec = archdsl.loads(text)
    made = spec.elaborate(None, knobs)
    values = dict(spec.build(dtype=torch.float64, **knobs).named_parameters())
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in values.values():
            p.copy_((p.dim() == 1) + 0.4 * torch.randn(p.shape, generator=draw, dtype=torch.float64))

    def built(dtype: Any) -> Any:
        model = spec.build(dtype=torch.float64, **knobs)
        model.load_state_dict(values, strict=False)
        return model

    sizes = {**made.example_sizes(), "B": size}
    return Probe(made, built, lambda i: (sample_inputs(made, sizes, seed=i, dtype=torch.float64), None), size)


class Twin:
    """`CONV` as formulas: weights by address, `norm` for its batch norms."""

    def __init__(self, net: Probe) -> None:
        self.p = {a: v.detach().clone() for a, v in net.model.named_parameters()}
        self.maps = [a for a, v in self.p.items() if v.dim() > 1]
        for i in range(3):
            net.targets(i)  # drawn now, not inside of a transformation

    def __call__(self, p: dict[str, Any], x: Any, norm: bool = True, added: Any = None, seen: list[Any] | None = None) -> Any:
        h = x
        for i in (0, 1):
            w = p[f"stages.{i}.unit.w"]
            h = F.conv2d(h, w, stride=2, padding=w.shape[-1] // 2)
            h = h if added is None else h + added[i]
            if seen is not None:
                seen.append(h)
            if norm:
                mean, var = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), keepdim=True, correction=0)
                gain, bias = (p[f"stages.{i}.unit.norm.{n}"][:, None, None] for n in ("weight", "bias"))
                h = (h - mean) / (var + 1e-5).sqrt() * gain + bias
            h = h.clamp(min=0)
            if seen is not None:
                seen.append(h)
        y = h.mean((2, 3)) @ p["head.weight"].T + p["head.bias"]
        return y if added is None else y + added[2]

    def loss(self, p: dict[str, Any], net: Probe, i: int = 0, added: Any = None) -> Any:
        scores = self({**self.p, **p}, net.inputs(i)[0], added=added)
        return -(scores.log_softmax(-1) * torch.eye(scores.shape[-1])[net.targets(i)]).sum(-1).mean()

    def slopes(self, net: Probe, i: int = 0) -> dict[str, Any]:
        return torch.func.grad(lambda p: self.loss(p, net, i))({a: self.p[a] for a in self.maps})


@pytest.fixture(scope="module")
def net() -> Probe:
    return probe(CONV)


@pytest.fixture(scope="module")
def twin(net: Probe) -> Twin:
    found = Twin(net)
    torch.testing.assert_close(found(found.p, net.inputs()[0]), net.scores(), rtol=1e-12, atol=1e-12)
    return found


def value(name: str, net: Probe, **options: Any) -> float:
    return PROXIES[name].body(net, **options).item()


def near(x: Any) -> Any:
    return pytest.approx(x if isinstance(x, float) else x.item(), rel=1e-9)


# ---------------------------------------------------------------- formulas
def test_of_weights_and_gradients(net: Probe, twin: Twin):
    g = twin.slopes(net)
    assert map_weights(net.made) == twin.maps
    assert value("l2_norm", net) == near(sum(twin.p[a].square().sum().sqrt() for a in g))
    assert value("grad_norm", net) == near(sum(g[a].square().sum().sqrt() for a in g))
    assert value("plain", net) == near(sum((twin.p[a] * g[a]).sum() for a in g))
    assert value("snip", net) == near(sum((twin.p[a] * g[a]).abs().sum() for a in g))


def test_snip_is_the_slope_by_masks(net: Probe, twin: Twin):
    """The definition: how the loss changes with a factor at each weight, at 1."""
    ones = {a: torch.ones_like(twin.p[a]) for a in twin.maps}
    found = torch.func.grad(lambda c: twin.loss({a: c[a] * twin.p[a] for a in c}, net))(ones)
    assert value("snip", net) == near(sum(v.abs().sum() for v in found.values()))


def test_grasp(net: Probe, twin: Twin):
    """With the Hessian written out."""
    sizes = [twin.p[a].numel() for a in twin.maps]

    def loss(flat: Any) -> Any:
        return twin.loss({a: part.view_as(twin.p[a]) for a, part in zip(twin.maps, flat.split(sizes))}, net)

    flat = torch.cat([twin.p[a].flatten() for a in twin.maps])
    g = torch.func.grad(loss)(flat)
    assert value("grasp", net) == pytest.approx(-(flat * (hessian(loss)(flat) @ g)).sum().item(), rel=1e-6)


def test_fisher(net: Probe, twin: Twin):
    """By what is added to each map's result, channel by channel: a ∂L/∂a is the slope by a factor."""
    shapes = [(net.size, 8, 4, 4), (net.size, 8, 2, 2), (net.size, 10)]
    g = torch.func.grad(lambda added: twin.loss({}, net, added=added))([torch.zeros(s, dtype=torch.float64) for s in shapes])
    seen: list[Any] = []
    y = twin(twin.p, net.inputs()[0], seen=seen)
    total = 0.0
    for a, d in zip((seen[0], seen[2], y), g):
        each = (a * d).flatten(2).sum(2) if a.dim() > 2 else a * d
        total += sum(0.5 * (each[:, c] ** 2).mean() for c in range(each.shape[1]))
    assert value("fisher", net) == near(total)


def test_zico(net: Probe, twin: Twin):
    g = [twin.slopes(net, i) for i in range(3)]
    total = 0.0
    for a in twin.maps:
        size = torch.stack([abs(one[a]) for one in g]).flatten(1).T
        total += math.log(sum(float(x.mean() / ((x - x.mean()) ** 2).mean().sqrt()) for x in size))
    assert value("zico", net, batches=3) == near(total)


def test_synflow(net: Probe, twin: Twin):
    p = {a: v.abs() for a, v in twin.p.items()}
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    g = torch.func.grad(lambda q: twin({**p, **q}, x, norm=False).sum())({a: p[a] for a in twin.maps})
    each = [float((p[a] * g[a]).sum()) for a in twin.maps]
    assert value("synflow", net) == near(sum(each))


def test_synflow_is_conserved():
    """Theorem 1 of the paper: without biases, each layer has the same sum, which is R."""
    chain = "model M(h: int = 5)(x: [B = 1, 3]) -> y: [B, 4] { return x |> Linear(h, bias = false) as a |> relu |> Linear(4, bias = false) as b }"
    net = probe("use std.linear { Linear }\n" + chain)
    a, b = (w.detach().abs() for w in net.weights)
    assert value("synflow", net) == near(2 * (b @ (a @ torch.ones(3, dtype=torch.float64))).sum())


def test_naswot(net: Probe, twin: Twin):
    """N − Hamming distance, pair by pair."""
    seen: list[Any] = []
    twin(twin.p, net.inputs()[0], seen=seen)
    codes = torch.cat([(h > 0).flatten(1) for h in seen[1::2]], 1)
    kernel = torch.tensor([[float((a == b).sum()) for a in codes] for b in codes], dtype=torch.float64)
    assert value("naswot", net) == near(torch.linalg.det(kernel).abs().log())


def test_zen(net: Probe, twin: Twin):
    """Its draws are those of one generator: weights in order, then both inputs."""
    draw = torch.Generator().manual_seed(0)
    normal = lambda like: torch.randn(like.shape, generator=draw).double()
    p = {a: normal(v) if v.dim() > 1 else v for a, v in twin.p.items()}
    p["head.bias"] = torch.zeros(10, dtype=torch.float64)
    x = normal(net.inputs()[0])
    at, beside = [], []
    twin(p, x, seen=at)
    twin(p, x + 0.2 * normal(x), seen=beside)
    bend = sum((a - b).square().sum().sqrt() for a, b in zip(at[3], beside[3])) / net.size
    scales = sum(0.5 * math.log(float(h.var((0, 2, 3), correction=0).mean())) for h in at[::2])
    assert value("zen", net, alpha=0.2) == near(math.log(bend) + scales)


def test_of_jacobians(net: Probe, twin: Twin):
    slopes = torch.func.grad(lambda x: twin(twin.p, x).sum())(net.inputs()[0]).flatten(1)
    correlations = torch.corrcoef(slopes)
    values = torch.linalg.eigvals(correlations).real + 1e-5
    assert value("jacob_cov", net) == near(-(values.log() + 1 / values).sum())
    targets = net.targets()
    classes = [torch.atleast_2d(torch.corrcoef(slopes[targets == c])) for c in targets.unique()]
    assert max(map(len, classes)) > 1, "no class has two examples"
    assert value("epe_nas", net) == near(sum(abs(float((c.abs() + 1e-5).log().sum())) for c in classes))


def test_epe_nas_of_many_classes():
    net = probe(CONV.replace("[B, 10]", "[B, 120]").replace("Linear(10)", "Linear(120)"))
    net._targets[0] = torch.tensor([3, 3, 7, 7, 7, 90])
    twin = Twin(net)
    slopes = torch.func.grad(lambda x: twin(twin.p, x).sum())(net.inputs()[0]).flatten(1)
    found = []
    for c in (3, 7, 90):
        rows = slopes[net.targets() == c]
        found.append(float((torch.atleast_2d(torch.corrcoef(rows)).abs() + 1e-5).log().sum()) / len(rows))
    assert value("epe_nas", net) == near(sum(abs(a - b) for a in found for b in found) / 3)
    net._targets[0] = torch.arange(6)
    with pytest.raises(ValueError, match="no class has two of the 6 examples"):
        value("epe_nas", net)


def test_ntk(net: Probe, twin: Twin):
    jacobian = jacrev(lambda p: twin(p, net.inputs()[0]).sum(1))(twin.p)
    rows = torch.cat([j.flatten(1) for j in jacobian.values()], 1)
    singular = torch.linalg.svdvals(rows)
    assert value("ntk", net) == pytest.approx(min(float(singular[0] / singular[-1]) ** 2, 2**23), rel=1e-6)


def test_of_tokens():
    """Of a model with attention: the twin is the model itself as a function of its weights, and of the rows that tokens are looked up as."""
    net = probe(TOKENS)
    tokens, held = net.inputs()[0], {a: v.detach() for a, v in net.model.named_parameters()}
    maps = [a for a, v in held.items() if v.dim() > 1 and not a.startswith("embed")]
    assert map_weights(net.made) == maps

    def loss(p: Any) -> Any:
        scores = functional_call(net.model, {**held, **p}, (tokens,))
        return -scores.log_softmax(-1).gather(-1, net.targets()[..., None]).mean()

    g = torch.func.grad(loss)({a: held[a] for a in maps})
    assert value("snip", net) == near(sum((held[a] * g[a]).abs().sum() for a in maps))
    table = held["embed.weight"]
    every = torch.func.grad(lambda rows: functional_call(net.model, {**held, "embed.weight": rows.flatten(0, 1)},
                                                         (torch.arange(tokens.numel()).view_as(tokens),)).sum())(table[tokens])
    torch.testing.assert_close(net.sensitivity(), every.flatten(1), rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- what they need
SCALED = """use std.linear { Linear }
model M(d: int = 4)(x: [B = 2, d]) -> y: [B, d] { param gain: [d] = ones()  return gelu(x) * gain }
"""


@pytest.mark.parametrize(("name", "text", "why"), [
    ("snip", SCALED, "no weights of linear maps"), ("naswot", TOKENS, "none of them"), ("naswot", SCALED, "smooth ones, like gelu"),
    ("zen", TOKENS, "batch norms"), ("epe_nas", TOKENS, "one class for each example"), ("zen", CONV.replace("mean(x", "max(x"), "before their mean"),
    ("jacob_cov", "model M(n: int = 3)(x: int[B = 2, n] in 0..4) -> y: [B, n] { return cast(x, \"float\") }", "looked up"),
    ("grad_norm", "use std.linear { Linear }\nmodel M(d: int = 4)(x: [B = 2, d]) -> y: [B, 1] { return Linear(1)(x) as f }", "two scores"),
])
def test_says_nothing(name: str, text: str, why: str):
    made = archdsl.loads(text).elaborate()
    assert why in (PROXIES[name].unfit(made) or "")
    assert (PROXIES[name].unfit(archdsl.loads(CONV).elaborate()) or "") == ""


@pytest.mark.parametrize("name", NAMES)
def test_page(name: str):
    page, rule = find_page(name), PROXIES[name]
    assert f"proxy {rule.signature}" in page["text"] and re.search(r"\d{4}\.\d{5}", rule.source) and "is better" in page["text"]
    assert {p.name for p in rule.params} <= set(re.findall(r"`(\w+)`", rule.doc))


@pytest.mark.proof
@pytest.mark.parametrize(("path", "name"), [(row["path"], row["name"]) for row in rows()], ids=lambda v: v.rsplit("/", 1)[-1])
def test_on_shipped_specs(path: str, name: str):
    """The smallest variant of each model: finite, or told why not; the same again."""
    spec = archdsl.load(path).models[name]
    params, variant = min((spec.cost(v).params, v or "") for v in (None, *spec.variants))
    if params > SMALL:
        pytest.skip("no variant is small")
    asked = spec.elaborate(variant or None)
    sizes = {**asked.example_sizes(small=True)}
    first = asked.inputs[0].type.shape[0]
    sizes |= {} if isinstance(first, int) else {str(first): 4}

    def net() -> Probe:
        return Probe(asked, lambda dtype: spec.build(variant or None, 3, dtype=dtype), lambda i: (sample_inputs(asked, sizes, seed=i), None), 4)

    for rule in PROXIES.own().values():
        if rule.unfit(asked) is None and rule.name != "epe_nas":
            found = rule.body(net())
            assert found.isfinite() and found.equal(rule.body(net())), rule.name


# ---------------------------------------------------------------- as an evaluator
def made(text: str, **how: Any) -> Proxies:
    found = Proxies(**{"name": ", ".join(NAMES), "batch": 4, **how})
    found.setup(archdsl.loads(text).space(), ())
    return found


def test_all_of_them_at_once():
    evaluator = made(CONV, batch=12)
    space = evaluator.space
    a, b = space.sample(1), space.sample(2)
    found = evaluator(a, seed=3, fidelity=1.0)
    assert list(found) == [*NAMES, "params"] and all(map(math.isfinite, found.values()))
    assert found["params"] == sum(p.numel() for p in space.spec.build(**a).parameters())
    assert evaluator(a, seed=3, fidelity=0.5) == found != evaluator(a, seed=4, fidelity=1.0) and evaluator(b, seed=3, fidelity=1.0) != found
    single = Proxies("zico(batches = 2)", batch=12)
    single.setup(space, ())
    assert single(a, seed=3, fidelity=1.0)["zico"] == found["zico"], "a proxy depends on what else is asked"
    twice = made(CONV, name="snip, l2_norm", repeats=2)
    alone = made(CONV, name="snip, l2_norm")
    assert twice(a, seed=3, fidelity=1.0)["snip"] == pytest.approx(sum(alone(a, seed=s, fidelity=1.0)["snip"] for s in (3, 4)) / 2)


def test_on_the_data_of_a_task():
    evaluator = made(TOKENS, name="grad_norm", task=MQAR)
    c = evaluator.space.sample(0)
    model = evaluator.space.spec.build(seed=5, **c)
    task = evaluator.task
    assert task is not None
    task.objective(model, task.batch("train", 0, 4))[0].backward()
    expected = sum(float(p.grad.norm()) for a, p in model.named_parameters() if p.grad is not None and p.dim() > 1 and not a.startswith("embed"))
    assert evaluator(c, seed=5, fidelity=1.0)["grad_norm"] == pytest.approx(expected, rel=1e-5)


def test_dropout_and_statistics_are_left_out():
    text = CONV.replace("as norm)", "as norm |> dropout(0.5))")
    assert text != CONV
    spec = archdsl.loads(text)
    evaluator = Proxies("snip, naswot", batch=4)
    evaluator.setup(spec.space(), ())
    c = evaluator.space.sample(0)
    plain = made(CONV, name="snip, naswot")
    assert evaluator(c, seed=1, fidelity=1.0) == plain(plain.space.candidate(dict(c)), seed=1, fidelity=1.0)


@pytest.mark.parametrize(("how", "said"), [
    ({"name": "naswat"}, "A0842.*there is no proxy `naswat`"), ({"name": "snip, snip"}, "A0816.*asked once"), ({"batch": 1}, "A0816.*2 at least"),
    ({"name": "zico(batch = 2)"}, "A0843.*has no option"), ({"name": "naswot"}, "A0843.*says nothing about `Net`"), ({"task": "digits"}, "A0593"),
    ({"name": "snip", "at": "N=3"}, "A0641"), ({"task": "mqar", "at": "T=4"}, "A0816.*those of the task"),
    ({"device": "gpu"}, "A0816")])
def test_options_that_do_not_fit(how: dict[str, Any], said: str):
    with pytest.raises(ArchError, match=said):
        made(TOKENS, **{"name": "snip", **how})


def test_a_wrong_option_of_a_proxy_is_told():
    for name, option in (("zico", {"batches": 1}), ("zen", {"alpha": 0.0})):
        with pytest.raises(ArchError, match="A0843"):
            PROXIES[name].body(probe(CONV, 2), **option)


def test_a_proxy_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.arch").write_text(CONV)
    with PROXIES.apart():
        @proxy("widest()", sought="max")
        def widest(net):
            """The largest number of channels."""
            return max(w.shape[0] for w in net.weights)

        asked = Asked(["widest:max", "params:min"], evaluator="proxy:widest", strategy="random", budget=3)
        with search("net.arch", "study", asked, Hands(0)) as study:
            best = study.best(study.objectives[0])
            assert best is not None and best.values["widest"] == 10
    assert "widest" not in PROXIES
