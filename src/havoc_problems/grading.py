"""Is this answer right?

The text that is graded comes from a model and may hold anything. It is matched against fixed patterns and read
by a parser of our own; nothing in it is ever executed, and whatever cannot be read is simply wrong.
"""

from __future__ import annotations

import math
import re
import string
from dataclasses import dataclass

from havoc_problems.expressions import ExpressionError, are_equal, letters_of
from havoc_problems.problem import ANSWER_MARKER, Answer
from havoc_problems.units import conversion

MAX_ANSWER_LENGTH = 200
"""Characters after the marker. The answers here have fewer than 40."""

# Signs that people and models write for the ones on the keyboard.
_SAME_SIGNS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2010": "-", "\u2011": "-", "\ufe63": "-", "\uff0d": "-",
        "\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u2217": "*",
        "\u00b5": "u", "\u03bc": "u", "\u00b2": "^2", "\u00b3": "^3",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    }
)  # fmt: skip

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_PLAIN = rf"[-+]?\s?(?:{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
_POWER = r"(?:[eE][-+]?[0-9]{1,4}|\s?[x*]\s?10\s?(?:\^|\*\*)\s?[{(]?\s?[-+]?[0-9]{1,4}\s?[)}]?)"
_NUMBER = re.compile(rf"(?P<above>{_PLAIN})(?P<power>{_POWER})?(?:\s?/\s?(?P<below>{_PLAIN}))?(?P<unit>(?![0-9.,]).*)?")
_LABEL = re.compile(r"(?:d[A-Za-z]{0,2}/d[A-Za-z]|[A-Za-z][A-Za-z']{0,9}(?:\([-A-Za-z0-9 ]{1,9}\))?)\s?=(?!=)\s?")
_LETTER = re.compile(r"[(\[]?(?P<letter>[A-Za-z])[)\].:]{0,2}(?:\s+(?P<rest>.+))?")
_DECIMALS = re.compile(r"[0-9]\.([0-9]+)")


@dataclass(frozen=True)
class Grade:
    """Whether an answer is right, why, and what was taken for the answer (None: there was none)."""

    correct: bool
    reason: str
    extracted: str | None


def extract_answer(text: str) -> str | None:
    """What follows the last "Answer:", to the end of its line, without the spaces around.

    Strict: the marker is written exactly so, and nothing else is taken for an answer. None where the marker is
    missing or nothing follows it.
    """
    _, marker, rest = text.rpartition(ANSWER_MARKER)
    line = rest.split("\n", 1)[0].strip()
    return line if marker and line else None


def grade(answer: Answer, text: str) -> Grade:
    """Grade a reply that ends in "Answer: ...".

    A number may have thousands separators, be a fraction or in scientific notation, and carry a percent sign or
    another unit of the same quantity. A wrong unit is wrong; a missing unit is accepted and taken as the one
    asked for. A choice is its letter, alone or with its text. An expression is right when it is equal exactly.

    Never raises for any text.
    """
    extracted = extract_answer(text)
    if extracted is None:
        return Grade(False, f"nothing follows '{ANSWER_MARKER}'", None)
    if len(extracted) > MAX_ANSWER_LENGTH:
        return Grade(False, f"the answer is longer than {MAX_ANSWER_LENGTH} characters", extracted[:MAX_ANSWER_LENGTH])
    plain = extracted.translate(_SAME_SIGNS).strip(" \t\r$`*").rstrip(".").rstrip()
    judge = {"numeric": _judge_number, "choice": _judge_choice, "symbolic": _judge_expression}[answer.kind]
    correct, reason = judge(answer, plain)
    return Grade(correct, reason, extracted)


def _judge_number(answer: Answer, text: str) -> tuple[bool, str]:
    match = _NUMBER.fullmatch(_without_label(text))
    if match is None:
        return False, "it is not a number"
    value = _read_number(match)
    if value is None:
        return False, "it is not a finite number"
    unit = match["unit"].strip()
    factor = conversion(unit, answer.unit) if unit else 1.0
    if factor is None:
        return (
            False,
            f"the unit '{unit}' is not {answer.unit}" if answer.unit else f"'{unit}' belongs to no pure number",
        )
    return _compare(answer, value * factor, missing_unit=bool(answer.unit) and not unit)


def _compare(answer: Answer, value: float, *, missing_unit: bool) -> tuple[bool, str]:
    truth = answer.value
    if truth is None:
        raise AssertionError("an answer of the kind 'numeric' has a value")
    # float64's own rounding in the conversions; far below any difference that matters.
    allowed = 1e-12 * abs(truth)
    if answer.tolerance > 0.0:
        allowed += answer.tolerance * abs(truth) + 0.5 * 10.0 ** -_decimals(answer.text)
    if not abs(value - truth) <= allowed:
        return False, "the value is wrong"
    return True, f"right; the unit {answer.unit} is missing" if missing_unit else "right"


def _judge_choice(answer: Answer, text: str) -> tuple[bool, str]:
    match = _LETTER.fullmatch(text)
    letters = string.ascii_uppercase[: len(answer.choices)]
    if match is None or match["letter"].upper() not in letters:
        return False, f"it is none of the letters {', '.join(letters)}"
    letter, rest = match["letter"].upper(), match["rest"]
    if rest and rest.casefold().split() != answer.choices[letters.index(letter)].casefold().split():
        return False, f"what follows the letter is not choice {letter}"
    return (True, "right") if letter == answer.text else (False, "another choice is right")


def _judge_expression(answer: Answer, text: str) -> tuple[bool, str]:
    try:
        equal = are_equal(answer.text, _without_label(text), letters=letters_of(answer.text))
    except ExpressionError as error:
        return False, f"it cannot be read: {error}"
    return (True, "right") if equal else (False, "the expression is wrong")


def _without_label(text: str) -> str:
    # "x = 3" and "f'(x) = 6x + 2" answer as well as "3" and "6x + 2".
    label = _LABEL.match(text)
    return text[label.end() :] if label else text


def _read_number(match: re.Match[str]) -> float | None:
    # At most MAX_ANSWER_LENGTH characters, so float() is quick; 1e999 becomes an infinity and is refused.
    value = float(_digits(match["above"]))
    if match["power"]:
        power = re.sub(r"^\s?[x*]\s?10\s?(?:\^|\*\*)|[^-+0-9]", "", match["power"])
        value = float(f"{_digits(match['above'])}e{power}")
    if match["below"]:
        divisor = float(_digits(match["below"]))
        value = value / divisor if divisor else math.inf
    return value if math.isfinite(value) else None


def _digits(text: str) -> str:
    return re.sub(r"[,\s]", "", text)


def _decimals(text: str) -> int:
    match = _DECIMALS.search(text)
    return len(match[1]) if match else 0
