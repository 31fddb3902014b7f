"""What is being written at the point of a mistake, and what could follow, in the user's words."""
from __future__ import annotations

from typing import Any

from archdsl.source import Span
from archdsl.syntax.lexer import Token
from archdsl.syntax.recover import Open, Situation

VALUE_KINDS = frozenset(("NUMBER", "STRING", "NAME", "LPAR"))
OTHER_VALUES = frozenset("MINUS NOT LSQB INT TRUE FALSE NONE IF MATCH PHASE LITERAL LAYOUT LAYOUT_ON".split())

PLACES = {  # what is being written, by the rule that is under way
    "use": "`use`", "use_name": "`use`", "paper": "`paper`", "record": "`record`", "fn": "the header of `fn`", "op": "the header of `op`",
    "block": "the header of `block`", "extern": "the header of `extern block`", "model": "the header of `model`",
    "model_edit": "the header of `model`", "model_entries": "the header of `model`", "entry": "the header of `entry`", "stream": "`stream`",
    "variant": "`variant`", "setting": "a setting", "transform": "`transform`", "step_call": "`transform`", "using": "`using`",
    "claim": "`claim`", "claim_item": "a claim", "within": "`within`", "space": "`space`", "names": "`names`",
    "map_name": "a line of `names`", "alias_name": "`alias`", "drop_name": "`drop`", "ignore_name": "`ignore`",
    "name_op": "a line of `names`", "field": "a parameter", "param_inner": "a parameter", "param_rest": "a parameter",
    "params": "a parameter list", "out": "the results of a header", "outs": "the results of a header", "union": "a type",
    "optional": "a type", "list_type": "a list type", "tuple_type": "a type", "each": "a domain", "each_by": "a domain",
    "range_step": "a range", "range_scale": "a range",
    "range_log": "a range", "range": "a range", "shape": "a shape", "axis_arith": "a size", "axis_sized": "a shape",
    "factors": "a product of axes", "axis_call": "a size", "dname": "a size", "layout": "a layout", "bounded": "a shape",
    "ragged": "a shape", "axes_var": "a shape", "assign": "a binding", "target": "a binding", "require": "`require`",
    "default": "`default`", "share": "`share`", "param_decl": "`param`", "buffer": "`buffer`", "const": "`const`", "draw": "`draw`",
    "control": "`control`", "emit": "`emit`", "update": "`update`", "static": "`static`", "next": "`next`", "yield": "`yield`",
    "return": "`return`", "results": "the results", "loop": "the header of `for`", "patterns": "the header of `for`",
    "pattern_items": "the header of `for`", "if_stmt": "`if`", "match_stmt": "`match`", "match_arm": "an arm of `match`",
    "choose": "`choose`", "choose_arm": "an arm of `choose`", "scan": "`scan`", "scan_inputs": "`scan`", "carry": "`carry`",
    "if_expr": "`if`", "match_expr": "`match`", "expr_arm": "an arm of `match`", "phase_expr": "`phase`", "phase_arm": "an arm of `phase`",
    "arm_patterns": "an arm of `match`", "block_literal": "a block literal", "lambda_param": "a block literal", "comprehension": "a list",
    "list": "a list", "set": "a set", "named": "`as`", "args": "an argument list", "keyword": "an argument", "select_kind": "a selector",
    "alternatives": "alternatives", "dotted": "a name", "address": "an address", "select_call": "a selector", "pipe": "a chain of `|>`",
    "compose": "a chain of `>>`", "edited": "`with`", "settings": "settings", "layout_call": "a layout call",
    "layout_named": "a layout call", "layout_on": "a layout call",
}





def place(s: Situation, expected: set[str]) -> str:
    """The construct under way at a misfit, in words; empty where none is. It is the one that an expected terminal would go on with."""
    telling = next((name for name in STRUCTURE if name in expected), min(expected, default="NAME"))
    states = (s.would_take(s.prior, s.table.ids[telling]) or [*s.prior, 0])[:-1]
    for depth in range(len(states) - 1, 0, -1):
        if s.is_anchor(states[depth]):
            return ""
        found = sorted({(-read, PLACES[name]) for name, read in s.table.owners[states[depth]] if name in PLACES})
        if found:
            return _with_name(s, found[0][1])
    return ""


def _with_name(s: Situation, text: str) -> str:
    """`the header of `model`` with the name that the header gives, when it has been read."""
    if not text.startswith("the header of `") or text.endswith("`for`"):
        return text
    for token in s.tokens[s.start(s.anchor()) or 0 : s.at]:
        if s.names[token[0]] == "NAME":
            return text[:-1] + f" {token[1]}`"
    return text


# ---------------------------------------------------------------- brackets
BRACKETS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset(("shape", "list_type")), "the shape or list type"),
    (frozenset(("list", "comprehension")), "the list"),
    (frozenset(("group", "tuple")), "the parenthesis"),
    (frozenset(("factors",)), "the product of axes"),
    (frozenset(("outs", "tuple_type")), "the results"),
    (frozenset(("pattern_items", "scan_inputs", "select_group")), "the parenthesis"),
    (frozenset(("body",)), "the body"),
    (frozenset(("match_stmt", "match_expr", "phase_expr", "choose")), "the arms"),
    (frozenset(("branch",)), "the branch"),
    (frozenset(("set",)), "the set"),
    (frozenset(("alternatives",)), "the list of alternatives"),
)


def describe_open(s: Situation, opened: Open) -> str:
    """What a bracket belongs to: `the argument list of `Linear``, `the body of `model ViT``."""
    rules, at, text = opened.rules, opened.at, s.run.source.text
    if rules & {"layout_call", "layout_named", "layout_on", "axis_call"}:
        return f"the argument list of `{s.values[at - 2][1]}`"
    if rules & {"args", "trail_item"}:
        callee = " ".join(text[_callee_start(s, at) : opened.token[2]].split())
        kind = "the argument list" if "args" in rules else "the index"
        return f"{kind} of `{callee}`" if 0 < len(callee) <= 40 else kind
    if "block_literal" in rules:
        return "the parameter list of the block literal"
    if "params" in rules:
        return "the parameter list" + _owner_of(s, at - 1, " of ")
    for names, phrase in BRACKETS:
        if rules & names:
            return phrase + (_owner_of(s, at - 1, " of ") if phrase in ("the body", "the arms", "the results") else "")
    return _owner_of(s, at - 1, "") or "this bracket"


def _callee_start(s: Situation, at: int) -> int:
    """Where the callee of a call starts: right under its bracket, or under the calls before it."""
    depth = at - 2
    if depth > 0 and isinstance(s.values[depth], list):
        depth -= 1
    return s.run.starts[max(depth, 0)]


def _owner_of(s: Situation, depth: int, lead: str) -> str:
    """The nearest word below on the stack with the name that follows it: ` of `model ViT``."""
    words = s.table.words
    for i in range(depth - 1, -1, -1):
        token = s.values[i]
        if _is_token(token) and token[1] in words.word and token[0] != words.name:
            name: Any = s.values[i + 1] if i + 1 < depth else ()
            named = _is_token(name) and name[0] == words.name and token[1] not in ("for", "if", "in", "match")
            return f"{lead}`{token[1]}{' ' + name[1] if named else ''}`"
    return ""


def _is_token(value: Any) -> bool:
    return type(value) is tuple and list(map(type, value)) == [int, str, int, int]  # type: ignore[reportUnknownArgumentType]


# ---------------------------------------------------------------- what may stand somewhere
STRUCTURE = {
    "NAME": "a name", "STRING": "a string", "INT": "a whole number", "EQUAL": "`=`", "COLON": "`:`", "ARROW": "`->`", "GIVES": "`=>`",
    "MAPS": "`<->`", "LPAR": "`(`", "LBRACE": "`{`", "IN": "`in`", "OF": "`of`", "WITH": "`with`", "ELSE": "`else`", "OVER": "`over`",
    "CARRY": "`carry`", "BLOCK": "`block`", "PARAM": "`param`", "COMMA": "`,`", "RPAR": "`)`", "RSQB": "`]`", "RBRACE": "`}`",
    "_CALL": "`(`",
}
WORDS = {
    "LESS_EQUAL": "`<=`", "COMPARE": "a comparison", "RANGE": "`..`", "DOT": "`.`", "$END": "the end", "_INDEX": "`[`", "SEMICOLON": "`;`",
    "BAR": "`|`", "AND_SIGN": "`&`", "PIPE": "`|>`", "COMPOSE": "`>>`", "OTHERWISE": "`??`", "POWER": "`**`", "PLUS": "`+`", "MINUS": "`-`",
    "STAR": "`*`", "SLASH": "`/`", "FLOOR": "`//`", "MODULO": "`%`", "AT": "`@`", "ELLIPSIS": "`...`", "NUMBER": "a number",
    "UNDERSCORE": "`_`", "DTYPE": "a dtype", "MAYBE": "`?`",
}


def options(names: set[str]) -> list[str]:
    """Terminals as the user knows them, the telling ones first."""
    found: list[str] = []
    if names >= VALUE_KINDS:
        found.append("an expression")
        names = names - VALUE_KINDS - OTHER_VALUES
    elif names >= {"DTYPE", "LIST", "NAME"}:
        found.append("a type")
        names = names - {"DTYPE", "LIST", "NAME", "LSQB", "STRING"}
    found += [text for name, text in STRUCTURE.items() if name in names]
    if not found:
        found += sorted(WORDS.get(name, f"`{name.lower().strip('_')}`") for name in names)
    return list(dict.fromkeys(found))[:6]


def listing(choices: list[str]) -> str:
    """`a, b or c`"""
    return choices[0] if len(choices) == 1 else ", ".join(choices[:-1]) + " or " + choices[-1]


def span(s: Situation, token: Token) -> Span:
    return Span(s.run.source, token[2], token[3])


def short(text: str) -> str:
    return text if len(text) <= 30 else text[:29] + "…"
