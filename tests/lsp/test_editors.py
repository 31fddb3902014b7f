"""The server as the editors meet it whose capabilities pytest-lsp knows: it holds each answer against what the editor said it can take."""
from __future__ import annotations

import sys

import pytest

pytest_lsp = pytest.importorskip("pytest_lsp")
from lsprotocol import types as lsp  # noqa: E402
from pytest_lsp import ClientServerConfig, LanguageClient, client_capabilities  # noqa: E402

NET = """\
use std.linear { Linear }

model Net(d: int = 8)(x: [B = 2, d]) -> y: [B, d] {
  x = Linear(2 * d)(x) as up
  return Linear(d)(x) as down
}

variant wide { d = 16 }
"""
URI = "file:///work/net.arch"
COMMAND = [sys.executable, "-m", "archdsl.cli.main", "lsp", "--stdio"]  # many editors say so


@pytest_lsp.fixture(params=["visual_studio_code", "neovim", "emacs"], config=ClientServerConfig(server_command=COMMAND))
async def client(request, lsp_client: LanguageClient):
    lsp_client.feature(lsp.CLIENT_REGISTER_CAPABILITY)(lambda params: None)
    await lsp_client.initialize_session(lsp.InitializeParams(capabilities=client_capabilities(request.param), root_uri="file:///work"))
    yield
    await lsp_client.shutdown_session()


async def told(client: LanguageClient, version: int) -> list[str]:
    while client.diagnostics.get(URI) is None or version not in (seen := getattr(client, "seen", {})):
        params = await client.wait_for_notification(lsp.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        vars(client)["seen"] = {**getattr(client, "seen", {}), params.version: [str(d.code) for d in params.diagnostics]}
    return seen[version]


@pytest.mark.asyncio
async def test_a_session(client: LanguageClient):
    file, at = lsp.TextDocumentIdentifier(URI), lsp.Position(3, 7)
    client.text_document_did_open(lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(URI, "archdsl", 1, NET)))
    assert await told(client, 1) == []
    hover = await client.text_document_hover_async(lsp.HoverParams(file, at))
    assert hover is not None and isinstance(hover.contents, lsp.MarkupContent) and "block Linear(" in hover.contents.value
    found = await client.text_document_completion_async(lsp.CompletionParams(file, at))
    assert isinstance(found, lsp.CompletionList) and "Linear" in {i.label for i in found.items}
    definition = await client.text_document_definition_async(lsp.DefinitionParams(file, at))
    assert isinstance(definition, lsp.Location) and definition.uri.endswith("linear.arch")
    edit = await client.text_document_rename_async(lsp.RenameParams(file, lsp.Position(7, 9), "big"))
    assert edit is not None and edit.changes is not None and [e.new_text for e in edit.changes[URI]] == ["big"]
    symbols = await client.text_document_document_symbol_async(lsp.DocumentSymbolParams(file))
    assert symbols is not None and [s.name for s in symbols] == ["Net", "wide"]
    hints = await client.text_document_inlay_hint_async(lsp.InlayHintParams(file, lsp.Range(lsp.Position(0, 0), lsp.Position(9, 0))))
    assert hints is not None and [h.label for h in hints] == [": [B, 16]", " [B, 8]"]
    change = lsp.TextDocumentContentChangePartial(text="Lineer", range=lsp.Range(lsp.Position(3, 6), lsp.Position(3, 12)))
    client.text_document_did_change(lsp.DidChangeTextDocumentParams(lsp.VersionedTextDocumentIdentifier(2, URI), [change]))
    assert await told(client, 2) == ["A0201"]
    around = lsp.CodeActionParams(file, lsp.Range(at, at), lsp.CodeActionContext(client.diagnostics[URI]))
    (action,) = await client.text_document_code_action_async(around) or []
    assert isinstance(action, lsp.CodeAction) and action.edit is not None and action.edit.changes is not None
    assert [e.new_text for e in action.edit.changes[URI]] == ["Linear"]
