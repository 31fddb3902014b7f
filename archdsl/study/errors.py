"""The pages of the codes A0820 to A0834: studies; and the faults that several of their parts tell."""
from __future__ import annotations

import errno
from collections.abc import Sequence

from archdsl.diagnostics.codes import Code
from archdsl.diagnostics.model import ArchError, error
from archdsl.source import Source, Span

CODES = {
    "A0820": Code(
        "the folder of a new study holds something",
        "A study gets a folder of its own and never replaces what is there. If it holds the study that you mean, `--resume` goes on with it.",
        bad="archdsl search vit --objective params:min --budget 4 -o specs",
        good="archdsl search vit --objective params:min --budget 4 -o study",
    ),
    "A0821": Code(
        "there is no study in this folder",
        "A study is a folder with study.json and study.db, which `archdsl search … -o STUDY` writes.",
        bad="archdsl study show docs",
    ),
    "A0822": Code(
        "the study to resume is another one",
        "A resumed search goes on as if it had never stopped: the same stream of random numbers, the same archive at the end. So the spec and "
        "what it imports, the library, the version of archdsl, objectives, limits, strategy, evaluator and seed have to be those it began with; the "
        "message says what differs. Workers, engine, limits of time and memory may differ, and the budget may grow.",
    ),
    "A0823": Code(
        "another process works on the study",
        "One process at a time searches in a study, and holds a lock on it until it ends, however it ends. `archdsl study show` and the other verbs "
        "that only read work meanwhile. To use more processors, give the one search more workers.",
    ),
    "A0824": Code(
        "a study cannot be read",
        "study.json or study.db is damaged, or was written by an archdsl that keeps studies in another way. Nothing was changed. A database that was "
        "copied while a search wrote to it lacks its log (study.db-wal): copy the whole folder, or after the search has ended.",
    ),
    "A0825": Code(
        "a study cannot be written",
        "The disk is full, the folder may not be written to, or the operating system refused for another reason. All trials that were reported as "
        "finished are safe: make room, then go on with `--resume`.",
    ),
    "A0826": Code(
        "an objective that cannot be read",
        "`--objective NAME:min` or `NAME:max`, at least one. The name is a figure that the evaluator or the cost gives: `params`, `macs(T=2048)`, "
        "`state_bytes`, `accuracy`.",
        bad="archdsl search vit --objective params -o study",
        good="archdsl search vit --objective params:min --budget 4 -o study",
    ),
    "A0827": Code(
        "a study has no such objective",
        "`archdsl study best STUDY OBJECTIVE` takes the name of one of its objectives, without `:min` or `:max`.",
    ),
    "A0828": Code(
        "no trial succeeded",
        "Every trial of the study failed, so there is nothing to show or to write; the message tells the most frequent reasons. `archdsl study "
        "export` shows all of them; what workers printed is in the study's folder `workers`. Successive halving and Hyperband begin with trials at a "
        "part of the effort, which are no result yet: there the budget was too small for one of them to get the whole.",
    ),
    "A0829": Code(
        "an evaluator could not start",
        "A worker sets the evaluator up before its first trial: it imports the function of `module:function`, loads data, opens a device. That "
        "failed, so no trial could be evaluated.",
    ),
    "A0830": Code(
        "Ray is not installed",
        "`--engine ray` spreads trials over a Ray cluster. Ray comes with the extra: `pip install 'archdsl[ray]'`. `--engine local` needs nothing.",
    ),
    "A0831": Code(
        "a package that this needs is not installed",
        "The hypervolume is measured by moocore, and databases for Optuna's dashboard are written through Optuna: "
        "`pip install 'archdsl[search]'` brings both.",
    ),
    "A0832": Code(
        "a kind of file that is not known here",
        "`archdsl study plot` writes .svg, .png and .html (the report, as `archdsl study report` does), `archdsl study export` writes .csv, .json "
        "and .db (a storage of Optuna, which its dashboard opens).",
    ),
    "A0833": Code(
        "studies with different objectives",
        "`archdsl study compare` measures studies on the objectives that all of them have: names and directions have to be equal.",
    ),
    "A0834": Code(
        "a number that this search cannot have",
        "The budget of trials is at least 1 and never below the trials that a study holds already; limits of time are seconds above 0, "
        "limits of memory are bytes or written like `4GiB`; they are kept by workers, so there has to be one (`--workers 1`).",
        bad="archdsl search vit --objective params:min --budget 4 --workers 0 --time-limit 60 -o study",
        good="archdsl search vit --objective params:min --budget 4 --workers 1 --time-limit 60 -o study",
    ),
}


def named(code: str, message: str, text: str, *, what: str = "study", label: str = "", notes: tuple[str, ...] = (),
          help: Sequence[str] | str = ()) -> ArchError:
    """The error about a text that the user gave, which is shown."""
    span = Span(Source(what, text), 0, len(text))
    return error(code, message, span, label, notes=notes, help=(help or ()) if isinstance(help, str) else tuple(help))


def about(code: str, message: str, path: str, *, notes: tuple[str, ...] = (), help: str = "") -> ArchError:
    """The error about a file."""
    return error(code, message, Span(Source(path, ""), 0, 0), notes=notes, help=help or ())


def damaged(path: str, why: str, help: str = "") -> ArchError:
    return about("A0824", f"`{path}` cannot be read: {why}", path, help=help)


def unwritable(path: str, why: str, help: str = "what was reported as finished is safe: `--resume` goes on when there is room") -> ArchError:
    return about("A0825", f"`{path}` cannot be written: {why}", path, help=help)


def refused(path: str, fault: OSError, begun: bool) -> ArchError:
    """A0825 for what the operating system said. `begun`: there is a study already."""
    why, full = (fault.strerror or str(fault)).lower(), fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if begun and full:
        return unwritable(path, why)
    return unwritable(path, why, "nothing has begun: make room" if full else "a search writes to its study: name a folder where you may write")


def wrong_number(message: str, text: str, help: str = "") -> ArchError:
    return named("A0834", message, text, what="option", help=help)


def missing_package(name: str, what_for: str, extra: str = "search") -> ArchError:
    return named("A0831", f"{what_for} needs {name}, which is not installed", name, what="package", help=f"pip install 'archdsl[{extra}]'")
