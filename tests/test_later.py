"""Graphs that are made when somebody looks into them: what is known without, what looking makes, faults, copies, and who looks."""
from __future__ import annotations

import copy
import pickle
from pathlib import Path
from threading import Barrier, Thread

import pytest

from archdsl.graph import Graph
from archdsl.later import Later, later
from archdsl.passes import roll
from archdsl.spec import check_file, loads

SHIPPED = Path(__file__).resolve().parents[1] / "specs"

DEEP = """
use std { Linear, Pre, LayerNorm }
block Layer(rate: float)(x: [B, d]) -> [B, d] { return Pre(LayerNorm(), Linear(d), drop = rate)(x) as map }
model Net(depth: int = 3)(x: [B = 2, 8]) -> y: [B, 8] {
  layers: for i in range(depth) { x = Layer((i + 1) * 0.125)(x) as _ }
  return x
}
"""


def _small() -> Graph:
    return loads("model Net()(x: [B, 4]) -> y: [B, 4] { return relu(x) }").graph()


def test_what_is_known_needs_no_looking_and_what_is_not_is_made_once():
    made: list[Graph] = []
    graph = later(lambda: made.append(_small()) or made[-1], name="Other")
    assert graph.name == "Other" and isinstance(graph, Later) and not made
    nodes = graph.nodes
    assert nodes is made[0].nodes and type(graph) is Graph and graph.outputs is made[0].outputs and len(made) == 1
    assert graph.name == "Other" and graph.hash == _small().hash
    with pytest.raises(AttributeError):
        graph.weight  # noqa: B018


@pytest.mark.parametrize("duplicate", [lambda g: pickle.loads(pickle.dumps(g)), copy.deepcopy, copy.copy])
def test_copies_are_plain_graphs(duplicate):
    graph = duplicate(later(_small))
    assert type(graph) is Graph and graph.hash == _small().hash and "_make" not in graph.__dict__


def test_a_fault_is_met_by_each_who_looks():
    def broken() -> Graph:
        raise ValueError("no")

    graph = later(broken)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            graph.nodes  # noqa: B018


def test_one_that_gives_another_of_its_kind():
    graph = later(lambda: later(_small, name="Inner"), name="Outer")
    assert [n.op for n in graph.nodes] == ["input", "relu"] and (type(graph), graph.name) == (Graph, "Outer")


def test_threads_see_one_set_of_nodes():
    for _ in range(20):
        graph, start, seen = later(_small), Barrier(4), []

        def look(graph=graph, start=start, seen=seen) -> None:
            start.wait()
            seen.append((graph.nodes, graph.outputs[0].node))

        threads = [Thread(target=look) for _ in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert len(seen) == 4 and all(nodes is seen[0][0] and any(n is last for n in nodes) for nodes, last in seen)


def test_passes_of_a_loop_that_differ_in_a_rate_are_made_when_looked_at():
    graph = loads(DEEP).graph()
    passes = [g for n, g in graph.children.items() if n.startswith("layers.")]
    assert len(passes) == 3 and all(isinstance(g, Later) for g in passes), "a check does not look at them"
    assert [len(list(g.parameters())) for g in passes] == [4] * 3 and all(isinstance(g, Later) for g in passes)
    assert [n.attrs["rate"] for g in passes for d in g.definitions() for n in d.nodes if n.op == "drop_path"] == [0.125, 0.25, 0.375]
    assert all(type(g) is Graph for g in passes)


def test_a_check_folds_no_model_that_nobody_looks_at(monkeypatch):
    folded: list[str] = []
    real = roll._Roll.run
    monkeypatch.setattr(roll._Roll, "run", lambda self: folded.append(self.flat.source.name) or real(self))
    assert check_file(str(SHIPPED / "general" / "pre_rmsnorm.arch")) == []
    assert folded == ["GPT"], "of `claim small_crms { causal(logits, tokens) }` alone"
