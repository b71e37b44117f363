"""Sources -> one corpus on disk, stage by stage; what was done before is not done again.

examine   each part of each source, on its own          (in parallel)
compare   all documents with each other                 (here)
settle    each part with what was decided about it      (in parallel)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from havoc_core.config import DataMixtureConfig
from havoc_core.errors import DataError
from havoc_data.discovery import SourceEntry, SourcePlan, discover
from havoc_data.document import Rejected
from havoc_data.prepare.compare import Comparison, PartEntry, compare
from havoc_data.prepare.corpus import VERSION, Corpus, manifest_of, open_corpus
from havoc_data.prepare.examine import Examination, ExamineTask, examine
from havoc_data.prepare.exams import ExamItem
from havoc_data.prepare.facts import Facts, excerpt_of, merge
from havoc_data.prepare.ledger import FATES, SourceLedger, Sums, does_not_close, sum_lines
from havoc_data.prepare.questions import ExamQuestions, read_questions
from havoc_data.prepare.settle import NOTHING_SETTLED, SettleTask, read_lines, settle
from havoc_data.runner import run_each, runner_of
from havoc_data.runners.inline import Inline

_QUESTIONS = "exams.json"
_EXAMPLES = 20
_FAMILIES = 20
_WORTH_A_PROCESS = 50_000
"""Documents that are settled in a second."""


@dataclass(frozen=True)
class Collecting:
    """What a corpus is made of and where it is put."""

    data: DataMixtureConfig
    base: Path
    """Folder that relative paths in the settings start from."""
    folder: Path
    """Of the corpus."""
    questions: ExamQuestions
    """Examination questions that are looked for in the text."""
    hold_out: bool = True
    """Whether documents are held out for validation; False only to look at a folder that may be tiny."""


def collect(asked: Collecting) -> Corpus:
    """The corpus that the settings describe; collected again only if an input or a setting has changed.

    Raises:
        DataError: no text, a group too small to hold anything out, a ledger that does not close, or a worker died.
        ConfigError: a setting is wrong.
    """
    plan = discover(asked.data, asked.base)
    key = _inputs_key(asked, plan)
    existing = open_corpus(asked.folder)
    if existing is not None and existing.key == key:
        return existing
    runner = runner_of(asked.data)
    asked.folder.mkdir(parents=True, exist_ok=True)
    tasks = _tasks(asked, plan)
    keys = run_each(runner, examine, tasks)
    parts = [PartEntry(task.source, _group(plan, task.source), name) for task, name in zip(tasks, keys, strict=True)]
    fraction = asked.data.validation_fraction if asked.hold_out else None
    compared = compare(parts, asked.folder / "parts", deduplication=asked.data.deduplication, fraction=fraction)
    cut = asked.data.deduplication.paragraphs == "drop"
    num_documents = sum(len(verdict.fates) for verdict in compared.verdicts)
    settled = run_each(
        # Few documents are settled here before a process has started.
        runner if num_documents > _WORTH_A_PROCESS else Inline(),
        settle,
        [
            SettleTask(asked.folder / "parts" / part.key, verdict, cut, asked.folder / "settled")
            for part, verdict in zip(parts, compared.verdicts, strict=True)
        ],
    )
    corpus = _corpus(asked, plan, key, parts, settled, compared)
    _refuse_empty(corpus)
    beside = asked.folder / ".manifest.writing"
    text = json.dumps(manifest_of(corpus), indent=1, sort_keys=True, ensure_ascii=False)
    beside.write_text(
        text, encoding="utf-8", errors="backslashreplace"
    )  # half a surrogate pair in a name, as JSON has it
    beside.replace(asked.folder / "manifest.json")
    unread = set(corpus.unread.values())
    _sweep(asked.folder, {"parts": {part.key for part in parts}, "settled": set(settled), "unread": unread})
    return corpus


def inputs_key(asked: Collecting) -> str:
    """What `collect` would file this text under, without collecting it."""
    return _inputs_key(asked, discover(asked.data, asked.base))


def _inputs_key(asked: Collecting, plan: SourcePlan) -> str:
    inputs = [
        [entry.name, entry.group, entry.config.kind, entry.source.fingerprint(), _examination(asked, entry).key()]
        for entry in plan.entries
    ]
    data = asked.data
    settings = [
        VERSION,
        data.validation_fraction if asked.hold_out else None,
        plan.ratios,
        data.deduplication.model_dump(),
    ]
    return hashlib.blake2b(json.dumps([settings, inputs], sort_keys=True).encode(), digest_size=16).hexdigest()


def _examination(asked: Collecting, entry: SourceEntry) -> Examination:
    data = asked.data
    looked_for = data.decontamination.action != "off" and asked.questions.key != ""
    made_up = entry.config.kind == "dummy"
    return Examination(
        cleaning=data.cleaning,
        # Random words are junk by any rule; who asks for them wants all of them.
        rules="off" if made_up else data.cleaning.actions[entry.group],
        compare=not made_up and data.deduplication.actions[entry.group] != "off",
        exams=data.decontamination.action if looked_for else "off",
        exam_file=asked.folder / _QUESTIONS if looked_for else None,
        exam_key=asked.questions.key if looked_for else "",
        overlap=data.decontamination.overlap,
    )


def _tasks(asked: Collecting, plan: SourcePlan) -> list[ExamineTask]:
    """Every part of every source, in the order of the corpus."""
    settings = {number: _examination(asked, entry) for number, entry in enumerate(plan.entries)}
    if any(each.exam_file for each in settings.values()):
        asked.questions.write(asked.folder / _QUESTIONS)
    folder = asked.folder / "parts"
    return [
        ExamineTask(part, entry.name, entry.config.kind, settings[number], folder)
        for name in dict.fromkeys(entry.name for entry in plan.entries)
        for number, entry in enumerate(plan.entries)
        if entry.name == name
        for part in entry.source.parts()
    ]


def _group(plan: SourcePlan, name: str) -> str:
    return next(entry.group for entry in plan.entries if entry.name == name)


def _refuse_empty(corpus: Corpus) -> None:
    """An empty source is an error: nothing is put in the place of what the user meant to be text."""
    for ledger in corpus.ledgers:
        if not ledger.kept:
            rejected = {fate: n for fate, n in ledger.sums.documents.items() if fate not in FATES}
            reasons = [
                f"{count:,} unreadable" if fate == "unreadable" else f"{count:,} by the rule {fate}"
                for fate, count in rejected.items()
            ]
            reasons += [f"{ledger.duplicates:,} that other sources hold too"] if ledger.duplicates else []
            raise DataError(
                ledger.name,
                f"gave no text. Left out: {', '.join(reasons) or 'nothing'}."
                + "".join(f"\n    {each.rstrip('.')}." for each in ledger.examples[:5]),
                "Add text, change the rule, or leave the source out.",
            )


def _beside(plan: SourcePlan, name: str) -> list[Rejected]:
    return [each for entry in plan.entries if entry.name == name for each in entry.source.rejected()]


def _corpus(
    asked: Collecting,
    plan: SourcePlan,
    key: str,
    parts: Sequence[PartEntry],
    settled: Sequence[str],
    compared: Comparison,
) -> Corpus:
    """The record of a corpus whose parts are written."""
    names = list(dict.fromkeys(entry.name for entry in plan.entries))
    places: dict[str, tuple[tuple[str, str], ...]] = dict.fromkeys(names, ())
    for part, name in zip(parts, settled, strict=True):
        places[part.source] += ((part.key, name),)
    facts = {name: _facts(asked.folder, plan, name, places[name]) for name in names}
    unread = {name: _write_unread(asked.folder / "unread", _beside(plan, name)) for name in names}
    return Corpus(
        folder=asked.folder,
        key=key,
        ratios=plan.ratios,
        missing_groups=plan.missing_groups,
        dummy=plan.dummy,
        fallback=plan.fallback_used,
        ledgers=tuple(_ledger(plan, name, facts[name]) for name in names),
        parts=places,
        unread=unread,
        facts=facts,
        questions=_num_questions(asked),
        families=_families(asked.folder, parts, compared),
    )


def _facts(folder: Path, plan: SourcePlan, name: str, places: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What was counted in a source, by both stages."""
    found = [_read(folder / "parts" / part / "facts.json") for part, _ in places]
    decided = [_read(folder / "settled" / settled / "sums.json") for _, settled in places]
    beside = _beside(plan, name)
    endings = Counter(Path(each.origin).suffix.lower() for each in beside if each.rule == "no_reader")
    unread = {
        "unread": [[each.origin, each.rule, each.reason] for each in beside],
        "endings": dict(sorted(endings.items())),
    }
    merged = merge([Facts().values(), NOTHING_SETTLED, unread, *found, *decided])
    merged["input_bytes"] += sum(each.bytes for each in beside)
    return merged


def _write_unread(folder: Path, beside: Sequence[Rejected]) -> str:
    """The lines of the ledger for what was found beside the parts; gives the name of their file."""
    lines = [
        {
            "fate": each.rule,
            "reason": each.reason,
            "bytes": each.bytes,
            "text": 0,
            "spans": [[each.origin, each.start, each.end]],
        }
        for each in beside
    ]
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    raw = text.encode("utf-8", "replace")
    name = hashlib.blake2b(raw, digest_size=16).hexdigest()
    packed = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(raw)
    folder.mkdir(exist_ok=True)
    if not (folder / name).is_file() or (folder / name).read_bytes() != packed:
        (folder / name).write_bytes(packed)
    return name


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _ledger(plan: SourcePlan, name: str, facts: dict[str, Any]) -> SourceLedger:
    sums = Sums(**facts.pop("sums")).plus(
        sum_lines({"fate": each.rule, "bytes": each.bytes} for each in _beside(plan, name))
    )
    accounted = sum(sums.input_bytes.values())
    if accounted != facts["input_bytes"]:
        raise does_not_close(
            f"{name}: {accounted:,} bytes are accounted for, and its files have {facts['input_bytes']:,}"
        )
    # What a reader failed on comes before what nobody tried to read.
    examples = tuple(f"{origin}: {reason}" for origin, _, reason in (*facts["rejects"], *facts["unread"])[:_EXAMPLES])
    return SourceLedger(name, _group(plan, name), sums, dict(facts["licences"]), examples)


def questions_of(corpus: Corpus) -> frozenset[ExamItem]:
    """The examination questions that were looked for when a corpus was made."""
    return frozenset(read_questions(corpus.folder / _QUESTIONS)) if corpus.questions else frozenset()


def _num_questions(asked: Collecting) -> dict[str, int]:
    """Suite -> questions that were looked for."""
    if asked.data.decontamination.action == "off" or not asked.questions.key:
        return {}
    return dict(Counter(item.suite for item in read_questions(asked.folder / _QUESTIONS)))


def _families(folder: Path, parts: Sequence[PartEntry], compared: Comparison) -> tuple[tuple[str, int, str], ...]:
    """The largest families of documents that differ in their numbers only, with how one of them begins."""
    told = []
    for part, number, count in compared.families[:_FAMILIES]:
        lines = read_lines(folder / "parts" / parts[part].key / "documents.jsonl.zst")
        line = next(line for i, line in enumerate(lines) if i == number)
        text = line.get("text") or "\n".join(content for _, content in line["messages"])
        told.append((line["origin"], count, excerpt_of(text)))
    return tuple(told)


def _sweep(folder: Path, used: dict[str, set[str]]) -> None:
    """Remove what earlier settings or texts left behind."""
    for place, names in used.items():
        for each in (folder / place).iterdir():
            if each.name not in names and each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
            elif each.name not in names:
                each.unlink()
