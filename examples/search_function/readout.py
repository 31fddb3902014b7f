"""What an untrained network is worth: how many digits a linear readout of its features recognises. Nothing but the readout is fitted, in one step."""
from __future__ import annotations

import torch

from archdsl.tasks.registry import parse

TASK = parse("digits")
TRAIN, VALID = (TASK.batch(split, 0, size, 0) for split, size in (("train", 1257), ("valid", 270)))


def score(candidate, spec, seed):
    """`readout`: accuracy on the validation split; `smallest`: the smallest standard deviation of a feature, near 0 where some are dead."""
    model = spec.build(**candidate, seed=seed).eval()
    seen = []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        for batch in (TRAIN, VALID):
            model(batch["image"])
    train, valid = (torch.cat([f, torch.ones(len(f), 1)], 1).double() for f in seen)
    wanted = torch.nn.functional.one_hot(TRAIN["targets"]).double()
    weights = torch.linalg.solve(train.T @ train + 1e-3 * torch.eye(train.shape[1]).double(), train.T @ wanted)
    right = (valid @ weights).argmax(1) == VALID["targets"]
    return {"readout": right.double().mean().item(), "smallest": train[:, :-1].std(0).min().item()}
