"""Where values stand whose type a header declares: arguments, defaults, settings. What a type takes is said here again, apart from the compiler."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from archdsl.syntax import tree

from .text import Text


class Slot(NamedTuple):
    """A value, the parameter that it is for, what declares that, and the ancestors of the value."""

    value: Any
    param: tree.Param
    owner: Any
    up: tuple[Any, ...]


def slots(text: Text) -> Iterator[Slot]:
    for node, up in text.nodes:
        if isinstance(node, (tree.Block, tree.Model, tree.Record, tree.Fn)):
            for p in node.fields if isinstance(node, tree.Record) else node.params:
                if p.default is not None and p.type is not None:
                    yield Slot(p.default, p, node, (*up, node, p))
        elif isinstance(node, (tree.Call, tree.Default)):
            owner = header_of(text, node)
            for value, p, arg in bound(node, owner):
                yield Slot(value, p, owner, (*up, node, arg))
        elif isinstance(node, tree.Variant):
            model = model_of(text, node)
            for s in node.settings:
                p = next((p for p in model.params if p.name == s.address), None) if model is not None else None
                if p is not None:
                    yield Slot(s.value, p, model, (*up, node, s))


def header_of(text: Text, node: Any) -> Any:
    """What a call or a `default` gives arguments to, when its name says so."""
    name = node.block if isinstance(node, tree.Default) else node.func.id if isinstance(node.func, tree.Name) else None
    return text.headers.get(name)  # pyright: ignore[reportArgumentType]


def params_of(owner: Any) -> tuple[tree.Param, ...]:
    found = owner.fields if isinstance(owner, tree.Record) else owner.params
    return tuple(p for p in found if not p.rest)


def bound(node: Any, owner: Any) -> Iterator[tuple[Any, tree.Param, tree.Arg]]:
    """(value, parameter, argument) of a first list."""
    if owner is None or any(a.spread or isinstance(a.value, tree.Rest) for a in node.args):
        return
    params = params_of(owner)
    for i, a in enumerate(node.args):
        p = (params[i] if i < len(params) else None) if a.name is None else next((p for p in params if p.name == a.name), None)
        if p is not None and p.type is not None:
            yield a.value, p, a


def model_of(text: Text, variant: tree.Variant) -> tree.Model | None:
    models = {d.name: d for d in text.module.decls if isinstance(d, tree.Model)}
    variants = {d.name: d for d in text.module.decls if isinstance(d, tree.Variant)}
    base = variant.base
    while base is not None and base not in models:
        base = variants[base].base
    return models[base] if base is not None else next(iter(models.values()), None)


# ---------------------------------------------------------------- types and literals
def takes(type: tree.Type | None, kind: str) -> bool:
    """Whether a declared type takes a literal of a kind: int, float, str:text, bool, none, list, block (a template), incomplete (a block without
    its list), tensor."""
    if isinstance(type, tree.OptionalType):
        return kind == "none" or takes(type.item, kind)
    if isinstance(type, tree.UnionType):
        return any(takes(o, kind) for o in type.options)
    if isinstance(type, tree.LiteralType):
        return kind == f"str:{type.value}"
    if isinstance(type, (tree.ListType, tree.TupleType)):
        return kind == "list"
    if isinstance(type, tree.NameType):
        return kind in {"int": ("int",), "float": ("int", "float"), "bool": ("bool",), "block": ("block",), "init": ("int", "float", "init"),
                        "mask": ("mask",)}.get(type.name, ()) or type.name == "str" and kind.startswith("str:")
    return True


def kind_of(text: Text, value: Any) -> str | None:
    """The kind of a literal, None for any other expression."""
    if isinstance(value, tree.Number):
        return "int" if isinstance(value.value, int) else "float"
    if isinstance(value, tree.Str):
        return f"str:{value.value}"
    if isinstance(value, tree.Bool):
        return "bool"
    if isinstance(value, tree.NoneLit):
        return "none"
    if isinstance(value, tree.List):
        return "list"
    if isinstance(value, tree.Call) and isinstance(text.headers.get(getattr(value.func, "id", None)), tree.Block):  # type: ignore[arg-type]
        return "block"
    return None
