"""The shell around the commands: exit codes, usage, pipes, faults of ours."""
from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from typing import Any

import pytest

from archdsl.cli import main
from archdsl.cli.source import complete_source
from archdsl.version import VERSION


def test_help_names_every_verb(archdsl):
    text = archdsl("--help").stdout
    assert all(re.search(rf"^  {verb} ", text, re.M) for verb in ("check", "fmt", "explain", "cost", "compile", "verify", "list", "ops", "new"))


def test_version(archdsl_process):
    assert archdsl_process("--version").stdout == f"archdsl {VERSION}\n"


@pytest.mark.parametrize("arguments", [("no-such",), ("check",), ("check", "a.arch", "--nope"), ("explain",), ("fmt", "--check")])
def test_wrong_usage(archdsl, arguments):
    assert "Usage" in archdsl(*arguments, code=2).stderr


def test_a_near_verb_is_proposed(archdsl):
    assert "'check'" in archdsl("chek", code=2).stderr


def test_completion(monkeypatch):
    """A script for the shell, and names of shipped specs to complete with."""
    code = "import sys; sys.argv[1:] = ['--show-completion', 'bash']; from archdsl.cli.main import main; main()"
    alone = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # else typer asks which shell is around the process
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=alone)
    assert "_ARCHDSL_COMPLETE" in done.stdout, done.stderr
    assert "llama:llama2_7b" in complete_source("llama:llama2")
    assert all(name.startswith("vi") for name in complete_source("vi"))


def test_fault_of_ours(tmp_path):
    """An unforeseen exception: no traceback on the screen, but in a file, with the command."""
    code = "import sys; sys.argv[1:] = ['check', 'a b.arch']; from archdsl.cli import main; main._run_plain = lambda *a: {}['gone']; main.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"TMPDIR": str(tmp_path), "PATH": ""})
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "error[A0901]: this is a bug in archdsl, not in your spec (KeyError: 'gone')" in done.stderr
    assert "archdsl check 'a b.arch'" in done.stderr
    (file,) = tmp_path.glob("archdsl-*.txt")
    assert str(file) in done.stderr and "Traceback" in file.read_text()


def raising(fault):
    def call() -> int:
        raise fault

    return call


def test_interrupt():
    assert main.guarded(raising(KeyboardInterrupt())) == 128 + signal.SIGINT


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no pipes of that kind here")
def test_closed_pipe():
    """A reader that goes away, as `head` does, ends the command without a word."""
    loud = "from archdsl.cli import main; import sys; sys.exit(main.guarded(lambda: [print('x' * 100) for _ in range(100_000)] and 0))"
    process = subprocess.Popen([sys.executable, "-c", loud], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(500) == 128 + signal.SIGPIPE
    process.stderr.close()


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
@pytest.mark.parametrize(("arguments", "code"), [
    (("explain", "A0303"), 0), (("--version",), 0), (("check", "absent.arch"), 1), (("no-such",), 2),
    *(pytest.param(*case, marks=pytest.mark.proof) for case in (
        (("--help",), 0), (("check", "vit"), 0), (("cost", "absent.arch"), 1), (("fmt", "absent.arch"), 1)))])
def test_output_that_leads_nowhere(tmp_path, arguments, code):
    """A full disk, a reader that went away, a stream that the caller closed: a clean end, told on the stream that is left."""
    told = "error[A0627]: `standard output` cannot be written: no space left on device"
    prints = arguments[0] in ("explain", "--version", "--help", "check")
    command = [sys.executable, "-m", "archdsl.cli.main", *arguments]
    shell = shlex.join(command)

    def ended(**streams: int) -> subprocess.CompletedProcess[str]:
        given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.run(command, **given, cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}, text=True)

    with open("/dev/full", "w") as full:
        found = [(ended(stdout=full.fileno()), 1 if prints else code, prints), (ended(stderr=full.fileno()), 1 if code else 0, False),
                 (ended(stdout=full.fileno(), stderr=full.fileno()), 1 if prints or code else 0, False)]
    for name in ("stdout", "stderr"):
        pipe = closed_pipe()
        try:
            lost = 1 if arguments[0].startswith("--") else 141  # typer's own pages end with 1
            found.append((ended(**{name: pipe}), lost if (prints if name == "stdout" else code and arguments[0] != "check") else code, False))
        finally:
            os.close(pipe)
    for closing in (">&-", "2>&-", ">&- 2>&-"):
        found.append((subprocess.run(["sh", "-c", f"{shell} {closing}"], capture_output=True, cwd=tmp_path, text=True), code, False))
    for done, wanted, said in found:
        assert done.returncode == wanted, (done, wanted)
        assert "Traceback" not in str(done.stderr) and "A0901" not in f"{done.stderr}{done.stdout}" and "Exception" not in str(done.stderr)
        assert (told in str(done.stderr)) is said
    assert not list(tmp_path.iterdir())


def test_the_package_runs_as_a_module():
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "archdsl", "--version"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and "archdsl" in done.stdout
