"""Graphs under construction: nodes in order, owned weights and their addresses, tensors imported from an enclosing body."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from keyword import iskeyword
from typing import Any

from archdsl.diagnostics.model import ArchError, Label, error
from archdsl.elaborate.limits import MAX_ADDRESS, MAX_NODES, MAX_WEIGHTS, limit
from archdsl.elaborate.values import HOLDERS, NeedInline, map_tensors
from archdsl.graph import Graph, Guard, InitExpr, Knob, Mask, Node, Param, TensorType, Value
from archdsl.ops.registry import find
from archdsl.source import Span

RESERVED = frozenset("""
training forward graph code call_super_init dump_patches T_destination named_parameters parameters named_buffers buffers named_modules modules
named_children children state_dict load_state_dict register_buffer register_parameter register_module add_module get_submodule set_submodule
get_parameter get_buffer get_extra_state set_extra_state apply cuda ipu xpu mtia cpu type float double half bfloat16 to_empty to train eval
requires_grad_ zero_grad share_memory extra_repr compile recompile print_readable add_submodule delete_submodule delete_all_unused_submodules
meta init_state reorder_state reset_state stack_states end_state flush delay typed archdsl definition detached rematerialised shape_env to_folder
register_forward_hook register_forward_pre_hook register_backward_hook register_full_backward_hook register_full_backward_pre_hook
register_load_state_dict_post_hook register_load_state_dict_pre_hook register_state_dict_post_hook register_state_dict_pre_hook
check_state state_shapes
_alike _apply _backward_hooks _backward_pre_hooks _boxed_call _buffers _call_impl _code _compiled_call_impl _create_node_hooks _deepcopy_hooks
_deepcopy_init _erase_node_hooks _externs _forms _forward_hooks _forward_hooks_always_called _forward_hooks_with_kwargs _forward_pre_hooks
_forward_pre_hooks_with_kwargs _get_backward_hooks _get_backward_pre_hooks _get_name _graph _is_full_backward_hook _lineno_map
_load_from_state_dict _load_state_dict_post_hooks _load_state_dict_pre_hooks _loss _maybe_warn_non_full_backward_hook _modules _named_members
_non_persistent_buffers_set _parameters _parts _prologue_start _recompile_submodules _register_create_node_hook _register_deepcopy_hook
_register_erase_node_hook _register_load_state_dict_pre_hook _register_replace_node_hook _register_state_dict_hook _replace_hooks
_replicate_for_data_parallel _repr_html_ _save_to_state_dict _set_replace_hook _slow_forward _source _state_dict_hooks _state_dict_pre_hooks
_streamed _tracer_cls _tracer_extras _typed _unregister_create_node_hook _unregister_deepcopy_hook _unregister_erase_node_hook
_unregister_replace_node_hook _version _wrapped_call_impl
""".split())
"""Names that a module of the lowered model already has (a test holds this list against torch), or one that is written as PyTorch."""


def _exact(value: Any) -> Any:
    """A key that is equal for the same values alone: 1, 1.0 and true differ, and so do 0.0 and -0.0, in lists too."""
    kind = value.__class__
    if kind is Value or kind is str or kind is int:
        return value
    if kind is tuple:
        return tuple([_exact(v) for v in value])
    if kind is float:
        return (kind, repr(value))
    if kind is Mask:
        return (kind, value.kind, _exact(value.args))
    return (kind, value)


class Builder:
    """`parent`: the body around a labelled loop's body, whose tensors may be imported. `home`: the builder that owns the weights
    (another one inside a phase arm). `base`: the full address of this graph's owner."""

    def __init__(self, parent: Builder | None = None, base: str = "", home: Builder | None = None):
        self.parent, self.base, self.home = parent, base, home or self
        self.nodes: list[Node] = []
        self.inputs: list[Value] = []
        self.own: set[Node] = set()
        self.imports: dict[Value, Value] = {}
        self.params: dict[str, Param] = {}
        self.children: dict[str, Graph] = {}
        self.owners: dict[str, Span] = {}
        self.shares: dict[str, Span] = {}
        self.inside: dict[str, str] = {}  # a part of an address -> the first owner below it
        self.emits: dict[str, Value] = {}
        self.guards: list[Guard] = []
        self.knobs: dict[str, Knob] = {}
        self.applied: dict[str, int] = {}
        self.pure: dict[Any, Node] = {}
        self.incomplete = False  # after a fault: what follows may lack weights and emitted values

    # ---------------------------------------------------------------- nodes
    def add(self, op: str, args: tuple[Any, ...], attrs: dict[str, Any], types: tuple[TensorType, ...], span: Span, name: str = "") -> Node:
        resolve = self.resolve
        args = map_tensors(tuple(args), resolve)
        for v in attrs.values():
            if type(v) in HOLDERS:
                attrs = {k: map_tensors(v, resolve) for k, v in attrs.items()}
                break
        key = self._key(op, args, attrs)
        known = self.pure.get(key) if key is not None else None
        if known is not None:
            return known
        node = Node(op, args, attrs, types, span, name)
        self.nodes.append(node)
        self.own.add(node)
        if key is not None:
            self.pure[key] = node
        return node

    @staticmethod
    def _key(op: str, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any:
        """The same pure op on the same operands is one node; draws, calls and whatever differs by phase are never merged."""
        if op == "param":
            return ("param", attrs["path"])
        known = find(op)
        if known is None or known.random or known.phase:
            return None
        return (op, _exact(args), tuple([(k, v if v.__class__ is int else _exact(v)) for k, v in attrs.items()]))

    def input(self, name: str, type: TensorType, span: Span) -> Value:
        node = Node("input", (), {"name": name}, (type,), span, name)
        self.nodes.insert(len(self.inputs), node)
        self.own.add(node)
        value = Value(node)
        self.inputs.append(value)
        return value

    def resolve(self, value: Value) -> Value:
        """The value inside this graph: itself, or an input that carries it in from an enclosing body."""
        if value.node in self.own:
            return value
        if value in self.imports:
            return self.imports[value]
        if self.parent is None:
            raise NeedInline()
        self.parent.resolve(value)
        inner = self.input(value.node.result_name(value.index) or "x", value.type, value.node.span)
        self.imports[value] = inner
        return inner

    # ---------------------------------------------------------------- ownership
    def claim(self, path: str, span: Span, what: str = "weights") -> None:
        """Takes an address for one owner. Raises A0211 for a second owner and A0210 for a name that modules use themselves."""
        if len(path) > MAX_ADDRESS:
            raise limit(f"the address `{path[:40]}…` has more than {MAX_ADDRESS:,} characters", span)
        nested = "." in path
        for word in path.split(".") if nested else (path,):
            if is_taken(word):
                raise _refused(path, word, span)
        if path in self.owners:
            shown = self.base + path
            raise error("A0211", f"two sets of {what} have the address `{shown}`", span, "the second",
                        labels=(Label(self.owners[path], "the first one"),),
                        help="name the two applications: `… as NAME`, or label the loop around them")
        above = [path[:i] for i, c in enumerate(path) if c == "."] if nested else ()
        other = self.inside.get(path) or next((p for p in above if p in self.owners), None)
        if other is not None:
            raise error("A0211", f"`{self.base}{path}` and `{self.base}{other}` cannot both own {what}: one address lies inside the other", span,
                        "the second", labels=(Label(self.owners[other], "the first one"),), help="give one of them another name with `as`")
        self.owners[path] = span
        for p in above:
            self.inside.setdefault(p, path)

    def share(self, path: str, span: Span) -> None:
        """An address that the first application of a shared block will claim. Raises A0211 where another `share` has it."""
        if path in self.shares:
            raise error("A0211", f"two shared blocks have the address `{self.base}{path}`", span, "the second",
                        labels=(Label(self.shares[path], "the first one"),),
                        help="name one with `share f as NAME`; `share g of f` is another block with the weights of f")
        self.shares[path] = span

    def declare(self, param: Param) -> Value:
        """Owns a weight here and returns the node that reads it."""
        self.claim(param.path, param.span)
        self.params[param.path] = param
        return Value(self.add("param", (), {"path": param.path}, (param.type,), param.span, param.path.rsplit(".", 1)[-1]))

    def adopt(self, path: str, graph: Graph, span: Span) -> None:
        """Owns what `graph` owns, below `path`."""
        self.claim(path, span)
        self.children[path] = graph

    def require(self, guards: Iterable[Guard]) -> None:
        """Guards of a graph inside, or of an attempt to make one: what they say is known from then on, so nothing would state it again."""
        for g in guards:
            if g not in self.guards:
                self.guards.append(g)

    def emit(self, address: str, value: Value, span: Span) -> None:
        if address in self.emits:
            raise error("A0219", f"two values are emitted as `{self.base}{address}`", span, "the second",
                        labels=(Label(self.emits[address].node.span, "the first"),), help="name the applications with `as`")
        self.emits[address] = value

    def call(self, graph: Graph, path: str, args: list[Any], span: Span, name: str = "", emit_path: str | None = None) -> tuple[Value, ...]:
        """Applies a graph whose weights live at `path`; returns its outputs and collects what it emits."""
        node = self.add("call", tuple(args), {"path": path, "graph": graph}, graph.result_types, span, name)
        values = node.values
        outputs = len(values) - len(graph.emits)
        if graph.emits:
            for address, value in zip(graph.emits, values[outputs:]):
                self.emit(f"{path if emit_path is None else emit_path}.{address}", value, span)
        if graph.guards:
            self.require(graph.guards)
        for k, v in graph.knobs.items():
            self.knobs[f"{path}.{k}"] = v
        return values[:outputs]

    def splice(self, graph: Graph, args: list[Value], path: str, span: Span) -> tuple[Value, ...]:
        """Copies the nodes of a graph that owns no weights and emits nothing. Its knobs stay at its path: a printed graph has none, so they must
        not make a call of it. `span`: of the share or application that owns them."""
        if graph.knobs:
            if self.home.owners.get(path) is not span:
                self.home.claim(path, span, "knobs")
            self.knobs.update({f"{path}.{k}": v for k, v in graph.knobs.items()})
        known: dict[Value, Value] = dict(zip(graph.inputs, args))
        for node in graph.nodes:
            if node.op != "input":
                attrs = {k: map_tensors(v, known.__getitem__) for k, v in node.attrs.items()}
                copy = self.add(node.op, map_tensors(node.args, known.__getitem__), attrs, node.types, node.span, node.name)
                known.update(zip(node.values, copy.values))
        self.require(graph.guards)
        for name, n in graph.applied.items():
            self.applied[name] = self.applied.get(name, 0) + n
        return tuple(known[o] for o in graph.outputs)

    # ---------------------------------------------------------------- finishing
    def finish(self, name: str, outputs: tuple[Value, ...], *, names: tuple[str | None, ...] = (), doc: str = "", span: Span) -> Graph:
        outputs = tuple(self.resolve(o) for o in outputs)
        kept = self._live(outputs)
        graph = Graph(name, tuple(self.inputs), kept, outputs, names, tuple(self.params.values()), self._owners(kept), dict(self.emits),
                      tuple(self.guards), dict(self.knobs), doc, span, dict(self.applied))
        if graph.weight_count > MAX_WEIGHTS:
            raise limit(f"`{name}` has more than {MAX_WEIGHTS:,} weights", span,
                        help="share some, or nest fewer blocks that apply others several times")
        if graph.node_count > MAX_NODES:
            raise limit(f"`{name}` runs more than {MAX_NODES:,} ops", span,
                        help="shorten the loops, or nest fewer blocks that apply others several times")
        return graph

    def _owners(self, kept: tuple[Node, ...]) -> dict[str, Graph]:
        """Path -> the first block applied there. An application that nothing reads is gone, and what a graph is must not depend on it."""
        first: dict[str, Graph] = {}
        for node in kept:
            if node.op == "call":
                first.setdefault(node.attrs["path"], node.attrs["graph"])
        return {path: first.get(path, owner) for path, owner in self.children.items()}

    def _live(self, outputs: tuple[Value, ...]) -> tuple[Node, ...]:
        """Nodes that an output, an emitted value or an update needs; inputs stay."""
        needed = {v.node for v in (*outputs, *self.emits.values())}
        live: list[Node] = []
        for node in reversed(self.nodes):
            if node in needed or node.op in ("input", "update") or node.op == "call" and node.attrs["graph"].has_effect:
                live.append(node)
                for v in node.operands():
                    needed.add(v.node)
        live.reverse()
        return tuple(live)


def is_taken(word: str) -> bool:
    """Whether a segment of an address could not be an attribute of a lowered module: one that it has itself, `__NAME`, or a word of Python."""
    return word in RESERVED or word.startswith("__") or iskeyword(word)


def free_segment(word: str) -> str:
    """A segment like one that is taken."""
    return f"{word.strip('_') or 'part'}_" if word.startswith("__") else f"{word}_"


def _refused(path: str, word: str, span: Span) -> ArchError:
    """A0210."""
    help = f"name it otherwise, for example `as {free_segment(word)}`"
    if word in RESERVED:
        return error("A0210", f"the address `{path}` would hide `{word}` of the module", span, f"`{word}` is the module's own", help=help)
    if iskeyword(word):
        return error("A0210", f"the address `{path}` holds a word of Python", span, f"`model.{word}` could not be written", help=help)
    return error("A0210", f"the address `{path}` holds `{word}`, a name with `__` in front", span, "such names are Python's own", help=help)


def join(prefix: str, name: str) -> str:
    """The address of a name below a prefix; either may be empty."""
    return f"{prefix}.{name}" if prefix and name else prefix or name


def addresses_above(address: str) -> Iterator[str]:
    """The addresses that one lies below: `a`, `a.b` of `a.b.c`."""
    at = address.find(".")
    while at >= 0:
        yield address[:at]
        at = address.find(".", at + 1)


__all__ = ["RESERVED", "Builder", "InitExpr", "addresses_above", "free_segment", "is_taken", "join"]
