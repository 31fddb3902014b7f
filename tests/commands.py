"""The program `archdsl`, started many times without importing torch and archdsl each time: a process that has done so forks for every command.

    python -m tests.commands SOCKET     serves until its standard input ends

A command dies with the program that asked for it, so a time limit on the one bounds the other. All run with one thread.

What runs is a process of its own, with its own folder, environment, streams, limit of files and exit code. What imports torch or not, times a
start, or is stopped by a signal is tested on `python -m archdsl.cli.main` itself.
"""
from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from archdsl.ops import registry

ROOT = Path(__file__).parent.parent
LOADED = ("torch", "torch._dynamo", "torch.export", "numpy", "safetensors.torch", "pydantic", "rich.table", "archdsl.cli.shell", "archdsl.spec",
          "archdsl.cost", "archdsl.lints", "archdsl.names", "archdsl.store", "archdsl.lower.module", "archdsl.search.space", "archdsl.study.session",
          "archdsl.capture")
"""What most commands need, and what takes long: optimisers import torch._dynamo, for one."""
BEFORE = {**os.environ, "OMP_NUM_THREADS": "1"}
"""The environment before any test: what the first one to ask has put into its own, such as a folder with packages, is for its commands alone."""
CLIENT = """#!{python} -SE
import json, os, resource, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ), resource.getrlimit(resource.RLIMIT_FSIZE)]).encode()
    socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(request)
    sys.exit(int(server.recv(16)))
"""


def write_program(path: Path) -> Path:
    """An executable file that is `archdsl`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CLIENT.format(python=sys.executable, path=_server()))
    path.chmod(0o755)
    return path


@cache
def program() -> str:
    """The path of one."""
    return str(write_program(Path(_server()).with_name("archdsl")))


@cache
def _server() -> str:
    """The socket of this process's server. It ends with this process."""
    import atexit

    folder = tempfile.TemporaryDirectory(prefix="archdsl-tests-")
    path = os.path.join(folder.name, "socket")
    server = subprocess.Popen([sys.executable, "-m", "tests.commands", path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              env={**BEFORE, "TMPDIR": folder.name})
    stdin, stdout = server.stdin, server.stdout
    assert stdin is not None and stdout is not None and stdout.readline() == b"ready\n"

    def end() -> None:
        stdin.close()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        folder.cleanup()

    atexit.register(end)
    return path


def serve(path: str) -> None:
    """Returns in the fork that is to be the command, never in the server."""
    for name in LOADED:
        import_module(name)
    registry.load()
    gc.collect()
    gc.freeze()  # a fork that looked through all of it would copy it
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
        while True:
            if sys.stdin in select.select([listening, sys.stdin], [], [])[0]:
                os._exit(0)
            client, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                break
            client.close()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # the server's own are pipes to the tests
    os.close(nothing)
    with client:
        size, streams, _, _ = socket.recv_fds(client, 8, 3)
        with client.makefile("rb") as incoming:
            request = json.loads(incoming.read(int.from_bytes(size, "big")))
        pid = os.fork()
        if pid:
            for stream in streams:
                os.close(stream)
            _attend(pid, client)
    _become(streams, *request)


def _attend(pid: int, client: socket.socket) -> NoReturn:
    """Tells the client how the command ends, and ends the command when the client is gone."""

    def watch() -> None:
        with suppress(OSError):
            client.recv(1)  # a client says no more: this returns at its end
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256
    with suppress(BrokenPipeError):
        client.sendall(str(code).encode())
    os._exit(0)


def _become(streams: list[int], arguments: list[str], folder: str, environment: dict[str, str], most: list[int]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most[0], most[1]))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # what the server has found is its own
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))  # under a limit of files half a module would stay
    for at, stream in enumerate(streams):
        os.dup2(stream, at)
        os.close(stream)
    sys.argv, sys.path[0] = ["archdsl", *arguments], folder
    sys.path[1:1] = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    how: dict[str, Any] = {"encoding": "utf-8", "closefd": False}
    sys.stdin, sys.stdout = open(0, **how), open(1, "w", **how)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, **how)  # noqa: SIM115


if __name__ == "__main__":
    serve(sys.argv[1])
    from archdsl.cli.main import main

    try:
        main()
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)  # torch is not taken apart: it takes as long as a command
