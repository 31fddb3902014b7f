"""Text out of a model with a form `step`: greedy, sampled or by beams. Loads torch at first use."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from archdsl.decoding.sampling import drawn, restricted
from archdsl.lazy import torch
from archdsl.prompts import Fixed, Prompts, begun, rows_of
from archdsl.records import record

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.decoding.decoder import Decoder, Plan
    from archdsl.lower.module import ArchModule

__all__ = ["generate", "generate_stream", "restricted"]


def generate(model: ArchModule, prompts: Prompts, max_new_tokens: int = 32, *, temperature: float = 0.0, top_k: int | None = None,
             top_p: float | None = None, beams: int = 1, length_penalty: float = 1.0, eos: int | Sequence[int] | None = None,
             seed: int | None = None, inputs: Mapping[str, Any] | None = None, start: int | None = None, recorded: bool | None = None,
             compiled: bool = False, state_dtype: Any = None) -> Any:
    """Continues prompts of token ids.

    `model`: any built form of a model whose only input along the stream is `int[B, T]` and whose (first) result is logits `[B, T, vocab]`.
    `prompts`: an int64 tensor [batch, length], or a list of 1-D sequences of different lengths: nothing is padded, each row begins where it begins.
    `inputs`: tensors for the other inputs, those without positions, by name. They are read once, before the first token.
    `start`: for an encoder and a decoder. The prompts go to the one other input of token ids, [B, S], shorter ones with zeros behind their end,
    which an input bool[B, S] is told; each row of the text begins with the token `start`.
    `temperature` 0 takes the likeliest token; above, tokens are drawn from softmax(logits / temperature), restricted to the `top_k` likeliest and
    to the smallest set with probability `top_p`; `seed` makes that repeatable (else torch's generator draws). `beams` > 1 searches for the
    sequence with the greatest sum of log-probabilities / length ** `length_penalty`. A row ends behind a token of `eos`.
    `recorded`: the work of one token, drawing included, is recorded once and replayed (a CUDA graph): None where that can be, with a warning that
    says why where a card is there and it cannot; True raises instead; False does not. Without `temperature` a recording serves all batches up to its
    rows (1, 2, 4, … 64, multiples of 64), which change nothing for each other; a model keeps the last two. `compiled`: a recorded step is compiled by
    layer first, which takes seconds once and saves most of the time between products of small batches. `state_dtype`: a torch dtype in which a
    recorded step keeps the memories of `gla` and `ssd` between tokens, instead of float32; they are computed with in float32 all the same. In
    torch.bfloat16 a large batch reads and writes half the bytes of them, and each token rounds its memory to eight bits.

    Returns an int64 tensor [batch, length + new] for a tensor of prompts (ended rows are filled with the first `eos`), a list of 1-D tensors
    for a list; with `start`, rows are that token and the new ones. Raises ValueError for prompts, inputs and settings that do not fit, RuntimeError
    for what is to be recorded, or compiled, and cannot, ArchError A0501 for a model that has no form `step`.
    """
    asked = _Asked(max_new_tokens, temperature, top_k, top_p, beams, length_penalty, _ends(eos), seed, recorded, compiled, state_dtype)
    rows, as_tensor = rows_of(model, prompts)
    run = _Run(model, rows, asked, inputs or {}, start)
    new = run.search() if beams > 1 else run.whole()
    if as_tensor:
        return torch.cat([torch.stack(run.rows), new], 1)
    return [torch.cat([row, _until(n, asked.eos)]) for row, n in zip(run.rows, new)]


def generate_stream(model: ArchModule, prompts: Prompts, max_new_tokens: int = 32, *, temperature: float = 0.0, top_k: int | None = None,
                    top_p: float | None = None, eos: int | Sequence[int] | None = None, seed: int | None = None,
                    inputs: Mapping[str, Any] | None = None, start: int | None = None, recorded: bool | None = None,
                    compiled: bool = False, state_dtype: Any = None) -> Iterator[Tensor]:
    """As `generate`, token by token: yields int64 [batch] until every row has ended; an ended row gives the first `eos`. The settings are checked
    at once."""
    asked = _Asked(max_new_tokens, temperature, top_k, top_p, 1, 1.0, _ends(eos), seed, recorded, compiled, state_dtype)
    return _Run(model, rows_of(model, prompts)[0], asked, inputs or {}, start).sample()


@record()
class _Asked:
    new: int
    temperature: float
    top_k: int | None
    top_p: float | None
    beams: int
    length_penalty: float
    eos: tuple[int, ...]
    seed: int | None
    recorded: bool | None = None
    compiled: bool = False
    memories: Any = None

    @property
    def draw(self) -> tuple[float, int | None, float | None]:
        """What the draw of a token depends on."""
        return self.temperature, self.top_k, self.top_p

    def check(self, vocab: int | None) -> None:
        """Raises ValueError for settings that mean nothing; with a vocabulary, for those that are not in it."""
        for name, value, least in (("max_new_tokens", self.new, 1), ("beams", self.beams, 1), ("top_k", 1 if self.top_k is None else self.top_k, 1),
                                   ("seed", 0 if self.seed is None else self.seed, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
                raise ValueError(f"generate: `{name}` is a whole number from {least} up, not {value!r}")
        if not _is_number(self.temperature) or self.temperature < 0:
            raise ValueError(f"generate: `temperature` is 0 (the likeliest token) or above, not {self.temperature!r}")
        if self.top_p is not None and (not _is_number(self.top_p) or not 0 < self.top_p <= 1):
            raise ValueError(f"generate: `top_p` is a probability above 0, at most 1, not {self.top_p!r}")
        if not _is_number(self.length_penalty):
            raise ValueError(f"generate: `length_penalty` is a number, not {self.length_penalty!r}")
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise ValueError("generate: `top_k` and `top_p` restrict what is drawn, and `temperature = 0` draws nothing: `temperature = 1` does")
        if self.beams > 1 and self.temperature:
            raise ValueError("generate: beams follow the likeliest tokens: `temperature` stays 0 with `beams`")
        if self.compiled and (self.beams > 1 or self.recorded is False):
            what = "`beams`" if self.beams > 1 else "`recorded = False`"
            raise ValueError(f"generate: `compiled` is of a recorded step: leave it out with {what}")
        if self.beams > 1 and self.recorded:
            raise ValueError("generate: the state of beams is reordered between steps, which is not recorded: leave `recorded` out with `beams`")
        if self.memories is not None and (self.memories not in (torch.bfloat16, torch.float16, torch.float32)
                                          or self.beams > 1 or self.recorded is False):
            raise ValueError("generate: `state_dtype` is torch.bfloat16, torch.float16 or torch.float32, of a recorded step: without `beams` and "
                             f"`recorded = False`, not {self.memories!r}")
        if vocab is None:
            return
        if self.beams > vocab:
            raise ValueError(f"generate: {self.beams} beams need a vocabulary of as many tokens, and this has {vocab}")
        if any(not 0 <= e < vocab for e in self.eos):
            raise ValueError(f"generate: `eos` is a token from 0 to {vocab - 1}, not {list(self.eos)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _ends(eos: Any) -> tuple[int, ...]:
    """The tokens that end a row, as they were given: none, one, several."""
    found = eos.flatten().tolist() if isinstance(eos, torch.Tensor) else () if eos is None else eos if isinstance(eos, (list, tuple)) else (eos,)
    if any(not hasattr(e, "__index__") or isinstance(e, bool) for e in found):
        raise ValueError(f"generate: `eos` is a token id, or several, not {eos!r}")
    return tuple(map(int, found))


def _until(tokens: Tensor, eos: tuple[int, ...]) -> Tensor:
    """The tokens up to and with the first that ends."""
    for i, t in enumerate(tokens.tolist()):
        if t in eos:
            return tokens[:i + 1]
    return tokens


class _Run:
    """One call: the two forms, the state behind the prompts, the logits of the next token."""

    def __init__(self, model: ArchModule, prompts: list[Tensor], asked: _Asked, inputs: Mapping[str, Any], start: int | None):
        from archdsl.lower.forms import sibling

        asked.check(None)
        self.asked, self.start, self.named = asked, start, frozenset(inputs)
        self.extend, self.step = sibling(model, "extend", caches="fresh"), sibling(model, "step")
        self.streamed = self.extend.__dict__["_streamed"]
        if late := self.streamed.delay:
            raise ValueError(f"generate: this model looks {late} position{'s' * (late > 1)} ahead, first at {self.streamed.ahead!r}: what comes next "
                             "depends on tokens that are not there yet, so it cannot make text token by token")
        self.rows, inputs = (prompts, inputs) if start is None else begun(model, prompts, start, inputs)
        self.fixed = Fixed(model, self.streamed, inputs, self.rows)
        self._fits(model, [*prompts, *self.rows])
        self.model, self.plan = model, self._plan(model)
        self.logits, self.state = self._prefill()
        asked.check(self.logits.shape[-1])
        self.decoder: Decoder | None = None
        if self.plan is not None:
            from archdsl.decoding.kept import lent

            self.decoder = lent(model, self.plan, bool(asked.recorded) or asked.memories is not None)

    def _fits(self, model: ArchModule, ids: list[Tensor]) -> None:
        if any(p.is_meta for p in model.parameters()):
            raise ValueError("generate: a model on the meta device holds no numbers: build it on another one")
        longest = max(map(len, self.rows)) + self.asked.new
        most = self.streamed.longest
        if most is not None and longest > most:
            raise ValueError(f"generate: this model has {most} positions at most, and {longest} would be needed: prompts of up to "
                             f"{max(map(len, self.rows))} and {self.asked.new} new tokens")
        if len({len(r) for r in self.rows}) > 1 and not self.streamed.rows:
            raise ValueError("generate: the rows of this model's batch share their positions: give prompts of one length")
        low = min(int(r.min()) for r in ids)
        if low < 0:
            raise ValueError(f"generate: a token id is 0 or above, and the prompts hold {low}")

    def _unknown(self) -> str:
        """What is said where a table of vectors has no row for a token id: which ids were given, and as what."""
        if self.start is None:
            held = {"the prompts hold": self.rows}
        else:
            held = {"`start` is": [self.rows[0]]}
        for name, x in self.fixed.given.items():
            if x.numel() and not x.is_floating_point() and x.dtype != torch.bool:
                held[f"`{name}` holds" if name in self.named else "the prompts hold"] = [x]
        if len(held) == 1 and self.start is None:
            return f"generate: the prompts hold the token id {max(int(r.max()) for r in self.rows)}, and the model has fewer tokens"
        ends = {what: (min(int(x.min()) for x in xs), max(int(x.max()) for x in xs)) for what, xs in held.items()}
        shown = ", ".join(f"{what} {low}" if low == high else f"{what} {low} to {high}" for what, (low, high) in ends.items())
        return f"generate: one of these token ids is below 0, or the model has fewer tokens: {shown}"

    def _prefill(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits behind each prompt, [batch, vocab], and the state: rows of one length go together, and all end at the same position."""
        longest = max(map(len, self.rows))
        needed = longest + self.asked.new if self.plan is None else self.plan.room
        room = {"length": needed} if self.streamed.has_length else {}
        groups: dict[int, list[int]] = {}
        for i, r in enumerate(self.rows):
            groups.setdefault(len(r), []).append(i)
        logits, states, order = [], [], []
        with torch.no_grad():
            for length, members in groups.items():
                state = self.extend.init_state(len(members), **room, **self.fixed.sizes)
                for counter in ("position", "start"):
                    if counter in state:
                        state[counter] = state[counter] + (longest - length)
                try:
                    y, state = self.extend(*self.fixed.beside(torch.stack([self.rows[i] for i in members]), members), state)
                except IndexError:  # a table of vectors has no such row
                    raise ValueError(self._unknown()) from None
                logits.append(self._last(y))
                states.append(state)
                order += members
        back = torch.tensor(order).argsort()
        return torch.cat(logits)[back.to(logits[0].device)], self.extend.reorder_state(self.extend.stack_states(states), back)

    @staticmethod
    def _last(y: Any) -> Tensor:
        y = y[0] if isinstance(y, tuple) else y
        if y.dim() != 3:
            raise ValueError(f"generate: the model's first result is logits [B, T, vocab], this is {list(y.shape)}")
        return y[:, -1].float()

    def _next(self, tokens: Tensor) -> None:
        y, self.state = self.step(tokens[:, None], self.state)
        self.logits = self._last(y)

    # ---------------------------------------------------------------- one by one
    def _plan(self, model: ArchModule) -> Plan | None:
        """What a recorded step for this call is made for, or None: nothing is recorded on this device, or it was not asked for."""
        from archdsl.decoding.kept import forget_moved, plan_for

        forget_moved(model)
        a = self.asked
        if self.fixed.given and (a.recorded or a.compiled or a.memories is not None):
            asked = "recorded" if a.recorded else "compiled" if a.compiled else "state_dtype"
            raise ValueError(f"generate: a state whose sizes {', '.join(map(repr, self.fixed.given))} tell is not recorded: leave `{asked}` out")
        if a.recorded is False or a.beams > 1 or a.new == 1 and not a.recorded or self.fixed.given:
            return None
        return plan_for(model, len(self.rows), max(map(len, self.rows)), a.new, a.draw, a.eos, a.seed is not None, a.compiled, bool(a.recorded),
                        a.memories)

    def whole(self) -> Tensor:
        """[batch, at most new]."""
        if self.decoder is None:
            return torch.stack(list(self.sample()), 1)
        with self._begun() as decoder:
            return decoder.generate(self.asked.new)

    @contextmanager
    def _begun(self) -> Iterator[Decoder]:
        """The decoder behind the prompts; given back at the end."""
        from archdsl.decoding.kept import give_back

        decoder = self.decoder
        assert decoder is not None
        try:
            decoder.begin(self.state, self.logits, self.asked.seed)
            del self.state
            yield decoder
        finally:
            give_back(self.model, decoder)

    def sample(self) -> Iterator[Tensor]:
        if self.decoder is not None:
            with self._begun() as decoder:
                yield from decoder.stream(self.asked.new)
            return
        a = self.asked
        generator = None if a.seed is None else torch.Generator(self.logits.device).manual_seed(a.seed)
        ended = torch.zeros(len(self.rows), dtype=torch.bool, device=self.logits.device)
        ends = torch.tensor(a.eos, dtype=torch.int64, device=self.logits.device)
        for i in range(a.new):
            with torch.no_grad():
                tokens = drawn(self.logits, generator, *a.draw)
                if a.eos:
                    tokens = torch.where(ended, ends[0], tokens)
                    ended = ended | torch.isin(tokens, ends)
            yield tokens
            if i + 1 == a.new or a.eos and bool(ended.all()):
                return
            with torch.no_grad():
                self._next(tokens)

    # ---------------------------------------------------------------- beams
    def search(self) -> Tensor:
        """[batch, new]: for each row the tokens of the best beam, filled with eos behind its end."""
        a, batch = self.asked, len(self.rows)
        k, device = a.beams, self.logits.device
        done: list[list[tuple[float, list[int]]]] = [[] for _ in range(batch)]
        scores = torch.full((batch, k), float("-inf"), device=device)
        scores[:, 0] = 0
        self.state = self.step.reorder_state(self.state, torch.arange(batch).repeat_interleave(k))
        self.logits = self.logits.repeat_interleave(k, 0)
        tokens = torch.zeros(batch, k, 0, dtype=torch.int64, device=device)
        with torch.no_grad():
            for i in range(a.new):
                scores, tokens, origin = self._grow(scores, tokens, done)
                if i + 1 == a.new or all(self._settled(done[b], scores[b], i + 1) for b in range(batch)):
                    break
                self.state = self.step.reorder_state(self.state, origin)
                self._next(tokens[:, :, -1].flatten())
        return self._best(done, scores, tokens)

    def _grow(self, scores: Tensor, tokens: Tensor, done: list[list[tuple[float, list[int]]]]) -> tuple[Tensor, Tensor, Tensor]:
        """One token more for each beam. Candidates that end leave the beams; the k best others stay."""
        a, (batch, k) = self.asked, scores.shape
        vocab = self.logits.shape[-1]
        every = (scores[:, :, None] + torch.log_softmax(self.logits, -1).view(batch, k, vocab)).flatten(1)
        value, place = every.topk(min(k * (1 + len(a.eos)), k * vocab), -1)
        new_scores, new_tokens, origin = [], [], []
        for b in range(batch):
            kept: list[tuple[float, Tensor, int]] = []
            for rank, (s, p) in enumerate(zip(value[b].tolist(), place[b].tolist())):
                beam, token = divmod(p, vocab)
                longer = torch.cat([tokens[b, beam], tokens.new_tensor([token])])
                if token in a.eos:
                    if rank < k and s > float("-inf"):
                        done[b].append((self._score(s, len(longer)), longer.tolist()))
                        done[b] = sorted(done[b], key=lambda d: -d[0])[:k]
                elif len(kept) < k:
                    kept.append((s, longer, b * k + beam))
            while len(kept) < k:  # a vocabulary with hardly anything but ends; there is always a candidate, so `longer` is bound
                kept.append((float("-inf"), kept[-1][1] if kept else longer,  # pyright: ignore[reportPossiblyUnboundVariable]
                             kept[-1][2] if kept else b * k))
            new_scores.append([s for s, _, _ in kept])
            new_tokens.append(torch.stack([t for _, t, _ in kept]))
            origin += [o for _, _, o in kept]
        return scores.new_tensor(new_scores), torch.stack(new_tokens), torch.tensor(origin)

    def _score(self, total: float, length: int) -> float:
        return total / length ** self.asked.length_penalty

    def _settled(self, done: list[tuple[float, list[int]]], scores: Tensor, length: int) -> bool:
        """Whether no running beam can pass the worst of k ended ones: a score only falls with each token."""
        if len(done) < self.asked.beams:
            return False
        best = float(scores.max())
        longest = self.asked.new if self.asked.length_penalty > 0 else length
        return done[-1][0] >= self._score(best, longest)

    def _best(self, done: list[list[tuple[float, list[int]]]], scores: Tensor, tokens: Tensor) -> Tensor:
        found = []
        for b, ended in enumerate(done):
            running = [(self._score(float(s), tokens.shape[-1]), t.tolist()) for s, t in zip(scores[b], tokens[b])]
            found.append(max([*ended, *running], key=lambda c: c[0])[1])
        length = max(map(len, found))
        fill = self.asked.eos[0] if self.asked.eos else 0
        return tokens.new_tensor([f + [fill] * (length - len(f)) for f in found])
