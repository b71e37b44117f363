"""Sources -> corpus: every document once, its split decided by its hash, every byte accounted for."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import pytest

from havoc_core.errors import DataError
from havoc_data.document import Document, document_text
from havoc_data.prepare.build import collecting
from havoc_data.prepare.collect import collect
from havoc_data.prepare.corpus import open_corpus

QUESTION = (
    "A lorry of three tons brakes evenly from ninety kilometres an hour to rest within forty metres; how large is the "
    "force on it, in newtons?"
)


def corpus_of(config):
    return collect(collecting(config))


def texts(corpus, source, **side):
    return {identity: document_text(document) for identity, document in corpus.documents(source, **side)}


def fates(corpus, source):
    """File -> what became of it."""
    return {span[0]: line["fate"] for line in corpus.ledger_lines(source) for span in line["spans"]}


def test_every_document_comes_once_with_its_origin(config, data):
    corpus = corpus_of(config)
    assert corpus.groups == {"dialog": "dialog", "general": "general", "math": "domain", "stats": "domain"}
    found = {document.origin: document.text for _, document in corpus.documents("math")}
    assert found == {f"{i:02}.txt": (data / "math" / f"{i:02}.txt").read_text(encoding="utf-8") for i in range(70)}
    assert len(texts(corpus, "dialog")) == 70
    assert all(document.messages for _, document in corpus.documents("dialog"))


def test_exact_duplicates_are_dropped_wherever_they_are_and_counted(config, data):
    """Regression: the first duplicate ended in a TypeError."""
    original = (data / "general" / "07.txt").read_text(encoding="utf-8")
    (data / "math" / "copy.txt").write_text(original, encoding="utf-8")
    (data / "stats" / "copy.txt").write_text(original, encoding="utf-8")
    corpus = corpus_of(config)
    every = [identity for source in corpus.groups for identity in texts(corpus, source)]
    assert len(every) == len(set(every)) == 4 * 70
    assert sum(ledger.duplicates for ledger in corpus.ledgers) == 2
    size = len(original.encode())
    assert sum(ledger.sums.input_bytes.get("duplicate", 0) for ledger in corpus.ledgers) == 2 * size
    lines = [line for source in corpus.groups for line in corpus.ledger_lines(source) if line["fate"] == "duplicate"]
    assert {line["like"] for line in lines} == {line["id"] for line in lines} <= set(every)


def test_near_duplicates_are_dropped_but_annotated_in_dialog_and_name_one_that_is_kept(config, data):
    for name in ("math", "general"):
        original = (data / name / "07.txt").read_text(encoding="utf-8")
        (data / name / "near.txt").write_text(original + " And one more.", encoding="utf-8")
    rows = (data / "dialog" / "talk.jsonl").read_text(encoding="utf-8").splitlines()
    changed = json.loads(rows[0])
    changed["messages"][1]["content"] += " And one more."
    (data / "dialog" / "near.jsonl").write_text(json.dumps(changed) + "\n", encoding="utf-8")
    corpus = corpus_of(config)
    kept = {identity for source in corpus.groups for identity in texts(corpus, source)}
    for source, fate in (
        ("math", {"near_duplicate"}),
        ("general", {"near_duplicate"}),
        ("dialog", {"kept", "held_out"}),
    ):
        like = [line for line in corpus.ledger_lines(source) if "like" in line]
        assert len(like) == 1, source
        assert like[0]["fate"] in fate
        assert like[0]["like"] in kept - {like[0]["id"]}
        assert len(texts(corpus, source)) == (71 if source == "dialog" else 70)


def test_the_ledger_adds_up_to_the_bytes_of_the_files(config, data):
    (data / "math" / "broken.txt").write_bytes(b"\x00\x01\x02\xff" * 30)
    (data / "math" / "again.txt").write_bytes((data / "math" / "00.txt").read_bytes())
    (data / "math" / "empty.txt").write_bytes(b"")
    (data / "math" / ".hidden").write_bytes(b"hidden")
    (data / "math" / "picture.png").write_bytes(b"\x89PNG" * 9)
    corpus = corpus_of(config)
    ledger = next(ledger for ledger in corpus.ledgers if ledger.name == "math")
    files = sorted((data / "math").iterdir())
    assert sum(ledger.sums.documents.values()) == len(files)
    assert sum(ledger.sums.input_bytes.values()) == sum(path.stat().st_size for path in files)
    assert ledger.kept + ledger.duplicates + ledger.rejected == len(files)
    assert ledger.kept_bytes == sum(len(text.encode()) for text in texts(corpus, "math").values())
    assert (ledger.kept, ledger.duplicates, ledger.rejected) == (70, 1, 4)
    named = "\n".join(ledger.examples)
    assert all(name in named for name in ("broken.txt: ", "empty.txt: ", ".hidden: ", "picture.png: "))


def test_a_document_is_on_one_side_and_both_sides_are_all(ready):
    corpus = corpus_of(ready)
    for source in corpus.groups:
        learnt, held_out = texts(corpus, source, held_out=False), texts(corpus, source, held_out=True)
        assert learnt.keys().isdisjoint(held_out)
        assert learnt | held_out == texts(corpus, source)
    for group in ("domain", "general", "dialog"):
        sizes = [
            len(text.encode())
            for source, of in corpus.groups.items()
            if of == group
            for text in texts(corpus, source, held_out=True).values()
        ]
        assert sum(sizes) >= 32 * 1024


def test_a_document_keeps_its_side_when_files_are_renamed_and_moved(config, data, tmp_path, changed):
    before = corpus_of(config)
    (data / "math" / "deep").mkdir()
    for number, path in enumerate(sorted((data / "math").glob("*.txt"))):
        path.rename(data / "math" / "deep" / f"z{90 - number}.md")
    after = corpus_of(changed(config, run_dir=str(tmp_path / "later")))
    for source in before.groups:
        for side in (True, False):
            assert texts(after, source, held_out=side) == texts(before, source, held_out=side)


def test_a_document_keeps_its_side_when_others_come(config, data, tmp_path, changed):
    before = corpus_of(config)
    (data / "math" / "zz.txt").write_text("a new one of which nobody has heard before " * 60)
    after = corpus_of(changed(config, run_dir=str(tmp_path / "later")))
    sides = [
        {identity for source in ("math", "stats") for identity in texts(corpus, source, held_out=True)}
        for corpus in (before, after)
    ]
    assert len(sides[0] ^ sides[1]) <= 2


def test_a_group_too_small_to_hold_anything_out_is_refused(config, data):
    for path in sorted((data / "general").iterdir())[5:]:
        path.unlink()
    with pytest.raises(
        DataError, match="group general: .* bytes in 5 documents are too little to hold 32,768"
    ) as caught:
        corpus_of(config)
    assert "Add text to the group" in caught.value.remedy
    assert open_corpus(collecting(config).folder) is None


def test_a_folder_that_is_only_looked_at_may_be_tiny(config, data):
    for path in sorted((data / "general").iterdir())[5:]:
        path.unlink()
    corpus = collect(replace(collecting(config), hold_out=False))
    assert len(texts(corpus, "general", held_out=False)) == 5
    assert texts(corpus, "math", held_out=True) == {}


def test_a_source_of_which_nothing_is_left_is_refused_with_its_reasons(config, data):
    for path in (data / "math").iterdir():
        path.write_text("too short\n")
    (data / "math" / "broken.txt").write_bytes(b"\x00\x01\x02\xff" * 30)
    shutil.rmtree(data / "general")
    (data / "math").rename(data / "general")
    with pytest.raises(DataError, match="general: gave no text.") as caught:
        corpus_of(config)
    assert "broken.txt" in caught.value.found and "by the rule too_short" in caught.value.found
    assert caught.value.remedy == "Add text, change the rule, or leave the source out."


def test_a_source_whose_documents_are_all_elsewhere_says_so(lab_config, lab, tmp_path):
    """Twice the same folder under two names: whichever has the smaller ids keeps them; one document is moved to decide it."""
    first = lab.source()
    (tmp_path / "one").mkdir()
    original = (lab.folder / "0.txt").read_text(encoding="utf-8").splitlines(keepends=True)[0]
    for number in range(8):  # eight names, eight stable ids: in one of them the copy loses
        other = tmp_path / "one" / f"copy{number}.txt"
        other.write_text(original, encoding="utf-8")
        config = lab_config(
            f"run{number}", data={"sources": [first, {**first, "path": str(other.parent), "name": "copy"}]}
        )
        try:
            corpus_of(config)
        except DataError as error:
            assert error.where == "copy"
            assert "gave no text. Left out: 1 that other sources hold too." in error.found
            break
        other.unlink()
    else:
        raise AssertionError("in none of eight places the copy lost")


def test_a_source_without_a_single_part_gave_no_text(lab_config):
    """Regression: it ended in an error of numpy's."""
    with pytest.raises(DataError, match="lab: gave no text. Left out: nothing. Add text, change"):
        corpus_of(lab_config(fault="no parts"))


@pytest.mark.parametrize("action", ["drop", "annotate"])
def test_a_planted_examination_question_is_dropped_or_kept_and_recorded(config, data, tmp_path, changed, action):
    exam = tmp_path / "finals.json"
    exam.write_text(json.dumps([{"id": "q7", "question": QUESTION}]))
    leak = (data / "math" / "00.txt").read_text(encoding="utf-8") + QUESTION.replace(" ", "\n")
    (data / "math" / "leak.txt").write_text(leak, encoding="utf-8")
    corpus = corpus_of(changed(config, {"decontamination": {"exams": [str(exam)], "action": action}}))
    assert [(each.suite, each.name, each.origin, each.action) for each in corpus.contamination] == [
        ("finals", "q7", "leak.txt", action)
    ]
    fate = fates(corpus, "math")["leak.txt"]
    if action == "drop":
        assert fate == "exam"
        assert leak not in texts(corpus, "math").values()
        assert corpus.ledgers[2].sums.input_bytes["exam"] == len(leak.encode())
    else:
        assert fate in {"kept", "held_out", "near_duplicate"}, "as any other document"
    assert corpus.questions == {"finals": 1}


@pytest.mark.slow
def test_the_exam_of_the_evaluation_is_looked_for_without_being_named(config, data, changed):
    from havoc_problems.catalog import exam_problems

    problem = max(exam_problems(20), key=lambda each: len(each.statement))
    leak = (data / "math" / "00.txt").read_text(encoding="utf-8") + problem.statement
    (data / "math" / "leak.txt").write_text(leak, encoding="utf-8")
    corpus = corpus_of(changed(config, evaluation={"exam_problems": 20}))
    assert {(each.suite, each.name) for each in corpus.contamination} >= {("exam", f"{problem.family} {problem.seed}")}
    assert fates(corpus, "math")["leak.txt"] == "exam"
    assert corpus.questions == {"exam": 20}


def test_rules_drop_general_text_and_annotate_domain_text_by_default(config, data):
    junk = "Accept all cookies. Log in. Sign up for our newsletter. All rights reserved. "
    for name in ("math", "general", "dialog"):
        own = (data / name / ("talk.jsonl" if name == "dialog" else "07.txt")).read_text(encoding="utf-8")[:500]
        (data / name / "junk.txt").write_text(f"{name} {junk * 10} {own}", encoding="utf-8")
    corpus = corpus_of(config)
    assert fates(corpus, "general")["junk.txt"] in corpus.facts["general"]["rules"]
    assert fates(corpus, "math")["junk.txt"] in {"kept", "held_out"}
    assert fates(corpus, "dialog")["junk.txt"] in {"kept", "held_out"}
    for name in ("math", "general"):
        fired = corpus.facts[name]["rules"]["boilerplate"]
        assert fired["documents"] == 1
        assert fired["examples"][0][0] == "junk.txt"
        assert fired["examples"][0][3].startswith(f"{name} Accept all cookies.")
    flagged = [line for line in corpus.ledger_lines("math") if "boilerplate" in line.get("flags", ())]
    assert [line["spans"][0][0] for line in flagged] == ["junk.txt"]


@pytest.mark.parametrize("action", ["annotate", "drop"])
def test_a_preface_in_many_files_stays_in_one_or_in_all(config, data, changed, action):
    preface = "This preface stands before every chapter of the book and says the same each time. " * 4
    for number in range(6):
        path = data / "math" / f"{number:02}.txt"
        path.write_text(f"Chapter {number}\n\n{preface}\n\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    corpus = corpus_of(changed(config, {"deduplication": {"paragraphs": action}}))
    with_it = [text for text in texts(corpus, "math").values() if preface.strip() in text]
    assert len(with_it) == (6 if action == "annotate" else 1)
    assert corpus.facts["math"]["repeated_paragraphs"] == 5
    assert corpus.facts["math"]["repeated_paragraph_bytes"] == 5 * len(preface.strip())
    for _, document in corpus.documents("math"):
        raw = (data / "math" / document.origin).read_text(encoding="utf-8")
        assert document.text == raw or (action == "drop" and document.text == raw.replace(preface.strip(), ""))


def test_half_a_surrogate_pair_becomes_a_replacement_character(config, data):
    line = json.dumps({"text": "before \ud800 after " + "the mean of a sample is x. " * 100})
    (data / "math" / "odd.jsonl").write_text(line + "\n")
    corpus = corpus_of(config)
    assert any("before \ufffd after" in text for text in texts(corpus, "math").values())


def test_half_a_surrogate_pair_in_names_and_reasons_harms_nothing(lab_config):
    """Regression: a licence or a reason that JSON can spell and UTF-8 cannot ended in a UnicodeEncodeError."""
    config = lab_config(fault="rejects")
    corpus = corpus_of(config)
    assert corpus.ledgers[0].sums.documents["a_rule"] == 5
    assert open_corpus(corpus.folder) == corpus
    assert next(line["licence"] for line in corpus.ledger_lines("lab") if "licence" in line) == "my ? licence"


def test_line_separators_inside_a_text_break_no_line(config, data):
    odd = "a\u2028b\x85c\u2029d\x0b\x0c\x1c" + "the mean of a sample is y. " * 100
    (data / "math" / "odd.txt").write_text(odd, encoding="utf-8")
    corpus = corpus_of(config)
    assert odd in texts(corpus, "math").values()


def test_the_text_of_a_dialog_is_its_contents():
    assert document_text(Document("x", messages=(("user", "a"), ("assistant", "b")))) == "a\nb"
    assert document_text(Document("x", "plain")) == "plain"


def test_a_file_whose_name_is_no_text_is_kept(config, data):
    (data / "math" / os.fsdecode(b"caf\xe9.txt")).write_text("a new text that nobody has read before " * 100)
    corpus = corpus_of(config)
    assert fates(corpus, "math")["caf\\xe9.txt"] in {"kept", "held_out"}
