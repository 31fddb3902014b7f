"""What costs can be asked for: sizes, forms, types; blocks whose cost nobody knows; no torch."""
from __future__ import annotations

import subprocess
import sys

import pytest

from archdsl.cost import cost
from archdsl.cost.sizes import parse_sizes
from archdsl.diagnostics.model import ArchError, Diagnostic
from archdsl.spec import loads, resolve_source

MODEL = """
use std.linear { Linear }
model Net(d: int = 4)(x: [B = 2, H = 8, d]) -> y: [B, H, d] {
  require H % 4 == 0, "the height is a multiple of 4"
  return Linear(d)(x) as f
}
"""


def fault(*args, **options) -> Diagnostic:
    with pytest.raises(ArchError) as e:
        loads(MODEL).cost(*args, **options)
    (found,) = e.value.diagnostics
    return found


def test_sizes_come_from_at_then_from_the_spec_then_are_one():
    text = MODEL.replace("[B = 2, H = 8, d]", "[B, H = 8, d]")
    assert loads(text).cost().sizes == {"B": 1, "H": 8}
    assert loads(text).cost(at={"B": 3, "H": 4}).macs == 3 * 4 * 16


def test_examples_give_way_to_what_knobs_ask_for():
    vit, gpt = (resolve_source(name)[0] for name in ("vit", "gpt2"))
    assert vit.cost(side=384).sizes == {"B": 1, "H": 384, "W": 384}
    knob = next(k for k, v in gpt.knobs.items() if v.value == 1024)
    assert gpt.cost(knobs={knob: 64}).sizes["T"] == 64
    with pytest.raises(ArchError, match="A0643"):
        gpt.cost(at={"T": 65}, knobs={knob: 64})


@pytest.mark.parametrize(("at", "code", "help"), [
    ({"h": 4}, "A0641", "did you mean `H`?"), ({"Q": 4}, "A0641", "it has B, H"), ({"d": 4}, "A0641", "--set d"),
    ({"B": 0}, "A0642", "whole number"), ({"B": 2.0}, "A0642", "whole number"), ({"B": True}, "A0642", "whole number"),
])
def test_wrong_sizes(at, code, help):
    found = fault(at=at)
    assert found.code == code and help in " ".join(found.help)


def test_sizes_that_the_model_refuses():
    found = fault(at={"H": 6})
    assert found.code == "A0643" and "multiple of 4" in found.message and found.labels[0].span.text == "H % 4 == 0"


def test_sizes_that_an_op_refuses():
    text = "use std.vision { Conv }\nmodel Net()(x: [B = 1, 3, H = 32, W = 32]) -> y: [B, 8, _, _] { return Conv(8, 4, stride = 4)(x) as f }"
    assert loads(text).cost(at={"H": 4}).macs == 8 * 3 * 16 * 8
    with pytest.raises(ArchError, match=r"A0643.*a kernel of 4 does not fit on an axis of 3"):
        loads(text).cost(at={"H": 3})


def test_positions_end():
    spec, _ = resolve_source("gpt2")
    with pytest.raises(ArchError, match="A0643"):
        spec.cost(at={"T": 1025})


def test_forms_and_types():
    assert fault(form="step").code == "A0501"
    assert fault(dtype="bf61").code == "A0644" and fault(dtype="bf61").help == ("did you mean `bf16`?",)


def test_sizes_as_text():
    sizes, spans = parse_sizes(" T=2_048, B=1")
    assert sizes == {"T": 2048, "B": 1} and spans["B"].text == " B=1"
    for text in ("T", "T=", "=3", "T=x", "T=-1", "T=1,,B=2", ""):
        with pytest.raises(ArchError, match="A0642"):
            parse_sizes(text)


def test_the_fault_stands_in_the_text():
    sizes, spans = parse_sizes("B=1,H=6")
    with pytest.raises(ArchError) as e:
        cost(loads(MODEL).elaborate(), sizes, spans=spans)
    assert e.value.diagnostics[0].span.text == "B=1,H=6"


def test_types_count_their_own_bytes():
    spec = loads(MODEL)
    wide, narrow = spec.cost(dtype="f32"), spec.cost(dtype="bf16")
    assert (wide.weight_bytes, narrow.weight_bytes) == (4 * 20, 2 * 20)
    assert wide.saved_bytes == 2 * narrow.saved_bytes == 4 * 2 * 8 * 4 and wide.peak_bytes == 2 * narrow.peak_bytes == 2 * 4 * 2 * 8 * 4


EXTERN = """
use std.linear { Linear }
extern block Mixer(width: int)(x: [B, d]) -> [B, width]
model Net()(x: [B = 2, 4]) -> y: [B, 6] {
  layers: for i in range(2) { x = Mixer(4)(x) as mixer }
  return Linear(6)(x) as head
}
"""


def test_what_is_unknown_is_named():
    found = loads(EXTERN).cost()
    assert found.unknown == ("layers.0.mixer", "layers.1.mixer")
    assert found.macs == 2 * 4 * 6 and found.saved_bytes == 4 * 2 * 4  # the head and its input
    assert found.to_json()["unknown"] == list(found.unknown)


def test_no_torch():
    code = "import sys, archdsl; archdsl.load(archdsl.spec.shipped_files()[0]).cost().to_json(by_layer=True); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
