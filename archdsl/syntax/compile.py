"""Grammar to parse table: `python -m archdsl.syntax.compile` writes table.bin anew after a change of grammar.lark."""
# pyright: basic
# (lark's analysis has few types)
from __future__ import annotations

import hashlib
import pickle
import re
import zlib
from typing import Any

from lark import Lark
from lark.common import ParserConf
from lark.lexer import Lexer
from lark.parsers.lalr_analysis import LALR_Analyzer, Shift

from archdsl.syntax.lexer import STARTERS
from archdsl.syntax.table import BUILD, FLATTEN, GRAMMAR, GROW, LIST, PASS, PICK, STARTS, STORED

_HELPER = re.compile(r"__(\w+)_(?:star|plus)_\d+")  # lark's rules for repetitions


class NoLexer(Lexer):
    """lark asks for a lexer; ours is apart."""

    def __init__(self, conf: Any): ...

    def lex(self, lexer_state: Any, parser_state: Any):
        return iter(())


def digest(grammar: str) -> str:
    """What a table remembers of the grammar that it was made from."""
    return hashlib.sha256(grammar.encode()).hexdigest()


def compile_grammar(grammar: str) -> dict[str, Any]:
    """Run lark over the grammar; any conflict is an error (lark.exceptions.GrammarError)."""
    lark = Lark(grammar, parser="lalr", lexer=NoLexer, strict=True, start=list(STARTS), maybe_placeholders=True)
    analysis = LALR_Analyzer(ParserConf(lark.rules, {}, list(STARTS)), debug=True, strict=True)
    analysis.compute_lalr()
    parsed = analysis.parse_table
    rules = sorted(lark.rules, key=lambda rule: (rule.origin.name, [s.name for s in rule.expansion], rule.alias or ""))
    rule_number = {rule: i for i, rule in enumerate(rules)}
    states = _in_order(parsed)
    number = {state: i for i, state in enumerate(states)}
    texts = {str(t.name): str(t.pattern.value) for t in lark.terminals if t.pattern.__class__.__name__ == "PatternStr"}
    terminals = sorted({str(s.name) for rule in rules for s in rule.expansion if s.is_term} | {"$END", "LPAR", "LSQB", "NUMBER"})
    terminals += sorted(word.upper() + "!" for word in STARTERS)
    lefts = sorted({str(rule.origin.name) for rule in rules})
    ids = {name: i for i, name in enumerate(terminals)}
    left_ids = {name: i for i, name in enumerate(lefts)}

    rows: dict[tuple, int] = {}
    actions, goto = [], []
    for state in states:
        moves = parsed.states[state]
        row, jumps = {}, {}
        for symbol, (action, argument) in moves.items():
            if symbol in ids:
                row[ids[symbol]] = number[argument] if action is Shift else ~rule_number[argument]
                if symbol + "!" in ids:
                    row[ids[symbol + "!"]] = row[ids[symbol]]
            else:
                jumps[left_ids[symbol]] = number[argument]
        actions.append(rows.setdefault(tuple(sorted(row.items())), len(rows)))
        goto.append(dict(sorted(jumps.items())))
    return {
        "grammar": digest(grammar),
        "terminals": terminals,
        "texts": dict(sorted(texts.items())),
        "rules": [_recipe(rule, left_ids) for rule in rules],
        "rows": [dict(row) for row in rows],
        "actions": actions,
        "goto": goto,
        "start": {name: number[state] for name, state in parsed.start_states.items()},
        "end": {name: number[state] for name, state in parsed.end_states.items()},
        "symbol": [_symbol(state) for state in states],
        "owners": [_owners(state) for state in states],
    }


def _in_order(parsed: Any) -> list[Any]:
    """The states as they are met from the starts: lark's own order hangs on hashes, and the stored table should not."""
    found = [parsed.start_states[name] for name in STARTS]
    known = set(found)
    for state in found:
        for _, (_, argument) in sorted((name, move) for name, move in parsed.states[state].items() if isinstance(move[1], frozenset)):
            if argument not in known:
                known.add(argument)
                found.append(argument)
    return found


def _recipe(rule: Any, left_ids: dict[str, int]) -> tuple[int, int, int, Any, str]:
    """(length, left side, how, which, method): lark's tree shaping (filtered tokens, inlined rules, placeholders), decided beforehand."""
    options, size = rule.options, len(rule.expansion)
    marks = options.empty_indices or (False,) * size
    which: list[tuple[int, bool]] = []  # (position or -1 for a placeholder, inline)
    at = 0
    for missing in marks:
        if missing:
            which.append((-1, False))
            continue
        symbol = rule.expansion[at]
        if not (symbol.is_term and symbol.filter_out):
            which.append((at, not symbol.is_term and symbol.name.startswith("_")))
        at += 1
    left, name = left_ids[rule.origin.name], str(rule.alias or rule.origin.name)
    inlined = any(inline for _, inline in which)
    if rule.origin.name.startswith("_"):
        grows = which and which[0] == (0, True)
        return size, left, GROW if grows else LIST, tuple(which), ""
    if options.expand1 and not rule.alias and not inlined and len(which) == 1:
        return size, left, PASS, which[0][0], ""
    if inlined:
        return size, left, FLATTEN, tuple(which), name
    picked = tuple(i for i, _ in which)
    if picked == tuple(range(size)):
        return size, left, BUILD, None, name
    if len(picked) < 2:  # itemgetter of one index gives no tuple
        return size, left, FLATTEN, tuple(which), name
    return size, left, PICK, picked, name


def _symbol(state: Any) -> str:
    """The name of the symbol that leads into a state."""
    for item in state:
        if item.index:
            return str(item.rule.expansion[item.index - 1].name)
    return ""


def _owners(state: Any) -> tuple[tuple[str, int], ...]:
    """The rules under way in a state and not at their end, and how many of their symbols have been read."""
    found = set()
    for item in state:
        if item.index and not item.is_satisfied:
            name = str(item.rule.alias or item.rule.origin.name)
            part_of = _HELPER.fullmatch(name)
            found.add((part_of[1], 0) if part_of else (name, item.index))
    return tuple(sorted(found))


def main() -> None:
    """Compile grammar.lark and store the table."""
    with open(GRAMMAR, encoding="utf-8") as file:
        data = compile_grammar(file.read())
    stored = zlib.compress(pickle.dumps(data, protocol=4), 9)
    with open(STORED, "wb") as file:
        file.write(stored)
    print(f"{len(data['actions'])} states, {len(data['rules'])} rules, {len(stored)} bytes")


if __name__ == "__main__":
    main()
