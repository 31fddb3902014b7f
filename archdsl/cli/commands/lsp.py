"""archdsl lsp: the language server, over standard input and output."""
from __future__ import annotations

from archdsl.diagnostics.model import error
from archdsl.source import Source, Span


def lsp() -> int:
    """Serves one editor until it ends the connection. Raises A0654 where pygls is not installed."""
    try:
        from archdsl.lsp.server import serve
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("pygls", "lsprotocol"):
            raise
        raise error("A0654", "the language server needs pygls, which is not installed", Span(Source("lsp", ""), 0, 0),
                    help="pip install 'archdsl[lsp]'") from None
    serve()
    return 0
