"""The documentation as a site: one command builds it without a warning, and everything is on it."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from archdsl.modules import library_modules, library_source
from archdsl.spec import shipped_files
from archdsl.syntax import tree
from archdsl.syntax.parser import parse

ROOT = Path(__file__).parent.parent
pytest.importorskip("material", reason="mkdocs-material is not installed: pip install -e '.[docs]'")


@pytest.mark.proof
def test_the_site(tmp_path):
    """Built once, strictly: a link to nothing, a page outside of the navigation or any other warning fails."""
    site = built(tmp_path / "site")
    every_spec_has_a_page_with_its_text_and_picture(site)
    every_block_has_its_source_and_picture(site)
    specs_are_coloured_and_fences_say_nothing_else(site)
    no_page_asks_another_server(site)


def built(out: Path) -> Path:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", ROOT / "mkdocs.yml", "--site-dir", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr[-4000:]
    assert "WARNING" not in done.stderr
    return out


def every_spec_has_a_page_with_its_text_and_picture(site: Path) -> None:
    for path in map(Path, shipped_files()):
        page = (site / "papers" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert 'id="the-spec"' in page, path
        pictures = re.findall(r'<a href="\.\./(pictures/[^"]+\.html)">', page)
        assert pictures and all((site / p).read_text(encoding="utf-8").startswith("<!doctype html>") for p in pictures), path
        drawn = re.findall(r'<img class="drawn"[^>]* src="\.\./(pictures/[^"]+\.svg)"', page)
        assert len(drawn) == (len(pictures) if shutil.which("dot") else 0)
        assert all("<svg" in (site / p).read_text(encoding="utf-8") for p in drawn)
        assert f"specs/{path.parent.name}/{path.name}" in page


def every_block_has_its_source_and_picture(site: Path) -> None:
    page = (site / "library.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h3 id="(\w+)">(.*?)(?=<h[23])', page + "<h3", re.DOTALL))
    blocks = [d for m in library_modules() for d in parse(library_source(m) or pytest.fail(m)).decls if isinstance(d, tree.Block)]
    assert len(blocks) > 30
    for block in blocks:
        section = sections[block.name.lower()]
        assert f"pictures/std-{block.name}.html" in section and section.count("<details") == 2, block.name
        assert re.search(r" parameters| multiply-accumulates| kept|: it costs nothing\.", section), block.name


def specs_are_coloured_and_fences_say_nothing_else(site: Path) -> None:
    text = (site / "language.html").read_text(encoding="utf-8")
    assert re.search(r'<span class="k\w*">model</span>', text)
    for page in site.rglob("*.html"):
        assert not re.search(r"<p>(<code>)?(arch|pycon|console|text) (body|error|graph|run|file)\b|```", page.read_text(encoding="utf-8")
                             .partition('<article')[2].partition("</article>")[0]), f"{page.name} shows a fence"


def no_page_asks_another_server(site: Path) -> None:
    """Links to papers may be followed; nothing is loaded from elsewhere."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<(script|img|iframe|source)[^>]*\bsrc="(https?:)?//', text), page.name
        assert not re.search(r'<link[^>]*rel="(stylesheet|preconnect|icon)"[^>]*href="(https?:)?//', text), page.name
