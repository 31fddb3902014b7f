"""What generation begins from: prompts, and a model's inputs without positions, as an encoder's source. Loads torch at first use."""
from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archdsl.dims import sym, symbols
from archdsl.graph import Value
from archdsl.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from archdsl.lower.module import ArchModule
    from archdsl.streaming import Streamed

Prompts = Any  # an int64 tensor [batch, length], or a list of sequences of ids of any lengths


def rows_of(model: ArchModule, prompts: Prompts) -> tuple[list[Tensor], bool]:
    """The prompts as 1-D tensors on the model's device."""
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    as_tensor = isinstance(prompts, torch.Tensor)
    if as_tensor and prompts.dim() != 2:
        raise ValueError(f"generate: prompts are [batch, length], this is {list(prompts.shape)}")
    if not isinstance(prompts, Iterable):
        raise ValueError(f"generate: prompts are a list of sequences of token ids, or a tensor [batch, length], not {prompts!r}")
    if not as_tensor and not isinstance(prompts, (str, bytes)):
        prompts = list(prompts)
    if not as_tensor and (isinstance(prompts, (str, bytes)) or any(isinstance(r, (str, bytes)) for r in prompts)):
        raise TypeError("generate: prompts are token ids, not text: a tokenizer makes them (of bytes, `[list(text.encode())]`)")
    if not as_tensor and any(isinstance(r, int) for r in prompts):
        raise ValueError("generate: prompts are a list of sequences: put one prompt into brackets, `[[1, 2, 3]]`")
    rows = [_row(i, r, device) for i, r in enumerate(prompts)]
    if not rows:
        raise ValueError("generate: there is no prompt")
    for i, r in enumerate(rows):
        if r.dim() != 1 or not r.numel() or r.is_floating_point() or r.dtype == torch.bool:
            raise ValueError(f"generate: prompt {i} is no sequence of at least one token id: {r.dtype} {list(r.shape)}")
    return [r.to(torch.int64) for r in rows], as_tensor


def _row(i: int, ids: Any, device: torch.device) -> Tensor:
    try:
        return torch.as_tensor(ids, device=device)
    except (TypeError, ValueError, RuntimeError) as fault:
        raise ValueError(f"generate: prompt {i} is no sequence of at least one token id: {ids!r}") from fault


def _named(model: ArchModule) -> dict[str, Value]:
    return {v.node.attrs["name"]: v for v in model.__dict__["_source"].graph.inputs}


def _shown(values: Mapping[str, Value]) -> str:
    return ", ".join(f"`{name}: {v.type}`" for name, v in values.items())


def _input(name: str, declared: Value, given: Any, device: torch.device) -> Tensor:
    """What is given for an input as a tensor. Raises ValueError for another kind of thing than is declared."""
    try:
        x = torch.as_tensor(given, device=device)
    except (TypeError, ValueError, RuntimeError) as fault:
        raise ValueError(f"generate: `{name}` is {declared.type}, a tensor or lists of one length, and this is {reprlib.repr(given)}") from fault
    kind = "bool" if x.dtype == torch.bool else "float" if x.is_floating_point() else "int"
    if kind != (declared.dtype if declared.dtype in ("int", "bool") else "float"):
        raise ValueError(f"generate: `{name}` is {declared.type}, and this is {x.dtype} {list(x.shape)}")
    return x


class Fixed:
    """The inputs of a model beside its tokens, for all rows. `sizes`: the sizes of their axes by name, but for the batch."""

    def __init__(self, model: ArchModule, streamed: Streamed, given: Mapping[str, Any], rows: Sequence[Tensor]):
        """Raises ValueError for a model without one input of tokens, for inputs that are missing or unknown, for another number of rows."""
        named = _named(model)
        moving = {n: v for n, v in named.items() if any(streamed.axis in symbols(s) for s in v.shape)}
        if len(moving) != 1 or any(v.dtype != "int" or len(v.shape) != 2 for v in moving.values()):
            raise ValueError(f"generate: the model takes token ids, int[B, {streamed.axis}], along its stream and nothing else; this one takes "
                             f"{_shown(moving)}")
        (self.tokens,) = moving
        others = {n: v for n, v in named.items() if n not in moving}
        if missing := [n for n in others if n not in given]:
            raise ValueError(f"generate: the model takes {_shown({n: others[n] for n in missing})} as well: inputs = "
                             f"{{{', '.join(f'{n!r}: …' for n in missing)}}}")
        if unknown := [n for n in given if n not in others]:
            told = f"the others are {_shown(others)}" if others else "the model takes tokens alone"
            raise ValueError(f"generate: `inputs` names {unknown[0]!r}, and {told}")
        self.given = {n: _input(n, v, given[n], rows[0].device) for n, v in others.items()}
        self.batched = {n for n, v in others.items() if v.shape and v.shape[0] == streamed.batch}
        self.order, self.sizes = tuple(named), {}
        for name, x in self.given.items():
            declared = others[name]
            if x.dim() != len(declared.shape) or name in self.batched and x.shape[0] != len(rows):
                raise ValueError(f"generate: `{name}` is {declared.type}, for {len(rows)} rows here, and this is {x.dtype} {list(x.shape)}")
            for size, n in zip(declared.shape[name in self.batched:], x.shape[name in self.batched:]):
                self.sizes.update({s: n for s in symbols(size) if size == sym(s)})

    def beside(self, tokens: Tensor, members: list[int]) -> list[Tensor]:
        """All inputs, in the model's order, for these rows."""
        return [tokens if n == self.tokens else self.given[n][members] if n in self.batched else self.given[n] for n in self.order]


def begun(model: ArchModule, sources: list[Tensor], start: int, given: Mapping[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
    """Rows of the token `start` alone, and the other inputs, with the sources [batch, S] and which of their positions count among them. Raises
    ValueError for a start that is no token, and for a model of which it cannot be told where sources go."""
    if not isinstance(start, int) or isinstance(start, bool) or start < 0:
        raise ValueError(f"generate: `start` is a token id, not {start!r}")
    streamed = model.__dict__["_source"].axis
    still = {n: v for n, v in _named(model).items() if n not in given and not any(streamed in symbols(s) for s in v.shape)}
    ids = [n for n, v in still.items() if v.dtype == "int" and len(v.shape) == 2]
    if len(ids) != 1:
        raise ValueError("generate: with `start`, prompts go to the one input of token ids that does not lie along the stream, int[B, S]; of this "
                         f"model these could be it: {_shown({n: still[n] for n in ids}) or 'none'}. `inputs` names inputs")
    longest = max(map(len, sources))
    place = torch.arange(longest, device=sources[0].device)
    lengths = torch.tensor([len(r) for r in sources], device=sources[0].device)
    marks = [n for n, v in still.items() if v.dtype == "bool" and v.shape == still[ids[0]].shape]
    told = [n for n, v in _named(model).items() if n in given and v.dtype == "bool" and v.shape == still[ids[0]].shape]
    if len(marks) != 1 and not told and len(set(lengths.tolist())) > 1:
        raise ValueError("generate: this model is not told which positions of its source count: give prompts of one length")
    padded = torch.nn.utils.rnn.pad_sequence(sources, batch_first=True)
    return ([r.new_full((1,), start) for r in sources],
            {**given, ids[0]: padded, **{n: place < lengths[:, None] for n in marks if len(marks) == 1}})
