"""All of `archdsl check`, the fixes tried, by a process of its own: trying them takes up to a second, in which no key may have to wait.

The process gets a path and a text, gives their diagnostics, and ends.
"""
from __future__ import annotations

import asyncio
import os
import pickle
import sys
from contextlib import suppress

from archdsl.diagnostics.model import Diagnostic
from archdsl.records import replace
from archdsl.spec import check_text


async def tried(path: str, text: str) -> list[Diagnostic]:
    """What `archdsl check` says of a text that stands in the file `path`. Whoever cancels this ends the process. Raises OSError or RuntimeError
    where there was none, or no answer."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", __name__,  # -P: nothing in the folder that is edited is imported
                                                   stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=env)
    try:
        told, _ = await process.communicate(pickle.dumps((path, text)))
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"the process that tries fixes ended with {process.returncode}")
    return pickle.loads(told)


def _plain(d: Diagnostic) -> Diagnostic:
    """A diagnostic without what those who looked for its cause had to know."""
    return replace(d, given=(), division=None, rivals=(), widened=None)


def main() -> None:
    path, text = pickle.load(sys.stdin.buffer)
    answer, sys.stdout = sys.stdout.buffer, sys.stderr  # where what is printed goes: packages that are loaded may print
    pickle.dump([_plain(d) for d in check_text(text, path, lints=True)], answer)


if __name__ == "__main__":
    main()
