"""`ArchModule`: a torch.fx.GraphModule whose class, generated once for each definition, is shared by all its instances.

torch makes a class for each GraphModule. Here 80 equal layers are instances of one class with one `forward`, so compiled code, printing and
memory do not grow with depth. The class carries the fx graph and the typed graph; instances carry weights. Copies, pickles and checkpoints
come back to the shared class. Editing an instance's graph gives that instance a class of its own.
"""
from __future__ import annotations

import copy
import linecache
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import fx, nn
from torch.fx.graph import PythonCode
from torch.fx.graph_module import _forward_from_src
from torch.fx.node import map_arg

from archdsl.alone import ALONE, alone
from archdsl.graph import Graph
from archdsl.kernels.eager import functional
from archdsl.lower.codegen import Code, generate
from archdsl.lower.containers import AtFirst, without_rare
from archdsl.lower.element_types import call
from archdsl.lower.parts import Part, recompute_contexts
from archdsl.lower.plan import Definition
from archdsl.lower.trace import Traced, trace
from archdsl.source import NOWHERE, Span

if TYPE_CHECKING:
    from archdsl.origin import Origin

_CLASSES: weakref.WeakValueDictionary[tuple[Any, bool], _Alike] = weakref.WeakValueDictionary()
_OWN = ("_graph", "_compiled_call_impl", "_forms", "_decoders")
"""What no copy takes along."""
_SHARED_DICTS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class _Written:
    """`forward` and its text, of a class from whose graph no code has been made: it is made when one of them is asked for. Most candidates of a
    search are never called."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type[ArchModule]) -> Any:
        made = next((c for c in owner.__mro__ if "definition" in c.__dict__), None)
        if made is None:
            raise AttributeError(f"{owner.__name__} has no `{self.name}`: it is made for each definition")
        write(made)
        found = made.__dict__[self.name]
        return found if instance is None or isinstance(found, str) else found.__get__(instance, owner)


class ArchModule(fx.GraphModule):
    """A lowered block. `typed` is its typed graph; `graph` hands out this instance's private copy of the fx graph."""

    definition: ClassVar[Definition]
    archdsl: Origin
    detached: ClassVar[bool] = False
    rematerialised: ClassVar[bool] = False
    _alike: ClassVar[_Alike]
    _parts: ClassVar[dict[str, Part]] = {}
    _graph: fx.Graph
    _code: str = _Written()  # type: ignore[assignment]
    forward: Callable[..., Any] = _Written()  # type: ignore[assignment]
    shape_env = _tracer_cls = None
    meta, _tracer_extras = AtFirst(dict), AtFirst(dict)  # type: ignore[assignment]
    _replace_hooks, _create_node_hooks, _erase_node_hooks, _deepcopy_hooks = (AtFirst(list) for _ in range(4))  # type: ignore[assignment]
    _non_persistent_buffers_set = AtFirst(set)  # type: ignore[assignment]
    _forward_hooks_with_kwargs, _forward_hooks_always_called, _forward_pre_hooks_with_kwargs = (  # type: ignore[assignment]
        AtFirst(OrderedDict) for _ in range(3))
    _state_dict_hooks, _state_dict_pre_hooks = AtFirst(OrderedDict), AtFirst(OrderedDict)  # type: ignore[assignment]
    _load_state_dict_pre_hooks, _load_state_dict_post_hooks = AtFirst(OrderedDict), AtFirst(OrderedDict)  # type: ignore[assignment]

    def __new__(cls, *args: Any, **kwargs: Any) -> ArchModule:
        return nn.Module.__new__(cls)

    def __init__(self) -> None:
        nn.Module.__init__(self)
        without_rare(self)

    @property
    def typed(self) -> Graph:
        """The typed graph that this block was lowered from."""
        return self.__dict__.get("_typed") or type(self).definition.source

    def _repr_html_(self) -> str | None:
        """The picture of the whole model, for notebooks; a part of it has none."""
        from archdsl.draw.built import built_page

        origin = self.__dict__.get("archdsl")
        return None if origin is None else built_page(origin)

    def extra_repr(self) -> str:
        """The weights of the block's own, with their shapes, for `print(model)`."""
        own = {**self._parameters, **self._buffers}
        return ", ".join(f"{name}: {list(t.shape)}" for name, t in own.items() if t is not None and name not in self._non_persistent_buffers_set)

    # ---------------------------------------------------------------- the state of a form that keeps one
    def init_state(self, batch: int = 1, length: int | None = None, **sizes: int) -> dict[str, torch.Tensor]:
        """The state before the first position, address -> tensor, on the model's device: what `forward` takes behind its inputs and gives behind
        its outputs. `length`: how many positions there is room for, where the state grows with them (default: the example size in the spec, and
        `delay`).
        `sizes`: further sizes of the inputs, by name. Raises ValueError for a model in the form `parallel`, for sizes that are missing, too large or
        not the model's, RuntimeError where there is no room for the state."""
        from archdsl.lower.state import init_state

        return init_state(self, batch, length, **sizes)

    def reorder_state(self, state: dict[str, torch.Tensor], rows: Any) -> dict[str, torch.Tensor]:
        """The state whose row i is the old row `rows[i]`. Raises ValueError for rows that there are not."""
        from archdsl.lower.state import reorder_state

        return reorder_state(self, state, rows)

    def reset_state(self, state: dict[str, torch.Tensor], rows: Iterable[int]) -> dict[str, torch.Tensor]:
        """The state with some rows begun anew: their next position is their first. Raises ValueError for rows that there are not."""
        from archdsl.lower.state import reset_state

        return reset_state(self, state, rows)

    def stack_states(self, states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """One state of several, row behind row, for calls that serve all of them. Raises ValueError for states that are at different positions, or
        that differ in room or type."""
        from archdsl.lower.state import stack_states

        return stack_states(self, states)

    @property
    def delay(self) -> int:
        """How many positions late a form with state gives its results, where an op looks ahead: what a call gives at position t is the parallel
        form's result at t - delay, and 0 before the first. 0 for other models."""
        streamed = self.__dict__.get("_streamed")
        return 0 if streamed is None else streamed.delay

    def end_state(self, state: dict[str, torch.Tensor], rows: Iterable[int] | None = None) -> dict[str, torch.Tensor]:
        """The state of a sequence, or of these rows, that ends here: `delay` more positions, whatever they hold, bring its last results. Raises
        ValueError before the first position, and for rows that do not end apart."""
        from archdsl.lower.state import end_state

        return end_state(self, state, rows)

    def flush(self, state: dict[str, torch.Tensor], *others: torch.Tensor) -> tuple[Any, dict[str, torch.Tensor]]:
        """(the last `delay` results of a sequence that ends here, the state behind them). `others`: the inputs of the form that have no positions.
        Raises ValueError for a model whose results come at once."""
        from archdsl.lower.state import flush

        return flush(self, state, others)

    # ---------------------------------------------------------------- the fx graph
    @property
    def graph(self) -> fx.Graph:  # type: ignore[override]
        """A private copy: edit it, then call `recompile()`, which gives this instance a class of its own."""
        if "_graph" not in self.__dict__:
            own = copy.deepcopy(type(self)._graph)
            own.owning_module = self
            if torch.compiler.is_exporting():  # torch 2.9 refuses modules that have other attributes behind their call
                return own
            self.__dict__["_graph"] = own
        return self.__dict__["_graph"]

    @graph.setter
    def graph(self, g: fx.Graph) -> None:
        if not isinstance(g, fx.Graph):
            raise TypeError(f"a torch.fx.Graph is needed, not {type(g).__name__}")
        g.owning_module = self
        self.__dict__["_graph"] = g
        self.recompile()

    def recompile(self) -> PythonCode:
        """Generates `forward` from `graph`, for this instance alone."""
        python_code = self.graph.python_code(root_module="self")
        forward = _forward_from_src(python_code.src, python_code.globals)
        base = type(self)
        if base.rematerialised:
            forward = _with_checkpoint(forward)
        body = {"forward": forward, "_code": python_code.src, "detached": True, "_lineno_map": python_code._lineno_map,
                "_prologue_start": getattr(python_code, "_prologue_start", 0), "__module__": base.__module__}
        self.__class__ = type(base.__name__, (base.__bases__[0] if base.detached else base,), body)
        return python_code

    # ---------------------------------------------------------------- constants
    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> ArchModule:
        """Tables and consts are no part of a state dict: when the model leaves the meta device, they get their values back."""
        absent = [name for name, value in constants(self).items() if value.is_meta]
        super()._apply(fn, recurse)
        if absent:
            fill_constants(self, absent)
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        with_code(self)
        super().compile(*args, **kwargs)

    # ---------------------------------------------------------------- copies
    def __deepcopy__(self, memo: dict[int, Any]) -> ArchModule:
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        memo.update({id(v): v for v in (self.__dict__.get("_typed"),) if v is not None})
        new.__dict__.update({k: copy.deepcopy(v, memo) for k, v in self.__dict__.items() if k not in _OWN})
        if type(self).detached:
            new.graph = copy.deepcopy(self.graph)
        for hook in self.__dict__.get("_deepcopy_hooks", ()):
            hook(new)
        return new

    def __copy__(self) -> ArchModule:
        new = type(self).__new__(type(self))
        new.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ("_graph", "_forms", "_decoders")})
        new.__dict__.update({k: copy.copy(self.__dict__[k]) for k in _SHARED_DICTS if k in self.__dict__})
        if type(self).detached:
            new.graph = copy.deepcopy(self.graph)
        return new

    def _replicate_for_data_parallel(self) -> ArchModule:
        return nn.Module._replicate_for_data_parallel(self)  # type: ignore[return-value]

    def __reduce__(self) -> tuple[Any, ...]:
        cls = type(self)
        state = {k: v for k, v in self.__dict__.items() if k not in _OWN}
        if cls.detached:
            state["_edited"] = _packed(self.graph)
        return _restore, (cls.definition, cls.rematerialised), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        edited = state.pop("_edited", None)
        nn.Module.__setstate__(self, state)
        without_rare(self)
        if edited is not None:
            self.graph = _unpacked(edited)

    # ---------------------------------------------------------------- reading
    def __str__(self) -> str:
        return f"{nn.Module.__repr__(self)}\n\n{self._code}"

    def print_readable(self, print_output: bool = True, *args: Any, **kwargs: Any) -> str:
        """The generated code of this block and, once for each class, of the blocks inside."""
        seen: dict[type, str] = {}
        for module in self.modules():
            if isinstance(module, ArchModule) and type(module) not in seen:
                lines = "\n".join(f"    {line}" if line else "" for line in module.code.strip().splitlines())
                seen[type(module)] = f"class {type(module).__name__}(torch.nn.Module):\n{lines}\n"
        text = "\n".join(seen.values())
        if print_output:
            print(text)
        return text


# ---------------------------------------------------------------- constants
def constants(module: ArchModule) -> dict[str, torch.Tensor]:
    """Name or path -> tensor of what a module computes when it is built: its tables, and its consts but for those of the modules below."""
    cls = type(module)
    names = [name for name, part in cls._parts.items() if part.kind == "constant"]
    if any(p.kind == "const" for _, p in cls.definition.graph.parameters()):
        names += _consts(cls.definition)
    return {name: module.get_buffer(name) for name in names}


def _consts(definition: Definition) -> list[str]:
    below = tuple(f"{path}." for path in definition.children)
    return [path for path, p in definition.graph.parameters() if p.kind == "const" and not path.startswith(below)]


def fill_constants(module: ArchModule, names: Iterable[str]) -> None:
    """Writes the values of a module's own constants, where they have storage."""
    from archdsl.lower.init import Initial, plain_torch

    cls = type(module)
    held = constants(module)
    floats = [t.dtype for t in held.values() if t.is_floating_point()]
    initial = Initial(cls.definition.graph, 0, max(floats, key=lambda d: d.itemsize, default=torch.float32))
    with plain_torch():
        for name in names:
            if not held[name].is_meta:
                part = cls._parts.get(name)
                value = part.value if part is not None else initial.value(name)
                assert value is not None, name
                held[name].copy_(value)


def with_tables(model: nn.Module) -> None:
    """Gives a model that was built on the meta device its tables on the CPU, in new buffers."""
    for module in model.modules():
        if isinstance(module, ArchModule):
            for name, part in type(module)._parts.items():
                if part.kind == "constant":
                    assert part.value is not None
                    module._buffers[name] = part.value.clone()


# ---------------------------------------------------------------- classes
class _Alike:
    """The classes of definitions with one outline, which hold this; few outlines have more than one."""

    def __init__(self) -> None:
        self.classes: list[weakref.ref[type[ArchModule]]] = []

    def find(self, definition: Definition) -> type[ArchModule] | None:
        """The class of an equal definition. Keys are made where outlines are equal: each candidate of a search has one of its own."""
        known = [c for c in (ref() for ref in self.classes) if c is not None]
        self.classes = [weakref.ref(c) for c in known]
        return next((c for c in known if c.definition is definition or c.definition.key == definition.key), None)


@alone
def class_of(definition: Definition, rematerialised: bool = False) -> type[ArchModule]:
    """The class of a definition: made on first use, kept while an instance lives."""
    at = definition.outline, rematerialised
    alike = _CLASSES.get(at)
    cls = None if alike is None else alike.find(definition)
    if cls is None:
        cls = _checkpointed(class_of(definition)) if rematerialised else _generate(definition)
        alike = _CLASSES.setdefault(at, _Alike())
        alike.classes.append(weakref.ref(cls))
        cls._alike = alike
    return cls


def _generate(definition: Definition) -> type[ArchModule]:
    traced: Traced = trace(definition)
    body = {"definition": definition, "_graph": traced.graph, "_parts": traced.parts, "_lineno_map": {}, "_prologue_start": None,
            "__doc__": definition.source.doc or None, "__module__": __name__}
    if definition.root:
        body["__call__"] = call
    return type(definition.name, (ArchModule,), body)


def with_code(model: nn.Module) -> None:
    """Makes the code of all blocks, where there is none: what torch's compiler would look into, were it made while it traces (torch 2.11 refuses)."""
    for _, block in blocks(model):
        _ = type(block).forward


def write(cls: type[ArchModule]) -> None:
    """Makes the code of a class, where there is none. Nothing that a compiler of graphs has to look into: torch 2.9 could not."""
    with ALONE:
        if "forward" not in cls.__dict__:
            code = generate(cls._graph)
            forward, file = _compile(cls.definition, code)
            cls._code, cls.forward = code.text, forward
            weakref.finalize(cls, linecache.cache.pop, file, None)


write._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]  (torch.compiler.assume_constant_result would import the compiler)


def _compile(definition: Definition, code: Code) -> tuple[Callable[..., Any], str]:
    """The function, under a file name of its own whose lines end with the place in the spec: so do the lines of tracebacks."""
    file = f"<archdsl {definition.name} {definition.key[:12]}>"
    own = set(code.lines)
    spans = [definition.source.span, *(_span(n, own) for n in code.lines[1:] if n is not None)]
    lines = [f"{line}{_place(span)}" for line, span in zip(code.text.splitlines(), spans)]
    text = "\n".join(lines) + "\n"
    linecache.cache[file] = (len(text), None, [f"{line}\n" for line in lines], file)
    namespace = code.globals | functional(definition.target)
    exec(compile(text, file, "exec", dont_inherit=True), namespace)
    forward = namespace.pop("forward")
    forward.__qualname__ = f"{definition.name}.forward"
    return forward, file


def _span(node: fx.Node, own: set[fx.Node | None]) -> Span:
    """Where a line stands in the spec: that of results is where the last of them is computed that has no line of its own."""
    given = node.all_input_nodes if node.op == "output" else []
    computed = [n for n in given if n not in own and n.op.startswith("call")]
    return (computed[-1] if computed else node).meta.get("arch", NOWHERE)


def _place(span: Span | None) -> str:
    if span is None or span.source is NOWHERE.source:
        return ""
    line, _ = span.source.position(span.start)
    return f"  # {span.source.path}:{line}: {span.source.line(line).strip()}"


def _checkpointed(base: type[ArchModule]) -> type[ArchModule]:
    return type(base.__name__, (base,), {"forward": _with_checkpoint(base.forward), "rematerialised": True, "__module__": __name__, "_base": base})


def _with_checkpoint(forward: Callable[..., Any]) -> Callable[..., Any]:
    def checkpointed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        from torch.utils.checkpoint import checkpoint

        if not torch.is_grad_enabled():
            return forward(self, *args, **kwargs)
        if torch.compiler.is_compiling():
            return checkpoint(forward, self, *args, use_reentrant=False, **kwargs)
        return checkpoint(forward, self, *args, use_reentrant=False, context_fn=recompute_contexts, **kwargs)

    return checkpointed


def _restore(definition: Definition, rematerialised: bool) -> ArchModule:
    cls = class_of(definition, rematerialised)
    return cls.__new__(cls)


# ---------------------------------------------------------------- edited graphs in pickles
def _packed(graph: fx.Graph) -> list[tuple[Any, ...]]:
    """The nodes as plain data; meta keeps the place in the spec."""
    numbers = {n: i for i, n in enumerate(graph.nodes)}

    def pack(value: Any) -> Any:
        return map_arg(value, lambda n: _Ref(numbers[n]))

    def meta(n: fx.Node) -> dict[str, Any]:
        return {k: n.meta[k] for k in ("arch", "hint", "type") if k in n.meta}

    return [(n.op, n.name, n.target, pack(n.args), pack(n.kwargs), meta(n)) for n in graph.nodes]


def _unpacked(rows: list[tuple[Any, ...]]) -> fx.Graph:
    graph = fx.Graph()
    made: list[fx.Node] = []
    for op, name, target, args, kwargs, meta in rows:
        node = graph.create_node(op, target, _refs(args, made), _refs(kwargs, made), name)
        node.meta.update(meta)
        made.append(node)
    return graph


class _Ref(str):
    """Stands for a node by its number in pickled arguments."""

    def __new__(cls, number: int) -> _Ref:
        return super().__new__(cls, number)


def _refs(value: Any, made: list[fx.Node]) -> Any:
    if isinstance(value, _Ref):
        return made[int(value)]
    if isinstance(value, (tuple, list)):
        return type(value)(_refs(v, made) for v in value)
    if isinstance(value, dict):
        return {k: _refs(v, made) for k, v in value.items()}
    if isinstance(value, slice):
        return slice(_refs(value.start, made), _refs(value.stop, made), _refs(value.step, made))
    return value


def blocks(model: nn.Module) -> Iterator[tuple[str, ArchModule]]:
    """All lowered blocks with their addresses, outer ones first."""
    for name, module in model.named_modules():
        if isinstance(module, ArchModule):
            yield name, module
