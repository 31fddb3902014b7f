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
    taken = set(taken)  # the other arm may have the same ones
    *body, last = arm.statements
    last = last.removeprefix("return ")
    bound = {name for s in body for found in re.findall(r"^\s*([\w, ]+?) = ", s, re.MULTILINE) for name in found.split(", ")}
    nested = {name for s in body if "\n" in s for found in re.findall(r"^\s*([\w, ]+?) = ", s, re.MULTILINE) for name in found.split(", ")}
    names: dict[str, str] = {}
    later: dict[str, str] = {}  # of inputs that the arm binds anew: what they are called from there on
    before: list[str] = []

    def own_name(name: str) -> str:
        found = name if name not in taken else _fresh(name, taken)
        taken.add(found)
        return found

    for own, arg in zip(arm.inputs, args, strict=True):
        if not re.search(_NAME.format(own), "\n".join((*body, last))):
            continue
        plain = re.fullmatch(r"[A-Za-z_][\w.]*", arg) is not None
        if not plain or own in nested:  # worth a name, or bound anew on one way alone
            names[own] = own_name(own)
            before.append(f"{names[own]} = {arg}")
        else:
            names[own] = arg
            if own in bound:
                later[own] = own_name(own)
    for name in sorted(bound - names.keys()):
        names[name] = own_name(name)

    def renamed(text: str) -> str:
        pattern = _NAME.format("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)")
        return re.sub(pattern, lambda m: names[m[1]], text)

    lines: list[str] = []
    for s in body:
        target = re.match(r"([\w, ]+?) = ", s)
        value = renamed(s[target.end() :] if target else s)
        names.update({n: later[n] for n in target[1].split(", ") if n in later} if target else {})
        lines.append((renamed(target[0]) if target else "") + value)
    return [*before, *lines, f"{result}{renamed(last)}"]


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
