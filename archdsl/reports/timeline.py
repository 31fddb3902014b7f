"""`timeline`: what a device does when several run one model, and how much of their communication hides behind computation."""
from __future__ import annotations

from bisect import bisect_right

from archdsl.cost.memory import BYTES
from archdsl.cost.model import DTYPES
from archdsl.cost.summary import Mode, whole
from archdsl.declared import wrong_option
from archdsl.dims import product
from archdsl.graph import TensorType
from archdsl.records import field, record
from archdsl.reports.model import Column, Report, Row
from archdsl.reports.parallel import Plan, passes, plan
from archdsl.reports.registry import Subject, report
from archdsl.reports.work import Program, Tensor, Work, program

COLUMNS = (
    Column("start", "s", shown=False), Column("end", "s", shown=False), Column("compute", "s"), Column("idle", "s"), Column("communication", "s"),
    Column("hidden", "s"), Column("total", "s"), Column("speed-up"), Column("waits for"),
)


@report("timeline(devices: int = 8, flops: float = 400T, bandwidth: float = 450G, memory: float? = none, latency: float = 0, dtype: str = \"bf16\", "
        "lanes: str? = none)", source="arxiv 2501.06589")
def timeline(subjects: list[Subject], *, devices: int, flops: float, bandwidth: float, memory: float | None, latency: float, dtype: str,
             lanes: str | None) -> Report:
    """When each device computes and when it communicates, layer by layer: a model split over `devices` by pairs of products with weights, whose
    results are summed over the devices (all-reduce) on a link of their own, beside what is computed.

    `flops`: operations a second of a device, two for each multiply-add. `bandwidth`: bytes a second that a device sends. `memory`: bytes a second
    of its memory; with it, a product takes at least as long as moving its tensors. `latency`: seconds that each all-reduce takes besides. `dtype`:
    of the model's floats. `lanes`: the label of a loop that stands for devices: what one pass of it owns is on one device, and a sum over passes is
    a sum over devices; models without that loop are split as usual.

    A row is what is computed up to an all-reduce, and that all-reduce. `idle`: the device waits before or inside it. `hidden`: communication beside
    which something is computed. `waits for`: the latest all-reduce that it needs. Norms, sums and the like take no time. The first model is the
    baseline of `speed-up`.
    """
    for name, value in (("devices", devices), ("flops", flops), ("bandwidth", bandwidth), ("memory", 1 if memory is None else memory)):
        if value <= 0:
            raise wrong_option("A0582", name, value, "it has to be more than 0")
    if latency < 0:
        raise wrong_option("A0582", "latency", latency, "it has to be 0 or more")
    if dtype not in DTYPES:
        raise wrong_option("A0582", "dtype", dtype, f"it is one of {', '.join(DTYPES)}")
    rates = Rates(flops, bandwidth, memory, latency, Mode(False, False, dtype))
    rows: list[Row] = []
    notes: list[str] = []
    base = 0.0
    programs = [program(s.model.graph, s.sizes) for s in subjects]
    if lanes is not None and not any(passes(found, lanes) for found in programs):
        raise wrong_option("A0582", "lanes", lanes, f"no model has weights in a loop `{lanes}: for …`")
    for subject, found in zip(subjects, programs):
        run = Run(found, plan(found, devices, lanes), rates)
        base = base or run.total
        rows += run.rows(subject.name, base)
        notes += run.notes(subject.name)
    options = {"devices": devices, "flops": flops, "bandwidth": bandwidth, "memory": memory, "latency": latency, "dtype": dtype, "lanes": lanes}
    return Report("timeline", COLUMNS, tuple(rows), options, subjects[0].name if len(subjects) > 1 else None, tuple(notes))


@record(frozen=True)
class Rates:
    """Of one device: operations and bytes a second, `latency` in seconds; `mode` knows the model's float type."""

    flops: float
    bandwidth: float
    memory: float | None
    latency: float
    mode: Mode

    def computing(self, w: Work, share: int) -> float:
        """Seconds for 1 / share of an op: its operations, or moving its tensors, whichever takes longer."""
        if not w.macs:
            return 0.0
        moved = sum(map(self._bytes, [*(t.type for _, t in w.operands), *w.types]))
        return max(2 * w.macs / self.flops, moved / self.memory if self.memory else 0.0) / share

    def reducing(self, t: Tensor, devices: int) -> float:
        """Seconds of an all-reduce round a ring: each device sends 2 (p - 1) / p of the tensor."""
        return 0.0 if devices == 1 else self.latency + 2 * (devices - 1) / devices * self._bytes(t.type) / self.bandwidth

    def _bytes(self, t: TensorType) -> int:
        return whole(product(t.shape)) * BYTES[self.mode.concrete(t.dtype)]


@record(slots=False)
class Segment:
    """What a device computes up to an all-reduce, and that all-reduce (none behind the last one). `after`: the number of the latest that it needs."""

    works: list[Work] = field(default_factory=list[Work])
    reduced: Tensor | None = None
    start: float = 0.0
    end: float = 0.0
    compute: float = 0.0
    idle: float = 0.0
    sent: float = 0.0
    arrived: float = 0.0
    after: int = -1

    @property
    def address(self) -> str:
        """The block whose result is summed over the devices: of a product the one around it. Behind the last sum, the last product."""
        last = self.reduced.work if self.reduced else self.works[-1]
        around = last.path.rpartition(".")[0] if self.reduced and last.op == "linear" else ""
        return around or last.path or last.op


class Run:
    """Products one after another in the order of the text, each as soon as its operands are there; all-reduces one after another as well, on the
    link, each as soon as its summands are. What multiplies no matrices takes no time. All devices do alike: the first one is told."""

    def __init__(self, found: Program, made: Plan, rates: Rates):
        self.found, self.made, self.rates = found, made, rates
        self.local: dict[Tensor, tuple[float, int]] = {}  # when a tensor is there, and the number of the latest all-reduce that it needs
        self.whole: dict[Tensor, tuple[float, int]] = {}  # the same behind its own all-reduce
        self.free = self.link = 0.0
        self.busy: list[tuple[float, float]] = []
        self.segments = [Segment()]
        for w in found.works:
            self._work(w)
        if not self.segments[-1].works:
            self.segments.pop()
        self.total = max(self.free, self.link)

    def _work(self, w: Work) -> None:
        before = [(self.local if t not in self.made.reduced or (w, t) in self.made.local else self.whole)[t] for _, t in w.operands]
        ready, needs = max((b[0] for b in before), default=0.0), max((b[1] for b in before), default=-1)
        took = self.rates.computing(w, self.made.devices if w in self.made.split else 1)
        if took and self.made.lane.get(w, 0) == 0:
            ready = self._compute(w, max(ready, self.free), took, needs)
        elif took:  # another device does it meanwhile
            ready = max(ready, self.free)
        for t in w.results:
            self.local[t] = ready, needs
            if t in self.made.reduced:
                self._reduce(t, ready)

    def _compute(self, w: Work, start: float, took: float, needs: int) -> float:
        now = self.segments[-1]
        if not now.works:
            now.start = start
        now.idle += start - self.free
        now.works.append(w)
        now.after = max(now.after, needs)
        now.compute += took
        self.free = now.end = start + took
        self.busy.append((start, self.free))
        return self.free

    def _reduce(self, t: Tensor, ready: float) -> None:
        now = self.segments[-1]
        now.reduced, now.sent = t, max(ready, self.link)
        self.link = now.arrived = now.sent + self.rates.reducing(t, self.made.devices)
        self.whole[t] = self.link, len(self.segments) - 1
        self.segments.append(Segment())

    def _hidden(self, start: float, end: float) -> float:
        """The time between the two in which something is computed."""
        first = max(bisect_right(self.busy, (start, start)) - 1, 0)
        found = 0.0
        for a, b in self.busy[first:]:
            if a >= end:
                break
            found += max(0.0, min(b, end) - max(a, start))
        return found

    def rows(self, source: str, base: float) -> list[Row]:
        """The whole first, then its segments."""
        rows: list[Row] = []
        sums = [0.0] * 4
        for s in self.segments:
            figures = s.compute, s.idle, s.arrived - s.sent, self._hidden(s.sent, s.arrived)
            sums = [a + b for a, b in zip(sums, figures)]
            after = self.segments[s.after].address if s.after >= 0 else None
            rows.append(Row(source, s.address, (s.start, s.end, *figures, None, None, after)))
        sums[1] = self.total - sums[0]
        speed = base / self.total if self.total else None
        return [Row(source, "", (0.0, self.total, *sums, self.total, speed, None)), *rows]

    def notes(self, source: str) -> list[str]:
        """What the figures leave out or could not split."""
        found = [f"{source}: the cost of {', '.join(self.found.unknown)} is not known and left out"] if self.found.unknown else []
        products = [w for w in self.found.works if w.macs]
        if self.made.devices > 1 and (same := [w for w in products if w not in self.made.split and w not in self.made.lane]):
            share = sum(w.macs for w in same) / sum(w.macs for w in products)
            found.append(f"{source}: {share:.1%} of the products are not split, every device does them: {_few([w.path for w in same])}")
        return found


def _few(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
