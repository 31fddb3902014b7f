"""Wrong types, wrong counts, broken divisibility, knobs outside their domain, swapped arguments, two weights at one address."""
from __future__ import annotations

import math
import random
import re
from itertools import pairwise
from typing import Any

from archdsl.ops.registry import find
from archdsl.syntax import tree

from .slots import Slot, header_of, kind_of, params_of, slots, takes
from .text import Planting, Text


def _spot(node: Any) -> tuple[int, int]:
    return node.span.start, node.span.end


def _put(node: Any, new: str, **said: Any) -> Planting:
    return Planting(((*_spot(node), new),), **said)


def _choose(found: list[Any], rng: random.Random) -> Any:
    return rng.choice(found) if found else None


def _choose_pair(found: list[Any], rng: random.Random) -> Any:
    return _choose(found, rng) or (None, None)


# ---------------------------------------------------------------- types
def quoted_number(text: Text, rng: random.Random) -> Planting | None:
    s = _choose([s for s in slots(text) if isinstance(s.value, tree.Number) and not takes(s.param.type, f"str:{s.value.text}")], rng)
    return s and _put(s.value, f'"{s.value.span.text}"')


def fraction_of_a_whole_number(text: Text, rng: random.Random) -> Planting | None:
    s = _choose([s for s in slots(text) if kind_of(text, s.value) == "int" and not takes(s.param.type, "float")], rng)
    return s and _put(s.value, s.value.span.text + ".5")


def number_for_a_truth_value(text: Text, rng: random.Random) -> Planting | None:
    s = _choose([s for s in slots(text) if isinstance(s.value, tree.Bool) and not takes(s.param.type, "int")], rng)
    return s and _put(s.value, str(int(s.value.value)))


def word_without_quotes(text: Text, rng: random.Random) -> Planting | None:
    s = _choose([s for s in slots(text) if isinstance(s.value, tree.Str) and s.value.value.isidentifier() and not takes(s.param.type, "block")], rng)
    return s and _put(s.value, s.value.value)


def block_in_quotes(text: Text, rng: random.Random) -> Planting | None:
    """`act = "gelu"`."""
    s = _choose([s for s in slots(text) if isinstance(s.value, tree.Name) and takes(s.param.type, "block") and find(s.value.id) is not None
                 and not takes(s.param.type, f"str:{s.value.id}")], rng)
    return s and _put(s.value, f'"{s.value.id}"')


def block_without_its_list(text: Text, rng: random.Random) -> Planting | None:
    """`LayerNorm` instead of `LayerNorm()`."""
    s = _choose([s for s in slots(text) if kind_of(text, s.value) == "block" and not s.value.args and takes(s.param.type, "block")], rng)
    return s and Planting(((s.value.func.span.end, s.value.span.end, ""),), (_spot(s.value.func),))


def list_of_one(text: Text, rng: random.Random) -> Planting | None:
    s = _choose([s for s in slots(text) if isinstance(s.value, tree.Number) and not takes(s.param.type, "list")], rng)
    return s and _put(s.value, f"[{s.value.span.text}]")


def tensor_for_a_value(text: Text, rng: random.Random) -> Planting | None:
    """An input where the first list wants a number."""
    found = []
    for s in slots(text):
        around = next((n for n in s.up if isinstance(n, (tree.Block, tree.Model))), None)
        free = isinstance(s.value, (tree.Number, tree.Name)) and isinstance(s.up[-2], tree.Call) and not takes(s.param.type, "tensor")
        if free and around is not None:
            found += [(s.value, p.name) for p in around.inputs or () if isinstance(p.type, tree.TensorType)][:1]
    node, name = _choose_pair(found, rng)
    return node and node.span.text != name and _put(node, name) or None


# ---------------------------------------------------------------- counts
def one_argument_more(text: Text, rng: random.Random) -> Planting | None:
    """In a full argument list, or the list of inputs of a block that takes no further ones: the last one twice."""
    found = []
    for call, up in text.of(tree.Call):
        if any(isinstance(p, tree.Claim) for p in up):
            continue  # `fails(f(0))` may be wrong on purpose
        owner, inner = header_of(text, call), call.func if isinstance(call.func, tree.Call) else None
        block = header_of(text, inner) if inner is not None else None
        full = owner is not None and len(call.args) == len(params_of(owner))
        if isinstance(block, tree.Block):
            full = not any(p.rest for p in block.inputs) and len(call.args) == len(block.inputs)
        if call.args and full and all(a.name is None and not isinstance(a.value, tree.Rest) for a in call.args):
            found.append(call.args[-1])
    last = _choose(found, rng)
    return last and Planting(((last.span.end, last.span.end, f", {last.span.text}"),), ((last.span.end, last.span.end),))


def one_argument_less(text: Text, rng: random.Random) -> Planting | None:
    """A needed one: nothing says what it was. The place is the call."""
    found = []
    for call, _ in text.of(tree.Call):
        owner = header_of(text, call)
        needed = isinstance(owner, (tree.Block, tree.Fn)) and len(call.args) == 1 and params_of(owner) and params_of(owner)[0].default is None
        if needed and call.args[0].name is None and not _defaulted(text, owner, params_of(owner)[0].name):
            found.append(call)
    call = _choose(found, rng)
    return call and Planting(((*_spot(call.args[0]), ""),), (_spot(call),))


def _defaulted(text: Text, owner: Any, name: str) -> bool:
    return any(header_of(text, d) is owner and any(a.name == name for a in d.args) for d, _ in text.of(tree.Default))


def one_name_more(text: Text, rng: random.Random) -> Planting | None:
    """`a, b, more = split(x, 2)`"""
    found = [n for n, _ in text.of(tree.Assign) if len(n.targets) > 1 and len(n.values) == 1]
    node = _choose(found, rng)
    return node and Planting(((node.targets[-1].span.end,) * 2 + (", more",),), ((node.targets[0].span.start, node.span.end),))


def longer_list(text: Text, rng: random.Random) -> Planting | None:
    """The last item twice, in a list whose length is declared."""
    found = [s for s in slots(text) if isinstance(s.param.type, tree.ListType) and s.param.type.length is not None and isinstance(s.value, tree.List)]
    s = _choose(found, rng)
    last = s and s.value.items[-1]
    return s and Planting(((last.span.end, last.span.end, f", {last.span.text}"),), (_spot(s.value),))


def one_result_more(text: Text, rng: random.Random) -> Planting | None:
    found = [n for n, up in text.of(tree.Return) if isinstance(up[-1], (tree.Block, tree.Model)) and not any(n.names)]
    node = _choose(found, rng)
    last = node and node.values[-1]
    return node and Planting(((last.span.end, last.span.end, f", {last.span.text}"),), (_spot(node),))


def claimed_number(text: Text, rng: random.Random) -> Planting | None:
    """A figure of a claim that says one exact number."""
    found = []
    for item, _ in text.of(tree.ClaimItem):
        e = item.expr
        if isinstance(e, tree.Binary) and e.op == "==" and item.within is None and isinstance(e.right, (tree.Number, tree.List)):
            numbers = [e.right] if isinstance(e.right, tree.Number) else [i for i in e.right.items if isinstance(i, tree.Number)]
            found += [(n, item) for n in numbers if isinstance(n.value, int)]
    node, item = _choose_pair(found, rng)
    if node is None:
        return None
    digits = [i for i, c in enumerate(node.span.text) if c.isdigit()]
    i = rng.choice(digits)
    put = rng.choice([c for c in "123456789" if c != node.span.text[i]])
    new = node.span.text[:i] + put + node.span.text[i + 1 :]
    return Planting(((*_spot(node), new),), (_spot(item.expr.right),))


# ---------------------------------------------------------------- divisibility
def _divisors(owner: Any) -> set[str]:
    """Names that something is divided by in a block, or that are factors of one axis, or of which something has to be a multiple."""
    text = owner.span.text
    found = set(re.findall(r"[\w\])]\s*/\s*(\w+)", text)) | set(re.findall(r"%\s*(\w+)\s*==\s*0", text))
    return found | {n for group in re.findall(r"\((\w+(?: \w+)+)\)", text) for n in group.split()}


def odd_divisor(text: Text, rng: random.Random) -> Planting | None:
    """Another number for what divides a size; whether a division is broken, the program itself decides."""
    found: list[Slot] = []
    models = [d for d in text.module.decls if isinstance(d, tree.Model)]
    for s in slots(text):
        divides = s.param.name in _divisors(s.owner) or s.owner in models and s.param.name in ("heads", "kv_heads", "groups", "window", "patch")
        if divides and kind_of(text, s.value) == "int" and s.value.value > 1:
            found.append(s)
    s = _choose(found, rng)
    if s is None:
        return None
    near = [n for n in range(2, 2 * s.value.value + 2) if math.gcd(n, s.value.value) == 1 and _inside(s, n)]
    return _put(s.value, str(rng.choice(near)), exact=False, maybe=True) if near else None


def _inside(s: Slot, n: int) -> bool:
    """Whether a default stays in its own domain; a domain that cannot be read here says no."""
    if not isinstance(s.up[-1], tree.Param) or s.param.domain is None:
        return True
    return contains(s.param.domain, n) is True


# ---------------------------------------------------------------- domains
def contains(domain: Any, n: Any) -> bool | None:
    """Whether a domain of literals holds a value; None where it is not made of literals."""
    if isinstance(domain, tree.SetLit):
        values = [getattr(i, "value", None) for i in domain.items]
        return None if any(type(i) not in (tree.Number, tree.Str) for i in domain.items) else n in values
    if isinstance(domain, tree.Range):
        ends = [domain.start, domain.stop, *([domain.step] if domain.step is not None else [])]
        if not all(isinstance(e, tree.Number) for e in ends) or type(n) is str:
            return None
        low, high, *step = (e.value for e in ends)  # type: ignore[union-attr]
        inside = low <= n <= high if domain.inclusive else low <= n < high
        return inside and (not step or (n - low) % step[0] == 0)
    return None


def outside_its_domain(text: Text, rng: random.Random) -> Planting | None:
    """A slip in the default of a knob whose domain is written in numbers."""
    found = [n for n, _ in text.of(tree.Param) if isinstance(n.default, tree.Number) and n.domain is not None and isinstance(n.default.value, int)
             and contains(n.domain, n.default.value)]
    p = _choose(found, rng)
    if p is None:
        return None
    written = str(p.default.value)
    slips = {written[:i] + c + written[i + 1 :] for i in range(len(written)) for c in "123456789"} | {written + c for c in "05"}
    slips |= {written[:i] + written[i + 1] + written[i] + written[i + 2 :] for i in range(len(written) - 1)}
    outside = sorted(s for s in slips if s[0] != "0" and contains(p.domain, int(s)) is False)
    return _put(p.default, rng.choice(outside), exact=False) if outside else None


# ---------------------------------------------------------------- swapped arguments
def arguments_of_two_types(text: Text, rng: random.Random) -> Planting | None:
    """Two neighbours in an argument list of a block, record or function, of types of which neither takes the other's value."""
    found = []
    for call, _ in text.of(tree.Call):
        owner = header_of(text, call)
        args = [a for a in call.args if a.name is None]
        params = params_of(owner) if owner is not None else ()
        for a, b, p, q in zip(args, args[1:], params, params[1:]):
            kinds = _declared_kind(text, a.value, p), _declared_kind(text, b.value, q)
            if p.type and q.type and all(kinds) and not takes(p.type, kinds[1]) and not takes(q.type, kinds[0]):
                found.append((a, b))
    return _swapped(_choose(found, rng))


def _declared_kind(text: Text, value: Any, p: tree.Param) -> str:
    """The kind of a value: a literal's, else that of the parameter that takes it in the sound text."""
    known = kind_of(text, value)
    if known is not None or not isinstance(p.type, tree.NameType):
        return known or ""
    return p.type.name if p.type.name in ("int", "float", "bool", "block", "init", "mask") else ""


def tensor_and_value(text: Text, rng: random.Random) -> Planting | None:
    """`softcap(30, x)`: the tensor of an op and its first argument that is none."""
    found = []
    for call, _ in text.of(tree.Call):
        op = find(call.func.id) if isinstance(call.func, tree.Name) else None
        args = [a for a in call.args if a.name is None]
        if op is not None and len(args) > 1 and len(op.decl.params) > 1:
            first, second = op.decl.params[:2]
            if isinstance(first.type, tree.TensorType) and isinstance(second.type, tree.NameType | tree.ListType):
                found.append((args[0], args[1]))
    return _swapped(_choose(found, rng))


def named_values(text: Text, rng: random.Random) -> Planting | None:
    """The values of two named arguments."""
    found = []
    for call, _ in text.of(tree.Call):
        owner = header_of(text, call)
        named = [(a, next((p for p in params_of(owner) if p.name == a.name), None)) for a in call.args if a.name] if owner is not None else []
        for (a, p), (b, q) in pairwise(named):
            kinds = (_declared_kind(text, a.value, p), _declared_kind(text, b.value, q)) if p and q else ("", "")
            if p and q and p.type and q.type and all(kinds) and not takes(p.type, kinds[1]) and not takes(q.type, kinds[0]):
                found.append((a.value, b.value))
    return _swapped(_choose(found, rng))


def arguments_of_a_rule(text: Text, rng: random.Random) -> Planting | None:
    """Two neighbours in any argument list; whether a rule is broken, the program decides."""
    found = []
    for call, up in text.of(tree.Call):
        if any(isinstance(p, tree.Claim) for p in up):
            continue
        args = [a.value for a in call.args if a.name is None and not isinstance(a.value, tree.Rest)]
        found += [(a, b) for a, b in pairwise(args) if a.span.text != b.span.text]
    return _swapped(_choose(found, rng), maybe=True)


def settings_of_a_rule(text: Text, rng: random.Random) -> Planting | None:
    """The numbers of two settings of a variant; whether a rule is broken, the program decides."""
    found = []
    for v, _ in text.of(tree.Variant):
        numbers = [s.value for s in v.settings if isinstance(s.value, tree.Number) and isinstance(s.value.value, int)]
        found += [(a, b) for a, b in pairwise(numbers) if a.value != b.value]
    return _swapped(_choose(found, rng), maybe=True)


def _swapped(pair: Any, maybe: bool = False) -> Planting | None:
    if pair is None:
        return None
    a, b = pair
    return Planting(((*_spot(a), b.span.text), (*_spot(b), a.span.text)), maybe=maybe)


# ---------------------------------------------------------------- addresses
def name_of_the_one_above(text: Text, rng: random.Random) -> Planting | None:
    """`as NAME` of an application becomes that of one above it in the same body; whether both own weights at once, the program decides."""
    by_body: dict[int, list[tree.Named]] = {}
    for n, up in text.of(tree.Named):
        if isinstance(n.expr, tree.Call):
            around = [p for p in up if isinstance(p, (tree.Block, tree.Model, tree.Entry, tree.For, tree.If, tree.IfExpr, tree.PhaseExpr))]
            by_body.setdefault(id(around[-1]) if around else 0, []).append(n)
    found = [(a, b) for names in by_body.values() for i, a in enumerate(names) for b in names[i + 1 :]
             if a.name != b.name and "_" not in (a.name, b.name)]
    a, b = _choose_pair(found, rng)
    return a and Planting(((b.name_span.start, b.name_span.end, a.name),), (_spot(b),), exact=False, maybe=True)


def parameter_of_the_one_above(text: Text, rng: random.Random) -> Planting | None:
    """A `param … as NAME` that takes the address of an earlier one."""
    found = []
    for d, _ in text.of(tree.Block, tree.Model):
        params = [s for s in d.body or () if isinstance(s, tree.ParamDecl) and s.condition is None]
        found += [(a, b) for i, a in enumerate(params) for b in params[i + 1 :] if b.name == b.address]
    a, b = _choose_pair(found, rng)
    return a and Planting(((b.name_span.end, b.name_span.end, f" as {a.address}"),), ((b.name_span.start, b.name_span.end),), maybe=True)


TYPES = {s.__name__: s for s in (quoted_number, fraction_of_a_whole_number, number_for_a_truth_value, word_without_quotes, block_in_quotes,
                                 block_without_its_list, list_of_one, tensor_for_a_value)}
COUNTS = {s.__name__: s for s in (one_argument_more, one_argument_less, one_name_more, longer_list, one_result_more,
                                  claimed_number)}
DIVISORS = {s.__name__: s for s in (odd_divisor,)}
DOMAINS = {s.__name__: s for s in (outside_its_domain,)}
SWAPS = {s.__name__: s for s in (arguments_of_two_types, tensor_and_value, named_values, arguments_of_a_rule, settings_of_a_rule)}
ADDRESSES = {s.__name__: s for s in (name_of_the_one_above, parameter_of_the_one_above)}
