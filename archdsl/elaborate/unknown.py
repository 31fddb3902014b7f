"""A name that is not in scope: what may have been meant, and the edit that mends it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from archdsl.diagnostics.distance import distance
from archdsl.diagnostics.model import ArchError, Fix, Label, error
from archdsl.diagnostics.poison import POISON
from archdsl.elaborate import library
from archdsl.elaborate.hints import MODULES, did_you_mean, nearest, nearest_help, of_torch, rivals
from archdsl.source import Source, Span
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.elaborate.frame import Frame
    from archdsl.modules import Module


def unknown(frame: Frame, name: str, span: Span) -> ArchError:
    """A0201: a library block is to be imported, another name may be a misspelt one."""
    from archdsl.modules import library_exports

    if (sign := _leading(span)) is not None and not _own(name, list(frame.vars)):
        return error("A0201", f"the name `{name}` is not in scope", span, "not known here", help="`//` divides; `#` starts a comment",
                     fixes=(Fix("write `#`: the line is a comment", ((sign, "#"),)),))
    if (setting := _in_setting(frame, name, span)) is not None:
        return setting
    help: tuple[str, ...] = ()
    others: tuple[Fix, ...] = ()
    told = of_torch(name, span)
    where = home(frame.module, name)
    if where:
        fixes: tuple[Fix, ...] = (Fix(f"add `use {where} {{ {name} }}`", (import_edit(frame.module, where, name, span.source),)),)
    elif told is not None:
        help, fixes = told
        help = (*help, *(did_you_mean(name, frame.vars) if not fixes else ()))
        if name in MODULES and not fixes:
            help, fixes = _behind(frame, name, span, help)
    else:
        scope = frame.module.scope
        here = [*frame.vars, *(n for n in frame.module.names() if scope.get(n) is not POISON), *library.names()]
        close = next(iter(nearest(name, [*here, *(library_exports() if name[:1].isupper() else ())])), None)
        if close is None or close in here:
            bare = re.match(r"\(\s*\)", span.source.text[span.end :]) if close is not None and name[:1].isupper() and close.islower() else None
            help, fixes = nearest_help(name, here, span if bare is None else Span(span.source, span.start, span.end + bare.end()))
            others = rivals(name, here, fixes)
            own = _own(name, here[: -len(library.names())])
            if own and close not in own:
                meant = Fix(f"replace by `{own[0]}`", ((span, own[0]),))
                help, fixes, others = (), (meant,), (*fixes, *(o for o in others if o != meant))
        else:
            module = home(frame.module, close) or ""
            edits = ((span, close), import_edit(frame.module, module, close, span.source))
            fixes = (Fix(f"replace by `{close}` and add `use {module} {{ {close} }}`", edits),)
        if span.source.path == "--set":
            help = (*help, f"text stands in quotes: `--set 'ADDRESS=\"{name}\"'`")
    if _of_layout(name, span):
        help = (f"`{name}` is a size inside a layout, and known there alone: compute it, or bind it by a shape, `y: […, {name}] = …`", *help)
    if _divides(span):
        fixes = tuple(f for f in fixes if f.edits[0][1] in frame.vars)  # what divides is a number, not a block that is called alike
        help = help if fixes else (*help, "`//` divides; `#` starts a comment")
    elif not help and not fixes and divided_by(span) is not None:
        help = ("`//` divides; `#` starts a comment",)
    return error("A0201", f"the name `{name}` is not in scope", span, "not known here", help=help, fixes=fixes, rivals=others)


def _in_setting(frame: Frame, name: str, span: Span) -> ArchError | None:
    """A0201 for an argument of the model in a setting of itself, `d = d * 2`, or of one in front of it in the header; None for any other name."""
    declared = {p.name: p for p in frame.decl.params} if isinstance(frame.decl, tree.Model) else {}
    settings = [o for o in getattr(frame, "overrides", ()) if o.expr is not None]  # a walk over names has none
    inside = [o for o in settings if o.expr is not None and span.starts_in(o.expr.span)]
    if name not in declared or not inside:
        return None
    at = inside[0].segments[0]
    labels = (Label(declared[name].span, f"`{name}` is declared here"),) if declared[name].span.source.whole is span.source.whole else ()
    if at != name:
        return error("A0201", f"`{name}` is not known yet where `{at}` is set: it stands behind it in the header", span, "not known yet",
                     labels=labels, help=f"write the value of `{name}`, or set `{name}` by `{at}`")
    before = [o.expr for o in settings[: settings.index(inside[0])] if o.segments == (name,)] or _in_bases(frame, name, span)
    value = before[-1] if before else declared[name].default
    if value is None:
        return error("A0201", f"`{name}` cannot be read where it is set", span, "has no value here", labels=labels, help="write its value")
    text = value.span.text if isinstance(value, (tree.Number, tree.Str, tree.Bool, tree.Name)) else f"({value.span.text})"
    return error("A0201", f"`{name}` cannot be read where it is set: the new value replaces the old one", span, "has no value here", labels=labels,
                 fixes=(Fix(f"replace by `{text}`, what it was", ((span, text),)),))


def _in_bases(frame: Frame, name: str, span: Span) -> list[tree.Expr]:
    """What the variants that the one around a span builds on set an argument to, the nearest one last: their settings of it are gone."""
    variants = {d.name: d for d in frame.module.tree.decls if isinstance(d, tree.Variant)}
    here = next((d for d in variants.values() if span.starts_in(d.span)), None)
    found: list[tree.Expr] = []
    while here is not None:
        here = variants.pop(here.base or "", None)  # each is met once, in a circle too
        found[:0] = [s.value for s in here.settings if s.address == name] if here is not None else ()
    return found


def _leading(span: Span) -> Span | None:
    """The `//` at the start of the line of a name which nothing but words stands on, or in front of `TODO`: a comment of another language."""
    text = span.source.text
    begins = text.rfind("\n", 0, span.start) + 1
    line = _COMMENT.match(text, begins)
    if line is None:
        return None
    at = len(line[1] if line[1] is not None else line[2])
    return Span(span.source, begins + at, begins + at + 2)


_COMMENT = re.compile(r"(?:([ \t]*)//[\w \t.,:;-]*|([^#\"\n]*?)//[ \t]*(?:TODO|FIXME|XXX|NOTE|HACK)\b[^\"\n]*)$", re.MULTILINE)


def divided_by(span: Span) -> int | None:
    """The place of the last `//` in front of a name, on its line."""
    text = span.source.text
    begins = text.rfind("\n", 0, span.start) + 1
    at = text.rfind("//", begins, span.start)
    return at if at >= 0 and '"' not in text[at : span.start] else None


def _divides(span: Span) -> bool:
    """Whether a name ends its line behind `//`."""
    text = span.source.text
    before = text[text.rfind("\n", 0, span.start) + 1 : span.start].rstrip()
    return before.endswith("//") and re.compile(r"[ \t]*$", re.MULTILINE).match(text, span.end) is not None


def _behind(frame: Frame, name: str, span: Span, help: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[Fix, ...]]:
    """Of `torch.nn.functional.relu`: what is meant by its last name, in the place of all of it."""
    chain = re.match(r"(?:\.\w+)+", span.source.text[span.end :])
    if chain is None:
        return help, ()
    last = chain[0].rsplit(".", 1)[-1]
    whole = Span(span.source, span.start, span.end + chain.end())
    if last in frame.vars or library.find(last) is not None or last in frame.module.scope:
        return help, (Fix(f"replace `{whole.text}` by `{last}`", ((whole, last),)),)
    if name == "self":
        return help, tuple(Fix(f"replace by `{n}`", ((whole, n),)) for n in nearest(last, frame.vars)[:1])
    inner = unknown(frame, last, whole).diagnostics[0]
    return (*help, *inner.help), tuple(_bare(fix, whole, last) for fix in inner.fixes)


def _bare(fix: Fix, whole: Span, last: str) -> Fix:
    """A fix that leaves the name as it is takes away what stands in front of it as well."""
    if any(whole.starts_in(span) for span, _ in fix.edits):
        return fix
    return Fix(f"replace by `{last}` and {fix.title}", ((whole, last), *fix.edits))


def _own(name: str, own: list[str]) -> list[str]:
    """The names of the text that are one edit away: they are meant rather than one of the library that looks alike."""
    return [n for n in own if len(name) > 1 and not n.startswith("__") and distance(name, n) == 1]


def _of_layout(name: str, span: Span) -> bool:
    """Whether a layout of the same body has an axis of that name."""
    text = span.source.text[: span.start]
    body = max((m.end() for m in re.finditer(r"^\s*(?:\w+ )?(?:block|model|entry)\b", text, re.MULTILINE)), default=0)
    return any(re.search(rf"\b{name}\b", m[0]) for m in re.finditer(r"\[[^\[\]]*\]\s*->\s*\[[^\[\]]*\]", text[body:]))


def home(module: Module, name: str) -> str | None:
    """The module by which a name of the library is best imported: `std` where the file takes others from it."""
    where = library.module_of(name)
    return "std" if where and any(isinstance(d, tree.Use) and d.module == "std" and d.names for d in module.tree.decls) else where


def import_edit(module: Module, where: str, name: str, source: Source) -> tuple[Span, str]:
    """The edit that imports a name: into the `use` of that module, behind the last `use`, or in front of everything but comments of the file."""
    uses = [d for d in module.tree.decls if isinstance(d, tree.Use)]
    into = next((d for d in uses if d.module == where and d.names), None)
    if into is not None:
        source, end = into.names[-1].span.source, into.names[-1].span.end
        return Span(source, end, end), f", {name}"
    if uses:
        source, end = uses[-1].span.source, uses[-1].span.end
        rest = source.text[end:].partition("\n")[0].rstrip("\r")
        end += len(rest) if rest.lstrip().startswith("#") else 0
        return Span(source, end, end), f"\nuse {where} {{ {name} }}"
    source, start = module.tree.decls[0].span[:2] if module.tree.decls else (source, 0)
    for c in reversed(module.tree.comments):  # documentation belongs to what follows it
        if c.span.source is source and c.span.end <= start and c.text.startswith("///") and not source.text[c.span.end : start].strip():
            start = c.span.start
    return Span(source, start, start), f"use {where} {{ {name} }}\n\n"
