"""Finding and reading modules: the library's, and files beside a spec. Nothing else is ever read."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from typing import Any

from archdsl.diagnostics.codes import Code
from archdsl.diagnostics.model import ArchError, Diagnostic, Fix, Label, error
from archdsl.diagnostics.poison import POISON
from archdsl.elaborate.hints import MODULES, TORCH, abbreviated, did_you_mean, mend, nearest, nearest_help
from archdsl.elaborate.values import BlockRef, FnRef, ModelRef, RecordRef, UserOp
from archdsl.files import read_source
from archdsl.records import replace
from archdsl.source import Source, Span
from archdsl.syntax import tree
from archdsl.syntax.parser import MAX_TOKENS, parse, parse_some

LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stdlib")

CODES = {
    "A0602": Code(
        "a limit is reached",
        "Reading a spec always ends, within a budget of steps, sizes of lists and numbers, and depth: a spec may come from a stranger, a search or a "
        "language model. Real models stay far below: 80 layers of Llama take under a thousandth of it.",
        bad="model Net(d: int = 8)(x: [B, d]) -> [B, d] {\n  return x * (2 ** 100_000)\n}",
        good="model Net(d: int = 8)(x: [B, d]) -> [B, d] {\n  return x * (2 ** 10)\n}",
    ),
    "A0603": Code(
        "a file outside of its folder",
        "`use` reads the library and files below the folder of the spec, nothing else, not even through a symbolic link: a spec from a stranger must "
        "not reach your other files. Copy the file beside the spec. For the same reason, `check`, `fmt` and `verify` read from a folder what lies in "
        "it, not what its links lead to: name such a file itself.",
    ),
    "A0605": Code(
        "a setting that cannot be read",
        "`--set ADDRESS=VALUE` takes the address of a knob and a value of the language: `d=512`, `depths=[3, 3, 9, 3]`, `layers.*.mixer=pooling`.",
        bad="archdsl cost llama.arch --set depth:16",
        good="archdsl cost llama.arch --set depth=16",
    ),
    "A0606": Code(
        "a file without a model",
        "Costs, compilation and claims need a `model NAME(…)(…) -> … { … }`. A file of blocks and functions alone is a module for others to `use`; "
        "`archdsl check` reads it too.",
    ),
}

MAX_IMPORTS = 40  # of modules by modules by …
MAX_FOUND = 100  # mistakes of a file that are told at once

REFS: dict[type, Any] = {tree.Block: BlockRef, tree.Model: ModelRef, tree.Fn: FnRef, tree.Record: RecordRef, tree.OpDecl: UserOp}


class Module:
    """One file: its tree, its declarations by name, its imports. `diagnostics` holds what reading it found."""

    def __init__(self, source: Source, parsed: tree.Module, library: Library, is_library: bool, folder: str | None, diagnostics: list[Diagnostic]):
        self.source, self.tree, self.library, self.is_library, self.folder = source, parsed, library, is_library, folder
        self.diagnostics = diagnostics
        self.scope: dict[str, Any] = {}
        self.modules: dict[str, Module | Whole] = {}
        self.spans: dict[str, Span] = {}
        self.used: set[str] = set()
        self._declare()

    def _declare(self) -> None:
        for d in self.tree.decls:
            if len(self.diagnostics) >= MAX_FOUND:
                break
            if type(d) in REFS:
                span = getattr(d, "name_span", None) or d.span
                if d.name in self.scope:  # type: ignore[attr-defined]
                    self._fault(error("A0208", f"`{d.name}` is declared twice", span, "the second", labels=(Label(self.spans[d.name], "the first"),)))  # type: ignore[attr-defined]
                    continue
                self.scope[d.name] = REFS[type(d)](d, self)  # type: ignore[attr-defined]
                self.spans[d.name] = span  # type: ignore[attr-defined]

    def _fault(self, e: ArchError) -> None:
        self.diagnostics.extend(e.diagnostics)

    def link(self) -> None:
        """Resolves the imports; faults are collected."""
        for d in self.tree.decls:
            if not isinstance(d, tree.Use):
                continue
            if len(self.diagnostics) >= MAX_FOUND:
                break
            try:
                other = self.library.module(d.module, self, _module_span(d), [n.name for n in d.names])
            except ArchError as e:
                self._fault(e)
                for n in d.names:
                    self.scope.setdefault(n.alias or n.name, POISON)
                last = d.module.rsplit(".", 1)[-1]
                if not d.names and last in library_exports():  # `use Linear`: told here
                    self.scope.setdefault(last, POISON)
                continue
            if not d.names:
                self.modules[d.module.rsplit(".", 1)[-1]] = other.complete()
            for n in d.names:
                self._import(other, n, d.module)

        self._spread_records()

    def _spread_records(self) -> None:
        """Headers with `...Record` get its fields as arguments."""
        decls = tuple(self._spread(d) if isinstance(d, (tree.Block, tree.Model)) and any(map(spreads, d.params)) else d for d in self.tree.decls)
        if any(a is not b for a, b in zip(decls, self.tree.decls)):
            self.tree = replace(self.tree, decls=decls)
            self.__dict__.pop("models", None)

    def _spread(self, d: Any) -> Any:
        records = [self._spread_record(p) for p in d.params if spreads(p)]
        key = id(d), tuple(id(getattr(r, "decl", r)) for r in records)
        known, faults = self.library.spread.get(key), len(self.diagnostics)
        made = known[1] if known is not None else self._with_fields(d)
        if known is None and len(self.diagnostics) == faults and all(isinstance(r, RecordRef) for r in records):
            self.library.spread[key] = d, made, records
        if self.scope.get(d.name) is not None and getattr(self.scope[d.name], "decl", None) is d:
            self.scope[d.name] = REFS[type(d)](made, self)
        return made

    def _with_fields(self, d: Any) -> Any:
        params: list[tree.Param] = []
        for p in d.params:
            if not spreads(p):
                params.append(p)
                continue
            record = self._spread_record(p)
            if not isinstance(record, RecordRef):
                if record is not POISON:
                    self._fault(error("A0201" if record is None else "A0204", f"`{p.name}` is no record", p.span, "its fields would become arguments",
                                      help=did_you_mean(p.name, [n for n, r in self.scope.items() if isinstance(r, RecordRef)])))
                continue
            taken = {q.name: q for q in (*d.params, *params) if not q.rest}
            for f in record.decl.fields:
                if f.name in taken:
                    labels = (Label(taken[f.name].span, "the argument"),)
                    self._fault(error("A0208", f"`{f.name}` is an argument and a field of `{p.name}`", p.span, labels=labels))
                else:
                    params.append(f)
        return replace(d, params=tuple(params))

    def _spread_record(self, p: tree.Param) -> Any:
        first, _, last = p.name.rpartition(".")
        return self.member(first, last, None) if first else self.find(last, None)

    def _import(self, other: Module | Whole, n: tree.UseName, module: str) -> None:
        local = n.alias or n.name
        found = other.offer(n.name)
        if found is None:
            there, at = other.names(), Span(n.span.source, n.span.start, n.span.start + len(n.name))
            help, fixes = _op_help(n.name, there) or nearest_help(n.name, there, at)
            self._fault(error("A0207", f"`{module}` has no `{n.name}`", n.span, "not declared there", help=help, fixes=fixes))
            self.scope.setdefault(local, POISON)
        elif local in self.scope and self.scope[local] is not found:
            where = (Label(self.spans[local], "the first"),) if local in self.spans else ()
            self._fault(error("A0208", f"`{local}` is declared twice", n.span, "imported here", labels=where,
                              help=f"`{n.name} as OTHER` imports it under another name"))
        else:
            self.scope[local] = found
            self.spans[local] = n.span

    @cached_property
    def models(self) -> dict[str, tree.Model]:
        """The models by name. One with entries gives `Two.encode`, `Two.decode` …, each with the statements that all share; `Two` is its first."""
        out: dict[str, tree.Model] = {}
        for d in self.tree.decls:
            if isinstance(d, tree.Model):
                made = entry_models(d) or [d]
                out.setdefault(d.name, replace(made[0], name=d.name))
                out.update((m.name, m) for m in made if m.name != d.name)
        return out

    @cached_property
    def entries(self) -> dict[str, dict[str, frozenset[str]]]:
        """Of each model with entries: the entries, each with the names of its inputs."""
        out: dict[str, dict[str, frozenset[str]]] = {}
        for name, d in self.models.items():
            if family(name) != name:
                out.setdefault(family(name), {})[name.partition(".")[2]] = frozenset(p.name for p in d.inputs or ())
        return out

    def meant(self, model: str) -> str:
        """`Two.encode` for `Two`, a model with entries, which stands for its first one; else the name itself."""
        return f"{model}.{next(iter(self.entries[model]))}" if model in self.entries else model

    def find(self, name: str, session: Any) -> Any:
        """The declaration or import of that name, or None."""
        found = self.scope.get(name)
        if found is not None:
            self.used.add(name)
        return found

    def member(self, module: str, name: str, session: Any) -> Any:
        """`llama.Llama` for a module imported whole."""
        other = self.modules.get(module)
        return other.scope.get(name) if other is not None else None

    def offer(self, name: str) -> Any:
        """What another module gets when it imports that name; None where there is nothing."""
        return self.scope.get(name)

    def names(self) -> list[str]:
        return list(self.scope)

    def complete(self) -> Module:
        """The same, all that it declares in its scope."""
        return self


def entry_models(d: tree.Model) -> list[tree.Model]:
    """The entries of a model as models."""
    common = tuple(s for s in d.body if not isinstance(s, tree.Entry))
    return [replace(d, name=f"{d.name}.{e.name}", inputs=e.inputs, outs=e.outs, stream=e.stream, body=(*common, e), doc=e.doc or d.doc)
            for e in d.body if isinstance(e, tree.Entry)]


def family(model: str) -> str:
    """The declared model that an entry belongs to; of any other model the model itself."""
    return model.partition(".")[0]


def spreads(p: tree.Param) -> bool:
    """`...Record` in a header."""
    return p.rest and p.name != "..."


def _module_span(d: tree.Use) -> Span:
    """Where the module's name stands in a `use`."""
    at = d.span.text.find(d.module)
    return Span(d.span.source, d.span.start + at, d.span.start + at + len(d.module)) if at > 0 else d.span


def _shown(path: str) -> str:
    """A path as messages show it: from the working folder when it lies inside."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)


class Whole:
    """The library as one module, `std`. A name is looked up in the module that declares it, and only that one is read."""

    def __init__(self, library: Library):
        self.scope = Exports(library)

    def offer(self, name: str) -> Any:
        return self.scope.get(name)

    def names(self) -> list[str]:
        return list(self.scope)

    def complete(self) -> Whole:
        return self


class Exports(Mapping[str, Any]):
    """What the modules of the library declare, by name."""

    def __init__(self, library: Library):
        self.library = library

    def __getitem__(self, name: str) -> Any:
        module = library_exports()[name]
        return self.library.std(module).offer(name)

    def __iter__(self) -> Iterator[str]:
        return iter(library_exports())

    def __len__(self) -> int:
        return len(library_exports())


class Library:
    """Modules read so far, by the place they came from. One per loaded spec, over trees that are cached for the whole process."""

    def __init__(self) -> None:
        self.read: dict[str, Module] = {}
        self.path: list[str] = []
        self.whole = Whole(self)
        self.left = MAX_TOKENS  # for the spec and the modules beside it, together
        self.spread: dict[Any, tuple[Any, Any, Any]] = {}  # declarations with `...Record` in their headers, and what they stand for

    def _parse(self, source: Source) -> tuple[tree.Module, list[Diagnostic]]:
        parsed, faults, tokens = parse_some(source, self.left)
        self.left = max(self.left - tokens, 1_000)
        return parsed, faults

    def open(self, source: Source, folder: str | os.PathLike[str] | None) -> Module:
        """The module of a spec's own text. `folder`: where files that it imports stand beside it; None: it may import from the library alone."""
        parsed, faults = self._parse(source)
        return self.made(source, parsed, faults, folder)

    def made(self, source: Source, parsed: tree.Module, faults: list[Diagnostic], folder: str | os.PathLike[str] | None) -> Module:
        """The same of a text that has been parsed."""
        folder = None if folder is None else os.fspath(folder)
        module = Module(source, parsed, self, False, folder, list(faults))
        self.path.append(os.path.join(folder, os.path.basename(source.path)) if folder is not None else source.path)
        module.link()
        self.path.pop()
        return module

    def module(self, name: str, user: Module, span: Span, wanted: list[str]) -> Module | Whole:
        """The module of a dotted name; `std` alone is the whole library. `wanted`: what is imported from it. Raises A0207 when there is none, A0216
        for a cycle, A0603 for a file that lies outside of the folder."""
        parts = name.split(".")
        if any(not p.isidentifier() for p in parts):
            raise error("A0207", f"`{name}` is no module name", span, help="`use std.norm { LayerNorm }`")
        if parts[0] == "std":
            return self._library(name, parts[1:], span, wanted)
        if user.is_library or user.folder is None:
            raise error("A0207", f"there is no module `{name}`", span, **_nearest_module(name, [], span, wanted))
        return self._beside(name, parts, user, span, wanted)

    def _library(self, name: str, parts: list[str], span: Span, wanted: list[str]) -> Module | Whole:
        if not parts:
            return self.whole
        if name in self.read:
            return self.read[name]
        if library_source(name) is None:
            told = _nearest_module(name, [], span, wanted) if parts[-1] in library_exports() and not wanted else _declaring(wanted, span)
            raise error("A0207", f"the library has no module `{name}`", span, "not in the library",
                        **told or mend(name, library_modules(), span, f"it has {', '.join(library_modules())}"))
        return self.std(name)

    def std(self, name: str) -> Module:
        """A module that the library has."""
        from archdsl.shelf import LibraryModule

        if name not in self.read:
            source = library_source(name)
            assert source is not None, name
            self.read[name] = LibraryModule(source, self)
        return self.read[name]

    def _beside(self, name: str, parts: list[str], user: Module, span: Span, wanted: list[str]) -> Module:
        folder = user.folder
        assert folder is not None
        path = os.path.join(folder, *parts[:-1], parts[-1] + ".arch")
        if not os.path.lexists(path):
            raise error("A0207", f"there is no module `{name}`", span, f"neither in the library nor beside {user.source.path}",
                        **_nearest_module(name, _neighbours(folder), span, wanted))
        key = os.path.realpath(path)
        if not key.startswith(os.path.join(os.path.realpath(folder), "")):
            raise error("A0603", f"the module `{name}` lies outside of the spec's folder", span, "reached through a link",
                        help="copy the file beside the spec")
        if key in self.read or key in self.path:
            return self._known(key, span)
        source = read_source(_shown(path))
        parsed, faults = self._parse(source)
        return self._load(key, source, parsed, folder, list(faults))

    def _known(self, key: str, span: Span) -> Module:
        if key in self.path:
            circle = " -> ".join(os.path.basename(p) for p in [*self.path[self.path.index(key) :], key])
            raise error("A0216", f"modules import each other in a circle: {circle}", span, "needs itself",
                        help="what both need may stand in a module of its own")
        return self.read[key]

    def _load(self, key: str, source: Source, parsed: tree.Module, folder: str | None, faults: list[Diagnostic]) -> Module:
        if len(self.path) > MAX_IMPORTS:
            raise error("A0602", f"modules import each other more than {MAX_IMPORTS} deep", Span(source, 0, 0))
        module = Module(source, parsed, self, False, folder, faults)
        self.read[key] = module
        self.path.append(key)
        module.link()
        self.path.pop()
        if module.diagnostics:
            raise ArchError(*module.diagnostics)
        return module


def _neighbours(folder: str) -> list[str]:
    """The modules of a folder; none where it cannot be listed: it may not be there yet, as that of a new text in an editor."""
    try:
        return [f[:-5] for f in _listed(folder)]
    except OSError:
        return []


def _listed(folder: str) -> list[str]:
    return sorted(f for f in os.listdir(folder) if f.endswith(".arch"))


@cache
def library_source(name: str) -> Source | None:
    """The text of a library module, by its dotted name."""
    parts = name.split(".")[1:]
    file = os.path.join(LIBRARY, *parts) + ".arch"
    if not parts or not os.path.isfile(file):
        return None
    with open(file, encoding="utf-8") as text:
        return Source(f"{'/'.join(['std', *parts])}.arch", text.read(), name)


@cache
def library_tree(name: str) -> tree.Module:
    """A library module's tree, parsed once in a process. (Kept on disk it would be there 3 ms sooner, of 150.)"""
    source = library_source(name)
    assert source is not None, name
    return parse(source)


def _declaring(wanted: list[str], span: Span) -> dict[str, Any] | None:
    """The module that declares all that is wanted, or `std` where it takes several; None where the library lacks some of it."""
    known = library_exports()
    if not wanted or not all(n in known for n in wanted):
        return None
    homes = {known[n] for n in wanted}
    home = homes.pop() if len(homes) == 1 else "std"
    return {"fixes": (Fix(f"replace by `{home}`", ((span, home),)),)}


def _op_help(name: str, there: list[str]) -> tuple[tuple[str, ...], tuple[Fix, ...]] | None:
    """(help, fixes) for the name of an op, or what torch calls it, in the list of an import; None for any other, for what differs from a name that
    is there in capitals alone (`attention` for `Attention`), and for the first letters of one (`GLA`)."""
    from archdsl.ops.registry import find

    if name.lower() in map(str.lower, there) or any(t in there for t in TORCH.get(name, ())) or abbreviated(name, there):
        return None
    op = next((o for o in (name, *TORCH.get(name, ()), name.lower()) if find(o) is not None), None)
    return None if op is None else ((f"`{op}` is an op: ops need no import",), ())


def _nearest_module(name: str, beside: list[str], span: Span, wanted: list[str]) -> dict[str, Any]:
    """What to do about a name that is no module: the nearest, or `std`, whatever was written for it, where the library has all that is `wanted`."""
    known, last = library_exports(), name.rsplit(".", 1)[-1]
    if last in known and not wanted:  # `use Linear`
        return {"fixes": (Fix(f"write `std {{ {last} }}`", ((span, f"std {{ {last} }}"),)),)}
    if name.split(".")[0] in MODULES and all(n in known for n in wanted):
        return {"help": "blocks come from `std`; ops such as `relu` need no import", "fixes": (Fix("replace by `std`", ((span, "std"),)),)}
    if name.split(".")[0] in MODULES:
        return {"help": "blocks come from `std` (`archdsl ops` lists what there is); ops such as `relu` need no import"}
    if "." in name or nearest(name, beside) or not all(n in known for n in wanted):
        return mend(name, [*library_modules(), *beside], span)
    return {"fixes": (Fix("replace by `std`", ((span, "std"),)),)}


@cache
def library_modules() -> tuple[str, ...]:
    """The dotted names of all library modules."""
    return tuple("std." + f[:-5] for f in _listed(LIBRARY))


DECLARED = re.compile(r"^(?:(?:wrap |extern )?block|record|fn) (\w+)", re.MULTILINE)


@cache
def library_exports() -> dict[str, str]:
    """Declared name -> module, for the whole library: from the texts, which are formatted, so that no module needs to be parsed for it."""
    sources = ((name, library_source(name)) for name in library_modules())
    return {found[1]: name for name, source in sources if source is not None for found in DECLARED.finditer(source.text)}
