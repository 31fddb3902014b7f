"""What is known of run-time sizes: facts are added, brought to their normal form under each other, and asked."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from math import gcd, lcm
from typing import Any, TypeVar

from archdsl.dims import decide, signs, suggest, witness
from archdsl.dims.floors import bounds, floordiv
from archdsl.dims.poly import Atom, Dim, Mono, NotInteger, Size, degree, denominator, make, primitive, scale, without_symbols
from archdsl.dims.simplify import by_congruence, rewrite
from archdsl.dims.solving import as_remainder, simpler, solvable

_T = TypeVar("_T")
_ROUNDS = 8  # of rewriting until nothing changes
_GROWTH = 400  # symbols by which rewriting may lengthen a size


class Facts:
    """Facts about symbols, each an integer >= 1. `shared`: what was decided under the same facts before, for those that have it in common.

    The `require_` methods answer True: known before; None: new, now known; False: it contradicts what is known (and is not recorded).
    """

    __slots__ = ("_clean", "_memo", "at_leasts", "congruences", "decided", "divides", "equals", "hi", "lo", "rules", "shared")

    def __init__(self, shared: dict[Any, tuple[dict[Dim, Size], dict[Any, Any]]] | None = None) -> None:
        self.shared = shared
        self.rules: dict[Mono, Size] = {}  # a symbol, another atom or a product, and what it is
        self.congruences: dict[str, tuple[int, int]] = {}  # name -> (m, s): (name + s) % m == 0, 0 <= s < m
        self.lo: dict[str, int] = {}  # where above 1
        self.hi: dict[str, int] = {}
        self.divides: list[tuple[Dim, int, Mono | None]] = []  # (e, k, a monomial with coefficient 1 in e): e % k == 0
        self.at_leasts: list[Dim] = []  # each >= 0
        self.equals: list[Dim] = []  # each == 0, where no rule was found
        self._forget()
        self._join()

    def _forget(self) -> None:
        self._memo: dict[Dim, Size] = {}
        self.decided: dict[Any, Any] = {}
        self._clean = not (self.rules or self.congruences or self.lo or self.hi or self.divides or self.at_leasts or self.equals)

    def _join(self) -> None:
        """What is decided from here on is found again by other Facts that share it and know the same."""
        if self.shared is not None:
            known = tuple(tuple(part.items() if isinstance(part, dict) else part) for part in self._state())
            self._memo, self.decided = self.shared.setdefault(known, (self._memo, self.decided))

    def copy(self) -> Facts:
        other = Facts()
        other._take(self)
        return other

    def _take(self, other: Facts) -> None:
        self.rules, self.congruences, self.lo, self.hi = dict(other.rules), dict(other.congruences), dict(other.lo), dict(other.hi)
        self.divides, self.at_leasts, self.equals = list(other.divides), list(other.at_leasts), list(other.equals)
        self._forget()

    def _state(self) -> tuple[dict[Any, Any] | list[Any], ...]:
        return (dict(self.rules), dict(self.congruences), dict(self.lo), dict(self.hi), list(self.divides), list(self.at_leasts), list(self.equals))

    # ---------------------------------------------------------------- simplification
    def normal(self, size: Size) -> Size:
        """The size in the simplest form known: solved symbols replaced, floors that the facts make exact turned into quotients."""
        if isinstance(size, int) or self._clean:
            return size
        found = self._memo.get(size)
        if found is not None:
            return found
        value: Size = size
        try:
            for _ in range(_ROUNDS):
                before = value
                value = by_congruence(self, rewrite(self, value))
                if value is before or isinstance(value, int):
                    break
                if value.weight > 8 * size.weight + _GROWTH:
                    raise OverflowError
        except (OverflowError, ZeroDivisionError):  # rules that feed each other, a divisor that they make 0: the size as it was is right
            value = size
        self._memo[size] = value
        return value

    # ---------------------------------------------------------------- new facts
    def require_divides(self, expr: Size, k: Size) -> bool | None:
        """expr % k == 0."""
        if isinstance(k, Dim):
            return self.require_equal(expr, k * floordiv(expr, k))
        if k == 0:
            raise ZeroDivisionError("a size divided by 0")
        return self._atomically(lambda trial: trial._divides(expr, abs(k)))

    def require_equal(self, a: Size, b: Size) -> bool | None:
        """a == b: solved for a symbol where one stands linear and alone, else for a floor, minimum or product, else remembered."""
        if a is b:
            return True
        return self._atomically(lambda trial: trial._equal(a, b))

    def require_at_least(self, a: Size, b: Size) -> bool | None:
        """a >= b."""
        return self._atomically(lambda trial: trial._at_least(a - b))

    def _atomically(self, add: Callable[[Facts], bool | None]) -> bool | None:
        trial = self.copy()
        try:
            verdict = add(trial)
            if verdict is None and not trial._settle():
                verdict = False
        except (NotInteger, ZeroDivisionError):
            verdict = False
        if verdict is None:
            self._take(trial)
            self._join()
        return verdict

    def _settle(self) -> bool:
        """Brings all facts to their normal form under each other. False for a contradiction."""
        for _ in range(_ROUNDS):
            before = self._state()
            self._forget()
            solved = {m: v for m, v in self.rules.items() if len(m) == 1 and m[0][1] == 1 and m[0][0].kind == "sym"}
            others = [(make({m: 1}), v) for m, v in self.rules.items() if m not in solved]
            others += [(e, 0) for e in self.equals]
            divides, at_leasts = self.divides, self.at_leasts
            self.rules, self.divides, self.at_leasts, self.equals = solved, [], [], []
            for m in list(solved):
                self._forget()
                solved[m] = self.normal(solved[m])
            verdicts: list[bool | None] = []
            for a, b in others:
                self._forget()
                verdicts.append(self._equal(a, b))
            for e, k, _ in divides:
                self._forget()
                verdicts.append(self._divides(e, k))
            for p in at_leasts:
                self._forget()
                verdicts.append(self._at_least(p))
            self._forget()
            if False in verdicts:
                return False
            if self._state() == before:
                break
        return not any(self.lo.get(n, 1) > h for n, h in self.hi.items())

    def _divides(self, expr: Size, k: int) -> bool | None:
        e = self.normal(expr)
        if isinstance(e, int):
            return e % k == 0
        d = denominator(e.terms)
        k *= d
        own = {m: int(c * d) % k for m, c in e.terms.items()}
        constant = own.pop((), 0)
        own = {m: c for m, c in own.items() if c}
        g = gcd(k, *own.values())
        if constant % g:
            return False
        own, constant, k = {m: c // g for m, c in own.items()}, constant // g, k // g
        if k == 1:
            return True
        if len(own) == 1:
            ((mono, c),) = own.items()
            if gcd(c, k) == 1:
                r = -constant * pow(c, -1, k) % k
                atom, power = mono[0]
                if len(mono) == 1 and power == 1 and atom.kind == "sym":
                    return self._congruent(atom.name, k, r)
                if len(mono) == 1 and power == 1 and atom.kind == "floor":
                    value = k * floordiv(atom.dim - r, k) + r
                    if simpler(value, mono):
                        self.rules[((atom, 1),)] = value
                        return None
                own, constant = {mono: 1}, -r
        lead = next((m for m in sorted(own, key=lambda m: (-degree(m), repr(m))) if own[m] in (1, k - 1)), None)
        if lead is not None and own[lead] == k - 1:
            own, constant = {m: -c for m, c in own.items()}, -constant
        centred = {m: (c + k // 2) % k - k // 2 if m != lead else 1 for m, c in {**own, (): constant}.items()}
        fact = (make(centred), k, lead)
        if any(f[0] is fact[0] and f[1] % k == 0 for f in self.divides):
            return True
        self.divides.append(fact)  # type: ignore[arg-type]
        return None

    def _congruent(self, name: str, k: int, r: int) -> bool | None:
        """name % k == r, joined with what is known by the Chinese remainder theorem."""
        m, s = self.congruences.get(name, (1, 0))
        g = gcd(m, k)
        if (-s - r) % g:
            return False
        if m % k == 0:
            return True
        both = lcm(m, k)
        step = (r + s) // g * pow(m // g, -1, k // g) if k > g else 0
        self.congruences[name] = (both, (s - m * step) % both)
        self._round(name)
        return None

    def _round(self, name: str) -> None:
        """Moves the bounds to values that the congruence allows."""
        m, s = self.congruences.get(name, (1, 0))
        if name in self.lo:
            self.lo[name] += -(self.lo[name] + s) % m
        elif m > 1 and m - s > 1:
            self.lo[name] = m - s
        if name in self.hi:
            self.hi[name] -= (self.hi[name] + s) % m

    def _equal(self, a: Size, b: Size) -> bool | None:
        d = self.normal(a - b)
        if isinstance(d, int):
            return d == 0
        d = primitive(without_symbols(d))
        low, high = bounds(d, self.lo, self.hi)
        if (low is not None and low > 0) or (high is not None and high < 0):
            return False
        if d.terms.get((), 0) % gcd(*(c for m, c in d.terms.items() if m)):  # type: ignore[arg-type, operator]
            return False
        remainder = as_remainder(d)
        if remainder is not None:
            num, n, r = remainder
            return self._divides(num - r, n) if 0 <= r < n else False
        lone = [self.normal(x) for x in (a, b)]
        found = solvable(d, lone)
        if d.depth and (found is None or found.kind != "sym"):
            residues = decide.residues_of_zero(self, d)
            if residues is not None:
                verdicts = [self._congruent(name, m, r) for name, (m, r) in residues.items()]
                return False if False in verdicts or not residues else None
        if found is None:
            lead = max(d.terms, key=lambda m: (degree(m), abs(d.terms[m]) == 1, [(x.order, p) for x, p in m]))
            return self._rule(lead, d)
        return self._solve(found, d)

    def _rule(self, lead: Mono, d: Dim) -> bool | None:
        """Remembers d == 0 as what its leading product is. That product's coefficient may leave a fraction, exact by the fact itself."""
        c = d.terms[lead]
        value = make({m: Fraction(-e) / c for m, e in d.terms.items() if m != lead})
        if d.depth and not simpler(value, lead):
            if d in self.equals:
                return True
            self.equals.append(d)
        else:
            self.rules[lead] = value
        return None

    def _solve(self, atom: Atom, d: Dim) -> bool | None:
        """d == 0 as a rule for the atom; what was known of it becomes known of its value."""
        mono: Mono = ((atom, 1),)
        c = int(d.terms[mono])
        rest = make({m: -e * (1 if c > 0 else -1) for m, e in d.terms.items() if m != mono})
        value = scale(rest, Fraction(1, abs(c))) if isinstance(rest, Dim) else rest // abs(c) if rest % c == 0 else None
        if value is None:
            return False
        verdicts: list[bool | None] = [self._divides(rest, abs(c))]
        name = atom.name if atom.kind == "sym" else ""
        least, most = self.lo.pop(name, 1), self.hi.pop(name, None)
        m, s = self.congruences.pop(name, (1, 0))
        self._forget()
        if name:
            verdicts.append(self._at_least(value - least))
            verdicts.append(self._divides(value + s, m))
            if most is not None:
                verdicts.append(self._at_least(most - value))
        self.rules[mono] = value
        if atom.kind == "floor" and isinstance(value, int) and isinstance(den := atom.args[1], int):
            self._forget()
            verdicts += [self._at_least(atom.args[0] - den * value), self._at_least(den * value + den - 1 - atom.args[0])]
        return False if False in verdicts else None

    def _at_least(self, size: Size, depth: int = _ROUNDS) -> bool | None:
        """size >= 0."""
        p = self.normal(size)
        if isinstance(p, int):
            return p >= 0
        low, high = bounds(p, self.lo, self.hi)
        if low is not None and low >= 0:
            return True
        if high is not None and high < 0:
            return False
        p = primitive(p, inequality=True)
        inside = [m for m in p.terms if m]
        if len(inside) == 1 and len(inside[0]) == 1 and inside[0][0][1] == 1 and depth:
            return self._bound(inside[0][0][0], int(p.terms[inside[0]]), int(p.terms.get((), 0)), p, depth - 1)
        return self._remember(p)

    def _remember(self, p: Dim) -> bool | None:
        if p in self.at_leasts:
            return True
        self.at_leasts.append(p)
        return None

    def _bound(self, atom: Atom, c: int, e: int, p: Dim, depth: int) -> bool | None:
        """c * atom + e >= 0."""
        limit = -(e // c) if c > 0 else e // -c
        if atom.kind == "sym":
            if c > 0:
                self.lo[atom.name] = max(limit, self.lo.get(atom.name, 1))
            else:
                self.hi[atom.name] = min(limit, self.hi.get(atom.name, limit))
            self._round(atom.name)
            least, most = self.lo.get(atom.name, 1), self.hi.get(atom.name)
            if most is None or least < most:
                return None
            return False if least > most else self._pin(atom, least)
        if atom.kind == "floor":
            num, den = atom.args
            if isinstance(den, int):
                return self._at_least(num - den * limit if c > 0 else den * limit + den - 1 - num, depth)
        elif (atom.kind == "min") == (c > 0):
            verdicts = [self._at_least(a - limit if c > 0 else limit - a, depth) for a in atom.args]
            return False if False in verdicts else None if None in verdicts else True
        return self._remember(p)

    def _pin(self, atom: Atom, value: int) -> bool | None:
        m, s = self.congruences.pop(atom.name, (1, 0))
        self.lo.pop(atom.name, None)
        self.hi.pop(atom.name, None)
        self.rules[((atom, 1),)] = value
        return None if (value + s) % m == 0 else False

    # ---------------------------------------------------------------- questions
    def equal(self, a: Size, b: Size) -> bool | None:
        """True: equal for all sizes that satisfy the facts; False: some sizes that do tell them apart; None: undecided."""
        if a is b or (isinstance(a, int) and isinstance(b, int)):
            return a == b
        return _within_limits(lambda: decide.equal(self, a, b)[0])

    def counterexample(self, a: Size, b: Size) -> dict[str, int] | None:
        """Small sizes of the symbols of a and b, allowed by the facts, at which they differ; None when none was found."""
        return _within_limits(lambda: decide.counterexample(self, a, b))

    def at_least(self, a: Size, b: Size) -> bool | None:
        """Whether a >= b for all sizes; False when some refute it."""
        return _within_limits(lambda: self._at_least_zero(a - b))

    def _at_least_zero(self, size: Size) -> bool | None:
        if isinstance(size, int):
            return size >= 0
        key = ("at least 0", size)
        if key not in self.decided:
            self.decided[key] = signs.nonnegative(self, size)
        return self.decided[key]

    def positive(self, size: Size) -> bool | None:
        """Whether the size is at least 1 for all sizes of the symbols; False when some refute it."""
        return self.at_least(size, 1)

    def suggest(self, a: Size, b: Size) -> str | None:
        """The condition of a `require` under which a == b, as `H % 32 == 0` or `T == S`."""
        return _within_limits(lambda: suggest.suggest(self, a, b))

    def exact(self, size: Size) -> bool:
        """Whether the size is shown to be an integer for all sizes that satisfy the facts."""
        return isinstance(size, int) or _within_limits(lambda: signs.integer(self, size)) is True

    def divide(self, a: Size, b: Size) -> Size | None:
        """a / b when that is an integer for all sizes that satisfy the facts, else None."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b if b and a % b == 0 else None
        return _within_limits(lambda: signs.divide(self, a, b))

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether these sizes, of all symbols that the facts name, satisfy the facts."""
        return witness.holds(self, values)


def _within_limits(answer: Callable[[], _T]) -> _T | None:
    """The answer, or None (undecided) where finding it would need sizes beyond the limits or divides by 0."""
    try:
        return answer()
    except (OverflowError, ZeroDivisionError):
        return None


def exact_div(a: Size, b: Size) -> Size | None:
    """a / b when it is an integer for all sizes, else None."""
    return Facts().divide(a, b)


def is_exact(size: Size) -> bool:
    """Whether the size is shown to be an integer for all sizes of its symbols (`(T**2 + T)/2` is, `H/4` is not)."""
    return isinstance(size, int) or Facts().exact(size)
