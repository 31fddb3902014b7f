"""A lowered model as readable PyTorch that imports torch alone: one class for each kind of block, the weights under the same names.

Blocks that differ in numbers alone become one class with those numbers as named arguments. Repeated children become comprehensions, and
calls of all of them in a row become loops.
"""
from __future__ import annotations

import io
import keyword
import re
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from archdsl.graph import Graph
from archdsl.lower.build import lower
from archdsl.lower.module import ArchModule
from archdsl.lower.plain import HELPERS, Plain
from archdsl.lower.plan import Definition
from archdsl.lower.wrapping import WIDTH, wrapped

RESERVED = frozenset(keyword.kwlist) | frozenset(dir(nn.Module)) | {"self", "torch", "F", "nn", "math", "x", "_"}


def python_source(model: ArchModule | Graph) -> str:
    """The text of `model.py`. Raises ArchError A0514 where a block has no plain form (extern blocks), ValueError for a model with edited blocks."""
    if isinstance(model, Graph):
        model = lower(model, device="meta")
    edited = [name for name, m in model.named_modules() if isinstance(m, ArchModule) and type(m).detached]
    if edited:
        raise ValueError(f"{edited[0] or 'the model'} was edited after lowering: only what a typed graph describes can be written")
    return _File(type(model).definition).text()


# ---------------------------------------------------------------- templates
@dataclass(frozen=True)
class Number:
    """A number in the text that may become an argument. `hint`: a name for it."""

    value: int | float
    hint: str = ""


@dataclass(frozen=True)
class Made:
    """`Class(arguments)`: an instance of the class that a template belongs to, with all its numbers."""

    template: str
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Repeated:
    """A ModuleList of such instances."""

    items: tuple[Made, ...]


Piece = str | Number | Made | Repeated


@dataclass
class Template:
    """A class: the pieces of `__init__` and `forward`. `key`: the pieces without their numbers. `members`: the numbers of each definition."""

    definition: Definition
    setup: list[list[Piece]]
    forward: list[list[Piece]]
    inputs: list[str]
    key: str = ""
    members: list[tuple[Number, ...]] = field(default_factory=list)
    name: str = ""
    arguments: dict[str, list[int]] = field(default_factory=dict)

    def numbers(self) -> tuple[Number, ...]:
        return tuple(n for line in (*self.setup, *self.forward) for piece in line for n in _numbers(piece))


def _numbers(piece: Piece) -> Iterator[Number]:
    if isinstance(piece, Number):
        yield piece
    elif isinstance(piece, Made):
        yield from piece.numbers
    elif isinstance(piece, Repeated):
        for made in piece.items:
            yield from made.numbers


def _blank(piece: Piece) -> str:
    if isinstance(piece, str):
        return piece
    if isinstance(piece, Number):
        return f"<{type(piece.value).__name__}>"
    if isinstance(piece, Made):
        return f"<{piece.template}>"
    return f"<{','.join(m.template for m in piece.items)}>"


class _File:
    def __init__(self, root: Definition):
        self.root = root
        self.templates: dict[str, Template] = {}
        self.made: dict[str, Made] = {}
        self.helpers: set[str] = set()
        self._visit(root)
        self._name_classes()
        for t in self.templates.values():
            _find_arguments(t)

    # ---------------------------------------------------------------- collecting
    def _visit(self, d: Definition) -> Made:
        """The template of a definition, those of its children first."""
        if d.key in self.made:
            return self.made[d.key]
        children = {path: self._visit(child) for path, child in d.children.items()}
        arms = [tuple(map(self._visit, pair)) for pair in d.arms]
        plain = Plain(d)
        self.helpers |= plain.helpers
        setup = [[*line] for line in _setup(plain, children, arms)]
        forward = [_split(line) for line in _loops(plain.statements, plain.lists)]
        t = Template(d, setup, forward, plain.inputs)
        key = "\n".join([d.name, " ".join(plain.inputs), *("".join(map(_blank, line)) for line in (*setup, [":"], *forward))])
        t.key = key
        numbers = t.numbers()
        kept = self.templates.setdefault(key, t)
        kept.members.append(numbers)
        self.made[d.key] = Made(key, numbers)
        return self.made[d.key]

    def _name_classes(self) -> None:
        taken: set[str] = set()
        for t in sorted(self.templates.values(), key=lambda t: t.definition is not self.root):  # the model keeps its name
            base = name = t.definition.name
            k = 2
            while name in taken or name in RESERVED or name in HELPERS:
                name, k = f"{base}{k}", k + 1
            taken.add(name)
            t.name = name

    # ---------------------------------------------------------------- text
    def text(self) -> str:
        body = "\n\n\n".join([*(HELPERS[h] for h in sorted(self.helpers)), *(self._class(t) for t in self.templates.values())])
        imports = ["import math"] if re.search(r"\bmath\.", body) else []
        imports += ["import torch", *(["import torch.nn.functional as F"] if re.search(r"\bF\.", body) else []), "from torch import nn"]
        head = f'"""{self.root.name}: written by archdsl, needs torch alone.\n\n' \
               f'    model = {self.root.name}()\n    model.load_state_dict(safetensors.torch.load_file("weights.safetensors"))\n"""\n'
        gap = "\n" if imports[0] == "import math" else ""
        return f"{head}{gap and imports.pop(0)}{gap}{gap}" + "\n".join(imports) + f"\n\n\n{body}\n"

    def _class(self, t: Template) -> str:
        lines = [f"class {t.name}(nn.Module):"]
        lines += _docstring(t.definition, {*t.inputs, *t.arguments, *_attributes(t.definition)})
        names = {i: name for name, columns in t.arguments.items() for i in columns}
        kept = _kept(t, names)
        at = 0
        setup: list[str] = []
        for line in t.setup:
            text, at = self._line(line, names, at, lambda name: name)
            setup += wrapped(text, 8)
        if setup or t.arguments:
            hints = [f"{name}: {_kind(t, columns)}" for name, columns in t.arguments.items()]
            lines += wrapped(f"def __init__({', '.join(['self', *hints])}):", 4)
            lines += ["        super().__init__()", *(f"        self.{name} = {name}" for name in kept), *setup, ""]
        if len(lines) > 1 and lines[-1]:
            lines.append("")
        lines.append(f"    def forward({', '.join(['self', *t.inputs])}):")
        if t.definition is self.root:
            lines += wrapped(f'"""{_types(self.root)}"""', 8)
        for line in t.forward:
            text, at = self._line(line, names, at, lambda name: f"self.{name}")
            lines += wrapped(text, 8)
        return "\n".join(lines).rstrip()

    def _line(self, line: list[Piece], names: dict[int, str], at: int, refer: Callable[[str], str]) -> tuple[str, int]:
        """The text of a line; `at` counts the template's numbers."""
        text = ""

        def value(n: Number, i: int) -> str:
            return refer(names[i]) if i in names else repr(n.value)

        for piece in line:
            if isinstance(piece, str):
                text += piece
            elif isinstance(piece, Number):
                text += value(piece, at)
            elif isinstance(piece, Made):
                text += self._make(piece, lambda n, k, at=at: value(n, at + k))
            else:
                text += self._repeat(piece, value, at)
            at += sum(1 for _ in _numbers(piece))
        return text, at

    def _make(self, made: Made, value: Callable[[Number, int], str]) -> str:
        t = self.templates[made.template]
        given = [f"{name}={value(made.numbers[columns[0]], columns[0])}" for name, columns in t.arguments.items()]
        return f"{t.name}({', '.join(given)})"

    def _repeat(self, piece: Repeated, value: Callable[[Number, int], str], at: int) -> str:
        """Equal items as a comprehension over a range, items that differ in some arguments as one over those."""
        starts = [at + sum(len(m.numbers) for m in piece.items[:i]) for i in range(len(piece.items))]
        texts = [self._make(m, lambda n, k, s=s: value(n, s + k)) for m, s in zip(piece.items, starts)]
        if len(set(texts)) == 1 and len(texts) > 1:
            return f"nn.ModuleList({texts[0]} for _ in range({len(texts)}))"
        if len({m.template for m in piece.items}) > 1 or len(texts) == 1:
            return f"nn.ModuleList([{', '.join(texts)}])"
        t = self.templates[piece.items[0].template]
        columns = {name: [value(m.numbers[c[0]], s + c[0]) for m, s in zip(piece.items, starts)] for name, c in t.arguments.items()}
        vary = [name for name, column in columns.items() if len(set(column)) > 1]
        given = ", ".join(f"{name}={name if name in vary else column[0]}" for name, column in columns.items())
        rows = [columns[name][i] if len(vary) == 1 else f"({', '.join(columns[n][i] for n in vary)})" for i in range(len(texts)) for name in vary[:1]]
        return f"nn.ModuleList({t.name}({given}) for {', '.join(vary)} in ({', '.join(rows)}))"


# ---------------------------------------------------------------- arguments
def _find_arguments(t: Template) -> None:
    """Numbers that are not the same in all members become arguments; those that always agree become one."""
    columns: dict[tuple[Any, ...], list[int]] = {}
    pieces = [piece for line in (*t.setup, *t.forward) for piece in line]
    own = {i for i, (_, piece) in enumerate((n, p) for p in pieces for n in _numbers(p)) if isinstance(piece, Number)}
    for i in range(len(t.members[0])):
        column = tuple((type(m[i].value), m[i].value) for m in t.members)
        if any(v != column[0] for v in column):
            columns.setdefault(column, []).append(i)
    fixed = {str(n.attrs.get("name")) for n in t.definition.graph.nodes if n.op == "input"} | RESERVED
    fixed |= {p.path.split(".")[0] for p in t.definition.graph.params} | {path.split(".")[0] for path in t.definition.graph.children}
    taken = set(fixed)
    for where in columns.values():
        hint = _hint(t, where, own)
        base = name = hint if hint not in fixed else f"{hint}_size"
        k = 2
        while name in taken:
            name, k = f"{base}{k}", k + 1
        taken.add(name)
        t.arguments[name] = where


def _hint(t: Template, where: list[int], own: set[int]) -> str:
    """A name for equal numbers: what the block itself calls them, else what the blocks inside do. Of linear maps inside, `out` and `i` say little
    about the block around them: what one gives and a later one takes is hidden, what one takes first is the width."""
    hints = [(i, h) for i in where if (h := t.members[0][i].hint)]
    said = [h for i, h in hints if i in own] or [h for _, h in hints if h not in ("out", "i")]
    if said or not hints:
        return said[0] if said else "n"
    if len({h for _, h in hints}) == 1:
        return hints[0][1]
    (first, name), (second, _) = hints[:2]
    return "hidden" if name == "out" and second > first + 1 else "width"


def _kind(t: Template, columns: list[int]) -> str:
    return type(t.members[0][columns[0]].value).__name__


def _kept(t: Template, names: dict[int, str]) -> list[str]:
    """Arguments that `forward` reads."""
    before = sum(1 for line in t.setup for piece in line for _ in _numbers(piece))
    return [name for name, columns in t.arguments.items() if any(i >= before for i in columns)]


# ---------------------------------------------------------------- lines
def _setup(plain: Plain, children: dict[str, Made], arms: list[tuple[Made, ...]]) -> Iterable[list[Piece]]:
    """The lines of `__init__` after the call of super."""
    for line in plain.setup:
        if isinstance(line, str):
            yield _split(line)
            continue
        target, path = line
        yield [f"{target} = ", children[path] if isinstance(path, str) else Repeated(tuple(children[p] for p in path))]
    for i, (train, other) in enumerate(arms):
        yield [f"self.train_arm_{i} = ", train]
        yield [f"self.eval_arm_{i} = ", other]


def _split(text: str) -> list[Piece]:
    """A line with its numbers apart. `\x00name\x00` before a number is a hint; else the keyword that it is given to is."""
    pieces: list[Piece] = []
    at = 0
    for token, before in _number_tokens(text):
        pieces.append(text[at:token.start])
        pieces.append(Number(_value(token.text), before))
        at = token.end
    pieces.append(text[at:])
    return _hinted(pieces)


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    end: int


def _number_tokens(text: str) -> Iterator[tuple[_Token, str]]:
    lines = text.replace("\x00", "\x01").split("\n")
    starts = [sum(len(line) + 1 for line in lines[:i]) for i in range(len(lines))]
    clean = re.sub(r"\x01[^\x01]*\x01", lambda m: " " * len(m[0]), "\n".join(lines))
    last: list[str] = ["", ""]
    for t in tokenize.generate_tokens(io.StringIO(clean).readline):
        if t.type == tokenize.NUMBER:
            start = starts[t.start[0] - 1] + t.start[1]
            yield _Token(t.string, start, start + len(t.string)), last[0] if last[1] == "=" and last[0].isidentifier() else ""
        last = [last[1], t.string]


def _hinted(pieces: list[Piece]) -> list[Piece]:
    out: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and (found := re.search(r"\x00([^\x00]*)\x00$", piece)):
            out += [piece[:found.start()], found[1]]
            continue
        if isinstance(piece, Number) and out and isinstance(out[-1], str) and len(out) > 1 and isinstance(out[-2], str):
            piece = Number(piece.value, str(out.pop()) or piece.hint)
        out.append(piece)
    return [p for p in out if p != ""]


def _value(text: str) -> int | float:
    return float(text) if any(c in text for c in ".eE") else int(text)


def _loops(statements: list[str], lists: dict[str, int]) -> list[str]:
    """Runs of `x = self.layers[i](x)` over a whole ModuleList as a loop; the last may be `return self.layers[i](x)`."""
    out: list[str] = []
    at = 0
    while at < len(statements):
        found = re.search(r"(self(?:\.\w+|\[\d+\])*\.(\w+))\[0\]\(", statements[at])
        n = lists.get(found[1], 0) if found else 0
        if found and n > 1:
            run = [s.replace(f"{found[1]}[{i}](", "\x02(", 1) for i, s in enumerate(statements[at:at + n])]
            result = run[0].split(" = ")[0]
            returns = len(run) == n and run[-1].startswith("return ")
            if returns:
                run[-1] = run[-1].replace("return", f"{result} =", 1)
            if len(run) == n and len(set(run)) == 1 and "\x02" in run[0] and found[1] not in run[0]:
                name = found[2][:-1] if re.search("[^s]s$", found[2]) else f"{found[2]}_item"
                while re.search(rf"\b{name}\b", run[0]) or name in RESERVED:
                    name += "_"
                out.append(f"for {name} in {found[1]}:\n    {run[0].replace(chr(2), name)}")
                out += [f"return {result}"] if returns else []
                at += n
                continue
        out.append(statements[at])
        at += 1
    return out


def _attributes(d: Definition) -> set[str]:
    return {path.split(".")[0] for path in (*(p.path for p in d.graph.params), *d.graph.children)}


def _docstring(d: Definition, known: set[str]) -> list[str]:
    """The block's documentation, without the sentences about arguments that the class does not have."""
    text = _about(d.source.doc or "", known).replace("\\", "\\\\").replace('"""', "'''")
    if not text:
        return []
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, WIDTH - 10) or [""]]
    if len(lines) == 1:
        return [f'    """{lines[0]}"""', ""]
    return [f'    """{lines[0]}', *(f"    {line}".rstrip() for line in lines[1:]), '    """', ""]


def _about(doc: str, known: set[str]) -> str:
    first, *others = re.split(r"(?<=\.)(\s+)(?=[A-Z`])", doc.strip())
    for gap, sentence in zip(others[::2], others[1::2], strict=True):
        if known.issuperset(re.findall(r"`([a-z]\w*)(?:`| = )", sentence)):
            first += gap + sentence
        elif "\n" in gap and not first.endswith("\n"):
            first += "\n"
    return re.sub(r"\n\s+", "\n", first).strip()


def _types(d: Definition) -> str:
    """The inputs and outputs as the spec writes them."""
    given = ", ".join(f"{v.node.attrs['name']}: {v.type}" for v in d.source.inputs)
    names = [*d.source.output_names, *[None] * len(d.source.outputs)]
    return f"({given}) -> {', '.join(f'{n}: {v.type}' if n else str(v.type) for n, v in zip(names, d.source.outputs))}"
