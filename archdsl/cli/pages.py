"""The pages of `archdsl explain`: one for everything that has a name or a number."""
from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, TypedDict

from archdsl.diagnostics.codes import Code, all_codes
from archdsl.diagnostics.model import ArchError, error
from archdsl.source import NOWHERE
from archdsl.syntax import tree

if TYPE_CHECKING:
    from archdsl.declared import Declared
    from archdsl.ops.registry import Op
    from archdsl.passes.registry import Pass

WIDTH = 100


class Page(TypedDict):
    """`kind` is code, op, block, pass, report, task, strategy, evaluator, proxy, function, mask, initialiser, module or word; `text` is the whole
    page."""

    topic: str
    kind: str
    text: str


def find_page(topic: str) -> Page:
    """The page about a code, an op, a block, a module, a pass, a report, a task, a strategy, an evaluator, a proxy or a word of the language. Raises
    A0651 with the nearest names."""
    code = topic.strip("[]").upper()
    if re.fullmatch(r"A\d{4}", code):
        page = all_codes().get(code)
        if page:
            return {"topic": code, "kind": "code", "text": code_page(code, page)}
        raise _unknown(f"there is no diagnostic {code}", code, list(all_codes()))
    from archdsl.modules import library_exports
    from archdsl.ops.registry import OPS, find, installed
    from archdsl.search.proxies.registry import PROXIES

    op = find(topic)
    if op:
        also = [w["text"] for w in (_word(topic),) if w]  # `max` is a function of hyper values too
        also += [declared_page(p, "proxy") for p in (PROXIES.find(topic),) if p]  # `l2_norm` is a proxy too
        return {"topic": topic, "kind": "op", "text": "\n\n".join([op_page(op), *also])}
    exports = library_exports()
    if topic in exports:
        return {"topic": topic, "kind": "block", "text": block_page(topic, exports[topic])}
    from archdsl.passes.registry import PASSES
    from archdsl.reports.registry import REPORTS
    from archdsl.tasks.registry import TASKS

    found = PASSES.find(topic)
    if found:
        return {"topic": topic, "kind": "pass", "text": pass_page(found)}
    from archdsl.search.registry import EVALUATORS, STRATEGIES

    for table in (REPORTS, TASKS, STRATEGIES, EVALUATORS, PROXIES):
        if declared := table.find(topic):
            return {"topic": topic, "kind": table.kind, "text": declared_page(declared, table.kind)}
    if installed(topic):
        return {"topic": topic, "kind": "op", "text": op_page(OPS[topic])}
    other = _word(topic)
    if other:
        return other
    raise _unknown(f"nothing is called `{topic}`", topic,
                   [*sorted(OPS), *exports, *PASSES, *REPORTS, *TASKS, *STRATEGIES, *EVALUATORS, *PROXIES, *_words()])


def _word(topic: str) -> Page | None:
    """The page about a function of hyper values, a mask, an initialiser, a module of the library or any other word."""
    from archdsl.cli.words import INITIALS, WORDS, arguments, initial
    from archdsl.elaborate.library import FUNCTIONS
    from archdsl.modules import library_modules

    masks = _masks()
    if topic in FUNCTIONS:
        found = FUNCTIONS[topic]
        return {"topic": topic, "kind": "function", "text": f"function {topic}({arguments(found.call)})\n\n{_filled(found.doc)}\n\nof hyper values"}
    if topic in masks:
        return {"topic": topic, "kind": "mask", "text": f"mask {masks[topic][0]}\n\nlets through: {masks[topic][1]}"}
    if topic in INITIALS:
        return {"topic": topic, "kind": "initialiser", "text": f"initialiser {initial(topic)}\n\n{INITIALS[topic]}"}
    if topic in library_modules():
        return {"topic": topic, "kind": "module", "text": module_page(topic)}
    if topic in WORDS:
        example, meaning = WORDS[topic]
        return {"topic": topic, "kind": "word", "text": f"{topic}\n\n{textwrap.fill(meaning, WIDTH)}\n\n    {example}"}
    return None


def _masks() -> dict[str, tuple[str, str]]:
    from archdsl.cli.words import MASKS

    return {text.split("(")[0]: (text, told) for text, told in MASKS.items()}


def _words() -> list[str]:
    from archdsl.cli.words import INITIALS, WORDS
    from archdsl.elaborate.library import FUNCTIONS
    from archdsl.modules import library_modules

    return [*FUNCTIONS, *_masks(), *INITIALS, *library_modules(), *WORDS]


def module_page(name: str) -> str:
    """What a module of the library declares, each with the first sentence of its documentation."""
    from archdsl.modules import library_tree

    decls = [(d.name, d.doc or "") for d in library_tree(name).decls if isinstance(d, (tree.Block, tree.Record, tree.Fn))]
    width = max(len(n) for n, _ in decls)
    lines = [textwrap.fill(f"{n:<{width}}  {sentence(doc)}", WIDTH, initial_indent="  ", subsequent_indent=" " * (width + 4)) for n, doc in decls]
    return f"module {name}\n\n" + "\n".join(lines) + f"\n\n    use {name} {{ {decls[0][0]} }}"


def sentence(doc: str) -> str:
    """The first sentence of a documentation, whole however its lines are broken."""
    text = " ".join(doc.split("\n\n")[0].split())
    return text[:at + 1] if (at := text.find(". ")) >= 0 else text


DECIDES = {False: "decides: what becomes of the graph, from weights or data", True: "decides: values of weights; the graph is known before"}


def pass_page(rule: Pass) -> str:
    """Signature, meaning, contract, and the facts that order passes."""
    order = {"requires": rule.requires, "provides": rule.provides, "destroys": rule.destroys}
    facts = [f"contract: {rule.told()}", *(f"{word}: {', '.join(names)}" for word, names in order.items() if names)]
    facts += [f"uses: {', '.join(rule.using)}"] if rule.using else []
    facts += [DECIDES[rule.fills]] if rule.decider is not None else []
    facts += [f"source: {rule.source}"] if rule.source else []
    return f"pass {rule.signature}\n\n{_filled(rule.doc)}\n\n" + "\n".join(textwrap.fill(f, WIDTH, subsequent_indent="  ") for f in facts)


def declared_page(rule: Declared, kind: str) -> str:
    """Signature, meaning of the options and of the columns; of a task, what is asked."""
    return f"{kind} {rule.signature}\n\n{_filled(rule.doc)}" + (f"\n\nsource: {rule.source}" if rule.source else "")


def _filled(doc: str) -> str:
    """Paragraphs of a docstring at one width."""
    return "\n\n".join(textwrap.fill(" ".join(p.split()), WIDTH) for p in textwrap.dedent(doc).split("\n\n"))


def op_page(op: Op) -> str:
    """Signature, meaning and the facts from which the compiler derives its analyses."""
    facts = [f"gradient: {op.grad.replace('_', ' ')}", *(f"axis {axis}: {role}" for axis, role in op.roles.items())]
    facts += ["draws random numbers"] * op.random + ["differs between training and evaluation"] * op.phase
    return f"op {op.signature}\n\n{textwrap.dedent(op.doc)}\n\n" + "\n".join(facts)


def block_page(name: str, module: str) -> str:
    """The head of a declaration of the library, with its documentation and how to import it."""
    from archdsl.modules import library_source
    from archdsl.syntax.parser import parse

    source = library_source(module)
    assert source is not None
    decl = next(d for d in parse(source).decls if getattr(d, "name", None) == name)
    text = decl.span.text.split(" {\n")[0] if getattr(decl, "body", None) else decl.span.text
    doc = getattr(decl, "doc", "")
    return "\n\n".join([f"use {module} {{ {name} }}", *([doc] if doc else []), text])


def code_page(code: str, page: Code) -> str:
    """The long form of a diagnostic: what it means, a text that raises it, the same mended."""
    parts = [f"{code}: {page.title}", *(textwrap.fill(" ".join(p.split()), WIDTH) for p in page.explanation.split("\n\n"))]
    for title, example in (("This raises it:", page.bad), ("This does not:", page.good)):
        if example:
            parts += [title, textwrap.indent(textwrap.dedent(example).strip("\n"), "    ")]
    return "\n\n".join(parts)


def _unknown(message: str, name: str, names: list[str]) -> ArchError:
    from difflib import get_close_matches

    from archdsl.elaborate.hints import of_torch

    told = of_torch(name)
    if told is not None:
        return error("A0651", message, NOWHERE, help=told[0])
    near = get_close_matches(name, list(dict.fromkeys(names)), 3)  # an op may be a word of the language as well
    return error("A0651", message, NOWHERE, help=f"near it: {', '.join(f'`{n}`' for n in near)}" if near else "`archdsl ops` lists the ops")
