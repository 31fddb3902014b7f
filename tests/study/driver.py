"""`python -m tests.study.driver FOLDER EVALUATOR BUDGET WORKERS [MOST]`: a search in a process that can be killed.

When MOST trials are finished it waits for that, so that it does not end before."""
from __future__ import annotations

import os
import signal
import sys

from archdsl.search.evaluators.texts import canonical
from archdsl.study.session import Hands, made_strategy, search_in
from archdsl.study.study import created, resumed
from tests.study import parts


def main(folder: str, evaluator: str, budget: int, workers: int, most: int | None = None) -> None:
    """Begins a study, or goes on with the one that is there."""
    plan = parts.plan(canonical(evaluator), budget)
    space = parts.Grid()
    there = os.path.exists(os.path.join(folder, "study.json"))
    with resumed(folder, plan) if there else created(folder, plan, {}) as study:

        def told() -> None:
            while most is not None and study.store.finished >= most:
                signal.pause()

        print("open", flush=True)
        told()
        search_in(study, space, made_strategy(study.plan, space), Hands(workers), parts.SPACE, told)


if __name__ == "__main__":
    with parts.walking():
        main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
