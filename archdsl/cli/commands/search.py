"""archdsl search: a spec, objectives, a budget; a study."""
from __future__ import annotations

import os
import sys

from archdsl.cli.commands.space import from_there
from archdsl.cli.output import count, show_json, show_table, wants_color
from archdsl.spaces import set_by
from archdsl.study.live import watching
from archdsl.study.plan import FILE, open_spec
from archdsl.study.session import UNFIT, Asked, Hands, search
from archdsl.study.shown import front_table, number, summary
from archdsl.study.study import Study
from archdsl.study.winners import write_front


def run_search(source: str, out: str, asked: Asked, hands: Hands, resume: bool, json: bool) -> int:
    """Searches, writes the front as variants, shows it. What was found before Ctrl-C stays; `--resume` goes on."""
    if asked.asynchronous:
        print("asynchronous: which trials there are depends on when others end, so no two runs are alike", file=sys.stderr)
    try:
        with watching(wants_color(sys.stderr)) as watch:
            study = search(source, out, asked, hands, resume, lambda study: _begun(study) or watch(study))
    except KeyboardInterrupt:
        print(f"stopped; what has ended is kept: the same command with --resume goes on in {out}" if os.path.isfile(os.path.join(out, FILE)) else
              f"stopped before there was a study in {out}: the same command begins it", file=sys.stderr)
        raise
    with study:
        if not len(study.store.front):
            raise study.fruitless()
        path, names = write_front(study)
        for told in study.store.kept(UNFIT) or ():
            print(told, file=sys.stderr)
        if json:
            show_json(summary(study))
            return 0
        told = summary(study)
        volume = "" if told["hypervolume"] is None else f", hypervolume {told['hypervolume']:.4f}"
        print(f"{out}: {count(told['trials'], 'trial')}, {told['failed'] or 'none'} failed; front of {count(len(names), 'point')}{volume}\n")
        show_front(study)
        if told["trials"] < study.plan.budget:
            unused = study.plan.budget - told["trials"]
            print(f"\nThe strategy had nothing left to try, {unused:,} {'trial' if unused == 1 else 'trials'} before the budget was used up.")
        print(f"\n  archdsl compile {path}:{names[0]}")
    return 0


def _begun(study: Study) -> None:
    """Says what a variant leaves to the search."""
    plan = study.plan
    if plan.variant and not plan.fixed and (said := set_by(open_spec(study.folder, plan), plan.variant)):
        print(from_there(plan.variant, said), file=sys.stderr)


def show_front(study: Study) -> None:
    """The table of the front, and how many of its points it leaves out."""
    front = study.front()
    heads, rows = front_table(front, study.objectives)
    show_table(heads, rows, right=range(1, len(heads) - 1))
    if len(rows) < len(front):
        print(f"… {number(len(front) - len(rows))} more: archdsl study show {study.folder} --json")

