"""`centre`: Pre-LN → Pre-RMSNorm → Pre-CRMSNorm (arxiv 2305.14858).

Layer norms subtract the mean of a residual stream, so the mean may be taken out where the stream is written: then it is zero everywhere, and RMSNorm
does what LayerNorm did. A stream of mean zero is known from all but one of its numbers: CRMSNorm works on those.
"""
from __future__ import annotations

from typing import Any

from archdsl.graph import Node, Value
from archdsl.passes.affine import Blocked, maps, own_weights, readers, scale_columns
from archdsl.passes.contract import Contract
from archdsl.passes.edit import Edit
from archdsl.passes.expressions import DATA, below, leaves, stages
from archdsl.passes.norm_scales import FORM, by_form, fold_gain, gain
from archdsl.passes.registry import graph_pass
from archdsl.passes.streams import Stream, stream_of

WHOLE = ("slice", None, None, None)
NONE = "it is no residual stream: nothing that its norms feed is added to it"


def _contract(edit: Edit, compress: bool, form: str) -> Contract:
    return by_form(edit, form)


@graph_pass(f"centre(compress: bool = false, {FORM})", contract=_contract, provides=("centred",), source="arxiv 2305.14858",
            samples=["centre()", "centre(compress = true)", 'centre(form = "train")', 'centre(compress = true, form = "train")'])
def centre(edit: Edit, *, compress: bool, form: str) -> None:
    """Replaces layer norms by RMS norms on every residual stream that layer norms alone read. Writers of the stream are recentred: maps,
    embeddings and tables by their weights (C W with C = I - 11ᵀ/d), anything else at run time. γ and β move into the maps that read a norm, and the
    gains of branches into the maps that write. `compress` leaves the last of the d numbers of the stream out (CRMSNorm). `form = "train"` keeps the
    old parameters and recentres them on each pass. A stream that something else reads is left as it is, and a note names the reader."""
    evaluation = form == "folded"
    streams = _streams(edit, evaluation)
    fitting = [s for s, why in streams if why is None]
    for s, why in streams:
        if why is not None and fitting:
            edit.note(f"a stream of width {s.size} keeps its layer norms{edit.places([why.node])}: {why.reason}")
    if not fitting:
        raise _nothing(edit, streams)
    made: list[Value] = []
    for s in fitting:
        if evaluation and any(v.node.op == "dropout" and v.node.attrs["rate"] != 0 for v in s.values):
            edit.phases = ("eval",)
        made += _Stream(edit, s, compress, evaluation).run()
    if compress:
        edit.retype()
    if form == "folded":
        edit.bake(made)


# ---------------------------------------------------------------- which streams
def _streams(edit: Edit, evaluation: bool) -> list[tuple[Stream, Blocked | None]]:
    """The streams that layer norms read, each with what speaks against recentring it."""
    stage = stages(edit)
    out: list[tuple[Stream, Blocked | None]] = []
    for n in edit.selected("layer_norm"):
        x = n.args[0]
        if stage[id(n)] != DATA or any(x in s.values for s, _ in out):
            continue
        stream = stream_of(edit, x, len(x.shape) - 1, evaluation, stage)
        out.append((stream, _against(edit, stream, n)))
    return out


def _against(edit: Edit, stream: Stream, norm: Node) -> Blocked | None:
    for n, v in stream.readers:
        if not reads_through_norm(n, v, stream.values[v]):
            more = ", which does not subtract the mean" if n.op in ("rms_norm", "crms_norm") else ", not through a layer norm of all its numbers"
            return Blocked(f"`{n.op}` reads it{more}", n)
        if edit.chosen is not None and id(n) not in edit.chosen:
            return Blocked("a norm that is not selected reads it", n)
    for v, what in stream.shown:
        return Blocked(f"it is {what} of the model", v.node)
    if stream.twice:
        return Blocked("its numbers change places", stream.twice[0].node)
    if not isinstance(stream.size, int) or stream.size < 2:
        return Blocked("it has no two numbers", norm)
    norms = {id(n) for n, _ in stream.readers}
    if not any(id(n) in norms for v in stream.writers for n in below(v.node)):
        return Blocked(NONE, norm)
    return None


def recentred_by_weights(edit: Edit, v: Value, axis: int) -> bool:
    """Whether the op that makes a value has weights whose mean along an axis can be taken out."""
    n = v.node
    if maps(n):
        return axis == (1 if n.op == "conv" else len(v.shape) - 1) and own_weights(edit, n) and n.attrs.get("groups", 1) == 1
    return n.op == "embedding" and axis == len(v.shape) - 1 and own_weights(edit, n)


def reads_through_norm(n: Node, v: Value, axis: int) -> bool:
    """Whether a node is a layer norm of all numbers along that axis, and reads the value as nothing else."""
    return n.op == "layer_norm" and n.args[0] == v and v not in n.args[1:] and axis == len(v.shape) - 1 and n.attrs["count"] is None


def _nothing(edit: Edit, streams: list[tuple[Stream, Blocked | None]]) -> Any:
    if not streams:
        others = [n for n in edit.selected() if n.op in ("rms_norm", "crms_norm")]
        if others:
            return edit.refuse("it has RMS norms already: they do not subtract the mean", others[0], "no layer norm",
                               help="RMS norms are what this step makes of layer norms: leave it out")
        return edit.refuse("no layer norm reads a residual stream", label="this model")
    blocked = sorted(((s, why) for s, why in streams if why is not None), key=lambda b: b[1].reason == NONE)  # a norm in a branch tells least
    (stream, why), *others = blocked
    alike: dict[tuple[Any, str], list[Node | None]] = {}
    for s, w in others:
        alike.setdefault((s.size, w.reason), []).append(w.node)
    counted = [(f"{len(at)} streams" if len(at) > 1 else "the stream", *key, at) for key, at in alike.items()]
    notes = tuple(f"{which} of width {size}: {reason}{edit.places(at)}" for which, size, reason, at in counted)
    norm = next(n for n, v in stream.readers if n.op == "layer_norm")
    return edit.refuse(f"a stream of width {stream.size} cannot be recentred: {why.reason}", why.node, "in the way",
                       labels=[(norm, "a layer norm of this stream")], notes=notes,
                       help="only streams that layer norms alone read can be recentred: pre-norm models, but not post-norm ones")


# ---------------------------------------------------------------- one stream
class _Stream:
    """The rewrite of one stream. Nodes are changed in place, so that its values stay the same."""

    def __init__(self, edit: Edit, stream: Stream, compress: bool, evaluation: bool):
        self.edit, self.stream, self.compress, self.evaluation = edit, stream, compress, evaluation
        self.made: dict[Value, None] = {}  # in order
        self.narrow: dict[Value, int] = dict(stream.values)

    def run(self) -> list[Value]:
        """Returns the new expressions of weights."""
        self._gains()
        for n, _ in list(self.stream.readers):
            self._norm(n)
        for v in list(self.stream.writers):
            self._writer(v, self.stream.values[v])
        if self.compress:
            for v, axis in self.narrow.items():
                narrow(self.edit, v, axis, self.stream.size)
        return list(self.made)

    def _gains(self) -> None:
        """γ · f(x) first: a gain behind a recentred map would bring the mean back."""
        for v in list(self.stream.writers):
            known = gain(self.edit, v.node) if v.node.op == "mul" else None
            if known is None or known[2] != self.stream.values[v]:
                continue
            done = fold_gain(self.edit, v.node)
            if isinstance(done, Blocked):
                continue
            self.made.update(dict.fromkeys(done))
            y = known[1]
            again = stream_of(self.edit, y, known[2], self.evaluation, stages(self.edit))
            self.stream.values, self.stream.writers = again.values, again.writers
            self.narrow = dict(again.values)

    # ------------------------------------------------------------ readers
    def _norm(self, n: Node) -> None:
        edit = self.edit
        x, weight, bias = n.args
        axis = len(x.shape) - 1
        found = readers(edit, Value(n), axis, shift=bias is not None)
        if not isinstance(found, Blocked) and (weight is not None or bias is not None):
            for u in found[0]:
                self.made.update(dict.fromkeys(scale_columns(edit, u, weight, bias)))
            weight = bias = None
        scope = edit.scope(n)
        if scope.graph.name == "LayerNorm":
            edit.renamed(scope, "CRMSNorm" if self.compress else "RMSNorm")
        eps = n.attrs["eps"]
        if not self.compress:
            y = edit.add("rms_norm", x, weight, eps=eps, at=n, name=n.name)
            edit.replace(Value(n), edit.add("add", y, bias, at=n) if bias is not None else y)
        else:
            y = edit.add("crms_norm", x, eps=eps, at=n, name=n.name)
            if isinstance(found, Blocked):
                edit.replace(Value(n), self._whole(y, weight, bias, n))
            else:
                for u in found[0]:
                    self._without_last(u)
                edit.replace(Value(n), y)
                self.narrow.update({v: a for v, a in found[1] if v != Value(n)})
        edit.remove(n)

    def _whole(self, y: Value, weight: Value | None, bias: Value | None, n: Node) -> Value:
        """All d numbers again, for what reads them one by one."""
        edit, last = self.edit, len(y.shape) - 1
        rest = edit.add("neg", edit.add("sum", y, axis=last, keep=True, at=n), at=n)
        joined = Node("concat", ((y, rest),), {"axis": last}, n.types, n.span, n.name)  # y is of the old size until `retype`
        whole = Value(edit.put(joined, edit.scope(n)))
        whole = edit.add("mul", whole, weight, at=n) if weight is not None else whole
        return edit.add("add", whole, bias, at=n) if bias is not None else whole

    def _without_last(self, u: Node) -> None:
        """A map of d numbers whose last is minus the sum of the others: its last column is taken off the others."""
        edit, weight = self.edit, u.args[1]
        d = self.stream.size
        first = edit.add("slice", weight, items=(WHOLE, ("slice", None, d - 1, None)), at=u)
        last = edit.add("slice", weight, items=(WHOLE, ("slice", d - 1, None, None)), at=u)
        new = edit.add("sub", first, last, at=u)
        edit.set(u, u.args[0], new, *u.args[2:])
        self.made.pop(weight, None)
        self.made[new] = None

    # ------------------------------------------------------------ writers
    def _writer(self, v: Value, axis: int) -> None:
        n, edit = v.node, self.edit
        if recentred_by_weights(edit, v, axis) and n.op == "embedding":
            edit.set(n, n.args[0], self._centred(n.args[1], 1, n))
        elif recentred_by_weights(edit, v, axis):
            weight, bias = n.args[1], n.args[2]
            new = self._centred(weight, 0, n)
            edit.set(n, n.args[0], new, self._centred(bias, 0, n) if bias is not None else None)
        elif edit.stage(v) != DATA:
            for u in [u for u in edit.users(v) if any(w in self.stream.values for w in u.values)]:
                new = self._centred(v, axis, u, expression=bool(leaves(v)))
                edit.set(u, *_put(u.args, v, new))
            self.narrow.pop(v, None)  # the expression itself keeps its size
        else:
            self._at_run_time(v, axis)

    def _centred(self, v: Value, axis: int, at: Node, expression: bool = True) -> Value:
        """v minus its mean along an axis; without its last number there when the stream is compressed."""
        edit = self.edit
        new = edit.add("sub", v, edit.add("mean", v, axis=axis, keep=True, at=at), at=at)
        if self.compress:
            new = cut(edit, new, axis, self.stream.size, at)
        self.made.pop(v, None)
        if expression:
            self.made[new] = None
        return new

    def _at_run_time(self, v: Value, axis: int) -> None:
        n, edit = v.node, self.edit
        if n.op == "layer_norm" and n.args[1] is None and n.args[2] is None and axis == len(v.shape) - 1 and not self.compress:
            return  # its mean is zero
        before = {id(u) for u in edit.users(v)}
        new = self._centred(v, axis, n, expression=False)
        edit.replace(v, new, keep=[u for u in edit.users(v) if id(u) not in before])
        self.narrow.pop(v, None)
        edit.note(f"the stream is recentred at run time behind `{n.op}` ({edit.place(n)}), which has no weights for that")


def _put(args: tuple[Any, ...], old: Value, new: Value) -> tuple[Any, ...]:
    return tuple(_put(a, old, new) if isinstance(a, tuple) else new if isinstance(a, Value) and a == old else a for a in args)


def cut(edit: Edit, v: Value, axis: int, size: Any, at: Node) -> Value:
    """Without the last number along an axis."""
    return edit.add("slice", v, items=(*((WHOLE,) * axis), ("slice", None, size - 1, None)), at=at)


def narrow(edit: Edit, v: Value, axis: int, size: Any) -> None:
    """Lets the op that makes a value make one number less along an axis, where its attributes say how many."""
    n = v.node
    if n.op == "rearrange":
        (atom,) = n.attrs["outs"][axis]
        edit.set(n, *n.args, sizes=tuple(size - 1 if i == atom else s for i, s in enumerate(n.attrs["sizes"])))
    elif n.op == "expand":
        edit.set(n, *n.args, shape=tuple(size - 1 if i == axis else s for i, s in enumerate(n.attrs["shape"])))

