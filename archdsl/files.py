"""Reading text files that a user or a spec names: every way in which that can go wrong is a diagnostic."""
from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from archdsl.diagnostics.codes import Code
from archdsl.diagnostics.model import ArchError, Diagnostic, error
from archdsl.source import Source, Span

LIMIT = 10_000_000  # bytes; the largest shipped spec has some 10,000
JSON_LIMIT = 200_000_000  # bytes of a manifest, of decisions, of a table
SUFFIX = ".arch"

CODES = {
    "A0621": Code(
        "no such file",
        "The path leads to nothing. Paths are relative to the folder in which the command runs. `archdsl list` prints the specs that come with "
        "archdsl; `--json` shows their paths.",
        bad="archdsl check lama.arch",
        good="archdsl check llama.arch",
    ),
    "A0622": Code(
        "a folder where a file is needed",
        "`check`, `fmt` and `verify` take folders as well as files and work on every .arch file below them. `archdsl.load` takes one spec, and "
        "`archdsl.open` a folder that `archdsl compile -o` wrote.",
        bad='archdsl.load("specs/")',
        good='archdsl.load("specs/vision/vit.arch")',
    ),
    "A0623": Code(
        "a file cannot be read",
        "The operating system refused to open or read the file: its permissions, a broken disk, or a path that no file can have. "
        "Only regular files are read: a device, a socket or a pipe could block forever or never end.",
    ),
    "A0624": Code(
        "a file is not UTF-8 text",
        "Specs are UTF-8. The message names the first byte that is not. Usually the file was saved in another encoding (Latin-1, UTF-16), or is "
        "no text at all.",
        bad="iconv -f utf-8 -t utf-16 my.arch > other.arch && archdsl check other.arch",
        good="iconv -f utf-16 -t utf-8 other.arch > my.arch && archdsl check my.arch",
    ),
    "A0625": Code(
        "a file is too large",
        f"A spec may have {LIMIT // 1_000_000} megabytes, a thousand times the largest one that describes a paper. The limit keeps a file from a "
        "stranger from taking the memory of whoever opens it. Put generated parts into loops, lists and functions of the language, or split them "
        "over modules with `use`.",
    ),
    "A0626": Code(
        "a folder without specs",
        "The folder was searched with everything below it, and holds no file that ends in .arch. Hidden folders, links to folders, and folders named "
        "`__pycache__` or `node_modules` are not searched.",
        bad="archdsl check docs/",
        good="archdsl check specs/audio/",
    ),
    "A0627": Code(
        "a file cannot be written",
        "The operating system refused to write there: permissions, a full disk, a folder that does not exist, or a file where a folder is "
        "meant. What was there before is unchanged.",
        bad="archdsl new my.arch/net",
        good="archdsl new mine/net",
    ),
}


def read_source(path: str | os.PathLike[str], module: str = "") -> Source:
    """The text of a file, shown in diagnostics under `path` as it was given. Ends of lines stay as they are, a byte order mark goes.

    Raises ArchError A0621 to A0625.
    """
    name = os.fspath(path)
    data = _read(name)
    try:
        return Source(name, data.decode("utf-8").removeprefix("\ufeff"), module)
    except UnicodeDecodeError as fault:
        raise _not_text(name, data, fault.start, module) from None


def located(path: str) -> str:
    """The path itself, or that of the shipped spec of this name (`vit`) where nothing in the folder has it."""
    if os.path.exists(path) or os.sep in path or path.endswith(SUFFIX):
        return path
    return next((file for file in shipped_files() if os.path.basename(file).removesuffix(SUFFIX) == path), path)


def shipped_files() -> list[str]:
    """Paths of the specs that come with the package, by domain."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "specs")
    return sorted(f.path for folder in os.scandir(root) if folder.is_dir() for f in os.scandir(folder) if f.name.endswith(SUFFIX))


def arch_files(paths: list[str]) -> Iterator[str]:
    """The files that command line arguments name: a file itself, for a folder every .arch file below it, in sorted order, each once; for the name
    of a shipped spec that one.

    Raises ArchError A0626 for a folder without any, and behind the last file A0603 for links that lead out of their folder: a folder from a
    stranger shows what it holds, not what is elsewhere. Files that are absent are left to `read_source`.
    """
    seen: set[str] = set()
    leaving: list[Diagnostic] = []
    for path in paths:
        path = located(path)
        found = _below(path) if os.path.isdir(path) else [path]
        if not found:
            raise _fault("A0626", f"`{path}` holds no .arch file", path, help="name a file, or a folder with specs in it")
        for file in found:
            real = os.path.realpath(file)
            if found[0] != path and os.path.islink(file) and not real.startswith(os.path.realpath(path).rstrip(os.sep) + os.sep):
                leaving += _fault("A0603", f"`{file}` leads out of the folder `{path}`", file,
                                  help="name the file itself to have it read").diagnostics
            elif real not in seen:
                seen.add(real)
                yield file
    if leaving:
        raise ArchError(*leaving)


def replace_text(path: str, text: str) -> None:
    """Writes a file in one step: an interruption leaves the old text or the new one whole. Permissions and a byte order mark stay, a link stays a
    link. Raises A0627."""
    with _in_one_step(path) as (real, new):
        with open(real, "rb") as file:
            mark = "\ufeff" if file.read(3) == "\ufeff".encode() else ""
        with open(new, "x", encoding="utf-8", newline="") as file:
            file.write(mark + text)
        os.chmod(new, os.stat(real).st_mode)


def write_whole(path: str, data: bytes) -> None:
    """Writes a file, new or not, in one step: whatever interrupts it, no part of a file is left. Raises A0627."""
    with _in_one_step(path) as (real, new):
        if os.path.isdir(real):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with open(new, "xb") as file:
            file.write(data)


@contextmanager
def _in_one_step(path: str) -> Generator[tuple[str, str]]:
    """The file that a path leads to, and a new one that takes its place in the end, or goes where anything fails. Raises A0627."""
    real = os.path.realpath(path)
    new = f"{real}.{os.getpid()}.new"
    try:
        yield real, new
        os.replace(new, real)
    except BaseException as fault:
        if os.path.exists(new):
            os.unlink(new)
        if isinstance(fault, OSError):
            raise unwritable(path, fault) from None
        raise


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds. Raises OSError, and ValueError for what is none, or too large a one."""
    with open(path, "rb") as file:
        data = file.read(JSON_LIMIT + 1)
    if len(data) > JSON_LIMIT:
        raise ValueError(f"it has more than {JSON_LIMIT:,} bytes")
    import json

    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def unwritable(path: str, fault: OSError) -> ArchError:
    """A0627 for what the operating system said."""
    return _fault("A0627", f"`{path}` cannot be written: {(fault.strerror or str(fault)).lower()}", path)


def _below(folder: str) -> list[str]:
    found: list[str] = []
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in ("__pycache__", "node_modules"))
        found += [os.path.join(here, file) for file in files if file.endswith(SUFFIX)]
    return sorted(found)


def _read(name: str) -> bytes:
    try:
        handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        raise _fault("A0621", f"there is no file `{name}`", name, help=_near(name)) from None
    except (OSError, ValueError) as fault:  # ValueError: a NUL in the path
        if os.path.isdir(name):  # Windows refuses to open a folder
            raise _folder(name) from None
        raise _unreadable(name, fault) from None
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise _folder(name)
        if not stat.S_ISREG(mode):
            raise _fault("A0623", f"`{name}` is not a regular file", name, help="save the text to a file first")
        with open(handle, "rb", closefd=False) as file:
            data = file.read(LIMIT + 1)
    except OSError as fault:
        raise _unreadable(name, fault) from None
    finally:
        os.close(handle)
    if len(data) > LIMIT:
        raise _fault("A0625", f"`{name}` has more than {LIMIT:,} bytes", name, help="split it over modules, or write loops instead of generated text")
    return data


def _fault(code: str, message: str, name: str, help: str = "") -> ArchError:
    return error(code, message, Span(Source(name, ""), 0, 0), help=help or ())


def _folder(name: str) -> ArchError:
    compiled = all(os.path.isfile(os.path.join(name, file)) for file in ("graph.arch", "manifest.json"))
    help = f'it was written by compile: `archdsl.open("{name}")` gives its model' if compiled else "name a file in it"
    return _fault("A0622", f"`{name}` is a folder, and one spec is needed here", name, help=help)


def _unreadable(name: str, fault: Exception) -> ArchError:
    reason = (getattr(fault, "strerror", None) or str(fault)).lower()
    return _fault("A0623", f"`{name}` cannot be read: {reason}", name)


def folder_is_gone() -> ArchError:
    """A0623 for a current folder that was removed."""
    return _fault("A0623", "the current folder is not there any more", ".", help="change into another one: `cd`")


def _near(name: str) -> str:
    """A proposal: the file without a variant behind it, or one of a similar name in the same folder."""
    from difflib import get_close_matches

    file, colon, _ = name.rpartition(":")
    if colon and os.path.isfile(located(file)):
        return f"no variant is named here: `{file}` is read with all its models and variants"
    folder, wanted = os.path.split(name)
    try:
        names = [entry.name for entry in os.scandir(folder or ".") if entry.is_file() and entry.name.endswith(SUFFIX)]
    except (OSError, ValueError):
        names = []
    stems = {n.removesuffix(SUFFIX): os.path.join(folder, n) for n in names}  # of short names the ending alone would look alike
    if not folder:
        stems = {**{s: s for f in shipped_files() for s in (os.path.basename(f).removesuffix(SUFFIX),)}, **stems}
    close = get_close_matches(wanted.partition(":")[0].removesuffix(SUFFIX), stems, 1)
    return f"did you mean `{stems[close[0]]}`?" if close else "`archdsl list` prints the specs that come with archdsl"


def _not_text(name: str, data: bytes, at: int, module: str) -> ArchError:
    before = data[:at].decode("utf-8")
    shown = Source(name, before + data[at:].decode("utf-8", errors="replace"), module)
    help = "it starts like UTF-16: save it as UTF-8" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "save it as UTF-8"
    return error("A0624", f"`{name}` is not UTF-8 text", Span(shown, len(before), len(before) + 1), f"byte {at} is 0x{data[at]:02x}", help=help)
