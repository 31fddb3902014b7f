"""The picture as one HTML page: no request leaves it, no program is needed. What the page does is in the scripts
beside this file: `common.js` and `picture.js`, which other pages have too, and `page.js`."""
from __future__ import annotations

import json
import os
from html import escape
from typing import Any

from archdsl.draw.view import Item, View
from archdsl.source import Span

HERE = os.path.dirname(os.path.abspath(__file__))
HEIGHT = 640  # of the page inside a notebook, in pixels
_FIGURES = ("count", "params", "macs", "saved_bytes", "state_bytes", "bytes", "calls")


def html_page(view: View) -> str:
    """The page: UTF-8 text."""
    return filled("page.html", title=escape(view.name), css=parts("common.css", "picture.css", "page.css"),
                  js=parts("common.js", "picture.js", "page.js"), data=script_json(to_json(view)))


def notebook(page: str) -> str:
    """A page as a notebook shows it: in a frame of its own, so that neither sees the other's names and styles."""
    return f'<iframe srcdoc="{escape(page)}" style="width:100%;height:{HEIGHT}px;border:1px solid #8886"></iframe>'


def to_json(view: View) -> dict[str, Any]:
    """The picture as plain data. `definitions`: what blocks hold, each once; an item's `d` is the number of its own. `sources`: [name, text] of the
    files that spans (`s`: source, first and last line) point into."""
    packer = Packer()
    root = packer.item(view.root)
    return {"name": view.name, "sizes": view.cost.sizes, "dtype": view.cost.dtype, "form": view.cost.form, "peak_bytes": view.cost.peak_bytes,
            "weight_bytes": view.cost.weight_bytes, "unknown": list(view.cost.unknown), "root": root, "definitions": packer.definitions,
            "sources": packer.sources, "opened": places(view)}


def places(view: View) -> list[str]:
    """The items that are open at first, as the script names them."""
    return sorted(".".join(map(str, o)) for o in view.opened)


class Packer:
    """Numbers definitions and sources, of one picture or of several that have some in common. `spans`: whether items point into sources."""

    def __init__(self, spans: bool = True) -> None:
        self.spans = spans
        self.definitions: list[dict[str, Any]] = []
        self.sources: list[tuple[str, str]] = []
        self._numbers: dict[str, int] = {}  # by content
        self._known: dict[int, tuple[Item, int]] = {}  # by identity; it keeps the item, so that no other gets its id
        self._files: dict[int, int] = {}

    def item(self, item: Item) -> dict[str, Any]:
        data: dict[str, Any] = {"k": item.kind, "n": item.name}
        data |= {k: v for k, v in (("t", item.title), ("p", item.path), ("l", item.last), ("o", item.output), ("e", item.shape),
                                   ("doc", item.doc), ("w", item.weights)) if v}
        data |= {name: value for name in _FIGURES if (value := getattr(item, name)) != (1 if name in ("count", "calls") else 0)}
        data |= {name: True for name in ("unknown", "shared") if getattr(item, name)}
        if self.spans and item.span.source.text:
            data["s"] = self._span(item.span)
        if item.below:
            data["d"] = self._definition(item)
        return data

    def _definition(self, item: Item) -> int:
        known = self._known.get(id(item.below))
        if known is None:
            edges = [[e.source, e.target, e.type, e.shape, *([e.label] if e.label != e.type else [])] for e in item.edges]
            made = {"items": [self.item(b) for b in item.below], "edges": edges}
            number = self._numbers.setdefault(json.dumps(made), len(self.definitions))
            if number == len(self.definitions):
                self.definitions.append(made)
            known = self._known[id(item.below)] = item, number
        return known[1]

    def _span(self, span: Span) -> tuple[int, int, int]:
        source = span.source
        if id(source) not in self._files:
            self._files[id(source)] = len(self.sources)
            self.sources.append((os.path.basename(source.path) if os.path.isabs(source.path) else source.path, source.text))
        return self._files[id(source)], source.position(span.start)[0], source.position(max(span.start, span.end - 1))[0]


# ---------------------------------------------------------------- pieces that pages have in common
def parts(*names: str, folder: str = HERE) -> str:
    """Files beside this one, or in another folder, as one text."""
    texts: list[str] = []
    for name in names:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            texts.append(file.read())
    return "".join(texts)


def filled(template: str, *, folder: str = HERE, **values: str) -> str:
    """A template with each `{{name}}` replaced, once: what is put in is not looked at again."""
    pieces = parts(template, folder=folder).split("{{")
    out = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        out += [values[name], rest]
    return "".join(out)


def script_json(data: Any) -> str:
    """JSON that may stand in a script element whatever texts are in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
