"""Bodies and headers as Python and other languages have them: a `:` and indentation, one list of parameters, parameters without types."""
from __future__ import annotations

from archdsl.diagnostics.model import Diagnostic, Fix
from archdsl.records import replace
from archdsl.source import Span
from archdsl.syntax.describe import short, span
from archdsl.syntax.habits import TYPES, Told, form, line_of, token_of
from archdsl.syntax.lexer import Token
from archdsl.syntax.recover import PARTNER, Repair, Situation

HEADERS = ("if", "for", "while", "else", "elif", "match", "case")
LITERALS = {"INT": "int", "NUMBER": "float", "STRING": "str", "TRUE": "bool", "FALSE": "bool"}


def colon(s: Situation, token: Token) -> Told:
    """`if flag:` and an indented body."""
    if token[1] != ":" or s.would_take(s.prior, s.table.words.fixed["{"]) is None:
        return None
    low, _ = line_of(s)
    word = next((i for i in range(s.at - 1, low - 1, -1) if s.tokens[i][1] in HEADERS), low)
    head = s.tokens[word][1]
    help = (f"write `{head} … {{ … }}`" if head != "else" else "write `else { … }`",)
    fault = Diagnostic("A0101", "a body stands in braces", span(s, token), "`{` is needed here, and `}` behind the body", help=help)
    if s.tokens[s.at + 1][1] == "{":
        where = Span(s.run.source, token[2], token[3])
        return replace(fault, label="the `{` behind it is enough", fixes=(Fix("remove the `:`", ((where, ""),)),)), Repair(s.at, 1, [])
    made, edits, end = _braces(s, s.at)
    if not made:
        return None
    source, closing = s.run.source, s.tokens[end]
    begins = source.text.rfind("\n", 0, token[2]) + 1
    if head not in ("match", "case") and closing[1] == "}" and s.leads_line(closing) and s.leads_line(s.tokens[s.at + 1]) \
            and source.text[source.text.rfind("\n", 0, closing[2]) + 1 : closing[2]] == _margin(source.text, begins):  # only the `{` became a `:`
        put = Span(source, s.tokens[s.at - 1][3], token[3])
        return replace(fault, label="`{` is needed here", fixes=(Fix("write `{`", ((put, " {"),)),)), Repair(s.at, 1, [made[0]])
    if head in ("match", "case"):  # arms are no statements: words can say it, braces alone do not mend it
        return replace(fault, help=("`match value { 4 => …; _ => … }`: an arm is a pattern, `=>` and what it gives",))
    joined: dict[tuple[int, int], str] = {}
    for start, stop, new in edits:
        joined[start, stop] = joined.get((start, stop), "") + new
    changes = tuple((Span(s.run.source, start, stop), new) for (start, stop), new in sorted(joined.items()))
    return replace(fault, fixes=(Fix("put braces around it", changes),)), Repair(s.at, end - s.at, made)


def _margin(text: str, begins: int) -> str:
    """What indents the line that begins there."""
    return text[begins : begins + len(text[begins:]) - len(text[begins:].lstrip(" \t"))]


def _braces(s: Situation, at: int) -> tuple[list[Token], list[tuple[int, int, str]], int]:
    """The tokens from a `:` on with braces around the body that follows it and around those inside, the edits, and where the body ends."""
    tokens, source = s.tokens, s.run.source
    row = source.position(tokens[at][2])[0]
    text = source.text
    begins = text.rfind("\n", 0, tokens[at][2]) + 1
    indent = _margin(text, begins)
    margin = len(indent)
    same = at + 1 < len(tokens) and bool(tokens[at + 1][1]) and source.position(tokens[at + 1][2])[0] == row
    made, edits, i = [token_of(s, "{", tokens[at])], [(*tokens[at][2:], " {")], at + 1
    while i < len(tokens) and tokens[i][1]:
        t = tokens[i]
        line, column = source.position(t[2])
        if same and line != row or not same and s.leads_line(t) and column - 1 <= margin:
            break
        if t[1] == ":" and _is_header(s, i, at + 1):
            inner, more, i = _braces(s, i)
            made += inner
            edits += more
            continue
        made.append(t)
        i += 1
    if i == at + 1:
        return [], [], at
    last = tokens[i - 1]
    made.append((s.table.words.fixed["}"], "}", last[3], last[3]))
    close = " }" if same else f"\n{indent}}}"
    following = tokens[i]
    if following[1] in ("else", "elif") and source.position(following[2])[1] - 1 == margin:  # the other branches belong to it
        stop = next((j for j in range(i, len(tokens)) if tokens[j][1] == ":"), None)
        if stop is not None and source.position(tokens[stop][2])[0] == source.position(following[2])[0]:
            inner, more, end = _braces(s, stop)
            words = [token_of(s, "else", following), token_of(s, "if", following)] if following[1] == "elif" else [following]
            head = "else if" if following[1] == "elif" else "else"
            if not text[last[3] : following[2]].strip():
                edits.append((last[3], following[3], f"{close} {head}"))
            else:  # a comment stands between
                edits += [(last[3], last[3], close), (*following[2:], head)]
            return [*made, *words, *tokens[i + 1 : stop], *inner], [*edits, *more], end
    return made, [*edits, (last[3], last[3], close)], i


def short_function(s: Situation, token: Token) -> Told:
    """`fn f(n: int) -> int = n + 1`"""
    start = s.start(s.anchor())
    if token[1] != "=" or s.in_body() or start is None or s.tokens[start][1] != "fn" or s.would_take(s.prior, s.table.words.fixed["{"]) is None:
        return None
    end = next((i for i in range(s.at + 1, len(s.tokens)) if not s.tokens[i][1] or s.leads_line(s.tokens[i])), s.at + 1)
    fault = Diagnostic("A0101", "the body of a function stands in braces", span(s, token), "`{` is needed here",
                       help=("`fn twice(n: int) -> int { return 2 * n }`",))
    if end == s.at + 1 or s.tokens[end - 1][1] in PARTNER:  # nothing follows, or more than a line
        return fault
    last = s.tokens[end - 1]
    edits = ((span(s, token), "{ return"), (Span(s.run.source, last[3], last[3]), " }"))
    made = [token_of(s, "{", token), token_of(s, "return", token), *s.tokens[s.at + 1 : end], (s.table.words.fixed["}"], "}", last[3], last[3])]
    return replace(fault, fixes=(Fix("write `{ return … }`", edits),)), Repair(s.at, end - s.at, made)


def _is_header(s: Situation, at: int, low: int) -> bool:
    """Whether a `:` outside of brackets ends what starts as a Python statement with a body does, at `low`, on its line or behind a label."""
    depth = 0
    for i in range(at - 1, low - 1, -1):
        text = s.tokens[i][1]
        depth += (text in (")", "]", "}")) - (text in PARTNER)
        if depth < 0:
            return False
        if text in HEADERS and (i == low or s.leads_line(s.tokens[i]) or s.tokens[i - 1][1] == ":"):
            return True
        if s.leads_line(s.tokens[i]):
            return False
    return False


def one_list(s: Situation, token: Token) -> Told:
    """`block F(x: [B, d]) -> …`: the list of hyper values is missing, or runs into that of tensors."""
    if token[1] not in ("->", ":", "{") or not s.at or s.tokens[s.at - 1][1] != ")" or s.in_body():
        return None
    start = s.start(s.anchor())
    if start is None or s.tokens[start][1] not in ("block", "model", "wrap"):
        return None
    name = next((i for i in range(start, s.at) if s.tokens[i + 1][1] == "("), None)
    if name is None or s.would_take(s.prior, s.table.words.fixed["("]) is None:
        return None
    tensor = _first_tensor(s, name + 2, s.at - 1)
    if tensor is None:
        return None
    source, opening = s.run.source, s.tokens[name + 1]
    call, lpar, closed = (s.table.ids["_CALL"], "(", *opening[2:]), token_of(s, "(", opening), token_of(s, ")", opening)
    if tensor == name + 2:
        edit, repair = (Span(source, opening[2], opening[2]), "()"), Repair(name + 1, 1, [call, closed, call])
    else:
        comma = s.tokens[tensor - 1]
        edit = (Span(source, comma[2], s.tokens[tensor][2]), ")(")
        repair = Repair(tensor - 1, 1, [closed, lpar if s.would_take(s.prior, call[0]) is None else call])
    what = f"`{s.tokens[start][1]} {s.tokens[name][1]}`" if s.tokens[start][1] != "wrap" else f"`{s.tokens[name][1]}`"
    fault = Diagnostic("A0101", f"the header of {what} has one list of parameters", span(s, s.tokens[name]), "two are needed",
                       help=("the first list holds hyper values, the second tensors: `F(d: int)(x: [B, T, d])`",),
                       fixes=(Fix(f"insert `{edit[1]}`", (edit,)),))
    return fault, repair


def _first_tensor(s: Situation, low: int, high: int) -> int | None:
    """The first parameter of a list whose type is a shape, where all behind it are such too."""
    depth, found, begins = 0, None, low
    for i in range(low, high):
        text = s.tokens[i][1]
        if depth == 0 and text == ":" and i == begins + 1:
            following = s.tokens[i + 1][1]
            shape = following == "[" or s.tokens[i + 2][1] == "[" and following != "list"
            if found is not None and not shape:
                return None
            found = begins if found is None and shape else found
        depth += (text in PARTNER) - (text in (")", "]", "}"))
        if depth == 0 and text == ",":
            begins = i + 1
    return found


def untyped(s: Situation, token: Token) -> Told:
    """`d = 4` in a list of parameters."""
    following = s.tokens[s.at + 1] if s.at + 1 < len(s.tokens) else token
    kind = LITERALS.get(s.names[following[0]])
    if token[1] != "=" or kind is None or not s.at or "COLON" not in s.expected(s.prior):
        return None
    opened = s.opened()
    if s.in_body() or not opened or not opened[0].rules & {"params"}:
        return None
    name = s.tokens[s.at - 1]
    put = Span(s.run.source, name[3], token[3])
    fault = Diagnostic("A0101", f"the parameter `{name[1]}` has no type", span(s, name), "a type is needed behind this", help=form("a parameter"),
                       fixes=(Fix(f"write `{name[1]}: {kind} = {short(following[1])}`", ((put, f": {kind} ="),)),))
    word = s.table.ids["DTYPE"]  # whose text is the token's; a name's would be read from the file, where `=` stands
    return fault, Repair(s.at, 0, [token_of(s, ":", token), (word, kind, *token[2:])])


def foreign_type(s: Situation, token: Token) -> Told:
    """`Optional[int]`, `tuple[int, int]`, `Union[int, str]`, `Literal["a", "b"]`"""
    before = s.tokens[s.at - 1] if s.at else token
    if token[1] != "[" or before[1] not in TYPES or before[3] != token[2]:
        return None
    closing = next((i for i in range(s.at + 1, len(s.tokens)) if s.tokens[i][1] in ("[", "]", "{", "")), s.at)
    fixes, repair = (), None
    made = _type_here(s, before[1], s.tokens[s.at + 1 : closing], s.tokens[closing]) if s.tokens[closing][1] == "]" else []
    if made:
        signs = {",": ", ", "|": " | "}
        new = "".join(signs.get(t[1], t[1]) for t in made)
        fixes = (Fix(f"write `{new}`", ((Span(s.run.source, before[2], s.tokens[closing][3]), new),)),)
        repair = Repair(s.at - 1, closing + 2 - s.at, made)
    fault = Diagnostic("A0108", f"`{before[1]}` is no type of this language", span(s, before), "not known", help=(TYPES[before[1]],), fixes=fixes)
    return fault, repair


def _with_double_quotes(s: Situation, token: Token) -> Token:
    """A string in single quotes was read as an empty one."""
    written = s.run.source.text[token[2] + 1 : token[3] - 1]
    return (token[0], f'"{written}"', *token[2:]) if token[1] == '""' and not {'"', "\\"} & {*written} else token


def _type_here(s: Situation, word: str, inner: list[Token], closing: Token) -> list[Token]:
    """The tokens of a type that another language writes `word[inner]`, none where it has no like here."""
    items, commas = [_with_double_quotes(s, t) for t in inner[::2]], inner[1::2]
    kinds = {s.names[t[0]] for t in items}
    if any(t[1] != "," for t in commas) or not kinds <= {"NAME", "DTYPE", "STRING"} or any(t[1] in (*TYPES, '""') for t in items):
        return []
    if word == "Union" and len(items) > 1 and (none := [t for t in items if t[1] == "None"]):
        word, items = "Optional" if len(items) - len(none) == 1 else "", [t for t in items if t not in none]
    if word == "Optional" and len(items) == 1:
        return [items[0], token_of(s, "?", closing)]
    between = token_of(s, "," if word in ("Tuple", "tuple") else "|", closing)
    listed = [t for item in items for t in (between, item)][1:]
    if word in ("Tuple", "tuple") and len(items) > 1:
        return [token_of(s, "(", closing), *listed, token_of(s, ")", closing)]
    return listed if word == "Union" and items or word == "Literal" and kinds == {"STRING"} else []
