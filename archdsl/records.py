"""Records: dataclasses that cost little to define.

`dataclasses` compiles four to ten functions for every class, 0.1 to 0.5 ms each time Python starts, and imports `inspect`: for the front end's
150 classes that was half of a cold check. `@record` makes the same classes (slots, defaults, factories, equality, hash and text from the
fields, bases first) with one `__init__`, compiled when the first object is made. `frozen` binds type checkers alone. `dataclasses.replace`,
`fields` and `is_dataclass` work on them.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from types import CodeType, FunctionType
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()


class Field:
    """How one attribute behaves. `type` is its annotation, as text; `factory` makes its default; `compare`: it counts in equality and hash."""

    __slots__ = ("compare", "default", "factory", "name", "repr", "type")

    def __init__(self, default: Any = MISSING, factory: Any = MISSING, compare: bool = True, repr: bool = True):
        self.default, self.factory, self.compare, self.repr = default, factory, compare, repr
        self.name = self.type = ""


def field(*, default: Any = MISSING, default_factory: Any = MISSING, compare: bool = True, repr: bool = True) -> Any:
    """What an attribute of a record is set to in the class: `x: list[int] = field(default_factory=list)`."""
    return Field(default, default_factory, compare, repr)


@dataclass_transform(field_specifiers=(field,))
def record(*, frozen: bool = False, eq: bool = True, slots: bool = True, repr: bool = True) -> Callable[[type[T]], type[T]]:
    """Makes a record of a class. With `eq`, records of the same class are equal when their fields are; frozen ones have a hash then."""

    def decorate(cls: type[T]) -> type[T]:
        return _define(cls, frozen, eq, slots, repr)

    return decorate


def fields(cls: Any) -> tuple[Field, ...]:
    """The fields of a record or of its class, those of its bases first."""
    return cls.__fields__


def replace(obj: T, /, **changes: Any) -> T:
    """A record of the same class with some fields changed."""
    for f in fields(obj):
        if f.name not in changes:
            changes[f.name] = getattr(obj, f.name)
    return obj.__class__(**changes)


# ---------------------------------------------------------------- making classes
def _define(cls: Any, frozen: bool, eq: bool, slots: bool, text: bool) -> Any:
    body = dict(cls.__dict__)
    every: dict[str, Field] = {f.name: f for base in reversed(cls.__mro__[1:]) for f in base.__dict__.get("__fields__", ())}
    own = body.get("__annotations__", {})
    for name, kind in own.items():
        given = body.pop(name, MISSING)
        f = given if type(given) is Field else Field(given)
        f.name, f.type = name, kind
        every[name] = f
    body["__fields__"] = found = tuple(every.values())
    body["__match_args__"] = tuple(every)
    if slots:
        inherited = {s for base in cls.__mro__[1:] for s in base.__dict__.get("__slots__", ())}
        body["__slots__"] = tuple(name for name in own if name not in inherited)
        for name in ("__dict__", "__weakref__"):
            body.pop(name, None)
    body["__dataclass_fields__"] = _AsDataclass()
    if eq and "__eq__" not in body:
        body.update(_equality([f.name for f in found if f.compare], frozen))
    if text and "__repr__" not in body:
        body["__repr__"] = _repr
    if slots:
        made: Any = type(cls)(cls.__name__, cls.__bases__, body)
    else:
        made = cls
        for name in own:
            if name in cls.__dict__:
                delattr(cls, name)
        for name in ("__fields__", "__match_args__", "__dataclass_fields__", "__eq__", "__hash__", "__repr__"):
            if name in body:
                setattr(cls, name, body[name])
    made.__init__ = _first_init(made)
    return made


def _first_init(cls: Any) -> Any:
    """An `__init__` that replaces itself by a compiled one when it is called."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        cls.__init__ = _init(cls)
        cls.__init__(self, *args, **kwargs)

    return __init__


def _init(cls: Any) -> Any:
    if not hasattr(cls, "__post_init__") and all(f.factory is MISSING for f in cls.__fields__):
        return _plain_init(cls)
    scope: dict[str, Any] = {"MISSING": MISSING}
    params: list[str] = []
    lines: list[str] = []
    for f in cls.__fields__:
        name, value = f.name, f.name
        if f.factory is not MISSING:
            scope[f"_{name}"] = f.factory
            params.append(f"{name}=MISSING")
            value = f"_{name}() if {name} is MISSING else {name}"
        elif f.default is not MISSING:
            scope[f"_{name}"] = f.default
            params.append(f"{name}=_{name}")
        else:
            params.append(name)
        lines.append(f" self.{name} = {value}\n")
    if hasattr(cls, "__post_init__"):
        lines.append(" self.__post_init__()\n")
    exec(f"def __init__(self, {', '.join(params)}):\n{''.join(lines) or ' pass'}", scope)
    made = scope["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


@cache
def _template(n: int) -> CodeType:
    """The code of an `__init__` that sets n attributes."""
    scope: dict[str, Any] = {}
    names = [f"a{i}" for i in range(n)]
    exec(f"def __init__({', '.join(['self', *names])}):\n" + ("".join(f" self.{a} = {a}\n" for a in names) or " pass"), scope)
    return scope["__init__"].__code__


def _plain_init(cls: Any) -> Any:
    """An `__init__` that does nothing but set attributes: one compiled code for all records of as many fields, under other names."""
    names = tuple([f.name for f in cls.__fields__])
    code = _template(len(names)).replace(co_varnames=("self", *names), co_names=names, co_qualname=f"{cls.__qualname__}.__init__")
    first = next((i for i, f in enumerate(cls.__fields__) if f.default is not MISSING), len(names))
    if any(f.default is MISSING for f in cls.__fields__[first:]):
        raise TypeError(f"{cls.__qualname__}: a field without a default follows one with a default")
    return FunctionType(code, {}, "__init__", tuple([f.default for f in cls.__fields__[first:]]))


def _equality(names: list[str], frozen: bool) -> dict[str, Any]:
    if not names:
        key: Callable[[Any], Any] = lambda _: ()
    elif len(names) == 1:
        one = attrgetter(names[0])
        key = lambda obj: (one(obj),)
    else:
        key = attrgetter(*names)

    def __eq__(self: Any, other: object) -> Any:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self is other or key(self) == key(other)

    def __hash__(self: Any) -> int:
        return hash(key(self))

    return {"__eq__": __eq__, "__hash__": __hash__ if frozen else None}


def _repr(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in self.__fields__ if f.repr)})"


class _AsDataclass:
    """`__dataclass_fields__`, made when something asks for it."""

    def __get__(self, obj: Any, cls: Any) -> dict[str, Any]:
        import dataclasses

        out: dict[str, Any] = {}
        for f in cls.__fields__:
            made: Any = dataclasses.field(repr=f.repr, compare=f.compare)
            made.name, made.type, made._field_type = f.name, None, dataclasses._FIELD  # type: ignore[attr-defined]
            out[f.name] = made
        return out


__all__ = ["MISSING", "Field", "field", "fields", "record", "replace"]
