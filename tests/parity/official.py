"""Official code beside ours: modules out of the checkouts in the folder ARCHDSL_OFFICIAL, imported with what they ask for, and run in float64."""
from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tests.parity.proof import prove

# Where from, and the commits that the comparisons were last run with.
REPOSITORIES = {
    "LMUFormer": ("zeyuliu1037/LMUFormer", "5debadd"),
    "MemoryFormer": ("C0-Design/MemoryFormer", "5968673"),
    "Dynamic_MoE": ("ZhenweiAn/Dynamic_MoE", "f56bc20"),
    "PolyCom": ("BryceZhuo/PolyCom", "0ed8ad4"),
    "ladder-residual-inference": ("mayank31398/ladder-residual-inference", "ea2e9e4"),
    "iTransformer": ("thuml/iTransformer", "c2426e6"),
    "SReT": ("szq0214/SReT", "af6db0a"),
    "vit-search": ("yilunliao/vit-search", "303e7c3"),
    "pre-rmsnorm-transformer": ("ZixuanJiang/pre-rmsnorm-transformer", "025d43a"),
    "EfficientFormer": ("snap-research/EfficientFormer", "d01da42"),
    "Next-ViT": ("bytedance/Next-ViT", "922e771"),
    "CvT": ("microsoft/CvT", "f851e68"),
}


def checkout(name: str) -> Path:
    """Its folder; the test that asks is skipped where there is none."""
    origin, commit = REPOSITORIES[name]
    root = os.environ.get("ARCHDSL_OFFICIAL")
    folder = Path(root or ".") / name
    if root is None or not folder.is_dir():
        pytest.skip(f"set ARCHDSL_OFFICIAL to a folder with checkouts of {origin} (run with {commit}) and others")
    return folder


class Nothing(type):
    """The type of names out of missing packages: classes that have every attribute, and take any argument."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing(name, (), {"__init__": lambda self, *args, **knobs: None})


class Missing(ModuleType):
    """Stands in for what the official files import and the comparison never runs."""

    __path__ = []

    def __getattr__(self, name: str) -> Any:
        return getattr(Nothing(name, (), {}), name)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, packages: Sequence[str]):
        self.packages = [p for p in packages if not _installed(p)]

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        wanted = any(fullname == p or fullname.startswith(f"{p}.") for p in self.packages)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if wanted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return Missing(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def importing(name: str, folder: str = "", *, missing: Sequence[str] = (), given: dict[str, Any] | None = None,
              bare: Sequence[str] = ()) -> Iterator[None]:
    """Imports within are of the checkout's `folder`. `missing`: packages and modules to do without, unless they are installed. `given`: names
    ("package.name") that the installed package has no more, or others for its own. `bare`: packages of the checkout of which `__init__` is not run.
    Afterwards nothing of this is left in `sys.modules`."""
    at = str(checkout(name) / folder)
    before, finder = dict(sys.modules), Finder(missing)
    sys.path.insert(0, at)
    sys.meta_path.insert(0, finder)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for where, value in (given or {}).items():
            owner, _, attribute = where.rpartition(".")
            patch.setattr(module(owner), attribute, value, raising=False)
        for package in bare:
            own = sys.modules[package] = ModuleType(package)
            own.__path__, own.__file__ = [f"{at}/{package.replace('.', '/')}"], f"{at}/"
        try:
            yield
        finally:
            sys.path.remove(at)
            sys.meta_path.remove(finder)
            for key, m in list(sys.modules.items()):
                places = [getattr(m, "__file__", None) or "", *vars(m).get("__path__", ())]
                if key not in before and (isinstance(m, Missing) or any(place.startswith(at) for place in places)):
                    del sys.modules[key]


def module(name: str) -> Any:
    return importlib.import_module(name)


class Double(TorchFunctionMode):
    """Whatever asks for float32 gets float64: the official code has casts, tables and constants in single precision."""

    def __enter__(self) -> Any:
        self.default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.set_default_dtype(self.default)
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def wide(v: Any) -> Any:
            return torch.float64 if v is torch.float32 else v

        if func is torch.Tensor.float:
            return args[0].double()
        if func is torch.Tensor.div_:  # `x /= y`, in the way of an input's gradient
            return args[0] / args[1]
        return func(*map(wide, args), **{k: wide(v) for k, v in (kwargs or {}).items()})


def beside(ours: Any, build: Callable[[], torch.nn.Module], x: torch.Tensor, *, source: str, call: Callable[[Any, Any], torch.Tensor],
           train: bool = False, single: bool = True) -> None:
    """`prove`, with the official module that `build` makes; its numbers in float64 are those that the code gives under `Double`."""
    def exact(peer: torch.nn.Module) -> torch.nn.Module:
        with Double():
            wide = build().double()
        learned = {k for k, _ in wide.named_parameters(remove_duplicate=False)}
        wide.load_state_dict({k: v for k, v in peer.state_dict().items() if k in learned or ".running_" in f".{k}"}, strict=False)
        return wide

    def forward(m: torch.nn.Module, v: torch.Tensor) -> torch.Tensor:
        if next(m.parameters()).dtype != torch.float64:
            return call(m, v)
        with Double():
            return call(m, v)

    prove(ours, build().double(), x, source=source, call=forward, reference=exact, train=train, single=single)


# ---------------------------------------------------------------- what an older transformers had
def decorator(*args: Any, **knobs: Any) -> Any:
    """What transformers had for docstrings."""
    return lambda f: f


DOCSTRINGS = {f"transformers.utils.{n}": decorator for n in (
    "add_start_docstrings", "add_start_docstrings_to_model_forward", "replace_return_docstrings", "add_code_sample_docstrings")}


class Base(torch.nn.Module):
    """As much of transformers' base class as a forward pass needs: the official code is written for an older one."""

    def __init__(self, config: Any):
        super().__init__()
        self.config = config

    def post_init(self) -> None:
        pass
