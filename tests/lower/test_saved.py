"""How much a model keeps for its backward pass, and what is computed again."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import archdsl
from archdsl.lower.compile import PARTITIONED
from archdsl.ops.kernels import weighed

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo looks at every input's .grad

SPEC = """
use std { RMSNorm, Pre, SwiGLU }
model Deep(d: int = 32)(x: [B, T, d]) -> [B, T, d] {
  layers: for i in range(3) { x = Pre(RMSNorm(), SwiGLU(3 * d))(x) as mlp }
  return x
}
"""


def kept(model: nn.Module, run: Any) -> tuple[int, list[torch.Tensor]]:
    """Bytes that autograd keeps beside the weights, and the gradients."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage
        return x

    run().backward()  # compiled before anything is counted
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = run()
    loss.backward()
    return sum(s.nbytes() for s in found.values()), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_compiled_layers_keep_what_they_may():
    x = torch.randn(2, 16, 32)
    row = x.numel() * x.element_size()
    found: dict[float | None, tuple[int, list[torch.Tensor]]] = {}
    for memory in (None, 0.9, 0.4, 0.0):
        model = archdsl.loads(SPEC).build()
        assert archdsl.compile_layers(model, "layers.*", backend="aot_eager_decomp_partition", memory=memory) == [f"layers.{i}" for i in range(3)]
        found[memory] = kept(model, lambda model=model: model(x).square().sum())
        torch.testing.assert_close(found[memory][1], found[None][1])
    free, light, less, least = (n / row for n, _ in found.values())
    # a layer's input, the norm's result, gate, up and their product; then without what is pointwise; then without a product of matrices
    assert 3 * (1 + 1 + 3 + 3 + 3) <= free < 3 * 12
    assert 3 * (1 + 3 + 3) <= light < 3 * 8 < free
    assert least < less < light
    assert 3 <= least < 3 * 1.5


def test_a_share_that_is_none():
    with pytest.raises(ValueError, match=r"`memory` is a share from 0 to 1, not 1\.5"):
        archdsl.compile_layers(archdsl.loads(SPEC).build(), memory=1.5)


@pytest.mark.parametrize("backend", PARTITIONED)
def test_backends_that_keep_a_share(backend, monkeypatch):
    """Those that are named as such hand their graphs to torch's partitioner with the share."""
    from torch._functorch import config, partitioners

    model = archdsl.loads(SPEC).build()
    archdsl.compile_layers(model, "layers.*", backend=backend, memory=0.4)
    shares: list[float] = []
    torch._dynamo.reset()

    class Stop(Exception):
        pass

    def chosen(*args, **named):
        shares.append(config.activation_memory_budget)
        raise Stop

    monkeypatch.setattr(partitioners, "choose_saved_values_set", chosen)
    with pytest.raises(Exception, match="Stop"):
        model(torch.randn(2, 16, 32))
    assert shares == [0.4]


@pytest.mark.parametrize("backend", ["eager", "cudagraphs", "none"])
def test_a_backend_without_a_share_is_refused(backend):
    with pytest.raises(ValueError, match=f"`memory` goes with a backend .* not with `{backend}`"):
        archdsl.compile_layers(archdsl.loads(SPEC).build(), memory=0.5, backend=backend)


@pytest.mark.parametrize(("how", "said"), [({"mode": "nonsense"}, "Unrecognized mode=nonsense"),
                                           ({"options": {"nope": 1}}, "optimization option nope")])
def test_wrong_settings_are_told_at_once(how, said):
    with pytest.raises(RuntimeError, match=said):
        archdsl.compile_layers(archdsl.loads(SPEC).build(), memory=0.5, **how)


def test_a_backend_of_ones_own_need_not_be_hashed():
    class Backend:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, graph, inputs):
            return graph.forward

    model = archdsl.loads(SPEC).build()
    x = torch.randn(2, 16, 32)
    expected = model(x)
    assert archdsl.compile_layers(model, "layers.*", memory=0.5, backend=Backend())
    with pytest.warns(UserWarning, match="the backend Backend takes no notice of `memory`"):
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("partitions", "grad"), [(True, True), (False, False)])
def test_a_backend_of_ones_own_that_partitions(partitions, grad, recwarn):
    """Nothing is told of one that keeps the share, nor where nothing is kept."""
    from torch._dynamo.backends.registry import lookup_backend

    def own(graph, inputs):
        return lookup_backend("aot_eager_decomp_partition")(graph, inputs) if partitions else graph.forward

    torch._dynamo.reset()
    model = archdsl.loads(SPEC).build()
    archdsl.compile_layers(model, "layers.*", memory=0.5, backend=own)
    with torch.set_grad_enabled(grad):
        model(torch.randn(2, 16, 32))
    assert not [w for w in recwarn if "takes no notice" in str(w.message)]


@pytest.mark.proof
def test_a_backend_whose_graphs_are_in_torchs_cache(recwarn, tmp_path, monkeypatch):
    """What was partitioned before is not partitioned again, and keeps its share."""
    from torch._dynamo.utils import counters
    from torch._inductor.compile_fx import compile_fx

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for _ in range(2):
        torch._dynamo.reset()
        counters.clear()
        model = archdsl.loads(SPEC).build()
        archdsl.compile_layers(model, "layers.*", memory=0.5, backend=lambda graph, inputs: compile_fx(graph, inputs))
        model(torch.randn(2, 16, 32)).sum().backward()
    assert counters["aot_autograd"]["autograd_cache_hit"]
    assert not [w for w in recwarn if "takes no notice" in str(w.message)]


def test_recurrences_are_not_cheap_to_compute_again():
    model = archdsl.load("gla").build("tiny")
    tokens = torch.randint(0, 61, (1, 8), generator=torch.Generator().manual_seed(0))
    model(tokens)

    def counted() -> dict[Any, int]:
        with FlopCounterMode(display=False) as counter:
            model(tokens)
        return counter.get_flop_counts()["Global"]

    with weighed():
        inside = counted()
    op = torch.ops.archdsl.gla
    assert inside[op] > 0 and op not in counted()
