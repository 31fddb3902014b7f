"""Forms that keep a state: from the typed graph of a model to the graph that goes on where the last call ended. Free of torch."""
from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import error

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated
    from archdsl.source import Span
    from archdsl.streaming.model import Slot, Source, Streamed

__all__ = ["FORMS", "Slot", "Source", "Streamed", "in_form", "known_form", "source"]
FORMS = ("parallel", "extend", "step", "packed")


def source(made: Elaborated, rewrites: Iterable[str] | None = None) -> Source:
    """What the forms of a model are derived from. `rewrites`: those that forms with state may use, all unless given. Raises ValueError for the name
    of none."""
    from archdsl.streaming.model import REWRITES, Source

    chosen = REWRITES if rewrites is None else tuple(rewrites)
    if other := next((r for r in chosen if r not in REWRITES), None):
        raise ValueError(f"there is no rewrite {other!r}: `rewrites` lists some of {', '.join(REWRITES)}, or none")
    return Source(made.graph, made.stream, made.sizes.get(made.stream or ""), chosen)


def known_form(form: str, span: Span) -> None:
    """Raises ArchError A0501 for what is the name of no form."""
    if form not in FORMS:
        raise error("A0501", f"there is no form `{form}`", span, help=f"it is one of {', '.join(FORMS)}")


def in_form(source: Source, form: str, emits: Collection[int] = ()) -> Streamed | None:
    """The model in a form with state; None for `parallel`. `emits`: the places of the emitted values that are asked for; the state holds nothing for
    others, and those that the form does not have are left out. Raises ArchError A0501 for a form that it does not have."""
    known_form(form, source.graph.span)
    if form == "parallel":
        return None
    from archdsl.records import replace
    from archdsl.streaming.absorb import NAME, Absorb
    from archdsl.streaming.cropped import Cropped
    from archdsl.streaming.derive import stream
    from archdsl.streaming.emitted import Emitting

    if form != "packed":
        source = replace(source, graph=Cropped()(Emitting()(source.graph, emits)))
    if form == "packed" or NAME not in source.rewrites:
        return stream(source, form)
    absorb = Absorb()
    made = stream(replace(source, graph=absorb(source.graph)), form)
    return replace(made, rewritten=tuple(absorb.found)) if absorb.found else made


def __getattr__(name: str) -> Any:
    if name in ("Slot", "Source", "Streamed"):
        from archdsl.streaming import model

        return getattr(model, name)
    raise AttributeError(name)
