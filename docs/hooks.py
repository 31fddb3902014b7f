"""What `mkdocs build` adds to the pages of this folder: README, CONTRIBUTING and CHANGELOG as pages, the text of every spec on its page, the source
of every block of the library, and pictures, drawn now. SVG needs the program `dot`; without it the pages lead to the interactive pictures alone."""
from __future__ import annotations

import logging
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

import applied  # noqa: E402

from archdsl.draw import View, view  # noqa: E402
from archdsl.draw.dot import rendered  # noqa: E402
from archdsl.draw.page import html_page  # noqa: E402
from archdsl.modules import library_modules, library_source  # noqa: E402
from archdsl.spec import Spec, load, shipped_files  # noqa: E402
from archdsl.syntax import tree  # noqa: E402
from archdsl.syntax.parser import parse  # noqa: E402

BROUGHT = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}
FENCE = re.compile(r"^```(\w+)[ \t]+(.*?)[ \t]*$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```[ \t]*$", re.MULTILINE | re.DOTALL)
log = logging.getLogger("mkdocs.hooks.archdsl")


@cache
def specs() -> dict[str, Spec]:
    """The shipped specs by the name of their page."""
    return {Path(p).stem: load(p) for p in shipped_files()}


@cache
def blocks() -> dict[str, tree.Block]:
    sources = map(library_source, library_modules())
    return {d.name: d for s in sources if s is not None for d in parse(s).decls if isinstance(d, tree.Block)}


@cache
def pictures() -> dict[str, View]:
    """What is drawn, by its path in the site without an ending: the models of every spec, an application of every block."""
    models = [(page, m) for page, spec in specs().items() for m in spec.models.values()]
    drawn = {f"pictures/{page}-{m.name}": view(m.elaborate(), name=m.name) for page, m in models}
    return drawn | {f"pictures/std-{name}": view(applied.model(b), name=applied.example(b)[0]) for name, b in blocks().items()}


# ---------------------------------------------------------------- events of mkdocs
def on_config(config: Any) -> Any:
    """The papers in the navigation, by domain."""
    domains: dict[str, list[Any]] = {}
    for page, spec in specs().items():
        domains.setdefault(str(spec.paper["domain"]).capitalize(), []).append({page: f"papers/{page}.md"})
    papers = next(entry for entry in config.nav if "Papers" in entry)
    papers["Papers"] = [{"All papers": "papers/README.md"}, *({domain: found} for domain, found in sorted(domains.items()))]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Pages from outside this folder, and pictures."""
    for page, path in BROUGHT.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    has_dot = shutil.which("dot") is not None
    for path, drawn in pictures().items():
        files.append(File.generated(config, f"{path}.html", content=html_page(drawn)))
        if has_dot:
            files.append(File.generated(config, f"{path}.svg", content=rendered(drawn, "svg", path)))
    if not has_dot:
        log.info("the program `dot` (Graphviz) is not here: the site has the interactive pictures, and no SVG")
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A page as the site shows it."""
    here = page.file.src_uri
    if here == "library.md":
        markdown = _library(markdown, files)
    elif here == "errors.md":  # examples of specs, faulty ones too: they are coloured, and name no way to be tested
        markdown = CODE.sub(lambda m: re.sub(r"^```$", "```arch", m[0], count=1, flags=re.MULTILINE) if m[0].startswith("```\n") else m[0], markdown)
    elif here.startswith("papers/") and Path(here).stem in specs():
        markdown = _paper(markdown, Path(here).stem, files)
    return _linked(FENCE.sub(_fence, markdown), here, lambda path: _brought(path, files, config))


# ---------------------------------------------------------------- pages
def _library(markdown: str, files: Any) -> str:
    """Behind each block its source and its picture."""
    parts = re.split(r"^(?=##)", re.sub(r"^\[source\].*\n\n", "", markdown, flags=re.MULTILINE), flags=re.MULTILINE)
    for i, part in enumerate(parts):
        block = blocks().get(part.partition("\n")[0].removeprefix("### "))
        if block is not None:
            source = _indented(f"```arch\n{block.span.text}\n```")
            picture = _indented(_picture(f"pictures/std-{block.name}", "", files))
            parts[i] = f'{part.rstrip()}\n\n??? quote "source"\n\n{source}\n\n??? quote "picture"\n\n{picture}\n\n'
    return "".join(parts)


def _paper(markdown: str, name: str, files: Any) -> str:
    """A picture of each model below its signature; the text of the spec at the end."""
    spec = specs()[name]
    for model in spec.models.values():
        found = re.search(rf"^## {model.name}$.*?^`\(.*?`$", markdown, re.MULTILINE | re.DOTALL)
        assert found, f"the page of {name} has no signature of {model.name}"
        picture = _picture(f"pictures/{name}-{model.name}", "../", files)
        markdown = f"{markdown[: found.end()]}\n\n{picture}{markdown[found.end() :]}"
    path = Path(spec.path)
    text = path.read_text(encoding="utf-8").rstrip("\n")
    return f'{markdown.rstrip()}\n\n## The spec\n\n```arch title="specs/{path.parent.name}/{path.name}"\n{text}\n```\n'


def _picture(path: str, up: str, files: Any) -> str:
    page = f'<a href="{up}{path}.html">'
    if files.get_file_from_path(f"{path}.svg") is None:
        return f"{page}the interactive picture</a>"
    alt = f"picture of {path.rpartition('-')[2]}: a click opens the interactive one"
    return f'{page}<img class="drawn" loading="lazy" src="{up}{path}.svg" alt="{alt}"></a>'


def _indented(text: str) -> str:
    return "\n".join("    " + line if line else "" for line in text.splitlines())


def _fence(m: re.Match[str]) -> str:
    """Without the words that say how a block is tested; a file keeps its name, and so does what stands there already as an option."""
    title = re.search(r'file=(\S+)|title="([^"]*)"', m[2])
    return f"```{m[1]}" + (f' title="{title[1] or title[2]}"' if title else "")


def _linked(markdown: str, here: str, bring: Callable[[str], str]) -> str:
    """Links to files of the repository as links to their pages; what has no page is brought into the site as it is."""
    at = posixpath.dirname(BROUGHT.get(here, f"docs/{here}"))

    def link(m: re.Match[str]) -> str:
        path, _, anchor = m[1].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return m[0]
        target = posixpath.normpath(posixpath.join(at, path))
        to = _page_of(target, anchor) or (bring(target), "")
        return f"]({posixpath.relpath(to[0], posixpath.dirname(here) or '.')}{'#' + to[1] if to[1] else ''})"

    out, end = [], 0
    for code in CODE.finditer(markdown):
        out += [re.sub(r"\]\(([^)\s]+)\)", link, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*out, re.sub(r"\]\(([^)\s]+)\)", link, markdown[end:])])


def _page_of(path: str, anchor: str) -> tuple[str, str] | None:
    """(page, anchor) of a file of the repository; None for one that has none."""
    brought = {v: k for k, v in BROUGHT.items()}
    if path in brought:
        return brought[path], anchor
    if path.startswith("docs/"):
        return path.removeprefix("docs/"), anchor
    stem = os.path.splitext(posixpath.basename(path))[0]
    if path.startswith("specs/") and stem in specs():
        return f"papers/{stem}.md", "the-spec"
    if path.startswith("stdlib/"):
        return "library.md", f"std{stem}"
    return None


def _brought(path: str, files: Any, config: Any) -> str:
    """A file of the repository as a text in the site. Raises FileNotFoundError for a link that leads nowhere."""
    text = f"files/{path}.txt"
    if files.get_file_from_path(text) is None:
        files.append(File.generated(config, text, content=(ROOT / path).read_text(encoding="utf-8")))
    return text
