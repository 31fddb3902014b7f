"""Brackets without a partner: which one it is and where the other was meant, told from the indentation and from what would let reading go on."""
from __future__ import annotations

from archdsl.diagnostics.model import Diagnostic, Fix, Label
from archdsl.source import Span
from archdsl.syntax.describe import describe_open, place, span
from archdsl.syntax.lexer import Token
from archdsl.syntax.recover import FAR, PARTNER, Open, Repair, Situation

AHEAD = 4  # tokens behind the misfit that a repaired text has to read


def by_indentation(s: Situation, token: Token) -> tuple[Diagnostic, Repair] | None:
    """A `{` whose block ends, as its indentation has it, without a `}`."""
    opened = s.opened()
    start = s.declaration()
    if start is None or not any(o.token[1] == "{" for o in opened):
        return None
    found = _first_unclosed(s, start)
    if found is None:
        return None
    brace, at = found
    if s.tokens[at - 1][1] == ",":  # what ends with it is an item of the list around
        at -= 1
    before, following = s.tokens[at - 1], s.tokens[at]
    closer = (s.table.words.fixed["}"], "}", before[3], before[3])
    if not s.reads([*s.tokens[start:at], closer, *s.tokens[at : max(s.at, at) + AHEAD]], start):
        return None
    owner = next((o for o in opened if o.token is brace or o.token == brace), None)
    if owner is not None and owner is opened[0] and _is_set(s, owner) and (told := short_list(s, token)) is not None:
        return told
    text = s.run.source.text
    line = text.rfind("\n", 0, brace[2]) + 1
    margin = text[line : line + len(text[line:]) - len(text[line:].lstrip(" \t"))]
    header = " ".join(text[line : brace[2]].split())
    what = describe_open(s, owner) if owner is not None else f"the body of `{header}`" if len(header) <= 60 else "this body"
    alone = text.find("\n", brace[3], s.tokens[s.tokens.index(brace) + 1][2]) >= 0  # nothing follows the brace on its line
    end = text.find("\n", before[3])
    where = (end if end >= 0 else len(text)) if alone else before[3]
    new = f"\n{margin}}}" if alone else "}" if following[1] == "," or brace[3] == before[3] or _is_set(s, owner) else " }"
    fix = Fix("insert `}`", ((Span(s.run.source, where, where), new),))
    ends = s.names[following[0]] == "$END"
    label = Label(span(s, before if ends else following), f"`}}` is missing {'behind' if ends else 'before'} this")
    return Diagnostic("A0109", f"{what} is not closed", span(s, brace), "this `{` has no `}`", (label,), fixes=(fix,)), Repair(at, 0, [closer])


def _is_set(s: Situation, owner: Open | None) -> bool:
    return owner is not None and bool(owner.rules & {"set", "alternatives"})


def _first_unclosed(s: Situation, start: int) -> tuple[Token, int] | None:
    """The first `{` of a declaration whose block a line follows that stands no further right than the brace's own; that line's first token."""
    stack: list[tuple[Token, int]] = []
    source, tokens = s.run.source, s.tokens
    margin, row = 0, -1
    for i in range(start, min(s.at + 1, len(tokens))):
        token = tokens[i]
        line, column = source.position(token[2])
        if line != row:
            row, margin = line, column - 1
            if stack and s.names[token[0]] != "$END":
                brace, indent = stack[-1]
                if margin < indent or margin == indent and token[1] not in ("}", ")", "]"):
                    return brace, i
            elif stack:
                return stack[-1][0], i
        if token[1] == "{":
            stack.append((token, margin))
        elif token[1] == "}" and stack:
            stack.pop()
    return None


def positions(s: Situation, opened: Open) -> list[int]:
    """The indices of tokens of the statement in front of which the partner of a bracket would let reading go on, the first one first."""
    start = s.start(s.anchor())
    if start is None:
        return []
    kind = s.table.words.fixed[PARTNER[opened.token[1]]]
    first = s.index_of(opened.token[2])
    out: list[int] = []
    depth = 0
    for at in range((first if first is not None else s.at) + 1, s.at + 1):
        behind = s.tokens[at - 1]
        depth += (behind[1] in "([{") - (behind[1] in ")]}") if at - 1 != first else 0
        if depth == 0 and s.reads([*s.tokens[start:at], (kind, PARTNER[opened.token[1]], behind[3], behind[3]), *s.tokens[at : s.at + AHEAD]], start):
            out.append(at)
    return out


def short_list(s: Situation, token: Token) -> tuple[Diagnostic, Repair] | None:
    """An index, a set or alternatives that should have ended earlier: what follows reads well behind its bracket, and not in it."""
    opened = s.opened()
    if not opened or not _alone(s, opened[0]) or opened[0].token[1] == "{" and not _is_set(s, opened[0]) and not _is_number(opened[0]):
        return None
    found = [at for at in positions(s, opened[0]) if s.tokens[at - 1][1] != ","]
    if not found or token[1] == PARTNER[opened[0].token[1]]:
        return None
    if opened[0].token[1] == "(":
        found.sort(key=lambda at: _likely(s, at))
    elif opened[0].rules & {"list", "comprehension", "shape"}:
        found.reverse()
        _, end = _line(s, opened[0].token[2])
        found.sort(key=lambda at: not s.tokens[at - 1][2] < end <= s.tokens[at + (s.tokens[at][1] == ",")][2])  # what its line ends with
    at, closer = found[0], PARTNER[opened[0].token[1]]
    ends = [s.tokens[i - 1][3] for i in found[:3]]
    words = [s.tokens[i - 1][1] for i in found]
    fixes = tuple(Fix(f"insert `{closer}`" + (_behind(s, words, i - 1) if len(ends) > 1 else ""), ((Span(s.run.source, end, end), closer),))
                  for i, end in zip(found, ends))
    label = Label(span(s, opened[0].token), f"opened by this `{opened[0].token[1]}`")
    others = tuple(Fix(f"insert `{closer}`{_behind(s, words, i - 1)}", ((Span(s.run.source, end, end), closer),))
                   for i in found[3:] for end in (s.tokens[i - 1][3],))
    fault = Diagnostic("A0109", f"{describe_open(s, opened[0])} is not closed", span(s, s.tokens[at]), f"`{closer}` is missing before this", (label,),
                       fixes=fixes, rivals=others)
    return fault, Repair(at, 0, [(s.table.words.fixed[closer], closer, ends[0], ends[0])])


def _behind(s: Situation, words: list[str], index: int) -> str:
    """Where a bracket would be put, of several places behind these words."""
    token = s.tokens[index]
    return f" behind `{token[1]}`" + (f" in line {s.run.source.position(token[2])[0]}" if words.count(token[1]) > 1 else "")


def by_lines(s: Situation, token: Token) -> tuple[Diagnostic, Repair] | None:
    """A bracket with an item on its line, closed by one that leads a line: which closes the bracket around, with items on lines of their own."""
    opened, start = s.opened(), s.start(s.anchor())
    first = s.index_of(opened[0].token[2]) if opened and opened[0].token[1] != "{" else None
    if first is None or start is None or s.at > first + FAR:
        return None
    tokens, stack = s.tokens, list[int]()
    for i in range(first, s.at):
        if tokens[i][1] in ("(", "[", "{"):
            stack.append(i)
        elif tokens[i][1] in (")", "]", "}"):
            opener = stack.pop() if stack else first
            _, end = _line(s, tokens[opener][2])
            if opener != first and tokens[i][1] != "}" and s.leads_line(tokens[i]) and tokens[opener + 1][2] <= end < tokens[i][2]:
                return _closed_on_its_line(s, start, opener, end)
    return None


def _closed_on_its_line(s: Situation, start: int, opener: int, end: int) -> tuple[Diagnostic, Repair] | None:
    tokens = s.tokens
    sign = tokens[opener][1]
    closer = PARTNER[sign]
    kind, depth, found = s.table.words.fixed[closer], 0, list[int]()
    for at in range(opener + 1, s.at):
        behind = tokens[at - 1]
        if behind[2] > end:
            break
        depth += (behind[1] in ("(", "[", "{")) - (behind[1] in (")", "]", "}")) if at - 1 != opener else 0
        if depth == 0 and behind[1] != "," and s.reads([*tokens[start:at], (kind, closer, behind[3], behind[3]), *tokens[at : s.at + AHEAD]], start):
            found.append(at)
    if not found:
        return None
    found.sort(key=lambda at: _likely(s, at))
    fixes = tuple(Fix(f"insert `{closer}`" + (f" behind `{tokens[at - 1][1]}`" if len(found) > 1 else ""),
                      ((Span(s.run.source, tokens[at - 1][3], tokens[at - 1][3]), closer),)) for at in found[:3])
    at, before = found[0], tokens[found[0] - 1]
    touched = tokens[opener - 1][1] if tokens[opener - 1][3] == tokens[opener][2] and tokens[opener - 1][1].isidentifier() else ""
    label = Label(span(s, tokens[opener]), f"this `{sign}` is not closed on its line")
    fault = Diagnostic("A0109", f"`{touched}{sign}` is not closed", span(s, tokens[at]), f"`{closer}` is missing before this", (label,), fixes=fixes)
    return fault, Repair(at, 0, [(kind, closer, before[3], before[3])])


def second_list(s: Situation, token: Token) -> tuple[Diagnostic, Repair] | None:
    """`block F(n: int = 8(x: …)`: the list that is meant to be the second one is read as that of a call in the first, which is not closed."""
    opened = s.opened()
    if len(opened) < 2 or opened[0].token[1] != "(" or opened[1].token[1] != "(":
        return None
    at, source = s.index_of(opened[0].token[2]), s.run.source
    if not at or at not in positions(s, opened[1]):
        return None
    before, closer = s.tokens[at - 1], (s.table.words.fixed[")"], ")", s.tokens[at - 1][3], s.tokens[at - 1][3])
    fix = Fix("insert `)`", ((Span(source, before[3], before[3]), ")"),))
    fault = Diagnostic("A0109", f"{describe_open(s, opened[1])} is not closed", span(s, s.tokens[at]), "`)` is missing before this",
                       (Label(span(s, opened[1].token), "opened by this `(`"),), fixes=(fix,))
    return fault, Repair(at, 0, [closer])


def _alone(s: Situation, opened: Open) -> bool:
    """Whether nothing on its line closes a bracket."""
    first = s.index_of(opened.token[2])
    (_, end), depth = _line(s, opened.token[2]), 0
    start = first if first is not None else s.at
    for i in range(start, len(s.tokens)):
        token = s.tokens[i]
        if i > start + FAR:
            return False
        if token[2] > end:
            break
        depth += (token[1] == opened.token[1]) - (token[1] == PARTNER[opened.token[1]])
        if depth <= 0:
            return False
    following = s.tokens[first + 1] if first is not None and first + 1 < len(s.tokens) else None
    return following is not None and following[2] <= end  # else its items stand on lines of their own


def _line(s: Situation, place: int) -> tuple[int, int]:
    """Where the line of a place begins and ends."""
    text = s.run.source.text
    end = text.find("\n", place)
    return text.rfind("\n", 0, place) + 1, end if end >= 0 else len(text)


def _likely(s: Situation, at: int) -> tuple[int, int]:
    """How likely a round bracket ends in front of a token: before the `as` of a call, before its second list, at the misfit, elsewhere."""
    before, following = s.tokens[at - 1][1], s.tokens[at][1]
    named, applied = following == "as" and before != ")", following == "(" and not before[:1].isupper()
    return 0 if named else 1 if applied else 2 if at == s.at else 3, -at


def no_partner(s: Situation, token: Token) -> tuple[Diagnostic, Repair] | None:
    """A `}` on this line whose `{` is missing on it."""
    source, tokens = s.run.source, s.tokens
    begins, ends = _line(s, token[2])
    first = last = s.at
    while first and tokens[first - 1][2] >= begins and first > s.at - FAR:
        first -= 1
    while last + 1 < len(tokens) and tokens[last + 1][2] <= ends and last < s.at + FAR:
        last += 1
    depth, stray = 0, None
    for i in range(first, last + 1):
        depth += (tokens[i][1] == "{") - (tokens[i][1] == "}")
        if depth < 0:
            stray = i
            break
    start = s.declaration()
    if stray is None or start is None or stray == first:
        return None
    if start > first and (decl := s.declared_before()) is not None:
        start = decl
    brace = s.table.words.fixed["{"]
    for at in range(min(stray, s.at), max(first, start), -1):
        before = tokens[at - 1]
        opener = (brace, "{", tokens[at][2], tokens[at][2])
        if tokens[at][1] in "([" and tokens[at][2] == before[3]:
            continue  # a call stays one
        if s.reads([*tokens[start:at], opener, *tokens[at : last + 1 + AHEAD]], start):
            gap = " " if tokens[at][2] == before[3] + 2 and source.text[before[3]] == " " else ""
            where = before[3] + len(gap) if gap else tokens[at][2]
            body = not gap and source.text[before[3] : before[3] + 1] == " " and source.text[tokens[stray][2] - 1] == " "
            fix = Fix("insert `{`", ((Span(source, where, where), "{ " if body else "{"),))
            label = Label(span(s, tokens[stray]), "this `}` has no `{`")
            fault = Diagnostic("A0109", "a `{` is missing", span(s, tokens[at]), "`{` is needed before this", (label,), fixes=(fix,))
            return fault, Repair(at, 0, [opener])
    return None


def _is_number(opened: Open) -> bool:
    """`layers.{2 * i}`"""
    return not opened.rules & {"body", "branch", "match_stmt", "match_expr", "phase_expr", "choose", "model_entries", "island"}


def _surplus(s: Situation) -> bool:
    """Whether the declaration under way, up to the next one at the margin, closes more braces than it opens."""
    start = s.declaration()
    depth = 0
    for i in range(start if start is not None else s.at, min(len(s.tokens), s.at + FAR)):
        token = s.tokens[i]
        if i > s.at and s.opens_declaration(i) and s.column(token) == 0:
            break
        depth += (token[1] == "}") - (token[1] == "{")
    return depth > 0


def no_opening(s: Situation, token: Token) -> tuple[Diagnostic, Repair] | None:
    """A block without its `{`."""
    brace = s.table.words.fixed["{"]
    after = s.would_take(s.prior, brace) if _surplus(s) else None
    for t in s.tokens[s.at : s.at + AHEAD] if after is not None else ():
        after = None if after is None else s.take(after, t)
        if t[1] == "}":
            break
    if after is None or not s.at:
        return None
    before = s.tokens[s.at - 1]
    where = place(s, {"LBRACE"})
    apart = s.leads_line(token)
    text = s.run.source.text
    new = " {" if text[before[3] : before[3] + 1].isspace() else " { "
    fix = Fix("insert `{`", ((Span(s.run.source, before[3], before[3]), new),))
    fault = Diagnostic("A0101", "`{` is missing" + (f" in {where}" if where else ""), span(s, before if apart else token),
                       f"`{{` is needed {'after' if apart else 'before'} this", fixes=(fix,))
    return fault, Repair(s.at, 0, [(brace, "{", before[3], before[3])])
