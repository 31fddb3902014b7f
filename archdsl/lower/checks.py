"""What a written model says of the shapes of its inputs: the checks in `forward` and the notes on types."""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from archdsl.graph import Value
from archdsl.lower.plan import Definition

if TYPE_CHECKING:
    from archdsl.lower.templates import Number, Template

WIDTH = 112


def fits(inputs: Any, arg: Callable[[Any], str], kinds: Mapping[str, str]) -> str:
    """The check of `parts.fit` in plain torch: for each input (tensor, name, shape as it is written, axes) one error when its axes are others, or
    when `kinds` (element types by name) asks for whole numbers and it holds floats. Which floats fit hangs on weights and autocast."""
    first: dict[str, str] = {}
    lines: list[str] = []
    for x, name, shape, axes in inputs:
        tensor = arg(x)
        conditions = [f"{tensor}.dim() != {len(axes)}"]
        for axis, expected in enumerate(axes):
            size = f"{tensor}.size({axis})"
            if expected is None or isinstance(expected, str) and first.setdefault(expected, size) == size:
                continue
            conditions.append(f"{size} != {first[expected] if isinstance(expected, str) else arg(expected)}")
        quote, told = "'" if '"' in name else '"', f"{{list({tensor}.shape)}}"
        if kinds.get(name) == "int":
            conditions.append(f"{tensor}.is_floating_point()")
            shape, told = f"int{shape}", f"{{{tensor}.dtype}} {told}"
        lines += [*_if(conditions), f"    raise ValueError(f{quote}the input `{name}` is {shape}: this is {told}{quote})"]
    return "\n".join(lines)


def _if(conditions: list[str]) -> list[str]:
    line = f"if {' or '.join(conditions)}:"
    return [line] if len(line) <= WIDTH - 8 else ["if (", f"    {conditions[0]}", *(f"    or {c}" for c in conditions[1:]), "):"]


def types(t: Template, root: bool) -> str:
    """The inputs and results of `forward` as the spec writes them, sizes that are arguments by their names; "" where members have other axes."""
    shown = {_types(d, _named(t, numbers, root)) for d, numbers in zip(t.definitions, t.members)}
    return shown.pop() if len(shown) == 1 else ""


def _named(t: Template, numbers: tuple[Number, ...], root: bool) -> dict[int, str]:
    """The arguments by their values, where one alone has it."""
    found: dict[int, list[str]] = {}
    for name, columns in t.arguments.items() if not root else ():
        value = numbers[columns[0]].value
        if isinstance(value, int) and value > 1:
            found.setdefault(value, []).append(name)
    return {value: names[0] for value, names in found.items() if len(names) == 1}


def _types(d: Definition, sizes: dict[int, str]) -> str:
    def shape(v: Value) -> str:
        return re.sub(r"(?<=[\[ ])\d+(?=[,\]])", lambda m: sizes.get(int(m[0]), m[0]), str(v.type))

    kept = len(d.state)
    inputs, outputs = (values[:len(values) - kept] for values in (d.source.inputs, d.source.outputs))
    state = ["state"] if kept else []
    given = ", ".join([*(f"{v.node.attrs['name']}: {shape(v)}" for v in inputs), *state])
    names = [*d.source.output_names, *[None] * len(outputs)]
    emitted = [] if d.hands_out else [f"{path.rsplit('.', 1)[-1]}: {shape(d.source.emits[path])}" for path in d.emits]
    results = [*(f"{n}: {shape(v)}" if n else shape(v) for n, v in zip(names, outputs)), *emitted, *state]
    return f"({given}) -> {', '.join(results)}"
