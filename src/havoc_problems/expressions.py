"""Reads an algebraic expression and tells whether two are equal, without ever evaluating text as Python.

SymPy's own `sympify` calls `eval` and would run `__import__("os")`; so the text is read here, letter by letter,
and SymPy only adds and multiplies the polynomials, exactly. Every multiplication is paid from a budget, so no
text can make it slow.

    sum      := term (("+" | "-") term)*
    term     := factor (("*" | "/") factor | factor)*      two factors side by side are multiplied: 2x, x(x + 1)
    factor   := ("+" | "-")* atom (("^" | "**") factor)?   the exponent is a whole number from -24 to 24
    atom     := number | letter | "(" sum ")"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from sympy import QQ
from sympy.polys.rings import ring

MAX_LENGTH = 200
"""Characters. The answers here have fewer than 40."""
_MAX_DEPTH = 20
_MAX_EXPONENT = 24
_MAX_DEGREE = 64
_MAX_WORK = 20_000
"""Products of two terms; some tens of milliseconds."""
_MAX_BITS = 4096

_TOKEN = re.compile(r"\s*(?:([0-9]+(?:\.[0-9]*)?|\.[0-9]+)|([A-Za-z])|(\*\*|[-+*/^()]))")


class ExpressionError(ValueError):
    """The text is not an expression of the kind that is read here; the message says why."""


class Quotient(NamedTuple):
    """A polynomial over another, as SymPy ring elements (SymPy's rings have no types of their own)."""

    above: Any
    below: Any


def letters_of(text: str) -> list[str]:
    """The letters that stand for variables, sorted."""
    return sorted(set(re.findall(r"[A-Za-z]", text)))


def are_equal(first: str, second: str, *, letters: Sequence[str]) -> bool:
    """Whether two expressions are the same function of `letters`, exactly: (x^2 - 1)/(x - 1) is x + 1.

    Raises:
        ExpressionError: one cannot be read, uses another letter, or is too large.
    """
    one, other = (_Reader(text, letters).read() for text in (first, second))
    return bool(one.above * other.below == other.above * one.below)


class _Reader:
    """Recursive descent over one text; `position` moves forward only."""

    def __init__(self, text: str, letters: Sequence[str]) -> None:
        if len(text) > MAX_LENGTH:
            raise ExpressionError(f"longer than {MAX_LENGTH} characters")
        # A ring has at least one generator; without letters x is never met.
        domain, *generators = ring(list(letters) or ["x"], QQ)
        self._one = domain.one
        self._variables = dict(zip(letters, generators, strict=False))
        self._tokens = _tokens(text)
        self._position = 0
        self._depth = 0
        self._work = 0

    def read(self) -> Quotient:
        """The whole text as a quotient."""
        value = self._sum()
        if self._next() is not None:
            raise ExpressionError(f"'{self._next()}' is not expected there")
        return value

    def _next(self) -> str | None:
        return self._tokens[self._position] if self._position < len(self._tokens) else None

    def _accept(self, *symbols: str) -> str | None:
        token = self._next()
        if token is None or token not in symbols:
            return None
        self._position += 1
        return token

    def _sum(self) -> Quotient:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ExpressionError("nested too deeply")
        value = self._term()
        while sign := self._accept("+", "-"):
            term = self._term()
            right = self._times(term.above, value.below)
            left = self._times(value.above, term.below)
            value = self._sized(left + right if sign == "+" else left - right, self._times(value.below, term.below))
        self._depth -= 1
        return value

    def _term(self) -> Quotient:
        value = self._factor()
        while True:
            token = self._next()
            if self._accept("*"):
                value = self._product(value, self._factor())
            elif self._accept("/"):
                value = self._product(value, self._inverse(self._factor()))
            elif token is not None and (token == "(" or token.isalpha()):
                value = self._product(value, self._factor())
            else:
                return value

    def _factor(self) -> Quotient:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ExpressionError("nested too deeply")
        negative = False
        while sign := self._accept("+", "-"):
            negative ^= sign == "-"
        value = self._atom()
        if self._accept("^", "**"):
            value = self._power(value, self._factor())
        self._depth -= 1
        return Quotient(-value.above, value.below) if negative else value

    def _atom(self) -> Quotient:
        token = self._next()
        if token is None:
            raise ExpressionError("it ends too early")
        self._position += 1
        if token == "(":
            value = self._sum()
            if not self._accept(")"):
                raise ExpressionError("a parenthesis is not closed")
            return value
        if token in self._variables:
            return Quotient(self._variables[token], self._one)
        if token[0].isdigit() or token[0] == ".":
            number = Fraction(token)
            return self._sized(self._one * number.numerator, self._one * number.denominator)
        raise ExpressionError(f"'{token}' is not expected there")

    def _power(self, base: Quotient, exponent: Quotient) -> Quotient:
        whole = next(
            (e for e in range(-_MAX_EXPONENT, _MAX_EXPONENT + 1) if exponent.above == exponent.below * e), None
        )
        if whole is None:
            raise ExpressionError(f"an exponent is not a whole number from -{_MAX_EXPONENT} to {_MAX_EXPONENT}")
        value = Quotient(self._one, self._one)
        for _ in range(abs(whole)):
            value = self._product(value, base)
        return value if whole >= 0 else self._inverse(value)

    def _product(self, left: Quotient, right: Quotient) -> Quotient:
        return self._sized(self._times(left.above, right.above), self._times(left.below, right.below))

    def _inverse(self, value: Quotient) -> Quotient:
        if not value.above:
            raise ExpressionError("it divides by zero")
        return Quotient(value.below, value.above)

    def _times(self, left: Any, right: Any) -> Any:
        self._work += len(left) * len(right)
        if self._work > _MAX_WORK:
            raise ExpressionError("too much work")
        return left * right

    def _sized(self, above: Any, below: Any) -> Quotient:
        for polynomial in (above, below):
            if polynomial and max(sum(powers) for powers in polynomial) > _MAX_DEGREE:
                raise ExpressionError(f"its degree exceeds {_MAX_DEGREE}")
            if any(max(c.numerator.bit_length(), c.denominator.bit_length()) > _MAX_BITS for c in polynomial.values()):
                raise ExpressionError("its numbers are too large")
        return Quotient(above, below)


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError(f"'{text[position:].lstrip()[0]}' is not expected there")
        tokens.append(match[match.lastindex or 0])
        position = match.end()
    return tokens
