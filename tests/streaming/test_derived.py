"""Forms with state of models that were changed by passes, and of captured ones: they agree with all positions at once."""
from __future__ import annotations

from typing import Any

import pytest
import torch

import archdsl
from archdsl.passes.model import Model
from tests.streaming.forms import close, run, shaken

BAKED = """
use std.embed { Rope, TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { LayerNorm, RMSNorm }
use std.residual { Pre }

model Baked(d: int = 24, depth: int = 2, vocab: int = 31)(tokens: int[B = 2, T = 9] in 0..<vocab) -> logits: [B, T, vocab] stream T {
  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for i in range(depth) {
    x = Pre(NORM(), Attention(heads = 2, mask = causal & window(5), positions = Rope()))(x) as attn
    m = NORM()(x) as norm
    q = Linear(d)(m) as q
    x = x + (linear_attention(q, q, m, log(sigmoid(q[..., 0]))) |> Linear(d) as mix)
  }
  return x |> NORM() as norm |> Linear(vocab) as head
}
"""


def all_forms(whole: Any, forms: dict[str, Any], inputs: torch.Tensor, within: float = 1e-10) -> None:
    """Outputs of the parallel form against those in parts and one by one, with its weights."""
    with torch.no_grad():
        expected = whole.eval()(inputs)
        for form, lengths in (("extend", [3, 1, inputs.shape[1] - 4]), ("step", [1] * inputs.shape[1])):
            model = forms[form].eval()
            model.load_state_dict(whole.state_dict())
            got, _ = run(model, (inputs,), lengths, model.init_state(inputs.shape[0], inputs.shape[1]))
            close(got, expected, within)


@pytest.mark.parametrize(("norm", "step"), [("RMSNorm", "fold_norm_scales()"), ("LayerNorm", "centre()"), ("LayerNorm", "fold_norm_scales()")])
def test_behind_passes(norm: str, step: str):
    """With the weights that the pass makes of random ones, and the logits of the model before it."""
    spec = archdsl.loads(BAKED.replace("NORM", norm))
    before = shaken(spec.build(dtype=torch.float64)).eval()
    for steps in ((step,), (step, "bake()")):
        changed = Model.of(spec, dtype=torch.float64, weights=before.state_dict()).apply(*steps)
        x = torch.randint(0, 31, (2, 9), generator=torch.Generator().manual_seed(0))
        whole: Any = changed.build()
        close(whole.eval()(x), before(x), 1e-9)
        all_forms(whole, {form: changed.build(form=form) for form in ("extend", "step")}, x)


def test_a_captured_llama():
    """transformers' own, with grouped queries: the captured graph, given its axis of time, decodes token by token what transformers computes."""
    transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
    config = transformers.LlamaConfig(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                      num_key_value_heads=2, use_cache=False)
    peer = shaken(transformers.LlamaForCausalLM(config).double()).eval()
    x = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))
    captured = archdsl.capture(peer, {"input_ids": x}, {"input_ids": {0: "B", 1: "T"}}, stream="T")
    assert captured.spec.elaborate().stream == "T" and not captured.opaque
    whole: Any = captured.build()
    with torch.no_grad():
        close(whole(x), peer(input_ids=x).logits, 1e-5)  # its norms and angles are float32 whatever the model is
    all_forms(whole, {form: captured.build(form=form) for form in ("extend", "step")}, x)
    assert captured.spec.cost(None, {"B": 1, "T": 100}, "step").state_bytes >= 2 * 2 * 2 * 8 * 100 * 4


PEERS: dict[str, tuple[dict[str, Any], float]] = {  # (its configuration, how close: norms and angles that are float32 whatever the model is)
    "GPT2": (dict(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=40, bos_token_id=0, eos_token_id=0), 1e-10),
    "OPT": (dict(vocab_size=61, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=40,
                 word_embed_proj_dim=32), 1e-10),
    "Mistral": (dict(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                     sliding_window=4), 1e-5),
}


@pytest.mark.parametrize("name", PEERS)
def test_captured_models_decode_as_they_do(name: str):
    """Learned positions, turned ones, windows: the step form of a captured model against transformers' own cache, token by token."""
    transformers = pytest.importorskip("transformers", reason="transformers is in the `parity` extra")
    settings, within = PEERS[name]
    config = getattr(transformers, f"{name}Config")(**settings)
    peer = shaken(getattr(transformers, "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config).double()).eval()
    peer.config.use_cache = False
    x = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))
    captured = archdsl.capture(peer, {"input_ids": x}, {"input_ids": {0: "B", 1: "T"}}, stream="T")
    step: Any = captured.build(form="step").eval()
    step.load_state_dict(captured.build().state_dict())
    state, cache = step.init_state(2, 12), None
    if name == "Mistral":
        assert {v.shape[2] for k, v in state.items() if k.endswith("keys")} == {3}
    with torch.no_grad():
        for t in range(9):
            y, state = step(x[:, t:t + 1], state)
            known = peer(input_ids=x[:, t:t + 1], past_key_values=cache, use_cache=True)
            cache = known.past_key_values
            close(y, known.logits, within)


def test_a_stream_that_does_not_vary():
    with pytest.raises(archdsl.ArchError, match="`stream` names `N`"):
        archdsl.capture(torch.nn.Linear(3, 3), torch.zeros(2, 4, 3), {0: "B", 1: "T"}, stream="N")
