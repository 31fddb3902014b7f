"""Completion, from the text in front of the cursor: it works where the text is broken, as it always is while one types."""
from __future__ import annotations

import re
from typing import Any

from archdsl.lsp.document import Document
from archdsl.lsp.names import SCOPES, WORD, uses
from archdsl.lsp.telling import head
from archdsl.modules import library_exports, library_modules, library_source, library_tree
from archdsl.ops.initializers import INITIALIZERS
from archdsl.ops.registry import OPS, load
from archdsl.records import record
from archdsl.syntax import tree

STATEMENTS = "require default share param frozen buffer const draw control emit update static for if match choose return".split()
DECLARATIONS = ("use", "block", "wrap block", "extern block", "model", "fn", "op", "record", "variant", "claim", "space", "names", "paper")


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
    """What may stand at a place."""
    before = document.text[:offset]
    line = before[before.rfind("\n") + 1 :]
    if _in_comment(line):
        return []
    if re.search(r"\buse\s+[\w.]*$", line):
        return [Item(m, "module") for m in library_modules()]
    names = re.search(r"\buse\s+([\w.]+)\s*\{[^}]*$", before)
    if names and "\n\n" not in names[0]:
        return _exports(names[1])
    if re.search(r"\b(?:variant\s+\w+\s+of|model\s+\w+.*\bof|space\s+\w+\s+of|claim)\s+[\w.]*$", line):
        return _targets(document)
    items = _settings(document, before)
    if items is not None:
        return items
    if re.fullmatch(r"\s*\w*", line) and _depth(before) == 0:
        return [Item(w, "word") for w in DECLARATIONS]
    out = _arguments(document, before)
    if re.fullmatch(r"\s*\w*", line) and not out:
        out += [Item(w, "word") for w in STATEMENTS]
    return out + _values(document, offset) + _declared(document) + _library(document)


def _in_comment(line: str) -> bool:
    return "#" in re.sub(r'"(?:[^"\\]|\\.)*"?', "", line)


def _depth(before: str) -> int:
    plain = re.sub(r'#[^\n]*|"(?:[^"\\\n]|\\.)*"', "", before)
    return sum(plain.count(c) for c in "{([") - sum(plain.count(c) for c in "})]")


def _exports(module: str) -> list[Item]:
    if library_source(module) is None:
        return []
    return [_declaration(d) for d in library_tree(module).decls if isinstance(d, SCOPES)]


def _declaration(d: Any, module: str = "") -> Item:
    kind = {tree.Block: "block", tree.Model: "model", tree.Record: "record"}.get(type(d), "function")
    return Item(d.name, kind, " ".join(head(d).split()), getattr(d, "doc", ""), module=module)


def _targets(document: Document) -> list[Item]:
    decls = _decls(document)
    return [*(Item(d.name, "model") for d in decls if isinstance(d, tree.Model)),
            *(Item(d.name, "variant") for d in decls if isinstance(d, tree.Variant))]


def _decls(document: Document) -> list[Any]:
    """The declarations of this text, and of the last good one those that are broken now."""
    now = list(document.module.tree.decls)
    known = {getattr(d, "name", None) for d in now}
    old = document.good.checked.module.tree.decls if document.good is not None else ()
    return now + [d for d in old if getattr(d, "name", None) not in known and not isinstance(d, tree.Use)]


def _settings(document: Document, before: str) -> list[Item] | None:
    """Inside the braces of a variant: the knobs of its model."""
    found = re.search(r"\bvariant\s+(\w+)(?:\s+of\s+(\w+))?\s*\{(?:[^{}]*[,\n{])?\s*(\w*)$", before)
    if not found:
        return None
    decls = _decls(document)
    variants = {d.name: d for d in decls if isinstance(d, tree.Variant)}
    models = {d.name: d for d in decls if isinstance(d, tree.Model)}
    base, seen = found[2], set[str]()
    while base in variants and base not in seen:
        seen.add(base)
        base = variants[base].base
    model = models.get(base or "") or next(iter(models.values()), None)
    return [Item(p.name, "argument", p.span.text, p.doc, f"{p.name} = ") for p in (model.params if model else ()) if not p.rest]


def _arguments(document: Document, before: str) -> list[Item]:
    """Inside the parentheses of a call: the arguments that are not given yet."""
    level, at = 0, len(before) - 1
    while at >= 0:
        level += (before[at] in ")]}") - (before[at] in "([{")
        if level < 0:
            break
        at -= 1
    name = re.search(r"(\w+)\s*$", before[:at]) if at >= 0 and before[at] == "(" else None
    if name is None or re.search(r"\b(?:block|model|fn|op)\s+$", before[: name.start()]):
        return []
    target = getattr(document.module.scope.get(name[1]), "decl", None) or _named(document, name[1])
    if target is None:
        load()
        target = OPS[name[1]].decl if name[1] in OPS else None
    given = set(re.findall(r"(\w+)\s*=[^=]", before[at:]))
    return [Item(p.name, "argument", p.span.text, p.doc, f"{p.name} = ") for p in getattr(target, "params", ()) if not p.rest and p.name not in given]


def _named(document: Document, name: str) -> Any:
    own = next((d for d in _decls(document) if getattr(d, "name", None) == name), None)
    module = library_exports().get(name)
    return own or (next(d for d in library_tree(module).decls if getattr(d, "name", None) == name) if module else None)


def _values(document: Document, offset: int) -> list[Item]:
    """Names of values in the declaration around; where that is too broken to be read, its words."""
    around = next((d for d in document.module.tree.decls if isinstance(d, SCOPES) and d.span.absolute.start <= offset <= d.span.absolute.end), None)
    if around is not None:
        found = {u.name for u in uses(document) if u.decl is around}
    else:
        head_at = document.text.rfind("\n}", 0, offset) + 1
        found = set(WORD.findall(re.sub(r'#[^\n]*|"[^"\n]*"', "", document.text[head_at:offset])))
    typed = re.search(r"\w*$", document.text[:offset])
    taken = {*document.module.scope, *OPS, typed[0] if typed and around is None else ""}
    return [Item(n, "value") for n in sorted(found - taken)]


def _declared(document: Document) -> list[Item]:
    own = [_declaration(d) for d in _decls(document) if isinstance(d, SCOPES)]
    imported = [_declaration(r.decl) for n, r in document.module.scope.items()
                if isinstance(getattr(r, "decl", None), SCOPES) and r.decl.span.source.whole is not document.module.source and r.decl.name == n]
    return own + imported


def _library(document: Document) -> list[Item]:
    load()
    known = set(document.module.scope)
    blocks = [_declaration(d, module) for module in library_modules() for d in library_tree(module).decls
              if isinstance(d, tree.Block) and d.name not in known]
    ops = [Item(n, "op", o.signature, o.doc) for n, o in OPS.items() if not n.startswith("_")]
    return blocks + ops + [Item(n, "function") for n in INITIALIZERS]
