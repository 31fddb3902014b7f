"""Forms that keep a state: from the typed graph of a model to the graph that goes on where the last call ended. Free of torch."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import error

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated
    from archdsl.source import Span
    from archdsl.streaming.model import Slot, Source, Streamed

__all__ = ["FORMS", "Slot", "Source", "Streamed", "in_form", "known_form", "source"]
FORMS = ("parallel", "extend", "step", "packed")


def source(made: Elaborated) -> Source:
    """What the forms of a model are derived from."""
    from archdsl.streaming.model import Source

    return Source(made.graph, made.stream, made.sizes.get(made.stream or ""))


def known_form(form: str, span: Span) -> None:
    """Raises ArchError A0501 for what is the name of no form."""
    if form not in FORMS:
        raise error("A0501", f"there is no form `{form}`", span, help=f"it is one of {', '.join(FORMS)}")


def in_form(source: Source, form: str) -> Streamed | None:
    """The model in a form with state; None for `parallel`. Raises ArchError A0501 for a form that it does not have."""
    known_form(form, source.graph.span)
    if form == "parallel":
        return None
    from archdsl.streaming.derive import stream

    return stream(source, form)


def __getattr__(name: str) -> Any:
    if name in ("Slot", "Source", "Streamed"):
        from archdsl.streaming import model

        return getattr(model, name)
    raise AttributeError(name)
