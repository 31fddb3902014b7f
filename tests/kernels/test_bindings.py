"""Choosing a kernel, telling why, and running it inside the opaque torch op."""
from __future__ import annotations

import inspect

import pytest
import torch

import archdsl
from archdsl.diagnostics.model import ArchError
from archdsl.graph import TensorType
from archdsl.kernels import bindings as b
from archdsl.kernels.running import bound
from archdsl.kernels.target import parse_kernels
from archdsl.ops.recurrent import KERNELS, RECURRENCES
from archdsl.ops.registry import OPS, load

load()
SPEC = "model Net(d: int = 4)(x: [B = 2, T = 5, d]) -> [B, T, d] stream T {\n  q = x |> rms_norm\n  return linear_attention(q, x, x)\n}\n"
TYPES = {"q": TensorType("f32", (2, 5, 4)), "k": TensorType("f32", (2, 5, 4)), "v": TensorType("f32", (2, 5, 4)), "decay": None, "memory": None}


def _eight(types, attributes):
    wide = types["k"].shape[-1]
    return None if wide == 8 else f"k is {wide} wide, not 8"


def _stepwise(*args, **attributes):
    reference = OPS["linear_attention_extend"].reference
    assert reference is not None
    return reference(*args, **attributes)


@pytest.fixture
def declared():
    """Two kernels of linear attention and one of a norm, for these tests alone."""
    with b.apart():
        b.BINDINGS.clear()
        yield _declare()


def _declare():
    calls = []

    @b.kernel("linear_attention", "wide", devices=("cuda", "cpu"), dtypes=("f32",), needs=(),
              fits=_eight)
    class Wide:
        @staticmethod
        def forward(*args, **attributes):
            raise AssertionError("never chosen")

    @b.kernel("linear_attention", "doubling", devices=("cpu",), dtypes=("f32", "bf16"), needs=())
    class Doubling:
        """Twice the reference, so that it shows."""

        @staticmethod
        def forward(q, k, v, decay, memory, **attributes):
            calls.append(("forward", q.dtype, memory is None))
            held = torch.zeros(*q.shape[:-2], q.shape[-1], v.shape[-1]) if memory is None else memory
            y, after = _stepwise(q, k, v, decay, held, **attributes)
            return 2 * y, after

        @staticmethod
        def gradient(dy, later, q, k, v, decay, memory, **attributes):
            calls.append(("gradient", dy.dtype, later is None))
            return dy, dy, dy, None, None

        @staticmethod
        def step(q, k, v, decay, memory, **attributes):
            calls.append(("step", q.dtype, memory is None))
            y, after = _stepwise(q, k, v, decay, memory, **attributes)
            return 3 * y, after

    @b.kernel("rms_norm", "tripling", devices=("cpu",), dtypes=("f32",), needs=())
    class Tripling:
        @staticmethod
        def forward(x, weight, *, eps):
            calls.append(("norm", x.dtype, weight is None))
            return 3 * OPS["rms_norm"].body(x, weight, eps=eps)

    return calls


def test_the_first_that_fits_is_taken_and_the_others_say_why(declared):
    found = b.choose("linear_attention", "cpu", "f32", TYPES, {"scale": 1})
    assert found.name == "doubling" and found.reasons == {"wide": "k is 4 wide, not 8"}
    found = b.choose("linear_attention", "cuda", "f32", TYPES, {"scale": 1})
    assert found.name == "reference" and found.reasons == {"wide": "k is 4 wide, not 8", "doubling": "it runs on cpu, not on cuda"}
    assert b.choose("linear_attention", "cpu", "f64", TYPES, {}).reasons["doubling"] == "it takes f32 or bf16, not f64"
    assert b.choose("linear_attention", "cpu", "f32", TYPES, {}, asked="reference").name == "reference"
    empty = TYPES | {"q": TensorType("f32", (2, 0, 4))}
    assert b.choose("linear_attention", "cpu", "f32", empty, {}).reasons["doubling"] == "an operand is empty"


def test_what_is_asked_for_and_cannot_run_is_an_error(declared):
    with pytest.raises(b.KernelError, match="cannot be used here: k is 4 wide, not 8"):
        b.choose("linear_attention", "cpu", "f32", TYPES, {}, asked="wide")
    with pytest.raises(b.KernelError, match="has no kernel `fast`, only `wide`, `doubling` and `reference`"):
        b.choose("linear_attention", "cpu", "f32", TYPES, {}, asked="fast")
    with pytest.raises(ArchError, match="cannot be used here") as fault:
        archdsl.loads(SPEC).build(kernels={"linear_attention": "wide"})
    assert fault.value.diagnostics[0].code == "A0519"


@pytest.mark.parametrize(("kernels", "told"), [({"linear_attention": None}, "not by None"), ({1: "reference"}, "not by 1"), (3, "`3` says nothing")])
def test_ops_and_kernels_are_names(kernels, told):
    with pytest.raises(ArchError, match=told) as fault:
        archdsl.loads(SPEC).build(kernels=kernels)
    assert fault.value.diagnostics[0].code == "A0519"


def test_card_and_packages(declared):
    @b.kernel("softmax", "new", dtypes=("f32",), capability=(9, 0), needs=("no_such_module_here",))
    class New:
        pass

    types = {"x": TensorType("f32", (2,))}
    old = b.choose("softmax", "cuda", "f32", types, {}, capability=(8, 0))
    assert old.reasons == {"new": "it needs compute capability 9.0, and this card has 8.0"}
    assert b.choose("softmax", "cuda", "f32", types, {}).reasons == {"new": "no_such_module_here is not installed"}
    assert b.choose("softmax", "cuda", "f32", types, {}, installed=False).name == "new"
    with pytest.raises(ValueError, match="called new already"):
        b.kernel("softmax", "new", dtypes=("f32",))(New)


def test_a_kernel_gets_operands_as_they_are(declared):
    x = torch.randn(2, 5, 4, dtype=torch.bfloat16, requires_grad=True)
    y = OPS["linear_attention"].body(x, x, x)
    y.sum().backward()
    assert declared == [("forward", torch.bfloat16, True), ("gradient", torch.bfloat16, True)]
    assert x.grad is not None and torch.equal(x.grad, torch.full_like(x, 3))


def test_what_is_declared_or_gone_counts_from_the_next_call():
    """Of tensors of shapes that were chosen for before."""
    x = torch.randn(2, 3, 4)
    run = OPS["linear_attention"].body
    plain = run(x, x, x)
    with b.apart():
        _declare()
        torch.testing.assert_close(run(x, x, x), 2 * plain)
    torch.testing.assert_close(run(x, x, x), plain)


def test_what_the_interpreter_was_taken_for_does_not_hold_without_it(monkeypatch):
    x = torch.randn(2, 3, 4)
    with b.apart():
        @b.kernel("rms_norm", "interpreted", dtypes=("f32",))
        class Interpreted:
            @staticmethod
            def forward(x, weight, *, eps):
                return 3 * OPS["rms_norm"].body(x, weight, eps=eps)

        asked = bound("rms_norm", ("x", "weight"), (x, None), {"eps": 1e-5}, "interpreted")
        assert asked is not None and asked.body is Interpreted
        monkeypatch.setattr(b, "INTERPRETER", False)
        with pytest.raises(b.KernelError, match="it runs on cuda, not on cpu"):
            bound("rms_norm", ("x", "weight"), (x, None), {"eps": 1e-5}, "interpreted")


def test_one_position(declared):
    x, memory = torch.randn(2, 1, 4), torch.randn(2, 4, 4)
    y, _ = OPS["linear_attention_extend"].body(x, x, x, None, memory)
    plain, _ = OPS["linear_attention_extend"].body(x, x, x, None, memory, kernel="reference")
    torch.testing.assert_close(y, 3 * plain)


@pytest.mark.parametrize("form", ["parallel", "step"])
def test_a_model_built_for_kernels(declared, form):
    """A function of plain torch becomes a torch op where a kernel was chosen, a step calls the torch op where a kernel has one."""
    spec, x = archdsl.loads(SPEC), torch.randn(2, 5 if form == "parallel" else 1, 4)
    asked = {"linear_attention": "doubling", "rms_norm": "tripling"}
    built, plain = spec.build(form=form, kernels=asked), spec.build(form=form, kernels="reference")
    assert "archdsl.rms_norm" in built.code and "archdsl.rms_norm" not in plain.code and 'kernel' not in spec.build(form=form).code
    if form == "parallel":
        torch.testing.assert_close(built(x), 6 * plain(x))
    else:
        (y, _), (expected, _) = (m(x, m.init_state(2)) for m in (built, plain))
        torch.testing.assert_close(y, 9 * expected)
    assert [c[0] for c in declared] == ["norm", "forward" if form == "parallel" else "step"]


def test_an_op_of_its_own_compiles_and_has_a_gradient(declared):
    from archdsl.kernels.opaque import called

    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(4, requires_grad=True)
    run = called("rms_norm", "reference")
    torch.library.opcheck(torch.ops.archdsl.rms_norm.default, (x, w, 1e-5),
                          test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))
    mine = torch.autograd.grad(run(x, w).square().sum(), (x, w))
    theirs = torch.autograd.grad(OPS["rms_norm"].body(x, w).square().sum(), (x, w))
    torch.testing.assert_close(mine, theirs)


def test_what_the_command_line_says():
    assert parse_kernels(None) is None and parse_kernels("reference") == "reference"
    assert parse_kernels("ssd=triton, rms_norm = reference") == {"ssd": "triton", "rms_norm": "reference"}
    with pytest.raises(ArchError, match="says nothing of kernels"):
        parse_kernels("ssd=triton,fast")


@pytest.mark.parametrize(("kernels", "words"), [("fast", "says nothing"), ({"ssm": "triton"}, "the model has no op `ssm`"),
                                                ({"linear_attention": "tritn"}, "has no kernel `tritn`")])
def test_kernels_that_are_not_there(kernels, words):
    with pytest.raises(ArchError, match=words):
        archdsl.loads(SPEC).build(kernels=kernels)


def test_the_report_tells_what_each_op_gets(declared):
    from archdsl.reports.kernels import kernels
    from archdsl.reports.registry import Subject

    subject = Subject("net", archdsl.loads(SPEC).elaborate(), {"B": 2, "T": 5})
    found = kernels([subject], device="cpu", dtype="bf16")
    assert [r.cells for r in found.rows] == [("rms_norm", "reference", "tripling: it takes f32, not bf16"),
                                             ("linear_attention", "doubling", "wide: it takes f32, not bf16")]
    assert found.notes == ("net: every op has kernels",)


def test_no_argument_has_a_name_that_inductor_takes():
    """It hands the arguments of an op that it does not look into on by name, to a function with arguments of its own."""
    from torch._inductor.ir import FallbackKernel

    taken = {p.name for p in inspect.signature(FallbackKernel.create).parameters.values() if p.kind is not p.VAR_KEYWORD}
    for r in (*RECURRENCES.values(), *KERNELS.values()):
        tensors, attributes = r.schema()
        assert not taken & {part.split("=")[0].split()[-1] for part in (*tensors, *attributes)}, r.name


def test_compile_refuses_a_kernel_that_cannot_run_here(tmp_path, monkeypatch):
    from archdsl.cli.commands.compile import compile

    (tmp_path / "net.arch").write_text(SPEC)
    monkeypatch.setattr(b, "INTERPRETER", False)
    with pytest.raises(ArchError, match="cannot be used here: it runs on cuda, not on cpu") as fault:
        compile(str(tmp_path / "net.arch"), [], 0, None, False, False, None, kernels="linear_attention=triton")
    assert fault.value.diagnostics[0].code == "A0519" and "linear_attention(q, x, x)" in fault.value.diagnostics[0].span.text


def test_the_report_has_what_is_joined():
    """As the built model has it: halves turned by tables, and the gate with what it multiplies, are one op each; on the CPU nothing is joined."""
    from archdsl.reports.kernels import kernels
    from archdsl.reports.registry import Subject

    subjects = [Subject("llama", archdsl.load("llama").elaborate("tiny"), {"B": 1, "T": 8})]
    card, cpu = (kernels(subjects, device=device, dtype="bf16") for device in ("cuda", "cpu"))
    told = {"rms_norm": "triton", "rotary": "triton", "swiglu": "triton", "attention": "reference", "linear": "reference"}
    assert {r.cells[0]: r.cells[1] for r in card.rows} == told
    assert {r.cells[2] for r in card.rows if r.cells[0] == "attention"} == {"flex: it is taken where it is asked for by name"}
    assert "silu" not in card.notes[0] and "neg" not in card.notes[0] and "silu" in cpu.notes[0]
    with pytest.raises(ArchError, match="`device` cannot be foo: it is one of cpu, cuda") as fault:
        kernels(subjects, device="foo", dtype="bf16")
    assert fault.value.diagnostics[0].code == "A0582"
