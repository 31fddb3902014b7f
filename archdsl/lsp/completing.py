"""Completion, from the text in front of the cursor: it works where the text is broken, as it always is while one types.

`complete` finds out in what one is: an import, a header's type, a claim, a call, … and gives what may stand there, the likeliest first.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from archdsl.claims.words import IN_SPACES
from archdsl.claims.words import WORDS as CLAIM_WORDS
from archdsl.elaborate.library import FUNCTIONS, MASKS
from archdsl.elaborate.library import names as language_names
from archdsl.elaborate.walk_headers import TYPES
from archdsl.lsp.document import Document, Facts
from archdsl.lsp.names import SCOPES, WORD, uses
from archdsl.lsp.telling import head
from archdsl.modules import Whole, library_exports, library_modules, library_source, library_tree
from archdsl.ops.initializers import INITIALIZERS
from archdsl.ops.registry import OPS, load
from archdsl.passes.registry import PASSES
from archdsl.records import record
from archdsl.syntax import tree
from archdsl.syntax.lexer import RESERVED

STATEMENTS = "return require default share param frozen buffer const draw control emit update static for if match choose".split()
DECLARATIONS = ("use", "block", "wrap block", "extern block", "model", "fn", "op", "record", "variant", "claim", "space", "names", "paper")
PAPER = ("title", "arxiv", "domain", "task", "family", "kind")
_DECLARED = re.compile(r"^(?:(?:wrap|extern) )?(variant|claim|space|names|paper|record|fn|op|block|model)\b", re.MULTILINE)


@record(frozen=True)
class Item:
    """A proposal. `kind`: module, block, op, function, argument, variant, model, value, word. `insert`: its text when that is not `label`;
    `module`: the library module that has to be imported with it."""

    label: str
    kind: str
    detail: str = ""
    doc: str = ""
    insert: str = ""
    module: str = ""


def complete(document: Document, offset: int) -> list[Item]:
    """What may stand at a place, the likeliest first, nothing twice."""
    before = document.text[:offset]
    line = before[before.rfind("\n") + 1 :]
    if _in_comment(line):
        return []
    found = _imports(line, before)
    if found is None:
        start = max((m.start() for m in _DECLARED.finditer(before)), default=0)
        found = _inside(document, offset, before[start:], line)
    out: dict[str, Item] = {}
    for item in found:
        out.setdefault(item.label, item)
    return list(out.values())


def _in_comment(line: str) -> bool:
    return "#" in re.sub(r'"(?:[^"\\]|\\.)*"?', "", line) or line.lstrip().startswith("///")


def _depth(before: str) -> int:
    plain = re.sub(r'#[^\n]*|"(?:[^"\\\n]|\\.)*"', "", before)
    return sum(plain.count(c) for c in "{([") - sum(plain.count(c) for c in "})]")


def _imports(line: str, before: str) -> list[Item] | None:
    if re.search(r"\buse\s+[\w.]*$", line):
        return [Item(m, "module") for m in (*library_modules(), "std")]
    names = re.search(r"\buse\s+([\w.]+)\s*\{([^}]*)$", before)
    if not names or "\n\n" in names[0]:
        return None
    have = set(re.findall(r"\w+(?=\s*,|\s+as\b)", names[2]))
    return [i for i in _exports(names[1]) if i.label not in have]


def _exports(module: str) -> list[Item]:
    """What a module of the library declares; `std` is all of it."""
    modules = library_modules() if module == "std" else [module] if library_source(module) is not None else []
    return [_declaration(d) for m in modules for d in library_tree(m).decls if isinstance(d, SCOPES)]


def _inside(document: Document, offset: int, before: str, line: str) -> list[Item]:
    """`before`: from the start of the declaration on."""
    kind = m[1] if (m := _DECLARED.match(before)) else ""
    depth = _depth(before)
    if target := re.search(r"^(variant\s+\w+\s+of|model\s+\w+[^{]*\bof|space\s+\w+\s+of|names\s+\w+\s+of|claim)\s+[\w.]*$", before):
        return _targets(document, variants=not target[1].startswith(("space", "names")))
    if depth == 0 and re.fullmatch(r"[\w ]*", line):
        return [Item(w, "word") for w in DECLARATIONS]
    if kind in _CONTEXTS and depth > 0 and (found := _CONTEXTS[kind](document, before)) is not None:
        return found
    if member := re.search(r"(\w+)\.\w*$", line):
        return _members(document, member[1])
    if kind in ("block", "model", "fn", "op", "record") and re.search(r"[\w?\])]\s*:\s*\w*$", line) and _in_header(before):
        return [Item(t, "word") for t in sorted(TYPES | {"list"})] + [i for i in _declared(document) if i.kind == "record"]
    if re.search(r"\b(?:default|share\s+\w+\s*=)\s*\w*$", line):
        return [i for i in (*_declared(document), *_library(document)) if i.kind == "block"]
    if re.search(r"(?:\|>|>>)\s*\w*$", before):
        return [i for i in (*_values(document, offset, blocks=True), *_declared(document), *_library(document)) if i.kind in ("value", "block", "op")]
    wanted, arguments = _arguments(document, before)
    if re.fullmatch(r"\s*\w*", line) and not arguments and not re.search(r"(?:[=+*/(,|-]|->)\s*\w*$", before):
        return [*_values(document, offset), *(Item(w, "word") for w in STATEMENTS)]
    return [*wanted, *arguments, *_values(document, offset), *_declared(document), *_library(document), *_language()]


def _in_header(before: str) -> bool:
    """Whether the last open bracket is a parenthesis of a header, or the brace of a record."""
    plain = re.sub(r'#[^\n]*|"(?:[^"\\\n]|\\.)*"', lambda m: " " * len(m[0]), before)
    body = re.search(r"\)[^(){}]*\{", plain)
    return body is None or plain.startswith("record")


# ---------------------------------------------------------------- declarations that are lists
def _targets(document: Document, variants: bool) -> list[Item]:
    decls = _decls(document)
    return [*(Item(d.name, "model", doc=d.doc) for d in decls if isinstance(d, tree.Model)),
            *(Item(d.name, "variant", doc=d.doc) for d in decls if isinstance(d, tree.Variant) and variants)]


def _decls(document: Document) -> list[Any]:
    """The declarations of this text, and of the last good one those that are broken now."""
    now = list(document.module.tree.decls)
    known = {getattr(d, "name", None) for d in now}
    old = document.good.checked.module.tree.decls if document.good is not None else ()
    return now + [d for d in old if getattr(d, "name", None) not in known and not isinstance(d, tree.Use)]


def _model(document: Document, name: str | None) -> Any:
    """The model that a variant, a model or nothing names."""
    variants = {d.name: d for d in _decls(document) if isinstance(d, tree.Variant)}
    models = {d.name: d for d in _decls(document) if isinstance(d, tree.Model)}
    seen: set[str] = set()
    while name in variants and name not in seen:
        seen.add(name)
        name = variants[name].base
    return models.get((name or "").partition(".")[0]) or next(iter(models.values()), None)


def _facts(document: Document, model: Any) -> list[Facts]:
    return [f for f in _facts_of_all(document) if model is not None and f.name.partition(".")[0] == model.name]


def _segments(addresses: Iterable[str], typed: str, number: str) -> list[Item]:
    """The segments that may follow what is typed of an address; `number` stands for each index."""
    given = typed.split(".")[:-1]
    out: dict[str, str] = {}
    for address in addresses:
        parts = address.split(".")
        if len(parts) > len(given) and all(g == p or g[:1] in ("*", "{") for g, p in zip(given, parts)):
            part = parts[len(given)]
            out.setdefault(number if part.isdigit() else part, address)
    return [Item(part, "value", "" if part == address else address) for part, address in out.items()]


def _in_variant(document: Document, before: str) -> list[Item] | None:
    named = re.match(r"variant\s+\w+(?:\s+of\s+(\w+))?", before)
    model = _model(document, named[1] if named else None)
    if re.search(r"\btransform\s+\w*$", before):
        return [Item(n, "function", p.signature, p.doc) for n, p in PASSES.every().items()]
    if value := re.search(r"([\w.*]+)\s*=\s*[\w.\"]*$", before):
        param = next((p for p in getattr(model, "params", ()) if p.name == value[1]), None)
        knobs = [k for f in _facts(document, model) for a, k in f.knobs.items() if a == value[1]]
        return [*_wanted(param), *(Item(str(v), "value") for k in knobs[:1] for v in _few(k))] or None
    if not (at := re.search(r"[{,\n]\s*([\w.*{}]*)$", before)):
        return None
    own = [Item(p.name, "argument", p.span.text, p.doc, f"{p.name} = ") for p in getattr(model, "params", ()) if not p.rest]
    deep = _segments((a for f in _facts(document, model) for a in f.knobs), at[1], "*")
    return [*(own if "." not in at[1] else ()), *(i for i in deep if i.label not in {o.label for o in own}), Item("transform", "word")]


def _few(knob: Any) -> list[Any]:
    values = getattr(knob.allowed, "values", None)
    return list(values)[:20] if isinstance(values, tuple | list) else []


def _in_claim(document: Document, before: str) -> list[Item] | None:
    named = re.match(r"claim\s+([\w.]+)", before)
    model = _model(document, named[1] if named else None)
    if re.search(r"\bcount\s*\(\s*\w*$", before):
        return [i for i in (*_declared(document), *_library(document)) if i.kind in ("block", "op")]
    if re.search(r"\b(?:params|macs|bops|weight_bytes|quantized_bytes|saved_bytes|peak_bytes)\s*\([\w.]*$", before):
        return _segments((a for f in _facts(document, model) for a in f.layers), re.search(r"[\w.]*$", before)[0], "0")  # type: ignore[index]
    return [*(Item(w, "function") for w in CLAIM_WORDS), *_knobs(model), *_outputs(model)]


def _in_space(document: Document, before: str) -> list[Item] | None:
    named = re.match(r"space\s+\w+\s+of\s+(\w+)", before)
    return [*(Item(w, "function") for w in IN_SPACES), *_knobs(_model(document, named[1] if named else None))]


def _knobs(model: Any) -> list[Item]:
    return [Item(p.name, "value", p.span.text, p.doc) for p in getattr(model, "params", ()) if not p.rest]


def _outputs(model: Any) -> list[Item]:
    return [Item(o.name, "value", o.span.text) for o in (*getattr(model, "outs", ()), *(getattr(model, "inputs", None) or ())) if o.name]


def _in_names(document: Document, before: str) -> list[Item] | None:
    named = re.match(r"names\s+\w+\s+of\s+(\w+(?:\s*,\s*\w+)*)", before)
    if not (at := re.search(r"<->\s*([\w.*{}]*)$", before)):
        return [Item(w, "word") for w in ("alias", "drop", "ignore")] if re.search(r"\n\s*\w*$", before) else []
    models = [_model(document, name.strip()) for name in (named[1].split(",") if named else [""])]
    return _segments((a for model in models for f in _facts(document, model) for a in f.weights), at[1], "{i}")


def _in_paper(document: Document, before: str) -> list[Item] | None:
    return [Item(w, "argument", insert=f'{w} = "') for w in PAPER] if re.search(r"[{\n,]\s*\w*$", before) else []


_CONTEXTS: dict[str, Callable[[Document, str], list[Item] | None]] = {
    "variant": _in_variant, "claim": _in_claim, "space": _in_space, "names": _in_names, "paper": _in_paper,
}


# ---------------------------------------------------------------- calls and members
def _arguments(document: Document, before: str) -> tuple[list[Item], list[Item]]:
    """Inside the parentheses of a call: values that fit the argument that is being written, and the arguments that are not given yet."""
    level, at = 0, len(before) - 1
    while at >= 0:
        level += (before[at] in ")]}") - (before[at] in "([{")
        if level < 0:
            break
        at -= 1
    name = re.search(r"(\w+)\s*$", before[:at]) if at >= 0 and before[at] == "(" else None
    if name is None or re.search(r"\b(?:block|model|fn|op)\s+$", before[: name.start()]):
        return [], []
    target = getattr(document.module.scope.get(name[1]), "decl", None) or _named(document, name[1])
    if target is None:
        load()
        target = OPS[name[1]].decl if name[1] in OPS else None
    params = [p for p in getattr(target, "params", ()) if not p.rest]
    inside = before[at + 1 :]
    given = set(re.findall(r"(\w+)\s*=[^=]", inside))
    written = re.search(r"(\w+)\s*=\s*[\w\"]*$", inside)
    if written:
        return _wanted(next((p for p in params if p.name == written[1]), None)), []
    place = 0 if given else len(re.findall(",", re.sub(r"\([^()]*\)|\[[^][]*\]", "", inside)))
    free = [p for p in params if p.name not in given][0 if given else place :]
    return _wanted(free[0] if free and not given else None), [Item(p.name, "argument", p.span.text, p.doc, f"{p.name} = ") for p in free]


def _wanted(param: Any) -> list[Item]:
    """Values that a parameter's type names."""
    if param is None:
        return []
    kind = param.type.span.text if param.type is not None else ""
    words = re.findall(r'"[^"]*"', kind)
    words += ["true", "false"] if re.search(r"\bbool\b", kind) else []
    words += ["causal", "full", *MASKS] if re.search(r"\bmask\b", kind) else []
    words += list(INITIALIZERS) if re.search(r"\binit\b", kind) else []
    words += ["none"] if kind.endswith("?") else []
    if isinstance(param.domain, tree.SetLit):
        words += [i.span.text for i in param.domain.items]
    return [Item(w, "value", f"{param.name}: {kind}") for w in words]


def _members(document: Document, name: str) -> list[Item]:
    """Behind `norm.`: what an imported module declares; behind a shared block: its weights."""
    module = document.module.modules.get(name)
    if module is not None:
        found = [r for r in module.scope.values() if isinstance(getattr(r, "decl", None), SCOPES)]
        return [_declaration(r.decl) for r in found if isinstance(module, Whole) or r.module is module]
    weights: dict[str, str] = {}
    for f in _facts_of_all(document):
        for calls in f.calls.values():
            for address, graph in calls:
                if address == name or address.endswith("." + name):
                    weights.update((a, str(p.type)) for a, p in graph.parameters() if "." not in a)
    return [Item(a, "value", text) for a, text in weights.items()]


def _facts_of_all(document: Document) -> list[Facts]:
    """What is known of the models in the newest version in which they are whole."""
    found: dict[str, Facts] = {}
    for version in (document.now, document.good):
        for f in version.facts if version is not None else ():
            if f.graph is not None:
                found.setdefault(f.name, f)
    return list(found.values())


def _named(document: Document, name: str) -> Any:
    own = next((d for d in _decls(document) if getattr(d, "name", None) == name), None)
    module = library_exports().get(name)
    return own or (next(d for d in library_tree(module).decls if getattr(d, "name", None) == name) if module else None)


# ---------------------------------------------------------------- names
def _values(document: Document, offset: int, blocks: bool = False) -> list[Item]:
    """Names of values in the declaration around, those bound last first; where that is too broken to be read, the names that its text binds.
    `blocks`: those alone that a header calls blocks."""
    around = next((d for d in document.module.tree.decls if isinstance(d, SCOPES) and d.span.absolute.start <= offset <= d.span.absolute.end), None)
    line = document.text.rfind("\n", 0, offset) + 1  # what this statement binds has no value in it
    if around is not None:
        found = [u.name for u in uses(document) if u.decl is around and u.span.start < (offset if not u.binds else line)]
        params: dict[str, Any] = {p.name: p for p in getattr(around, "params", ())}
    else:
        head_at = max((m.start() for m in _DECLARED.finditer(document.text, 0, offset)), default=0)
        text = re.sub(r'#[^\n]*|///[^\n]*|"[^"\n]*"', "", document.text[head_at:line])
        found = re.findall(r"([^\W\d]\w*)\s*(?:=(?![=>])|:)|\bfor\s+(\w+)|([A-Z])(?=\s*[,\]=])", text)
        found = [next(filter(None, f)) for f in found]
        params = dict.fromkeys(re.findall(r"(\w+)\s*:\s*block\b", text))
    taken = {*document.module.scope, *RESERVED, *TYPES, *language_names()}
    names = [n for n in dict.fromkeys(reversed(found)) if n not in taken and WORD.fullmatch(n)]
    if blocks:
        names = [n for n in names if n in params and (params[n] is None or getattr(params[n].type, "name", "") == "block")]
    return [Item(n, "value", "" if params.get(n) is None else params[n].span.text) for n in names]


def _declaration(d: Any, module: str = "") -> Item:
    kind = {tree.Block: "block", tree.Model: "model", tree.Record: "record"}.get(type(d), "function")
    return Item(d.name, kind, " ".join(head(d).split()), getattr(d, "doc", ""), module=module)


def _declared(document: Document) -> list[Item]:
    own = [_declaration(d) for d in _decls(document) if isinstance(d, SCOPES) and not isinstance(d, tree.Model)]
    imported = [_declaration(r.decl) for n, r in document.module.scope.items()
                if isinstance(getattr(r, "decl", None), SCOPES) and r.decl.span.source.whole is not document.module.source and r.decl.name == n]
    return own + imported


def _library(document: Document) -> list[Item]:
    load()
    known = set(document.module.scope)
    blocks = [_declaration(d, module) for module in library_modules() for d in library_tree(module).decls
              if isinstance(d, tree.Block) and d.name not in known]
    return [*(Item(n, "op", o.signature, o.doc) for n, o in sorted(OPS.items()) if not n.startswith("_")), *blocks]


def _language() -> list[Item]:
    words = [Item(n, "function", doc=f.doc) for n, f in FUNCTIONS.items()]
    return [*words, *(Item(n, "function") for n in (*INITIALIZERS, *MASKS)), *(Item(w, "word") for w in ("causal", "full", "true", "false", "none"))]

