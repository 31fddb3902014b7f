"""The protocol: requests of an editor to features, places to lines and UTF-16 columns. No request and no text ends the server."""
from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote, urlparse

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path, to_fs_path

from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.diagnostics.render import brief, helps
from archdsl.elaborate.unknown import home, import_edit
from archdsl.lsp import addresses, completing, names, telling, trying
from archdsl.lsp.document import Document
from archdsl.source import Source, Span
from archdsl.syntax.fmt import format_module
from archdsl.version import VERSION

SHORT = 0.003  # seconds in which the keys that were sent together arrive
QUIET = 0.25  # without a keystroke before shapes are told
TRIED = 0.4  # without a keystroke before fixes are tried
IDLE = 1.5  # without a keystroke before what can wait is done
MANY = 300  # checks without a pause, after which memory is looked through all the same
log = logging.getLogger("archdsl.lsp")


class Server(LanguageServer):
    """`open`: the newest version of each open text by its address; `waiting`: those to be checked; `trials`: those whose fixes are to be tried;
    `key`: when the last change came; `checks`: how many there were since the last pause."""

    def __init__(self) -> None:
        super().__init__("archdsl", VERSION)
        self.open: dict[str, Document] = {}
        self.waiting: dict[str, asyncio.Task[None]] = {}
        self.trials: dict[str, asyncio.Task[None]] = {}
        self.key, self.checks = 0.0, 0
        self.pause: asyncio.Task[None] | None = None

    def document(self, uri: str) -> Document:
        """The text as it is now in the editor; of one that is not open, what its file holds. Raises OSError where that cannot be read."""
        text = self.workspace.get_text_document(uri).source
        known = self.open.get(uri)
        if known is None or known.text != text:
            known = Document(path_of(uri), text, known)
            if self.is_open(uri):  # else no editor says when it changes or is done with
                self.open[uri] = known
        return known

    def is_open(self, uri: str) -> bool:
        return unquote(uri) in self.workspace.text_documents  # the workspace knows addresses without escapes

    # ------------------------------------------------------------ places
    def offset(self, document: Document, position: lsp.Position) -> int:
        return offset_at(document.source, position)

    def check(self, uri: str) -> None:
        """Tells the editor what is wrong with a text, and once more when its fixes have been tried."""
        document = self.document(uri)
        self.forget(uri)
        self.publish(uri, self.shown(document))
        if document.broken:
            self.trials[uri] = self.begin(self.try_fixes(uri, document))
        self.checks += 1
        if self.checks >= MANY:
            self.tidy()

    def shown(self, document: Document) -> list[lsp.Diagnostic]:
        """The diagnostics of a version as an editor takes them."""
        own = [d for d in document.diagnostics if d.span.source.path == document.path]
        away = [d for d in document.diagnostics if d.span.source.path != document.path]
        shown = [diagnostic(d, document) for d in own]
        shown += [lsp.Diagnostic(range=range_of(Span(document.source, 0, 0)), message=f"{d.span!r}: {d.message}", code=d.code, source="archdsl",
                                 severity=lsp.DiagnosticSeverity.Error) for d in away]
        return shown

    def publish(self, uri: str, shown: list[lsp.Diagnostic]) -> None:
        version = self.workspace.get_text_document(uri).version
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri=uri, diagnostics=shown, version=version))

    async def try_fixes(self, uri: str, document: Document) -> None:
        """At the next pause, in a process of its own."""
        await self.quiet(TRIED)
        before = self.shown(document)
        document.tried = await trying.tried(document.path, document.text)
        if self.open.get(uri) is document and (shown := self.shown(document)) != before:
            self.publish(uri, shown)

    async def check_soon(self, uri: str) -> None:
        await asyncio.sleep(SHORT)
        self.waiting.pop(uri, None)
        if self.is_open(uri):
            self.check(uri)
        self.rest()

    def text(self, markdown: str, *where: str) -> lsp.MarkupContent | str:
        """Text for a reader that says under this name of its capabilities whether it knows Markdown."""
        known: Any = self.client_capabilities.text_document
        for name in where:
            known = getattr(known, name, None)
        if lsp.MarkupKind.Markdown in (known or ()):
            return lsp.MarkupContent(lsp.MarkupKind.Markdown, markdown)
        plain = re.sub(r"(?m)^```.*\n?|(?<!`)`(?!`)", "", markdown)
        return lsp.MarkupContent(lsp.MarkupKind.PlainText, plain) if known else plain

    # ------------------------------------------------------------ pauses
    async def quiet(self, seconds: float) -> None:
        """Returns when no key has come for so long."""
        while (left := self.key + seconds - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def rest(self) -> None:
        """Does at the next pause what can wait."""
        if self.pause is None or self.pause.done():
            self.pause = self.begin(self._rest())

    async def _rest(self) -> None:
        await self.quiet(IDLE)
        for uri in list(self.open):
            while time.monotonic() - self.key > IDLE and (document := self.open.get(uri)) is not None and document.prepare():
                await asyncio.sleep(0)  # a key may have come
        self.tidy()

    def tidy(self) -> None:
        """Looks for garbage among what is new. What is left is long-lived: no later look goes over it."""
        self.checks = 0
        if not gc.isenabled():
            gc.collect()
            gc.freeze()

    def typed(self, uri: str) -> None:
        """Checks a text when those keys have come that were sent together."""
        self.key = time.monotonic()
        self.forget(uri)
        self.waiting[uri] = self.begin(self.check_soon(uri))

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_tell_fault)
        return task

    def forget(self, uri: str) -> None:
        """Ends what is under way for an older version of a text."""
        for of in (self.waiting, self.trials):
            task = of.pop(uri, None)
            if task is not None:
                task.cancel()


def _tell_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a text could not be checked", exc_info=task.exception())


def path_of(uri: str) -> str:
    """The path of a file; of a text that is in no file its address."""
    return to_fs_path(uri) or unquote(urlparse(uri).path) or uri


# ---------------------------------------------------------------- places
def position_of(source: Source, offset: int) -> lsp.Position:
    """Lines from 0, columns in UTF-16 units."""
    line, column = source.position(min(offset, len(source.text)))
    before = source.text[offset - column + 1 : offset]
    return lsp.Position(line - 1, len(before) + sum(ord(c) > 0xFFFF for c in before))


def range_of(span: Span) -> lsp.Range:
    span = span.absolute
    return lsp.Range(position_of(span.source, span.start), position_of(span.source, max(span.start, span.end)))


def offset_at(source: Source, position: lsp.Position) -> int:
    """Places behind the end of a line or of the text are at that end."""
    text, start = source.text, 0
    for _ in range(position.line):
        start = text.find("\n", start) + 1
        if not start:
            return len(text)
    end = text.find("\n", start)
    units, at = position.character, start
    end = len(text) if end < 0 else end
    while at < end and units > 0:
        units -= 1 + (ord(text[at]) > 0xFFFF)
        at += 1
    return at


def diagnostic(d: Diagnostic, document: Document) -> lsp.Diagnostic:
    end = d.span.end if d.span.end > d.span.start else min(d.span.start + 1, len(document.text))
    label = [d.label] if d.label and d.label not in d.message else []
    message = "\n".join(map(brief, [d.message, *label, *(f"note: {n}" for n in d.notes), *(f"help: {h}" for h in helps(d))]))
    related = [lsp.DiagnosticRelatedInformation(location(label.span), brief(label.message)) for label in d.labels if label.span.source.text]
    severity = lsp.DiagnosticSeverity.Error if d.severity == "error" else lsp.DiagnosticSeverity.Warning
    tags = [lsp.DiagnosticTag.Unnecessary] if d.code in ("A0701", "A0702", "A0703", "A0704", "A0706") else None
    return lsp.Diagnostic(range=range_of(Span(document.source, d.span.start, end)), message=message, severity=severity, code=d.code,
                          source="archdsl", related_information=related or None, tags=tags)


def location(span: Span) -> lsp.Location:
    return lsp.Location(from_fs_path(os.path.abspath(names.file_of(span))) or span.source.path, range_of(span))


# ---------------------------------------------------------------- requests
def guarded(answer: Callable[..., Any]) -> Callable[..., Any]:
    """A fault of ours is written to the log, and the editor gets no answer; the server goes on."""
    @functools.wraps(answer)
    def call(server: Server, params: Any) -> Any:
        try:
            return answer(server, params)
        except (ArchError, RecursionError, OSError, UnicodeDecodeError) as fault:  # the last two: a text that is not open, and no file to read
            log.info("%s: %s", answer.__name__, fault)
        except Exception:
            log.exception("%s failed", answer.__name__)
        return None

    return call


def opened(server: Server, params: lsp.DidOpenTextDocumentParams) -> None:
    server.check(params.text_document.uri)


async def changed(server: Server, params: lsp.DidChangeTextDocumentParams) -> None:
    server.typed(params.text_document.uri)


def initialized(server: Server, params: lsp.InitializedParams) -> None:
    """Asks an editor that watches files to tell of those that open texts may import, whoever writes or removes them."""
    watched = server.client_capabilities.workspace and server.client_capabilities.workspace.did_change_watched_files
    if watched and watched.dynamic_registration:
        options = lsp.DidChangeWatchedFilesRegistrationOptions([lsp.FileSystemWatcher("**/*.arch")])
        server.client_register_capability(lsp.RegistrationParams([
            lsp.Registration("archdsl.files", lsp.WORKSPACE_DID_CHANGE_WATCHED_FILES, options)]))


def saved(server: Server, params: lsp.DidSaveTextDocumentParams | lsp.DidChangeWatchedFilesParams) -> None:
    """Another file may import this one: all open texts are checked again."""
    for uri in list(server.open):
        server.open[uri] = Document(path_of(uri), server.document(uri).text, server.open[uri])
        server.check(uri)


def closed(server: Server, params: lsp.DidCloseTextDocumentParams) -> None:
    uri = params.text_document.uri
    server.forget(uri)
    server.open.pop(uri, None)
    server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri=uri, diagnostics=[]))


def hover(server: Server, params: lsp.HoverParams) -> lsp.Hover | None:
    document = server.document(params.text_document.uri)
    found = telling.hover(document, server.offset(document, params.position))
    return lsp.Hover(server.text(found[0], "hover", "content_format"), range_of(found[1])) if found else None


ITEM_KINDS = {
    "module": lsp.CompletionItemKind.Module, "block": lsp.CompletionItemKind.Class, "op": lsp.CompletionItemKind.Function,
    "function": lsp.CompletionItemKind.Function, "argument": lsp.CompletionItemKind.Property, "variant": lsp.CompletionItemKind.EnumMember,
    "model": lsp.CompletionItemKind.Class, "record": lsp.CompletionItemKind.Struct, "value": lsp.CompletionItemKind.Variable,
    "word": lsp.CompletionItemKind.Keyword,
}


def complete(server: Server, params: lsp.CompletionParams) -> lsp.CompletionList:
    document = server.document(params.text_document.uri)
    out: list[lsp.CompletionItem] = []
    for rank, item in enumerate(completing.complete(document, server.offset(document, params.position))):
        edit = import_edit(document.module, home(document.module, item.label) or item.module, item.label, document.source) if item.module else None
        out.append(lsp.CompletionItem(
            label=item.label, kind=ITEM_KINDS[item.kind], detail=item.detail or item.module or None, insert_text=item.insert or None,
            documentation=server.text(item.doc, "completion", "completion_item", "documentation_format") if item.doc else None,
            sort_text=f"{rank:04d}",
            additional_text_edits=[lsp.TextEdit(range_of(edit[0]), edit[1])] if edit else None,
        ))
    return lsp.CompletionList(False, out)


def definition(server: Server, params: lsp.DefinitionParams) -> lsp.Location | None:
    document = server.document(params.text_document.uri)
    span = names.definition(document, server.offset(document, params.position))
    return location(span) if span is not None else None


def references(server: Server, params: lsp.ReferenceParams) -> list[lsp.Location]:
    document = server.document(params.text_document.uri)
    found = names.references(document, server.offset(document, params.position))
    return [lsp.Location(params.text_document.uri, range_of(u.span)) for u in found if params.context.include_declaration or not u.binds]


def rename(server: Server, params: lsp.RenameParams) -> lsp.WorkspaceEdit | None:
    document = server.document(params.text_document.uri)
    try:
        offset = server.offset(document, params.position)
        if reason := addresses.segment_of_address(document, offset):
            raise names.CannotRename(reason)
        spans = names.rename(document, offset, params.new_name)
    except names.CannotRename as reason:
        server.window_show_message(lsp.ShowMessageParams(lsp.MessageType.Warning, str(reason)))
        return None
    return lsp.WorkspaceEdit(changes={params.text_document.uri: [lsp.TextEdit(range_of(s), params.new_name) for s in spans]})


SYMBOL_KINDS = {
    "block": lsp.SymbolKind.Class, "model": lsp.SymbolKind.Module, "function": lsp.SymbolKind.Function, "op": lsp.SymbolKind.Operator,
    "record": lsp.SymbolKind.Struct, "variant": lsp.SymbolKind.EnumMember, "claim": lsp.SymbolKind.Boolean, "space": lsp.SymbolKind.Enum,
    "names": lsp.SymbolKind.Namespace, "entry": lsp.SymbolKind.Method, "argument": lsp.SymbolKind.Property, "weight": lsp.SymbolKind.Field,
}


def symbols(server: Server, params: lsp.DocumentSymbolParams) -> list[lsp.DocumentSymbol]:
    def shown(s: telling.Symbol) -> lsp.DocumentSymbol:
        return lsp.DocumentSymbol(s.name, SYMBOL_KINDS[s.kind], range_of(s.span), range_of(s.name_span), s.detail or None,
                                  children=[shown(b) for b in s.below])

    return [shown(s) for s in telling.symbols(server.document(params.text_document.uri))]


def format(server: Server, params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
    """The one layout; a text that cannot be read stays as it is."""
    document = server.document(params.text_document.uri)
    text = format_module(document.source)
    return [lsp.TextEdit(range_of(Span(document.source, 0, len(document.text))), text)] if text != document.text else []


def actions(server: Server, params: lsp.CodeActionParams) -> list[lsp.CodeAction]:
    """The fixes of the diagnostics that touch a stretch of the text."""
    document = server.document(params.text_document.uri)
    start, end = server.offset(document, params.range.start), server.offset(document, params.range.end)
    out: list[lsp.CodeAction] = []
    for d in document.diagnostics:
        if d.span.source.path != document.path or d.span.end < start or d.span.start > end:
            continue
        for at, fix in enumerate(d.fixes):
            edits = [lsp.TextEdit(range_of(span), new) for span, new in fix.edits if span.source.path == document.path]
            if len(edits) == len(fix.edits):
                out.append(lsp.CodeAction(fix.title, lsp.CodeActionKind.QuickFix, [diagnostic(d, document)], is_preferred=at == 0,
                                          edit=lsp.WorkspaceEdit(changes={params.text_document.uri: edits})))
    return out


def hints(server: Server, params: lsp.InlayHintParams) -> list[lsp.InlayHint]:
    document = server.document(params.text_document.uri)
    start, end = server.offset(document, params.range.start), server.offset(document, params.range.end)
    return [lsp.InlayHint(position_of(document.source, at), text, lsp.InlayHintKind.Type)
            for at, text in telling.inlay_hints(document, start, end)]


def make() -> Server:
    """A server with all features, not started."""
    server = Server()
    for method, answer in (
        (lsp.INITIALIZED, initialized), (lsp.WORKSPACE_DID_CHANGE_WATCHED_FILES, saved),
        (lsp.TEXT_DOCUMENT_DID_OPEN, opened), (lsp.TEXT_DOCUMENT_DID_SAVE, saved), (lsp.TEXT_DOCUMENT_DID_CLOSE, closed),
        (lsp.TEXT_DOCUMENT_HOVER, hover), (lsp.TEXT_DOCUMENT_DEFINITION, definition), (lsp.TEXT_DOCUMENT_REFERENCES, references),
        (lsp.TEXT_DOCUMENT_RENAME, rename), (lsp.TEXT_DOCUMENT_DOCUMENT_SYMBOL, symbols), (lsp.TEXT_DOCUMENT_FORMATTING, format),
    ):
        server.feature(method)(_bound(server, answer))
    server.feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=[".", "(", "{", " "]))(_bound(server, complete))
    server.feature(lsp.TEXT_DOCUMENT_CODE_ACTION, lsp.CodeActionOptions([lsp.CodeActionKind.QuickFix]))(_bound(server, actions))

    @server.feature(lsp.TEXT_DOCUMENT_INLAY_HINT)
    async def _(params: lsp.InlayHintParams) -> list[lsp.InlayHint] | None:
        await server.quiet(QUIET)
        return guarded(hints)(server, params)

    @server.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    async def _(params: lsp.DidChangeTextDocumentParams) -> None:
        await changed(server, params)

    return server


def _bound(server: Server, answer: Callable[..., Any]) -> Callable[[Any], Any]:
    call = guarded(answer)
    return lambda params: call(server, params)


def serve() -> None:
    """Speaks over standard input and output until the editor ends it."""
    logging.basicConfig(level=logging.WARNING)
    stdin, stdout = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed by mistake must not get between messages
    gc.disable()  # a look over all trees and graphs takes longer than a check: `tidy` chooses the time
    make().start_io(stdin, stdout)
