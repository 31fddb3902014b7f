"""Random programs and broken texts, driven through checking, formatting, costs, the printed graph, lowering, forward and backward.

The ordinary run has forty programs and as many broken texts, always the same. `sh test.sh -m proof tests/fuzz` has ARCHDSL_FUZZ programs
(3,000 unless set) and two broken texts for each, drawn by hypothesis, which makes a failing program small: the same ones for a number
ARCHDSL_FUZZ_SEED, 0 unless set.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.drive import drive
from tests.fuzz.mutations import library_texts, mutated, shipped_texts
from tests.fuzz.programs import completed, program

COUNT = int(os.environ.get("ARCHDSL_FUZZ", "3000"))
SEED = 1_000 * int(os.environ.get("ARCHDSL_FUZZ_SEED", "0"))  # each part of a long test has one of its own
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example, HealthCheck.filter_too_much)
PARTS = max(8, COUNT // 500)  # of the long tests, for several processes
MANY = settings(max_examples=max(1, COUNT // PARTS), suppress_health_check=SLOW)
FEW = settings(max_examples=max(1, COUNT // 10 // PARTS), suppress_health_check=SLOW)
SOUND = 0.6  # of the programs, at least
rngs = st.randoms(use_true_random=False)
LIBRARY, SHIPPED = library_texts(), shipped_texts()


def driven(text: str, run: bool = True, most: int = 9, then: random.Random | None = None) -> str:
    """Shows the text when it is a fault of ours. `then`: what else may be written below it."""
    try:
        text = completed(text, then) if then is not None else text
        return drive(text, run, most)
    except BaseException:
        print(text)
        raise


# ---------------------------------------------------------------- a sample
@pytest.mark.parametrize("part", [0, 1, *(pytest.param(part, marks=pytest.mark.proof) for part in (2, 3, 4))])
def test_programs(part: int):
    reached = Counter(driven(program(random.Random(i)), then=random.Random(i)) for i in range(20 * part, 20 * part + 20))
    assert reached["run"] >= SOUND * reached.total()


@pytest.mark.parametrize("part", [0, 1, *(pytest.param(part, marks=pytest.mark.proof) for part in (2, 3, 4))])
def test_broken_texts(part: int):
    reached = Counter()
    for i in range(20 * part, 20 * part + 20):
        rng = random.Random(i)
        kind = i % 5
        if kind == 0:
            text, most = SHIPPED[rng.choice(sorted(SHIPPED))], 1
        elif kind < 3:
            text, most = LIBRARY[rng.choice(sorted(LIBRARY))], 9
        else:
            text, most = program(rng, 0), 9
        reached[driven(mutated(text, rng), run=kind > 0, most=most)] += 1
    assert len(reached) > 1, "the accidents are of one kind"


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_library_texts_are_sound(name: str):
    assert driven(LIBRARY[name]) == "run"


# ---------------------------------------------------------------- at length
@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_many_programs(part: int):
    reached: Counter[str] = Counter()

    @seed(SEED + part)
    @MANY
    @given(rngs)
    def several(rng: random.Random) -> None:
        reached[driven(program(rng), then=rng)] += 1

    several()
    print(dict(reached))
    assert reached["run"] >= SOUND * reached.total()


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_programs_with_accidents(part: int):
    @seed(SEED + part)
    @MANY
    @given(rngs)
    def several(rng: random.Random) -> None:
        driven(mutated(program(rng, 0.01), rng))

    several()


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_library_with_accidents(part: int):
    @seed(SEED + part)
    @MANY
    @given(st.sampled_from(sorted(LIBRARY)), rngs)
    def several(name: str, rng: random.Random) -> None:
        driven(mutated(LIBRARY[name], rng))

    several()


@pytest.mark.proof
@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_shipped_specs_with_accidents(part: int):
    @seed(SEED + part)
    @FEW
    @given(st.sampled_from(sorted(SHIPPED)), rngs)
    def several(name: str, rng: random.Random) -> None:
        driven(mutated(SHIPPED[name], rng, 1), run=False, most=2)

    several()
