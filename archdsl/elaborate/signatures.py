"""Argument lists against headers, without values: unknown names, too many, given twice, missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from archdsl.diagnostics.model import ArchError, Fix, Label, error
from archdsl.elaborate.bindings import word_span
from archdsl.elaborate.headers import signature
from archdsl.elaborate.hints import INFERRED, NEEDLESS, nearest_help, without_call
from archdsl.elaborate.values import BlockRef, Builtin, FnRef, InitRef, OpRef, RecordRef, UserOp, describe
from archdsl.source import Span
from archdsl.syntax import tree

OPEN = frozenset(("collect", "bank", "routed"))
"""Words that look at their arguments themselves."""


LITERALS: dict[str, tuple[type, ...]] = {"int": (tree.Bool, tree.Str, tree.List), "float": (tree.Bool, tree.Str, tree.List),
                                         "bool": (tree.Number, tree.Str, tree.List), "str": (tree.Number, tree.Bool, tree.List)}
"""Type of a parameter -> literals that it does not take."""
UNFIT: dict[str, frozenset[str]] = {"int": frozenset(("bool", "str", "block", "mask")), "float": frozenset(("bool", "str", "block", "mask")),
                                    "bool": frozenset(("int", "float", "str", "block", "mask")),
                                    "str": frozenset(("int", "float", "bool", "block", "mask"))}
"""Type of a parameter -> types of which it takes no value."""


class Callee:
    """What a call is held against: parameters in order as (name, required), how messages call it, and what they show beside it.
    `other`: names of a block's other list; `types`: of those parameters that take a number, a truth value or a text; `block`: its declaration."""

    def __init__(
        self,
        what: str,
        params: list[tuple[str, bool]],
        kind: str = "argument",
        labels: tuple[Label, ...] = (),
        notes: tuple[str, ...] = (),
        any_more: bool = False,
        hint: str = "",
        other: frozenset[str] = frozenset(),
        types: dict[str, str] | None = None,
        op: bool = False,
        block: tree.Block | None = None,
    ):
        self.other, self.types, self.op, self.block = other, types or {}, op, block
        self.what, self.params, self.kind, self.labels, self.notes, self.any_more, self.hint = what, params, kind, labels, notes, any_more, hint


def misfits(callee: Callee, args: tuple[tree.Arg, ...], known: Callable[[str], tree.Type | None]) -> Iterator[ArchError]:
    """A0204 for literals, tensors and arguments of the header of another type, which is so in a branch that no variant takes as well. `known`: the
    type of a name of the header, None for others."""
    if not callee.types:
        return
    for i, a in enumerate(args):
        if a.spread or type(a.value) is tree.Rest:
            return
        name = a.name or (callee.params[i][0] if i < len(callee.params) else "")
        wanted = callee.types.get(name)
        if wanted is not None and type(a.value) in LITERALS[wanted]:
            said, text = _said(a.value), a.value.span.text
            instead = {"0": "false", "1": "true"}.get(text) if wanted == "bool" else text[1:-1] if text[1:-1].isdigit() and wanted != "str" else None
            if isinstance(a.value, tree.List):
                instead = a.value.items[0].span.text if len(a.value.items) == 1 else None
            help, fixes = (), (Fix(f"replace by `{instead}`", ((a.value.span, instead),)),) if instead else ()
            if a.name is None and callee.block is not None and isinstance(a.value, tree.Number):
                from archdsl.elaborate.proposals import one_size

                help, others = one_size(callee.block, i, [b.value.span for b in args[: i + 1]])
                fixes = others or fixes
            yield error("A0204", f"`{name}` is of type {wanted}, not {said}", a.value.span, f"this is {said}", help=help, fixes=fixes)
        elif wanted is not None and isinstance(a.value, tree.Name) and (said := _unfit(wanted, known(a.value.id))):
            yield error("A0204", f"`{name}` is of type {wanted}, not {said}", a.value.span, f"this is {said}",
                        help=IN_SECOND if said == "a tensor" else ())


IN_SECOND = "the first list of a block holds hyper values, the second its tensors: `F(…)(x)`"


def _unfit(wanted: str, kind: tree.Type | None) -> str:
    """What a name of the header is, where it is of a type of which a parameter takes no value."""
    if isinstance(kind, tree.TensorType):
        return "a tensor"
    return f"of type {kind.name}" if isinstance(kind, tree.NameType) and kind.name in UNFIT[wanted] else ""


def _said(node: tree.Expr) -> str:
    if isinstance(node, tree.List):
        return f"a list of {len(node.items)}"
    return describe(node.value if isinstance(node, (tree.Number, tree.Str, tree.Bool)) else node)


def faults(callee: Callee, args: tuple[tree.Arg, ...], span: Span, piped: int = 0, given: frozenset[str] = frozenset()) -> Iterator[ArchError]:
    """What is wrong with an argument list. `piped`: values put in front of it; `given`: parameters that a `default` may supply."""
    if _fits(callee, args, piped, given):
        return
    names = [n for n, _ in callee.params]
    unclear = any(a.spread or isinstance(a.value, tree.Rest) for a in args)
    positional = [a for a in args if a.name is None]
    taken = set(names[: len(positional) + piped])
    misfits = False
    seen_name = False
    for a in args:
        if a.name is None:
            if seen_name and not unclear:
                yield error("A0205", "an argument without a name cannot follow one with a name", a.span)
                return
            continue
        seen_name = True
        if a.name not in names:
            if not callee.any_more:
                misfits = True
                yield _unknown(callee, a, names, taken | {b.name for b in args if b.name}, args)
        elif a.name in taken and not unclear:
            yield _twice(callee, a, args, names, piped)
        taken.add(a.name)
    count = len(positional) + piped
    if unclear or callee.any_more and count > len(names):
        return
    if count > len(names):
        yield _too_many(callee, positional, span, count)
    elif not misfits:
        missing = next((n for n, required in callee.params if required and n not in taken and n not in given), None)
        if missing is not None:
            yield error(
                "A0203",
                f"{callee.what} needs the input `{missing}`" if callee.kind == "input" else f"{callee.what} needs `{missing}`",
                span,
                f"`{missing}` is missing",
                labels=callee.labels,
                notes=callee.notes,
                fixes=without_call(span) if callee.op else (),
            )


def _fits(callee: Callee, args: tuple[tree.Arg, ...], piped: int, given: frozenset[str]) -> bool:
    """A quick yes for plain lists."""
    params, taken, named = callee.params, piped, set[str]()
    for a in args:
        if a.name is not None:
            named.add(a.name)
        elif named or a.spread or type(a.value) is tree.Rest:
            return False
        else:
            taken += 1
    if taken > len(params) or len(args) + piped != taken + len(named):
        return False
    found = 0
    for name, required in params[taken:]:
        if name in named:
            found += 1
        elif required and name not in given:
            return False
    return found == len(named)


def _unknown(callee: Callee, a: tree.Arg, names: list[str], taken: set[str], args: tuple[tree.Arg, ...]) -> ArchError:
    assert a.name is not None
    mask = a.name.removeprefix("is_")
    if mask in ("causal", "full") and "mask" in names:  # a switch elsewhere, a value here
        help, fixes = (), (Fix(f"write `mask = {mask}`", ((a.span, f"mask = {mask}"),)),)
    elif a.name in INFERRED and callee.kind == "argument":
        text, end = a.span.source.text, a.span.end
        behind = re.match(r"\s*,\s*", text[end:])
        help = ("the size of the input follows from the tensor to which the block is applied",)
        fixes = (Fix(f"remove `{a.span.text}`", ((Span(a.span.source, a.span.start, end + (behind.end() if behind else 0)), ""),)),)
    else:
        help, fixes = _elsewhere(callee, a.name) if a.name in callee.other else nearest_help(a.name, _taking(callee, names, a.value), a.name_span)
        if not help and not fixes:
            help, fixes = _of_blocks(callee, a, taken)
    if not fixes and a.name in NEEDLESS:
        help, fixes = (NEEDLESS[a.name],), removed(a, args)
    return error(
        "A0202",
        f"{callee.what} has no {callee.kind} `{a.name}`",
        a.name_span or a.span,
        f"no such {callee.kind}",
        labels=callee.labels,
        notes=callee.notes,
        help=help,
        fixes=fixes,
    )


def _taking(callee: Callee, names: list[str], value: tree.Expr) -> list[str]:
    """Those of a callee's names that may be meant where a block is given: numbers, truth values and texts are not."""
    return [n for n in names if n not in callee.types] if _gives_block(value) else names


def _of_blocks(callee: Callee, a: tree.Arg, taken: set[str]) -> tuple[tuple[str, ...], tuple[Fix, ...]]:
    """Of a block that is given under a name like no other: the arguments that take blocks and are not given."""
    if not _gives_block(a.value) or callee.block is None:
        return (), ()
    free = [p.name for p in callee.block.params if isinstance(p.type, tree.NameType) and p.type.name == "block" and p.name not in taken]
    if len(free) == 1 and a.name_span is not None:
        return (), (Fix(f"replace by `{free[0]}`", ((a.name_span, free[0]),)),)
    return (f"blocks are taken by {' and '.join(f'`{n}`' for n in free)}",) if free else (), ()


def _gives_block(value: tree.Expr) -> bool:
    return isinstance(value, tree.Call) and isinstance(value.func, tree.Name) and value.func.id[:1].isupper()


def _twice(callee: Callee, a: tree.Arg, args: tuple[tree.Arg, ...], names: list[str], piped: int) -> ArchError:
    """An argument with a name that one without a name has taken, or another of the same name."""
    other = next((b for b in args if b.name == a.name and b is not a), None)
    if other is None and (at := names.index(a.name or "") - piped) >= 0:
        other = args[at]
    labels = (Label(other.span, f"this is `{a.name}` as well"),) if other is not None else ()
    help: tuple[str, ...] = ()
    fixes = removed(other, args) if other is not None else ()
    if other is not None and other.name is None and callee.block is not None:
        from archdsl.elaborate.proposals import one_size

        at = next(i for i, b in enumerate(args) if b is other)
        help, others = one_size(callee.block, min(at, 1), [b.value.span for b in args[: at + 1]])
        fixes = others or fixes
    return error("A0205", f"`{a.name}` is given twice", a.span, "the second", labels=labels, notes=callee.notes, help=help, fixes=fixes)


def removed(a: tree.Arg, args: tuple[tree.Arg, ...]) -> tuple[Fix, ...]:
    """The list without one of its arguments."""
    at = next(i for i, b in enumerate(args) if b is a)  # others may say the same
    start, end = (a.span.start, args[at + 1].span.start) if at + 1 < len(args) else (args[at - 1].span.end if at else a.span.start, a.span.end)
    return (Fix(f"remove `{a.span.text}`", ((Span(a.span.source, start, end), ""),)),)


def _elsewhere(callee: Callee, name: str) -> tuple[tuple[str, ...], tuple[Fix, ...]]:
    """Where a name of the other list belongs."""
    block = callee.what.strip("`")
    if callee.kind == "input":
        return (f"`{name}` configures the block: it stands in the first list, `{block}({name} = …)(x)`",), ()
    return (f"`{name}` is an input: it stands in the second list, `{block}(…)(x, {name} = {name})`",), ()


def _too_many(callee: Callee, positional: list[tree.Arg], span: Span, count: int) -> ArchError:
    n = len(callee.params)
    extra = positional[-(count - n)].value.span if count - n <= len(positional) else span
    from archdsl.elaborate.proposals import without

    return error(
        "A0205",
        f"{callee.what} takes {n or 'no'} {callee.kind}{'s' * (n != 1)}, not {count}",
        extra,
        "one too many" if count == n + 1 else "too many",
        labels=callee.labels,
        notes=callee.notes,
        help=callee.hint or (),
        fixes=_second_list(callee, positional, span) or without((a.span for a in positional), len(positional) - (count - n)),
    )


def _second_list(callee: Callee, positional: list[tree.Arg], span: Span) -> tuple[Fix, ...]:
    """`F(x)` of a block without hyper values: its first list is left out."""
    if callee.block is None or callee.params or span.source.text[span.end : span.end + 1] == "(" or not positional:
        return ()
    name = callee.block.name
    at = span.start + span.text.find("(")
    return (Fix(f"write `{name}(){span.source.text[at : span.end]}`", ((Span(span.source, at, at), "()"),)),) if at > span.start else ()


# ---------------------------------------------------------------- what can be called
def callee(target: Any) -> Callee | None:
    """The first list of a declaration, or None when its call cannot be judged without values."""
    if isinstance(target, BlockRef):
        params = [p for p in target.decl.params if not p.rest]
        return Callee(
            f"`{target.decl.name}`",
            [(p.name, p.default is None) for p in params],
            labels=(_declared(target.decl),),
            notes=(signature(target.decl),),
            any_more=len(params) < len(target.decl.params),
            hint="tensors stand in a second list: `Block(arguments)(x)`",
            other=frozenset(p.name for p in target.decl.inputs if not p.rest),
            types={p.name: p.type.name for p in params if isinstance(p.type, tree.NameType) and p.type.name in LITERALS},
            block=target.decl,
        )
    if isinstance(target, FnRef):
        where = Label(name_span(target.decl), f"`{target.decl.name}` is declared here")
        return Callee(f"`{target.decl.name}`", [(p.name, p.default is None) for p in target.decl.params], labels=(where,))
    if isinstance(target, RecordRef):
        fields = target.decl.fields
        return Callee(
            f"the record {target.decl.name}",
            [(p.name, p.default is None) for p in fields],
            "field",
            (Label(name_span(target.decl), "declared here"),),
        )
    if isinstance(target, (OpRef, UserOp)):
        decl = target.op.decl if isinstance(target, OpRef) else target.decl
        params = [p for p in decl.params if not p.rest]
        notes = (target.op.signature,) if isinstance(target, OpRef) else ()
        return Callee(f"`{decl.name}`", [(p.name, p.default is None) for p in params], notes=notes, any_more=len(params) < len(decl.params),
                      op=True)
    if isinstance(target, InitRef):
        from archdsl.ops.initializers import INITIALIZERS, REQUIRED

        return Callee(f"the initialiser `{target.name}`", [(n, v is REQUIRED) for n, v in INITIALIZERS[target.name].items()])
    return _builtin(target) if isinstance(target, Builtin) else None


def _builtin(target: Builtin) -> Callee | None:
    from archdsl.ops.registry import of_function

    if target.name in OPEN or of_function(target.name) is not None:  # the latter are ops too, when given tensors
        return None
    code, defaults = target.call.__code__, target.call.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    required = len(names) - len(defaults)
    return Callee(f"`{target.name}`", [(n, i < required) for i, n in enumerate(names)], notes=(target.doc,), any_more=bool(code.co_flags & 4))


def inputs(target: BlockRef) -> Callee:
    """The second list of a block."""
    params = [p for p in target.decl.inputs if not p.rest]
    required = [(p.name, p.default is None and not isinstance(p.type, tree.OptionalType)) for p in params]
    return Callee(
        f"`{target.decl.name}`", required, "input", (_declared(target.decl),), (signature(target.decl),), len(params) < len(target.decl.inputs),
        other=frozenset(p.name for p in target.decl.params if not p.rest),
    )


def _declared(decl: tree.Block) -> Label:
    return Label(decl.name_span, f"`{decl.name}` is declared here")


def name_span(decl: Any) -> Span:
    """Where a declaration gives its name."""
    return word_span(decl, decl.name)
