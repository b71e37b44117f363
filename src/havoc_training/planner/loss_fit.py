"""What loss to expect, from finished runs of the user's own: `havoc plan --fit runs/a runs/b ...`.

    L(N, D) = E + A / N^alpha + B / D^beta      N parameters, D learnt tokens (Hoffmann et al. 2022, arXiv:2203.15556, eq. 10)

Fitted to log L with a Huber loss from several starts, as there; Levenberg-Marquardt in numpy, so that training needs no
scipy. Runs of one size give L(D) = E + B / D^beta, which says nothing about other sizes. Imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from havoc_core.config import TrainingConfig
from havoc_core.config_files import from_json
from havoc_core.costs import num_parameters
from havoc_core.errors import DataError
from havoc_core.run_files import RunFiles
from havoc_core.statistics import interval_of_draws

Array = NDArray[np.float64]

CONFIDENCE = 0.90
"""Of the interval."""
LEAST_RUNS, LEAST_SIZES, LEAST_LENGTHS = 6, 3, 3
"""Runs and sizes for the fit in N and D; different lengths for either fit."""
FAR = 10.0
"""Times beyond the runs in N or D from which an expectation says so."""

_HUBER = 0.01
"""A run more than 1 % off its place counts as an outlier, and pulls no harder than one that is 1 % off."""
_SEED_SPREAD, _SEED_RUNS = 0.005, 2.0
"""Spread of log L between runs that differ in the seed alone, and the number of runs that this assumption counts as. Few
runs lie closer to their own curve than the next run will; with three runs and three constants they lie on it."""
_EXPONENTS = (0.05, 1.5)
"""Range of alpha and beta; published ones lie between 0.28 and 0.5."""
_SAME_SIZE = 0.01
"""Relative difference in N up to which two models are of one size."""
_NUM_DRAWS, _SEED = 400, 20220329
_ITERATIONS = 60


@dataclass(frozen=True)
class FinishedRun:
    """One point of the fit: a run that made all its steps."""

    name: str
    """Its folder, as it was given."""
    parameters: int
    """N, the embedding and the head included."""
    tokens: int
    """D, counted again each time they were learnt."""
    loss: float
    """On the held-out text after the last step, nats a token."""
    tokenizer: str
    store_id: str
    plan_id: str


@dataclass(frozen=True)
class Expectation:
    """A loss that nobody measured yet, in nats a token, with the 90 % interval for one run."""

    loss: float
    low: float
    high: float
    note: str
    """What it rests on, and whether it lies far beyond that."""


@dataclass(frozen=True)
class LossFit:
    """L(N, D) or, from runs of one size, L(D); see `fit_runs`."""

    irreducible: float
    """E, nats a token."""
    size_coefficient: float
    """A; 0 where the runs are of one size."""
    size_exponent: float
    """alpha; 0 where the runs are of one size."""
    data_coefficient: float
    """B."""
    data_exponent: float
    """beta."""
    spread: float
    """Of log L around the curve, which is about the relative spread of L."""
    runs: tuple[FinishedRun, ...]
    _curve: _Curve = field(repr=False, compare=False)
    _draws: Array = field(repr=False, compare=False)
    """[1 + _NUM_DRAWS, constants]: this fit, and the fits to runs that were drawn anew."""
    _noise: Array = field(repr=False, compare=False)
    """[_NUM_DRAWS], how far one more run lies from its curve, in log L."""

    def expect(self, *, parameters: int, tokens: int) -> Expectation:
        """The loss of a run of this size and length, trained like the runs of the fit.

        Raises:
            DataError: the runs are of one size, and this is another.
        """
        if not self._curve.has_size and not _same_size(parameters, self.runs[0].parameters):
            raise DataError(
                "--fit",
                f"the runs are all of {_count(self.runs[0].parameters)} parameters and say nothing about "
                f"{_count(parameters)}.",
                f"Add runs of other sizes: at least {LEAST_RUNS} runs of {LEAST_SIZES} sizes.",
            )
        sizes, lengths = np.array([float(parameters)]), np.array([float(tokens)])
        logs = self._curve.log_loss(self._draws, sizes, lengths)[0][:, 0]
        interval = interval_of_draws(np.exp(logs[1:] + self._noise), confidence=CONFIDENCE)
        # The draws scatter around the fit; where they are skewed the fit itself still lies in its interval.
        loss = math.exp(float(logs[0]))
        return Expectation(loss, min(interval.low, loss), max(interval.high, loss), self._note(parameters, tokens))

    def _note(self, parameters: int, tokens: int) -> str:
        text = f"fitted on {len(self.runs)} runs"
        pairs = (
            (parameters, "parameters", [r.parameters for r in self.runs]),
            (tokens, "tokens", [r.tokens for r in self.runs]),
        )
        far = []
        for wanted, what, seen in pairs:
            if wanted > FAR * max(seen):
                far.append(f"{wanted / max(seen):,.0f} times the most {what} of any of them ({_count(max(seen))})")
            elif wanted * FAR < min(seen):
                far.append(f"a {min(seen) / wanted:,.0f}th of the fewest {what} of any of them ({_count(min(seen))})")
        return f"{text}; extrapolated far: {' and '.join(far)}" if far else text


def fit_runs(paths: Sequence[Path]) -> LossFit:
    """Fit the loss of finished runs; the same runs give the same fit.

    From six runs of three sizes on, L(N, D) is fitted; from three runs of one size with different lengths on, L(D). The
    interval comes from a bootstrap over the points: each is drawn anew around its place on the curve with the spread of the
    residuals, and the curve is fitted again. (Leaving points out instead would leave fewer than there are constants.)

    Args:
        paths: run folders, each with checkpoints/ and logs/.

    Raises:
        DataError: a run is not finished or cannot be compared with the others, or there are too few.
    """
    runs = tuple(read_run(path) for path in paths)
    _refuse_what_cannot_be_compared(runs)
    _refuse_too_few(runs)
    return fit_points(runs)


def fit_points(runs: Sequence[FinishedRun]) -> LossFit:
    """Fit runs that were read and found comparable; as `fit_runs`."""
    sizes, lengths = (
        np.array([float(v) for v in values]) for values in zip(*((r.parameters, r.tokens) for r in runs), strict=True)
    )
    losses = np.log([run.loss for run in runs])
    curve = _Curve(has_size=not _one_size(runs), size=_middle(sizes), length=_middle(lengths))
    starts = curve.starts(float(np.exp(losses).min()))
    fitted, cost = _descend(curve, starts, sizes, lengths, np.tile(losses, (len(starts), 1)))
    best = fitted[np.argmin(cost)]
    placed = curve.log_loss(best[None], sizes, lengths)[0][0]
    freedom = _SEED_RUNS + len(runs) - len(best)
    spread = math.sqrt((_SEED_RUNS * _SEED_SPREAD**2 + float(((losses - placed) ** 2).sum())) / freedom)
    generator = np.random.default_rng(_SEED)
    moved = placed + spread * generator.standard_t(freedom, (_NUM_DRAWS, len(runs)))
    draws, _ = _descend(curve, np.tile(best, (_NUM_DRAWS, 1)), sizes, lengths, moved)
    e, b, beta, *of_size = best.tolist()
    a, alpha = of_size or (-math.inf, 0.0)
    return LossFit(
        irreducible=math.exp(e),
        size_coefficient=math.exp(a + alpha * math.log(curve.size)),
        size_exponent=alpha,
        data_coefficient=math.exp(b + beta * math.log(curve.length)),
        data_exponent=beta,
        spread=spread,
        runs=tuple(runs),
        _curve=curve,
        _draws=np.concatenate([best[None], draws]),
        _noise=spread * generator.standard_t(freedom, _NUM_DRAWS),
    )


def read_run(path: Path) -> FinishedRun:
    """Size, length and last validation loss of a finished run.

    Raises:
        DataError: there is no run, it is not finished, or its loss is not known.
        ConfigError: its settings cannot be read.
    """
    files = RunFiles.of(TrainingConfig(run_dir=str(path)))
    folders = [
        (int(m[1]), f) for f in files.checkpoints.glob("*") if (m := re.fullmatch(r"checkpoint_step_(\d+)", f.name))
    ]
    if not folders:
        raise DataError(
            str(path), f"holds no {files.checkpoints.name}/checkpoint_step_N.", "Give folders of finished runs."
        )
    step, newest = max(folders)
    try:
        state = json.loads((newest / "training_state.json").read_text(encoding="utf-8"))
        settings = (newest / "config.json").read_text(encoding="utf-8")
        identity, total = state["identity"], int(state["resolved"]["total_steps"])
        tokens = int(state["scored_tokens"])
        known = {name: str(identity[name]) for name in ("tokenizer", "store_id", "plan_id")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(str(newest), f"cannot be read ({error}).", "Leave this run out of --fit.") from None
    if step < total:
        raise DataError(
            str(path),
            f"stopped after step {step:,} of {total:,}.",
            "Finish it with --resume auto, or leave it out of --fit.",
        )
    loss = _last_loss(files.metrics, step)
    model = from_json(settings, where=str(newest / "config.json")).model
    return FinishedRun(str(path), num_parameters(model), tokens, loss, **known)


def _last_loss(metrics: Path, step: int) -> float:
    found: list[Any] = []
    if metrics.is_file():
        for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # a kill cut the line short
                values = json.loads(line)
                found += [values["loss"]] if (values["kind"], values["step"]) == ("validation", step) else []
    if not found or not isinstance(found[-1], int | float) or not found[-1] > 0.0:
        raise DataError(
            str(metrics), f"has no validation loss after the last step, {step:,}.", "Leave this run out of --fit."
        )
    return float(found[-1])


def _refuse_what_cannot_be_compared(runs: Sequence[FinishedRun]) -> None:
    seen: set[Path] = set()
    for run in runs:
        if Path(run.name).resolve() in seen:
            raise DataError("--fit", f"{run.name} is named twice.", "Name each run once: it would count double.")
        seen.add(Path(run.name).resolve())
        for what, words in (
            ("tokenizer", "tokenizer"),
            ("store_id", "token store"),
            ("plan_id", "data mixture or row length"),
        ):
            if getattr(run, what) != getattr(runs[0], what):
                raise DataError(
                    run.name,
                    f"its losses cannot be compared with those of {runs[0].name}: another {words}.",
                    "Fit runs of one tokenizer on one text only; leave it out of --fit.",
                )


def _refuse_too_few(runs: Sequence[FinishedRun]) -> None:
    lengths = len({run.tokens for run in runs})
    needed = f"runs of one size with {LEAST_LENGTHS} different lengths"
    if not runs or _one_size(runs):
        if lengths < LEAST_LENGTHS:
            raise DataError(
                "--fit",
                f"{len(runs)} run(s) of one size with {lengths} different length(s) cannot be fitted.",
                f"Needed are {needed}.",
            )
        return
    sizes = _num_sizes(runs)
    if len(runs) < LEAST_RUNS or sizes < LEAST_SIZES or lengths < LEAST_LENGTHS:
        raise DataError(
            "--fit",
            f"{len(runs)} runs of {sizes} sizes and {lengths} lengths are too few for a fit in size and length.",
            f"Needed are {LEAST_RUNS} runs of {LEAST_SIZES} sizes and {LEAST_LENGTHS} lengths; or give {needed}.",
        )
    correlation = np.corrcoef(np.log([run.parameters for run in runs]), np.log([run.tokens for run in runs]))[0, 1]
    if abs(correlation) > 0.99:
        raise DataError(
            "--fit",
            "the runs' sizes and lengths rise together, so that the effects of the two cannot be told apart.",
            "Add runs of one size with different lengths.",
        )


@dataclass(frozen=True)
class _Curve:
    """The formula, in constants that are easy to descend in: logarithms of E and of each term in the middle of the runs.

    Constants: [log E, log(B / length^beta), beta], and with sizes also [log(A / size^alpha), alpha].
    """

    has_size: bool
    size: float
    length: float

    def log_loss(self, constants: Array, sizes: Array, lengths: Array) -> tuple[Array, Array]:
        """log L and its derivatives.

        Args:
            constants: [R, P].
            sizes, lengths: [n].

        Returns:
            [R, n] and [R, n, P].
        """
        away = [np.log(lengths / self.length)] + ([np.log(sizes / self.size)] if self.has_size else [])
        logs = [np.broadcast_to(constants[:, :1], (len(constants), len(lengths)))]
        logs += [constants[:, 2 * i + 1, None] - constants[:, 2 * i + 2, None] * x for i, x in enumerate(away)]
        terms = np.exp(np.stack(logs, -1))
        total = terms.sum(-1)
        shares = terms / total[..., None]
        slopes = [shares[..., 0]]
        for i, x in enumerate(away):
            slopes += [shares[..., i + 1], -shares[..., i + 1] * x]
        return np.log(total), np.stack(slopes, -1)

    def starts(self, lowest: float) -> Array:
        """[R, P]: exponents on a grid, a large and a small part of the lowest loss that cannot be learnt."""
        exponents = (0.1, 0.3, 0.6, 1.0)
        rows = []
        for part in (0.3, 0.8):
            rest = math.log((1.0 - part) * lowest / (2.0 if self.has_size else 1.0))
            for beta in exponents:
                one = [math.log(part * lowest), rest, beta]
                rows += [[*one, rest, alpha] for alpha in exponents] if self.has_size else [one]
        return np.array(rows)

    def clipped(self, constants: Array) -> Array:
        """The nearest constants inside the ranges; E and the terms from 1e-4 to 1e4 nats."""
        out = np.clip(constants, math.log(1e-4), math.log(1e4))
        out[:, 2::2] = np.clip(constants[:, 2::2], *_EXPONENTS)
        return out


def _descend(curve: _Curve, start: Array, sizes: Array, lengths: Array, losses: Array) -> tuple[Array, Array]:
    """Levenberg-Marquardt on the Huber loss, R fits at once.

    Args:
        start: [R, P].
        losses: [R, n], logarithms.

    Returns:
        Constants [R, P] and costs [R].
    """
    constants, damping = curve.clipped(start), np.full(len(start), 1e-2)
    placed, slopes = curve.log_loss(constants, sizes, lengths)
    cost = _huber(losses - placed)
    for _ in range(_ITERATIONS):
        off = losses - placed
        weights = np.minimum(1.0, _HUBER / np.maximum(np.abs(off), 1e-12))
        weighted = np.swapaxes(slopes * weights[..., None], 1, 2)
        curvature = weighted @ slopes
        diagonal = np.einsum("rii->ri", curvature)
        diagonal *= 1.0 + damping[:, None]
        diagonal += 1e-9  # a term that has vanished has no slope
        moves = np.linalg.solve(curvature, weighted @ off[..., None])[..., 0]
        tried = curve.clipped(constants + np.clip(moves, -1.0, 1.0))
        tried_placed, tried_slopes = curve.log_loss(tried, sizes, lengths)
        tried_cost = _huber(losses - tried_placed)
        better = tried_cost < cost
        constants = np.where(better[:, None], tried, constants)
        placed, slopes = (
            np.where(better[:, None], tried_placed, placed),
            np.where(better[:, None, None], tried_slopes, slopes),
        )
        cost = np.where(better, tried_cost, cost)
        damping = np.clip(np.where(better, damping / 4.0, damping * 4.0), 1e-9, 1e6)
    return constants, cost


def _huber(off: Array) -> Array:
    size = np.abs(off)
    out: Array = np.where(size <= _HUBER, 0.5 * size**2, _HUBER * (size - 0.5 * _HUBER)).sum(-1)
    return out


def _middle(values: Array) -> float:
    return float(np.exp(np.log(values).mean()))


def _same_size(one: int, other: int) -> bool:
    return abs(one - other) <= _SAME_SIZE * other


def _one_size(runs: Sequence[FinishedRun]) -> bool:
    return all(_same_size(run.parameters, runs[0].parameters) for run in runs)


def _num_sizes(runs: Sequence[FinishedRun]) -> int:
    sizes = sorted(run.parameters for run in runs)
    return 1 + sum(not _same_size(larger, smaller) for smaller, larger in pairwise(sizes))


def _count(number: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
