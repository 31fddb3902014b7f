"""Several threads that read, check, elaborate, lower and call at once: each gets what one alone gets."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import torch

import archdsl
from archdsl.alone import ALONE
from archdsl.lower.shared_tables import SHARED

PATCHES = """use std {{ Conv, Linear }}
model P(size: int = {size}, d: int = 8)(image: [B, 3, H, W]) -> y: [B, _, d] {{
  require H == size and W == size
  param positions: [(size / 4) ** 2, d] = zeros
  x = image |> Conv(d, 4, stride = 4) as patches |> rearrange([B, d, Y, X] -> [B, (Y X), d])
  return (x + positions) |> Linear(d) as out
}}"""
DECODER = """use std {{ Attention, GLU, Linear, Pre, Rope, RMSNorm, TokenEmbedding }}
model D(d: int = {d}, rate: float = 0.1)(tokens: int[B, T] in 0..<9) -> logits: [B, T, 9] stream T {{
  x = tokens |> TokenEmbedding(9, d) as embed
  layers: for i in range(2) {{
    x = Pre(RMSNorm(), Attention(2, positions = Rope(100), mask = causal))(x) as attn
    x = Pre(RMSNorm(), GLU(2 * d, silu))(x) as ff |> dropout(rate * i)
  }}
  return x |> Linear(9) as head
}}"""
TEXTS = [PATCHES.format(size=size) for size in (8, 12, 16, 20)] + [DECODER.format(d=d) for d in (4, 8, 12, 16)]


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(jobs: list[Callable[[], Any]]) -> list[Any]:
    """What each gives, all begun together; raises what one of them raises."""
    start, found = Barrier(len(jobs)), [None] * len(jobs)
    faults: list[BaseException] = []

    def run(i: int) -> None:
        start.wait()
        try:
            found[i] = jobs[i]()
        except BaseException as fault:
            faults.append(fault)

    threads = [Thread(target=run, args=(i,)) for i in range(len(jobs))]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for fault in faults:
        raise fault
    return found


def written(model: torch.nn.Module) -> list[Any]:
    """The code of every block, and the weights."""
    return [*[(n, m.code) for n, m in model.named_modules() if hasattr(m, "code")], *[(n, t.shape) for n, t in model.state_dict().items()]]


def test_specs_that_are_read_and_lowered_at_once():
    make = lambda text: lambda: written(archdsl.loads(text).build(device="meta"))
    alone = [make(text)() for text in TEXTS]
    SHARED.clear()
    assert at_once([make(text) for text in TEXTS]) == alone


def test_one_spec_in_several_threads():
    """Other settings each, costs, and the forms of one model."""
    text, settings = DECODER.format(d=4), (4, 8, 12, 16)
    alone = [written(archdsl.loads(text).build(device="meta", d=d)) for d in settings]
    spec = archdsl.loads(text)
    found = at_once([*[lambda d=d: written(spec.build(device="meta", d=d)) for d in settings], lambda: spec.cost(at={"T": 3, "B": 1}).params])
    assert found == [*alone, sum(p.numel() for p in spec.build().parameters())]
    model = spec.build(d=4).eval()
    tokens = [torch.tensor([1, 2, 3]) for _ in range(4)]
    said = at_once([lambda x=x: archdsl.generate(model, [x], 4)[0].tolist() for x in tokens])
    assert said == [said[0]] * 4


@pytest.mark.proof
def test_blocks_that_are_compiled_in_two_threads():
    models = [archdsl.loads(DECODER.format(d=4)).build().eval() for _ in range(2)]
    tokens = torch.tensor([[1, 2, 3]])
    wanted = models[0](tokens)

    def compiled(model: Any) -> Any:
        chosen = archdsl.compile_layers(model, backend="eager")
        with torch.no_grad():  # torch asks tensors for a gradient they have not, and hides its own warning from one thread alone
            return chosen, model(tokens)

    for chosen, y in at_once([lambda m=m: compiled(m) for m in models]):
        assert chosen == ["layers.0.attn", "layers.0.ff", "layers.1.attn", "layers.1.ff"]
        torch.testing.assert_close(y, wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_process_that_is_forked_while_another_thread_reads():
    """Its own thread reads as well: it does not wait for one that it does not have."""
    reads = Event()

    def read() -> None:
        with ALONE:
            reads.set()
            time.sleep(0.1)

    other = Thread(target=read)
    other.start()
    reads.wait()
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 200)  # ends one that waits
        with ALONE:
            os._exit(0)
    other.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_process_whose_first_specs_are_read_at_once():
    """Ops are loaded at the first look at one, by whichever thread."""
    program = f"""
import sys
sys.setswitchinterval(1e-5)
from threading import Barrier, Thread
import archdsl.spec
start, found = Barrier(4), []
def read(text):
    start.wait()
    found.append(archdsl.spec.loads(text).cost(at = {{"B": 1, "T": 2}} if "tokens" in text else {{"B": 1}}).params)
threads = [Thread(target = read, args = (text,)) for text in {TEXTS[2:6]!r}]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(found) == 4, found
"""
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=500)
    assert made.returncode == 0, made.stderr
