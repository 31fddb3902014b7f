"""Codes of the command line itself, and the page for our own mistakes."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES = {
    "A0651": Code(
        "nothing has this name",
        "`archdsl explain` knows codes of diagnostics (A0303), ops (lower case: `linear`), blocks and modules of the library (`Attention`, "
        "`std.norm`), passes, reports, tasks, and the words of the language: functions (`multiples`), masks (`causal`), initialisers (`zeros`), "
        "statements (`choose`). `archdsl ops` lists the ops, `archdsl passes` the passes; `archdsl ops WORD` and `archdsl list WORD` search.",
        bad="archdsl explain atention",
        good="archdsl explain attention",
    ),
    "A0652": Code(
        "the file exists already",
        "`archdsl new` writes a new file and never replaces one: remove the old file first, or choose another name.",
        bad="archdsl new first && archdsl new first",
        good="archdsl new first && archdsl new second",
    ),
    "A0653": Code(
        "not a name for a spec",
        "The name becomes the file's name, and in CamelCase the model's: a letter, then letters, digits, `_` or `-`. A folder may stand before it.",
        bad="archdsl new 2fast",
        good="archdsl new fast2",
    ),
    "A0654": Code(
        "the language server is not installed",
        "`archdsl lsp` speaks the Language Server Protocol through pygls, which comes with the extra: `pip install 'archdsl[lsp]'`. "
        "Nothing else needs it.",
    ),
    "A0901": Code(
        "archdsl itself made a mistake",
        "Something happened that its authors did not foresee. Your spec may be right or wrong: this message says nothing about it. The full "
        "traceback is in the file that the message names. Please report it together with the command and the spec.",
    ),
}
