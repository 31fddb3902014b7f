"""torch.export of a foreign module: evaluation mode, sizes that vary, and its faults as diagnostics with the place in the foreign source."""
from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import os
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from archdsl.capture.conditions import Condition
from archdsl.diagnostics.model import ArchError, error
from archdsl.dims import Facts, Size, sym
from archdsl.elaborate.builder import free_segment, is_taken
from archdsl.lazy import torch
from archdsl.records import record
from archdsl.source import Source, Span
from archdsl.syntax.lexer import RESERVED

if TYPE_CHECKING:
    from torch import nn

Dynamic = Mapping[Any, Any]


@record(slots=False, eq=False)
class Exported:
    """An exported program and what it means. `symbols`: torch's sizes -> ours; `conditions`: what our sizes are restricted to; `tensors`: foreign
    key -> tensor; `addresses`: foreign key -> address, the same for all keys of one tensor; `float`: the module's float type; `examples`: our
    sizes in the example."""

    program: Any
    symbols: dict[str, Size]
    conditions: list[Condition]
    tensors: dict[str, torch.Tensor]
    addresses: dict[str, str]
    float: torch.dtype
    output_names: tuple[str | None, ...]
    examples: dict[str, int]
    span: Span


def export(module: nn.Module, example: Any, dynamic: Dynamic) -> Exported:
    """Traces the module in evaluation mode. Raises ArchError A0550 (torch cannot), A0554 (what was asked for `dynamic` does not fit)."""
    span = _class_place(module)
    args, kwargs = _call_of(example)
    given = _bound(module, args, kwargs, span)
    names = _axes(given, dynamic, span)
    shapes = {k: _dynamic(v, names.get(k, {})) for k, v in given.items()}
    with _evaluating(module) as model:
        try:
            with _quiet(), torch.enable_grad():  # so that parts without gradients are told apart
                program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as fault:  # torch raises many kinds
            raise _untraceable(fault, module, names, span) from None
    tensors = {**program.constants, **program.state_dict}
    tensors = {k: v for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    symbols, conditions = _sizes(program, given, names, span)
    return Exported(program, symbols, conditions, tensors, _addresses(tensors, span), _float_type(module, given), _output_names(program),
                    {n: given[k].shape[a] for k, axes in names.items() for a, n in axes.items()}, span)


# ---------------------------------------------------------------- the call
def _call_of(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One tensor, a tuple of arguments, or a dict of named ones."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example), {}) if isinstance(example, (tuple, list)) else ((example,), {})


def _bound(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], span: Span) -> dict[str, Any]:
    """The example's arguments by the names of `forward`."""
    try:
        return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
    except TypeError as fault:
        raise error("A0554", f"the example does not fit `{type(module).__name__}.forward`: {fault}", span) from None


def _axes(given: dict[str, Any], dynamic: Dynamic, span: Span) -> dict[str, dict[int, str]]:
    """Input -> axis -> name of the size. `{0: "B"}` is about every tensor, `{"ids": {0: "B"}}` or `{0: {0: "B"}}` about one."""
    tensors = {k: v for k, v in given.items() if isinstance(v, torch.Tensor)}
    if isinstance(dynamic, Mapping) and dynamic and all(isinstance(a, int) and isinstance(n, str) for a, n in dynamic.items()):
        dynamic = {k: {a: n for a, n in dynamic.items() if a < v.dim()} for k, v in tensors.items()}
    if not isinstance(dynamic, Mapping) or not all(isinstance(axes, Mapping) for axes in dynamic.values()):
        raise error("A0554", "`dynamic` does not say which axes vary", span, help='`{0: "B"}` for all tensors, `{"tokens": {1: "T"}}` for one')
    found: dict[str, dict[int, str]] = {}
    for key, axes in dynamic.items():
        name = list(given)[key] if isinstance(key, int) and key < len(given) else key
        if name not in tensors:
            known = ", ".join(tensors) or "none"
            raise error("A0554", f"`dynamic` names `{key}`, which is no tensor of the example", span, help=f"the inputs are {known}")
        for axis, size in axes.items():
            tensor = tensors[name]
            if not isinstance(axis, int) or not 0 <= axis < tensor.dim():
                raise error("A0554", f"`dynamic` names axis {axis} of `{name}`, which has {tensor.dim()} axes", span)
            if not isinstance(size, str) or not re.fullmatch(r"[A-Z]\w*", size):
                raise error("A0554", f"`{size}` cannot name a size that varies", span, help="such names are upper-case, for example `B` or `T`")
            if tensor.shape[axis] < 2:
                raise error("A0554", f"`{size}` is {tensor.shape[axis]} in the example", span, "torch.export takes 0 and 1 for fixed",
                            help="give an example with at least 2 along the axes that vary")
            found.setdefault(name, {})[axis] = size
    return found


def _tree() -> Any:
    """torch's trees of arguments and results."""
    from torch.utils import _pytree

    return _pytree


def _dynamic(value: Any, axes: dict[int, str]) -> Any:
    if isinstance(value, torch.Tensor):
        return dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    if not isinstance(value, (list, tuple, dict)):
        return None
    return _tree().tree_map(lambda v: {} if isinstance(v, torch.Tensor) else None, value)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[nn.Module]:
    """The module in evaluation mode: a copy that shares all tensors, so that nothing of the tracing stays; where that cannot be had, itself."""
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    try:
        twin = copy.deepcopy(module, shared)
    except Exception:  # an attribute that cannot be copied
        modes = {m: m.training for m in module.modules()}
        try:
            yield module.eval()
        finally:
            for m, training in modes.items():
                m.training = training
        return
    yield twin.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch prints and logs on its way: faults are told by their diagnostics."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


# ---------------------------------------------------------------- what it means
def _float_type(module: nn.Module, given: dict[str, Any]) -> torch.dtype:
    """The float type of most weights, else of the inputs."""
    counts: dict[torch.dtype, int] = {}
    for t in (*module.parameters(), *module.buffers()):
        if t.is_floating_point():
            counts[t.dtype] = counts.get(t.dtype, 0) + t.numel()
    if not counts:
        counts = {v.dtype: 1 for v in given.values() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    return max(counts, key=lambda d: counts[d]) if counts else torch.get_default_dtype()


def _sizes(program: Any, given: dict[str, Any], names: dict[str, dict[int, str]], span: Span) -> tuple[dict[str, Size], list[Condition]]:
    """Torch's symbols in our names, and what the sizes are restricted to. Raises A0554 for an axis that the module fixes."""
    holders = (n for n in program.graph.nodes if n.op == "placeholder")
    users = [n for n, s in zip(holders, program.graph_signature.input_specs, strict=True) if s.kind.name == "USER_INPUT"]
    leaves = [k for k, value in given.items() for _ in _tree().tree_leaves(value)]
    symbols: dict[str, Size] = {}
    conditions: dict[Condition, None] = {}
    for key, node in zip(leaves, users):
        for axis, name in names.get(key, {}).items():
            size = node.meta["val"].shape[axis]
            expression = None if isinstance(size, int) else size.node.expr
            free = [] if expression is None else sorted(expression.free_symbols, key=str)
            if expression is None or len(free) != 1:
                raise error("A0554", f"the size `{name}` cannot vary: the module fixes axis {axis} of `{key}` to {size}", span,
                            help="leave it out of `dynamic`, or change the module")
            step, rest = int(expression.coeff(free[0])), int(expression.subs(free[0], 0))
            if step != 1:
                conditions[Condition(sym(name) - rest, "%", step)] = None
            symbols.setdefault(str(free[0]), sym(name) if (step, rest) == (1, 0) else _part(name, step, rest))
            low, high = (None if bound is None else step * bound + rest for bound in _range(program, free[0]))
            if high is not None:
                conditions[Condition(sym(name), "<=", high, f"{name} is at most {high}")] = None
            if low is not None and low > 2 * step + rest:  # torch.export never tries 0 and 1
                conditions[Condition(sym(name), ">=", low)] = None
    return symbols, list(conditions)


def _part(name: str, step: int, rest: int) -> Size:
    """The whole number k in name = step · k + rest."""
    facts = Facts()
    facts.require_divides(sym(name) - rest, step)
    found = facts.divide(sym(name) - rest, step)
    assert found is not None
    return found


def _range(program: Any, symbol: Any) -> tuple[int | None, int | None]:
    found = program.range_constraints.get(symbol)
    if found is None:
        return None, None
    return tuple(int(v) if v.is_Integer and abs(int(v)) < 2**31 else None for v in (found.lower, found.upper))  # type: ignore[return-value]


def _addresses(tensors: dict[str, torch.Tensor], span: Span) -> dict[str, str]:
    """An address for each key: the key of the first that shares the tensor, with segments that no module has itself. Raises A0550 for two tensors of
    one address."""
    first: dict[Any, str] = {}
    out: dict[str, str] = {}
    owner: dict[str, str] = {}
    for key, t in tensors.items():
        same = (t.data_ptr(), tuple(t.shape), tuple(t.stride()), t.dtype) if t.numel() else id(t)
        key_of = first.setdefault(same, key)
        out[key] = legal(key_of)
        if owner.setdefault(out[key], key_of) != key_of:
            raise error("A0550", f"`{owner[out[key]]}` and `{key_of}` would have one address, `{out[key]}`", span,
                        help="give one of the two another name in the module")
    return out


def legal(key: str) -> str:
    """A foreign key as an address."""
    parts = [re.sub(r"\W", "_", p) for p in key.split(".")]
    bare = [p.rstrip("_") or p for p in parts]  # `type_` may stand beside `type`
    parts = [free_segment(p) if is_taken(b) or b in RESERVED else p for p, b in zip(parts, bare)]
    if parts[0].isdigit():
        parts[0] = f"part{parts[0]}"
    return ".".join(parts)


def _output_names(program: Any) -> tuple[str | None, ...]:
    """The keys of a dict or of a record that the module returns; a tuple has none."""
    spec = program.call_spec.out_spec
    try:
        made = _tree().tree_unflatten(list(range(spec.num_leaves)), spec)
    except Exception:  # a record of the user's whose constructor refuses numbers: its outputs have no names
        return ()
    names: list[str | None] = [None] * spec.num_leaves
    for key, value in made.items() if isinstance(made, Mapping) else ():
        for at, leaf in enumerate(leaves := _tree().tree_leaves(value)):
            if isinstance(leaf, int) and isinstance(key, str):
                names[leaf] = key if len(leaves) == 1 else f"{key}_{at}"
    return tuple(names)


# ---------------------------------------------------------------- places in the foreign source
_FRAME = re.compile(r'File "(.+?)", line (\d+), in (\w+)')


def place(node: Any) -> Span | None:
    """The line of foreign code that a node comes from: the innermost one outside torch."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    return next((span for file, line, _ in reversed(frames) if not _torch(file) and (span := line_span(file, int(line))) is not None), None)


def _torch(file: str) -> bool:
    return file.startswith(torch.__path__[0])


def _text(file: str) -> Source | None:
    """A file as it is now: in a notebook it may have been edited, and its module loaded again, since it was read last."""
    try:
        now = os.stat(file)
    except (OSError, ValueError):
        return None
    return _read(file, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=64)
def _read(file: str, changed: int, size: int) -> Source | None:
    try:
        with open(file, encoding="utf-8") as f:
            return Source(file, f.read())
    except (OSError, ValueError):
        return None


def line_span(file: str, number: int) -> Span | None:
    """A line of a file without its indentation."""
    source = _text(file)
    if source is None:
        return None
    start = source._line_starts()[number - 1] if number <= len(source._line_starts()) else 0
    line = source.line(number)
    lead = len(line) - len(line.lstrip())
    return Span(source, start + lead, start + len(line))


def _class_place(module: nn.Module) -> Span:
    kind = type(module)
    try:
        file, (lines, number) = inspect.getsourcefile(kind), inspect.getsourcelines(kind)
        at = next(i for i, text in enumerate(lines) if text.lstrip().startswith("class "))
        span = line_span(file or "", number + at)
    except (OSError, TypeError, StopIteration):
        span = None
    return span or Span(Source("<module>", kind.__name__), 0, len(kind.__name__))


_OUTPUT = re.compile(r"Found <class '([\w.]+)'> in output")
_FIXED = re.compile(r"L\['(\w+)'\]\.size\(\)\[(\d+)\]")


def _untraceable(fault: Exception, module: nn.Module, names: dict[str, dict[int, str]], span: Span) -> ArchError:
    """A0550 with the innermost line of foreign code, A0554 for sizes that the module fixes."""
    if "Constraints violated" in str(fault):
        told = [line.strip(" -").split(". ")[0] for line in str(fault).splitlines() if line.strip().startswith("-")]
        sizes = dict.fromkeys(names.get(k, {}).get(int(a)) or f"axis {a} of {k}" for k, a in _FIXED.findall(str(fault)))
        listed = ", ".join(f"`{n}`" for n in sizes) or "a size"
        return error("A0554", f"{listed} cannot vary: `{type(module).__name__}` fixes it, or relates it to other sizes", span, notes=tuple(told[:3]),
                     help="leave it out of `dynamic`, or change the module")
    frames = [f for f in traceback.extract_tb(fault.__traceback__) if not _torch(f.filename) and f.filename != __file__]
    user = _FRAME.findall(str(fault))
    places = [(f.filename, f.lineno or 1) for f in frames] + [(f, int(n)) for f, n, _ in user if not _torch(f)]
    where = next((s for file, line in reversed(places) if (s := line_span(file, line)) is not None), None)
    text = next((line.strip() for line in str(fault).splitlines() if line.strip()), type(fault).__name__)
    if "data-dependent" in str(fault) or "DataDependent" in type(fault).__name__:
        message = f"`{type(module).__name__}` decides by the values of a tensor which code runs"
        return error("A0550", message, where or span, "data-dependent", notes=(text,),
                     help="choose with `torch.where`, or make the choice an argument of the module")
    if kind := _OUTPUT.search(str(fault)):
        cache = getattr(getattr(module, "config", None), "use_cache", None)
        help = "`module.config.use_cache = False` before the capture" if cache else "capture a module that returns tensors alone"
        message = f"`{type(module).__name__}` returns a `{kind[1].rpartition('.')[2]}`, which is no tensor"
        return error("A0550", message, span, "its results", help=help)
    return error("A0550", f"torch.export cannot trace `{type(module).__name__}`: {text}", where or span, "raised here" if where else "")
