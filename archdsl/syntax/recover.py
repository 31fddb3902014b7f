"""After a mistake: what is open, what could have followed, and where reading goes on."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from archdsl.syntax.lexer import DECLARATIONS, STATEMENTS, Token
from archdsl.syntax.tree import Node

if TYPE_CHECKING:
    from archdsl.syntax.parser import Run

STATEMENT_WORDS = STATEMENTS | {"if", "for", "match", "entry"}
FAR = 5000  # tokens of one statement or declaration that are read again to explain a mistake
NEVER_FIRST = frozenset(") ] } , ; . = : |> >> ?? & | + * / // % @ ** == != < <= > >= => -> and or is in as with else when".split()) | {""}
OPENING = frozenset(("LPAR", "_CALL", "LSQB", "_INDEX", "LBRACE"))
CLOSING = frozenset(("RPAR", "RSQB", "RBRACE"))
PARTNER = {"(": ")", "[": "]", "{": "}"}


class Open(NamedTuple):
    """A bracket that is open at the point of a mistake: where it is on the stack, its token, the rules that it may belong to."""

    at: int
    token: Token
    rules: frozenset[str]


class Repair(NamedTuple):
    """A change of the tokens with which reading gets past the mistake: `tokens[at : at + remove]` become `insert`."""

    at: int
    remove: int
    insert: list[Token]


class Situation:
    """The parser's stacks at the token that fits nowhere."""

    def __init__(self, run: Run, tokens: list[Token], at: int):
        self.run, self.table, self.tokens, self.at = run, run.table, tokens, at
        self.states, self.values = run.states, run.values
        self.names = run.table.terminals
        self.prior = self.before(at) or self.states  # as it was before the misfit: a table may reduce a little before it refuses

    # ------------------------------------------------------------ what could follow
    def would_take(self, states: list[int], kind: int) -> list[int] | None:
        """The stack of states after a terminal, None when it does not fit."""
        table, stack = self.table, list(states)
        while True:
            act = table.actions[stack[-1]].get(kind)
            if act is None:
                return None
            if act >= 0:
                stack.append(act)
                return stack
            size, left, *_ = table.rules[~act]
            if size:
                del stack[-size:]
            stack.append(table.goto[stack[-1]][left])
            if stack[-1] == table.end[self.run.start] and self.names[kind] == "$END":
                return stack

    def take(self, states: list[int], token: Token) -> list[int] | None:
        """The same for a token and the wider kinds that it may have."""
        kind: int | None = token[0]
        while kind is not None:
            if (after := self.would_take(states, kind)) is not None:
                return after
            kind = self.table.words.fallback.get(kind)
        return None

    def expected(self, states: list[int] | None = None) -> set[str]:
        """The names of the terminals that fit."""
        states = self.states if states is None else states
        found = {self.names[kind] for kind in self.table.actions[states[-1]] if self.would_take(states, kind) is not None}
        return {name for name in found if name[-1] != "!"}

    def before(self, index: int) -> list[int] | None:
        """The stack of states before an earlier token of the same statement or declaration, or of the one before it."""
        depth = self.anchor()
        start = self.start(depth)
        if start is not None and index == start and index < self.at and (last := self.last(depth)) is not None:
            start = self.index_of(last.span.start)
        if start is None or not start <= index <= start + FAR:
            return None
        states: list[int] | None = self.states[: depth + 1]
        for token in self.tokens[start:index]:
            states = self.take(states, token)
            if states is None:
                return None
        return states

    def reads(self, tokens: list[Token], start: int) -> bool:
        """Whether these tokens could stand where the statement or declaration that starts at an index does."""
        depth = next((d for d in self.anchors() if self.start_of(d) == start), None)
        if depth is None and start == self.declared_before():
            depth = self.outer()
        states: list[int] | None = self.states[: depth + 1] if depth is not None and len(tokens) <= FAR else None
        for token in tokens:
            states = None if states is None else self.take(states, token)
        return states is not None

    # ------------------------------------------------------------ places on the stack
    def anchors(self) -> list[int]:
        """The depths at which a statement or a declaration started, the innermost first."""
        return [d for d in range(len(self.states) - 1, -1, -1) if self.is_anchor(self.states[d])]

    def outer(self) -> int | None:
        """The depth at which the declaration under way started."""
        return next((d for d in self.anchors() if self.table.actions[self.states[d]].get(self.table.ids["USE"], -1) >= 0), None)

    def declaration(self) -> int | None:
        """The index of the first token of the declaration under way."""
        outer = self.outer()
        return self.start_of(outer) if outer is not None else None

    def declared_before(self) -> int | None:
        """The index of the first token of the declaration that ends in front of it."""
        outer = self.outer()
        last = self.last(outer) if outer is not None else None
        return self.index_of(last.span.start) if last is not None else None

    def is_anchor(self, state: int) -> bool:
        """Can a statement or a declaration start here?"""
        row, ids = self.table.actions[state], self.table.ids
        return row.get(ids["RETURN"], -1) >= 0 or row.get(ids["USE"], -1) >= 0

    def in_body(self) -> bool:
        """Is it a statement, and not a declaration, that is under way or could start?"""
        return self.table.actions[self.states[self.anchor()]].get(self.table.ids["RETURN"]) is not None

    def anchor(self) -> int:
        """The depth of the innermost place where a statement or a declaration started."""
        for depth in range(len(self.states) - 1, 0, -1):
            if self.is_anchor(self.states[depth]):
                return depth
        return 0

    def last(self, depth: int) -> Node | None:
        """The statement or declaration that ends right before the one under way."""
        items: Any = self.values[depth - 1] if depth else None
        last: object = items[-1] if type(items) is list and items else None  # pyright: ignore[reportUnknownVariableType]
        return last if isinstance(last, Node) else None

    def finished(self, depth: int) -> Node | None:
        """The statement that was taken as finished right before the misfit, None when one is under way."""
        if depth < len(self.values) or not depth:
            return None
        items: Any = self.values[-1]
        last: object = items[-1] if type(items) is list and items else None  # pyright: ignore[reportUnknownVariableType]
        return last if isinstance(last, Node) and last.span.end == self.tokens[self.at - 1][3] else None

    def start(self, depth: int) -> int | None:
        """The index of the first token of the statement or declaration that is under way, or was until the misfit."""
        last = self.finished(depth)
        return self.index_of(last.span.start) if last is not None else self.start_of(depth)

    def start_of(self, depth: int) -> int | None:
        """The index of the first token above a depth of the stack."""
        return self.index_of(self.run.starts[depth] if depth < len(self.run.starts) else self.tokens[self.at][2])

    def index_of(self, offset: int) -> int | None:
        """The index of the token that starts at an offset of the text."""
        low, high = 0, self.at
        while low < high:
            middle = (low + high) // 2
            if self.tokens[middle][2] < offset:
                low = middle + 1
            else:
                high = middle
        return low if self.tokens[low][2] == offset else None

    def opened(self) -> list[Open]:
        """The open brackets, innermost first."""
        found: list[Open] = []
        closed = 0
        for depth in range(len(self.states) - 1, 0, -1):
            symbol = self.table.symbol[self.states[depth]]
            if symbol in CLOSING:
                closed += 1
            elif symbol in OPENING and closed:
                closed -= 1
            elif symbol in OPENING:
                rules = frozenset(name for name, _ in self.table.owners[self.states[depth]])
                found.append(Open(depth, self.values[depth - 1], rules))
        return found

    # ------------------------------------------------------------ lines
    def column(self, token: Token) -> int:
        """How far a token stands from the start of its line."""
        return self.run.source.position(token[2])[1] - 1

    def leads_line(self, token: Token) -> bool:
        """Is it the first token of its line?"""
        text = self.run.source.text
        return not text[text.rfind("\n", 0, token[2]) + 1 : token[2]].strip()

    def opens_statement(self, index: int) -> bool:
        """Does the token look like the start of a statement? Either a word for one, or a name that is being bound."""
        token = self.tokens[index]
        if self.names[token[0]] == "NAME" or token[1] == "_":
            return index + 1 < len(self.tokens) and self.tokens[index + 1][1] in ("=", ",", ":")
        return token[1] in STATEMENT_WORDS and token[0] != self.table.words.name

    def opens_declaration(self, index: int) -> bool:
        token = self.tokens[index]
        return token[1] in DECLARATIONS and token[0] != self.table.words.name


def recover(run: Run, tokens: list[Token], at: int) -> int:
    """Report the mistake at a token, set the stacks back and return where to go on; -1 when nothing more can be read."""
    from archdsl.syntax.errors import explain

    situation = Situation(run, tokens, at)
    repair, known = None, len(run.faults.found)
    if at > run.resumed and tokens[at][0] >= 0:  # else it has been told, or is a consequence
        fault, repair = explain(situation)
        run.faults.add(fault)
    if len(run.faults.found) >= run.max_faults or run.start != "start":
        return -1
    if repair is not None and len(run.faults.found) > known and (start := mend(situation, repair)) is not None:
        return start
    complete(situation)
    found = resynchronise(situation)
    if found is None:
        return -1
    depth, index = found
    cut(run, depth)
    run.resumed = max(run.resumed, index)
    return index


def cut(run: Run, depth: int) -> None:
    """Forget what stands above a depth of the stack."""
    del run.states[depth + 1 :], run.values[depth:], run.starts[depth:]


def complete(s: Situation) -> None:
    """Keep the statement or declaration before the misfit when it could end there."""
    run, table = s.run, s.table
    kind = table.ids["RBRACE"] if s.in_body() else table.ids["USE"]
    if s.would_take(run.states, kind) is None:
        return
    while (act := table.actions[run.states[-1]][kind]) < 0:
        size = table.rules[~act][0]
        start = run.starts[-size] if size else s.tokens[s.at - 1][3]
        parts = run.values[len(run.values) - size :]
        cut(run, len(run.values) - size)
        value = table.value_of(~act, parts, run.builder, start, s.tokens[s.at - 1][3])
        run.states.append(table.goto[run.states[-1]][table.rules[~act][1]])
        run.values.append(value)
        run.starts.append(start)


def mend(s: Situation, repair: Repair) -> int | None:
    """Change the tokens and go back to the start of the statement or declaration; its index, None where that cannot be."""
    depth = s.anchor()
    start = s.start(depth)
    again = s.finished(depth) is not None
    if start is None or repair.at < start and not again:  # further out, or in the declaration before
        depth = next((d for d in s.anchors() if (first := s.start_of(d)) is not None and first <= repair.at), s.outer() or depth)
        start = s.start_of(depth)
        if start is not None and repair.at < start:
            start, again = s.declared_before(), True
    if start is not None and repair.at <= start and not again and (last := s.last(depth)) is not None and repair.remove:
        start, again = s.index_of(last.span.start), True
    if start is None or repair.at < start:
        return None
    if again:
        s.values[depth - 1].pop()
    cut(s.run, depth)
    s.tokens[repair.at : repair.at + repair.remove] = repair.insert
    gone = not repair.insert and repair.at == start and s.at < repair.at + repair.remove  # a whole line: what follows stands in its place
    s.run.resumed = max(s.run.resumed, start - 1 if gone else s.at)
    return start


def resynchronise(s: Situation) -> tuple[int, int] | None:
    """(depth of the stack to keep, index of the token to go on with)."""
    anchors = s.anchors()
    inner = anchors[0]
    outer = next(d for d in anchors if s.table.actions[s.states[d]].get(s.table.ids["USE"], -1) >= 0)
    first = s.start(inner)
    margin = s.column(s.tokens[first]) if first is not None else 0
    start = s.start(outer) if outer == inner else s.start_of(outer)
    edge = s.column(s.tokens[start]) if start is not None else 0
    symbols = [s.table.symbol[state] for state in s.states[inner + 1 :]]
    braces = symbols.count("LBRACE") - symbols.count("RBRACE")
    in_body = inner != outer
    round_ = 0
    for i in range(s.at + (s.at <= s.run.resumed), len(s.tokens)):
        token = s.tokens[i]
        text, behind = token[1], s.tokens[i - 1][1] if i else ""
        leads = i == 0 or s.run.source.text.find("\n", s.tokens[i - 1][3], token[2]) >= 0
        fresh = i > s.at or (first is not None and i > first)
        if fresh and s.opens_declaration(i) and ((leads and s.column(token) <= edge) or (not in_body and braces <= 0 and behind == "}")):
            return outer, i
        if in_body and fresh:
            ends = braces <= 0 and s.opens_statement(i) and ((leads and text in STATEMENTS) or (round_ <= 0 and behind in (";", "}")))
            if ends or (leads and s.column(token) <= margin and text not in NEVER_FIRST):
                return inner, i
        if text == "}" and in_body and (braces <= 0 or (leads and s.column(token) < margin)):
            return inner, i
        braces += {"{": 1, "}": -1}.get(text, 0)
        round_ += {"(": 1, "[": 1, ")": -1, "]": -1}.get(text, 0)
    return (outer, len(s.tokens) - 1) if s.take(s.states[: outer + 1], s.tokens[-1]) else None
