"""Forms that keep a state: from the typed graph of a model to the graph that goes on where the last call ended. Free of torch."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import error

if TYPE_CHECKING:
    from archdsl.elaborate.model import Elaborated
    from archdsl.streaming.derive import Slot, Streamed

__all__ = ["FORMS", "Slot", "Streamed", "in_form", "stream"]
FORMS = ("parallel", "extend", "step")


def in_form(made: Elaborated, form: str) -> Streamed | None:
    """The model in a form with state; None for `parallel`. Raises ArchError A0501 for a form that it does not have."""
    if form not in FORMS:
        raise error("A0501", f"there is no form `{form}`", made.decl.name_span, help=f"it is one of {', '.join(FORMS)}")
    return None if form == "parallel" else stream(made, form)


def stream(made: Elaborated, form: str) -> Streamed:
    """The model in the form `extend` or `step`. Raises ArchError A0501 with the op that prevents it."""
    from archdsl.streaming.derive import stream

    return stream(made, form)


def __getattr__(name: str) -> Any:
    if name in ("Slot", "Streamed"):
        from archdsl.streaming import derive

        return getattr(derive, name)
    raise AttributeError(name)
