"""A corpus, and the store and the plan if there are any -> what the data card says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from havoc_core.config import DataMixtureConfig
from havoc_data.prepare.corpus import Corpus
from havoc_data.prepare.facts import merge
from havoc_data.prepare.ledger import FATES, SourceLedger
from havoc_data.prepare.rules import describe
from havoc_data.store import TokenStore
from havoc_report import data_record as record

_CLUSTERS = 10
_EXAM_EXAMPLES = 10
_UNREAD = ("unreadable", "no_reader", "scanned", "empty", "no_text")
"""Fates of what no text came out of."""
_LOST_TEXT = ("lost_formulas",)
"""Rules about text that was read and not kept as text: its bytes count as text that was lost."""


@dataclass(frozen=True)
class Planned:
    """What a run wants to learn from a store."""

    store: TokenStore
    vocabulary: int
    epochs: Mapping[str, float] | None = None
    """Source -> how often its text is read; None: there is no plan."""
    model_parameters: int | None = None
    """Of the model that is to be trained."""


def data_card(
    corpus: Corpus, data: DataMixtureConfig, *, title: str, made_from: str, planned: Planned | None = None
) -> record.DataCard:
    """Everything that the card says.

    Args:
        corpus: collected text.
        data: the settings it was collected with.
        title: the name of the folder or the run.
        made_from: the path or the file of settings.
        planned: tokens and epochs; None: tokens are estimated from the bytes.
    """
    # Where nothing is planned, a folder is looked at by itself, and no group is missing.
    missing = corpus.missing_groups if planned is not None else ()
    warnings = [f"There is no text for {group}; its share goes to the other groups." for group in missing]
    for name, facts in corpus.facts.items():
        if facts["endings"]:
            counted = ", ".join(
                f"{count:,} {ending or 'without an ending'}" for ending, count in facts["endings"].items()
            )
            warnings.append(
                f"Files in {name} that no reader takes: {counted}. Convert them, or leave them out: data.exclude."
            )
        missing = sum(counts.get("missing_includes", 0) for counts in facts["formats"].values())
        if missing:
            warnings.append(
                f"{missing:,} commands in {name}, such as \\input, name files that are not there: what they hold is missing."
            )
    return record.DataCard(
        title=title,
        made_from=made_from,
        sources=tuple(_source(ledger, corpus.facts[ledger.name]) for ledger in corpus.ledgers),
        rules=tuple(_rules(corpus, data)),
        duplicates=_duplicates(corpus, data),
        contamination=_contamination(corpus, data),
        personal_data=_personal_data(corpus, data),
        templates=tuple(record.TemplateFamily(count, origin, excerpt) for origin, count, excerpt in corpus.families),
        tokens=None if planned is None else _tokens(planned, data),
        warnings=tuple(warnings),
        dummy=corpus.dummy,
    )


def _source(ledger: SourceLedger, facts: Mapping[str, Any]) -> record.SourceCard:
    counts = merge(facts["formats"].values())
    encodings = {
        name.removeprefix("decoded_from_"): n for name, n in counts.items() if name.startswith("decoded_from_")
    }
    encodings |= {"mended characters": counts["mended_characters"]} if counts.get("mended_characters") else {}
    named = [*facts["rejects"], *facts["unread"]]
    unreadable = [record.LeftOutFile(origin, reason) for origin, rule, reason in named if rule in _UNREAD]
    return record.SourceCard(
        name=ledger.name,
        group=ledger.group,
        input_bytes=facts["input_bytes"],
        fates=tuple(_fates(ledger)),
        formats=tuple(_format(name, of_format) for name, of_format in facts["formats"].items()),
        languages=facts["languages"],
        lengths=tuple(facts["lengths"].get(str(column), 0) for column in range(record.NUM_LENGTHS)),
        licences={"" if name == "unknown" else name: count for name, count in ledger.licences.items()},
        encodings=encodings,
        unreadable=tuple(unreadable),
        unreadable_parts=sum(ledger.sums.documents.get(fate, 0) for fate in _UNREAD),
    )


def _fates(ledger: SourceLedger) -> Iterator[record.FateCard]:
    sums = ledger.sums
    for fate, size in sums.input_bytes.items():
        known = "unreadable" if fate in _UNREAD else "contaminated" if fate == "exam" else "rejected"
        known = fate if fate in FATES else known
        text = sums.text_bytes.get(fate, 0) or (size if fate in _LOST_TEXT else 0)
        reason = fate if known == "rejected" or (known == "unreadable" and fate != known) else ""
        yield record.FateCard(known, size, sums.documents.get(fate, 0), text, reason)


def _format(name: str, counts: Mapping[str, int]) -> record.FormatCard:
    return record.FormatCard(
        format=name,
        files=counts.get("files", 0),
        bytes=counts.get("bytes", 0),
        documents=counts.get("documents", 0),
        text_bytes=counts.get("text_bytes", 0),
        formulas=counts.get("formulas", 0),
        formulas_lost=counts.get("formulas_lost", 0),
        pages=counts.get("pages", 0),
        pages_lost=counts.get("pages_with_lost_formulas", 0),
    )


def _rules(corpus: Corpus, data: DataMixtureConfig) -> Iterator[record.RuleCard]:
    limits = data.cleaning.rules.model_dump()
    names = [name for name, limit in limits.items() if limit is not None] + ["language"] * bool(data.cleaning.languages)
    for group in dict.fromkeys(corpus.groups.values()):
        if data.cleaning.actions[group] == "off":
            continue
        found = merge(corpus.facts[ledger.name] for ledger in corpus.ledgers if ledger.group == group)
        for name in names:
            fired = found["rules"].get(name, {"documents": 0, "bytes": 0, "examples": []})
            yield record.RuleCard(
                rule=name,
                sentence=describe(name),
                group=group,
                action=data.cleaning.actions[group],
                documents_fired=fired["documents"],
                documents_seen=found["seen"].get("documents", 0),
                text_bytes_fired=fired["bytes"],
                text_bytes_seen=found["seen"].get("bytes", 0),
                examples=tuple(record.RuleExample(*example) for example in fired["examples"]),
            )


def _duplicates(corpus: Corpus, data: DataMixtureConfig) -> record.DuplicatesCard:
    exact: list[int] = []
    near: list[int] = []
    likes: Counter[str] = Counter()
    kinds: dict[str, str] = {}
    origins: dict[str, str] = {}
    for line in _lines(corpus):
        if "like" in line:
            is_exact = line["fate"] == "duplicate"
            (exact if is_exact else near).append(line["text"])
            likes[line["like"]] += 1
            kinds.setdefault(line["like"], "exact" if is_exact else "near")
            origins.setdefault(line["like"], line["spans"][0][0])
    largest = sorted(likes.items(), key=lambda pair: (-pair[1], pair[0]))[:_CLUSTERS]
    wanted = dict(largest)
    kept = {line["id"]: line["spans"][0][0] for line in _lines(corpus) if line.get("id") in wanted and _is_kept(line)}
    actions = data.deduplication.actions.values()
    paragraphs = data.deduplication.paragraphs != "off"
    return record.DuplicatesCard(
        exact_documents=len(exact),
        exact_text_bytes=sum(exact),
        near_documents=len(near) if any(action != "off" for action in actions) else None,
        near_text_bytes=sum(near),
        paragraphs=_sum(corpus, "repeated_paragraphs") if paragraphs else None,
        paragraph_text_bytes=_sum(corpus, "repeated_paragraph_bytes") if paragraphs else 0,
        jaccard=data.deduplication.jaccard,
        clusters=tuple(
            record.DuplicateCluster(count + 1, kept.get(like, ""), origins[like], kinds[like])
            for like, count in largest
        ),
    )


def _is_kept(line: Mapping[str, Any]) -> bool:
    return line["fate"] in {"kept", "held_out"}


def _lines(corpus: Corpus) -> Iterator[dict[str, Any]]:
    for source in corpus.groups:
        yield from corpus.ledger_lines(source)


def _sum(corpus: Corpus, name: str) -> int:
    return sum(facts[name] for facts in corpus.facts.values())


def _contamination(corpus: Corpus, data: DataMixtureConfig) -> record.ContaminationCard | None:
    if not corpus.questions:
        return None
    found = corpus.contamination
    return record.ContaminationCard(
        action=data.decontamination.action,
        exams=tuple(
            record.ExamCard(
                name=suite,
                questions=count,
                questions_found=len({each.name for each in found if each.suite == suite}),
                documents=len({(each.source, each.origin) for each in found if each.suite == suite}),
            )
            for suite, count in corpus.questions.items()
        ),
        examples=tuple(
            record.ExamExample(each.suite, each.name, each.origin, each.overlap) for each in found[:_EXAM_EXAMPLES]
        ),
    )


def _personal_data(corpus: Corpus, data: DataMixtureConfig) -> record.PersonalDataCard | None:
    if data.cleaning.personal_data == "off":
        return None
    found = merge(
        {"counts": facts["personal_data"], "documents": facts["personal_documents"]} for facts in corpus.facts.values()
    )
    return record.PersonalDataCard(data.cleaning.personal_data, found["counts"], found["documents"])


def _tokens(planned: Planned, data: DataMixtureConfig) -> record.TokensCard:
    rows: Sequence[record.TokenRow] = [
        record.TokenRow(
            source=name,
            group=source.group,
            tokens=source.record.tokens,
            text_bytes=source.record.bytes,
            planned_tokens=None
            if planned.epochs is None
            else round(planned.epochs.get(name, 0.0) * source.record.tokens),
        )
        for name, source in planned.store.training.items()
    ]
    return record.TokensCard(
        tuple(rows),
        vocabulary=planned.vocabulary,
        model_parameters=planned.model_parameters,
        allow_repeats=data.allow_repeats,
    )
