"""The LALR(1) table: compiled from grammar.lark by lark, stored in table.bin, read without lark.

`python -m archdsl.syntax.table` writes table.bin anew after a change of the grammar.
"""
from __future__ import annotations

import os
import pickle
import re
import zlib
from operator import itemgetter
from typing import Any

from archdsl.syntax.build import METHOD
from archdsl.syntax.lexer import STARTERS, Words

HERE = os.path.dirname(os.path.abspath(__file__))
GRAMMAR, STORED = os.path.join(HERE, "grammar.lark"), os.path.join(HERE, "table.bin")
STARTS = ("start", "signature", "expression", "selection", "step", "override")

# How the values of a rule's symbols become the value of the rule.
PASS, BUILD, PICK, FLATTEN, LIST, GROW = range(6)


class Table:
    """`actions[state][terminal]` is a state to shift to, or ~rule to reduce by; `goto[state][rule]` the state after a reduction.

    `symbol[state]` is what was read last to come into a state, `owners[state]` the rules that may be under way there.
    """

    def __init__(self, data: dict[str, Any]):
        self.terminals: list[str] = data["terminals"]
        self.rules: list[tuple[int, int, int, Any, str]] = data["rules"]  # (length, left side, how, which, builder's method)
        rows: list[dict[int, int]] = data["rows"]
        self.actions = [rows[i] for i in data["actions"]]
        self.goto: list[dict[int, int]] = data["goto"]
        self.start: dict[str, int] = data["start"]
        self.end: dict[str, int] = data["end"]
        self.symbol: list[str] = data["symbol"]
        self.owners: list[tuple[tuple[str, int], ...]] = data["owners"]
        self.grammar: str = data["grammar"]
        self.words = Words(self.terminals, data["texts"])
        self.ids = self.words.ids
        self.texts: dict[str, str] = data["texts"]

    def value_of(self, rule: int, parts: list[Any], methods: list[Any], start: int, end: int) -> Any:
        """The value of a rule from those of its symbols; the parser's loop has the same in line."""
        how, which = self.rules[rule][2:4]
        if how == PASS:
            return parts[which]
        if how == BUILD:
            return methods[rule](parts, start, end)
        if how == PICK:
            return methods[rule](which([*parts, None]), start, end)
        value: list[Any] = []
        for i, inline in which:
            value += parts[i] if inline else [None if i < 0 else parts[i]]
        return methods[rule](value, start, end) if how == FLATTEN else value

    def methods_of(self, builder: Any) -> list[Any]:
        """For each rule the method that builds its value, None where values only pass through."""
        found = {name: getattr(builder, METHOD.get(name, name)) for name in {rule[4] for rule in self.rules} if name}
        return [found.get(rule[4]) for rule in self.rules]


_HELPER = re.compile(r"__(\w+)_(?:star|plus)_\d+")  # lark's rules for repetitions

_loaded: Table | None = None


def load() -> Table:
    """The table of the language, read once."""
    global _loaded
    if _loaded is None:
        with open(STORED, "rb") as file:
            data = pickle.loads(zlib.decompress(file.read()))
        data["rules"] = [(n, left, how, itemgetter(*which) if how == PICK else which, name) for n, left, how, which, name in data["rules"]]
        _loaded = Table(data)
    return _loaded


def digest(grammar: str) -> str:
    """What a table remembers of the grammar that it was made from."""
    import hashlib

    return hashlib.sha256(grammar.encode()).hexdigest()


def compile_grammar(grammar: str) -> dict[str, Any]:
    """Run lark over the grammar; any conflict is an error (lark.exceptions.GrammarError)."""
    from lark import Lark
    from lark.common import ParserConf
    from lark.lexer import Lexer
    from lark.parsers.lalr_analysis import LALR_Analyzer, Shift

    class NoLexer(Lexer):
        def __init__(self, conf: Any): ...

        def lex(self, lexer_state: Any, parser_state: Any):
            return iter(())

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
