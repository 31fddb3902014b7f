"""archdsl cost --device, --plot: decoding against the length of the context."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cost.test_decode import HYBRID


def test_command(archdsl, tmp_path: Path):
    (tmp_path / "hybrid.arch").write_text(HYBRID)
    text = archdsl("cost", "hybrid.arch", "--at", "B=1", "--device", "a100-sxm-80gb", "--plot", "state.svg").stdout
    assert re.search(r"state bytes .* 64\*B\*Length \+ 264\*B \+ 8", text), text
    assert "NVIDIA A100 SXM, 80 GB: 2,039 GB/s, 19.5 TFLOP/s in f32" in text and "131,072" in text and "memory" in text
    assert (tmp_path / "state.svg").read_text().startswith("<svg")
    data = json.loads(archdsl("cost", "hybrid.arch", "--device", "h100-sxm", "--dtype", "bf16", "--json").stdout)
    assert data["form"] == "step" and data["decoding"]["device"]["flops"] == 989.4e12
    assert data["decoding"]["contexts"][0].keys() == {"length", "state_bytes", "per_token", "macs", "seconds", "bound"}


@pytest.mark.parametrize(("more", "code"), [(("--device", "h100"), "A0646"), (("--plot", "state.png"), "A0647"),
                                            (("--plot", "/proc/state.svg"), "A0627")])
def test_wrong_commands(archdsl, tmp_path: Path, more: tuple[str, ...], code: str):
    (tmp_path / "hybrid.arch").write_text(HYBRID)
    assert f"error[{code}]" in archdsl("cost", "hybrid.arch", *more, code=1).stderr
    assert "error[A0501]" in archdsl("cost", "vit", "--device", "h100-sxm", code=1).stderr
