"""What `import_weights` takes besides a dictionary, and what it says of weights that need no map."""
from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import archdsl
from archdsl.diagnostics.model import ArchError


@pytest.fixture(scope="module")
def pair():
    spec = archdsl.load("specs/language/llama.arch")
    return spec.build("tiny", seed=1), spec.build("tiny", seed=2)


def test_a_file_is_read(tmp_path, pair):
    a, b = pair
    save_file({k: v.contiguous() for k, v in archdsl.export_weights(a, "hf").items()}, tmp_path / "w.safetensors")
    archdsl.import_weights(b, tmp_path / "w.safetensors", source="hf")
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_own_names_and_empty_tensors_are_named(pair):
    a, b = pair
    before = {k: v.clone() for k, v in b.state_dict().items()}
    for state, code in ((a.state_dict(), "A0542"), ({k: v.to("meta") for k, v in archdsl.export_weights(a, "hf").items()}, "A0543")):
        with pytest.raises(ArchError) as e:
            archdsl.import_weights(b, state, source="hf")
        assert e.value.diagnostics[0].code == code
    assert all(torch.equal(before[k], v) for k, v in b.state_dict().items())
