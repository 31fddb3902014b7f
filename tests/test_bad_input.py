"""Specs from a stranger: each ends in a diagnostic and exit 1 (or is taken, when it is only large), within the budgets of time and memory,
and nothing but the spec's folder and the library is read. `tests/bad/` has the texts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.bad import limits, texts  # noqa: F401  more cases
from tests.bad.cases import CASES, model
from tests.bad.client import Server

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork and resource limits")
MORE = {n for n in CASES if n.startswith(("sized_", "typed_", "used_", "doubling_in_a_loop_")) or n.endswith(("_100", "_150", "_60000"))}
MORE |= {n for n in CASES if n.startswith("deep_") and n.endswith(("_30", "_60"))}
for kind in ("value_", "long_", "deep_", "doubling_", "names_"):
    MORE |= {*[n for n in CASES if n.startswith(kind) and n not in MORE][1::2]}
"""Further cases of the same kinds, for the second tier."""
GOOD = model("return relu(x)")
USE_A = "use a { A }\n" + model("return A()(x)")
BLOCK = "block A()(x: [B, d]) -> [B, d] { return x }\n"


@pytest.fixture(scope="module")
def server():
    made = Server()
    yield made
    made.close()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.proof] if n in MORE else []) for n in CASES])
def test_check(name: str, server: Server, tmp_path: Path):
    text, codes = CASES[name]
    (tmp_path / "m.arch").write_text(text, encoding="utf-8")
    a = server.run(tmp_path, "check", "m.arch")
    assert a["rc"] == (1 if a["codes"] else 0)
    if codes:
        assert set(a["codes"]) & set(codes), a["codes"]
    assert len(a["out"]) + len(a["err"]) < 200_000  # of a hundred faults


# ---------------------------------------------------------------- files
def test_unreadable_files(server: Server, tmp_path: Path):
    (tmp_path / "folder.arch").mkdir()
    os.mkfifo(tmp_path / "pipe.arch")
    (tmp_path / "latin.arch").write_bytes(b"# caf\xe9\n")
    (tmp_path / "binary.arch").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "nul.arch").write_text("model\0M")
    (tmp_path / "loop.arch").symlink_to("loop.arch")
    with (tmp_path / "huge.arch").open("wb") as file:
        file.truncate(10**11)  # sparse
    (tmp_path / "long.arch").write_text(f's = "{"x" * 100_000_000}"')
    (tmp_path / "null.arch").symlink_to("/dev/zero")
    cases = {
        "folder.arch": "A0626",
        "absent.arch": "A0621",
        "pipe.arch": "A0623",
        "latin.arch": "A0624",
        "binary.arch": "A0624",
        "nul.arch": "A0107",
        "loop.arch": "A0623",
        "huge.arch": "A0625",
        "long.arch": "A0625",
        "null.arch": "A0623",
        "x" * 300 + ".arch": "A0623",
        "latin.arch/x.arch": "A0623",
        "": "A0621",
    }
    for name, code in cases.items():
        for verb in ("check", "fmt", "cost", "verify"):
            a = server.run(tmp_path, verb, name, reads=(Path("/dev"),))
            wanted = {"A0626", "A0520"} if code == "A0626" else {code}  # `cost` takes folders written by compile
            assert a["rc"] == 1 and set(a["codes"]) & wanted, (name, verb, a["codes"], a["err"])


def test_no_permission(server: Server, tmp_path: Path):
    (tmp_path / "m.arch").write_text(GOOD)
    (tmp_path / "m.arch").chmod(0)
    if os.access(tmp_path / "m.arch", os.R_OK):
        pytest.skip("root reads everything")
    assert server.run(tmp_path, "check", "m.arch")["codes"] == ["A0623"]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("use ../../x { A }", {"A0101", "A0103"}),
        ("use /etc/passwd { A }", {"A0101"}),
        ("use ...a { A }", {"A0101"}),
        ("use a..b { A }", {"A0101"}),
        ('use "../outside/a" { A }', {"A0101"}),
        ("use outside.a { A }", {"A0207"}),
        ("use std.../a { A }", {"A0101"}),
        ("use std.__init__ { A }", {"A0207"}),
        ("use std.norm.x { A }", {"A0207"}),
        ("use std { A }", {"A0207"}),
        ("use C:.a { A }", {"A0101"}),
        ("use a.arch { A }", {"A0207"}),
        ("use ~.a { A }", {"A0101", "A0107"}),
        ("use m { A }", {"A0216"}),
        ("use __main__ { A }", {"A0207"}),
        ("use os.path { A }", {"A0207"}),
        ("use archdsl.specs.vit { A }", {"A0207"}),
    ],
)
def test_paths_that_leave(text: str, codes: set[str], server: Server, tmp_path: Path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "a.arch").write_text(BLOCK)
    (tmp_path / "x.arch").write_text(BLOCK)
    (inside / "m.arch").write_text(text + "\n" + GOOD)
    for verb in ("check", "fmt", "cost"):
        a = server.run(inside, verb, "m.arch")
        assert verb == "fmt" and a["rc"] == 0 or a["rc"] == 1 and set(a["codes"]) & codes, (verb, a["codes"], a["out"])


def test_links_that_leave(server: Server, tmp_path: Path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "own").mkdir(parents=True)
    outside.mkdir()
    (outside / "a.arch").write_text(BLOCK)
    (inside / "own" / "a.arch").write_text(BLOCK)
    (inside / "a.arch").symlink_to("../outside/a.arch")
    (inside / "sub").symlink_to("../outside")
    (inside / "up").symlink_to("..")
    (inside / "root").symlink_to("/")
    (inside / "dangling.arch").symlink_to("../outside/absent.arch")
    (inside / "round.arch").symlink_to("round.arch")
    (inside / "device.arch").symlink_to("/dev/zero")
    (inside / "b.arch").symlink_to("own/a.arch")
    os.mkfifo(inside / "pipe.arch")
    (inside / "folder.arch").mkdir()
    for name, code in {
        "a": "A0603",
        "sub.a": "A0603",
        "up.outside.a": "A0603",
        "root.etc.passwd": "A0207",
        "dangling": "A0603",
        "round": "A0623",
        "device": "A0603",
        "pipe": "A0623",
        "folder": "A0622",
        "own.a": None,
        "b": None,
    }.items():
        (inside / "m.arch").write_text(f"use {name} {{ A }}\n" + model("return A()(x)"))
        a = server.run(inside, "check", "m.arch")
        assert a["codes"] == ([code] if code else []), (name, a["codes"], a["out"])


def test_a_folder_with_links_that_leave(server: Server, tmp_path: Path):
    """`check FOLDER` reads what lies in it, not what its links lead to."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.txt").write_text("model of something private")
    (inside / "m.arch").write_text(GOOD)
    (inside / "link.arch").symlink_to("../secret.txt")
    (inside / "up").symlink_to("..")
    for verb in ("check", "fmt", "verify"):
        a = server.run(inside, verb, ".")
        assert a["rc"] == 1 and a["codes"] == ["A0603"] and "private" not in a["out"] + a["err"]


def test_cyclic_imports(server: Server, tmp_path: Path):
    for i in range(50):
        (tmp_path / f"a{i}.arch").write_text(
            f"use a{(i + 1) % 50} {{ A{(i + 1) % 50} }}\nblock A{i}()(x: [B, d]) -> [B, d] {{ return A{(i + 1) % 50}()(x) }}\n"
        )
    assert set(server.run(tmp_path, "check", "a0.arch")["codes"]) <= {"A0216", "A0602", "A0207"}
    (tmp_path / "a.arch").write_text("use b { B }\n" + BLOCK)
    (tmp_path / "b.arch").write_text("use a { A }\nblock B()(x: [B, d]) -> [B, d] { return x }\n")
    assert "A0216" in server.run(tmp_path, "check", "a.arch")["codes"]


def test_many_modules(server: Server, tmp_path: Path):
    """A chain of 1,000, a thousand of one spec, and large ones: their texts count together."""
    for i in range(1_000):
        (tmp_path / f"a{i}.arch").write_text(f"use a{i + 1} {{ A }}\n")
        (tmp_path / f"b{i}.arch").write_text(f"block B{i}()(x: [B, d]) -> [B, d] {{ return x }}\n")
    large = "\n".join(f"fn f{i}(n: int) -> int {{ return n + {i} }}" for i in range(10_000))
    for i in range(10):
        (tmp_path / f"c{i}.arch").write_text(large)
    (tmp_path / "m.arch").write_text("use a0 { A }\n" + GOOD)
    assert server.run(tmp_path, "check", "m.arch")["rc"] == 1
    (tmp_path / "m.arch").write_text("\n".join(f"use b{i} {{ B{i} }}" for i in range(1_000)) + "\n" + GOOD)
    server.run(tmp_path, "check", "m.arch")
    (tmp_path / "m.arch").write_text("\n".join(f"use c{i} {{ f{i} }}" for i in range(10)) + "\n" + GOOD)
    assert server.run(tmp_path, "check", "m.arch")["codes"] == ["A0105"]


# ---------------------------------------------------------------- other commands
FORMATTED = [n for n in CASES if n.startswith(("long_", "deep_")) and not n.endswith(("_100", "_150", "_60000"))]


def test_fmt(server: Server, tmp_path: Path):
    """Whatever is formatted stays so; what is refused is left as it was."""
    for name in FORMATTED[::40]:
        path = tmp_path / "m.arch"
        path.write_text(CASES[name][0], encoding="utf-8")
        a = server.run(tmp_path, "fmt", "m.arch", seconds=4)
        if a["rc"]:
            assert a["codes"] and path.read_text(encoding="utf-8") == CASES[name][0], name
        else:
            assert server.run(tmp_path, "fmt", "--check", "m.arch", seconds=4)["rc"] == 0, name


@pytest.mark.parametrize(
    "setting",
    [
        "d=1e400",
        "d=-1",
        "d=0",
        "d=10 ** 30",
        "d=10 ** 10 ** 10",
        "d=1.5",
        "d=none",
        "d=[1]",
        'd="8"',
        "d=exp(1000)",
        "d=0 / 0",
        "d=" + "9" * 5000,
        "d=" + "(" * 5000,
        "d=" + "[" * 100_000,
        "d=[[0 for i in range(1000)] for j in range(1000)]",
        "d=x",
        "d=Linear(8)",
        "d=",
        "=8",
        "d",
        "",
        "d=8 d=9",
        "d=8; d=9",
        "d=../../x",
        "rate=1e400",
        "rate=exp(709) * exp(709)",
        "rate=-1",
        "rate=2",
        "rate=1e308 * 10",
        "rate=" + "0." + "1" * 100_000,
        "depth=10 ** 9",
        "depth=200000",
        "depth=-1",
        "widths=[10 ** 30]",
        "widths=repeat(8, 200000)",
        "widths=[]",
        "widths.0=10 ** 30",
        "widths.99999999999999999999=3",
        "widths.-1=3",
        "widths.*=none",
        "f=block(x) => " * 1000 + "x",
        "f=f",
        "f=relu >> f",
        "layers.*.f.d=3",
        "*=3",
        "*.*.*.*=3",
        "." * 1000 + "=3",
        "{a,b}=3",
        "{" * 1000 + "=3",
        "layers.{0}.x=3",
        "a" * 100_000 + "=3",
        "d\0=3",
        "дд=3",
        "mode=c",
        'mode="' + "x" * 100_000 + '"',
        "nothing.here=3",
        "d=d",
        "d=heads",
        "d=f(1)",
        "d={8}",
        "d=8..9",
        "d=import os",
        "d=__import__('os')",
        "d=true",
        "d=8 # x",
    ],
)
def test_settings(setting: str, server: Server, tmp_path: Path):
    (tmp_path / "m.arch").write_text(
        model(
            "layers: for i in range(depth) { x = Linear(d)(x) |> dropout(rate) |> Linear(8) as out }\nfor w in widths { x = x * w }\nreturn f(x)",
            'd: int = 8 in 4..64, rate: float = 0.5, depth: int = 2, widths: list[int] = [1, 2], f: block = relu, mode: "a" | "b" = "a"',
        )
    )
    a = server.run(tmp_path, "cost", "m.arch", "--set", setting)
    assert a["rc"] == (1 if a["codes"] else 0)


@pytest.mark.parametrize(
    "at",
    [
        "B=0",
        "B=-1",
        "B=1e30",
        "B=10 ** 30",
        "B=" + "9" * 30,
        "B=" + "9" * 5000,
        "B=x",
        "B",
        "=",
        "",
        "C=3",
        "B=1,B=2",
        "B=1.5",
        "B=nan",
        "B=inf",
        "B=,",
        "b=3",
        "B=1,,",
        "B=\u0663",
    ],
)
def test_sizes(at: str, server: Server, tmp_path: Path):
    (tmp_path / "m.arch").write_text(GOOD)
    a = server.run(tmp_path, "cost", "m.arch", "--at", at)
    assert a["rc"] == (1 if a["codes"] else 0)


@pytest.mark.parametrize("at", [f"B={2**48 + 1}", "B=" + "9" * 5000, "B=" + "1" * 45])
def test_sizes_beyond_any_tensor(at: str, server: Server, tmp_path: Path):
    (tmp_path / "m.arch").write_text(GOOD)
    assert server.run(tmp_path, "cost", "m.arch", "--at", at)["codes"] == ["A0642"]
    assert server.run(tmp_path, "cost", "m.arch", "--at", f"B={2**30}")["codes"] == []


@pytest.mark.parametrize(
    "claim",
    [
        "10 ** 10 ** 10 == 1",
        "params == 10 ** 1000",
        "params(d = 10 ** 30) == 3",
        "params(d = 10 ** 10 ** 10) == 3",
        "macs(B = 10 ** 30) > 0",
        "macs(B = 10 ** 10 ** 10) > 0",
        "params == 0 within 10 ** 10 ** 10",
        "params == 0 within 1e400",
        "params == 0 within exp(709) * exp(709)",
        "len([[0 for i in range(1000)] for j in range(1000)]) == 3",
        "fails([[0 for i in range(1000)] for j in range(1000)])",
        "shape(y, B = 10 ** 1000) == [3]",
        "count(relu) == 10 ** 400 / 3",
        "params / 0 == 3",
        "params ** params == 3",
        "exp(params) == 3",
        '"x" * params == "x"',
        "repeat(0, params * 10 ** 9) == []",
        "params == 1 when 10 ** 10 ** 10 == 1",
        "saved_bytes(B = 10 ** 12) > 0",
        "peak_bytes(B = 10 ** 18) > 0",
        "params == none",
        "params == exp(709) * exp(709) - exp(709) * exp(709)",
        "params(" * 50 + ")" * 50 + " == 3",
    ],
)
def test_claims(claim: str, server: Server, tmp_path: Path):
    (tmp_path / "m.arch").write_text(model("return x |> Linear(d) as a |> Linear(8) as b", "d: int = 8", after=f"claim {{ {claim} }}"))
    a = server.run(tmp_path, "verify", "m.arch")
    assert a["rc"] == 1 or "all true" in a["out"]
    server.run(tmp_path, "check", "m.arch")


# ---------------------------------------------------------------- what would be too large to run
@pytest.mark.parametrize(
    "body",
    [
        "return x |> Linear(2 ** 40) as a |> Linear(8) as b",
        "z = rearrange(x, [B, T, d] -> [B, T, d, n], n = 2 ** 40)\nreturn mean(z, axis = 3)",
        "buffer w: [2 ** 40 // 8, 8] = zeros()\nreturn x + mean(w)".replace("2 ** 40 // 8", "137438953472"),
    ],
)
def test_claims_too_large_to_run(body: str):
    from archdsl.claims import verify
    from archdsl.spec import loads

    spec = loads(model(body, header="(x: [B, T, 8]) -> y: [B, T, 8] stream T", after="claim { causal(y, x) }"))
    (row,) = verify(spec)
    assert not row["passed"] and "too large" in row["actual"]


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_a_device_that_is_not_there(device: object):
    from archdsl.diagnostics.model import ArchError
    from archdsl.spec import loads

    with pytest.raises(ArchError, match="A0518"):
        loads(model("return x |> Linear(8) as a")).build(device=device)


def test_no_device_is_the_default_one_and_no_number_a_variant():
    from archdsl.spec import loads

    spec = loads(model("return x |> Linear(8) as a"))
    assert next(spec.build(device=None).parameters()).device.type == "cpu"
    with pytest.raises(TypeError, match="a variant is given by its name, not 3"):
        spec.build(3)  # pyright: ignore[reportArgumentType]


def test_weights_too_large_to_build():
    from archdsl.diagnostics.model import ArchError
    from archdsl.spec import loads

    spec = loads(model("return x |> Linear(2 ** 44) as a |> Linear(8) as b"))
    with pytest.raises(ArchError, match="A0515"):
        spec.build()
    with pytest.raises(ArchError, match="A0501"):
        spec.build(form="no form")
    assert len(list(spec.build(device="meta").parameters())) == 4
