"""The units that an answer can carry, and how they convert."""

from __future__ import annotations

from typing import NamedTuple


class Unit(NamedTuple):
    """What a unit measures, and how many of the base unit it is."""

    quantity: str
    factor: float


PERCENT = "%"

_UNITS = {
    PERCENT: Unit("ratio", 0.01),
    "percent": Unit("ratio", 0.01),
    **{
        f"{p}m": Unit("length", f)
        for p, f in (("n", 1e-9), ("u", 1e-6), ("m", 1e-3), ("c", 1e-2), ("", 1.0), ("k", 1e3))
    },
    **{f"{p}N": Unit("force", f) for p, f in (("m", 1e-3), ("", 1.0), ("k", 1e3), ("M", 1e6))},
    **{f"{p}Pa": Unit("pressure", f) for p, f in (("", 1.0), ("h", 1e2), ("k", 1e3), ("M", 1e6), ("G", 1e9))},
    "bar": Unit("pressure", 1e5),
    "N/mm^2": Unit("pressure", 1e6),
    "N/m^2": Unit("pressure", 1.0),
    "kN/m^2": Unit("pressure", 1e3),
    "Nm": Unit("moment", 1.0),
    "kNm": Unit("moment", 1e3),
    "Nmm": Unit("moment", 1e-3),
    **{f"{p}g": Unit("mass", f) for p, f in (("u", 1e-9), ("m", 1e-6), ("", 1e-3), ("k", 1.0))},
    "t": Unit("mass", 1e3),
    **{f"{p}s": Unit("time", f) for p, f in (("n", 1e-9), ("u", 1e-6), ("m", 1e-3), ("", 1.0))},
    "min": Unit("time", 60.0),
    "h": Unit("time", 3600.0),
    **{f"{p}J": Unit("energy", f) for p, f in (("m", 1e-3), ("", 1.0), ("k", 1e3), ("M", 1e6))},
    **{f"{p}W": Unit("power", f) for p, f in (("m", 1e-3), ("", 1.0), ("k", 1e3), ("M", 1e6))},
    "m/s": Unit("speed", 1.0),
    "km/h": Unit("speed", 1.0 / 3.6),
    "mm^2": Unit("area", 1e-6),
    "cm^2": Unit("area", 1e-4),
    "m^2": Unit("area", 1.0),
}


def same_unit(first: str, second: str) -> bool:
    """Whether two texts write one unit: "N * m" and "Nm"."""
    return _canonical(first) == _canonical(second)


def conversion(found: str, asked: str | None) -> float | None:
    """What to multiply a value in `found` by to have it in `asked`; None if they do not convert.

    Args:
        found: as read, such as "kN*m"; case matters, mPa is not MPa.
        asked: None for a pure number, which only a percentage converts to.
    """
    if asked is not None and same_unit(found, asked):
        return 1.0
    source = _UNITS.get(_canonical(found))
    target = Unit("ratio", 1.0) if asked is None else _UNITS.get(_canonical(asked))
    if source is None or target is None or source.quantity != target.quantity:
        return None
    return source.factor / target.factor


def _canonical(text: str) -> str:
    # N*m, N m and Nm; N/mm2 and N/mm^2; \% as LaTeX has it.
    joined = "".join(character for character in text.replace("**", "^") if character not in " *\\")
    return joined[:-1] + "^2" if joined.endswith("m2") else joined
