"""A training step that torch records as one CUDA graph, as docs/training.md shows it."""
from __future__ import annotations

import pytest
import torch

import archdsl

CARD = torch.cuda.is_available()


@pytest.mark.gpu
@pytest.mark.skipif(not CARD, reason="needs a CUDA card")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor", "ignore:TensorFloat32 tensor cores")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["llama", "deltanet", "gla", "mamba2", "rwkv4"])
def test_gradients_of_a_recorded_step_on_a_card(name, compiled):
    """Those of the same batch op by op, for batches that the recording has not seen."""
    model = archdsl.load(name).build("tiny", loss="cross_entropy", device="cuda").train()
    if compiled:
        archdsl.compile_layers(model)
    vocab = 32
    tokens, targets = (torch.zeros(2, 70, dtype=torch.int64, device="cuda") for _ in range(2))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        model(tokens, targets).backward()
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = model(tokens, targets)
        loss.backward()
    for seed in range(2):
        g = torch.Generator().manual_seed(seed)
        tokens.copy_(torch.randint(0, vocab, (2, 70), generator=g))
        targets.copy_(torch.randint(0, vocab, (2, 70), generator=g))
        graph.replay()
        found = [loss.detach().clone(), *(p.grad.clone() for p in model.parameters())]
        twin = archdsl.load(name).build("tiny", loss="cross_entropy", device="cuda").train()
        twin.load_state_dict(model.state_dict())
        expected = twin(tokens, targets)
        grads = torch.autograd.grad(expected, list(twin.parameters()))
        for x, y in zip(found, [expected.detach(), *grads], strict=True):
            torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-5)
