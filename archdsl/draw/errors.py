"""Codes of pictures."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES = {
    "A0661": Code(
        "this kind of file cannot be drawn",
        "`archdsl graph` looks at how the name of the file ends: .html is a page that opens in any browser without a network, .svg and .png are "
        "pictures that the program `dot` lays out, .dot is the text that it reads. `archdsl diff -o` writes .html alone.",
        bad="archdsl graph vit -o vit.pdf",
        good="archdsl graph vit -o vit.html",
    ),
    "A0662": Code(
        "the program `dot` is missing",
        "SVG and PNG are laid out by Graphviz, a program of its own that pip does not install: `apt install graphviz` on Debian and Ubuntu, "
        "`brew install graphviz` on macOS, `winget install graphviz` on Windows. A page in HTML needs no program: `-o FILE.html`.",
        bad="archdsl graph vit -o vit.svg",
        good="archdsl graph vit -o vit.html",
    ),
    "A0663": Code(
        "`dot` could not draw the picture",
        "The program is there and ended with an error, which the message repeats, or has not ended in a minute: then `--nodes 12` leaves fewer "
        "blocks open. A page in HTML needs no program: `-o FILE.html`.",
    ),
}
