"""The wheel: built from the sdist, installed in an empty environment, used from another folder. Nothing is downloaded."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "tests")


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def build(kind: str, project: Path, out: Path) -> Path:
    """Calls the build backend as pip would, without an environment of its own."""
    out.mkdir(exist_ok=True)
    run(sys.executable, "-c", f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])", out, cwd=project)
    (made,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("build")
    shutil.copytree(ROOT, work / "checkout", symlinks=True, ignore=LEFT_OUT)
    with tarfile.open(build("sdist", work / "checkout", work / "out")) as sdist:
        sdist.extractall(work / "unpacked", filter="data")
    (project,) = (work / "unpacked").iterdir()
    return build("wheel", project, work / "out")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of executables of an environment that holds the wheel; its dependencies are those of the environment that runs the tests."""
    home = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=home)
    (site,) = home.glob("lib/python*/site-packages")
    # a plain path: links of editable installations in that folder do not count here
    (site / "dependencies.pth").write_text("".join(f"{p}\n" for p in sys.path if p.endswith("site-packages")))
    return python.parent


def files_of(folder: str, *suffixes: str) -> set[str]:
    found = (p for p in (ROOT / folder).rglob("*") if p.suffix in suffixes and "__pycache__" not in p.parts)
    return {f"archdsl/{p.relative_to(ROOT if folder != 'archdsl' else ROOT / 'archdsl')}" for p in found}


def test_wheel_holds_what_the_checkout_has(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert {n.split("/")[0] for n in names} == {"archdsl"}, "one top-level package"
    wanted = files_of("archdsl", ".py", ".lark", ".bin", ".typed") | files_of("stdlib", ".py", ".arch") | files_of("specs", ".py", ".arch")
    assert wanted <= names


def test_installed(installed, tmp_path):
    where = run(installed / "python", "-c", "import archdsl; print(archdsl.__file__)", cwd=tmp_path)
    assert str(installed.parent) in where
    missing = "import importlib.util as u; print([n for n in ('stdlib', 'specs') if u.find_spec(n)])"
    assert run(installed / "python", "-c", missing, cwd=tmp_path) == "[]\n", "the generic names are not taken"


def test_every_spec_checks_from_another_folder(installed, tmp_path):
    specs = json.loads(run(installed / "archdsl", "list", "--json", cwd=tmp_path))
    paths = sorted({s["path"] for s in specs})
    assert len(paths) == len(list((ROOT / "specs").rglob("*.arch"))) and all(str(installed.parent) in p for p in paths)
    assert json.loads(run(installed / "archdsl", "check", "--json", *paths, cwd=tmp_path)) == []


def test_every_folder_is_a_package():
    """Importable folders are what `importlib.resources` reads alike on all Pythons."""
    for top in ("stdlib", "specs"):
        for folder in [ROOT / top, *(p for p in (ROOT / top).rglob("*") if p.is_dir() and p.name != "__pycache__")]:
            assert (folder / "__init__.py").exists(), f"{folder.relative_to(ROOT)} needs an empty __init__.py"


def test_links_stay_links():
    """A checkout or an editor that turns them into copies would make two of everything."""
    for name in ("stdlib", "specs"):
        assert os.readlink(ROOT / "archdsl" / name) == f"../{name}"


WITHOUT_OTHERS = """
import re, sys
from importlib.metadata import packages_distributions, requires
normal = lambda name: re.sub("[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", name)[0]).lower()
needed, new = set(), {normal(d) for d in sys.argv[1:]}
while new:
    needed |= new
    lines = [r for d in new for r in (requires(d) or ()) if "extra ==" not in r]
    installed = {normal(d) for ds in packages_distributions().values() for d in ds}
    new = ({normal(r) for r in lines} & installed) - needed
others = {m for m, ds in packages_distributions().items() if not {normal(d) for d in ds} & {*needed, "archdsl"}}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in others:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from archdsl import store, spec
store.compile_to("out", spec.loads("model M()(x: [B, 2]) -> y: [B, 2] { param w: [2] = ones()\\n return w * x }"))
print(store.open("out").w.tolist())
"""


def test_the_declared_dependencies_suffice(tmp_path):
    """`compile` and `open` with every other installed package hidden."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT_OTHERS, *declared]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.stdout == "[1.0, 1.0]\n", done.stderr[-3000:]


def test_test_files_have_names_of_their_own():
    """Files of one name in folders that are no packages would stop the collection of all tests."""
    found = [p for p in (ROOT / "tests").rglob("test_*.py") if not (p.parent / "__init__.py").exists()]
    twice = {p.name for p in found if sum(q.name == p.name for q in found) > 1}
    assert not twice
