"""One definition in plain PyTorch: the lines that create its weights and children, and its statements without modules of ours."""
from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.proxy import GraphAppendingTracer

from archdsl.diagnostics.model import error
from archdsl.graph import InitExpr, Param
from archdsl.lower import parts
from archdsl.lower.checks import fits
from archdsl.lower.codegen import Writer, generate, quoted
from archdsl.lower.init import fixed
from archdsl.lower.plain_consts import statements
from archdsl.lower.plain_state import Kept, check
from archdsl.lower.plan import Definition
from archdsl.lower.recurrences import call, named, recurrence_of
from archdsl.lower.trace import trace
from archdsl.ops.initializers import INITIALIZERS
from archdsl.ops.recurrent import Recurrence
from archdsl.ops.registry import find
from archdsl.ops.rules import torch_dtype
from archdsl.streaming import Streamed

HELPERS = {
    "scan": '''def scan(body: nn.Module, axes: tuple[int, ...], carries: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The body at one position after the other: results stacked along the first axis, then the last carried tensors.

    `tensors`: what is walked along `axes`, the first values of the carried tensors, what is the same at all positions.
    """
    n = len(axes)
    walked, carried, others = tensors[:n], tensors[n : n + carries], tensors[n + carries :]
    results = []
    for t in range(walked[0].size(axes[0])):
        found = body(*(x.select(axis, t) for x, axis in zip(walked, axes)), *carried, *others)
        carried = found[:carries]
        results.append(found[carries:])
    if not results:  # of no positions: shapes are those of a position of zeros
        found = body(*(x.new_zeros(x.movedim(axis, 0).shape[1:]) for x, axis in zip(walked, axes)), *carried, *others)
        return (*(y.unsqueeze(axes[0]).narrow(axes[0], 0, 0) for y in found[carries:]), *carried)
    return (*(torch.stack(y, axes[0]) for y in zip(*results)), *carried)''',
    "drop_path": '''def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Training: each sample is zero with probability `rate`, the others are divided by 1 - rate."""
    if rate == 0 or not training:
        return x
    keep = 1 - rate
    mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
    return x * (mask / keep if keep > 0 else mask)''',
    "trunc_normal": '''def trunc_normal(x: Tensor, mean: float, std: float, cut: float) -> Tensor:
    """Normal values cut off at -cut and cut."""
    return nn.init.trunc_normal_(x, mean, std, -cut, cut) if std else x.fill_(min(max(mean, -cut), cut))''',
    "lecun_normal": '''def lecun_normal(x: Tensor) -> Tensor:
    """Normal values of variance 1 / fan-in, cut off at two standard deviations."""
    std = x[0].numel() ** -0.5 / 0.8796256610342398
    return nn.init.trunc_normal_(x, 0.0, 1.0, -2.0, 2.0).mul_(std)''',
    "eye": '''def eye(x: Tensor) -> Tensor:
    """Ones where the first two indices are equal (for kernels: in the middle)."""
    n = min(x.shape[:2])
    x.zero_()[(range(n), range(n), *(s // 2 for s in x.shape[2:]))] = 1
    return x''',
}


def helper(name: str) -> str:
    """The text of a function that written models call: one of HELPERS, or the plain form of an op whose kernel is a torch op of its own."""
    if name in HELPERS:
        return HELPERS[name]
    op = find(name)
    assert op is not None and op.plain is not None, name
    return inspect.getsource(op.plain).replace(op.plain.__name__, name).rstrip()


_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


class Plain:
    """`setup`: lines as text, (target, path of a child), (target, paths of the children in a ModuleList) or (target, paths, key) where each of them
    stands in a ModuleDict of its own. `lists`: ModuleLists and their
    lengths. `helpers`: names of the functions that the text calls (`helper`)."""

    def __init__(self, definition: Definition, streamed: Streamed | None = None):
        self.definition, self.streamed = definition, streamed
        self.helpers: set[str] = set()
        self.created: set[str] = set()
        self.lists: dict[str, int] = {}
        self.names: dict[str, str] = {}
        self.setup: list[str | tuple[Any, ...]] = []
        self.owned = {p.path: p for p in definition.graph.params}
        self.traced = trace(definition, fold=False)  # tables are computed where they are needed: their numbers would not be readable
        self._create()
        self.phase_of: dict[str, int] = {}
        self.recurrences: dict[str, Recurrence] = {}
        for node in self.traced.graph.nodes:
            if (r := recurrence_of(node)) is not None:
                self.recurrences[r.name] = r
                named(node, r)
            elif node.target is parts.draws_given:
                node.args[0].meta["fixed"] = "draws"  # type: ignore[union-attr]
        self.kept = kept = Kept(self.traced.graph, definition.state) if definition.state else None
        taken = frozenset(self.recurrences) | HELPERS.keys() | ({"new", "state"} if kept else set()) | ({"draws"} if definition.draws else set())
        code = generate(self.traced.graph, free=False, names=self.names, special=self._special, hints=True, taken=taken)
        unknown = [n for n in code.globals if n not in ("torch", "F", "math")]
        if unknown:
            raise error("A0514", f"`{unknown[0]}` has no form in plain torch", definition.source.span, "this block needs it")
        self.inputs = code.signature
        statements = code.statements if kept is None else kept.written(code.statements)
        self._sized = [s for s in statements if "\x00" in s]
        self.statements = [self._with_powers(s) for s in statements]

    # ---------------------------------------------------------------- weights and children
    def _create(self) -> None:
        tree: dict[str, Any] = {}
        d = self.definition
        for p in d.graph.params:
            _put(tree, p.path, p)
        for path, child in d.graph.children.items():
            if path in d.children:
                _put(tree, path, path)
            else:
                for inner, p in child.parameters(f"{path}."):
                    _put(tree, inner, p)
        for node in d.graph.nodes:
            if node.op == "extern":
                raise error("A0514", f"the extern block `{node.attrs['block']}` is a class of yours: it has no text here", node.span, "used here")
        self._tree("self", "", tree)
        for name, part in self.traced.parts.items():
            if part.kind == "constant":
                assert part.value is not None
                value = f"torch.tensor({part.value.tolist()}, dtype={part.value.dtype})"
                self.setup.append(f'self.register_buffer("{name}", {value}, persistent=False)')

    def _tree(self, owner: str, prefix: str, tree: dict[str, Any]) -> None:
        for name, what in tree.items():
            path = f"{prefix}{name}"
            target = f'{owner}["{name}"]' if owner in self._dicts and name.isdigit() else f"{owner}[{name}]" if name.isdigit() else f"{owner}.{name}"
            self.names[path] = target
            if isinstance(what, Param):
                self._weight(owner, name, what)
            elif isinstance(what, str):
                if not (owner in self.lists and name.isdigit()):
                    self.setup.append((target, what))
            else:
                self._scope(target, path, what, listed=owner in self.lists and name.isdigit())

    _dicts: frozenset[str] = frozenset()

    def _scope(self, target: str, path: str, what: dict[str, Any], listed: bool) -> None:
        own = what.pop("", None)
        keys = list(what)
        numbered = bool(keys) and keys == [str(i) for i in range(len(keys))] and own is None
        if numbered:
            self.lists[target] = len(keys)
            if all(isinstance(v, str) for v in what.values()):
                self.setup.append((target, list(what.values())))
            elif key := _only_key(what):
                self.setup.append((target, [v[key] for v in what.values()], key))
                for i in range(len(keys)):
                    self.names[f"{path}.{i}.{key}"] = f"{target}[{i}].{key}"
                return
            elif all(isinstance(v, dict) and "" not in v for v in what.values()):
                self.setup.append(f"{target} = nn.ModuleList(nn.Module() for _ in range({len(keys)}))")
            else:
                self.setup.append(f"{target} = nn.ModuleList(nn.Module() for _ in range({len(keys)}))")
                self.lists.pop(target)
        elif own is not None:
            self.setup.append((target, own))
        elif any(k.isdigit() for k in keys):
            self._dicts = self._dicts | {target}
            self.setup.append(f"{target} = nn.ModuleDict()")
        elif not listed:
            self.setup.append(f"{target} = nn.Module()")
        self._tree(target, f"{path}.", what)

    def _weight(self, owner: str, name: str, p: Param) -> None:
        value = self._initial(p)
        self.created.add(p.path)
        if p.kind == "param":
            self.setup.append(f"{owner}.{name} = nn.Parameter({value})")
        elif p.kind == "frozen":
            self.setup.append(f"{owner}.{name} = nn.Parameter({value}, requires_grad=False)")
        else:
            self.setup.append(f'{owner}.register_buffer("{name}", {value}{"" if p.kind == "buffer" else ", persistent=False"})')

    # ---------------------------------------------------------------- initial values
    def _initial(self, p: Param) -> str:
        """The initial value as an expression, behind lines in `setup` where it takes some. Without a form in plain torch a weight is NaN until it is
        loaded: memory without values could pass for some."""
        dtype = torch_dtype(p.type.dtype, getattr(torch, self.definition.dtype))
        tail = "" if dtype == torch.float32 else f", dtype={dtype}"
        shape = ", ".join(f"\x00{name}\x00{size}" for name, size in zip(_axes(p), p.type.shape)) or "()"
        text = self._leaf(p.init, p, shape, tail)
        if text is not None:
            return text.removeprefix("(").removesuffix(")") if text.startswith("(") else text
        lines = statements(p, getattr(torch, self.definition.dtype), lambda op, attrs, tail: self._drawn(op, attrs, shape, tail))
        if lines is not None:
            self.setup += lines[:-1]
            return lines[-1]
        if p.kind == "const":
            raise error("A0514", f"the initial value of `{p.path}` has no form in plain torch", p.span, "outside the state dict: it must be computed")
        return f"torch.full({_tuple(shape)}, math.nan{tail})" if p.type.is_float else f"torch.zeros({shape}{tail})"

    def _leaf(self, init: Any, p: Param, shape: str, tail: str) -> str | None:
        if not isinstance(init, InitExpr):
            return repr(init) if isinstance(init, (int, float)) else None
        attrs = dict(init.attrs)
        listed = init.op == "constant" and isinstance(attrs["value"], tuple)
        if listed and torch.tensor(attrs["value"]).shape != fixed(p.type):
            return None  # repeated along axes of the weight
        if init.op in INITIALIZERS and "shape" not in attrs:
            return self._drawn(init.op, attrs, shape, tail)
        op = find(init.op)
        if op is None or op.name not in ("add", "sub", "mul", "div", "neg") or attrs:
            return None
        graph = fx.Graph()
        tracer = GraphAppendingTracer(graph)
        texts = [self._leaf(a, p, shape, tail) for a in init.args]
        if any(t is None for t in texts):
            return None
        proxies = [fx.Proxy(graph.placeholder(f"v{i}"), tracer) for i in range(len(texts))]
        graph.output(op.body(*proxies).node)
        text = generate(graph).statements[-1].removeprefix("return ")
        for i, t in enumerate(texts):
            text = re.sub(rf"\bv{i}\b", lambda _, t=t: str(t), text)
        return f"({text})"

    def _drawn(self, op: str, attrs: dict[str, Any], shape: str, tail: str) -> str | None:
        if op in ("zeros", "ones"):
            return f"torch.{op}({shape}{tail})"
        if op == "constant":
            value = attrs["value"]
            if isinstance(value, tuple):
                return f"torch.tensor({list(value)}{tail or ('' if any(isinstance(v, float) for v in value) else ', dtype=torch.float32')})"
            return f"torch.full({_tuple(shape)}, {float(value)!r}{tail})"
        empty = f"torch.empty({shape}{tail})"
        if re.search("\x00[^\x00]*\x000(,|$)", shape):  # there is nothing to draw for
            return empty
        numbers = {k: float(v) for k, v in attrs.items()}
        if op in ("trunc_normal", "lecun_normal", "eye"):
            self.helpers.add(op)
            return f"{op}({', '.join([empty, *(repr(v) for v in numbers.values())])})" if op != "trunc_normal" else \
                f"trunc_normal({empty}, mean={numbers['mean']!r}, std={self._number(numbers['std'])}, cut={numbers['cut']!r})"
        numbers = {k: numbers[k] for k in INITIALIZERS[op]}
        names = {"low": "a", "high": "b", **({"a": "a"} if op.startswith("kaiming") else {})}
        given = ", ".join(f"{names.get(k, k)}={self._number(v)}" for k, v in numbers.items())
        return f"nn.init.{op}_({empty}{', ' if given else ''}{given})"

    def _number(self, value: float) -> str:
        """A bound or a deviation; where it is ±1 / √fan-in of a weight of this block, as that."""
        for fan, text in self._fans():
            if fan > 1 and math.isclose(abs(value), fan ** -0.5, rel_tol=1e-15):
                power = f"{text}{' ** ' if text.endswith(')') else '**'}-0.5"
                return f"-({power})" if value < 0 else power
        square = round(value * value) if abs(value) < 1e150 else 0
        return f"math.sqrt({square})" if value > 0 and math.sqrt(square) == value and not value.is_integer() else repr(value)

    def _fans(self) -> Iterator[tuple[int, str]]:
        """The fan-ins of the block's matrices and kernels, as they are written: a named axis, or counted from the weight where that is there."""
        for p in self.owned.values():
            if len(p.type.shape) > 1:
                inner = [s for s in p.type.shape[1:] if isinstance(s, int)]
                fan = math.prod(inner)
                if len(inner) == 1 and _axes(p)[1]:
                    yield fan, f"\x00{_axes(p)[1]}\x00{fan}"
                elif p.path in self.created:
                    yield fan, f"{self.names[p.path]}[0].numel()"

    # ---------------------------------------------------------------- forward
    def _with_powers(self, statement: str) -> str:
        """Numbers that are 1 / √n of a named size, or √n of a whole number, as that."""
        sizes: dict[int, str] = {}
        for s in (statement, *self._sized):
            for name, size in re.findall(r"\x00(\w+)\x00(\d+)", s):
                sizes.setdefault(int(size), name)

        def spelled(found: re.Match[str]) -> str:
            value = float(found[0])
            for size, name in sizes.items():
                if size > 1 and size ** -0.5 == value:
                    return f"\x00{name}\x00{size}**-0.5"
            square = round(value * value)
            return f"math.sqrt({square})" if 1 < value < 1e6 and math.sqrt(square) == value else found[0]

        return re.sub(r"(?<![\w.])\d+\.\d{9,}(?![\w.])", spelled, statement) if "raise" not in statement else statement

    def _special(self, node: fx.Node, writer: Writer) -> tuple[str, int] | None:
        """Private modules and checks in plain torch."""
        if node.target is parts.require:
            left, relation, right = writer.at(node.args[0], 7), node.args[1], writer.at(node.args[2], 7)
            return f"if {left} {_OPPOSITE[str(relation)]} {right}:\n    raise ValueError({quoted(str(node.args[3]))})", 0
        if node.target is parts.fit:
            return fits(node.args, writer.arg, {v.node.attrs["name"]: v.type.dtype for v in reversed(self.definition.graph.inputs)}), 0
        if node.target is parts.sums:
            lengths, total = writer.arg(node.args[0]), writer.at(node.args[1], 7)
            wrong = f"{lengths}.numel() == 0 or {lengths}.min() < 1 or {lengths}.sum() != {total}"
            return f"if {wrong}:\n    raise ValueError({quoted('the lengths of the documents, each at least 1, sum to the number of positions')})", 0
        if node.target is parts.draws_given:
            given = writer.arg(node.args[0])
            names = ", ".join(quoted(a) for a, _ in node.args[1])  # type: ignore[union-attr]
            return f"if {given}.keys() != {{{names}}}:\n    raise ValueError(f\"other draws are needed than {{sorted({given})}}\")", 0
        if node.target is parts.holds:
            assert self.streamed is not None
            return check(node, self.streamed, writer.arg), 0
        if self.kept is not None and node in self.kept.reads:
            return self.kept.reads[node], 16
        if (r := recurrence_of(node)) is not None:
            return call(r, node, writer.arg), 16
        if node.target in (F.layer_norm, F.rms_norm):
            return self._norm(node, writer)
        if isinstance(node.target, torch._ops.OpOverloadPacket):
            return self._kernel(node, writer)
        part = self.traced.parts.get(str(node.target)) if node.op == "call_module" else None
        if part is None:
            return None
        args = [writer.arg(a) for a in node.args]
        if part.kind == "op":
            return self._phase_op(part, args), 16
        if part.kind == "read":
            return args[0], 16
        if part.kind == "commit":  # bound anew, not written in place: the backward pass, also a compiled one, still needs the old value
            return f"if self.training:\n    {args[0]} = {args[1]}.detach().to({args[0]}.dtype)", 0
        k = self.phase_of.setdefault(str(node.target), len(self.phase_of))
        if part.kind == "scan":
            self.helpers.add("scan")
            return f"scan({', '.join([f'self.position_{k}', repr(part.attrs['axes']), repr(part.attrs['carries']), *args])})", 16
        called = f"({', '.join(args)})"
        return f"self.train_arm_{k}{called} if self.training else self.eval_arm_{k}{called}", 0

    def _kernel(self, node: fx.Node, writer: Writer) -> tuple[str, int] | None:
        """A torch op of ours, by its plain form. None where there is no such form."""
        name = str(node.target).rpartition(".")[2]
        op = find(name)
        if op is None or op.plain is None:
            return None
        self.helpers.add(name)
        args = [*node.args]
        while args and args[-1] is None:
            args.pop()
        return f"{name}({', '.join(map(writer.arg, args))})", 16

    def _norm(self, node: fx.Node, writer: Writer) -> tuple[str, int] | None:
        """A norm over the axes of its weight."""
        weight = node.kwargs.get("weight")
        known = weight.meta.get("type") if isinstance(weight, fx.Node) and weight.op == "get_attr" else None
        if known is None or tuple(known.shape) != tuple(node.args[1]):  # type: ignore[arg-type]
            return None
        named = {"layer_norm": ("weight", "bias", "eps"), "rms_norm": ("weight", "eps")}[node.target.__name__]  # type: ignore[union-attr]
        shape, given = writer.arg(weight), {k: node.kwargs[k] for k in named if node.kwargs.get(k) is not None}
        if given.get("eps") == 1e-5 and "bias" in named:
            given.pop("eps")
        texts = [writer.arg(node.args[0]), f"{shape}.shape", *(f"{k}={writer.arg(v)}" for k, v in given.items())]
        return f"F.{node.target.__name__}({', '.join(texts)})", 16  # type: ignore[union-attr]

    def _phase_op(self, part: parts.Part, args: list[str]) -> str:
        if part.op == "dropout":
            return f"F.dropout({args[0]}, p={part.attrs['rate']!r}, training=self.training)"
        if part.op == "drop_path":
            self.helpers.add("drop_path")
            return f"drop_path({args[0]}, rate={part.attrs['rate']!r}, training=self.training)"
        if part.op == "batch_norm":
            x, weight, bias, mean, variance = [*args, *["None"] * (5 - len(args))]
            training = "True" if mean == "None" else "self.training"
            numbers = f"momentum={part.attrs['momentum']!r}, eps={part.attrs['eps']!r}"
            return f"F.batch_norm({x}, {mean}, {variance}, {weight}, {bias}, {training}, {numbers})"
        raise error("A0514", f"{part.op} has no form in plain torch", self.definition.source.span, "this block needs it")


def _put(tree: dict[str, Any], path: str, what: Any) -> None:
    *scopes, name = path.split(".")
    for segment in scopes:
        inner = tree.setdefault(segment, {})
        if not isinstance(inner, dict):
            inner = tree[segment] = {"": inner}
        tree = inner
    if isinstance(tree.get(name), dict):
        tree[name][""] = what
    else:
        tree[name] = what


def _only_key(items: dict[str, Any]) -> str:
    """The one name below each number of a list, where blocks alone stand there under a name that a ModuleDict may hold."""
    keys = {tuple(v) if isinstance(v, dict) else () for v in items.values()}
    only = keys.pop() if len(keys) == 1 else ()
    key = str(only[0]) if len(only) == 1 else ""
    if not key:
        return ""
    return key if all(isinstance(v[key], str) for v in items.values()) and not hasattr(nn.ModuleDict, key) else ""


def _tuple(shape: str) -> str:
    return shape if shape == "()" else f"({shape})" if "," in shape else f"({shape},)"


def _axes(p: Param) -> list[str]:
    """The names of a weight's axes as the spec writes them, "" for expressions."""
    found = re.match(r"\s*(?:as\s+\w+\s*)?:\s*\w*\[([^\]]*)\]", p.span.source.text[p.span.end:])
    names = [n.strip() for n in found[1].split(",")] if found else []
    return [_axis_name(n) for n in names] if len(names) == len(p.type.shape) else [""] * len(p.type.shape)


def _axis_name(text: str) -> str:
    """`c / groups` is c_per_group."""
    if found := re.fullmatch(r"(\w+) / (\w+?)s?", text):
        return f"{found[1]}_per_{found[2]}"
    return text if text.isidentifier() else ""
