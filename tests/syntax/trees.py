"""Random trees that the grammar can write: every construct, nested a few levels deep."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from archdsl.source import NOWHERE
from archdsl.syntax import tree as t

S = NOWHERE
PLAIN = ["x", "y", "d", "heads", "norm", "f", "Linear", "MLP", "B", "T", "a_1"]
WORDS = ["step", "from", "when", "state", "emit", "space", "param", "use", "names", "by", "carry", "over", "wrap", "claim", "phase", "int", "f32"]
DTYPES = ["int", "bool", "f32", "bf16"]
texts = st.text(st.sampled_from('ab {}"\\\n\t#/é'), max_size=6)


def short(strategy):
    """The same strategy with a short name: hypothesis writes out what strategies are made of, which grows without bound here."""

    @st.composite
    def tree(draw):
        return draw(strategy)

    return tree()


def tuples(items, low=0, high=3):
    return short(st.lists(items, min_size=low, max_size=high).map(tuple))


names = short(st.sampled_from(PLAIN * 3 + WORDS))
plain = short(st.sampled_from(PLAIN))


def maybe(strategy):
    return st.none() | strategy


numbers = st.builds(
    lambda v: t.Number(S, v, ""), st.integers(0, 10**6) | st.builds(lambda n, e: _fraction(n, e), st.integers(1, 999), st.integers(1, 9))
)


def _fraction(n: int, e: int) -> Fraction:
    return Fraction(n * 10 + 1, 10**e)


def name(id: str) -> t.Name:
    return t.Name(S, id)


# ---------------------------------------------------------------- shapes and types
axis_names = plain.map(lambda n: t.AxisName(S, n))
fields = st.builds(lambda a, b: t.AxisField(S, t.Member(S, name(a), b, S)), plain, plain) | st.builds(
    lambda a, i: t.AxisField(S, t.Item(S, name(a), (t.Number(S, i, ""),))), plain, st.integers(0, 9)
)
axis_atoms = axis_names | st.integers(0, 999).map(lambda i: t.AxisInt(S, i)) | fields


def _axis_more(inner):
    atoms = axis_atoms | st.builds(lambda items: t.AxisFactors(S, items), tuples(inner, 2, 3))
    return (
        st.builds(lambda op, a, b: t.AxisOp(S, op, (a, b)), st.sampled_from(["+", "-", "*", "/", "//", "%", "**"]), inner, inner)
        | st.builds(lambda op, xs: t.AxisOp(S, op, xs), st.sampled_from(["floordiv", "ceildiv", "mod", "min", "max"]), tuples(inner, 2, 3))
        | atoms
    )


sizes = short(st.recursive(axis_atoms, _axis_more, max_leaves=4))
axes = (
    sizes
    | sizes
    | st.just(t.AnyAxes(S))
    | plain.map(lambda n: t.AxesVar(S, n))
    | st.builds(lambda n, b: t.Ragged(S, n, b), plain, maybe(sizes))
    | st.builds(lambda n, b: t.Bounded(S, n, b), plain, sizes)
    | st.builds(lambda n, b: t.AxisSized(S, n, b), plain, sizes)
)
axes = short(axes)
shapes = tuples(axes).map(lambda a: t.Shape(S, a))
tensors = st.builds(lambda d, s: t.TensorType(S, d, s), maybe(st.sampled_from(DTYPES)), shapes)
cores = (
    tensors
    | st.sampled_from(["int", "float", "bool", "str", "block", "mask", "lib.Record"]).map(lambda n: t.NameType(S, n))
    | texts.map(lambda v: t.LiteralType(S, v))
)
cores = cores | st.builds(lambda i, n: t.ListType(S, i, n), cores, maybe(numbers))
cores = short(cores)
type_atoms = cores | cores.map(lambda c: t.OptionalType(S, c))
types = type_atoms | tuples(type_atoms, 2, 3).map(lambda o: t.UnionType(S, o)) | tuples(type_atoms, 2, 3).map(lambda i: t.TupleType(S, i))


# ---------------------------------------------------------------- expressions
atoms = names.map(name) | numbers | texts.map(lambda v: t.Str(S, v)) | st.booleans().map(lambda b: t.Bool(S, b)) | st.just(t.NoneLit(S))
patterns = st.recursive(plain.map(lambda n: t.Pattern(S, n)), lambda p: tuples(p, 2, 3).map(lambda i: t.Pattern(S, None, i)), max_leaves=3)
addresses = st.sampled_from(["a", "layers.*.attn", "layers.0.{q,k,v}.weight", "stages.{2*i+1}.x", "{a,b}.c"])
arm_patterns = tuples(
    texts.map(lambda v: t.Str(S, v))
    | plain.map(name)
    | st.integers(0, 9).map(lambda i: t.Number(S, i, ""))
    | st.sampled_from([t.NoneLit(S), t.Some(S), t.Bool(S, True)]),
    1,
    2,
)


types, type_atoms = short(types), short(type_atoms)


def ranges(e):
    return st.builds(lambda a, b, i, s, scaled: t.Range(S, a, b, i, s, scaled), e, e, st.booleans(), maybe(e), st.booleans())


def flat_ranges(e):
    return st.builds(lambda a, b, i: t.Range(S, a, b, i), e, e, st.booleans())


def arguments(e):
    return tuples(
        st.builds(lambda v: t.Arg(S, None, v), e)
        | st.builds(lambda n, v: t.Arg(S, n, v, S), names, e)
        | st.just(t.Arg(S, None, t.Rest(S)))
        | st.builds(lambda v: t.Arg(S, None, v, None, True), e)
    )


def settings(e):
    return tuples(st.builds(lambda a, v: t.Setting(S, a, v, S), addresses, e))


def _more(e):
    e = short(e)
    results = tuples(e, 1, 2)
    items = e | ranges(e)
    index = e | st.just(t.Rest(S)) | st.builds(lambda a, b, c: t.Slice(S, a, b, c), maybe(e), maybe(e), maybe(e))
    return st.one_of(
        tuples(e, 1).map(lambda i: t.Tuple(S, i)),
        tuples(items, 0, 9).map(lambda i: t.List(S, i)),
        st.builds(lambda i, p, s, c: t.Comprehension(S, i, p, s, c), e, patterns, items, maybe(e)),
        st.builds(lambda o, v: t.Unary(S, o, v), st.sampled_from(["-", "not"]), e),
        st.builds(lambda o, a, b: t.Binary(S, o, a, b, S), st.sampled_from([*"+ - * / // % @ ** == != < <= > >= and or in".split(), "not in"]), e, e),
        st.builds(
            lambda a, s, n: t.Binary(S, "not in" if n else "in", a, s, S),
            e,
            tuples(items, 1).map(lambda i: t.SetLit(S, i)) | flat_ranges(e),
            st.booleans(),
        ),
        st.builds(lambda v, n: t.IsSome(S, v, n), e, st.booleans()),
        st.builds(lambda o, i: t.Chain(S, o, i), st.sampled_from(["|>", ">>", "&", "|", "??"]), tuples(e, 2, 4)),
        st.builds(lambda f, a: t.Call(S, f, a), e, arguments(e)),
        st.builds(lambda v, i: t.Item(S, v, i), e, tuples(index, 1)),
        st.builds(lambda v, n: t.Member(S, v, n, S), e, st.sampled_from(["weight", "0", "12", "*", "step"])),
        st.builds(lambda v, n: t.Named(S, v, n, S), e, names),
        st.builds(lambda v, s: t.Edited(S, v, s), e, settings(e)),
        st.builds(lambda b, o: t.IfExpr(S, b, o), tuples(st.tuples(e, results), 1, 2), results),
        st.builds(lambda v, a: t.MatchExpr(S, v, a), e, tuples(st.builds(lambda p, b: t.MatchArm(S, p, b), arm_patterns, e), 1, 2)),
        tuples(st.tuples(st.sampled_from(["train", "eval"]), results), 1, 2).map(lambda a: t.PhaseExpr(S, a)),
        st.builds(lambda p, b: t.BlockLiteral(S, p, b), tuples(st.tuples(plain, maybe(types))), e),
        st.builds(
            lambda w, i, o, a, v: t.LayoutCall(S, w, i, o, None, a, v),
            st.sampled_from(["rearrange", "under", "reduce", "einsum"]),
            tuples(shapes, 1, 2),
            shapes,
            arguments(e),
            maybe(e.filter(lambda v: not isinstance(v, (t.List, t.Comprehension)))),
        ),
        st.builds(lambda w, n, a: t.LayoutCall(S, w, (), None, n, a), st.sampled_from(["rearrange", "under"]), plain.map(name), arguments(atoms)),
    )


exprs = short(st.recursive(atoms, _more, max_leaves=8))
domains = exprs | ranges(exprs) | tuples(exprs, 1).map(lambda i: t.SetLit(S, i))
domains = domains | st.builds(lambda n, d: t.Each(S, n, d), maybe(plain), domains)

domains = short(domains)


# ---------------------------------------------------------------- headers and statements
fields_ = st.builds(
    lambda n, ty, d, dom, doc: t.Param(S, n, ty, d, dom, doc=doc), names, types, maybe(exprs), maybe(domains), st.sampled_from(["", "", "a doc"])
)
fields_ = short(fields_)
params = tuples(
    fields_
    | st.builds(lambda n, ty, d: t.Param(S, n, ty, d, None, True), names, types, maybe(exprs))
    | st.sampled_from(["...", "Config", "lib.Config"]).map(lambda n: t.Param(S, n, None, None, None, False, True))
)
outs = tuples(st.builds(lambda n, ty: t.Out(S, n, ty), maybe(names), type_atoms), 1, 2)
simple = st.one_of(
    st.builds(lambda x, v: t.Assign(S, x, v), tuples(st.builds(lambda n, ty: t.Target(S, n, ty), names, maybe(types)), 1), tuples(exprs, 1, 2)),
    st.builds(lambda c, m: t.Require(S, c, m), exprs, maybe(texts)),
    st.builds(lambda b, a: t.Default(S, b, a), plain, arguments(exprs)),
    st.builds(lambda n, v, c, a, o: t.Share(S, n, v, c, S, a or n, o and name(o)), names, exprs, maybe(exprs), maybe(plain), maybe(names)),
    st.builds(
        lambda k, n, a, ty, i, c: t.ParamDecl(S, k, n, a or n, ty, i, c, S),
        st.sampled_from(["param", "frozen", "buffer"]),
        names,
        maybe(names),
        types,
        exprs,
        maybe(exprs),
    ),
    st.builds(lambda n, ty, v, a: t.Const(S, n, ty, v, a), names, maybe(types), exprs, st.just("") | names),
    st.builds(lambda n, ty, v: t.Draw(S, n, ty, v), names, maybe(types), exprs),
    st.builds(lambda n, ty, v, d: t.Control(S, n, ty, v, d), names, types, exprs, maybe(domains)),
    st.builds(lambda n, v: t.Emit(S, n, v), plain, maybe(exprs)),
    st.builds(lambda n, v: t.Update(S, n, v), plain, exprs),
    tuples(plain, 1).map(lambda n: t.Static(S, n)),
    st.builds(lambda n, v: t.Next(S, n, v), plain, exprs),
    tuples(exprs, 1).map(lambda v: t.Yield(S, v)),
    st.lists(st.tuples(exprs, maybe(names)), min_size=1, max_size=3).map(lambda r: t.Return(S, tuple(v for v, _ in r), tuple(n for _, n in r))),
)
simple = short(simple)


def _nested(s):
    s = short(s)
    body = tuples(s, 0, 2)
    carries = tuples(st.builds(lambda n, ty, i: t.Carry(S, n, ty, i), plain, types, exprs), 1, 2)
    merges = st.just((None, None)) | st.tuples(exprs, exprs)
    return st.one_of(
        st.builds(lambda label, p, i, b: t.For(S, label, p, i, b), maybe(names), patterns, exprs | ranges(exprs), body),
        st.builds(lambda b, o, e: t.If(S, b, o if e else (), e), tuples(st.tuples(exprs, body), 1, 2), body, st.booleans()),
        st.builds(lambda v, a: t.Match(S, v, a), exprs, tuples(st.builds(lambda p, b: t.MatchArm(S, p, b), arm_patterns, body), 1, 2)),
        st.builds(
            lambda n, a, d, args: t.Choose(S, n, a, d, args, S),
            plain,
            tuples(st.builds(lambda n, p, v: t.ChooseArm(S, n, p, v), plain, params, exprs), 1, 2),
            plain,
            arguments(exprs),
        ),
        st.builds(lambda d, b: t.Island(S, d, b), st.sampled_from(["f32", "bf16"]), body),
        st.builds(lambda i, a, c, m, b: t.Scan(S, i, a, c, m[0], m[1], b), tuples(plain, 1), plain, carries, merges, body),
        st.builds(lambda n, i, o, stream, b: t.Entry(S, n, i, o, stream, b), plain, params, outs, maybe(plain), body),
    )


statements = simple | simple | st.recursive(simple, _nested, max_leaves=4)
statements = short(statements)
bodies = tuples(statements, 0, 3)


# ---------------------------------------------------------------- declarations
docs = st.sampled_from(["", "", "one line", "two\nlines"])
claims = st.builds(
    lambda target, items: t.Claim(S, target, items),
    maybe(st.sampled_from(["tiny", "ViT.tiny"])),
    tuples(st.builds(lambda e, w, f, c: t.ClaimItem(S, e, w, f, c), exprs, maybe(st.tuples(numbers, st.booleans())), maybe(texts), maybe(exprs))),
)
claims = short(claims)
transforms = st.builds(
    lambda n, a, s, u: t.Transform(S, n, a, s, u),
    st.sampled_from(["fold", "lib.fold"]),
    arguments(exprs),
    maybe(st.sampled_from(["layers[8:24].*.q", "op:linear & layers.*", "lowest(3, scores)", "(a | b) & c"])),
    tuples(plain, 0, 2),
)
name_ops = tuples(
    st.builds(lambda n, a: t.Call(S, name(n), a), plain, arguments(exprs))
    | st.builds(lambda i, o: t.LayoutCall(S, "rearrange", (i,), o, None, ()), shapes, shapes)
)
name_lines = st.one_of(
    st.builds(lambda f, a, o, c: t.NameLine(S, "map", f, a, o, None, c), texts, addresses, name_ops, maybe(exprs)),
    st.builds(lambda f, a, o, c: t.NameLine(S, "alias", f, a, o, None, c), texts, addresses, name_ops, maybe(exprs)),
    st.builds(lambda f, v, c: t.NameLine(S, "drop", f, None, (), v, c), texts, exprs, maybe(exprs)),
    st.builds(lambda f, c: t.NameLine(S, "ignore", f, None, (), None, c), texts, maybe(exprs)),
)
name_lines = short(name_lines)
decls = st.one_of(
    st.builds(
        lambda m, n: t.Use(S, m, n), st.sampled_from(["std.norm", "a"]), tuples(st.builds(lambda n, a: t.UseName(S, n, a), names, maybe(names)))
    ),
    settings(exprs).map(lambda s: t.Paper(S, s)),
    st.builds(lambda n, f, d: t.Record(S, n, f, d), plain, tuples(fields_), docs),
    st.builds(lambda n, p, r, b, d: t.Fn(S, n, p, r, b, d), names, params, types, bodies, docs),
    st.builds(lambda n, p, o, b, d: t.OpDecl(S, n, p, o, b, d), names, params, outs, maybe(bodies), docs),
    st.builds(
        lambda n, p, i, o, b, w, d: t.Block(S, n, p, i, o, b, w and b is not None, S, d),
        names,
        params,
        params,
        outs,
        maybe(bodies),
        st.booleans(),
        docs,
    ),
    st.builds(lambda n, p, i, o, s, b, d: t.Model(S, n, p, i, o, s, b, None, (), S, d), names, params, params, outs, maybe(plain), bodies, docs),
    st.builds(lambda n, p, b, d: t.Model(S, n, p, None, (), None, b, None, (), S, d), names, params, bodies, docs),
    st.builds(lambda n, p, b, e, d: t.Model(S, n, p, None, (), None, (), b, e, S, d), names, params, st.just("llama.Llama"), settings(exprs), docs),
    st.builds(lambda n, i, o, s, b, d: t.Entry(S, n, i, o, s, b, d), names, params, outs, maybe(plain), bodies, docs),
    st.builds(
        lambda n, b, s, x, c, d: t.Variant(S, n, b, s, x, c, S, d),
        names,
        maybe(plain),
        settings(domains),
        tuples(transforms, 0, 2),
        tuples(claims, 0, 2),
        docs,
    ),
    claims,
    st.builds(lambda n, m, i, d: t.Space(S, n, m, i, d), names, plain, tuples(exprs), docs),
    st.builds(lambda n, m, x, d: t.Names(S, n, m, x, d), names, tuples(plain, 1), tuples(name_lines), docs),
)
modules = tuples(decls, 0, 4).map(lambda d: t.Module(S, d))
