"""Entry points: what installed packages add. A group is read at its first lookup that our own table cannot answer, never when archdsl is imported.

The groups are `archdsl.ops`, `.passes`, `.tasks`, `.reports`, `.strategies`, `.evaluators`, `.proxies` and `.kernels`. An entry point names a module
(or an object in one) whose import registers what it holds.
"""
from __future__ import annotations

from archdsl.alone import alone
from archdsl.diagnostics.model import error
from archdsl.source import NOWHERE

_loaded: set[str] = set()


@alone
def load_group(group: str) -> None:
    """Imports what the installed packages declare for a group, once. Raises A0570 for one that cannot be imported."""
    if group in _loaded:
        return
    _loaded.add(group)
    from importlib.metadata import entry_points

    for point in entry_points(group=group):
        try:
            point.load()
        except Exception as fault:  # whatever a stranger's module raises: the user is told which one
            _loaded.discard(group)  # and told again when it is needed again
            where = f" of {point.dist.name}" if point.dist is not None else ""
            raise error("A0570", f"the entry point `{point.name}`{where} in `{group}` cannot be loaded: {type(fault).__name__}: {fault}", NOWHERE,
                        help=f"it names `{point.value}`: mend or uninstall that package") from fault
