"""Runs the command line many times in one process: each run is a fork with limits, so it starts in a few milliseconds and is measured alone.

    python -m tests.bad.server      reads requests as lines of JSON on stdin, answers each with a line on stdout

A request is {"argv": […], "cwd": folder, "cpu": seconds}. The answer: {"rc": exit code or minus the signal, "out", "err", "cpu": seconds of the fork,
"bytes": its largest resident size, "opened": the paths that it opened or listed, "did": what a spec must never make it do}.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from typing import Any

LOOKING = ("open", "os.listdir", "os.scandir", "glob.glob")
DOING = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.__new__")
WATCHED = frozenset((*LOOKING, *DOING))


def serve() -> None:
    import pydantic  # noqa: F401

    import archdsl.lints  # noqa: F401
    from archdsl.cli import main, shell  # noqa: F401  what every command needs is loaded once
    from archdsl.cli.commands import check, cost, fmt, verify  # noqa: F401
    from archdsl.elaborate import resolve  # noqa: F401
    from archdsl.spec import loads

    loads("model M()(x: [B, 8]) -> y: [B, 8] { return relu(x) }\nclaim { macs == 0 }").cost()  # ops, the parse table, the counting
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(json.dumps({"speed": speed()} if request.get("speed") else answer(request)) + "\n")
        sys.stdout.flush()


def speed() -> float:
    """Seconds for some work of pure Python, the best of three: to compare machines."""
    best = float("inf")
    for _ in range(3):
        start, total = time.process_time(), {}
        for i in range(200_000):
            total[i % 1000] = total.get(i % 1000, 0) + i
        best = min(best, time.process_time() - start)
    return best


def answer(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as trace:
        pid = os.fork()
        if pid == 0:
            _run(request, out.fileno(), err.fileno(), trace.fileno())
        _, status, usage = os.wait4(pid, 0)
        texts = []
        for file in (out, err, trace):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    seen = [line for line in texts[2].split("\0") if line]
    return {
        "rc": os.waitstatus_to_exitcode(status),
        "out": texts[0],
        "err": texts[1],
        "cpu": usage.ru_utime + usage.ru_stime,
        "bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "opened": sorted({s for s in seen if s[0] != "!"}),
        "did": [s[1:] for s in seen if s[0] == "!"],
    }


def _run(request: dict[str, Any], out: int, err: int, trace: int) -> None:
    """The fork: never returns."""
    code = 70
    try:
        cpu = int(request["cpu"])
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))  # keeps the machine alive; the measure is the resident size
        os.chdir(request["cwd"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)

        def hook(event: str, args: Any) -> None:
            if event not in WATCHED:  # `id` is an event too, met a hundred thousand times: what follows is for few
                return
            if event in LOOKING and args and isinstance(args[0], (str, bytes)):
                os.write(trace, os.fsencode(os.path.abspath(args[0])) + b"\0")
            elif event in DOING:
                os.write(trace, f"!{event} {args!r}\0".encode())

        sys.addaudithook(hook)
        sys.argv = ["archdsl", *request["argv"]]
        from archdsl.cli.main import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
