"""Files of weights from elsewhere: each format is read, and a file that would run code is not."""
from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from archdsl.checkpoints import read_checkpoint
from archdsl.diagnostics.model import ArchError
from archdsl.files import shipped_files

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1, dtype=torch.int64)}


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) and state[k].dtype == STATE[k].dtype for k in STATE)


def refused(path):
    with pytest.raises(ArchError) as caught:
        read_checkpoint(path)
    (d,) = caught.value.diagnostics
    assert d.code == "A0628"
    return d.message


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_torch_files(tmp_path, wrap):
    torch.save({wrap: STATE, "epoch": 3} if wrap else STATE, tmp_path / "w.pt")
    assert same(read_checkpoint(tmp_path / "w.pt"))


def test_safetensors_and_shards(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(read_checkpoint(tmp_path / "w.safetensors"))
    index = {"weight_map": {}}
    for i, (key, value) in enumerate(STATE.items()):
        save_file({key: value}, tmp_path / f"m-{i}.safetensors")
        index["weight_map"][key] = f"m-{i}.safetensors"
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    assert same(read_checkpoint(tmp_path / "m.safetensors.index.json"))


def test_an_index_stays_in_its_folder(tmp_path):
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../w.safetensors"}}))
    assert "not in its folder" in refused(tmp_path / "m.safetensors.index.json")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_is_run(tmp_path):
    torch.save({"a": Evil(tmp_path / "owned")}, tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt").endswith(f"loading it would run code, `{os.mkdir.__module__}.mkdir`")
    assert not (tmp_path / "owned").exists()


def test_what_is_no_checkpoint(tmp_path):
    refused(tmp_path / "absent.safetensors")
    for name in ("w.safetensors", "w.pt", "w.safetensors.index.json"):
        (tmp_path / name).write_bytes(b"not weights")
        refused(tmp_path / name)
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    assert "holds list" in refused(tmp_path / "list.pt")
    torch.save({"a": torch.zeros(1), "lr": 0.1}, tmp_path / "mixed.pt")
    assert "`lr` in it is float" in refused(tmp_path / "mixed.pt")


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "net.arch").write_text("model Net()(x: [B, 8]) -> y: [B, 8] { return x }\n")
    assert refused(tmp_path / "net.arch").endswith("it is neither a safetensors file nor one that torch.save wrote")


def test_any_bytes_are_refused_with_a_reason(tmp_path):
    """Read as a pickle, a text goes wrong in many ways; none of them says anything to the user."""
    texts = [path.read_bytes() for path in (*map(Path, shipped_files()), Path(__file__))]
    texts += [b"", b".", b"(", b"\x80", b"\x80\x02.", bytes(range(256))]
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.txt").write_bytes(text)
        assert refused(tmp_path / f"{i}.txt").endswith("it is neither a safetensors file nor one that torch.save wrote"), text[:40]


@pytest.mark.parametrize("index", [[], {}, {"weight_map": ["a"]}, {"weight_map": {"a": 3}}])
def test_an_index_that_is_none(tmp_path, index):
    (tmp_path / "m.index.json").write_text(json.dumps(index))
    assert "it is no index of shards" in refused(tmp_path / "m.index.json")
