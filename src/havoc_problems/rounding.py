"""Numbers as a careful student writes them: halves away from zero, no minus before a zero."""

from __future__ import annotations

from fractions import Fraction


def rounded(value: Fraction | float | int, decimals: int) -> Fraction:
    """`value` to so many decimals, halves away from zero, exactly.

    Python's `round` sends halves to the even neighbour, and 2.675 as a float to 2.67; schoolbooks do neither.
    """
    scale = 10**decimals
    return Fraction(_units(value, scale), scale)


def decimal_text(value: Fraction | float | int, decimals: int) -> str:
    """`value` with exactly so many decimals: 2.5 -> "2.50"."""
    scale = 10**decimals
    units = _units(value, scale)
    sign = "-" if units < 0 else ""
    whole, rest = divmod(abs(units), scale)
    return f"{sign}{whole}.{rest:0{decimals}d}" if decimals else f"{sign}{whole}"


def _units(value: Fraction | float | int, scale: int) -> int:
    """How many whole 1/scale `value` is, halves away from zero. In integers: Fraction's operators take five times as long."""
    over, under = value.as_integer_ratio()
    units = (2 * abs(over) * scale + under) // (2 * under)
    return units if over >= 0 else -units


def short_text(value: Fraction | float | int, max_decimals: int = 6) -> str:
    """`value` with no more decimals than it needs, at most `max_decimals`: 2.50 -> "2.5", 3.00 -> "3"."""
    text = decimal_text(value, max_decimals)
    return text.rstrip("0").rstrip(".") if "." in text else text


def factor_text(value: Fraction | float | int, max_decimals: int = 6) -> str:
    """`value` as it stands inside a sum or a product: negative numbers in parentheses."""
    text = short_text(value, max_decimals)
    return f"({text})" if text.startswith("-") else text
