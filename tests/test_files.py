"""Reading files: each way it fails has its code, and none of them hangs."""
from __future__ import annotations

import os
from typing import Any, cast

import pytest

import archdsl
from archdsl import files
from archdsl.diagnostics.model import ArchError
from archdsl.files import arch_files, read_source, replace_text
from archdsl.spec import check_file
from benchmarks.generate import generated


def fault(call, *arguments):
    with pytest.raises(ArchError) as caught:
        call(*arguments)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code in files.CODES
    return diagnostic


def test_text_comes_as_it_is(tmp_path):
    (tmp_path / "a.arch").write_bytes("\ufeffmodèle\r\n".encode())
    source = read_source(tmp_path / "a.arch", "lib.a")
    assert (source.text, source.path, source.module) == ("modèle\r\n", str(tmp_path / "a.arch"), "lib.a")


def test_absent(tmp_path):
    (tmp_path / "llama.arch").touch()
    d = fault(read_source, tmp_path / "lama.arch")
    assert d.code == "A0621" and d.help == (f"did you mean `{tmp_path / 'llama.arch'}`?",)
    assert fault(read_source, tmp_path / "nothing" / "x.arch").code == "A0621"


PIPES = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")


@pytest.mark.parametrize(("name", "code"), [("", "A0622"), pytest.param("pipe", "A0623", marks=PIPES), ("net.arch", None)])
def test_what_is_opened_is_closed(tmp_path, monkeypatch, name, code):
    if name == "pipe":
        os.mkfifo(tmp_path / name)
    (tmp_path / "net.arch").write_text("")
    opened, closed = [], []
    open_, close = os.open, os.close
    monkeypatch.setattr(os, "open", lambda *given: (opened.append(open_(*given)), opened[-1])[1])
    monkeypatch.setattr(os, "close", lambda handle: (closed.append(handle), close(handle))[1])
    if code is None:
        assert read_source(tmp_path / name).text == ""
    else:
        assert fault(read_source, tmp_path / name).code == code
    assert len(opened) == 1 and opened == closed


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_impossible_paths(name):
    assert fault(read_source, name).code == "A0623"


def test_file_used_as_folder(tmp_path):
    (tmp_path / "a.arch").touch()
    assert fault(read_source, tmp_path / "a.arch" / "b.arch").code == "A0623"


@PIPES
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.arch")
    assert fault(read_source, tmp_path / "a.arch").code == "A0623"


def test_no_permission(tmp_path, monkeypatch):
    def refuse(*_):  # in place of chmod, which root does not feel
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    d = fault(read_source, "a.arch")
    assert d.code == "A0623" and d.message == "`a.arch` cannot be read: permission denied"


def test_not_utf8(tmp_path):
    path = tmp_path / "a.arch"
    path.write_bytes("ab\ncé".encode("latin-1"))
    d = fault(read_source, path)
    assert d.code == "A0624" and "byte 4 is 0xe9" in d.label and d.span.source.position(d.span.start) == (2, 2)
    path.write_text("model", encoding="utf-16")
    assert "UTF-16" in fault(read_source, path).help[0]


def test_too_large(tmp_path):
    path = tmp_path / "a.arch"
    with path.open("wb") as file:
        file.truncate(files.LIMIT)
    assert len(read_source(path).text) == files.LIMIT
    with path.open("wb") as file:
        file.truncate(100 * files.LIMIT)  # sparse: takes no disk
    assert fault(read_source, path).code == "A0625"


def test_ten_thousand_lines_are_within_the_budget():
    text = generated(10_000)
    assert text.count("\n") > 10_000
    assert archdsl.loads(text).variants


def test_folders_are_searched(tmp_path):
    for name in ("b.arch", "a/c.arch", "a/c.txt", ".hidden/d.arch", "__pycache__/e.arch"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    wanted = [str(tmp_path / "a/c.arch"), str(tmp_path / "b.arch")]
    assert list(arch_files([str(tmp_path)])) == wanted
    assert list(arch_files([str(tmp_path / "b.arch"), str(tmp_path)])) == wanted[::-1]
    assert list(arch_files(["absent.arch"])) == ["absent.arch"]


def test_folder_without_specs(tmp_path):
    assert fault(list, arch_files([str(tmp_path)])).code == "A0626"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.arch").write_text("old")
    (tmp_path / "link.arch").symlink_to("real.arch")
    replace_text(str(tmp_path / "link.arch"), "new")
    assert (tmp_path / "link.arch").is_symlink() and (tmp_path / "real.arch").read_text() == "new"


def test_unwritable(tmp_path, monkeypatch):
    """A full disk leaves the old text and no other file."""

    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.arch").write_text("old")
    monkeypatch.setattr(os, "replace", full)
    d = fault(replace_text, str(tmp_path / "a.arch"), "new")
    assert d.code == "A0627" and d.message.endswith("cannot be written: no space left on device")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.arch", "old")]


# ---------------------------------------------------------------- what a path may be
NET = """model Net(d: int = 2)(x: [B, T, d]) -> y: [B, T, d] { return x }
variant wide { d = 4 }
"""


def helped(call, *args, **more):
    with pytest.raises(ArchError) as caught:
        call(*args, **more)
    (found,) = caught.value.diagnostics
    return found.code, found.help[0]


def test_shipped_names_stand_for_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = archdsl.load("vit")
    assert shipped.name == "ViT" and os.path.isabs(shipped.path)
    assert list(arch_files(["vit", shipped.path])) == [shipped.path]
    (tmp_path / "vit").write_text(NET)  # what the folder has comes first
    assert archdsl.load("vit").name == "Net" and list(arch_files(["vit"])) == ["vit"]


def test_load_tells_what_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.arch").write_text(NET)
    assert helped(archdsl.load, NET) == ("A0621", "`archdsl.loads(TEXT)` reads a text")
    assert helped(archdsl.load, NET * 100) == ("A0621", "`archdsl.loads(TEXT)` reads a text")
    assert helped(archdsl.load, "net.arch:wide") == ("A0621", '`archdsl.load("net.arch").build("wide")` builds the variant')
    assert helped(archdsl.load, "vit:tiny")[1] == '`archdsl.load("vit").build("tiny")` builds the variant'
    (tmp_path / "out").mkdir()
    assert helped(archdsl.load, "out") == ("A0622", "name a file in it")
    for name in ("graph.arch", "manifest.json"):
        (tmp_path / "out" / name).touch()
    assert helped(archdsl.load, "out") == ("A0622", 'it was written by compile: `archdsl.open("out")` gives its model')
    (found,) = check_file("net.arch:wide")
    assert found.help[0] == "no variant is named here: `net.arch` is read with all its models and variants"


def test_settings_and_sizes_are_told_apart():
    spec = archdsl.loads(NET)
    assert helped(spec.cost, T=32) == ("A0215", 'costs are counted for the sizes in `at`: `cost(at={"T": 32})`, or `--at T=32`')
    assert helped(spec.elaborate, None, {"B": 1})[0] == "A0215"
    with pytest.raises(TypeError, match=r"build\(variant, seed = 0, .* not 'convs'"):
        spec.build("wide", cast("Any", "convs"))


def test_the_package_shows_its_names_alone():
    assert dir(archdsl) == sorted(archdsl.__all__) and all(hasattr(archdsl, name) for name in dir(archdsl))


def test_a_byte_order_mark_stays(tmp_path):
    (tmp_path / "a.arch").write_bytes(b"\xef\xbb\xbfold")
    replace_text(str(tmp_path / "a.arch"), "new")
    assert (tmp_path / "a.arch").read_bytes() == b"\xef\xbb\xbfnew"


def test_an_interruption_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    (tmp_path / "a.arch").write_text("old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace_text(str(tmp_path / "a.arch"), "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.arch", "old")]
