"""Decoding with a cache beside transformers': behind a prompt, then token by token, one row of the batch padded on the left."""
from __future__ import annotations

from typing import Any

import torch

import archdsl
from tests.parity.proof import EXACT, relative


def decodes_alike(spec: archdsl.Spec, peer: Any, x: torch.Tensor, pad: int, prompt: int, placed: bool = True,
                  **knobs: Any) -> dict[str, torch.Tensor]:
    """`peer` is a float64 model of transformers without casts. `placed`: it takes positions. Rows but the first begin behind `pad` tokens. Gives the
    state at the end."""
    peer = peer.eval()
    extend, step = (spec.build(form=form, dtype=torch.float64, **knobs).eval() for form in ("extend", "step"))
    for m in (extend, step):
        archdsl.import_weights(m, peer.state_dict(), source="hf")
    batch, length = x.shape
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[1:, :pad] = 0
    places = (mask.cumsum(-1) - 1).clamp(min=0)

    def theirs(a: int, b: int, cache: Any = None, use_cache: bool = True) -> Any:
        more = {"position_ids": places[:, a:b]} if placed else {}
        return peer(x[:, a:b], attention_mask=mask[:, :b], past_key_values=cache, use_cache=use_cache, **more)

    with torch.no_grad():
        want = theirs(0, length, use_cache=False).logits
        _, state = extend(x[:, :pad], extend.init_state(batch, length))
        state = extend.reset_state(state, list(range(1, batch)))
        y, state = extend(x[:, pad:prompt], state)
        got = [y]
        known = theirs(0, prompt)
        assert relative(y, known.logits[:, pad:]) <= EXACT
        cache = known.past_key_values
        for t in range(prompt, length):
            y, state = step(x[:, t : t + 1], state)
            known = theirs(t, t + 1, cache)
            cache = known.past_key_values
            assert relative(y, known.logits) <= EXACT
            got.append(y)
    assert relative(torch.cat(got, 1), want[:, pad:]) <= EXACT
    return state


def decodes_padded(theirs: Any, extend: Any, step: Any, x: torch.Tensor, pad: int, prompt: int, rows: list[int]) -> dict[str, torch.Tensor]:
    """As above, for a float64 peer that hands its cache on as `cache`, from models that have its weights: `rows` begin behind `pad` tokens. Gives the
    state at the end."""
    batch, length = x.shape
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[rows, :pad] = 0
    with torch.no_grad():
        known = theirs(x[:, :prompt], attention_mask=mask[:, :prompt], use_cache=True)
        _, state = extend(x[:, :pad], extend.init_state(batch, length))
        y, state = extend(x[:, pad:prompt], extend.reset_state(state, rows))
        assert relative(y, known.logits[:, pad:]) <= EXACT
        for t in range(prompt, length):
            known = theirs(x[:, t:t + 1], attention_mask=mask[:, :t + 1], cache=known.cache, use_cache=True)
            y, state = step(x[:, t:t + 1], state)
            assert relative(y, known.logits) <= EXACT
        assert relative(y, theirs(x, attention_mask=mask, use_cache=False).logits[:, -1:]) <= EXACT
    return state
