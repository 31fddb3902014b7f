"""How much memory processes take, and how people write amounts of it."""
from __future__ import annotations

import os
import re
import subprocess
import sys

from archdsl.study.errors import wrong_number

UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
         "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def resident(pid: int) -> int:
    """Resident bytes of a process and of those below it; 0 when it has gone. Pages that they share are counted for each."""
    if sys.platform != "linux":
        return _resident_ps(pid)
    page, total, left = os.sysconf("SC_PAGE_SIZE"), 0, [pid]
    while left:
        one = left.pop()
        try:
            with open(f"/proc/{one}/statm") as file:
                total += int(file.read().split()[1]) * page
            for thread in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{thread}/children") as file:
                    left += map(int, file.read().split())
        except OSError:  # it, or one of its threads, has just ended
            continue
    return total


def _resident_ps(pid: int) -> int:
    rows = [tuple(map(int, r.split())) for r in subprocess.run(["ps", "-axo", "pid=,ppid=,rss="], capture_output=True, text=True).stdout.splitlines()]
    inside = {pid}
    while new := {p for p, parent, _ in rows if parent in inside} - inside:
        inside |= new
    return sum(kib * 1024 for p, _, kib in rows if p in inside)


LEAST = 2**20


def read_bytes(text: str) -> int:
    """`4GiB`, `500MB`, `2G` (GiB), `1073741824`. Raises A0834."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if not found or found[2].upper() not in UNITS or float(found[1]) <= 0:
        raise wrong_number(f"`{text}` is no amount of memory", text, "write it like `4GiB`, `500MB` or `1073741824`")
    bytes = int(float(found[1]) * UNITS[found[2].upper()])
    if bytes < LEAST:
        raise wrong_number(f"`{text}` is {bytes_text(bytes)}, and no process fits in that", text, "the unit is written behind it: `4GiB`, `500MB`")
    return bytes


def bytes_text(n: float) -> str:
    """`1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.3g} TiB"
