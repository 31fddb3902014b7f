"""Headless Chromium for tests of pages: a page is opened from a file, a script runs in it, and what it leaves in `#answer` comes back."""
from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


def ask(page: str, script: str, folder: Path, *options: str) -> Any:
    """The value of `script`, a JavaScript expression, in the loaded page; with `options` of the browser."""
    body = f"""
      function answer(a) {{
        const e = document.createElement('pre'); e.id = 'answer'; e.textContent = JSON.stringify(a); document.body.replaceChildren(e);
      }}
      try {{ answer({script}); }} catch (e) {{ answer({{ error: String(e) }}); }}"""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", f"<script>{body}</script></body>"), encoding="utf-8")
    assert CHROMIUM is not None
    how = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"]
    with tempfile.TemporaryDirectory() as home:  # the path of a socket in it has about a hundred characters at most, those of tests may be longer
        done = subprocess.run([CHROMIUM, *how, f"--user-data-dir={home}", *options, "--dump-dom", file.as_uri()],
                              capture_output=True, text=True, timeout=500, env={**os.environ, "HOME": home, "TMPDIR": home})
    found = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:] + done.stdout[-500:]
    return json.loads(html.unescape(found[1]))
