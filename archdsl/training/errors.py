"""The pages of the codes A0594 to A0597 and A0599: training."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES = {
    "A0594": Code(
        "There is no training to resume",
        "`--resume` goes on from the last checkpoint in the folder, training.safetensors, which `archdsl train` writes as it goes. The folder "
        "holds none, or one that cannot be read.",
        bad="archdsl train ladder:tiny --task mqar --steps 1 -o out --resume",
        good="archdsl train ladder:tiny --task mqar --steps 1 -o out",
    ),
    "A0595": Code(
        "The folder holds a training already",
        "A training is never overwritten: `--resume` goes on with it, and another folder takes a new one. A model that archdsl did not write as it "
        "is has no folder at all: one that passes have rewritten in Python is compiled and opened first.",
    ),
    "A0596": Code(
        "The training to resume is another one",
        "A training that was interrupted goes on as if nothing had happened, bit by bit. So the model, the task, the seed and all settings have "
        "to be those it began with. The number of steps may grow where the learning rate does not depend on it (`--schedule constant`).",
    ),
    "A0597": Code(
        "The loss is not finite",
        "The loss became infinite or no number (NaN), and training has stopped before that step changed a weight. The last checkpoint is as it was. "
        "Usually the learning rate is too high for this model: a lower one, gradients clipped to a norm of 1, and a longer warm-up help.",
    ),
    "A0599": Code(
        "A setting of the training that means nothing",
        "Groups of parameters are written `(lr = 1e-4) on SELECTOR`, with the options lr, weight_decay and frozen. Rates are 0 or above, and "
        "at least one parameter is left to train.",
        bad="archdsl train ladder:tiny --task mqar --steps 1 -o out --group '(rate = 1e-4) on embed'",
        good="archdsl train ladder:tiny --task mqar --steps 1 -o out --group '(lr = 1e-4) on embed'",
    ),
}
