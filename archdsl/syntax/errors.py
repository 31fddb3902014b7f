"""Syntax mistakes in the user's words: what was being written, what is missing, what to do. One reading for each kind of mistake."""
from __future__ import annotations

from collections.abc import Callable

from archdsl.diagnostics.distance import distance
from archdsl.diagnostics.model import Diagnostic, Fix, Label
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax import habit_comments, habit_headers, habit_signs, habits
from archdsl.syntax.codes import CODES
from archdsl.syntax.describe import describe_open, listing, options, place, short, span
from archdsl.syntax.habits import CONDITIONAL, form
from archdsl.syntax.lexer import Token
from archdsl.syntax.recover import PARTNER, Open, Repair, Situation
from archdsl.syntax.tree import Return
from archdsl.syntax.unclosed import by_indentation, by_lines, no_opening, no_partner, second_list, short_list

__all__ = ["CODES", "explain"]

CHAINS = frozenset(("|>", ">>", "&", "|", "??"))
OPERATORS = frozenset("+ - * / // % @ ** == != < <= > >=".split()) | CHAINS
LOGIC = frozenset(("and", "or", "not", "is", "in"))
STOPS = frozenset("= , ; => -> : .. ..< ... { } ( [ if else for in when return yield match require not".split())  # an expression starts after these
DECLARATIONS = "`use`, `paper`, `record`, `fn`, `op`, `block`, `model`, `entry`, `variant`, `claim`, `space` or `names`"

Told = Diagnostic | tuple[Diagnostic, Repair | None] | None


def explain(s: Situation) -> tuple[Diagnostic, Repair | None]:
    """The diagnostic for the token at which the parser stopped, by the first reading that fits, and how to read on past it."""
    token = s.tokens[s.at]
    for reading in READINGS:
        if (told := reading(s, token)) is not None:
            return told if isinstance(told, tuple) else (told, None)
    raise AssertionError("the last reading fits always")


# ---------------------------------------------------------------- readings
def _too_deep(s: Situation, token: Token) -> Told:
    if len(s.states) <= s.run.max_stack:
        return None
    return Diagnostic("A0106", "the text nests too deeply", span(s, token), "this is too deep", help=("bind the inner parts to names",))


def _end_of_text(s: Situation, token: Token) -> Told:
    """The text ends while a bracket is open."""
    opened = s.opened()
    if s.names[token[0]] != "$END" or not opened:
        return None
    if opened[0].token[1] != "{" or (suspect := _suspect_brace(s)) is None:
        return _unclosed(s, opened[0], token)
    brace, closer = suspect
    told = _unclosed(s, opened[0], token)[0]
    label = Label(span(s, closer), "or is this meant for another `{` than its partner?")
    return replace(told, labels=(*told.labels, Label(span(s, brace), "its partner is this `{`, further right"), label))


def _suspect_brace(s: Situation) -> tuple[Token, Token] | None:
    """The first `}` that stands further left than the line of the `{` that it closes: (`{`, `}`)."""
    stack: list[Token] = []
    for token in s.tokens:
        if token[1] == "{":
            stack.append(token)
        elif token[1] == "}" and stack:
            partner = stack.pop()
            line = s.run.source.line(s.run.source.position(partner[2])[0])
            if s.leads_line(token) and s.column(token) < len(line) - len(line.lstrip()):
                return partner, token
    return None


def _assigning(s: Situation, token: Token) -> Told:
    """`x += 1` stops at its operator."""
    following = s.tokens[s.at + 1] if s.at + 1 < len(s.tokens) else token
    if token[1] not in OPERATORS or following[1] != "=" or following[2] != token[3] or not s.at:
        return None
    name = s.tokens[s.at - 1][1]
    sign = Span(s.run.source, token[2], following[3])
    rest = {t[1] for t in s.tokens[s.at + 2 : habits.line_of(s)[1]]}
    plain = token[1] == "+" and rest.isdisjoint(("if", "else", "?", "and", "or", "not", "in", "is", "==", "!=", "<", "<=", ">", ">=", *CHAINS))
    fixes = (Fix(f"write `= {name} +`", ((sign, f"= {name} +"),)),) if plain else ()  # of others, what follows may need brackets
    return Diagnostic("A0115", f"there is no `{token[1]}=`", sign, "operators do not assign", help=(f"write `{name} = {name} {token[1]} …`",),
                      fixes=fixes)


def _equals(s: Situation, token: Token) -> Told:
    """`if a = b`: a comparison is `==`."""
    if token[1] != "=":
        return None
    fixed = s.table.words.fixed
    if (after := s.would_take(s.prior, fixed["=="])) is None or s.take(after, s.tokens[s.at + 1]) is None:
        return None
    fix = Fix("compare with `==`", ((span(s, token), "=="),))
    fault = Diagnostic("A0115", "a comparison is written `==`", span(s, token), "`=` binds a name, which cannot happen here", fixes=(fix,))
    return fault, Repair(s.at, 1, [(fixed["=="], "==", token[2], token[3])])


def _apart(s: Situation, token: Token) -> Told:
    """`f (x)`: a call must touch what it calls."""
    if token[1] not in ("(", "[") or not s.at:
        return None
    before = s.tokens[s.at - 1]
    touching = s.table.ids["_CALL" if token[1] == "(" else "_INDEX"]
    what = "call" if token[1] == "(" else "index"
    if s.would_take(s.prior, touching) is None or before[1] == "}":
        return None
    if s.leads_line(token):
        return Diagnostic("A0117", f"a statement cannot start with `{token[1]}`", span(s, token), "every statement starts with a word",
                          labels=(Label(span(s, before), "the line above ends here"),),
                          help=(f"to {what} what stands above, move the `{token[1]}` up so that it touches it",))
    gap = Span(s.run.source, before[3], token[2])
    fix = Fix("remove the space", ((gap, ""),))
    fault = Diagnostic("A0110", f"the {what} does not touch `{short(before[1])}`", span(s, token), "there is a space before it",
                       help=(f"write `{short(before[1])}{token[1]}`",), fixes=(fix,))
    return fault, Repair(s.at, 1, [(touching, token[1], token[2], token[3])])


def _mixed(s: Situation, token: Token) -> Told:
    """`x + y |> f`, `a |> f >> g`: chains take operands only."""
    text = token[1]
    if text not in OPERATORS and text not in ("and", "or", "is"):
        return None
    start, operators = _segment(s)
    chains = [o for o in operators if o[1] in CHAINS]
    if not operators or not (chains or text in CHAINS) or start >= s.at:
        return None
    first = chains[0] if chains else operators[0]
    left = Span(s.run.source, s.tokens[start][2], s.tokens[s.at - 1][3])
    shown = left.text if len(left.text) <= 40 and "\n" not in left.text else "…"
    edits = ((Span(left.source, left.start, left.start), "("), (Span(left.source, left.end, left.end), ")"))
    fix = Fix(f"group the left side: `({shown}) {text} …`", edits)
    fault = Diagnostic("A0111", f"`{text}` cannot follow `{first[1]}` without parentheses", span(s, token), "chains and other operators do not mix",
                       (Label(span(s, first), f"`{first[1]}` here"),), help=("put parentheses around what belongs together",), fixes=(fix,))
    fixed = s.table.words.fixed
    grouped = [(fixed["("], "(", left.start, left.start), *s.tokens[start : s.at], (fixed[")"], ")", left.end, left.end)]
    return fault, Repair(start, s.at - start, grouped)


def _segment(s: Situation) -> tuple[int, list[Token]]:
    """The operands and operators before the misfit that belong to one expression: (index of its first token, its operators)."""
    depth, operators, i = 0, list[Token](), s.at - 1
    first = s.start(s.anchor()) or 0
    while i >= first:
        text = s.tokens[i][1]
        if text in (")", "]"):
            depth += 1
        elif depth:
            depth -= text in ("(", "[")
        elif text in STOPS:
            break
        elif text in OPERATORS or text in LOGIC:
            operators.insert(0, s.tokens[i])
        i -= 1
    return i + 1, operators


def _misspelt(s: Situation, token: Token) -> Told:
    """A name where a word of the language would let reading go on: here or just before."""
    for index in (s.at, s.at - 1):
        if index < 0 or s.names[s.tokens[index][0]] != "NAME":
            continue
        wrong = s.tokens[index]
        states = s.prior if index == s.at else s.before(index)
        if states is None:
            continue
        if (word := _nearest_word(s, states, index)) is not None:
            fix = Fix(f"write `{word}`", ((span(s, wrong), word),))
            fault = Diagnostic("A0108", f"`{wrong[1]}` is no word of this language", span(s, wrong), f"did you mean `{word}`?", fixes=(fix,))
            return fault, Repair(index, 1, [(s.table.words.word[word], word, wrong[2], wrong[3])])
    return None


def _nearest_word(s: Situation, states: list[int], index: int) -> str | None:
    """The word nearest to the name at `index` with which reading gets past the misfit."""
    wrong = s.tokens[index][1]
    near = sorted((d, word) for word in s.table.words.word
                  if len(word) > 1 and (d := distance(wrong.lower(), word)) <= (2 if len(word) > 4 else 1))
    for _, word in near:
        after = s.would_take(states, s.table.words.word[word])
        for token in s.tokens[index + 1 : max(s.at, index + 1) + 1]:
            after = None if after is None else s.take(after, token)
        if after is not None:
            return word
    return None


def _reserved(s: Situation, token: Token) -> Told:
    """`in = 3`: a reserved word where a name is needed."""
    name = s.table.words.name
    after = s.would_take(s.prior, name) if token[1] in s.table.words.reserved else None
    if after is None or s.take(after, s.tokens[s.at + 1]) is None:
        return None
    fault = Diagnostic("A0114", f"`{token[1]}` is a word of the language and cannot be a name", span(s, token), "a name is needed here",
                       help=(f"take another name, such as `{token[1]}_`",))
    return fault, Repair(s.at, 1, [(name, token[1], token[2], token[3])])


def _second_result(s: Situation, token: Token) -> Told:
    """`return x y`: what stands behind the first result on its line is another one."""
    first, last = s.start(s.anchor()), s.last(s.anchor())
    if first is None or first != s.at - 1 or not first or s.names[s.tokens[first][0]] != "NAME" or not isinstance(last, Return):
        return None
    before, name = s.tokens[first - 1], s.tokens[first]
    if before[1] == ";" or s.leads_line(name) or token[1] in ("=", ":"):
        return None
    fix = Fix("insert a comma", ((Span(s.run.source, before[3], before[3]), ","),))
    return Diagnostic("A0116", "a comma is missing between the results", span(s, name), f"`{short(name[1])}` starts another one",
                      (Label(span(s, before), "the result before ends here"),), fixes=(fix,))


def _bare(s: Situation, token: Token) -> Told:
    """`f(x)` alone: an expression is no statement."""
    first = s.start(s.anchor())
    if not s.in_body() or first is None or first != s.at - 1 or s.names[s.tokens[first][0]] != "NAME":
        return None
    name = s.tokens[first]
    if token[1] not in OPERATORS and (token[1] not in ("(", "[", ".") or name[3] != token[2]):
        return None
    return Diagnostic("A0117", "an expression alone is no statement", span(s, name), "nothing takes its value",
                      help=(f"bind it (`y = {name[1]}{'' if token[1] in ('(', '[', '.') else ' '}{token[1]}…`) or `return` it",))


def _starts_badly(s: Situation, token: Token) -> Told:
    """A statement that starts with a sign or a number; a brace too many; a statement outside of a body."""
    expected = s.expected(s.prior)
    if s.run.start != "start" or s.names[token[0]] == "$END":
        return None
    if s.in_body() and s.opens_declaration(s.at):
        return None
    if "RETURN" in expected and (s.leads_line(token) or s.tokens[s.at - 1][1] in (";", "{", "}")):
        return Diagnostic("A0117", f"a statement cannot start with `{short(token[1])}`", span(s, token), "every statement starts with a word",
                          help=("bind a name (`x = …`) or start with a word such as `return`, `param`, `for`",))
    if "USE" not in expected:
        return None
    if token[1] == "}":
        return Diagnostic("A0109", "this `}` closes nothing", span(s, token), "no brace is open here",
                          help=("remove it, or look for a `}` too many above",))
    if s.opens_statement(s.at):
        return Diagnostic("A0101", "a statement stands outside of any body", span(s, token), "no block, model or function is open here",
                          help=(f"a file is a list of declarations, which start with {DECLARATIONS}",))
    if token[1] == ";":
        fault = Diagnostic("A0101", "no `;` stands between declarations", span(s, token), "nothing to separate here",
                           fixes=(Fix("remove it", ((span(s, token), ""),)),))
        return fault, Repair(s.at, 1, [])
    return Diagnostic("A0101", f"no declaration starts with `{short(token[1])}`", span(s, token), "a declaration is needed here",
                      help=(f"declarations start with {DECLARATIONS}",))


def _bracket(s: Situation, token: Token) -> Told:
    """A bracket that is not closed before something that cannot stand in it, or a comma that is missing in one."""
    opened = s.opened()
    if not opened or s.names[token[0]] == "$END":
        return None
    inner = opened[0]
    fits = s.would_take(s.prior, s.table.words.fixed[PARTNER[inner.token[1]]]) is not None
    ends = token[1] in (")", "]", "}") or s.opens_declaration(s.at) or (s.leads_line(token) and s.opens_statement(s.at) and _left_of(s, token))
    if fits and ends and (inner.token[1] != "{" or s.opens_declaration(s.at) or token[1] in (")", "]")):
        return _unclosed(s, inner, token)
    if inner.token[1] == "{" and not inner.rules & {"set", "alternatives"}:
        return None
    comma = s.table.words.fixed[","]
    after = s.would_take(s.prior, comma)
    another = (comma, ",", token[3], token[3])  # as in `[1 2 3]`
    if after is None or s.take(after, token) is None or not (
            _goes_on(s, comma, s.tokens[s.at : s.at + 2]) or _goes_on(s, comma, [token, another, *s.tokens[s.at + 1 : s.at + 2]])):
        closed = s.would_take(s.prior, s.table.words.fixed[PARTNER[inner.token[1]]])
        return _unclosed(s, inner, token) if closed is not None and s.take(closed, token) is not None else None
    before = s.tokens[s.at - 1]
    if token[1] == "if":
        return Diagnostic("A0101", f"`if` cannot stand here in {describe_open(s, inner)}", span(s, token), "not expected", help=(CONDITIONAL,)), None
    fix = Fix("insert a comma", ((Span(s.run.source, before[3], before[3]), ","),))
    fault = Diagnostic("A0116", f"a comma is missing in {describe_open(s, inner)}", span(s, token), f"`{short(token[1])}` starts another item",
                       (Label(span(s, before), "the item before ends here"),), fixes=(fix,))
    return fault, Repair(s.at, 0, [(comma, ",", before[3], before[3])])


def _left_of(s: Situation, token: Token) -> bool:
    """Does the token stand no further right than the statement that is under way?"""
    first = s.start(s.anchor())
    return first is not None and s.column(token) <= s.column(s.tokens[first])


def _unclosed(s: Situation, opened: Open, token: Token) -> tuple[Diagnostic, Repair | None]:
    closer, before = PARTNER[opened.token[1]], s.tokens[s.at - 1]
    at_end = s.names[token[0]] == "$END"
    behind = opened.token[1] != "{" and token[1] not in (")", "]", "}") and before[1] != "," and s.leads_line(token)
    where = Span(s.run.source, before[3] - 1, before[3]) if at_end else span(s, before if behind else token)
    label = f"the text ends before its `{closer}`" if at_end else f"`{closer}` is missing {'behind' if behind else 'before'} this"
    fixes = (Fix(f"insert `{closer}`", ((Span(s.run.source, before[3], before[3]), closer),)),) if opened.token[1] != "{" else ()
    opener = Label(span(s, opened.token), f"opened by this `{opened.token[1]}`")
    fault = Diagnostic("A0109", f"{describe_open(s, opened)} is not closed", where, label, (opener,), fixes=fixes)
    kind = s.table.words.fixed[closer]
    after = s.would_take(s.prior, kind)
    mends = after is not None and s.take(after, token) is not None
    wrong_closer = token[1] in (")", "]", "}") and opened.token[1] != "{" and not mends
    if wrong_closer and after is not None and s.take(after, s.tokens[s.at + 1]) is not None:
        return fault, Repair(s.at, 1, [(kind, closer, token[2], token[3])])
    return fault, Repair(s.at, 0, [(kind, closer, before[3], before[3])]) if mends else None


LINKS = ("EQUAL", "COLON", "IN", "ARROW", "GIVES", "MAPS", "COMMA", "WITH", "OF", "OVER", "CARRY", "ELSE")


def _missing(s: Situation, token: Token) -> Told:
    """A single sign or word that is missing: with it reading goes on."""
    expected = s.expected(s.prior)
    following = s.tokens[s.at + 1 : s.at + 3]
    able = [name for name in LINKS if name in expected and _goes_on(s, s.table.ids[name], [token, *following])]
    if s.names[token[0]] == "STRING" and "COMMA" in able:
        able = ["COMMA"]  # the message of a `require`
    if len(able) != 1:
        return None
    kind, text = s.table.ids[able[0]], s.table.texts[able[0]]
    before = s.tokens[s.at - 1]
    apart = s.leads_line(token) and s.at > 0
    where = place(s, {able[0]})
    fix = Fix(f"insert `{text}`", ((Span(s.run.source, before[3], before[3]), text if text in ":," else " " + text),))
    fault = Diagnostic("A0101", f"`{text}` is missing" + (f" in {where}" if where else ""), span(s, before if apart else token),
                       f"`{text}` is needed {'after' if apart else 'before'} this", help=form(where), fixes=(fix,))
    return fault, Repair(s.at, 0, [(kind, text, before[3], before[3])])


def _goes_on(s: Situation, kind: int, tokens: list[Token]) -> bool:
    after = s.would_take(s.prior, kind)
    for token in tokens:
        after = None if after is None else s.take(after, token)
    return after is not None


def _brace_of_if(s: Situation) -> Token | None:
    """The brace around this place, if it is the innermost of what is open and that of an `if`."""
    depth, opening = 0, None
    for token in reversed(s.tokens[: s.at]):
        if opening is not None:
            if token[1] in ("if", "{", "}"):
                return opening if token[1] == "if" else None
            continue
        depth += (token[1] in ("}", ")", "]")) - (token[1] in ("{", "(", "["))
        if depth < 0:
            if token[1] != "{":
                return None
            opening = token
    return None


def _else(s: Situation, token: Token) -> Told:
    """`if a { x else { y }`"""
    opening = _brace_of_if(s) if token[1] == "else" else None
    if opening is None:
        return None
    brace = (s.table.words.fixed["}"], "}", token[2], token[2])
    fix = Fix("insert `}` before `else`", ((Span(s.run.source, token[2], token[2]), "} "),))
    fault = Diagnostic("A0109", "the braces of `if` are not closed", span(s, token), "`}` is missing before this",
                       (Label(span(s, opening), "opened by this `{`"),), fixes=(fix,))
    return fault, Repair(s.at, 0, [brace]) if _goes_on(s, brace[0], [token]) else None


def _other(s: Situation, token: Token) -> Told:
    """What was being written and what may stand here."""
    expected = s.expected(s.prior)
    where, choices = place(s, expected), options(expected)
    inside = f" in {where}" if where else ""
    end = s.names[token[0]] == "$END"
    apart = s.at > 0 and (end or s.leads_line(token))
    before = s.tokens[s.at - 1] if s.at else token
    if len(choices) == 1:
        return Diagnostic("A0101", f"{choices[0]} is missing{inside}", span(s, before if apart else token),
                          f"{choices[0]} is needed {'after' if apart else 'before'} this", help=form(where))
    got = f"the text ends{inside}" if end else f"`{short(token[1])}` cannot stand here{inside}"
    return Diagnostic("A0101", got, span(s, before if end else token), "more is needed" if end else "not expected",
                      help=(CONDITIONAL,) if token[1] in ("if", "else") and not s.leads_line(token) else
                      (f"here may stand {listing(choices)}", *form(where)))


READINGS: tuple[Callable[[Situation, Token], Told], ...] = (
    _too_deep, habits.myself, habits.lambda_, habits.prefixed, habits.layout, habits.choice, habit_signs.separator, habit_signs.imported,
    habit_signs.based, habit_signs.unpacked, habit_signs.grown, habit_signs.results, habit_signs.dictionary, habit_signs.chained,
    habit_headers.colon, habit_headers.one_list, habit_headers.short_function, by_indentation, no_partner, _end_of_text, habit_signs.binding,
    habit_signs.further, _assigning, by_lines, short_list, second_list, habit_signs.value, _equals, _apart, habit_comments.comment, habits.doubled,
    habits.word, _second_result, _bare, _mixed, habit_headers.foreign_type, _misspelt, _reserved, habits.path_of_module, _else, _starts_badly,
    habit_headers.untyped, habits.point, no_opening, _bracket, _missing, _other,
)
