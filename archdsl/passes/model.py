"""`Model`: a graph with its weights and where both come from. What every step takes and returns."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archdsl.elaborate.model import Elaborated
from archdsl.graph import Graph
from archdsl.passes.context import Context, Given
from archdsl.passes.edit import Rewrite
from archdsl.passes.manager import Order, keyed, of_step, rewrite
from archdsl.passes.step import Step
from archdsl.passes.weights import Initial, Rewritten, Weights
from archdsl.records import field, record, replace
from archdsl.weightmap import Entry, MapError, WeightMap

if TYPE_CHECKING:
    from archdsl.kernels.target import Kernels
    from archdsl.lower.module import ArchModule
    from archdsl.passes.foreign import Foreign
    from archdsl.spec import Spec

Watch = Callable[[Step, "Model"], None]


@record(frozen=True)
class Applied:
    """One step of a recipe: its text, the decisions it was given (`ADDRESS@step` -> JSON value), the hash of the graph it made, its notes."""

    step: str
    graph: str
    decisions: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "decisions": self.decisions, "graph": self.graph, "notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Applied:
        """Raises KeyError or TypeError for data that no recipe has written."""
        return cls(data["step"], data["graph"], dict(data["decisions"]), tuple(data["notes"]))


@record()
class Passing:
    """What `archdsl compile` is told of passes: `steps` behind a variant's own; `decisions` (`ADDRESS@step` -> JSON value); `given`: data, models and
    tables by name; `check`: compare numbers around each step; `earlier`: the recipe of the folder that is compiled again; `watch(step, model)` behind
    each step."""

    steps: tuple[Step, ...] = ()
    decisions: dict[str, Any] = field(default_factory=dict)
    given: Given = field(default_factory=Given)
    check: bool = False
    earlier: tuple[Applied, ...] = ()
    watch: Watch | None = None

    def model(self, spec: Spec, variant: str | None, knobs: dict[str, Any], **start: Any) -> Model:
        """The model behind all steps."""
        first = replace(Model.start(spec, variant, knobs, **start), recipe=self.earlier)
        return first.apply(*spec.steps(variant, knobs), *self.steps, decisions=self.decisions, check=self.check, given=self.given, watch=self.watch)


@record(frozen=True)
class Begun:
    """The spec, variant and settings with which steps began; `given`: foreign names, where the spec does not say them."""

    spec: Spec
    variant: str | None
    settings: dict[str, Any]
    given: Mapping[str, Foreign] | None = None

    @property
    def names(self) -> Mapping[str, Foreign]:
        """From the weights of the model before all steps to foreign keys."""
        return self.given if self.given is not None else self.spec.names(self.variant, self.settings)


@record(frozen=True, slots=False)
class Model:
    """`made`: the typed graph with its interface. `weights`: address -> tensor, made when asked for. `names`: from the addresses of the first graph
    to those weights of this one that are theirs, renamed, sliced or joined; weights that hold an expression of several are in none of its entries.
    `lost`: the weights of the first graph that are no longer there, `fresh`: those of this one that none of the first became, each with the step that
    did it. `begun`: the spec before all steps. `recipe`: the steps so far. `dtype`: torch's float type, or None for its default. A model never
    changes; steps make new ones.
    """

    made: Elaborated
    weights: Weights
    names: WeightMap
    recipe: tuple[Applied, ...] = ()
    dtype: Any = None
    lost: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    begun: Begun | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, spec: Spec, variant: str | None = None, knobs: Mapping[str, Any] | None = None, *, seed: int = 0, dtype: Any = None,
           weights: Mapping[str, Any] | None = None, source: str | None = None, data: Mapping[str, Any] | None = None,
           models: Mapping[str, Any] | None = None) -> Model:
        """The model that a spec describes, its own `transform`s applied. `knobs`: address -> value. `weights`: a state dict under the names of the
        model before them, or under the foreign names `source`; without it, the initial values for the seed. `data`, `models`: as for `apply`."""
        start = cls.start(spec, variant, knobs, seed=seed, dtype=dtype, weights=weights, source=source)
        return start.apply(*spec.steps(variant, dict(knobs or {})), data=data, models=models)

    @classmethod
    def start(cls, spec: Spec, variant: str | None = None, knobs: Mapping[str, Any] | None = None, *, seed: int = 0, dtype: Any = None,
              weights: Mapping[str, Any] | None = None, source: str | None = None, names: Mapping[str, Foreign] | None = None) -> Model:
        """The model as it is written, before any `transform`; otherwise as `of`. `names`: its foreign names, where the spec does not say them."""
        if not hasattr(spec, "elaborate"):
            raise TypeError(f"a spec is needed, as `archdsl.load` gives, not {type(spec).__name__}: of a model `m` that is built or opened it is "
                            "`m.archdsl.spec`, its weights are `weights = m.state_dict()`")
        settings = dict(knobs or {})
        made = spec.source(variant, settings)
        start = cls(made, Initial(made.graph, seed, dtype), _same(made.graph), dtype=dtype, begun=Begun(spec, variant, settings, names))
        return start if weights is None else start.loaded(weights, source)

    def loaded(self, weights: Mapping[str, Any], source: str | None = None) -> Model:
        """The same graph with other weights, under its own names or the foreign ones `source`. Raises ArchError A0541, A0542, A0546."""
        from archdsl.store import load_state

        built = self.build(form="parallel")
        load_state(built, weights, source)
        return replace(self, weights=state_of(built, self.graph))

    def __repr__(self) -> str:
        steps = ", ".join(a.step for a in self.recipe)
        return f"Model({self.graph.name}, {self.graph.weight_count} weights{f', behind {steps}' if steps else ''})"

    @property
    def graph(self) -> Graph:
        return self.made.graph

    @cached_property
    def float_type(self) -> Any:
        """torch's float type of the weights."""
        from archdsl.lower.build import float_type

        return float_type(self.dtype)

    # ---------------------------------------------------------------- steps
    def apply(self, *steps: Step | str, decisions: Mapping[str, Any] | None = None, check: bool = False, data: Mapping[str, Any] | None = None,
              models: Mapping[str, Any] | None = None, tables: Mapping[str, Any] | None = None, given: Given | None = None,
              watch: Watch | None = None) -> Model:
        """The model after some steps. `decisions`: `ADDRESS@step` -> JSON value, in place of what a step would decide itself. `check`: compare each
        step's output with its input as its contract says (A0566). What the names behind `using` stand for: `data` (name -> input -> tensor, all
        samples along the first axis, or a file of them), `models` (name -> built model, or a compiled folder), `tables` (name -> JSON); or `given`
        with all three. `watch(step, model)` is called behind each step."""
        model, given = self, given or Given(data or {}, models or {}, tables or {})
        order = Order(f for a in self.recipe for f in Step.parse(a.step).rule.provides)
        for step in steps:
            step = Step.parse(step) if isinstance(step, str) else step
            order.enter(step)
            model = model._one(step, decisions or {}, check, given)
            if watch is not None:
                watch(step, model)
        return model

    def _one(self, step: Step, decisions: Mapping[str, Any], check: bool, given: Given) -> Model:
        own = of_step(decisions, step)
        if step.rule.decider is not None and not own:
            own = step.rule.decider(self, Context(step, given), **step.options)
        done = rewrite(self.made, step, keyed(own, step), given.tables)
        notes = done.notes
        names = _composed(self.names, done, step.rule.fills)
        still, here = set(names.sources()), set(names.targets())
        after = replace(self, made=replace(self.made, graph=done.graph), weights=Rewritten(self.weights, done, lambda: self.float_type), names=names,
                        lost={**self.lost, **{a: str(step) for a in self.names.sources() if a not in still}},
                        fresh={a: self.fresh.get(a, str(step)) for a in saved(done.graph) if a not in here},
                        recipe=(*self.recipe, Applied(str(step), done.graph.hash, keyed(own, step), notes)))
        if check:
            from archdsl.passes.check import require

            measured = [str(f) for f in require(self, after, done, step) if f.allowed is None]
            after = replace(after, recipe=(*self.recipe, replace(after.recipe[-1], notes=(*notes, *measured))))
        return after

    # ---------------------------------------------------------------- torch
    @property
    def foreign(self) -> dict[str, Foreign]:
        """The blocks of names of the spec, from these weights to foreign keys; `Prevented` where a step has changed what they name."""
        from archdsl.passes.foreign import carried

        return carried(self, self.begun.names) if self.begun is not None else {}

    def state_dict(self) -> dict[str, Any]:
        """All weights that the model saves."""
        return {a: self.weights[a] for a in saved(self.graph)}

    def build(self, device: Any = "cpu", emit: str | Iterable[str] = (), flat: bool = False, bind: Mapping[str, Any] | None = None,
              form: str | None = None, feed: str | Iterable[str] = (), rewrites: Iterable[str] | None = None,
              kernels: Kernels = None, loss: str | None = None) -> ArchModule:
        """The trainable torch.fx.GraphModule with these weights. Raises ArchError A0501 for a form that the model does not have."""
        import torch

        from archdsl.lower import lower
        from archdsl.streaming import source

        built = lower(self.graph, device=device, dtype=self.float_type, emit=emit, flat=flat, bind=bind,
                      form=form or self.made.form, source=source(self.made, rewrites), feed=feed, kernels=kernels, loss=loss)
        if str(device) != "meta":
            with torch.no_grad():
                held = {**dict(built.named_buffers(remove_duplicate=False)), **dict(built.named_parameters(remove_duplicate=False))}
                for address in self.weights:
                    held[address].copy_(self.weights[address])
        if self.begun is not None:
            from archdsl.origin import Origin
            from archdsl.spec import setting_text

            b = self.begun
            built.archdsl = Origin(b.spec.path, b.spec.name, b.variant, {a: setting_text(v) for a, v in b.settings.items()}, self.graph,
                                   lambda: self.foreign, b.spec)
        return built


def state_of(module: Any, graph: Graph) -> dict[str, Any]:
    """Address -> detached tensor of a lowered module's weights."""
    held = {**dict(module.named_buffers(remove_duplicate=False)), **dict(module.named_parameters(remove_duplicate=False))}
    return {a: held[a].detach() for a, _ in graph.parameters()}


def saved(graph: Graph) -> list[str]:
    """The addresses of all weights that a model saves."""
    return [a for a, p in graph.parameters() if p.kind != "const"]


def _same(graph: Graph) -> WeightMap:
    return WeightMap(tuple(Entry((a,), (a,)) for a in saved(graph)))


def _composed(names: WeightMap, done: Rewrite, fills: bool) -> WeightMap:
    """The map after a step: through its moves, or address by address where it makes none; without weights that hold expressions. A step that `fills`
    weights leaves them what they were."""
    now = set(saved(done.graph))
    other = {a for e in done.names.entries for a in (*e.source, *e.target)} | (set() if fills else set(done.values))
    entries = [*done.names.entries, *(Entry((a,), (a,)) for e in names.entries for a in e.target if a in now - other)]
    first = {e.target: e for e in names.entries}
    out: list[Entry] = []
    for e in entries:
        if e.source in first:
            known = first[e.source]
            out.append(Entry(known.source, e.target, (*known.steps, *e.steps)))
        elif all((s,) in first and not first[(s,)].steps for s in e.source):
            out.append(Entry(tuple(first[(s,)].source[0] for s in e.source), e.target, e.steps))
        elif any(s in {t for k in names.entries for t in k.target} for s in e.source):
            raise MapError(f"{', '.join(e.source)} were joined before and cannot be moved apart")
    return WeightMap(tuple(out))
