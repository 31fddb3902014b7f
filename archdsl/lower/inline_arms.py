"""`phase { train => … eval => … }` as an `if self.training:` in the text of the block around it, where the arms own nothing."""
from __future__ import annotations

import re
from collections.abc import Iterable

from archdsl.lower.plain import Plain
from archdsl.lower.plan import Definition

_NAME = r"(?<![\w.\"'])({})(?!\w|=(?!=))"  # not an attribute, not the keyword of an argument


def inlined(statements: list[str], k: int, arms: tuple[Plain, ...]) -> list[str] | None:
    """The statements of a block with its k-th phase laid open; None where the arms own something or the phase is not found."""
    if len(arms) != 2 or any(a.setup or owns(a.definition) for a in arms):
        return None
    opening = f"self.train_arm_{k}("
    at = next((i for i, s in enumerate(statements) if opening in s), None)
    if at is None or statements[at].startswith("if "):
        return None
    line = statements[at]
    start = line.index(opening)
    args = _arguments(line, start + len(opening) - 1)
    called = f"({', '.join(args)})"
    phase = f"self.train_arm_{k}{called} if self.training else self.eval_arm_{k}{called}"
    if not line.startswith(phase, start):
        return None
    taken = set(re.findall(r"[A-Za-z_]\w*", "\n".join(statements)))
    target = re.fullmatch(r"([\w, ]+) = ", line[:start])
    whole = start + len(phase) == len(line)
    if whole and line[:start] == "return ":
        train, otherwise = (_lines(a, args, "return ", taken) for a in arms)
        return [*statements[:at], _if(train), *otherwise]
    if whole and target:
        return [*statements[:at], _if(*(_lines(a, args, line[:start], taken) for a in arms)), *statements[at + 1 :]]
    name = _fresh("value", taken)
    put = re.sub(rf"\({re.escape(phase)}\)|{re.escape(phase)}", lambda _: name, line, count=1)
    return [*statements[:at], _if(*(_lines(a, args, f"{name} = ", taken) for a in arms)), put, *statements[at + 1 :]]


def owns(d: Definition) -> bool:
    return bool(d.graph.params or d.graph.children or d.children or d.arms or d.draws or d.state)


def _if(train: list[str], otherwise: Iterable[str] = ()) -> str:
    lines = ["if self.training:", *_indented(train)]
    return "\n".join([*lines, *(["else:", *_indented(otherwise)] if otherwise else [])])


def _indented(statements: Iterable[str]) -> list[str]:
    return [f"    {line}" for s in statements for line in s.split("\n")]


def _lines(arm: Plain, args: list[str], result: str, taken: set[str]) -> list[str]:
    """The statements of an arm, its inputs by what they are outside, its own names apart from the others."""
    *body, last = arm.statements
    bound = {name for s in body for found in re.findall(r"^\s*([\w, ]+?) = ", s, re.MULTILINE) for name in found.split(", ")}
    names: dict[str, str] = {}
    before: list[str] = []
    for own, arg in zip(arm.inputs, args, strict=True):
        if not re.search(_NAME.format(own), "\n".join((*body, last))):
            continue
        if own in bound or not re.fullmatch(r"[A-Za-z_][\w.]*", arg):  # bound anew, or worth a name
            names[own] = own if own not in taken else _fresh(own, taken)
            taken.add(names[own])
            before.append(f"{names[own]} = {arg}")
        else:
            names[own] = arg
    for name in sorted(bound - names.keys()):
        names[name] = name if name not in taken else _fresh(name, taken)
    pattern = re.compile(_NAME.format("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)"))
    renamed = [pattern.sub(lambda m: names[m[1]], s) for s in (*body, last.removeprefix("return "))]
    return [*before, *renamed[:-1], f"{result}{renamed[-1]}"]


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _arguments(line: str, opening: int) -> list[str]:
    """The texts of the arguments between a bracket and its partner."""
    depth, parts, start = 0, list[str](), opening + 1
    for i in range(opening, len(line)):
        depth += (line[i] in "([{") - (line[i] in ")]}")
        if depth == 0 or depth == 1 and line[i] == ",":
            parts.append(line[start:i].strip())
            start = i + 1
        if depth == 0:
            break
    return [p for p in parts if p]
