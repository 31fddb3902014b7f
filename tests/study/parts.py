"""A space written by hand, a strategy that draws from it, and user functions that do what user functions do."""
from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from archdsl.diagnostics.model import error
from archdsl.elaborate.domains import Domain, of_values
from archdsl.search.model import Candidate, Proposal
from archdsl.search.registry import STRATEGIES, strategy
from archdsl.source import NOWHERE
from archdsl.study.plan import Plan, read_objectives

SPACE = "tests.study.parts:space_in"


class Grid:
    """Three numbers from 0 to 15, and a name; `c` counts for nothing while `kind` is "flat": then assignments that differ in it are one graph."""

    size = combinations = 16**3 * 2

    def at(self, number: int) -> Candidate | None:
        a, b, c, kind = number // 512, number // 32 % 16, number // 2 % 16, number % 2
        return self.candidate({"a": a, "b": b, "c": c, "kind": ("flat", "deep")[kind]})

    def sample(self, seed: int) -> Candidate:
        rng = random.Random(seed)
        return self.candidate({"a": rng.randrange(16), "b": rng.randrange(16), "c": rng.randrange(16), "kind": rng.choice(["flat", "deep"])})

    def mutate(self, candidate: Candidate, seed: int, strength: int = 1) -> Candidate:
        rng = random.Random(seed)
        return self.candidate({**candidate, rng.choice("abc"): rng.randrange(16)})

    def crossover(self, a: Candidate, b: Candidate, seed: int) -> Candidate:
        rng = random.Random(seed)
        return self.candidate({k: rng.choice([a[k], b[k]]) for k in a})

    def candidate(self, values) -> Candidate:
        seen = {k: v for k, v in values.items() if k != "c" or values["kind"] == "deep"}
        return Candidate(dict(values), hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32])

    def decisions(self, candidate: Candidate) -> dict[str, Domain]:
        return {**dict.fromkeys("abc", Domain("int", 0, 15, 1)), "kind": of_values(("flat", "deep"))}

    def distance(self, a: Candidate, b: Candidate) -> float:
        return sum(a[k] != b[k] for k in a) / len(a)

    def costs(self, candidate: Candidate, names) -> dict[str, float]:
        found = {"params": 10 + candidate["a"] + candidate["b"], "macs": (15 - candidate["a"]) * (1 + candidate["b"])}
        for name in names:
            if name not in found:
                raise error("A0403", f"`{name}` is no figure", NOWHERE)
        return {n: found[n] for n in names}

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        return dict(candidate)

    def from_json(self, knobs) -> Candidate:
        return self.candidate(knobs)


def space_in(folder: str) -> Grid:
    return Grid()


class Walk:
    """Draws, and mutates the best of what it has heard: its stream depends on all feedback."""

    def __init__(self, batch: int = 16) -> None:
        self.batch = batch

    def setup(self, space, objectives, seed, budget) -> None:
        self.space, self.objectives = space, objectives
        self.rng = random.Random(seed)
        self.best: tuple[float, dict[str, Any]] | None = None
        self.heard = 0

    def propose(self, n: int) -> list[Proposal]:
        return [self._one() for _ in range(n)]

    def _one(self) -> Proposal:
        seed = self.rng.getrandbits(32)
        if self.best is not None and self.rng.random() < 0.5:
            return Proposal(self.space.mutate(self.space.from_json(self.best[1]), seed), origin="mutate")
        return Proposal(self.space.sample(seed))

    def feedback(self, trials) -> None:
        for t in trials:
            self.heard += 1
            if t.status == "done" and (self.best is None or sum(t.scores(self.objectives)) < self.best[0]):
                self.best = sum(t.scores(self.objectives)), self.space.to_json(t.candidate)

    def state(self):
        version, words, gauss = self.rng.getstate()
        return {"rng": [version, list(words), gauss], "best": self.best, "heard": self.heard}

    def restore(self, state) -> None:
        version, words, gauss = state["rng"]
        self.rng.setstate((version, tuple(words), gauss))
        self.best = tuple(state["best"]) if state["best"] else None
        self.heard = state["heard"]


@contextmanager
def walking() -> Iterator[None]:
    """The strategy `walk` is there, inside and no longer."""
    with STRATEGIES.apart():
        strategy("walk(batch: int = 16)")(Walk)
        yield


def plan(evaluator: str = "cost", budget: int = 64, objectives=("params:min", "macs:min"), strategy: str = "walk", **more: Any) -> Plan:
    return Plan(spec="net.arch", source="net.arch", model="Net", variant=None, files={}, objectives=read_objectives(objectives),
                strategy=strategy, evaluator=evaluator, seed=more.pop("seed", 3), budget=budget, **more)


def archive(store) -> list[tuple[Any, ...]]:
    """Everything that is kept of all trials, but for the time they took."""
    return [(e.number, e.key, e.knobs, e.fidelity, e.origin, e.parents, e.status, e.values, e.reason, e.same_as) for e in store.every()]


# ---------------------------------------------------------------- user functions
def exact(candidate, seed, fidelity) -> dict[str, float]:
    """A measurement that depends on the candidate and its seed alone, after a little while."""
    time.sleep(0.002 * (candidate["a"] % 3))
    return {"loss": candidate["b"] + seed % 97 / 97, "seen": fidelity}


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def trouble(candidate) -> Any:
    """All that can go wrong, by the value of `a`."""
    match candidate["a"]:
        case 0: raise ValueError("no such\n  thing")
        case 1: return {"loss": float("nan")}
        case 2: return {"loss": "0.5"}
        case 3: return {"accuracy": 1.0, "size": 3}
        case 4: return [1.0]
        case 5: os.kill(os.getpid(), signal.SIGSEGV)
        case 6: os._exit(7)
        case 7: raise SystemExit("enough")
        case 8: time.sleep(600)
        case 9:
            taken = bytearray(400_000_000)
            taken[:: 4096] = b"x" * len(taken[:: 4096])
            time.sleep(600)
        case 10: raise MemoryError
        case 11: return {"loss": None}
        case 12: return {"loss": 10**400}
        case 13: return {"loss": 1.0, 3: 1.0}
        case 14: raise Unspeakable
    return {"loss": float(candidate["b"])}


def parent(candidate) -> dict[str, float]:
    """Starts a process, says which, and waits for it."""
    import subprocess

    child = subprocess.Popen(["sleep", "600"])
    with open(candidate["file"] + ".new", "w") as file:
        file.write(str(child.pid))
    os.replace(candidate["file"] + ".new", candidate["file"])
    return {"loss": float(child.wait())}


def greedy(candidate, gpu) -> dict[str, float]:
    return {"loss": 0.0}


def crashing_space(folder: str) -> Grid:
    print("so it goes", flush=True)
    os._exit(9)


def marked(candidate, seed, fidelity) -> dict[str, float]:
    """As `exact`; the first call of all notes its process in a file and hangs, so that it can be killed."""
    mark = os.environ.get("ARCHDSL_TEST_MARK")
    if mark and not os.path.exists(mark):
        with open(f"{mark}.{os.getpid()}", "w") as file:
            file.write(str(os.getpid()))
        os.rename(f"{mark}.{os.getpid()}", mark)
        time.sleep(600)
    return exact(candidate, seed, fidelity)


def mostly(candidate) -> dict[str, float]:
    """Fails for a part of the space; measures something beside the objective that is no number."""
    if candidate["a"] < 5:
        raise ValueError("too small")
    return {"loss": float(candidate["b"]), "ratio": float("nan")}


def hopeless(candidate) -> dict[str, float]:
    raise ValueError("hopeless")


def starved(candidate) -> dict[str, float]:
    raise MemoryError


def uneven(candidate) -> dict[str, float]:
    """Of a spec with `d` and `depth`."""
    if candidate["depth"] == 3:
        raise ValueError("not three: </script><script>alert(1)</script>")
    return {"score": candidate["d"] * candidate["depth"] + (candidate["act"] == "relu")}
