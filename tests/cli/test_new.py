"""archdsl new: the text that it writes is a spec without faults."""
from __future__ import annotations

import json

import pytest


@pytest.mark.parametrize(("name", "model"), [("first", "First"), ("my-small_net", "MySmallNet"), ("GPT.arch", "GPT")])
def test_new_spec_is_clean_and_formatted(archdsl, tmp_path, name, model):
    file = name.removesuffix(".arch") + ".arch"
    assert f"archdsl check {file}" in archdsl("new", name).stdout
    assert f"model {model}(" in (tmp_path / file).read_text()
    assert json.loads(archdsl("check", file, "--json").stdout) == []
    archdsl("fmt", "--check", file)
    archdsl("cost", f"{file}:tiny")


def test_new_spec_keeps_its_claims(archdsl):
    archdsl("new", "first")
    claims = json.loads(archdsl("verify", "first.arch", "--json").stdout)
    assert claims and all(c["passed"] for c in claims)


def test_never_replaces_a_file(archdsl, tmp_path):
    (tmp_path / "mine.arch").write_text("precious")
    assert "A0652" in archdsl("new", "mine", code=1).stderr
    assert (tmp_path / "mine.arch").read_text() == "precious"


@pytest.mark.parametrize("name", ["2fast", "a b", "", "x/", "ü", "a.b"])
def test_bad_names(archdsl, tmp_path, name):
    assert "A0653" in archdsl("new", name, code=1).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made(archdsl, tmp_path):
    assert "archdsl check absent/deep/net.arch" in archdsl("new", "absent/deep/net").stdout
    archdsl("check", "absent")
    (tmp_path / "file").touch()
    assert "A0627" in archdsl("new", "file/net", code=1).stderr
