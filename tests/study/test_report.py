"""The report: what is in it, and in headless Chromium what it does."""
from __future__ import annotations

import json
import re
import sys
from itertools import product

import numpy as np
import pytest

from archdsl.spec import check_text, load, loads
from archdsl.study.reasons import by_kind, kind_of
from archdsl.study.report import gather, points
from archdsl.study.report.gather import addresses, columns, gathered, levels
from archdsl.study.report.importance import LEAST, importance, main_effects
from archdsl.study.report.page import html_report, to_json
from archdsl.study.report.points import Details, chosen, detailed
from archdsl.study.session import Asked, Hands, search
from archdsl.study.shown import share
from archdsl.study.store import Entry, Result
from archdsl.study.study import Study, locked
from tests.draw.browser import ask, needs_chromium

NET = """\
use std.channel { MLP }
use std.linear { Linear }
use std.norm { LayerNorm }
use std.residual { Pre }

model Net(
  d: int = 16 in 8..64 step 8,
  depth: int = 2 in 1..4,
  act: str = "gelu" in {"gelu", "relu"},
)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  layers: for i in range(depth) {
    choose mixer {
      mlp(ratio: int = 2 in {1, 2, 4}) => MLP(ratio * d)
      linear => Linear(d)
    } = mlp
    x = Pre(LayerNorm(), mixer)(x) as mix
  }
  return x |> LayerNorm() as norm |> Linear(d) as head
}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """90 trials of a spec, a part of which fail; macs are counted, what the function gives is measured."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "net.arch").write_text(NET)
    asked = Asked(["params:min", "score:max"], evaluator="tests.study.parts:uneven", strategy="random", budget=90, limits=["params <= 100k"])
    with search(str(folder / "net.arch"), str(folder / "study"), asked, Hands(0)) as study:
        yield study


@pytest.fixture(scope="module")
def told(study):
    return to_json(study)


@pytest.fixture(scope="module")
def page(study):
    return html_report(study)


# ---------------------------------------------------------------- data
def test_trials_are_there_as_columns(study, told):
    rows = [e for e in study.store.every() if e.status == "done"]
    table = told["table"]
    assert table["numbers"] == [e.number for e in rows] and told["whole"] == told["drawn"] == len(rows)
    assert table["values"]["params"] == [e.values["params"] for e in rows]
    for address, k in table["knobs"].items():
        for e, at in zip(rows, k["at"]):
            assert (at == -1) == (address not in e.knobs) and (at == -1 or k["levels"][at] == str(e.knobs[address]))
    assert [p["trial"] for p in told["front"]] == [e.number for e in study.front()]
    assert [table["numbers"][p["at"]] for p in told["front"]] == [p["trial"] for p in told["front"]]
    assert told["course"][-1] == (rows[-1].number + 1, pytest.approx(share(study)))
    assert [v for _, v in told["course"]] == sorted(v for _, v in told["course"])
    (failed,) = told["failures"]
    assert failed["kind"] == "raised ValueError" and failed["trials"] == study.store.failed > 0
    json.dumps(told, allow_nan=False)


def test_default_is_what_the_spec_says(study, told):
    default = told["default"]
    assert default["name"] == "Net" and default["values"] == {"params": load(study.plan.source).cost().params}  # nothing has measured its score
    assert default["knobs"]["act"] == "gelu" and default["knobs"]["layers.1.mixer.ratio"] == 2 and "layers.2.mixer" not in default["knobs"]


def test_points_have_variant_picture_and_difference(study, told, tmp_path):
    spec = load(study.plan.source)
    for p in told["front"]:
        text = NET + "\n" + p["variant"]
        assert check_text(text, str(tmp_path / "a.arch")) == []
        graph = spec.elaborate(None, dict(spec.space().from_json(p["knobs"]))).graph
        assert f"{p['values']['params']:,}" in p["difference"] and p["root"]["params"] == p["values"]["params"] == loads(text).cost(p["name"]).params
        assert loads(text).elaborate(p["name"]).graph.hash == graph.hash
    pictures = json.dumps(told["definitions"])
    assert len(pictures) < sum(len(json.dumps(walk(p["root"], told["definitions"]))) for p in told["front"]), "they have parts in common"


def walk(item, definitions):
    """An item with all that is below it."""
    return {**item, "below": [walk(b, definitions) for b in definitions[item["d"]]["items"]] if "d" in item else []}


def test_more_points_than_there_is_room_for(study, monkeypatch):
    monkeypatch.setattr(points, "ROOM", 1)
    assert list(detailed(study, Details(study))) == [chosen([tuple(o.sign * e.values[o.name] for o in study.objectives) for e in study.front()])[0]]


def test_chosen_points():
    assert chosen([]) == [] and chosen([(1.0, 1.0)]) == [0]
    line = [(float(i), float(20 - i)) for i in range(21)]
    assert chosen(line, 5) == [10, 0, 20, 5, 15]


def test_a_point_without_picture_says_why(study, monkeypatch):
    from archdsl.diagnostics.model import error
    from archdsl.source import NOWHERE

    def refuse(*_):
        raise error("A0641", "no such size", NOWHERE)

    details = Details(study)
    monkeypatch.setattr(details, "_drawn", refuse)
    point = details.of("p0", study.front()[0])
    assert point["why"] == "no such size" and point["variant"].splitlines()[1].startswith("variant p0 of Net {")


def test_thinned(study, monkeypatch):
    whole = gathered(study)
    monkeypatch.setattr(gather, "DRAWN", 20)
    few = gathered(study)
    front = {e.number for e in study.front()}
    others = [e.number for e in few.drawn if e.number not in front]
    assert front <= {e.number for e in few.drawn} and 10 <= len(others) <= 20 and (few.whole, few.course) == (whole.whole, whole.course)
    every = [e.number for e in whole.drawn if e.number not in front]
    assert others == every[:: every.index(others[1])], "evenly spaced"
    monkeypatch.setattr(gather, "CELLS", 60)
    assert sum(len(e.knobs) + len(e.values) for e in gathered(study).drawn if e.number not in front) <= 60


def test_levels():
    assert addresses([Entry(0, "", dict.fromkeys(k)) for k in (["d", "1.x", "2.x"], ["d", "1.x", "1.y", "2.x", "3.x"], ["d", "0.x", "1.x"])]) == [
        "d", "0.x", "1.x", "1.y", "2.x", "3.x"]
    texts, places = levels([10, 2, gather.ABSENT, True, "b", 1, [1, 2], None, 2.5])
    assert texts == ["1", "2", "2.5", "10", "[1,2]", "b", "none", "true"] and [texts[p] if p >= 0 else "" for p in places] == [
        "10", "2", "", "true", "b", "1", "[1,2]", "none", "2.5"]
    assert columns([Entry(3, "k", {"a": 1}, values={"x": float("nan")}, status="done")], ["x"]) == {
        "numbers": [3], "values": {"x": [None]}, "knobs": {"a": {"levels": ["1"], "at": [0]}}}


def test_kinds_of_failures():
    """Of reasons that trials really have: tests/study/test_pool.py."""
    kinds = by_kind([(4, "ValueError: b"), (5, "it took more than 2 s"), (6, "ValueError: a"), (7, "ValueError: a")])
    assert [(k.name, k.trials, k.first, k.examples) for k in kinds] == [
        ("raised ValueError", 3, 4, ["ValueError: a", "ValueError: b"]), ("over the limit of time", 1, 5, ["it took more than 2 s"])]
    assert kind_of("A0403: `x` is no figure") == "refused (A0403)" and kind_of("3 Ray workers were lost while it ran") == "crashed"
    assert kind_of("KeyError (mine.py:3)") == "raised KeyError" and kind_of("?") == "other"


# ---------------------------------------------------------------- which knobs matter
GRID = np.array(list(product(range(1, 5), range(1, 4), range(1, 7))))  # three knobs, 72 trials; place 0 is "absent"


def knobs(x):
    return {name: {"at": list(column - 1)} for name, column in zip("abc", x.T)}


def test_main_effects_are_those_of_the_tree_on_the_whole_grid():
    from sklearn.tree import DecisionTreeRegressor

    rng = np.random.default_rng(0)
    y = rng.normal(size=len(GRID))
    tree = DecisionTreeRegressor(min_samples_leaf=2, random_state=0).fit(GRID[::2], y[::2])
    weights = [np.array([0.0, *w / w.sum()]) for w in (rng.random(4), rng.random(3), np.ones(6))]
    predicted = tree.predict(GRID).reshape(4, 3, 6)
    a, b, c = (w[1:] for w in weights)
    whole = np.einsum("ijk,i,j,k->", predicted, a, b, c)
    variance = np.einsum("ijk,i,j,k->", (predicted - whole) ** 2, a, b, c)
    effects = [(w * (np.einsum(f"ijk,{others}->{own}", predicted, *rest) - whole) ** 2).sum() / variance for own, others, w, rest in (
        ("i", "j,k", a, (b, c)), ("j", "i,k", b, (a, c)), ("k", "i,j", c, (a, b)))]
    found = main_effects(tree.tree_, weights)
    assert found is not None
    np.testing.assert_allclose(found, effects, rtol=1e-10)
    flat = DecisionTreeRegressor().fit(GRID, np.zeros(len(GRID)))
    assert main_effects(flat.tree_, weights) is None


def test_importance_finds_what_a_function_depends_on():
    a, b, _ = GRID.T
    found = importance(knobs(GRID), list(3.0 * a + b))  # variances 9 · 5/4 and 2/3
    assert found.trials == 72 and min(found.explained) > 0.9 and found.why == ""
    mean = {n: np.mean(s) for n, s in found.share.items()}
    assert mean["a"] == pytest.approx(11.25 / (11.25 + 2 / 3), abs=0.05)
    assert mean["c"] < 0.02 and all(0 <= s <= 1 for v in found.share.values() for s in v)
    assert all(len(s) == 5 and len(set(s)) > 1 for n, s in found.share.items() if n == "a"), "forests differ: that is the uncertainty"
    noise = importance(knobs(GRID), list(np.random.default_rng(1).normal(size=72)))
    assert max(noise.explained) < 0.3 and "badly" in noise.why


def test_importance_is_not_made_up(monkeypatch, study):
    few = importance(knobs(GRID[: LEAST - 1]), list(np.arange(LEAST - 1.0)))
    assert few.share == {} and f"{LEAST - 1} different trials are too few" in few.why
    assert "the same value" in importance(knobs(GRID), [1.0] * 72).why
    assert "the same knobs" in importance(knobs(np.ones((50, 3), dtype=int)), list(np.arange(50.0))).why
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    assert "scikit-learn is not installed" in to_json(study)["importance"]["params"]["why"]


# ---------------------------------------------------------------- studies of all kinds
def test_one_objective_without_a_front_to_speak_of(searched, tmp_path):
    (tmp_path / "net.arch").write_text(NET)
    with search(str(tmp_path / "net.arch"), str(tmp_path / "one"), Asked(["params:min"], strategy="random", budget=5), Hands(0)) as study:
        told = to_json(study)
    assert told["hypervolume"] is None and [v for _, v in told["course"]] == sorted((v for _, v in told["course"]), reverse=True)
    assert "too few" in told["importance"]["params"]["why"]


def test_a_page_stands_alone(page):
    assert len(page.encode()) < 600_000
    drawn = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert not re.search(r"(?i)\b(src|href|action|srcset)\s*=|url\(|@import|fetch\(|XMLHttpRequest|import\(", drawn)
    assert re.findall(r"https?://\S+", drawn) == ['http://www.w3.org/2000/svg";'] and "default-src 'none'" in page
    assert "{{" not in page.replace("${{", "")


@pytest.mark.proof
@needs_chromium
def test_a_hundred_thousand_trials(tmp_path):
    """Of 400 candidates, with values that are made up: one pass over the trials, and a page of a few megabytes that a browser draws."""
    (tmp_path / "net.arch").write_text(NET)
    asked = Asked(["params:min", "score:max"], evaluator="tests.study.parts:uneven", strategy="random", budget=1)
    folder, rng = str(tmp_path / "study"), np.random.default_rng(0)
    search(str(tmp_path / "net.arch"), folder, asked, Hands(0)).store.close()
    space = load(str(tmp_path / "net.arch")).space()
    drawn = [space.sample(i) for i in range(400)]
    with locked(folder), Study(folder, write=True) as study:
        for start in range(1, 100_001, 10_000):
            numbers = range(start, start + 10_000)
            study.store.propose([Entry(n, f"{n:032x}", space.to_json(drawn[n % 400])) for n in numbers], None, range(start))
            study.store.finish([Result(n, {"params": space.costs(drawn[n % 400], ["params"])["params"], "score": rng.normal()} if n % 50 else None,
                                       "" if n % 50 else f"ValueError: {n}") for n in numbers])
    with Study(folder) as study:
        page = html_report(study)
    assert len(page.encode()) < 2_000_000
    text, failures = ask(page, "[document.getElementById('drawn').textContent, document.getElementById('kinds').textContent]", tmp_path)
    shown, whole = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+", text)[:2])
    assert 2000 < shown < 5000 and 98_000 <= whole <= 98_001 and re.search("raised ValueError2,00[01]", failures), "the first trial is one of either"


# ---------------------------------------------------------------- in a browser
@needs_chromium
def test_a_click_shows_the_point(page, told, tmp_path):
    script = """(() => {
      const dot = document.querySelector('[data-point="0"]').getBoundingClientRect();
      const event = (kind, x, y) => new PointerEvent(kind, { clientX: x, clientY: y, bubbles: true });
      document.querySelector('#scatter svg').dispatchEvent(event('click', dot.x + dot.width / 2, dot.y + dot.height / 2));
      const tabs = {};
      for (const name of ['Knobs', 'Variant', 'Picture', 'Difference']) {
        [...document.querySelectorAll('[role=tab]')].find((b) => b.textContent === name).click();
        tabs[name] = document.querySelector('[role=tabpanel]').textContent;
      }
      return { title: document.querySelector('#point h3').textContent, values: document.querySelector('#point .values').textContent, tabs,
        rows: document.querySelectorAll('#rows tbody tr').length, chosen: document.querySelector('#rows tr.chosen').textContent,
        lines: document.querySelectorAll('.line.chosen').length, fits: document.documentElement.scrollWidth <= innerWidth,
        asked: performance.getEntriesByType('resource').length, names: [...document.querySelectorAll('section h2')].map((e) => e.textContent) };
    })()"""
    found = ask(page, script, tmp_path)
    p = told["front"][0]
    assert found["title"] == f"p0: trial {p['trial']}" and f"{p['values']['params']:,}" in found["values"]
    assert found["tabs"]["Variant"].startswith(p["variant"]) and all(a in found["tabs"]["Knobs"] for a in p["knobs"])
    assert "embed" not in found["tabs"]["Picture"] and "head" in found["tabs"]["Picture"] and "Structure" in found["tabs"]["Difference"]
    assert found["rows"] == len(told["front"]) and found["chosen"].startswith("p0") and found["lines"] == 1 and found["fits"] and found["asked"] == 0
    assert found["names"] == ["Pareto front", "Trials across objectives and knobs", "Which knobs matter", "Hypervolume over trials", "Failures",
                                  "How it was searched"]


@needs_chromium
def test_brushes_and_keys(page, told, tmp_path):
    script = """(() => {
      const axis = document.querySelector('[data-axis="params"]');
      const key = (e, key) => e.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
      for (let i = 0; i < 10; i++) key(axis, 'ArrowDown');
      const some = document.getElementById('brushed').textContent, range = axis.getAttribute('aria-valuetext');
      const kept = [...state.kept].map((i) => table.values.params[i]);
      const off = document.querySelectorAll('.line.off').length, faint = document.querySelectorAll('#scatter .off').length;
      key(axis, 'Escape');
      const all = document.querySelectorAll('.line.off').length;
      const reach = axis.querySelector('.reach'), r = reach.getBoundingClientRect();
      const at = (kind, clientY) => reach.dispatchEvent(new PointerEvent(kind, { clientX: r.x + 5, clientY, pointerId: 1, bubbles: true }));
      reach.setPointerCapture = null;
      at('pointerdown', r.bottom - 1); at('pointermove', r.top + r.height / 2); at('pointerup', r.top + r.height / 2);
      const dragged = [...state.kept].length;
      document.querySelector('.chips button').click();
      const front = document.querySelector('.best[tabindex="0"]'), before = state.chosen;
      key(front, 'Home'); const first = document.activeElement.getAttribute('aria-label');
      key(document.activeElement, 'ArrowRight');
      return { some, range, kept, off, faint, all, dragged, none: state.kept, first, moved: state.chosen !== before,
        stops: document.querySelectorAll('.best[tabindex="0"]').length };
    })()"""
    found = ask(page, script, tmp_path)
    values = told["table"]["values"]["params"]
    assert found["kept"] == [v for v in values if v <= max(found["kept"])] and 0 < len(found["kept"]) < len(values)
    assert found["off"] == len(values) - len(found["kept"]) == found["faint"] and found["all"] == 0
    assert found["some"].startswith(f"{len(found['kept'])} of {len(values)} trials are in all ranges") and " to " in found["range"]
    assert 0 < found["dragged"] < len(values) and found["none"] is None
    assert found["first"].startswith("p0, trial") and found["stops"] == 1


@needs_chromium
def test_light_dark_print_and_a_narrow_window(page, tmp_path):
    color = "getComputedStyle(document.querySelector('.best')).fill"
    script = f"""(() => {{ setTheme('light'); const a = {color}; setTheme('dark');
      const print = [...document.styleSheets[0].cssRules].filter((r) => r.media?.mediaText === 'print');
      return [a, {color}, print.map((r) => r.cssText).join(), document.documentElement.scrollWidth, innerWidth,
        document.querySelectorAll('svg[role=group][aria-label]').length]; }})()"""
    light, dark, rules, wide, window, named = ask(page, script, tmp_path, "--window-size=500,900")
    assert (light, dark) == ("rgb(180, 80, 30)", "rgb(240, 138, 75)") and "display: none" in rules and wide <= window <= 500 and named == 3


@needs_chromium
def test_nothing_succeeded(tmp_path):
    (tmp_path / "net.arch").write_text(NET)
    script = "[document.getElementById('point').textContent, document.getElementById('kinds').textContent]"
    asked = Asked(["score:min"], evaluator="tests.study.parts:hopeless", strategy="random", budget=3)
    with search(str(tmp_path / "net.arch"), str(tmp_path / "none"), asked, Hands(0)) as study:
        point, kinds = ask(html_report(study), script, tmp_path)
    assert point == "No trial has succeeded." and "raised ValueError" in kinds
