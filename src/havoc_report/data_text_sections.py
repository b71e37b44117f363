"""Sections of a data card about what the text is worth: rules and their examples, tokens, readings, size of a model."""

from __future__ import annotations

from collections.abc import Sequence

from havoc_report.data_record import DataCard, RuleCard, RuleExample, TokenRow, TokensCard
from havoc_report.data_rules import (
    ESTIMATED_BYTES_PER_TOKEN,
    FREE_EPOCHS,
    MAX_EPOCHS,
    TOKENS_PER_PARAMETER,
    USEFUL_EPOCHS,
    effective_tokens,
    supported_parameters,
)
from havoc_report.data_verdict import plural, short_count, tokens_of
from havoc_report.disclosure import Disclosure, Excerpt
from havoc_report.page import Fact, Facts, Paragraph, Part
from havoc_report.plots import Bar, Reference, Series, Share, bar_chart, line_chart, stacked_bar
from havoc_report.run_results import both_widths
from havoc_report.tables import Cell, Column, Table, cell_text, count, data_size, fixed, share_of, significant

_ACTIONS = {"annotate": "kept", "drop": "left out"}
_CURVE_EPOCHS = tuple(MAX_EPOCHS ** (step / 24) for step in range(25))
"""From one reading to as many as are allowed."""


def rule_parts(card: DataCard) -> tuple[Part, ...]:
    """How often each rule fires, and three documents that it fires on."""
    if not card.rules:
        return (Paragraph("No rule was run on the text."),)
    fired = [rule for rule in card.rules if rule.documents_fired]
    said = (
        f"{plural(len(card.rules), 'rule')} ran; {len(fired) or 'none'} fired. Where a rule says \u201ckept\u201d, "
        "the documents stay in the text and are only named. A document may be counted by several rules."
    )
    parts: list[Part] = [Paragraph(said)]
    if fired:
        bars = [
            Bar(rule.rule, rule.reject_rate, tone=1 if rule.action == "drop" else 5, group=_group_name(rule))
            for rule in sorted(fired, key=lambda rule: _group_name(rule))
        ]
        parts.append(
            both_widths(
                lambda px: bar_chart(
                    bars, x_label="share of the documents", title="How often rules fire", number=_rate, width_px=px
                ),
                "Rules that never fired are in the table only.",
            )
        )
    parts.append(_rule_table(card.rules))
    for rule in fired:
        shown: list[Part] = [Paragraph(rule.sentence)] if rule.sentence else []
        shown += [Excerpt(each.origin, each.excerpt, _measured(each)) for each in rule.examples]
        aside = f"{rule.group}, {count(rule.documents_fired)} of {plural(rule.documents_seen, 'document')}"
        parts.append(Disclosure(rule.rule, tuple(shown), aside))
    return tuple(parts)


def _group_name(rule: RuleCard) -> str:
    return f"{rule.group}: {_ACTIONS.get(rule.action, rule.action)}"


def _rate(value: float) -> str:
    return share_of(value, 1.0)


def _measured(example: RuleExample) -> str:
    return f"({_number_text(example.value)}, limit {_number_text(example.limit)})"


def _number_text(value: float | str) -> str:
    whole = not isinstance(value, str) and float(value).is_integer()
    return cell_text(value, count if whole else significant)


def _rule_table(rules: Sequence[RuleCard]) -> Table:
    heads = (
        Column("Rule"),
        Column("Group"),
        Column("Then"),
        Column("Documents", "right", count),
        Column("Share", "right"),
        Column("Text", "right", data_size),
        Column("Share", "right"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            rule.rule,
            rule.group,
            _ACTIONS.get(rule.action, rule.action),
            rule.documents_fired,
            share_of(rule.documents_fired, rule.documents_seen),
            rule.text_bytes_fired,
            share_of(rule.text_bytes_fired, rule.text_bytes_seen),
        )
        for rule in rules
    ]
    return Table("Reject rates: documents and text that each rule fires on.", heads, tuple(rows))


def token_parts(card: DataCard) -> tuple[Part, ...]:
    """Tokens by source and group, and how often the plan reads each source."""
    tokens = tokens_of(card)
    if not tokens.rows:
        return ()
    unit = "tokens, estimated" if tokens.estimated else "tokens"
    parts: list[Part] = []
    if tokens.estimated:
        said = (
            f"There is no tokenizer yet. The figures below are estimates: {ESTIMATED_BYTES_PER_TOKEN:g} bytes of text a "
            "token, which is few tokens for mathematics or a small vocabulary."
        )
        parts.append(Paragraph(said))
    groups = dict.fromkeys(row.group for row in tokens.rows)
    shares = [Share(group, sum(row.tokens for row in tokens.rows if row.group == group)) for group in groups]
    parts.append(
        both_widths(
            lambda px: stacked_bar(shares, title=f"Training text by group, in {unit}", number=short_count, width_px=px),
            "",
        )
    )
    parts.append(_token_table(tokens))
    planned = [row for row in tokens.rows if row.epochs is not None]
    if not planned:
        parts.append(Paragraph("There is no plan yet, so how often each source will be read is not known."))
        return tuple(parts)
    top = max(row.epochs or 0.0 for row in planned)
    near = [limit for limit in _LIMITS if limit[0] <= max(FREE_EPOCHS, 1.5 * top)]
    marks = tuple(Reference(f"{epochs:g}: {what}", epochs) for epochs, what in near)
    bars = [
        Bar(row.source, row.epochs, tone=_EPOCH_TONES[row.verdict or "fine"], group=row.group, marks=marks)
        for row in planned
    ]
    parts.append(
        both_widths(
            lambda px: bar_chart(
                bars,
                x_label="readings of each document",
                title="How often the plan reads each source",
                number=lambda value: fixed(1)(value),
                width_px=px,
            ),
            "Ticks: the limits, after Muennighoff et al. 2023 (arXiv:2305.16264): up to 4 readings are nearly as good as "
            "fresh text, beyond 16 little is gained, beyond 40 nothing.",
        )
    )
    return tuple(parts)


_LIMITS = ((FREE_EPOCHS, "warning above"), (USEFUL_EPOCHS, "strong warning above"), (MAX_EPOCHS, "refused above"))
_EPOCH_TONES = {"fine": 2, "warning": 4, "strong warning": 1, "refused": 1}


def _token_table(tokens: TokensCard) -> Table:
    whole = sum(row.tokens for row in tokens.rows)
    heads = (
        Column("Source"),
        Column("Group"),
        Column("Tokens", "right", count),
        Column("Share", "right"),
        Column("Bytes a token", "right", fixed(2)),
        Column("Planned", "right", count),
        Column("Readings", "right", fixed(2)),
        Column("Verdict"),
    )
    rows = [_token_cells(row, whole) for row in tokens.rows]
    if len(rows) > 1:
        planned = [row.planned_tokens for row in tokens.rows if row.planned_tokens is not None]
        size = sum(row.text_bytes for row in tokens.rows)
        each = size / whole if whole else None
        rows.append(("all", None, whole, share_of(whole, whole), each, sum(planned) if planned else None, None, None))
    caption = "Tokens of the training text, held-out text not counted, and how often the plan reads them."
    return Table(caption, heads, tuple(rows), strong_rows=(len(rows) - 1,) if len(rows) > 1 else ())


def _token_cells(row: TokenRow, whole: int) -> tuple[Cell, ...]:
    return (
        row.source,
        row.group,
        row.tokens,
        share_of(row.tokens, whole),
        row.bytes_per_token,
        row.planned_tokens,
        row.epochs,
        row.verdict,
    )


def size_parts(card: DataCard) -> tuple[Part, ...]:
    """The size of model that this much text supports, and the rules that say so."""
    tokens = tokens_of(card)
    unique = sum(row.tokens for row in tokens.rows)
    if not unique:
        return ()
    once, four = supported_parameters(unique, 1.0), supported_parameters(unique)
    facts = [
        Fact("Read once", short_count(once), "parameters"),
        Fact("Read four times", short_count(four), "parameters"),
    ]
    if tokens.model_parameters is not None:
        room = tokens.model_parameters / four
        detail = "the text suffices" if room <= 1 else f"{significant(room, digits=2)} times what the text supports"
        facts.append(Fact("Planned", short_count(tokens.model_parameters), detail))
    worth = Series(
        "what the readings are worth", _CURVE_EPOCHS, [_millions(unique, epochs) for epochs in _CURVE_EPOCHS], tone=0
    )
    fresh_epochs = [epochs for epochs in _CURVE_EPOCHS if epochs <= 2 * FREE_EPOCHS]
    fresh = [unique * epochs / TOKENS_PER_PARAMETER / 1e6 for epochs in fresh_epochs]
    lines = [worth, Series("if every reading were fresh text", fresh_epochs, fresh, dashed=True, tone=7)]
    chart = both_widths(
        lambda px: line_chart(
            lines,
            x_label="readings",
            y_label="million parameters supported",
            title="What reading again is worth",
            log_x=True,
            width_px=px,
        ),
        f"However often the text is read, it is never worth more than {significant(effective_tokens(1.0, 1e6))} times its "
        "tokens.",
    )
    said = (
        f"The rule: {TOKENS_PER_PARAMETER:g} tokens for each parameter, where training compute is best spent (Hoffmann et "
        "al. 2022, arXiv:2203.15556). Tokens that are read again count as D' = U (1 + R* (1 \u2212 exp(\u2212R / R*))) with "
        "R repetitions and R* = 15.39 (Muennighoff et al. 2023, arXiv:2305.16264, equation 5): four readings of this text "
        f"teach as much as {short_count(effective_tokens(unique, FREE_EPOCHS))} fresh tokens. A larger model can be "
        "trained on it, but a smaller one would come out nearly as good for less. The rules were measured on models of English "
        "web text, from 70 and from 7 million parameters up; below that they are a guide."
    )
    return (Facts(tuple(facts)), chart, Paragraph(said))


def _millions(unique: int, epochs: float) -> float:
    return supported_parameters(unique, epochs) / 1e6
