"""The pages of the codes A0591, A0592, A0593 and A0598: tasks."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES = {
    "A0591": Code(
        "There is no such task",
        "`--task` names a task of archdsl or of an installed package, with options if wanted. `archdsl explain mqar` tells about one.",
        bad="archdsl train ladder:tiny --task mqra --steps 1 -o out",
        good="archdsl train ladder:tiny --task mqar --steps 1 -o out",
    ),
    "A0592": Code(
        "An option that the task does not take",
        "The options of a task, their types and defaults stand in its signature, and what they mean below it: `archdsl explain TASK`. They are "
        "written as in a call, `'mqar(pairs = 4)'`, quoted for the shell. Some do not go together: a sequence has room for so many pairs.",
        bad="archdsl train ladder:tiny --task 'mqar(pears = 4)' --steps 1 -o out",
        good="archdsl train ladder:tiny --task 'mqar(pairs = 4)' --steps 1 -o out",
    ),
    "A0593": Code(
        "The model does not fit the task",
        "The inputs of a task go into the model's inputs in order: as many of them, of the same kind, shape and range. The model's first result "
        "gives the scores: the axes of the targets, and behind them an axis of at least as many scores as a target has values. Usually a knob of the "
        "model or an option of the task makes them agree; the message says which sizes differ.",
        bad="archdsl train llama.arch:tiny --set vocab=50 --task mqar --steps 1 -o out",
        good="archdsl train llama.arch:tiny --set vocab=64 --task mqar --steps 1 -o out",
    ),
    "A0598": Code(
        "The data of a task is not there",
        "Some tasks read data that other packages bring: `digits` needs scikit-learn (`pip install 'archdsl[tasks]'`), `characters` the texts of "
        "Python's own `help()`, which some distributions leave out.",
    ),
}
