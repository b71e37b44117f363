"""The model card: what it is, what it learnt from, how well it does, what it cannot do, and what was proven of the export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from havoc_core.chat_format import has_chat_tokens
from havoc_core.costs import num_parameters
from havoc_inference.export.comparison import Comparison
from havoc_inference.export.exportable import architecture
from havoc_inference.load import CheckpointContents


@dataclass(frozen=True)
class SourceBill:
    """Text that the model learnt from."""

    name: str
    group: str
    documents: int
    text_bytes: int
    tokens: int | None
    """None: they were not counted."""
    licences: Mapping[str, int]
    """Licence -> documents; "unknown" where none was stated."""


@dataclass(frozen=True)
class ScoreLine:
    """One score, with its 95 % interval where it has one."""

    task: str
    group: str
    metric: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class CardFacts:
    """What the run's folder says of the model; gathered by the caller."""

    title: str
    sources: tuple[SourceBill, ...] = ()
    """Empty: the text's records are not there."""
    scores: tuple[ScoreLine, ...] = ()
    """Empty: it was not evaluated."""
    scored_tokens: int | None = None
    """Tokens that it was trained on; None: unknown."""
    imported: bool = False
    """Whether its weights came from elsewhere by `havoc import`, and were not trained since."""

    @property
    def origin(self) -> str:
        """What it was made with."""
        if self.imported:
            return "another program; imported by HAVOC, and its training is not recorded here"
        return "HAVOC; what this run learnt from is listed below, as far as it is recorded"


def model_card(
    contents: CheckpointContents, facts: CardFacts, *, usage: str, stored: str, comparisons: Sequence[Comparison]
) -> str:
    """The card in Markdown, with the lines that model hubs read in front.

    Args:
        contents: the checkpoint.
        facts: of its run.
        usage: Markdown; how to call the export.
        stored: a sentence on the numbers that the weights are stored as.
        comparisons: what was proven of the export.
    """
    parts = [
        "---\nlanguage: en\npipeline_tag: text-generation\ntags:\n- havoc\n---",
        f"# {facts.title}",
        *(
            ["**DUMMY DATA: this model learnt from random words.** It is good for tests of software alone."]
            * contents.dummy_data
        ),
        _what_it_is(contents, facts, stored),
        f"## Use\n\n{usage}",
        _data(facts),
        _evaluation(facts),
        _limits(contents),
        _proof(comparisons),
    ]
    return "\n\n".join(parts) + "\n"


def _what_it_is(contents: CheckpointContents, facts: CardFacts, stored: str) -> str:
    config = contents.config
    tokens = "" if facts.scored_tokens is None else f", {facts.scored_tokens:,} tokens"
    rows = [
        ("architecture", {"qwen3": "Qwen3", "llama": "Llama"}[architecture(config)]),
        ("parameters", f"{num_parameters(config):,}"),
        ("context", f"{config.max_seq_len:,} tokens"),
        ("vocabulary", f"{contents.tokenizer.vocab_size:,} tokens in {config.vocab_size:,} rows"),
        ("trained", f"{contents.step:,} updates{tokens}"),
        ("weights", stored),
        ("made with", facts.origin),
    ]
    return _table(("", ""), rows)


def _data(facts: CardFacts) -> str:
    if not facts.sources:
        return (
            "## Data\n\nThe records of the text are not beside the checkpoint: what it learnt from is not listed here."
        )
    rows = [
        (
            source.name,
            source.group,
            f"{source.documents:,}",
            f"{source.text_bytes:,}",
            "" if source.tokens is None else f"{source.tokens:,}",
        )
        for source in facts.sources
    ]
    licences: dict[str, int] = {}
    for source in facts.sources:
        for name, count in source.licences.items():
            licences[name or "unknown"] = licences.get(name or "unknown", 0) + count
    ordered = sorted(licences.items(), key=lambda item: (-item[1], item[0]))
    return (
        f"## Data\n\n{_table(('source', 'group', 'documents', 'bytes of text', 'tokens'), rows)}\n\n"
        f"Licences as the texts state them:\n\n{_table(('licence', 'documents'), [(n, f'{c:,}') for n, c in ordered])}\n\n"
        "The export states no licence of the model: choose one that the texts' licences allow."
    )


def _evaluation(facts: CardFacts) -> str:
    if not facts.scores:
        return "## Evaluation\n\nThis model was not evaluated. `havoc evaluate` does it."
    rows = [
        (
            line.task,
            line.group,
            line.metric,
            f"{line.value:.4f}",
            "" if line.low is None or line.high is None else f"{line.low:.4f} to {line.high:.4f}",
        )
        for line in facts.scores
    ]
    return (
        "## Evaluation\n\nBy `havoc evaluate`, of the run's last model; intervals are 95 %.\n\n"
        f"{_table(('task', 'group', 'metric', 'value', 'interval'), rows)}"
    )


def _limits(contents: CheckpointContents) -> str:
    limits = [
        "It completes text as its training text goes on. What it states may be wrong, numbers above all: check them.",
        f"It was trained on rows of at most {contents.config.max_seq_len:,} tokens; beyond them nothing is known of it.",
        "It was not tuned to refuse anything, and repeats the faults and the slant of its text.",
        "Other software finds special tokens in a text (`<|end|>` typed by a user ends a message there); HAVOC takes them for "
        "characters. With transformers, `tokenizer(text, split_special_tokens=True)` does so too.",
    ]
    if not has_chat_tokens(contents.tokenizer):
        limits.append("Its tokenizer has no tokens for dialogs: there is no chat template.")
    return "## Limits\n\n" + "\n".join(f"* {limit}" for limit in limits)


def _proof(comparisons: Sequence[Comparison]) -> str:
    parts = ["## Proof\n\nMeasured when this was exported, against the model that was trained, computed in float32."]
    for comparison in comparisons:
        if not comparison.made:
            parts.append(f"**Not compared with {comparison.runtime}**: {comparison.how}")
            continue
        rows = [(figure.what, figure.text()) for figure in comparison.figures]
        parts.append(f"**{comparison.runtime}.** {comparison.how}\n\n{_table(('', 'measured'), rows)}")
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
