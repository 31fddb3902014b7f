"""The front end never loads torch, and what it costs to start stays small."""
from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPECS = sorted((ROOT / "specs").rglob("*.arch"))
HEAVY = ("torch", "numpy", "onnx", "transformers", "timm", "safetensors", "networkx", "graphviz", "triton")


def loaded(code: str) -> list[str]:
    """The heavy modules that a fresh interpreter holds after `code`."""
    tail = f"\nimport sys; print([m for m in {HEAVY} if m in sys.modules], file=sys.__stderr__)"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stderr.splitlines()[-1])


@pytest.mark.parametrize("code", [
    "import archdsl",
    "import archdsl; s = archdsl.load(SPEC); s.variants, s.knobs, s.inputs, s.claims",
    "import archdsl; archdsl.load(SPEC).cost()",
    "from archdsl.spec import shipped; shipped()",
    "from archdsl.cli.commands.check import check; assert check([SPEC]) == 0",
    "from archdsl.cli.commands.fmt import fmt; fmt([SPEC], check=True)",
    "from archdsl.cli.commands.ops import ops; ops()",
    "from archdsl.cli.pages import find_page; find_page('linear')",
    "from archdsl.lsp.document import Document; from archdsl.lsp import completing, telling; d = Document(SPEC, open(SPEC).read()); "
    "assert telling.inlay_hints(d, 0, len(d.text)) and completing.complete(d, 0)",
    "from archdsl.cli.commands.report import report; assert all(report(r, [SPEC], [], [], False) == 0 for r in ('timeline', 'kernels'))",
])
def test_front_end_loads_no_torch(code):
    assert loaded(f"SPEC = {str(SPECS[0])!r}\n{code}") == []


def test_check_loads_neither_typer_nor_rich():
    """They take longer to load than a spec to check."""
    code = f"import sys; sys.argv[1:] = ['check', {str(SPECS[0])!r}]\nfrom archdsl.cli.main import main\n"
    code += "try: main()\nexcept SystemExit as e: assert e.code == 0\nassert not {'typer', 'rich', 'pydantic', 'torch'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def imports_at_load(tree: ast.AST):
    """The modules that a file imports when it is imported itself: not those in functions, not those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imports_at_load(ast.Module([other], []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_at_load(node)


def sources(*but: str):
    for path in sorted((ROOT / "archdsl").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(("archdsl/stdlib/", "archdsl/specs/", *but)):
            yield name, path


BACK = ("archdsl/lower/", "archdsl/decoding/", "archdsl/parallel/", "archdsl/kernels/eager.py", "archdsl/kernels/learned_bias.py",
        "archdsl/ops/chunked_loss.py", "archdsl/supernet/net.py", "archdsl/supernet/sandwich.py", "archdsl/supernet/together.py")
"""Parts of the back end, imported by the front end in functions alone. docs/architecture.md names them."""


@pytest.mark.parametrize(("name", "path"), [pytest.param(*s, id=s[0]) for s in sources(*BACK)])
def test_torch_is_imported_where_it_is_used(name, path):
    """But for the code of kernels, in Triton or over torch's FlexAttention: what declares them imports it in functions alone."""
    heavy = [m for m in imports_at_load(ast.parse(path.read_text())) if m.split(".")[0] in HEAVY]
    if name.startswith("archdsl/kernels/") and {"triton", "torch.nn.attention"} & set(heavy):
        return
    assert not heavy, f"{name} imports {heavy} at load: import it in the function, or use archdsl.lazy"


def test_diagnostics_stand_alone():
    """The bottom layer: everything may use it, it uses nothing above it."""
    bottom = {"source", "diagnostics", "records"}
    for name, path in sources():
        if name.split("/")[1].removesuffix(".py") in bottom:
            ours = [m for m in imports_at_load(ast.parse(path.read_text())) if m.startswith("archdsl.")]
            assert {m.split(".")[1] for m in ours} <= bottom, name


def test_nothing_below_uses_the_command_line():
    for name, path in sources("archdsl/cli/", "archdsl/__main__.py"):
        assert not [m for m in imports_at_load(ast.parse(path.read_text())) if m.startswith(("archdsl.cli", "typer", "rich"))], name
