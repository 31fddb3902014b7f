"""An editor: JSON-RPC with `archdsl lsp` over pipes."""
from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pygls")
WAIT = 500  # seconds, for what hangs
MARKDOWN = ["markdown", "plaintext"]
CAPABILITIES = {"textDocument": {"hover": {"contentFormat": MARKDOWN}, "completion": {"completionItem": {"documentationFormat": MARKDOWN}}},
                "workspace": {"didChangeWatchedFiles": {"dynamicRegistration": True}}}


class Editor:
    """`ask` sends a request and waits for its result; `tell` a notification; `told` waits for one of the server. A slow or busy machine makes pauses
    that are no part of a test: a server does nothing in them, unless it `rests`: then it does as soon as it can what else waits for a pause."""

    def __init__(self, folder: Path, rests: bool = False):
        self.folder, self.last = folder, 0
        code = f"from archdsl.lsp import server\nserver.TRIED = server.IDLE = {0 if rests else 1e9}\nfrom archdsl.cli.main import run\nrun()"
        self.process = subprocess.Popen([sys.executable, "-c", code, "lsp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        cwd=folder)
        self.answers: dict[int, queue.Queue[Any]] = {}
        self.notices: queue.Queue[Any] = queue.Queue()
        self.texts: dict[str, tuple[int, str]] = {}
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def start(self) -> None:
        self.capabilities = self.ask("initialize", {"processId": None, "rootUri": self.folder.as_uri(), "capabilities": CAPABILITIES})["capabilities"]
        self.tell("initialized", {})

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while line := stream.readline():
            length = int(line.split(b":")[1])
            while stream.readline().strip():
                pass
            message = json.loads(stream.read(length))
            (self.answers[message["id"]] if "id" in message and "method" not in message else self.notices).put(message)

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self.process.stdin.flush()

    def tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def ask(self, method: str, params: Any) -> Any:
        self.last += 1
        self.answers[self.last] = queue.Queue()
        self._send({"id": self.last, "method": method, "params": params})
        answer = self.answers[self.last].get(timeout=WAIT)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def told(self, method: str) -> Any:
        while True:
            message = self.notices.get(timeout=WAIT)
            if message["method"] == method:
                return message["params"]

    # ------------------------------------------------------------ files
    def uri(self, name: str) -> str:
        return (self.folder / name).as_uri()

    def open(self, name: str, text: str) -> list[Any]:
        """The diagnostics of a file that is opened."""
        (self.folder / name).write_text(text, encoding="utf-8")
        self.texts[name] = 1, text
        self.tell("textDocument/didOpen", {"textDocument": {"uri": self.uri(name), "languageId": "archdsl", "version": 1, "text": text}})
        return self.told("textDocument/publishDiagnostics")["diagnostics"]

    def type(self, name: str, text: str, wait: bool = True) -> list[Any]:
        """The diagnostics behind a change of the whole text."""
        version = self.texts[name][0] + 1
        self.texts[name] = version, text
        document = {"uri": self.uri(name), "version": version}
        self.tell("textDocument/didChange", {"textDocument": document, "contentChanges": [{"text": text}]})
        while wait:
            told = self.told("textDocument/publishDiagnostics")
            if told["version"] == version:
                return told["diagnostics"]
        return []

    def place(self, name: str, mark: str, shift: int = 0) -> dict[str, Any]:
        """Where a piece of text stands first, as parameters of a request."""
        text = self.texts[name][1]
        at = text.index(mark) + shift
        line = text.count("\n", 0, at)
        before = text[text.rfind("\n", 0, at) + 1 : at]
        return {"textDocument": {"uri": self.uri(name)}, "position": {"line": line, "character": len(before.encode("utf-16-le")) // 2}}

    def text_in(self, name: str, place: dict[str, Any]) -> str:
        lines = self.texts[name][1].split("\n")
        start, end = place["start"], place["end"]
        assert start["line"] == end["line"]
        line = lines[start["line"]].encode("utf-16-le")
        return line[2 * start["character"] : 2 * end["character"]].decode("utf-16-le")

    def close(self) -> str:
        """Ends the server as an editor does; what it wrote on standard error."""
        if self.process.poll() is None and self.process.stdin is not None and not self.process.stdin.closed:
            self.ask("shutdown", None)
            self.tell("exit", None)
        code = self.process.wait(timeout=WAIT)
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        assert code == 0, said
        return said

    def free(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join(WAIT)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def editor(tmp_path, request) -> Iterator[Editor]:
    """Of a server that rests where the parameter says so."""
    made = Editor(tmp_path, getattr(request, "param", False))
    try:
        made.start()
        yield made
        said = made.close()
        assert "Traceback" not in said, said
    finally:
        made.free()
