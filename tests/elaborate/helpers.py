"""Elaborating a text inside a test."""
from __future__ import annotations

from typing import Any

import pytest

from archdsl.diagnostics.model import ArchError
from archdsl.elaborate.model import Elaborated, elaborate
from archdsl.modules import Library
from archdsl.source import Source
from archdsl.spec import python_setting
from archdsl.syntax import tree

USES = """use std.channel { MLP, SwiGLU }
use std.embed { Rope, TokenEmbedding }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { BatchNorm, LayerNorm, MapNorm, RMSNorm }
use std.residual { OutputNorm, Parallel, Peri, Post, Pre, ReZero, Sandwich, Scaled }
use std.vision { Conv }
"""


def made(text: str, **settings: Any) -> Elaborated:
    """The first model of a text (the library's blocks are imported)."""
    module = Library().open(Source("test.arch", USES + text), None)
    if module.diagnostics:
        raise ArchError(*module.diagnostics)
    decl = next(d for d in module.tree.decls if isinstance(d, tree.Model))
    return elaborate(module, decl, tuple(python_setting(k, v) for k, v in settings.items()))


def model(body: str, header: str = "(x: [B, T, 8]) -> y: [B, T, 8]", params: str = "", **settings: Any) -> Elaborated:
    return made(f"model M({params}){header} {{\n{body}\n}}\n", **settings)


def addresses(e: Elaborated) -> list[str]:
    return [a for a, _ in e.graph.parameters()]


def fault(run: Any) -> Any:
    """The one diagnostic that a call raises."""
    with pytest.raises(ArchError) as e:
        run()
    assert len(e.value.diagnostics) == 1, e.value
    return e.value.diagnostics[0]
