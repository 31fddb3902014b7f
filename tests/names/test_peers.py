"""Round trips with the models of timm and transformers: their random weights in, ours out, strictly into a fresh one of theirs."""
from __future__ import annotations

import pytest
import torch

import archdsl


def llama(tie: bool):
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        tie_word_embeddings=tie, rms_norm_eps=1e-5))


def gpt2():
    transformers = pytest.importorskip("transformers")
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=96, n_positions=32, n_embd=24, n_layer=2, n_head=3))


def vit():
    timm = pytest.importorskip("timm")
    return timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=7)


def convnext():
    timm = pytest.importorskip("timm")
    return timm.create_model("convnext_atto", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), num_classes=7, conv_mlp=False, ls_init_value=0.1)


CASES = {
    "llama": (lambda: llama(False), "specs/language/llama.arch", "tiny", {"tie": False}, "hf"),
    "llama tied": (lambda: llama(True), "specs/language/llama.arch", "tiny", {"tie": True}, "hf"),
    "gpt2": (gpt2, "specs/language/gpt2.arch", None, {"vocab": 96, "context": 32, "d": 24, "depth": 2, "heads": 3}, "hf"),
    "vit": (vit, "specs/vision/vit.arch", None, {"d": 192, "heads": 3, "depth": 2, "classes": 7}, "timm"),
    "convnext": (convnext, "specs/vision/convnext.arch", None, {"widths": [8, 16, 24, 32], "depths": [1, 1, 2, 1], "classes": 7, "scale": 0.1},
                 "timm"),
}


@pytest.mark.parametrize(("peer", "path", "variant", "knobs", "source"), CASES.values(), ids=CASES)
def test_round_trip(peer, path, variant, knobs, source):
    model, theirs = archdsl.load(path).build(variant, **knobs), peer()
    with torch.no_grad():
        for p in dict.fromkeys([*theirs.parameters(), *theirs.buffers()]):
            if p.is_floating_point():
                p.normal_()
    state = theirs.state_dict()
    report = archdsl.import_weights(model, state, source=source)
    assert set(report.loaded) == set(model.state_dict())
    out = archdsl.export_weights(model, source=source)
    assert set(out) == set(state)
    fresh = peer()
    fresh.load_state_dict(out, strict=True)
    assert all(torch.equal(v, state[k]) for k, v in fresh.state_dict().items())


def test_what_we_write_is_a_safetensors_file_that_transformers_loads(tmp_path):
    from safetensors.torch import save_file

    model = archdsl.load("specs/language/llama.arch").build("tiny")
    theirs = llama(False)
    theirs.config.save_pretrained(tmp_path)
    save_file(archdsl.export_weights(model, "hf"), tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = type(theirs).from_pretrained(tmp_path).eval()
    x = torch.randint(0, 512, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(loaded(x).logits, model.eval()(x), atol=1e-4)
