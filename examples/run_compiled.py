"""Runs a folder that `archdsl compile SPEC -o DIR` wrote: once through archdsl, once with torch alone.

usage: python examples/run_compiled.py DIR
"""
import importlib.util
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import archdsl


def load_without_archdsl(folder: Path) -> torch.nn.Module:
    """`model.py` is plain PyTorch: this is all that a program without archdsl needs."""
    found = importlib.util.spec_from_file_location("compiled", folder / "model.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    model = getattr(module, json.loads((folder / "manifest.json").read_text())["model"])()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval()


def main(folder: Path) -> None:
    torch.manual_seed(0)
    image = torch.randn(2, 3, 224, 224)
    model = archdsl.open(folder).eval()
    with torch.no_grad():
        logits = model(image)
        alone = load_without_archdsl(folder)(image)
    print(f"{type(model).__name__} with {sum(p.numel() for p in model.parameters()):,} parameters, drawn by the spec's initialisers")
    print(f"two random images {list(image.shape)} -> logits {list(logits.shape)}")
    print(f"best classes {logits.argmax(-1).tolist()}, model.py alone differs by {(logits - alone).abs().max().item():.1e}")
    loss = torch.nn.functional.cross_entropy(model.train()(image), torch.tensor([3, 7]))
    loss.backward()
    print(f"one training step: loss {loss.item():.3f}, gradients reach {sum(p.grad is not None for p in model.parameters())} tensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
