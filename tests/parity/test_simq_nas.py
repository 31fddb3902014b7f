"""SimQ-NAS's spaces: their supernets against transformers' BERT and ViT, a candidate against the whole net with the rest zeroed, their numbers of
candidates, and architecture and bits found together."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import archdsl
from archdsl.supernet.net import Supernet
from tests.parity.proof import EXACT, prove, randomise, relative

SPEC = "specs/general/simq_nas.arch"
F64 = torch.float64
BERT: dict[str, Any] = {"depth": 2, "d": 24, "width": 8, "vocab": 50, "length": 20, "classes": 3, "layers.*.attn.heads": 3, "layers.*.mlp.hidden": 30}
VIT: dict[str, Any] = {"depth": 2, "d": 24, "width": 8, "side": 48, "classes": 7, "layers.*.attn.heads": 3, "layers.*.mlp.hidden": 30}


def small(model: str) -> Any:
    knobs = BERT if model == "BERT" else VIT
    found = {a.replace("*", str(i)): v for i in range(2) for a, v in knobs.items()}
    return archdsl.load(SPEC).models[model].build(dtype=F64, knobs=found)


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=30, vocab_size=50,
                                     max_position_embeddings=20, num_labels=3, attn_implementation="eager")
    return transformers.BertForSequenceClassification(config).double().eval()


def sentences(vocab: int, batch: int = 3, length: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    valid = torch.arange(length) < torch.tensor([length, 4, 1])[:batch, None]
    return torch.randint(vocab, (batch, length), generator=g), torch.randint(2, (batch, length), generator=g), valid


def asked(peer: Any, tokens: torch.Tensor, segments: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return peer(input_ids=tokens, token_type_ids=segments, attention_mask=valid.long()).logits


def test_bert():
    peer, model = bert(), small("BERT").eval()
    randomise(peer)
    archdsl.import_weights(model, peer.state_dict(), source="transformers")
    probe = torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    for m, y in ((model, model(*sentences(50))), (peer, asked(peer, *sentences(50)))):
        m.zero_grad()
        (y * probe).sum().backward()
    assert relative(model(*sentences(50)), asked(peer, *sentences(50))) <= EXACT
    grads = {k: p.grad for k, p in peer.named_parameters() if p.grad is not None}
    holder = small("BERT")
    archdsl.import_weights(holder, {k: grads.get(k, v) for k, v in peer.state_dict().items()}, source="transformers")
    largest = max(float(g.abs().max()) for g in grads.values())
    for name, p in holder.named_parameters():
        assert (p.detach() - model.get_parameter(name).grad).abs().max() <= EXACT * largest, name


def test_vit():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=30, image_size=48, num_labels=7)
    x = torch.randn(2, 3, 48, 48, dtype=F64, generator=torch.Generator().manual_seed(0))
    peer = transformers.ViTForImageClassification(config).double().eval()
    prove(small("ViT"), peer, x, source="transformers", call=lambda m, v: m(v).logits)


# ---------------------------------------------------------------- supernets
TINY = """
variant tiny_super { d = 24, width = 4, vocab = 50, length = 20, policy = [32] }
"""


@pytest.fixture(scope="module")
def net() -> Supernet:
    with open(SPEC, encoding="utf-8") as f:
        text = f.read().replace("depth: int = 12 in 6..12", "depth: int = 3 in 1..3").replace("{1024, 2048, 3072}", "{10, 20, 30}").replace(
            "hidden: int = 3072", "hidden: int = 30")
    net = archdsl.loads(text + TINY, "simq_nas.arch").models["BERT"].supernet(variant="tiny_super", dtype=F64).eval()
    randomise(net)
    return net


def test_candidates_are_the_net_with_the_rest_zeroed(net: Supernet):
    """The first 4 h rows of the queries, keys and values and as many columns behind them, the first hidden units, the first layers."""
    x = sentences(50)
    for seed in range(6):
        c = net.space.sample(seed)
        full = {"heads": 12, "hidden": 30}
        masked: Any = net.extract(net.space.candidate({a: full.get(a.rsplit(".", 1)[-1], v) for a, v in c.items()}))
        with torch.no_grad():
            for i in range(c["depth"]):
                masked.get_submodule(f"layers.{i}.attn.out").weight[:, 4 * c[f"layers.{i}.attn.heads"]:] = 0
                masked.get_submodule(f"layers.{i}.mlp.down").weight[:, c[f"layers.{i}.mlp.hidden"]:] = 0
            assert relative(net.extract(c)(*x), masked(*x)) <= EXACT and relative(net.extract(c)(*x), net.run(c, *x)) <= EXACT


# ---------------------------------------------------------------- spaces
def test_the_paper_s_spaces():
    """BERT: of each layer 4 numbers of heads, 3 of hidden units and the bits of 6 maps, and those of 2 maps more. The paper's vectors have values for
    layers that are not there as well: 7 * 12^12 * 2^74, some 10^36.1."""
    models = archdsl.load(SPEC).models
    bert, vit = models["BERT"].space(), models["ViT"]
    assert bert.size == sum((4 * 3 * 2**6) ** n * 4 for n in range(6, 13)) and bert.uniform
    assert models["BERT"].space(variant="float").size == sum(12**n for n in range(6, 13))
    assert vit.space(variant="vit_float").size == 12**10 + 12**11 + 12**12
    assert vit.space().size == sum((4 * 3 * 2**6) ** n * 2 for n in (10, 11, 12))
    c = bert.sample(1)
    assert "layers.5.attn.q.bits" in c and bert.decisions(c)["layers.0.mlp.hidden"].values == (1024, 2048, 3072)
