"""Documents with code in them: finding the blocks, checking what they say, writing what they should say.

The first words of a fence say how a block is tested; a document explains them to no reader, so they stay out of sight when it is shown.

    ```arch                     a whole file, without a diagnostic; `file=NAME` keeps it for the console and Python blocks of its document
    ```arch body                statements of a model with `d`, `heads` and `x: [B, T, d]`; `params`, `inputs`, `out` replace these
    ```arch apply="F(3)(x)"     declarations, and what a model returns that uses them
    ```arch error=A0211         any of these; it raises this code and no other
    ```arch values              a hyper expression a line, `# ` and its value
    ```arch signature           the head of a declaration of the library; shown only, generated pages have it from the source
    ```arch graph               the printed graph of the block above
    ```text weights             addresses and shapes of the weights of the block above
    ```text error               the diagnostics of the block above, rendered
    ```pycon, ```console        sessions, run in order for each document; a line `…` stands for any lines
    ```python run               run in the same session, prints nothing
    ```sh, ```text, ```toml …   shown only
"""
from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.diagnostics.render import render
from archdsl.elaborate.model import Elaborated, elaborate
from archdsl.kernels import bindings
from archdsl.modules import Library, library_exports
from archdsl.ops import registry as ops
from archdsl.ops.registry import OPS
from archdsl.passes.registry import PASSES
from archdsl.printer import print_graph
from archdsl.reports.registry import REPORTS
from archdsl.search.registry import EVALUATORS, STRATEGIES
from archdsl.source import Source
from archdsl.spec import check_file, loads
from archdsl.syntax import tree
from archdsl.tasks.registry import TASKS
from tests.commands import write_program

SHOWN_ONLY = {"sh", "text", "toml", "json", "python", ""}
PARAMS, INPUTS, OUT = "d: int = 64, heads: int = 4", "x: [B, T, d]", "[B, T, _]"


@dataclass
class Block:
    """A fenced block: its language, the words and options behind it, its text and where that stands in the document."""

    document: Path
    line: int
    language: str
    words: tuple[str, ...]
    options: dict[str, str]
    text: str
    span: tuple[int, int]
    outputs: list[Block] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"

    @property
    def is_output(self) -> bool:
        return (self.language, *self.words) in (("arch", "graph"), ("text", "weights"), ("text", "error"))


def blocks(document: Path) -> list[Block]:
    """The blocks of a document in order; outputs hang on the block above them. Raises ValueError for a fence that means nothing."""
    text = document.read_text(encoding="utf-8")
    found: list[Block] = []
    for m in re.finditer(r"^```(\w*)[ \t]*(.*?)[ \t]*\n(.*?)^```[ \t]*$", text, re.MULTILINE | re.DOTALL):
        words, options = _info(m[2])
        block = Block(document, text.count("\n", 0, m.start()) + 1, m[1], words, options, m[3], m.span(3))
        if block.is_output:
            if not found or found[-1].language != "arch":
                raise ValueError(f"{block}: an output without a block above it")
            found[-1].outputs.append(block)
        else:
            _known(block)
            found.append(block)
    return found


def _info(text: str) -> tuple[tuple[str, ...], dict[str, str]]:
    words, options = [], {}
    for part in shlex.split(text):
        key, equals, value = part.partition("=")
        if equals:
            options[key] = value
        else:
            words.append(part)
    return tuple(words), options


def _known(block: Block) -> None:
    kind = (block.language, *block.words)
    known = {"error", "file", "apply", "params", "inputs", "out"}
    arch = kind in (("arch",), ("arch", "body"), ("arch", "values"), ("arch", "signature")) and set(block.options) <= known
    session = kind in (("pycon",), ("console",), ("python", "run"))
    if not (arch or session or block.language in SHOWN_ONLY and not block.words):
        raise ValueError(f"{block}: ```{block.language} {' '.join(block.words)} {block.options or ''} is no kind of block")


# ---------------------------------------------------------------- specs
def uses(text: str) -> str:
    """The imports that a fragment leaves out."""
    exports = library_exports()
    own = set(re.findall(r"\b(?:block|record|fn|model|use [\w.]+ \{)\s+(\w+)", text))
    wanted: dict[str, set[str]] = {}
    for name in re.findall(r"\b[A-Z]\w*", re.sub(r'"[^"\n]*"|#[^\n]*|///[^\n]*', "", text)):
        if name in exports and name not in own:
            wanted.setdefault(exports[name], set()).add(name)
    return "".join(f"use {m} {{ {', '.join(sorted(names))} }}\n" for m, names in sorted(wanted.items()))


def whole(block: Block) -> str:
    """The file that a block stands for."""
    o, text = block.options, block.text
    if "body" in block.words:
        last = "" if re.search(r"^\s*return\b", text, re.MULTILINE) else "  return x\n"
        text = f"model Example({o.get('params', PARAMS)})({o.get('inputs', INPUTS)}) -> {_outs(o)} {{\n{text}{last}}}\n"
    elif "apply" in o:
        text += f"\nmodel Example({o.get('params', PARAMS)})({o.get('inputs', INPUTS)}) -> {_outs(o)} {{\n  return {o['apply']}\n}}\n"
    elif "model " not in text and "file" not in o:
        raise ValueError(f"{block}: nothing uses these declarations: give `apply=`")
    else:
        return text if text.startswith("use ") or "\nuse " in text or "file" in o else uses(text) + text
    return uses(text) + text


def _outs(options: dict[str, str]) -> str:
    out = options.get("out", OUT)
    return out if out.startswith("(") else f"y: {out}"


def faults(text: str, folder: Path) -> list[Diagnostic]:
    """What `archdsl check` says of a text."""
    (folder / "example.arch").write_text(text, encoding="utf-8")
    with contextlib.chdir(folder):
        return check_file("example.arch")


def made(text: str) -> Elaborated:
    return loads(text, "example.arch").elaborate()


def weights(text: str) -> str:
    """One line for each weight: address, shape, what it is when it is no parameter; equal layers once."""
    lines = [(a, f"{p.type}{'' if p.kind == 'param' else f' {p.kind}'}") for a, p in made(text).graph.parameters()]
    width = max((len(a) for a, _ in lines), default=0)
    return "".join(f"{a:{width}}  {t}\n" for a, t in lines)


def graph(text: str) -> str:
    """The printed graph. It elaborates to the same hash, or this raises."""
    first = made(text)
    printed = print_graph(first)
    module = Library().open(Source("graph.arch", printed), None)
    again = elaborate(module, next(d for d in module.tree.decls if isinstance(d, tree.Model)))
    assert again.graph.hash == first.graph.hash, "the printed graph is another one"
    return printed


def value(expression: str) -> str:
    """A hyper value as the language writes it, read off a message; the code when it has none."""
    text = f"model Example({PARAMS})(x: [B, d]) -> y: [B, d] {{\n  v = {expression}\n  require false, \"{{[v]}}\"\n  return x\n}}\n"
    try:
        made(uses(text) + text)
    except ArchError as fault:
        found = fault.diagnostics[0]
        return found.message[1:-1] if found.code == "A0310" else f"error {found.code}"
    raise AssertionError("a requirement that cannot hold")


def values(block: Block) -> str:
    """The block with the values that its expressions have."""
    out = []
    for line in block.text.splitlines():
        expression, mark, _ = line.partition("  # ")
        out.append(f"{expression.rstrip():{line.index('  # ')}}  # {value(expression.strip())}" if mark else line)
    return "\n".join(out) + "\n"


# ---------------------------------------------------------------- sessions
def session(document: Path, folder: Path) -> list[tuple[Block, str]]:
    """Runs the console and Python blocks of a document in a folder that holds its files; each with the text it should have."""
    names: dict[str, Any] = {"__name__": "__main__"}
    out = []
    (folder / "specs").symlink_to(Path(__file__).parent.parent / "specs")
    ops.load()  # what is loaded later would be lost when the table is put back
    kept = dict(OPS)
    with contextlib.ExitStack() as stack:
        for table in (PASSES, REPORTS, TASKS, STRATEGIES, EVALUATORS):
            stack.enter_context(table.apart())
        stack.enter_context(bindings.apart())
        stack.callback(OPS.update, kept)
        stack.callback(OPS.clear)
        for b in blocks(document):
            if "file" in b.options:
                keep_file(b, folder)
            if b.language == "console":
                out.append((b, console(b.text, folder)))
            elif b.language == "pycon":
                out.append((b, pycon(b.text, folder, names)))
            elif (b.language, b.words) == ("python", ("run",)):
                with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
                    exec(compile(b.text, str(b), "exec"), names)
                assert printed.getvalue() == "", f"{b} prints"
    return out


def keep_file(block: Block, folder: Path) -> None:
    """Writes a block where its option `file` says."""
    path = folder / block.options["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")


def console(text: str, folder: Path) -> str:
    """A session with the output that its commands have now."""
    script = write_program(folder / ".bin" / "archdsl")
    search = os.pathsep.join([str(script.parent), os.path.dirname(sys.executable), os.environ["PATH"]])
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PATH": search, "PYTHONPATH": str(root), "COLUMNS": "110", "NO_COLOR": "1"}
    out = []
    for part in re.split(r"^(?=\$ )", text, flags=re.MULTILINE):
        if not part.startswith("$ "):
            continue
        command, _, told = part.partition("\n")
        done = subprocess.run(["sh", "-c", command[2:]], cwd=folder, env=environment, text=True, encoding="utf-8", timeout=500,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out.append(command + "\n" + keep_gaps(told, done.stdout if not done.stdout or done.stdout.endswith("\n") else done.stdout + "\n"))
    return "".join(out)


def keep_gaps(told: str, actual: str) -> str:
    """The told text when it is the actual one with some lines replaced by `…`, else the actual text."""
    pattern = "".join("(?:.*\n)*?" if line.strip() == "…" else re.escape(line) + "\n" for line in told.splitlines())
    return told if re.fullmatch(pattern, actual) else actual


def pycon(text: str, folder: Path, names: dict[str, Any]) -> str:
    """A Python session with the output that it has now."""
    out = []
    with contextlib.chdir(folder):
        for example in doctest.DocTestParser().get_examples(text):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                try:
                    exec(compile(example.source, "<document>", "single"), names)
                except Exception as fault:
                    print("Traceback (most recent call last):\n  …\n" + "".join(traceback.format_exception_only(fault)), end="")
            lines = example.source.splitlines()
            source = "".join(f"{'... ' if i else '>>> '}{line}".rstrip() + "\n" for i, line in enumerate(lines))
            out.append(source + keep_gaps(example.want, printed.getvalue()))
    return "".join(out)


# ---------------------------------------------------------------- outputs
def expected(block: Block, folder: Path) -> list[tuple[Block, str]]:
    """What a block of specs and its outputs should say."""
    if block.words == ("values",):
        return [(block, values(block))]
    text = whole(block)
    out = []
    for o in block.outputs:
        if o.words[0] == "error":
            out.append((o, "\n".join(render(d) + "\n" for d in faults(text, folder))))
        else:
            out.append((o, weights(text) if o.words[0] == "weights" else graph(text)))
    return out


def rewrite(changes: list[tuple[Block, str]]) -> None:
    """Puts new texts into their documents."""
    for document in {b.document for b, _ in changes}:
        text = document.read_text(encoding="utf-8")
        for b, new in sorted((c for c in changes if c[0].document == document), key=lambda c: -c[0].span[0]):
            text = text[: b.span[0]] + new + text[b.span[1] :]
        document.write_text(text, encoding="utf-8")
