"""Values that come later than their own position, behind ops that look ahead: a value that is `late` by 2 holds, in the call of position p, what
the parallel form has at p - 2.

Where such values meet others, those are kept until their time has come: a delay line, which is a state. What is made of `index(T)` alone is computed
for the earlier position instead. Before the first position of the sequence, and behind its end, values hold what is made of no input; so an op that
carries something along the stream is given what leaves its beginning, or its padding, as the parallel form has it."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.dims import Size
from archdsl.graph import Node, TensorType, Value
from archdsl.streaming.rows import NoRows

if TYPE_CHECKING:
    from archdsl.streaming.definition import Definition, Known

WHOLE = ("slice", None, None, None)
APART = ("phase", "update", "param")
"""Nodes whose operands need not come together: an arm's own nodes see to theirs."""


def literal(number: float, dtype: str) -> bool | int | float:
    """A number as one of an element type is written."""
    return bool(number) if dtype == "bool" else int(number) if dtype == "int" else float(number)


class Here(dict[Value, Value]):
    """What one node takes along the stream, brought together; the rest is as it is known outside."""

    def __init__(self, given: Known, outside: Known):
        super().__init__(given)
        self.outside = outside

    def __missing__(self, v: Value) -> Value:
        return self.outside[v]


class Delays:
    """Of one definition. `of`: values of the new graph -> how late they are; `free`: those made of positions alone, for any delay; `now`: the delay
    of the node at hand. What is in neither does not move along the stream."""

    def __init__(self, d: Definition):
        self.d, self.now = d, d.at.late
        self.of: dict[Value, int] = {}
        self.free: dict[Value, tuple[Value, Node, Known]] = {}
        self.still: set[Value] = set()
        self.lines: dict[Value, dict[int, Value]] = {}
        self.masks: dict[Any, Value] = {}

    def enters(self, old: Value, new: Value, i: int) -> None:
        """An input of the definition."""
        if self.d.session.form == "packed":
            return
        late = self.d.at.delays[i] if self.d.at.delays else 0 if any(self.d.at.timed(s) for s in old.shape) else None
        if late is not None:
            self.of[new] = late

    def node(self, node: Node, known: Known) -> None:
        """Takes in a node, its operands brought together."""
        d = self.d
        if d.session.form == "packed" or node.op in APART:
            d.session.rule(d, node, known)
            return
        given = {v: known[v] for v in (d.padded[v].of if v in d.padded else v for v in node.operands()) if v in known}
        moving = [self.of[x] for x in given.values() if x in self.of]
        before, slots, base = self.now, len(d.slots), d.at.late
        self.now = max(moving) if moving else base
        apart = node.op == "call" and any(d.at.timed(s) for v in given for s in v.shape)  # inside they are brought together where they meet
        try:
            late = {v: x for v, x in given.items() if x in self.of or x in self.free}
            mine = Here({v: x if apart and x in self.of else self.at(v, x, self.now) for v, x in late.items()}, known)
            d.session.rule(d, node, mine)
            found = {v: mine[v] for v in node.values if v in mine}
            if not moving and len(d.slots) == slots and (node.op != "call" or d.reads_time(node.attrs["graph"])):
                if any(x in self.free for x in given.values()) or any(d.at.timed(s) for t in node.types for s in t.shape):
                    self.free.update((x, (v, node, given)) for v, x in found.items())
            elif moving or len(d.slots) > slots:
                for x in found.values():
                    if x not in self.still:
                        self.of.setdefault(x, self.now)
        finally:
            self.now = before
        known.update(found)

    def returned(self, values: tuple[Value, ...], late: tuple[int | None, ...]) -> None:
        """The results of a call."""
        self.of.update((v, n) for v, n in zip(values, late) if n is not None)
        self.still.update(v for v, n in zip(values, late) if n is None)

    def late(self, x: Value) -> int | None:
        """How late a value is; None for one that does not move."""
        return self.of.get(x, self.d.at.late if x in self.free else None)

    @property
    def told(self) -> dict[str, int]:
        """The attribute of an op that counts positions."""
        return {"late": self.now} if self.now else {}

    @property
    def counted(self) -> dict[str, int]:
        """The attributes of `index`."""
        return self.told if self.d.session.most is None else {**self.told, "most": self.d.session.most}

    # ---------------------------------------------------------------- bringing values together
    def at(self, old: Value, x: Value, late: int) -> Value:
        """The value as it is `late`."""
        if x in self.free:
            return x if late == self.d.at.late else self._again(x, late)
        own = self.of.get(x)
        if own is None or own == late:
            return x
        lines = self.lines.setdefault(x, {own: x})
        if late not in lines:
            lines[late] = self._line(old, *max((n, y) for n, y in lines.items() if n < late), late)
        return lines[late]

    def _again(self, x: Value, late: int) -> Value:
        """What is made of positions alone, of earlier ones."""
        lines = self.lines.setdefault(x, {})
        if late not in lines:
            old, node, given = self.free[x]
            before, self.now = self.now, late
            mine = Here({v: self.at(v, y, late) for v, y in given.items()}, self.d.known)
            self.d.session.rule(self.d, node, mine)
            self.now = before
            for v in node.values:
                self.of[mine[v]] = late
            lines[late] = mine[old]
        return lines[late]

    def _line(self, old: Value, own: int, x: Value, late: int) -> Value:
        d, n = self.d, late - own
        axes = [i for i, s in enumerate(old.shape) if d.at.timed(s)]
        told = f"it is needed {n} position{'s' * (n > 1)} later, beside what looks ahead, and "
        if old in d.last or not axes:
            raise d.refuse(old.node, f"{told}the last position of a call is not kept")
        if old in d.pairs or len(axes) != 1 or not d.at.is_time(old.shape[axes[0]]):
            raise d.refuse(old.node, f"{told}it is no tensor of positions: this is {old.type}")
        if x in d.rows.held:
            raise NoRows("positions by row are not kept")
        shape = tuple(n if i == axes[0] else s for i, s in enumerate(old.shape))
        name, type, before = d.slot("late", TensorType(old.dtype, shape), old.node.span)
        node = Node("delay_extend", (x, before), {"axis": axes[0]}, (x.type, before.type), old.node.span, x.node.name)
        node.call_result(1, name)
        d.nodes.append(node)
        y, after = node.values
        d.slots.append((name, type, before, after, False))
        self.of[y] = late
        return y

    # ---------------------------------------------------------------- what lies outside of the sequence
    def covered(self, x: Value, axis: int, outside: float, more: int = 0) -> Value:
        """`x`, whose axis holds the positions of the node at hand and `more` before them, with a number in the place of what lies before the first
        position or behind the last. Raises NoRows where rows begin apart and x does not begin with them."""
        d, batch = self.d, self.d.at.batch
        rows = d.at.by_row and batch is not None
        if rows and (axis == 0 or x.shape[0] != batch):
            raise NoRows("the first axis of what looks ahead is not the batch")
        mask = self._inside(x.shape[axis], self.now + more)
        behind = len(x.shape) - axis - 1
        items = (WHOLE, *((("new",),) * (axis - 1)), WHOLE) if rows else (WHOLE,)
        shape: tuple[Size, ...] = (*((batch, *(1,) * (axis - 1)) if rows else ()), x.shape[axis], *(1,) * behind)  # type: ignore[assignment]
        shown = mask if len(items) == len(shape) == len(mask.shape) else self._node("slice", (mask,), {"items": (*items, *((("new",),) * behind))},
                                                                                      TensorType("bool", shape), x)
        y = self._node("where", (shown, x, literal(outside, x.dtype)), {}, x.type, x)
        if not more:
            self.of[y] = self.now
        return y

    def inside(self, size: Size) -> Value:
        """bool[n], whether a position of the node at hand belongs to the sequence."""
        if self.d.at.by_row and self.d.at.batch is not None:
            raise NoRows("a scan begins where its row does")
        return self._inside(self.d.size(size), self.now)

    def _inside(self, n: Size, late: int) -> Value:
        """bool [n], or [B, n]: whether these positions, so late, belong to the sequence."""
        from archdsl.streaming.definition import END, POSITION, START

        d = self.d
        key = str(n), late
        if key not in self.masks:
            rows = d.at.by_row and d.at.batch is not None
            start = d.counter(START) if rows else None
            shape = (d.at.batch, n) if rows else (n,)
            node = Node("inside_extend", (d.counter(POSITION), d.counter(END), start), {"n": n, "late": late}, (TensorType("bool", shape),),  # type: ignore[arg-type]
                        d.source.span, "inside")
            d.nodes.append(node)
            self.masks[key] = Value(node)
        return self.masks[key]

    def _node(self, op: str, args: tuple[Any, ...], attrs: dict[str, Any], type: TensorType, of: Value) -> Value:
        node = Node(op, args, attrs, (type,), of.node.span, of.node.name)
        self.d.nodes.append(node)
        return Value(node)

    # ---------------------------------------------------------------- the model as a whole
    def together(self, results: tuple[Value, ...]) -> tuple[tuple[Value, ...], int]:
        """The results of the model, all as late as the latest, with 0 outside of the sequence; and how late that is."""
        d = self.d
        most = max((n for v in results if (n := self.of.get(d.known[v])) is not None), default=0)
        if not most:
            return tuple(d.known[v] for v in results), 0
        found = []
        before, self.now = self.now, most
        for v in results:
            x = self.at(v, d.known[v], most)
            axes = [i for i, s in enumerate(v.shape) if d.at.timed(s)]
            if axes and (len(axes) > 1 or not d.at.is_time(v.shape[axes[0]])):
                raise d.refuse(v.node, f"results come {most} position{'s' * (most > 1)} late, and this one has no axis for positions alone: {v.type}")
            found.append(self.covered(x, axes[0], 0) if axes else x)
        self.now = before
        return tuple(found), most
