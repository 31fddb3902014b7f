"""Groups of parameters: which settings each parameter is trained with."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.records import record
from archdsl.source import Source, Span

if TYPE_CHECKING:
    from archdsl.lower.module import ArchModule

Group = tuple[str, Mapping[str, Any]]
SETTINGS = ("lr", "weight_decay", "frozen")
SIGNATURE = "group(lr: float? = none, weight_decay: float? = none, frozen: bool = false)"


@record(frozen=True)
class Grouped:
    """The groups for an optimiser: each a dict with `names`, `params`, `lr`, `weight_decay`. `frozen`: the addresses that are not trained."""

    groups: list[dict[str, Any]]
    frozen: list[str]


def parse_group(text: str) -> Group:
    """The group in `(lr = 1e-4, frozen = true) on SELECTOR`. Raises ArchError: A01 for its syntax, A0599, A0204 for its options."""
    from archdsl.declared import Declared
    from archdsl.syntax.parser import parse_transform

    node = parse_transform(f"group{text}" if text.lstrip().startswith("(") else text, "--group")
    if node.name != "group" or node.selector is None or node.using:
        raise error("A0599", f"`{text}` is no group of parameters", Span(Source("--group", text), 0, len(text)),
                    help="write `(OPTIONS) on SELECTOR`, for example `(lr = 1e-4) on embed`", notes=(SIGNATURE,))
    options = Declared("group", SIGNATURE, dict, "").options(node, "A0599")
    return node.selector, {k: v for k, v in options.items() if v is not None and not (k == "frozen" and v is False)}


def grouped(model: ArchModule, groups: Sequence[Group], lr: float, weight_decay: float) -> Grouped:
    """The parameters of a model by their settings. A parameter has `lr` and `weight_decay` unless a group that has it says otherwise; of several
    groups the last one wins, setting by setting. Raises ArchError A0563 for a selector that chooses nothing, A0599 for settings that mean nothing."""
    settings: dict[str, dict[str, Any]] = {name: {"lr": lr, "weight_decay": weight_decay, "frozen": not p.requires_grad}
                                           for name, p in model.named_parameters()}
    check_settings({"lr": lr, "weight_decay": weight_decay})
    for selector, given in groups:
        check_settings(given)
        for address in _chosen(model, selector):
            if address in settings:
                settings[address].update(given)
    found: dict[tuple[float, float], list[str]] = {}
    for name, s in settings.items():
        if not s["frozen"]:
            found.setdefault((s["lr"], s["weight_decay"]), []).append(name)
    if not found:
        raise error("A0599", f"`{type(model).__name__}` has no parameter to train", _span("groups", "frozen"),
                    help="leave one out of the frozen groups" if settings else "this model has no parameters at all")
    own = dict(model.named_parameters())
    return Grouped([{"names": names, "params": [own[n] for n in names], "lr": rate, "weight_decay": decay} for (rate, decay), names in found.items()],
                   [n for n, s in settings.items() if s["frozen"]])


def check_settings(given: Mapping[str, Any]) -> None:
    """Raises A0599 for a setting that is not known or has no sense."""
    for name, value in given.items():
        if name not in SETTINGS:
            raise error("A0599", f"a group of parameters has no setting `{name}`", _span("groups", name), "not known",
                        help=did_you_mean(name, SETTINGS) or (f"it has {', '.join(SETTINGS)}",))
        if name == "frozen":
            if not isinstance(value, bool):
                raise error("A0599", f"`frozen` is true or false, not {value!r}", _span("groups", f"frozen = {value}"))
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise error("A0599", f"`{name}` is a number, 0 or above, not {value!r}", _span("settings", f"{name} = {value}"))


def _chosen(model: ArchModule, selector: str) -> Iterable[str]:
    from archdsl.passes.flat import Flat
    from archdsl.passes.selectors import select_weights
    from archdsl.syntax.parser import parse_selector

    text = parse_selector(selector)
    return select_weights(Flat(model.typed), text)


def _span(said: str, text: str) -> Span:
    return Span(Source(said, text), 0, len(text))
