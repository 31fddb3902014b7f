"""The documents are the truth: every example does what the text says, the generated pages are fresh, links lead somewhere.

What blocks mean is told in `documents.py`. `python -m pytest tests/test_docs.py --update-golden` rewrites shown outputs (without `-n`).
"""
from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import documents
from tests.documents import Block, blocks

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {d: blocks(d) for d in DOCUMENTS}
ARCH = [b for found in BLOCKS.values() for b in found if b.language == "arch" and b.words != ("signature",)]
PROGRAMS = (".", "pre-commit")  # further ones that a reader is told to run
RUN = (("pycon",), ("console",), ("python", "run"))


def name(block: Block) -> str:
    return f"{block.document.stem}-{block.line}"


def agree(changes: list[tuple[Block, str]], update: bool) -> None:
    """Every text is what it should be; with `update` it is made so."""
    wrong = [(b, new) for b, new in changes if b.text != new]
    assert not any("A0901" in new or "NameError" in new for _, new in changes), "this is a fault of ours, not an output to show"
    if update:
        documents.rewrite(wrong)
        return
    for b, new in wrong:
        assert b.text == new, f"{b} shows something else (python -m pytest tests/test_docs.py --update-golden mends it)"


@pytest.mark.parametrize("block", ARCH, ids=name)
def test_specs(block, tmp_path, request):
    update = request.config.getoption("--update-golden")
    if update:  # texts above may have grown
        block = next(b for b in blocks(block.document) if b.language == "arch" and b.text == block.text)
    for b in blocks(block.document):
        if "file" in b.options:
            documents.keep_file(b, tmp_path)
    if block.words != ("values",):
        found = [d.code for d in documents.faults(documents.whole(block), tmp_path)]
        assert found == ([block.options["error"]] if "error" in block.options else []), f"{block} raises {found}"
    agree(documents.expected(block, tmp_path), update)


@pytest.mark.parametrize("document", [d for d, found in BLOCKS.items() if any((b.language, *b.words) in RUN for b in found)], ids=lambda d: d.stem)
def test_sessions(document, tmp_path, request):
    agree(documents.session(document, tmp_path), request.config.getoption("--update-golden"))


@pytest.mark.parametrize("block", [b for b in ARCH if "file" in b.options], ids=name)
def test_whole_files_are_formatted(block):
    from archdsl.source import Source
    from archdsl.syntax.fmt import format_module

    assert format_module(Source("example.arch", block.text)) == block.text


@pytest.mark.parametrize("block", [b for d, found in BLOCKS.items() for b in found if b.language == "sh" and d.name != "errors.md"], ids=name)
def test_shell_lines(block):
    """What is shown and not run, as it would install or rewrite things: scripts, extras, verbs and options in it exist.
    Those of errors.md raise what they should: tests/diagnostics."""
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
    lines = [re.sub(r"\s+#.*", "", line) for line in block.text.splitlines() if line.strip()]
    assert lines, f"{block} is empty"
    for command in (part.strip() for line in lines for part in re.split(r"&&|\|", line)):
        words = shlex.split(command)
        if words[0] == "sh":
            assert (ROOT / words[1]).is_file(), command
        elif words[0] == "pip":
            assert set(re.findall(r"\w+", "".join(re.findall(r"\[(.*?)\]", command)))) <= extras, command
        elif words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), command
        elif words[0] == "archdsl":
            told = subprocess.run([sys.executable, "-m", "archdsl.cli.main", words[1], "--help"], capture_output=True, text=True, timeout=500)
            assert told.returncode == 0 and all(re.search(rf"{re.escape(w)}\b", told.stdout) for w in words[2:] if w.startswith("-")), command
        else:
            assert words[0] in PROGRAMS, f"{block}: what is `{command}`?"


@pytest.mark.parametrize("block", [b for found in BLOCKS.values() for b in found if (b.language, b.words) == ("python", ())], ids=name)
def test_python_that_is_shown_alone_compiles(block):
    compile(block.text, str(block), "exec")


def test_the_op_of_contributing_passes_the_registry_test(tmp_path):
    """In a process of its own: the registry test, with the example's op in the registry."""
    example = next(b.text for b in blocks(ROOT / "CONTRIBUTING.md") if b.language == "python" and "@op(" in b.text)
    assert len(example.splitlines()) <= 40
    op = example.split('@op("')[1].split("(")[0]
    alone = f"from archdsl.ops.registry import OPS, load\nload()\nfor name in {{*OPS}} - {{{op!r}, 'aten'}}:\n    del OPS[name]\n"
    (tmp_path / "test_example.py").write_text(f"{example}\n{alone}from tests.ops.test_registry import *\n")
    options = ["-c", ROOT / "pyproject.toml", "--rootdir", ROOT, "-p", "no:cacheprovider", "-k", op]
    command = [sys.executable, "-m", "pytest", tmp_path / "test_example.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and len(re.findall(r"\.", done.stdout.splitlines()[0])) > 8, done.stdout


def test_generated_pages_are_fresh():
    pages = runpy.run_path(str(ROOT / "docs/generate.py"))["pages"]
    for path, text in pages().items():
        assert path.exists() and path.read_text(encoding="utf-8") == text, f"run `python docs/generate.py`: {path.name} is out of date"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.stem)
def test_links(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name}: {target} leads nowhere"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{document.name}: {target} has no such heading"


def test_figures_of_the_first_page_are_those_of_the_results():
    """Each number of a row stands in the section of the results that the row leads to."""
    results = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    sections = {anchors(s).pop(): s for s in re.split(r"^(?=##)", results, flags=re.MULTILINE)[1:]}
    measured = (ROOT / "README.md").read_text(encoding="utf-8").split("## Measured")[1].split("\n## ")[0]
    rows = re.findall(r"^\|[^|]*\| (.*)\(benchmarks/RESULTS.md#([\w-]+)\)(.*)$", measured, re.MULTILINE)
    assert len(rows) > 5
    for ours, section, others in rows:
        for number in re.findall(r"\d[\d,.]*\d", ours + others):
            assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d,]|\.\d)", sections[section]), f"{number} is not in {section}"


def test_every_page_stands_in_the_navigation():
    pytest.importorskip("mkdocs", reason="mkdocs-material is not installed: pip install -e '.[docs]'")
    brought = runpy.run_path(str(ROOT / "docs/hooks.py"))["BROUGHT"]
    listed = re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted({*brought, *(page.name for page in (ROOT / "docs").glob("*.md"))})


def anchors(text: str) -> set[str]:
    """The names that headings get on the web."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_the_index_of_the_reference_names_every_section():
    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    listed = re.findall(r"^\d+\. \[(.*?)\]", text, re.MULTILINE)
    assert listed == [s for s in sections if s != "Contents"]


def test_limits():
    from archdsl import files, modules
    from archdsl.elaborate import limits
    from archdsl.syntax import parser

    text = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    told = {k: int(v.replace(",", "")) for k, v in re.findall(r"^\| ([a-z ]+) \| ([\d,]+) \|$", text[text.index("## Limits") :], re.MULTILINE)}
    assert told == {
        "bytes of a file": files.LIMIT, "words and signs of a file": parser.MAX_TOKENS, "steps of an elaboration": limits.MAX_STEPS,
        "further steps for each line of a file": limits.LINE_STEPS, "lines with further steps": limits.MAX_LINES,
        "items of a list or string": limits.MAX_ITEMS, "bits of a number": limits.MAX_BITS, "values inside values": limits.MAX_DEPTH,
        "blocks and functions inside each other": limits.MAX_CALLS, "axes of a tensor": limits.MAX_AXES,
        "weights of a model": limits.MAX_WEIGHTS, "ops that a model runs": limits.MAX_NODES, "characters of an address": limits.MAX_ADDRESS,
        "conditions on sizes of a model": limits.MAX_GUARDS, "modules that import modules": modules.MAX_IMPORTS,
    }
    assert "| elements of a tensor | 2 ** 62 |" in text and limits.MAX_ELEMENTS == 2**62
    assert "| size of an axis at a run | 2 ** 48 |" in text and limits.MAX_SIZE == 2**48
