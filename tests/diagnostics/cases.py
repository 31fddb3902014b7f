"""Faults that no single text of the language shows: what the Python examples of pages need around them, and a case for each page without example."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import archdsl
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.spec import check_file

Case = Callable[[Any], Any]
CASES: dict[str, Case] = {}
"""Code -> a function of pytest's `monkeypatch` that works in an empty current folder and raises ArchError, or returns diagnostics or a text."""


def case(code: str) -> Callable[[Case], Case]:
    def add(f: Case) -> Case:
        assert code not in CASES
        CASES[code] = f
        return f

    return add


def write(name: str, text: str) -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


NET = """\
use std.channel { MLP }
use std.linear { Linear }
use std.norm { LayerNorm }
use std.residual { Pre }

model Net(d: int = 8)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  x = Linear(d)(x) as stem
  layers: for i in range(2) { x = Pre(LayerNorm(), MLP(2 * d))(x) as mlp }
  return x |> LayerNorm() as norm |> Linear(d) as head
}
"""
SCALED = """\
model Scaled(d: int = 4)(x: [B = 1, d]) -> y: [B, d] {
  param gain: [d] = ones()
  param shift: [d] = zeros()
  return gain * x + shift
}

names hf of Scaled {
  "scale" <-> gain
  drop "shift" = 0
}
"""
EXTERN = """\
extern block F(width: int)(x: [..., d]) -> [..., d]

model Mine(d: int = 4)(x: [B = 1, d]) -> y: [B, d] { return F(width = 3)(x) as f }
"""


# ---------------------------------------------------------------- what examples of pages need around them
def moe(_: Any) -> dict[str, Any]:
    write("moe.arch", NET.replace("as mlp", "as moe\n    emit balance = mean(x * x)"))
    return {}


def noisy(_: Any) -> dict[str, Any]:
    write("noisy.arch", NET.replace("as mlp", "as mlp\n    draw noise: [B, T, d] = normal()\n    x = x + noise"))
    return {}


def mine(_: Any) -> dict[str, Any]:
    import torch

    class MyModule(torch.nn.Module):
        def __init__(self, width: int):
            super().__init__()
            self.decay = torch.nn.Parameter(torch.ones(width))

        def forward(self, x: Any) -> Any:
            return x * self.decay.mean()

    write("mine.arch", EXTERN)
    return {"MyModule": MyModule}


def copies(*paths: str) -> Callable[[Any], dict[str, Any]]:
    """Shipped specs under their own names, on a machine of 64 GB."""
    def setup(monkeypatch: Any) -> dict[str, Any]:
        from archdsl.files import located
        from archdsl.lower import memory

        for path in paths:
            write(f"{path}.arch", Path(located(path)).read_text(encoding="utf-8"))
        monkeypatch.setattr(memory, "physical", lambda: 64 * 10**9)
        return {}

    return setup


def scaled(_: Any) -> dict[str, Any]:
    model = archdsl.load(write("scaled.arch", SCALED)).build()
    return {"model": model, "weights": archdsl.export_weights(model, source="hf")}


def fixed(_: Any) -> dict[str, Any]:
    write("fixed.arch", "model Fixed()(x: [B = 1, H = 4]) -> y: [B, H] {\n  static H\n  param shift: [H] = zeros()\n  return x + shift\n}\n")
    return {}


def autoencoder(_: Any) -> dict[str, Any]:
    copies("vit", "gpt2")(_)
    text = """\
use std.channel { MLP }
use std.linear { Linear }

model Autoencoder(d: int = 16) {
  share core = MLP(2 * d)
  entry encode(x: [B = 1, d]) -> z: [B, 4] { return x |> core |> Linear(4) as head }
  entry decode(z: [B = 1, 4]) -> y: [B, d] { return z |> Linear(d) as head |> core }
}
"""
    return {"spec": archdsl.load(write("autoencoder.arch", text))}


def passes(monkeypatch: Any) -> dict[str, Any]:
    """A step that breaks its contract, one that needs decisions, one that provides a fact that another needs."""
    from archdsl.passes import bits, graph_pass, steps
    from archdsl.passes.registry import PASSES

    for name in ("halve", "prune", "mark", "use_marks"):
        monkeypatch.delitem(PASSES, name, raising=False)

    @graph_pass("halve()", contract=bits())
    def halve(edit: Any) -> None:
        """Halves all maps, and says that nothing changes."""
        for node in edit.selected("linear"):
            edit.set(node, node.args[0], edit.add("mul", node.args[1], 0.5, at=node), *node.args[2:])

    @graph_pass("prune()", contract=bits())
    def prune(edit: Any) -> None:
        """Reads its decisions and changes nothing."""
        for address in edit.decisions:
            edit.note(address)

    @prune.decide
    def decide(model: Any, context: Any) -> dict[str, bool]:
        return dict.fromkeys(model.weights, True)

    @graph_pass("mark()", contract=bits(), provides=("marked",))
    def mark(edit: Any) -> None:
        """Marks nothing."""

    @graph_pass("use_marks()", contract=bits(), requires=("marked",))
    def use_marks(edit: Any) -> None:
        """Uses no marks."""

    for made in (halve, prune, mark, use_marks):
        monkeypatch.setitem(PASSES, made.name, PASSES.pop(made.name))
    write("net.arch", NET)
    return {"steps": steps}


def specs(_: Any) -> dict[str, Any]:
    from archdsl.files import located

    Path("specs/vision").mkdir(parents=True)
    write("specs/vision/vit.arch", Path(located("vit")).read_text(encoding="utf-8"))
    return {}


def calibration(_: Any) -> dict[str, Any]:
    import torch

    write("conv.arch", """\
use std.norm { BatchNorm }
use std.vision { Conv }

model Net(c: int = 4)(image: [B = 1, 3, H = 9, W = 9]) -> y: [B, c, H, W] {
  return image |> Conv(c, 3, pad = 1) as conv |> BatchNorm() as norm
}
""")
    return {"torch": torch, "images": {"image": torch.randn(8, 3, 9, 9)}}


def searched(_: Any) -> dict[str, Any]:
    write("net.arch", """\
use std.channel { MLP }

model Net(d: int = 8, hidden: int = 16 in {16, 32})(x: [B = 1, T = 4, d]) -> y: [B, T, d] { return MLP(hidden)(x) as mlp }

model Fixed(d: int = 8, hidden: int = 16)(x: [B = 1, T = 4, d]) -> y: [B, T, d] { return MLP(hidden)(x) as mlp }

space tiny of Net { params <= 300 }
""")
    return {}


AROUND: dict[str, Callable[[Any], dict[str, Any]]] = {
    "A0517": noisy, "A0511": moe, "A0513": mine, "A0515": copies("llama"), "A0518": copies("vit"), "A0519": copies("vit"), "A0541": copies("vit"),
    "A0526": copies("llama"), "A0542": scaled, "A0545": autoencoder, "A0546": copies("vit"),
    "A0566": passes, "A0567": passes, "A0569": calibration, "A0571": calibration, "A0622": specs, "A0645": fixed,
    "A0801": searched, "A0802": searched, "A0803": searched, "A0804": searched, "A0805": searched,
}
"""Code -> what writes the files that the page's example reads, and gives the names that it uses."""


# ---------------------------------------------------------------- pages without an example
@case("A0105")
def too_large(_: Any) -> list[Diagnostic]:
    write("example.arch", "# a table\nuse std.norm\n" + "x = 1\n" * 100_000)
    return check_file("example.arch")


@case("A0106")
def too_deep(_: Any) -> list[Diagnostic]:
    write("example.arch", "model M(d: int = " + "(" * 500 + "1" + ")" * 500 + ")(x: [B, d]) -> y: [B, d] { return x }\n")
    return check_file("example.arch")


@case("A0411")
def untrue_figure(_: Any) -> list[Diagnostic]:
    from archdsl.claims import untrue, verified

    write("example.arch", """\
use std.linear { Linear }

model Net(d: int = 8)(x: [B, d]) -> y: [B, d] { return x |> Linear(d) as out }

claim { params == 73 from "table 1" }
""")
    return [d for claim, row in verified(archdsl.load("example.arch")) if (d := untrue(claim, row)) is not None]


@case("A0410")
def does_not_run(_: Any) -> str:
    from archdsl.claims import verify

    write("example.arch", """\
model Table(d: int = 4)(x: [B = 1, T = 8, d], i: int[B, T]) -> y: [B, T, d] stream T {
  param table: [4, d] = normal(std = 1)
  return x + take(table, i + 4)
}

claim { causal(y, x) }
""")
    (row,) = verify(archdsl.load("example.arch"))
    assert not row["passed"]
    return str(row["actual"])


@case("A0512")
def size_of_no_input(_: Any) -> Any:
    """No spec says this; a pass of somebody's own may."""
    from archdsl.dims.poly import sym
    from archdsl.graph import Graph, Node, TensorType, Value
    from archdsl.lower import lower

    B, N = sym("B"), sym("N")
    x = Node("input", (), {"name": "x"}, (TensorType("float", (B, 4)),), name="x")
    y = Node("div", (Value(x), N), {}, (TensorType("float", (B, 4)),))
    return lower(Graph("Ratio", (Value(x),), (x, y), (Value(y),)))


@case("A0514")
def no_plain_form(_: Any) -> Any:
    from archdsl.lower.emit_python import python_source

    bind = {"F": mine(_)["MyModule"]}
    return python_source(archdsl.load("mine.arch").build(bind=bind))


@case("A0522")
def another_version(_: Any) -> Any:
    from archdsl.store import compile_to

    compile_to("compiled", archdsl.load(write("net.arch", NET)))
    path = Path("compiled/graph.arch")
    path.write_text(path.read_text(encoding="utf-8").replace("range(2)", "range(3)"), encoding="utf-8")
    return archdsl.open("compiled")


@case("A0806")
def few_draws(monkeypatch: Any) -> Any:
    """With fewer draws than it takes to give up."""
    from archdsl.search import counting

    monkeypatch.setattr(counting, "ATTEMPTS", 40)
    text = NET.replace("(d: int = 8)", "(d: int = 8 in 1..200)")
    return archdsl.load(write("net.arch", text)).space(limits=["peak_bytes <= 100", "d >= 9"]).sample(0)


@case("A0523")
def no_onnx(monkeypatch: Any) -> Any:
    from archdsl.store import compile_to

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    return compile_to("compiled", archdsl.load(write("net.arch", NET)), onnx=True)


@case("A0524")
def no_onnx_op(_: Any) -> Any:
    from archdsl.store import compile_to

    text = "model Net(d: int = 8)(x: [B = 1, T = 4, d], g: [B, T, d]) -> y: [B, T, d] stream T { return gla(x, x, x, -softplus(g)) }\n"
    return compile_to("compiled", archdsl.load(write("gla.arch", text)), onnx=True)


@case("A0543")
def no_storage(_: Any) -> Any:
    weights = scaled(_)["weights"]
    return archdsl.import_weights(archdsl.load("scaled.arch").build(device="meta"), weights, source="hf")


@case("A0544")
def no_place(_: Any) -> Any:
    model = scaled(_)["model"]
    model.state_dict()["shift"].fill_(0.5)
    return archdsl.export_weights(model, source="hf")


FOREIGN = """\
import torch
from torch import nn
from torch.nn import functional as F


class ByValue(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class NormOverTwoAxes(nn.Module):
    def forward(self, x):
        return F.layer_norm(x, (6, 8))


class Draws(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x):
        self.seen += x.mean((0, 1))
        return x + self.seen


class Doubles(nn.Module):
    def forward(self, x):
        return 2 * x


def lost():
    return nn.Linear(8, 8)
"""


def captured(name: str, monkeypatch: Any, dynamic: Any = None) -> Any:
    """Captures a class of a file of the user's own."""
    import linecache

    import torch

    write("foreign.py", FOREIGN)
    linecache.checkcache()
    monkeypatch.syspath_prepend(os.getcwd())
    monkeypatch.delitem(sys.modules, "foreign", raising=False)
    import foreign  # type: ignore[import-not-found]

    monkeypatch.delitem(sys.modules, "foreign")
    return archdsl.capture(getattr(foreign, name)(), torch.ones(2, 6, 8), dynamic={0: "B"} if dynamic is None else dynamic)


@case("A0550")
def cannot_be_traced(monkeypatch: Any) -> Any:
    return captured("ByValue", monkeypatch)


@case("A0551")
def no_counterpart(monkeypatch: Any) -> Any:
    return captured("NormOverTwoAxes", monkeypatch)


@case("A0552")
def not_pure(monkeypatch: Any) -> Any:
    return captured("Draws", monkeypatch)


@case("A0553")
def changes_a_buffer(monkeypatch: Any) -> Any:
    return captured("Counts", monkeypatch)


@case("A0554")
def no_such_axis(monkeypatch: Any) -> Any:
    return captured("Doubles", monkeypatch, {"x": {3: "T"}})


@case("A0555")
def no_example(monkeypatch: Any) -> Any:
    from archdsl.cli.commands.import_ import _given

    write("foreign.py", FOREIGN)
    monkeypatch.delitem(sys.modules, "foreign", raising=False)
    try:
        return _given("foreign:lost")
    finally:
        sys.modules.pop("foreign", None)


@case("A0565")
def in_the_wrong_order(monkeypatch: Any) -> Any:
    passes(monkeypatch)
    return archdsl.passes.Model.of(archdsl.load("net.arch")).apply("use_marks()", "mark()")


@case("A0570")
def broken_package(monkeypatch: Any) -> Any:
    from archdsl import plugins

    write("broken_reports.py", "import nothing_of_that_name\n")
    folder = Path("broken-1.0.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[archdsl.reports]\nmargins = broken_reports\n")
    monkeypatch.syspath_prepend(os.getcwd())
    monkeypatch.setattr(plugins, "_loaded", set())
    return plugins.load_group("archdsl.reports")


@case("A0603")
def outside(_: Any) -> list[Diagnostic]:
    Path("inside").mkdir()
    write("secret.arch", "fn half(n: int) -> int { return n // 2 }\n")
    Path("inside/secret.arch").symlink_to(Path("secret.arch").resolve())
    write("inside/example.arch", "use secret { half }\n")
    return check_file("inside/example.arch")


@case("A0606")
def no_model(_: Any) -> Any:
    return archdsl.load(write("parts.arch", "fn half(n: int) -> int { return n // 2 }\n"))


@case("A0623")
def cannot_be_read(_: Any) -> Any:
    os.mkfifo("pipe.arch")
    return archdsl.load("pipe.arch")


@case("A0625")
def too_many_bytes(_: Any) -> Any:
    return archdsl.load(write("example.arch", "# data\n" * 1_500_000))


@case("A0628")
def no_weights(_: Any) -> Any:
    from archdsl.checkpoints import read_checkpoint

    write("weights.pt", "not weights")
    return read_checkpoint("weights.pt")


@case("A0654")
def no_pygls(monkeypatch: Any) -> Any:
    from archdsl.cli.commands.lsp import lsp

    for name in [m for m in sys.modules if m.partition(".")[0] in ("pygls", "lsprotocol") or m == "archdsl.lsp.server"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pygls", None)
    return lsp()


@case("A0663")
def dot_fails(monkeypatch: Any) -> Any:
    from archdsl.draw.dot import rendered
    from archdsl.draw.view import example_view

    write("dot", "#!/bin/sh\ncat > /dev/null\necho 'no layout' >&2\nexit 1\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{os.getcwd()}:{os.environ['PATH']}")
    return rendered(example_view(archdsl.load(write("net.arch", NET)).elaborate(), "Net"), "svg", "net.svg")


@case("A0901")
def fault_of_ours(monkeypatch: Any) -> str:
    import io
    import tempfile

    from archdsl.cli import bug

    shown = io.StringIO()
    monkeypatch.setattr(tempfile, "tempdir", os.getcwd())
    monkeypatch.setattr(sys, "argv", ["archdsl", "check", "example.arch"])
    monkeypatch.setattr(sys, "stderr", shown)
    bug.report(KeyError("gone"))
    (file,) = Path().glob("archdsl-*.txt")
    return shown.getvalue().replace(file.name, "archdsl-….txt")


# ---------------------------------------------------------------- running them
def faults_of(run: Callable[[], Any]) -> list[Diagnostic] | str:
    """What a case shows: the diagnostics that it raises or returns, or its text."""
    try:
        made = run()
    except ArchError as fault:
        return fault.diagnostics
    return made if isinstance(made, str) or (isinstance(made, list) and made and isinstance(made[0], Diagnostic)) else []


def example(code: str, text: str, monkeypatch: Any) -> Callable[[], Any]:
    """A page's Python example, with what it needs around it."""
    names: dict[str, Any] = {"archdsl": archdsl, **(AROUND[code](monkeypatch) if code in AROUND else {})}
    if "timm." in text:
        import timm

        names["timm"] = timm
    return lambda: exec(compile(text, "example.py", "exec"), names)


# ---------------------------------------------------------------- training
def trained(**settings: Any) -> Any:
    """A training of one step in the folder `out`."""
    from archdsl.training.fit import fit

    model = archdsl.load(write("net.arch", NET)).build()
    return fit(model, lambda m, x, step: ((m(x) ** 2).mean(), {}), lambda step: model.head.weight.new_ones(1, 4, 8), steps=1, out="out", **settings)


@case("A0595")
def holds_a_training(_: Any) -> Any:
    trained()
    return trained()


@case("A0596")
def another_training(_: Any) -> Any:
    trained()
    return trained(lr=0.5, seed=3, resume=True)


@case("A0527")
def no_memory(_: Any) -> Any:
    import torch

    from archdsl.training.fit import fit

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 88.00 MiB. GPU 0 has a total capacity of 79.10 GiB of which 11.00 MiB is "
                                     "free.")

    model = archdsl.load(write("net.arch", NET)).build()
    model.head.register_forward_pre_hook(full)
    return fit(model, lambda m, x, step: ((m(x) ** 2).mean(), {}), [model.head.weight.new_ones(2, 4, 8)], steps=1)


@case("A0597")
def not_finite(_: Any) -> Any:
    from archdsl.training.fit import fit

    model = archdsl.load(write("net.arch", NET)).build()
    x = model.head.weight.new_ones(1, 4, 8)
    return fit(model, lambda m, x, step: ((m(x) ** 2).mean() * (1 if step < 7 else float("nan")), {}), [x], steps=20, every=5, out="out")


@case("A0598")
def no_data(monkeypatch: Any) -> Any:
    from archdsl.tasks import images, parse

    images._digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    return parse("digits")


@case("A0818")
def supernet_of_another_space(_: Any) -> Any:
    from archdsl.search.evaluators.supernet import Inherited
    from archdsl.supernet.folder import save

    text = ("use std.linear {{ Linear }}\n"
            "model M(d: int = 4 in {{4, {}}})(x: [B, 1, 8, 8]) -> y: [B, 10] {{\n"
            "  return rearrange(x, [B, c, h, w] -> [B, (c h w)]) |> Linear(d) as a |> Linear(10) as b\n}}\n")
    save(archdsl.loads(text.format(8)).supernet(), "net")
    return Inherited("net", task="digits").setup(archdsl.loads(text.format(16).replace("= 4", "= 16")).space(limits=["params > 1200"]), ())


@case("A0819")
def no_table_of_latencies(_: Any) -> Any:
    from archdsl.search.latency import Latency

    write("latency.db", "These are notes about latencies, not a database of any kind.\n" * 20)
    return Latency(table="latency.db")


@case("A0841")
def beyond_the_supernet(_: Any) -> Any:
    text = ("use std.linear {{ Linear }}\n"
            "model M(d: int = 4 in {{4, {}}})(x: [B, 2]) -> y: [B, 1] {{ return x |> Linear(d) as a |> Linear(1) as b }}\n")
    net = archdsl.loads(text.format(8)).supernet()
    return net.set(archdsl.loads(text.format(16)).space().candidate({"d": 16}))


@case("A0849")
def an_arm_that_never_fits(_: Any) -> Any:
    return archdsl.loads("use std.linear { Linear }\nmodel Net(d: int = 8)(x: [B, d]) -> y: [B, d] {\n"
                         "  choose f { keep => Linear(d)  widen => Linear(2 * d) } = keep\n  return x + f(x) as branch\n}\n").supernet()


# ---------------------------------------------------------------- search
@case("A0815")
def no_search_library(monkeypatch: Any) -> Any:
    from archdsl.search.reference import valley
    from archdsl.search.testing import made

    monkeypatch.setitem(sys.modules, "optuna", None)
    return made("tpe", valley())
