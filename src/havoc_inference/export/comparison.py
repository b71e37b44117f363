"""What came out of comparing an export with the model it came from."""

from __future__ import annotations

from dataclasses import dataclass

from havoc_core.errors import CheckpointError


@dataclass(frozen=True)
class Figure:
    """One number that was measured."""

    what: str
    """In words, such as "largest difference of a logit"."""
    measured: float
    limit: float | None = None
    """The largest that is agreement; None: the number is only reported."""

    @property
    def holds(self) -> bool:
        """Whether it is within its limit; NaN is not."""
        return self.limit is None or self.measured <= self.limit

    def text(self) -> str:
        """ "2.1e-06 (limit 1e-04)", whole numbers as such."""
        asked = "" if self.limit is None else f" (limit {_short(self.limit)})"
        return f"{_short(self.measured)}{asked}"


@dataclass(frozen=True)
class Comparison:
    """A runtime that loaded the export, or the reason why it did not."""

    runtime: str
    """With its version where it was run, such as "transformers 5.23.0"."""
    how: str
    """A sentence or two: what was compared with what; or how to have the comparison made."""
    figures: tuple[Figure, ...] = ()
    """Empty: it was not made."""

    @property
    def made(self) -> bool:
        """Whether the runtime was there."""
        return bool(self.figures)

    def lines(self) -> list[str]:
        """For the screen."""
        if not self.made:
            return [f"NOT compared with {self.runtime}: {self.how}"]
        return [f"{self.runtime}: {figure.what}: {figure.text()}" for figure in self.figures]


def require_agreement(comparison: Comparison) -> None:
    """An export that says something else than its model is an error.

    Raises:
        CheckpointError: a figure is beyond its limit; names all that are.
    """
    wrong = [f"{figure.what} {figure.text()}" for figure in comparison.figures if not figure.holds]
    if wrong:
        raise CheckpointError(
            comparison.runtime,
            f"does not agree with the checkpoint: {'; '.join(wrong)}.",
            "No export was written. Please report it with these figures and the version of that software.",
        )


def _short(value: float) -> str:
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.1e}" if abs(value) < 0.01 else f"{value:.4f}"
