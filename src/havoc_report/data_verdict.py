"""What the figures of a data card say, in plain words: how much, in what state, enough for what, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from havoc_report.data_record import FATES, DataCard, TokenRow, TokensCard
from havoc_report.data_rules import (
    ESTIMATED_BYTES_PER_TOKEN,
    FREE_EPOCHS,
    MAX_EPOCHS,
    USEFUL_EPOCHS,
    effective_tokens,
    estimated_tokens,
    supported_parameters,
)
from havoc_report.tables import count, data_size, percent, share_of, significant

FATE_WORDS = {
    "kept": "kept",
    "held_out": "held out",
    "duplicate": "duplicates",
    "near_duplicate": "near-duplicates",
    "contaminated": "exam questions",
    "rejected": "rejected by a rule",
    "unreadable": "unreadable",
}
"""Fate -> how it is called where a reader sees it."""

ALARMING_RATE = 0.3
"""From this share of the documents on, a rule that drops text says more about the rule than about the text."""
LOSS_LIMIT = 0.01
"""Share of the text that the rules may take from a source of the domain before the card speaks of it."""

SAID = "Said while the text was read"
"""Title of what is not a finding of the card but was handed to it."""

_SHOWN_NAMES = 4


@dataclass(frozen=True)
class Finding:
    """Something that the reader has to know: what it is, and what to do about it."""

    kind: Literal["info", "warning", "danger"]
    title: str
    text: str


def plural(number: float, one: str, many: str = "") -> str:
    """1 document, 2 documents."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def short_count(value: float) -> str:
    """A count as a person says it: 950, 12,300, 4.56 million, 7.01 billion."""
    for limit, word in ((1e12, " trillion"), (1e9, " billion"), (1e6, " million")):
        if value >= limit:
            return significant(value / limit) + word
    return count(value)


def names_of(names: Sequence[str]) -> str:
    """A, B, C, D and 3 more."""
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {count(more)} more" if more > 0 else "")


def tokens_of(card: DataCard) -> TokensCard:
    """The text as tokens; estimated from the bytes where there was no tokenizer yet."""
    if card.tokens is not None:
        return card.tokens
    sizes = [(source, source.text_bytes_of("kept")) for source in card.sources]
    rows = tuple(TokenRow(source.name, source.group, estimated_tokens(size), size) for source, size in sizes)
    return TokensCard(rows, estimated=True)


def volume_verdict(card: DataCard) -> str:
    """How much text there is."""
    if not card.sources:
        return "There is no source of text: nothing was found to read."
    files = sum(each.files for source in card.sources for each in source.formats)
    documents = sum(source.documents_of("kept") for source in card.sources)
    kept, held = (sum(source.text_bytes_of(fate) for source in card.sources) for fate in ("kept", "held_out"))
    read = f"{data_size(card.input_bytes)}" + (f" in {plural(files, 'file')}" if files else "")
    if not documents:
        return f"Of {read} from {plural(len(card.sources), 'source')} no document is left to train on."
    said = (
        f"{read} from {plural(len(card.sources), 'source')} {'give' if files != 1 else 'gives'} "
        f"{plural(documents, 'document')} with {data_size(kept)} of text to train on"
    )
    return said + (f", and {data_size(held)} held out for measuring." if held else ".")


def state_verdict(card: DataCard) -> str:
    """In what state the text is, and whether every byte is accounted for."""
    whole = card.input_bytes
    if not whole:
        return "Nothing was read."
    used = card.bytes_of("kept") + card.bytes_of("held_out")
    losses = sorted(((card.bytes_of(fate), fate) for fate in FATES[2:]), key=lambda loss: (-loss[0], loss[1]))
    said = f"{share_of(used, whole)} of the bytes are used"
    if losses[0][0]:
        largest = [f"{FATE_WORDS[fate]} {share_of(size, whole)}" for size, fate in losses[:2] if size]
        said += f"; most of the rest went to: {', '.join(largest)}."
    else:
        said += "; nothing was left out."
    if card.ledger_closes:
        return f"{said} The ledger closes: each of {count(whole)} bytes has exactly one fate."
    return f"{said} The ledger does not close: see below."


def use_verdict(card: DataCard) -> str:
    """What the text suffices for, by the rules that the card cites."""
    tokens = tokens_of(card)
    unique = sum(row.tokens for row in tokens.rows)
    if not unique:
        return "There are no tokens to train on."
    about = f"It is about {short_count(unique)} tokens" if tokens.estimated else f"It is {short_count(unique)} tokens"
    if tokens.estimated:
        about += f" (estimated at {ESTIMATED_BYTES_PER_TOKEN:g} bytes each: there is no tokenizer yet)"
    once, four = supported_parameters(unique, 1.0), supported_parameters(unique)
    said = (
        f"{about}: enough for a model of {short_count(once)} parameters that reads it once, "
        f"or of {short_count(four)} that reads it four times."
    )
    planned = tokens.model_parameters
    if planned is None:
        return said
    if planned <= four:
        return f"{said} The planned model has {short_count(planned)}: the text suffices."
    return f"{said} The planned model has {short_count(planned)}: the text is too little for it."


def trouble_verdict(card: DataCard) -> str:
    """How much of what was found has to be dealt with before training."""
    kinds = [finding.kind for finding in findings(card)]
    bad = kinds.count("danger")
    doubtful = len(kinds) - bad
    if not bad and not doubtful:
        return "Nothing was found that stands in the way of training on it."
    parts = [f"{plural(bad, 'thing')} must be dealt with before training"] if bad else []
    parts += [f"{plural(doubtful, 'thing')} should be looked at"] if doubtful else []
    return f"{' and '.join(parts)}: see below."


def lead_sentences(card: DataCard) -> tuple[str, ...]:
    """What a hurried reader reads: how much, in what state, enough for what, and what is wrong."""
    return (volume_verdict(card), state_verdict(card), use_verdict(card), trouble_verdict(card))


def findings(card: DataCard) -> tuple[Finding, ...]:
    """What is wrong and what to do, the worst first; empty where nothing is."""
    found = [
        *_ledger_findings(card),
        *_epoch_findings(card),
        *_rule_findings(card),
        *_loss_findings(card),
        *_text_findings(card),
        *(Finding("warning", SAID, text) for text in card.warnings),
    ]
    order = {"danger": 0, "warning": 1, "info": 2}
    return tuple(sorted(found, key=lambda each: order[each.kind]))


def _ledger_findings(card: DataCard) -> list[Finding]:
    found = []
    for source in card.sources:
        apart = source.input_bytes - sum(fate.bytes for fate in source.fates)
        if apart:
            what = "have no fate" if apart > 0 else "are counted more than once"
            text = (
                f"{plural(abs(apart), 'byte')} of {count(source.input_bytes)} {what}. The files changed while they were "
                "read, or this is an error of HAVOC. Build again; if it stays, report it with this card."
            )
            found.append(Finding("danger", f"The ledger of {source.name} does not close", text))
    if card.sources and not card.bytes_of("kept"):
        text = "Look at the rules and at the list of unreadable files below, and at data.data_dir in the settings."
        found.append(Finding("danger", "No text is left", text))
    return found


def _epoch_findings(card: DataCard) -> list[Finding]:
    tokens = tokens_of(card)
    found = []
    for row in tokens.rows:
        if row.epochs is None or row.planned_tokens is None or row.verdict == "fine":
            continue
        times = significant(row.epochs)
        worth = effective_tokens(row.tokens, row.epochs) / row.tokens
        title = f"{row.source} would be read {times} times"
        said = f"That is worth {significant(worth)} times its tokens in fresh text, and no more. "
        free = short_count(FREE_EPOCHS * row.tokens)
        remedy = (
            f"Add text, give it less weight (data.weights, data.{row.group}_ratio), or train on fewer tokens: "
            f"{FREE_EPOCHS:g} readings are {free} tokens."
        )
        if row.verdict == "warning":
            found.append(Finding("warning", title, said + remedy))
        elif row.verdict == "strong warning":
            strong = f"Beyond {USEFUL_EPOCHS:g} readings hardly anything is learnt, and text is memorised instead. "
            found.append(Finding("danger", f"{title}: far too often", strong + said + remedy))
        elif tokens.allow_repeats:
            allowed = (
                f"Readings beyond {MAX_EPOCHS:g} teach nothing more; data.allow_repeats allows them all the same. "
            )
            found.append(Finding("danger", f"{title}: allowed, not wise", allowed + said + remedy))
        else:
            refused = f"Readings beyond {MAX_EPOCHS:g} teach nothing more. "
            way = f"{remedy} To do it all the same: data.allow_repeats: true."
            found.append(Finding("danger", f"{title}: refused", refused + said + way))
    return found


def _rule_findings(card: DataCard) -> list[Finding]:
    found = []
    for rule in card.rules:
        if rule.action == "drop" and rule.reject_rate >= ALARMING_RATE:
            text = (
                f"Its share of the text is {percent(rule.text_rate)}. A rule that fires so often usually does not fit the "
                f"text: look at its examples, then set data.cleaning.rules.{rule.rule} to another limit or to null, or "
                f"data.cleaning.{rule.group} to annotate."
            )
            title = f"Rule {rule.rule} drops {percent(rule.reject_rate)} of the {rule.group} documents"
            found.append(Finding("warning", title, text))
    return found


def _loss_findings(card: DataCard) -> list[Finding]:
    found = []
    for source in card.sources:
        damaged = [each for each in source.formats if each.formulas_lost >= LOSS_LIMIT * max(each.formulas, 1)]
        if source.group == "domain" and source.lost_share >= LOSS_LIMIT:
            text = (
                f"That is {data_size(source.text_bytes_of('rejected'))} of {data_size(source.text_bytes_read)}, and text of "
                f"the domain is rare. Look at what was rejected; data.cleaning.domain: annotate keeps it."
            )
            found.append(Finding("warning", f"Rules take {percent(source.lost_share)} of {source.name}", text))
        if damaged:
            pages = sum(each.pages_lost for each in source.formats)
            said = [f"{count(e.formulas_lost)} of {count(e.formulas)} in {e.format} files" for e in damaged]
            text = (
                f"They were seen but did not reach the text: {', '.join(said)}"
                + (f"; {plural(pages, 'page')} were set aside for it" if pages else "")
                + ". If the same text can be had in another form, LaTeX best of all, use that instead."
            )
            found.append(Finding("warning", f"Formulas were lost from {source.name}", text))
    return found


def _text_findings(card: DataCard) -> list[Finding]:
    found = []
    parts = sum(source.unreadable_parts for source in card.sources)
    if parts:
        text = f"{data_size(card.bytes_of('unreadable'))} in all. They are listed below, each with its reason."
        found.append(
            Finding(
                "warning",
                f"{plural(parts, 'file or part of a file', 'files or parts of files')} could not be read",
                text,
            )
        )
    unknown = [source.name for source in card.sources if source.licences.get("", 0)]
    if unknown:
        text = (
            "Whether the text may be used, and under what name the model may be passed on, is then not known. Put a "
            f"LICENSE file or metadata.jsonl beside the text of {names_of(unknown)}."
        )
        found.append(Finding("warning", "The licence of some documents is not known", text))
    exams = card.contamination
    hit = sum(exam.questions_found for exam in exams.exams) if exams else 0
    if exams and hit and exams.action != "drop":
        text = "Scores on them would be too good. data.decontamination.action: drop leaves those documents out."
        found.append(Finding("warning", f"The text holds {plural(hit, 'exam question')}", text))
    personal = card.personal_data
    if personal and personal.action != "mask" and any(personal.counts.values()):
        text = "A model may repeat it word for word. data.cleaning.personal_data: mask puts words in its place."
        found.append(Finding("info", "The text holds what looks like personal data", text))
    return found
