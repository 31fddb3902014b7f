"""Trees of library modules, kept between runs: reading one back takes a quarter of the time of parsing it.

Entries are pickles in a folder that only the user may write. An entry serves only the text that it was made from, with the same Python and the
same parser; whatever else is found there, and any failure, means that the text is parsed.
"""
from __future__ import annotations

import copyreg
import io
import os
import pickle
import sys
import zlib
from contextlib import suppress
from functools import cache

from archdsl.source import Source
from archdsl.syntax import parser, table
from archdsl.syntax import tree as t

_PARTS = ("tree.py", "build.py", "lexer.py", "parser.py", "table.bin")


def parse_cached(source: Source) -> t.Module:
    """The tree of a file; of a module of the installed library from the cache."""
    place = entry_of(source) if of_library(source.path) else None
    if place is None:
        return parser.parse(source)
    module = _read(place, source)
    if module is None:
        module = parser.parse(source)
        _write(place, module)
    return module


def of_library(path: str) -> bool:
    """Is this a file of the library that comes with the compiler?"""
    return os.path.realpath(path).startswith(_library())


@cache
def _library() -> str:
    return os.path.realpath(os.path.join(table.HERE, os.pardir, "stdlib")) + os.sep


@cache
def _fingerprint() -> str:
    """What the form of an entry hangs on: Python, and the files of the parser by size and time."""
    stats = [os.stat(os.path.join(table.HERE, name)) for name in _PARTS]
    return " ".join([sys.version.split()[0], *(f"{s.st_size}.{s.st_mtime_ns}" for s in stats)])


@cache
def folder() -> str | None:
    """The cache's folder, made when it is missing; None where there is none that is the user's alone."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    place = os.path.join(base, "archdsl")
    try:
        if not os.path.isabs(place):
            return None
        os.makedirs(place, mode=0o700, exist_ok=True)
        stat = os.lstat(place)
    except OSError:
        return None
    if not os.path.isdir(place) or os.path.islink(place):
        return None
    if hasattr(os, "getuid") and (stat.st_uid != os.getuid() or stat.st_mode & 0o022):
        return None
    return place


def entry_of(source: Source) -> str | None:
    """The file that would hold the tree of a source."""
    place = folder()
    if place is None:
        return None
    name = os.path.splitext(os.path.basename(source.path))[0]
    return os.path.join(place, f"{name}-{zlib.crc32(source.path.encode('utf-8', 'replace')):08x}.tree")


_reading: Source | None = None


def _source() -> Source:
    """Stands for the source in an entry: the one whose tree is being read."""
    if _reading is None:
        raise pickle.UnpicklingError("an entry is read outside of the cache")
    return _reading


def _reduce_source(source: Source) -> tuple[object, tuple[()]]:
    return _source, ()


def _read(place: str, source: Source) -> t.Module | None:
    global _reading
    try:
        with open(place, "rb") as file:
            if file.readline().decode("ascii").rstrip("\n") != _fingerprint() or pickle.load(file) != (source.path, source.text):
                return None
            _reading = source
            with parser.no_collection():
                module = pickle.load(file)
        return module if isinstance(module, t.Module) else None
    except Exception:  # whatever is in a damaged entry: the text is at hand
        return None
    finally:
        _reading = None


def _write(place: str, module: t.Module) -> None:
    new = f"{place}.{os.getpid()}.new"
    source = module.span.source
    data = io.BytesIO()
    pickle.dump((source.path, source.text), data, protocol=5)
    pickler = pickle.Pickler(data, protocol=5)
    pickler.dispatch_table = copyreg.dispatch_table | {Source: _reduce_source}  # pyright: ignore[reportAttributeAccessIssue]
    with parser.deep():
        pickler.dump(module)
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(_fingerprint().encode() + b"\n" + data.getvalue())
        os.replace(new, place)
    except OSError:
        with suppress(OSError):
            os.unlink(new)
