"""archdsl space: what a search over a spec would decide, how many candidates there are, and what some of them cost."""
from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from archdsl.cli.output import count, progress, show_json, show_table
from archdsl.elaborate.domains import Domain
from archdsl.elaborate.values import show
from archdsl.search.figures import figure
from archdsl.search.model import Candidate
from archdsl.search.space import SearchSpace
from archdsl.search.unfit import unfit
from archdsl.spaces import set_by
from archdsl.spec import resolve_source

FIGURES = ("params", "macs")
VALUES, DOMAINS = 6, 3
"""So many are shown to a reader; `--json` has all."""
NUMBERS = re.compile(r"(?<=\.)\d+(?=\.)")


def run_space(source: str, name: str | None, limits: Sequence[str], fixed: bool, figures: Sequence[str], drawn: int, json: bool) -> int:
    """Counts the space, draws some candidates, and shows the decisions in them and the least, median and most of each figure. Raises ArchError: A0802
    for a space without a candidate, A0403 and A0804 for what is no figure."""
    spec, variant = resolve_source(source)
    with progress(f"counting {source}") as tell:
        space = spec.space(name, variant, limits, fixed)
        for text in figures:
            figure(space.spec, text)  # what is none is told whether or not anything is drawn
        _ = space.size
        candidates: list[Candidate] = []
        for seed in range(drawn):
            tell(f"{seed} of {drawn} drawn")
            candidates.append(space.sample(seed))
        costs = [space.costs(c, figures) for c in candidates]
        low, high, why = space.bounds  # of what is not counted, one that was drawn is there
    spread = {f: _spread([c[f] for c in costs]) for f in figures if costs}
    decisions, left = _decisions(space, candidates), unfit(space)
    written = [limit.text for limit in space.limits]
    if json:
        rows = [{"address": a, "count": n, "domains": list(map(str, domains)), "default": default} for a, n, domains, default in decisions]
        show_json({"spec": source, "model": spec.name, "variant": variant, "space": name, "limits": written, "size": space.size, "at_least": low,
                   "at_most": high, "why": why, "uniform": space.uniform, "acceptance": space.acceptance, "drawn": drawn, "decisions": rows,
                   "unfit": [{"arm": u.arm, "addresses": u.addresses, "why": u.why.message} for u in left], "figures": spread})
        return 0
    print(f"{source}: {spec.name}{f'.{variant}' if variant else ''}{f', space {name}' if name else ''}\n")
    for text in written:
        print(f"{'limit':<12} {text}")
    print(f"{'candidates':<12} {_size(low, high, why)}")
    if why:
        print(f"{'':<12} {why}")
    if variant and not fixed and (said := set_by(spec, variant)):
        print(f"{'variant':<12} {from_there(variant, said)}")
    if drawn:
        how = "each as often as any other" if space.uniform else "by rejection"
        print(f"{'drawn':<12} {how}; {space.acceptance or 0:.0%} of what was drawn fitted")
    print()
    cells = [(address, str(n), _short(domains), default) for address, n, domains, default in decisions]
    show_table(("decision", "of", "domain", "default"), cells, right=(1,))
    for u in left:
        print(f"\n{u}")
    if spread:
        print()
        cells = [(f, *(_number(v) for v in s.values())) for f, s in spread.items()]
        show_table((f"of {count(drawn, 'candidate')}", "least", "median", "most"), cells, right=(1, 2, 3))
    return 0


def from_there(variant: str, said: Sequence[str]) -> str:
    """That a variant says where a search begins."""
    return f"{variant} sets {', '.join(said)}: searched all the same, unless `--fixed` is said"


def _size(low: int, high: int | None, why: str) -> str:
    if not why:
        return _many(low)
    return f"at least {_many(low)}" if high is None else f"{_many(low)} to {_many(high)}"


def _many(n: int) -> str:
    """In full as far as one can read it."""
    return f"{n:,}" if n < 10**15 else f"{n:,}, some 10^{len(str(n)) - 1}"


def _decisions(space: SearchSpace, candidates: Sequence[Candidate]) -> list[tuple[str, int, list[Domain], str]]:
    """The decisions at the defaults and in what was drawn, those of equal passes of loops in one row: their address, how many of them there are, the
    domains that they have, the spec's value."""
    knobs = space.spec.source(space.variant).knobs
    found: dict[str, tuple[dict[str, None], dict[str, Domain]]] = {}
    for address, knob in knobs.items():
        if knob.allowed is not None and space.trials.searches(address):
            _add(found, address, knob.allowed)
    for candidate in candidates:
        for address, domain in space.decisions(candidate).items():
            _add(found, address, domain)
    rows: list[tuple[str, int, list[Domain], str]] = []
    for folded, (addresses, domains) in found.items():
        known = [knobs[a].value for a in addresses if a in knobs]
        values = dict.fromkeys(v if isinstance(v, str) else show(v) for v in known)
        rows.append((folded, len(addresses), [*domains.values()], ", ".join(values)))
    return rows


def _add(found: dict[str, tuple[dict[str, None], dict[str, Domain]]], address: str, domain: Domain) -> None:
    addresses, domains = found.setdefault(NUMBERS.sub("*", address), ({}, {}))
    addresses[address] = None
    domains.setdefault(str(domain), domain)


def _short(domains: Sequence[Domain]) -> str:
    """As many domains, and as much of each, as one can read: one that hangs on other decisions is another one for most candidates."""
    shown = "; ".join(map(_brief, domains[:DOMAINS]))
    return shown + (f"; and {len(domains) - DOMAINS} more" if len(domains) > DOMAINS else "")


def _brief(domain: Domain) -> str:
    if domain.kind == "list":
        return f"[{', '.join(map(_brief, domain.items))}]"
    values = domain.values
    if domain.kind != "choice" or len(values) <= VALUES:
        return str(domain)
    if all(type(v) is int for v in values) and len({b - a for a, b in pairwise(values)}) == 1:
        return str(Domain("int", values[0], values[-1], values[1] - values[0]))
    return f"{{{', '.join(map(show, values[:VALUES - 1]))}, …, {show(values[-1])}}}"


def _spread(values: Sequence[Any]) -> dict[str, Any]:
    ordered = sorted(values)
    return {"least": ordered[0], "median": ordered[len(ordered) // 2], "most": ordered[-1]}


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
