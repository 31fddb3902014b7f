"""A lowered model as readable PyTorch that imports torch alone: one class for each kind of block, the weights under the same names.

Blocks that differ in numbers alone become one class with those numbers as named arguments. Repeated children become comprehensions, and
calls of all of them in a row become loops.
"""
from __future__ import annotations

import builtins
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import chain, count

from archdsl.graph import Graph
from archdsl.lower.build import lower
from archdsl.lower.checks import types
from archdsl.lower.inline_arms import inlined, owns
from archdsl.lower.module import ArchModule
from archdsl.lower.plain import HELPERS, Plain, helper
from archdsl.lower.plain_state import methods
from archdsl.lower.plan import Definition, singular
from archdsl.lower.recurrences import Functions
from archdsl.lower.templates import (
    RESERVED,
    Made,
    Number,
    Piece,
    Repeated,
    Template,
    blank,
    by_children,
    by_weights,
    find_arguments,
    kept,
    kind_of,
    numbers,
    split,
    telling_names,
    uses,
)
from archdsl.lower.wrapping import WIDTH, wrapped
from archdsl.streaming import Streamed


def python_source(model: ArchModule | Graph) -> str:
    """The text of `model.py`. Raises ArchError A0514 where a block has no plain form (extern blocks), ValueError for a model with edited blocks."""
    if isinstance(model, Graph):
        model = lower(model, device="meta")
    edited = [name for name, m in model.named_modules() if isinstance(m, ArchModule) and type(m).detached]
    if edited:
        raise ValueError(f"{edited[0] or 'the model'} was edited after lowering: only what a typed graph describes can be written")
    return _File(type(model).definition, model.__dict__.get("_streamed")).text()


class _File:
    """The classes of a model, and the functions that they call. `streamed`: how the model streams, in a form with state."""

    def __init__(self, root: Definition, streamed: Streamed | None = None):
        self.root, self.streamed = root, streamed
        self.functions = Functions()
        self.templates: dict[str, Template] = {}
        self.made: dict[str, Made] = {}
        self.helpers: set[str] = set()
        self._visit(root)
        self._name_classes()
        for t in self.templates.values():
            find_arguments(t, t.definition is root)

    # ---------------------------------------------------------------- collecting
    def _visit(self, d: Definition) -> Made:
        """The template of a definition, those of its children first."""
        if d.key in self.made:
            return self.made[d.key]
        children = {path: self._visit(child) for path, child in d.children.items()}
        plain = self._plain(d)
        statements, arms = plain.statements, dict[int, tuple[Made, ...]]()
        for k, pair in enumerate(d.arms):
            own = [self._plain(a) for a in pair] if not any(map(owns, pair)) else []
            opened = inlined(statements, k, tuple(own))
            statements = opened or statements
            if opened is None:
                arms[k] = tuple(map(self._visit, pair))
        setup = [[*line] for line in _setup(plain, children, arms)]
        forward = [split(line) for line in _loops(statements, plain.lists)]
        t = Template(d, setup, forward, plain.inputs)
        key = "\n".join([d.name, " ".join(plain.inputs), *("".join(map(blank, line)) for line in (*setup, [":"], *forward))])
        t.key = key
        first = self.templates.setdefault(key, t)
        first.members.append(t.numbers())
        first.definitions.append(d)
        self.made[d.key] = Made(key, t.numbers())
        return self.made[d.key]

    def _plain(self, d: Definition) -> Plain:
        plain = Plain(d, self.streamed)
        self.helpers |= plain.helpers
        for r in plain.recurrences.values():
            self.functions.add(r)
        return plain

    def _name_classes(self) -> None:
        taken = {*RESERVED, *dir(builtins), *HELPERS, *self.functions.texts}
        places = uses(self.templates)
        held, firsts = Counter(t.definition.name for t in self.templates.values()), dict[str, Template]()
        for t in sorted(self.templates.values(), key=lambda t: t.definition is not self.root):  # the model keeps its name
            base = t.definition.name
            first = firsts.setdefault(base, t)
            where = [(owner if held[owner] == 1 else base, attribute) for owner, attribute in places.get(t.key, [])]
            said = [n for n in (*telling_names(base, where), *by_children(base, t), *by_weights(base, first, t)) if n not in held]
            t.name = next(n for n in chain((base, *said), (f"{base}{k}" for k in count(2))) if n not in taken)
            taken.add(t.name)

    # ---------------------------------------------------------------- text
    def text(self) -> str:
        numbers = "\n".join(self.functions.numbers)
        parts = [*(helper(h) for h in sorted(self.helpers)), *self.functions.functions, *(self._class(t) for t in self.templates.values())]
        body = "\n\n\n".join([*([numbers] if numbers else []), *parts])
        first = {*self.functions.imports, *(["import math"] if re.search(r"\bmath\.", body) else [])}
        imports = ["import torch", *(["import torch.nn.functional as F"] if re.search(r"\bF\.", body) else []), "from torch import Tensor, nn"]
        name = next(t.name for t in self.templates.values() if t.definition is self.root)
        head = f'"""{name}: written by archdsl, needs torch alone.\n\nThe weights lie beside it:\n\n    model = {name}()\n' \
               '    model.load_state_dict(safetensors.torch.load_file("weights.safetensors"))\n"""\n\n'
        above = "\n".join(sorted(first, key=lambda line: (line.startswith("from "), line)))
        gap = "\n\n" if above else ""
        return f"{head}{above}{gap}" + "\n".join(imports) + f"\n{'' if numbers else chr(10)}\n{body}\n"

    def _class(self, t: Template) -> str:
        lines = [f"class {t.name}(nn.Module):"]
        lines += _docstring(t.definition, {*t.inputs, *t.arguments, *_attributes(t.definition)})
        names = {i: name for name, columns in t.arguments.items() for i in columns}
        read = kept(t, names)
        at = 0
        setup: list[str] = []
        for line in t.setup:
            text, at = self._line(line, names, at, lambda name: name)
            setup += wrapped(text, 8)
        if setup or t.arguments:
            hints = [f"{name}: {kind_of(t, columns)}" for name, columns in t.arguments.items()]
            lines += wrapped(f"def __init__({', '.join(['self', *hints])}):", 4)
            lines += ["        super().__init__()", *(f"        self.{name} = {name}" for name in read), *setup, ""]
        if len(lines) > 1 and lines[-1]:
            lines.append("")
        if t.definition.state:
            assert self.streamed is not None
            lines += [*methods(self.streamed, t.definition.dtype), ""]
        sizes = {str(n.attrs["name"]) for n in t.definition.graph.nodes if n.op == "input" and "size" in n.attrs}
        held = {name for name, there in (("draws", t.definition.draws), ("state", t.definition.state)) if there}
        given = [f"{name}: {'int' if name in sizes else 'dict[str, Tensor]' if name in held else 'Tensor'}" for name in t.inputs]
        lines += wrapped(f"def forward({', '.join(['self', *given])}) -> {_returns(t.definition)}:", 4)
        if shown := types(t, t.definition is self.root):
            lines += [f'        """{part}' if i == 0 else f"        {part}" for i, part in enumerate(textwrap.wrap(shown, WIDTH - 16))]
            lines[-1] += '"""'
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
            at += sum(1 for _ in numbers(piece))
        return _spaced(text), at

    def _make(self, made: Made, value: Callable[[Number, int], str]) -> str:
        t = self.templates[made.template]
        given = [f"{name}={value(made.numbers[columns[0]], columns[0])}" for name, columns in t.arguments.items()]
        return f"{t.name}({', '.join(given)})"

    def _repeat(self, piece: Repeated, value: Callable[[Number, int], str], at: int) -> str:
        """Equal items as a comprehension over a range, items that differ in some arguments as one over those."""
        starts = [at + sum(len(m.numbers) for m in piece.items[:i]) for i in range(len(piece.items))]
        texts = [self._keyed(piece, self._make(m, lambda n, k, s=s: value(n, s + k))) for m, s in zip(piece.items, starts)]
        if len(set(texts)) == 1 and len(texts) > 1:
            return f"nn.ModuleList({texts[0]} for _ in range({len(texts)}))"
        if len({m.template for m in piece.items}) > 1 or len(texts) == 1:
            return f"nn.ModuleList([{', '.join(texts)}])"
        t = self.templates[piece.items[0].template]
        columns = {name: [value(m.numbers[c[0]], s + c[0]) for m, s in zip(piece.items, starts)] for name, c in t.arguments.items()}
        vary = [name for name, column in columns.items() if len(set(column)) > 1]
        outer = {column[0] for name, column in columns.items() if name not in vary}
        bound = {name: f"{name}_" if name in outer else name for name in vary}  # the other arguments may have such a name outside
        given = ", ".join(f"{name}={bound.get(name, column[0])}" for name, column in columns.items())
        rows = [columns[name][i] if len(vary) == 1 else f"({', '.join(columns[n][i] for n in vary)})" for i in range(len(texts)) for name in vary[:1]]
        return f"nn.ModuleList({self._keyed(piece, f'{t.name}({given})')} for {', '.join(bound.values())} in ({', '.join(rows)}))"

    def _keyed(self, piece: Repeated, text: str) -> str:
        return f'nn.ModuleDict({{"{piece.key}": {text}}})' if piece.key else text


# ---------------------------------------------------------------- lines
def _spaced(text: str) -> str:
    """Slices with bounds that are more than a name or a number get spaces."""
    text = re.sub(r"(?<=[\[ ]):(self\.\w+)(?=[\],])", r": \1", text)
    return re.sub(r"(self\.\w+):(?=[\],])", r"\1 :", text)


def _setup(plain: Plain, children: dict[str, Made], arms: dict[int, tuple[Made, ...]]) -> Iterable[list[Piece]]:
    """The lines of `__init__` after the call of super."""
    for line in plain.setup:
        if isinstance(line, str):
            yield split(line)
            continue
        target, path, *key = line
        yield [f"{target} = ", children[path] if isinstance(path, str) else Repeated(tuple(children[p] for p in path), *key)]
    for i, made in arms.items():
        names = ("position",) if len(made) == 1 else ("train_arm", "eval_arm")
        for name, part in zip(names, made):
            yield [f"self.{name}_{i} = ", part]


def _loops(statements: list[str], lists: dict[str, int]) -> list[str]:
    """Runs of `x = self.layers[i](x)` over a whole ModuleList as a loop; the last may be `return self.layers[i](x)`. Addresses
    of a state count along."""
    out: list[str] = []
    at = 0
    while at < len(statements):
        found = re.search(r"(self(?:\.\w+|\[\d+\])*\.(\w+))\[0\]\(", statements[at])
        n = lists.get(found[1], 0) if found else 0
        if found and n > 1:
            run = [s.replace(f"{found[1]}[{i}](", "\x02(", 1) for i, s in enumerate(statements[at:at + n])]
            path = re.sub(r'\["?(\d+)"?\]', r".\1", found[1].removeprefix("self."))
            told = [s.replace(f'["{path}.{i}.', f'[f"{path}.{{\x03}}.') for i, s in enumerate(run)]
            counted = told[0] != run[0]
            run = told
            result = run[0].split(" = ")[0]
            returns = len(run) == n and run[-1].startswith("return ")
            if returns:
                run[-1] = run[-1].replace("return", f"{result} =", 1)
            if len(run) == n and (start := _other_start(run)):
                out.append(f"{result} = {start}")
                run[0] = run[1]
            if len(run) == n and len(set(run)) == 1 and "\x02" in run[0] and found[1] not in run[0]:
                name = one if (one := singular(found[2])) != found[2] else f"{found[2]}_item"
                used = set(re.findall(r"(?<![.\w])[^\W\d]\w*", "\n".join([*statements, run[0]])))
                while name in used or name in RESERVED:
                    name += "_"
                count = next(c for c in chain("ijk", (f"index{n or ''}" for n in range(len(used) + 2))) if c != name and c not in used)
                over = f"{count}, {name} in enumerate({found[1]})" if counted else f"{name} in {found[1]}"
                out.append(f"for {over}:\n    {run[0].replace(chr(2), name).replace(chr(3), count)}")
                out += [f"return {result}"] if returns else []
                at += n
                continue
        out.append(statements[at])
        at += 1
    return out


def _other_start(run: list[str]) -> str:
    """What the first pass reads where later ones read their own result."""
    if len(set(run[1:])) != 1 or run[0] == run[1]:
        return ""
    first, later = (re.fullmatch(r"(\w+) = \x02\((\w+)(.*)\)", line) for line in run[:2])
    fits = first and later and later[1] == later[2] == first[1] and first[3] == later[3] and not re.search(rf"\b{first[1]}\b", first[3])
    return first[2] if first and fits else ""


def _attributes(d: Definition) -> set[str]:
    return {path.split(".")[0] for path in (*(p.path for p in d.graph.params), *d.graph.children)}


def _docstring(d: Definition, known: set[str]) -> list[str]:
    """The block's documentation, without the sentences about arguments that the class does not have; paragraphs are filled anew."""
    text = _about(d.source.doc or "", known).replace("\\", "\\\\").replace('"""', "'''")
    if not text:
        return []
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines += [*([""] if lines else []), *textwrap.wrap(" ".join(paragraph.split()), WIDTH - 10)]
    if len(lines) == 1:
        return [f'    """{lines[0]}"""', ""]
    return [f'    """{lines[0]}', *(f"    {line}".rstrip() for line in lines[1:]), '    """', ""]


_ARGUMENT = re.compile(r"`([a-z]\w*)(?:`| = )")
_THING = re.compile(r"((?:A|An|The) [^:.]+):\s")


def _about(doc: str, known: set[str]) -> str:
    first, *others = re.split(r"(?<=\.)(\s+)(?=[A-Z`])", doc.strip())
    for gap, sentence in zip(others[::2], others[1::2], strict=True):
        if known.issuperset(_ARGUMENT.findall(sentence)):
            first += gap + sentence
        elif "\n" in gap and (thing := _THING.match(sentence)) and known.issuperset(_ARGUMENT.findall(thing[1])):
            first += f"{gap}{thing[1]}."  # what the block is, without how its arguments have it
        elif "\n" in gap and not first.endswith("\n"):
            first += "\n"
    return re.sub(r"\n\s+", "\n", first).strip()


def _returns(d: Definition) -> str:
    """The type of what `forward` gives."""
    if d.state:
        own = "Tensor" if d.outputs == 1 else _several(d.outputs)
        own = f"tuple[{own}, dict[str, Tensor]]"
        return f"tuple[{own}, dict[str, Tensor]]" if d.hands_out else own
    if d.hands_out:
        return f"tuple[{'Tensor' if d.outputs == 1 else _several(d.outputs)}, dict[str, Tensor]]"
    return "Tensor" if len(d.graph.outputs) == 1 else _several(len(d.graph.outputs))


def _several(count: int) -> str:
    return f"tuple[{', '.join(['Tensor'] * count)}]" if count < 4 else "tuple[Tensor, ...]"
