"""The language server: `archdsl lsp`. `document.py`, `names.py` and the features know nothing of the protocol; `server.py` alone does."""
