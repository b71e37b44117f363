"""A data card for the terminal: the same verdict, the same figures, some thirty lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from havoc_report.data_record import FATES, DataCard
from havoc_report.data_verdict import (
    FATE_WORDS,
    SAID,
    findings,
    lead_sentences,
    short_count,
    tokens_of,
)
from havoc_report.escaping import one_line
from havoc_report.tables import count, data_size, share_of, significant

_WIDTH = 100
_BAR = 40
_NAME = 24
_SHOWN = 8
_LETTERS = {
    "kept": "#",
    "held_out": "h",
    "duplicate": "d",
    "near_duplicate": "n",
    "contaminated": "q",
    "rejected": "r",
    "unreadable": "x",
}
_SIGNS = {"danger": "!!", "warning": "! ", "info": "- "}


def card_lines(card: DataCard) -> list[str]:
    """The card as lines of at most 100 characters, without a colour or a control character.

    Names out of files are cleaned as on the page. At most eight sources, formats and rules are shown.
    """
    kind = "DATA CARD (DUMMY DATA: noise)" if card.dummy else "DATA CARD"
    lines = [f"{kind}: {one_line(card.title)}", ""]
    for said in lead_sentences(card):
        lines += _wrapped(said)
    lines += ["", *_source_lines(card), *_format_lines(card), *_rule_lines(card), *_token_lines(card)]
    found = findings(card)
    if found:
        lines.append("")
    for each in found[:_SHOWN]:
        # A danger with its remedy; the others by their title, or nobody would read any of it.
        text = f"{each.title}. {each.text}" if each.kind == "danger" or each.title == SAID else each.title
        lines += _wrapped(f"{_SIGNS[each.kind]} {text}", hang="   ")
    if len(found) > _SHOWN:
        lines.append(f"   and {count(len(found) - _SHOWN)} more")
    return [_plain(line) for line in lines]


def _plain(line: str) -> str:
    """Without the glue that keeps a number beside its unit on a page."""
    return line.replace("\u00a0", " ").rstrip()


def _wrapped(text: str, hang: str = "") -> list[str]:
    return textwrap.wrap(one_line(text), _WIDTH, subsequent_indent=hang) or [""]


def _column(text: str, width: int) -> str:
    """The text on one line, as wide as a column."""
    line = one_line(text)
    return (line if len(line) <= width else line[: width - 2] + "..").ljust(width)


def _source_lines(card: DataCard) -> list[str]:
    if not card.sources:
        return []
    met = [fate for fate in FATES if card.bytes_of(fate)]
    words = "   ".join(f"{_LETTERS[fate]}={FATE_WORDS[fate]}".replace(" ", "\u00a0") for fate in met)
    lines = textwrap.wrap(words, _WIDTH)
    largest = sorted(card.sources, key=lambda source: (-source.input_bytes, source.name))
    for source in largest[:_SHOWN]:
        sizes = [source.bytes_of(fate) for fate in FATES]
        used = source.bytes_of("kept") + source.bytes_of("held_out")
        lines.append(
            f"{_column(source.name, _NAME)} {_plain(data_size(source.input_bytes)):>10}  [{_bar(sizes)}] "
            f"{_plain(share_of(used, source.input_bytes)):>12} used"
        )
    if len(largest) > _SHOWN:
        lines.append(f"and {count(len(largest) - _SHOWN)} smaller sources")
    return lines


def _bar(sizes: Sequence[int]) -> str:
    """A bar of letters; the pieces are cut where their sums fall, so that it is always full. What is there shows."""
    whole = sum(sizes)
    if not whole:
        return " " * _BAR
    letters, seen = [], 0
    for fate, size in zip(FATES, sizes, strict=True):
        begin, seen = seen, seen + size
        letters.append(_LETTERS[fate] * (seen * _BAR // whole - begin * _BAR // whole))
    for place, size in enumerate(sizes):
        if size and not letters[place]:
            widest = max(range(len(letters)), key=lambda other: (len(letters[other]), -other))
            letters[widest], letters[place] = letters[widest][1:], _LETTERS[FATES[place]]
    return "".join(letters)


def _format_lines(card: DataCard) -> list[str]:
    sums: dict[str, list[int]] = {}
    for each in (each for source in card.sources for each in source.formats):
        row = sums.setdefault(each.format, [0, 0, 0, 0, 0])
        for place, value in enumerate((each.files, each.bytes, each.documents, each.formulas, each.formulas_lost)):
            row[place] += value
    if not sums:
        return []
    lines = ["", f"{'format':<{_NAME}} {'files':>10} {'size':>12} {'documents':>12} {'formulas lost':>22}"]
    for name, (files, size, documents, formulas, lost) in sorted(sums.items(), key=lambda entry: -entry[1][1])[:_SHOWN]:
        losses = f"{count(lost)} of {count(formulas)}" if formulas else "-"
        lines.append(
            f"{_column(name, _NAME)} {count(files):>10} {_plain(data_size(size)):>12} {count(documents):>12} {losses:>22}"
        )
    return lines


def _rule_lines(card: DataCard) -> list[str]:
    fired = sorted(
        (rule for rule in card.rules if rule.documents_fired), key=lambda r: (-r.reject_rate, r.rule, r.group)
    )
    if not fired:
        return []
    lines = ["", f"{'rule':<{_NAME}} {'group':<10} {'then':<10} {'documents':>12} {'share':>12} {'of the text':>12}"]
    for rule in fired[:_SHOWN]:
        share = share_of(rule.documents_fired, rule.documents_seen)
        text = share_of(rule.text_bytes_fired, rule.text_bytes_seen)
        lines.append(
            f"{_column(rule.rule, _NAME)} {_column(rule.group, 10)} {_column(rule.action, 10)} "
            f"{count(rule.documents_fired):>12} {_plain(share):>12} {_plain(text):>12}"
        )
    return lines


def _token_lines(card: DataCard) -> list[str]:
    tokens = tokens_of(card)
    if not tokens.rows:
        return []
    head = "tokens (est.)" if tokens.estimated else "tokens"
    lines = ["", f"{'source':<{_NAME}} {'group':<10} {head:>15} {'bytes/token':>12} {'readings':>12}  verdict"]
    for row in sorted(tokens.rows, key=lambda row: (-row.tokens, row.source))[:_SHOWN]:
        each = "-" if row.bytes_per_token is None else f"{row.bytes_per_token:.2f}"
        readings = "-" if row.epochs is None else significant(row.epochs)
        lines.append(
            f"{_column(row.source, _NAME)} {_column(row.group, 10)} {short_count(row.tokens):>15} {each:>12} "
            f"{readings:>12}  {row.verdict or '-'}"
        )
    return lines
