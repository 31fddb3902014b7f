"""`python -m tests.study.driver FOLDER EVALUATOR BUDGET WORKERS [resume]`: a search in a process that can be killed."""
from __future__ import annotations

import os
import sys

from archdsl.search.evaluators.texts import canonical
from archdsl.study.session import Hands, made_strategy, search_in
from archdsl.study.study import created, resumed
from tests.study import parts


def main(folder: str, evaluator: str, budget: int, workers: int) -> None:
    """Begins a study, or goes on with the one that is there."""
    plan = parts.plan(canonical(evaluator), budget)
    space = parts.Grid()
    there = os.path.exists(os.path.join(folder, "study.json"))
    with resumed(folder, plan) if there else created(folder, plan, {}) as study:
        print("open", flush=True)
        search_in(study, space, made_strategy(study.plan, space), Hands(workers), parts.SPACE)


if __name__ == "__main__":
    with parts.walking():
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
