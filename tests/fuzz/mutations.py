"""Small accidents in a text: a word deleted, doubled or exchanged, a number or name changed, a line moved, the end cut off."""

from __future__ import annotations

import random
import re

import archdsl.stdlib
from archdsl.spec import shipped_files

WORD = re.compile(
    r'"(?:[^"\\\n]|\\.)*"|#[^\n]*|[A-Za-z_]\w*|\d[\d_]*(?:\.\d+)?(?:[eE]-?\d+)?|\.\.\.|\.\.<|<->|->|=>|\|>|>>|\*\*|//|[=!<>]=|\?\?|\.\.|\S'
)
NUMBERS = ["0", "1", "2", "3", "7", "8", "-1", "1.5", "1e-3", "10 ** 9", "2 ** 70", "1e308", "none", "true", '"a"', "[]", "[1, 2]", "T", "d"]
WORDS = """x d T B heads relu softmax Linear(4) causal none true self return if for match phase share param emit choose when as in is some not and or
( ) [ ] { } , ; = : + - * / ** |> >> @ ... .. ..< -> => <-> _ . ? | &""".split()


def mutated(text: str, rng: random.Random, most: int = 3) -> str:
    """Most of the texts suffer accidents after which many still parse."""
    kinds = SMALL if rng.randrange(4) else ACCIDENTS
    for _ in range(rng.randint(1, most)):
        text = rng.choice(kinds)(text, rng)
    return text


def _words(text: str) -> list[re.Match[str]]:
    return list(WORD.finditer(text)) or [re.match("", text)]  # type: ignore[list-item]


def _put(text: str, at: re.Match[str], new: str) -> str:
    return text[: at.start()] + new + text[at.end() :]


def delete(text: str, rng: random.Random) -> str:
    return _put(text, rng.choice(_words(text)), "")


def double(text: str, rng: random.Random) -> str:
    at = rng.choice(_words(text))
    return _put(text, at, f"{at[0]} {at[0]}")


def exchange(text: str, rng: random.Random) -> str:
    """Two neighbours."""
    words = _words(text)
    i = rng.randrange(max(1, len(words) - 1))
    a, b = words[i], words[min(i + 1, len(words) - 1)]
    return text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :] if a is not b else text


def insert(text: str, rng: random.Random) -> str:
    at = rng.choice(_words(text))
    return _put(text, at, f"{rng.choice(WORDS)} {at[0]}")


def replace(text: str, rng: random.Random) -> str:
    return _put(text, rng.choice(_words(text)), rng.choice(WORDS))


def renumber(text: str, rng: random.Random) -> str:
    numbers = [w for w in _words(text) if w[0][:1].isdigit()]
    return _put(text, rng.choice(numbers), rng.choice(NUMBERS)) if numbers else text


def rename(text: str, rng: random.Random) -> str:
    """A name becomes another one of the text."""
    names = [w for w in _words(text) if w[0][:1].isalpha()]
    return _put(text, rng.choice(names), rng.choice(names)[0]) if names else text


def transplant(text: str, rng: random.Random) -> str:
    """Some words in a row, behind others."""
    words = _words(text)
    i = rng.randrange(len(words))
    last = words[min(i + rng.randint(1, 12), len(words) - 1)]
    piece, at = text[words[i].start() : last.end()], rng.choice(words)
    return _put(text, at, f"{at[0]} {piece}")


def move_line(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    line = lines.pop(rng.randrange(len(lines)))
    lines.insert(rng.randrange(len(lines) + 1), line)
    return "\n".join(lines)


def double_line(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    i = rng.randrange(len(lines))
    lines.insert(rng.randrange(len(lines) + 1), lines[i])
    return "\n".join(lines)


def delete_line(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    del lines[rng.randrange(len(lines))]
    return "\n".join(lines)


def truncate(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text) + 1)]


ACCIDENTS = [delete, double, exchange, insert, replace, renumber, rename, rename, renumber, transplant, move_line, double_line, delete_line, truncate]
SMALL = [renumber, renumber, renumber, rename, rename, delete_line]

# ---------------------------------------------------------------- what there is to mutate
APPLIED = {
    "channel": "x |> MLP(16) as a |> SwiGLU(8) as b |> GeGLU(8) as c",
    "embed": "LearnedPositions(64)(x) as a + sum(RopeRates(8, 100)()) + TokenEmbedding(7, 8)(argmax(x)) as b",
    "linear": "x |> Linear(8) as a",
    "mixer": "x |> Attention(2, kv_heads = 1, mask = causal & window(3), bias = true) as a",
    "norm": "(x |> LayerNorm() as a |> RMSNorm() as b |> under([B, T, d] -> [B, d, T], MapNorm() as c >> BatchNorm() as e >> GroupNorm(2) as f))",
    "residual": "x |> Pre(relu, relu, drop = 0.1) as a |> Peri(gelu, relu) as b |> LayerScale(relu, silu) as c |> Scaled(relu) as e |> ReZero(relu)",
    "vision": "x + mean(Conv(4, 3, pad = 1)(x[:, none]) as a)",
}
"""Expressions that apply the blocks of a library module."""


def library_texts() -> dict[str, str]:
    """Modules of the library, each with a model that applies what it declares."""
    (folder,) = archdsl.stdlib.__path__
    out = {}
    for module, body in APPLIED.items():
        with open(f"{folder}/{module}.arch", encoding="utf-8") as file:
            out[f"std.{module}"] = f"{file.read()}\nmodel Applied(d: int = 8)(x: [B = 2, T = 4, d]) -> y: [_, _, _] {{\n  return {body}\n}}\n"
    return out


def shipped_texts() -> dict[str, str]:
    out = {}
    for path in shipped_files():
        with open(path, encoding="utf-8") as file:
            out[path.rsplit("/", 1)[-1]] = file.read()
    return out
