"""Recurrent ops in written models: the declared body with its helpers as functions of plain torch, and a function of the op's name around it."""
from __future__ import annotations

import ast
import inspect
import math
import operator
import re
import sys
import textwrap
from typing import Any, get_args

import torch
from torch import fx

from archdsl.diagnostics.model import error
from archdsl.elaborate.ops import as_attribute, default_of
from archdsl.lower.wrapping import WIDTH, wrapped
from archdsl.ops.recurrent import KERNELS, RECURRENCES, Recurrence
from archdsl.ops.registry import LENGTH
from archdsl.ops.signatures import axes_of, leads, tensor_of
from archdsl.source import NOWHERE
from archdsl.syntax import tree


def recurrence_of(node: fx.Node) -> Recurrence | None:
    """The recurrence that a node computes, for all positions of a call at once."""
    if not isinstance(node.target, torch._ops.OpOverloadPacket):
        return None
    space, _, name = node.target._qualified_op_name.partition("::")
    return {**KERNELS, **RECURRENCES}.get(name) if space == "archdsl" else None


def named(node: fx.Node, r: Recurrence) -> None:
    """Unpacks the results of a call of which several are needed, under the names of the declaration."""
    if len(r.op.decl.outs) + len(r.state) == 1:
        return  # the result itself: what picks from it takes a part of a tensor
    parts = {u.args[1]: u for u in node.users if u.target is operator.getitem}
    if len(parts) > 1:
        names = [*(o.name or "y" for o in r.op.decl.outs), *r.state]
        node.meta["results"] = len(names)
        for i, part in parts.items():
            part.meta.setdefault("hint", names[int(str(i))])


def call(r: Recurrence, node: fx.Node, arg: Any) -> str:
    """The call of the written function. What has its default there is left out."""
    states, named = len(r.operands) + len(r.state), zip(r.attributes, node.args[len(r.operands) + len(r.state):])
    given = list(node.args[:states])
    defaults = _defaults(r)
    while given and given[-1] is None:
        given.pop()
    kept = [f"{name}={arg(value)}" for name, value in named if value != defaults[name]]
    return f"{r.name}({', '.join([*map(arg, given), *kept])})"


def _defaults(r: Recurrence) -> dict[str, Any]:
    return {p.name: default_of(r.op, p) if p.default is not None else inspect.Parameter.empty for p in r.op.decl.params if p.name in r.attributes}


class Functions:
    """The module-level text of some recurrences: imports, numbers, functions, in an order in which each stands behind what it uses."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.texts: dict[str, str] = {}
        self.added: set[str] = set()
        self.known: dict[int, tuple[Any, str]] = {}  # id -> (the object, its name here)

    def add(self, r: Recurrence) -> None:
        """The function `r.name`, and what it calls; once, however many blocks call it."""
        if r.name in self.added:
            return
        self.added.add(r.name)
        body = self._function(r.body, f"_{r.name}")
        if r.own_gradient is not None:
            body = self._differentiable(r, body, self._function(r.own_gradient, f"_{r.name}_gradient"))
        self.texts[r.name] = "\n".join(line for part in _around(r, body).split("\n") for line in wrapped(part, 0))

    def _differentiable(self, r: Recurrence, body: str, gradient: str) -> str:
        """A body that autograd cannot follow, for it writes in place, with its own backward pass. Gives what is called in its place."""
        name = self._free("_" + "".join(word.capitalize() for word in r.name.split("_")))
        given, of_ctx = (", ".join(prefix + a for a in r.attributes) for prefix in ("", "ctx."))
        named = "".join(f", {a}={a}" for a in r.attributes)
        pulled = f"{gradient}(*grads, *ctx.saved_tensors{''.join(f', {a}=ctx.{a}' for a in r.attributes)})"
        lines = [f"class {name}(torch.autograd.Function):", f'    """`{body}` with the backward pass `{gradient}`."""', "",
                 "    @staticmethod", f"    def forward(ctx, {given}{', ' * bool(given)}*tensors):", "        ctx.save_for_backward(*tensors)",
                 *([f"        {of_ctx} = {given}"] if given else []), f"        return {body}(*tensors{named})", "",
                 "    @staticmethod", "    @torch.autograd.function.once_differentiable", "    def backward(ctx, *grads):",
                 f"        return ({'None, ' * len(r.attributes)}*{pulled})" if given else f"        return {pulled}"]
        self.texts[name] = "\n".join(line for part in lines for line in wrapped(part, 0))
        return f"{name}.apply"

    # ---------------------------------------------------------------- functions and classes of ours
    def _function(self, function: Any, name: str) -> str:
        """Takes in a function or a class with all that it refers to; gives its name here."""
        plain = inspect.unwrap(function)
        if id(plain) in self.known:
            return self.known[id(plain)][1]
        mine = self._free(name)
        self.known[id(plain)] = plain, mine
        source = textwrap.dedent(inspect.getsource(plain))
        definition = ast.parse(source).body[0]
        assert isinstance(definition, (ast.FunctionDef, ast.ClassDef))
        kept = [d for d in definition.decorator_list if isinstance(d, ast.Name)]
        definition.decorator_list = list(kept)
        lines = _refilled(source.split("\n"), definition)[definition.lineno - 1:]
        names = {n.id for n in ast.walk(definition) if isinstance(n, ast.Name)} - _bound(definition)
        text = "\n".join([*(f"@{d.id}" for d in kept), *lines])
        text = re.sub(rf"\b(def|class) {definition.name}\b", rf"\1 {mine}", text, count=1)
        known = vars(sys.modules[plain.__module__])
        for other in sorted(names & known.keys()):
            found = self._name(other, known[other])
            text = text if found == other else re.sub(rf"(?<![\w.]){other}\b", found, text)
        text = re.sub(r"  # (type|pyright): ignore\S*.*", "", text)
        self.texts[mine] = "\n".join(line for part in text.rstrip().split("\n") for line in _short(part))
        return mine

    def _name(self, name: str, value: Any) -> str:
        """What a global name of a body is called in the written file."""
        if name in ("torch", "F"):
            return name
        if type(value) in (int, float, bool, str):
            text = repr(value)
            if isinstance(value, float) and math.isinf(value):
                self.imports.add("import math")
                text = "math.inf" if value > 0 else "-math.inf"
            if self.texts.get(name) != f"{name} = {text}":
                name = self._free(name)
                self.texts[name] = f"{name} = {text}"
            return name
        if inspect.ismodule(value):
            self.imports.add(f"import {value.__name__}" if value.__name__ == name else f"import {value.__name__} as {name}")
            return name
        module = str(getattr(value, "__module__", ""))
        plain = inspect.unwrap(value) if callable(value) else value
        if (inspect.isfunction(plain) or inspect.isclass(plain)) and module.startswith("archdsl.ops.") and module != "archdsl.ops.rules":
            return self._function(value, name)
        if get_args(value):  # a name for a type with arguments, `Product = Callable[..., Any]`
            self.imports |= {f"from {home} import {last}" for home, last in re.findall(r"([\w.]+)\.(\w+)", repr(value))}
            self.texts[name] = f"{name} = " + re.sub(r"[\w.]+\.(?=\w)", "", repr(value))
            return name
        if module.split(".")[0] in ("functools", "typing", "collections", "itertools", "math"):
            self.imports.add(f"from {module} import {getattr(value, '__name__', name)}")
            return name
        raise error("A0514", f"`{name}`, which the op's body refers to, has no form in plain torch", NOWHERE)

    def _free(self, name: str) -> str:
        taken = {*self.texts, *(mine for _, mine in self.known.values())}
        return next(n for n in (name, *(f"{name}_{k}" for k in range(2, len(taken) + 3))) if n not in taken)

    @property
    def numbers(self) -> list[str]:
        return [text for name, text in self.texts.items() if text.startswith(f"{name} = ")]

    @property
    def functions(self) -> list[str]:
        """Bodies keep the layout that they have where they are declared."""
        found = [text for name, text in self.texts.items() if not text.startswith(f"{name} = ")]
        return [f"# fmt: off\n{found[0]}", *found[1:-1], f"{found[-1]}\n# fmt: on"] if len(found) > 1 else found


def _bound(definition: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Names that a function gives to values of its own, whatever the module calls by them."""
    stored = {n.id for n in ast.walk(definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {a.arg for a in ast.walk(definition) if isinstance(a, ast.arg)}


def _refilled(lines: list[str], definition: ast.FunctionDef | ast.ClassDef) -> list[str]:
    """The lines up to the end of a function or a class, its documentation and that of its methods filled anew."""
    lines = lines[:definition.end_lineno]
    parts = [n for n in ast.walk(definition) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    for part in sorted(parts, key=lambda n: n.lineno, reverse=True):
        doc, first = ast.get_docstring(part), part.body[0]
        if doc is not None and first.end_lineno is not None:
            pad = " " * first.col_offset
            filled = textwrap.wrap(" ".join(f'"""{doc}"""'.split()), WIDTH - len(pad), break_long_words=False)
            lines[first.lineno - 1:first.end_lineno] = [pad + line for line in filled]
    return lines


def _short(line: str) -> list[str]:
    """A line, its remark in front where both are too long, broken where it is still."""
    if not line.strip():
        return [""]
    code, mark, remark = line.partition("  # ")
    if len(line) <= WIDTH or not mark or not code.strip():
        return wrapped(line, 0)
    pad = " " * (len(line) - len(line.lstrip()))
    return [*(f"{pad}# {part}" for part in textwrap.wrap(remark, WIDTH - len(pad) - 2)), *wrapped(code, 0)]


# ---------------------------------------------------------------- the function around a body
def _around(r: Recurrence, body: str) -> str:
    """States that are absent are zeros; floats are computed with in the dtype of the states, and given back in that of the first operand."""
    kinds = {p.name: p for p in r.op.decl.params}
    first = r.operands[0]
    later = [n for i, n in enumerate(r.operands) if all(_optional(kinds[m]) for m in r.operands[i:])]
    heads = [*(f"{n}=None" if n in later else n for n in r.operands), *(f"{s}=None" for s in r.state)]
    defaults = _defaults(r)
    heads += ["*"] if r.attributes else []
    heads += [a if defaults[a] is inspect.Parameter.empty else f"{a}={as_attribute(defaults[a])!r}" for a in r.attributes]
    lines = [f"def {r.name}({', '.join(heads)}):"]
    results = [f"y_{i + 1}" if r.results > 1 else "y" for i in range(r.results)]
    doc = "from the state of earlier positions, else from zeros: what it gives, then the new state" if r.state else "of all positions at once"
    lines.append(f'    """{doc[0].upper()}{doc[1:]}."""')
    if r.state:
        lines.append(f"    wide = {_wide(r, first)}")
    for name, t in zip(r.state, r.state_shapes):
        lines += [f"    if {name} is None:", f"        {name} = torch.zeros({_shape(t, kinds, r)}, dtype=wide, device={first}.device)"]
    for n in [n for n in r.operands if n in r.time][:1]:
        nothing = [f"{first}.new_zeros({_shape(o.type, kinds, r)})" for o in r.op.decl.outs]
        lines += [f"    if {n}.shape[{r.time[n]}] == 0:  # of no positions", f"        return {', '.join([*nothing, *r.state])}"]
    given: list[str] = []
    for n in r.operands:
        t = tensor_of(kinds[n])
        assert t is not None
        as_float = t.dtype in ("", None, "f32", "f64", "bf16", "f16", "float")
        given.append(n if not as_float or not r.widens else f"None if {n} is None else {n}.to(wide)" if _optional(kinds[n]) else f"{n}.to(wide)")
    named = [a if r.own_gradient is not None else f"{a}={a}" for a in r.attributes]
    passed = ", ".join([*named, *given, *r.state] if r.own_gradient is not None else [*given, *r.state, *named])
    lines.append(f"    {', '.join([*results, *r.state])}{',' * (not r.state)} = {body}({passed})")
    lines.append(f"    return {', '.join([*(f'{y}.to({first}.dtype)' for y in results), *r.state])}")
    return "\n".join(lines)


def _optional(p: tree.Param) -> bool:
    return isinstance(p.type, tree.OptionalType)


def _wide(r: Recurrence, first: str) -> str:
    pinned = next((t.dtype for t in r.state_shapes if t.dtype), None)
    return f"torch.promote_types({first}.dtype, torch.float32)" if pinned == "f32" else f"{first}.dtype"


def _shape(t: Any, kinds: dict[str, tree.Param], r: Recurrence) -> str:
    """The shape of a state, read off the operands."""
    found = {LENGTH: "0"}
    lead = ""
    for n in r.operands:
        kind = tensor_of(kinds[n])
        assert kind is not None
        names = axes_of(kind)
        if not _optional(kinds[n]):
            for i, axis in enumerate(names):
                found.setdefault(axis, f"{n}.shape[{i - len(names)}]")
            lead = lead or (f"*{n}.shape[:-{len(names)}]" if leads(kind) else "")
    items = [lead if isinstance(a, tree.AnyAxes) else re.sub(r"\b[a-zA-Z_]\w*\b", lambda m: found[m[0]], a.span.text) for a in t.shape.axes]
    return f"({', '.join(items)}{',' * (len(items) == 1)})"
