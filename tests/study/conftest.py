from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest

from archdsl.search.evaluators.texts import canonical
from archdsl.study.session import Hands, made_strategy, search_in
from archdsl.study.study import created, resumed
from tests.study import parts


@pytest.fixture(autouse=True, scope="module")
def walk():
    """The strategy of these tests, for these tests alone."""
    with parts.walking():
        yield


@pytest.fixture
def searched(tmp_path):
    """A function that runs a plan in a folder, or goes on with it, and gives the study while it is open."""

    @contextmanager
    def run(plan, hands=Hands(0), name="study", resume=False):  # noqa: B008  frozen
        plan = replace(plan, evaluator=canonical(plan.evaluator))
        space = parts.Grid()
        with resumed(tmp_path / name, plan) if resume else created(tmp_path / name, plan, {}) as study:
            search_in(study, space, made_strategy(study.plan, space), hands, parts.SPACE)
            yield study

    return run
