"""archdsl import: from a PyTorch module in the user's own code to a folder with its graph."""
from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

from archdsl.cli.output import progress
from archdsl.diagnostics.model import error
from archdsl.elaborate.hints import did_you_mean
from archdsl.elaborate.values import is_list
from archdsl.source import Source, Span
from archdsl.wording import with_article


def import_module(target: str, out: str, name: str | None) -> int:
    """Calls `module:function`, captures what it gives (a module, an example, and what varies), writes the folder."""
    with progress(f"running {target}"):
        module, example, dynamic = _given(target)
    with progress("capturing"):
        from archdsl.capture.result import capture

        captured = capture(module, example, dynamic, name)
        manifest = captured.save(out)
    aliases = f", {len(captured.aliases)} of them under several names" if captured.aliases else ""
    print(f"{out}: {manifest.model}, {manifest.params:,} parameters in {len(captured.weights)} tensors{aliases}")
    if captured.lifts:
        print("  lifted: " + ", ".join(f"{rule} ({n})" for rule, n in captured.lifts.items()))
    if captured.opaque:
        print("  opaque: " + ", ".join(f"aten.{op}" for op in captured.opaque))
    print("  graph.arch  model.py  weights.safetensors  manifest.json")
    return 0


def _given(target: str) -> tuple[Any, Any, Any]:
    """(module, example, dynamic). Raises A0555."""
    span = Span(Source("import", target), 0, len(target))
    path, colon, name = target.partition(":")
    help = "write `package.module:function`; the function takes nothing and returns (module, example) or (module, example, dynamic)"
    if not colon or not path or not name:
        raise error("A0555", f"`{target}` names no function", span, help=help)
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(path), name)
    except ModuleNotFoundError as fault:
        files = [f.removesuffix(".py") for f in os.listdir() if f.endswith(".py")]
        raise error("A0555", f"there is no module `{fault.name}`", span, "looked for here and where Python finds modules",
                    help=did_you_mean(fault.name or "", files)) from None
    except AttributeError:
        raise error("A0555", f"`{path}` has no `{name}`", span, help=did_you_mean(name, vars(sys.modules.get(path, sys)))) from None
    except (Exception, SystemExit) as fault:
        raise _raised(fault, path, span) from None
    finally:
        sys.path.pop(0)
    if hasattr(found, "state_dict") or not callable(found):
        raise error("A0555", f"`{target}` is {with_article(type(found).__name__)}, not a function", span, help=help)
    try:
        made: Any = found()
    except (Exception, SystemExit) as fault:
        raise _raised(fault, target, span) from None
    parts: tuple[Any, ...] = made if is_list(made) else ()
    if len(parts) not in (2, 3) or not hasattr(parts[0], "state_dict"):
        raise error("A0555", f"`{target}` does not return a module and an example", span, help=help)
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None


def _raised(fault: BaseException, what: str, span: Span) -> Exception:
    """The user's own code failed: the message and the innermost line of it."""
    last = traceback.extract_tb(fault.__traceback__)[-1]
    return error("A0555", f"`{what}` raises {type(fault).__name__}: {fault}", span, notes=(f"{last.filename}, line {last.lineno}: {last.line}",))
