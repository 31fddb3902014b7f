"""python -m tests.faults [--seed N] [--count N] [--show] [--kind KIND]: the table of rates; what was not told well."""
from __future__ import annotations

import argparse

from archdsl.diagnostics.render import render

from .judge import judge, table
from .planter import KINDS, faults


def main() -> None:
    ask = argparse.ArgumentParser(prog="python -m tests.faults")
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--count", type=int, default=400)
    ask.add_argument("--kind", default="", choices=["", *KINDS])
    ask.add_argument("--show", action="store_true", help="print each fault that was not told well")
    args = ask.parse_args()
    verdicts = [judge(f) for f in faults(args.seed, args.count) if args.kind in ("", f.kind)]
    if args.show:
        for v in verdicts:
            if not (v.good and v.mended):
                show(v)
    print(table(verdicts))


def show(v) -> None:
    f = v.fault
    said = " ".join(w for w in ("flagged", "span", "fix", "once", "mended") if not getattr(v, w))
    print(f"=== {f.kind} / {f.style} in {f.name}: not {said}")
    for a, b, new in f.edits:
        line = f.before[f.before.rfind("\n", 0, a) + 1 : max(f.before.find("\n", b), b)]
        print(f"    {line.strip()[:150]}\n      {f.before[a:b]!r} -> {new!r}")
    for d in v.found[:4]:
        print("    " + render(d).replace("\n", "\n    "))
        print("    fixes:", [fix.title for fix in d.fixes])


if __name__ == "__main__":
    main()
