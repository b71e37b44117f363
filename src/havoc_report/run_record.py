"""Everything that the page about one training run says, as plain frozen values.

Whoever ran the training fills it in; the page measures nothing itself. None means "not measured" and is
shown as a dash. Fractions are from 0 to 1, times in seconds, sizes in bytes, losses in nats per token.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Where it ran."""

    processor: str
    cores: int
    memory_bytes: int
    torch_version: str
    device: str
    dtype: str
    python_version: str = ""
    operating_system: str = ""


@dataclass(frozen=True)
class ModelFacts:
    """What was trained."""

    parameters: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    vocabulary: int
    context_tokens: int


@dataclass(frozen=True)
class SourceFacts:
    """One source of text. `tokens` are its training tokens; `epochs` may be less than one."""

    name: str
    group: str
    documents: int
    bytes: int
    tokens: int
    licence: str
    planned_weight: float
    realised_share: float | None
    epochs: float | None
    validation_bytes: int


@dataclass(frozen=True)
class TrainingCurve:
    """One entry a completed update in every list; NaN where something was not measured, an empty list if it never was.

    Raises:
        ValueError: a list is neither empty nor as long as `steps`.
    """

    steps: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    learning_rate: tuple[float, ...] = ()
    tokens_per_s: tuple[float, ...] = ()
    grad_norm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("loss", "learning_rate", "tokens_per_s", "grad_norm"):
            values: tuple[float, ...] = getattr(self, name)
            if values and len(values) != len(self.steps):
                raise ValueError(f"{name}: {len(values)} values for {len(self.steps)} steps")


@dataclass(frozen=True)
class GroupCurve:
    """Held-out text of one group, as many values as the validation has steps; perplexity is per token."""

    group: str
    bits_per_byte: tuple[float, ...]
    perplexity: tuple[float, ...]


@dataclass(frozen=True)
class ValidationCurve:
    """Measurements on held-out text during the training.

    Raises:
        ValueError: a group has more or fewer values than there are steps.
    """

    steps: tuple[int, ...] = ()
    groups: tuple[GroupCurve, ...] = ()

    def __post_init__(self) -> None:
        for curve in self.groups:
            if not len(curve.bits_per_byte) == len(curve.perplexity) == len(self.steps):
                found = f"{len(curve.bits_per_byte)} bits per byte and {len(curve.perplexity)} perplexities"
                raise ValueError(f"group {curve.group!r}: {found} for {len(self.steps)} steps")


@dataclass(frozen=True)
class Compressor:
    """Bits per byte of a general compressor: on the text alone, and after reading the training text first."""

    name: str
    alone: float | None
    primed: float | None


@dataclass(frozen=True)
class CompressionRow:
    """Held-out text of one group: `text_bytes` of it, bits per byte of the model with its 95 % interval."""

    group: str
    text_bytes: int
    model: float | None
    low: float | None
    high: float | None
    compressors: tuple[Compressor, ...]


@dataclass(frozen=True)
class Comparison:
    """The model beside general compressors; all rows name the same compressors in the same order.

    Args:
        rows: one a group.
        total: all held-out text. None: worked out from the rows by bytes, then without an interval.
        interval_method: how the 95 % intervals were made.
    """

    rows: tuple[CompressionRow, ...]
    total: CompressionRow | None = None
    interval_method: str = "bootstrap over documents"


@dataclass(frozen=True)
class ExamFamily:
    """Questions of one family: right answers, and the score that guessing gets."""

    name: str
    correct: int
    count: int
    low: float
    high: float
    guess: float


@dataclass(frozen=True)
class ExamPart:
    """Some of the questions: right answers and the 95 % interval of the score."""

    correct: int
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Exam:
    """Verified questions put to the model; `low` and `high` are the 95 % interval of the score."""

    correct: int
    count: int
    score: float
    low: float
    high: float
    guess: float
    families: tuple[ExamFamily, ...] = ()
    interval_method: str = "Wilson"
    touched: int | None = None
    """Questions that were found in the training text; None: it was not looked."""
    untouched: ExamPart | None = None
    """The others, where there are some of both."""


@dataclass(frozen=True)
class SampleText:
    """What the model wrote after a prompt; `settings` says how it was drawn, such as "temperature 0.8, seed 0"."""

    prompt: str
    text: str
    settings: str = ""


@dataclass(frozen=True)
class Speed:
    """`steady` is the median after the warm-up, `overall` counts everything from the first step to the last.

    `goodput` is the share of the training time spent on updates that were kept. `mfu` is the share of the datasheet's peak
    by the model's operations, `hfu` by those of the hardware, recomputation included; `..._measured` the same of the rate
    of matrix products measured at the start.
    """

    steady_tokens_per_s: float | None
    overall_tokens_per_s: float | None
    peak_memory_bytes: int | None
    total_s: float
    goodput: float | None = None
    mfu: float | None = None
    hfu: float | None = None
    mfu_measured: float | None = None
    hfu_measured: float | None = None
    memory_allocated: int | None = None
    memory_reserved: int | None = None
    memory_used: int | None = None


@dataclass(frozen=True)
class StageTime:
    """A stage of the run and the seconds it took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class PlanRow:
    """What the plan said and what came, numbers or words. The unit "bytes" or "s" is written as a size or a duration."""

    what: str
    planned: float | str | None
    actual: float | str | None
    unit: str


@dataclass(frozen=True)
class Reproduction:
    """What somebody needs to run it again and to know that it is the same."""

    config_hash: str
    store_id: str
    chain_hash: str
    seed: int
    version: str = ""


@dataclass(frozen=True)
class RunRecord:
    """One training run.

    Args:
        title: the name of the run.
        started, finished: ISO 8601, shown as they are.
        command: as it was typed.
        tokens_trained: tokens that were learnt from, counted again each time.
        dummy_data: noise was trained on; the page says so above everything else.
        missing_groups: groups of the mixture that had no text, their weight given to the others.
        ending: why it ended before its last step; empty when it did not.
        comparison, exam: None when they were not made.
        stages: of the whole run.
        training_time: of the training alone, by what it went into.
        plan_note: what is to be known about the plan, a sentence or two.
        limits: sentences; empty: those of `limits_of`.
    """

    title: str
    started: str
    finished: str
    command: str
    machine: Machine
    model: ModelFacts
    sources: tuple[SourceFacts, ...]
    tokens_trained: int
    training: TrainingCurve
    validation: ValidationCurve
    speed: Speed
    reproduction: Reproduction
    comparison: Comparison | None = None
    exam: Exam | None = None
    samples: tuple[SampleText, ...] = ()
    stages: tuple[StageTime, ...] = ()
    training_time: tuple[StageTime, ...] = ()
    plan: tuple[PlanRow, ...] = ()
    plan_note: str = ""
    dummy_data: bool = False
    missing_groups: tuple[str, ...] = ()
    ending: str = ""
    limits: tuple[str, ...] = ()
