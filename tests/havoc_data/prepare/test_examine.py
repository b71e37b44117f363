"""One part -> its documents, looked at one by one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from havoc_core.config import CleaningConfig, RulesConfig
from havoc_core.errors import DataError
from havoc_data.document import Document, Rejected, Span
from havoc_data.prepare.examine import Examination, ExamineTask, examine
from havoc_data.prepare.exams import ExamItem
from havoc_data.prepare.seal import is_sealed
from havoc_data.prepare.settle import read_lines

PROSE = (
    "The mean of a sample is the sum of its values over their number, and it is an unbiased estimate of the mean of "
    "the population. The variance is what one gets when the squares of all deviations from the mean are averaged. "
)
QUESTION = (
    "A factory makes bolts whose lengths are normal with mean 50 mm and standard deviation 2 mm. What is the share "
    "of bolts that are longer than 53 mm, to three digits?"
)


@dataclass
class Fake:
    """A part made of given items; its one file is as long as they say."""

    items: list = field(default_factory=list)
    lengths: dict = field(default_factory=dict)
    key: str = "part"
    read: int = 0

    def documents(self):
        self.read += 1
        return iter(self.items)

    def sizes(self):
        return self.lengths


def settings(tmp_path, *, rules="annotate", compare=True, exams="off", **cleaning):
    asked = tmp_path / "exams.json"
    item = {"suite": "finals", "name": "q1", "question": QUESTION, "answer": "0.067"}
    asked.write_text(json.dumps([item]))
    return Examination(
        cleaning=CleaningConfig(**cleaning),
        rules=rules,
        compare=compare,
        exams=exams,
        exam_file=None if exams == "off" else asked,
        exam_key="" if exams == "off" else "one question",
        overlap=0.8,
    )


def look(tmp_path, part, examination, *, source="math"):
    """(documents, ledger, facts, folder)"""
    parts = tmp_path / "parts"
    parts.mkdir(exist_ok=True)
    folder = parts / examine(ExamineTask(part, source, "lab", examination, parts))
    facts = json.loads((folder / "facts.json").read_text())
    return (
        list(read_lines(folder / "documents.jsonl.zst")),
        list(read_lines(folder / "ledger.jsonl.zst")),
        facts,
        folder,
    )


def test_a_document_keeps_its_text_its_place_and_its_licence(tmp_path):
    items = [
        Document("a.tex", PROSE, start=0, end=90, licence="MIT", includes=(Span("b.tex", 0, 9),)),
        Document("a.tex", PROSE * 2, ordinal=1, start=90, end=100),
    ]
    part = Fake(items, {"a.tex": (0, 100), "b.tex": (0, 9)})
    documents, ledger, facts, folder = look(tmp_path, part, settings(tmp_path))
    assert [(line["origin"], line["ordinal"], line["text"]) for line in documents] == [
        ("a.tex", 0, PROSE),
        ("a.tex", 1, PROSE * 2),
    ]
    assert documents[0]["includes"] == [["b.tex", 0, 9]]
    assert [line["licence"] for line in documents] == ["MIT", None]
    assert [(line["bytes"], line["text"]) for line in ledger] == [(99, len(PROSE)), (10, 2 * len(PROSE))]
    assert ledger[0]["spans"] == [["a.tex", 0, 90], ["b.tex", 0, 9]]
    assert facts["input_bytes"] == 109
    assert is_sealed(folder)


def test_the_id_is_that_of_the_text_and_the_stable_id_that_of_the_place(tmp_path):
    items = [Document("a", PROSE), Document("b", PROSE), Document("a", "Another text. " * 20, ordinal=1)]
    documents, _, _, folder = look(tmp_path, Fake(items), settings(tmp_path))
    ids = [line["id"] for line in documents]
    assert ids[0] == ids[1] != ids[2]
    stable = [row.tobytes() for row in np.load(folder / "stable_ids.npy")]
    assert len(set(stable)) == 3
    _, _, _, elsewhere = look(tmp_path, Fake(items, key="other"), settings(tmp_path), source="stats")
    assert set(stable).isdisjoint(row.tobytes() for row in np.load(elsewhere / "stable_ids.npy"))


def test_a_dialog_is_not_the_text_that_its_contents_make(tmp_path):
    items = [
        Document("a", "one\ntwo"),
        Document("b", messages=(("user", "one"), ("assistant", "two"))),
        Document("c", messages=(("assistant", "one"), ("user", "two"))),
    ]
    documents, _, _, folder = look(tmp_path, Fake(items), settings(tmp_path))
    assert len({line["id"] for line in documents}) == 3
    assert documents[1]["messages"] == [["user", "one"], ["assistant", "two"]]
    assert np.load(folder / "text_bytes.npy").tolist() == [7, 7, 7]


def test_a_rule_that_drops_leaves_a_line_with_its_reason_and_its_bytes(tmp_path):
    items = [Document("a.txt", PROSE, end=len(PROSE)), Document("a.txt", "short", ordinal=1, start=len(PROSE), end=600)]
    part = Fake(items, {"a.txt": (0, 600)})
    documents, ledger, facts, _ = look(tmp_path, part, settings(tmp_path, rules="drop"))
    assert [line["text"] for line in documents] == [PROSE]
    reject = next(line for line in ledger if line.get("fate") == "too_short")
    assert reject["reason"] == "5, and the limit is 100"
    assert (reject["bytes"], reject["text"]) == (600 - len(PROSE), 5)
    assert facts["rules"]["too_short"] == {"bytes": 5, "documents": 1, "examples": [["a.txt", 5.0, 100.0, "short"]]}
    assert facts["seen"] == {"bytes": len(PROSE) + 5, "documents": 2}


def test_a_rule_that_annotates_keeps_the_text_and_says_what_fired(tmp_path):
    documents, ledger, facts, _ = look(tmp_path, Fake([Document("a.txt", "short")]), settings(tmp_path))
    assert [line["text"] for line in documents] == ["short"]
    assert ledger[0]["flags"] == ["too_short"]
    assert "fate" not in ledger[0]
    assert facts["rules"]["too_short"]["documents"] == 1


def test_rules_that_are_off_are_not_looked_at(tmp_path):
    documents, ledger, facts, _ = look(tmp_path, Fake([Document("a.txt", "short")]), settings(tmp_path, rules="off"))
    assert (len(documents), facts["rules"]) == (1, {})
    assert "flags" not in ledger[0]


def test_a_text_in_another_language_is_left_out_as_by_a_rule_and_formulas_alone_are_not(tmp_path):
    german = "Der Mittelwert einer Stichprobe ist die Summe ihrer Werte durch deren Anzahl, und er ist erwartungstreu. "
    items = [Document("en", PROSE), Document("de", german * 2), Document("none", "1 + 2 = 3; " * 20)]
    rules = RulesConfig(**dict.fromkeys(RulesConfig.model_fields))
    cleaning = CleaningConfig(languages=["en"], rules=rules)
    examination = Examination(**{**vars(settings(tmp_path, rules="drop")), "cleaning": cleaning})
    documents, ledger, facts, _ = look(tmp_path, Fake(items), examination)
    assert [line["origin"] for line in documents] == ["en", "none"]
    assert [line["fate"] for line in ledger if "fate" in line] == ["language"]
    assert set(facts["languages"]) == {"en", "de", "und"}
    assert facts["languages"]["de"] == len((german * 2).encode())


@pytest.mark.parametrize("action", ["report", "mask", "off"])
def test_personal_data_are_counted_or_masked_or_not_looked_for(tmp_path, action):
    text = PROSE + "Write to ada.lovelace@analytical.org about it."
    talk = (("user", "I am bob.smith@analytical.org"), ("assistant", "Hello."))
    items = [Document("a", text), Document("b", PROSE), Document("c", messages=talk)]
    documents, _, facts, _ = look(tmp_path, Fake(items), settings(tmp_path, personal_data=action))
    masked = action == "mask"
    assert documents[0]["text"] == (text.replace("ada.lovelace@analytical.org", "[email]") if masked else text)
    assert documents[1]["text"] == PROSE
    assert documents[2]["messages"][0] == ["user", "I am [email]" if masked else "I am bob.smith@analytical.org"]
    assert facts["personal_data"] == ({} if action == "off" else {"email": 2})
    assert facts["personal_documents"] == (0 if action == "off" else 2)


@pytest.mark.parametrize("action", ["drop", "annotate"])
def test_an_examination_question_in_a_text_is_recorded_and_dropped_or_kept(tmp_path, action):
    items = [Document("clean", PROSE), Document("leak", PROSE + QUESTION.upper().replace(",", " ,") + "\n" + PROSE)]
    documents, ledger, facts, _ = look(tmp_path, Fake(items), settings(tmp_path, exams=action))
    assert [line["origin"] for line in documents] == (["clean", "leak"] if action == "annotate" else ["clean"])
    assert facts["contamination"] == [["finals", "q1", 1.0, "math", "leak", action]]
    if action == "drop":
        assert [line["reason"] for line in ledger if line.get("fate") == "exam"] == ["finals q1"]
    else:
        assert ledger[1]["flags"] == ["exam"]


def test_what_a_reader_rejects_is_a_line_of_its_own(tmp_path):
    items = [Document("a.pdf", PROSE, end=10), Rejected("a.pdf", "a page of scans", 15, 10, rule="no_text")]
    _, ledger, facts, _ = look(tmp_path, Fake(items, {"a.pdf": (0, 25)}), settings(tmp_path))
    reject = next(line for line in ledger if "fate" in line)
    assert (reject["fate"], reject["reason"], reject["bytes"]) == ("no_text", "a page of scans", 15)
    assert reject["spans"] == [["a.pdf", 10, 25]]
    assert facts["rejects"] == [["a.pdf", "no_text", "a page of scans"]]


def test_half_a_surrogate_pair_becomes_a_replacement_character_everywhere(tmp_path):
    items = [
        Document("a", "before \ud800 after " + PROSE, licence="my \udfff licence"),
        Document("b", messages=(("user", "x \udc00"), ("assistant", "y"))),
        Rejected("c", "half \ud801", 0),
    ]
    documents, ledger, _, _ = look(tmp_path, Fake(items), settings(tmp_path))
    assert documents[0]["text"].startswith("before \ufffd after")
    assert documents[1]["messages"][0] == ["user", "x \ufffd"]
    json.dumps([documents, ledger], ensure_ascii=False).encode()  # all of it has bytes


def test_a_part_without_documents_is_a_part(tmp_path):
    documents, ledger, facts, folder = look(
        tmp_path, Fake([Rejected("a", "empty", 0, rule="empty")], {"a": (0, 0)}), settings(tmp_path)
    )
    assert (documents, len(ledger), facts["input_bytes"]) == ([], 1, 0)
    assert np.load(folder / "signatures.npy").shape == (0, 112)


def test_where_there_are_no_files_the_text_is_what_is_accounted_for(tmp_path):
    _, ledger, facts, _ = look(tmp_path, Fake([Document("scipy.norm", PROSE)]), settings(tmp_path))
    assert facts["input_bytes"] == ledger[0]["bytes"] == len(PROSE)


def test_the_format_is_told_by_the_name_of_a_file_and_by_the_kind_of_a_source_without_files(tmp_path):
    text = Document("a.tex", PROSE, end=10)
    assert set(look(tmp_path, Fake([text], {"a.tex": (0, 10)}), settings(tmp_path))[2]["formats"]) == {"tex"}
    assert set(look(tmp_path, Fake([text], key="other"), settings(tmp_path))[2]["formats"]) == {"lab"}


def test_an_account_that_does_not_close_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError, match="math: a.txt: bytes 10 to 12 are not accounted for"):
        look(tmp_path, Fake([Document("a.txt", PROSE, end=10)], {"a.txt": (0, 12)}), settings(tmp_path))
    assert list((tmp_path / "parts").iterdir()) == []


def test_a_part_that_was_looked_at_is_not_read_again_unless_a_setting_has_changed(tmp_path):
    part = Fake([Document("a", PROSE)])
    look(tmp_path, part, settings(tmp_path))
    look(tmp_path, part, settings(tmp_path, domain="drop"))  # what another group does has no influence
    assert part.read == 1
    for changed in (
        settings(tmp_path, rules="off"),
        settings(tmp_path, compare=False),
        settings(tmp_path, exams="drop"),
        settings(tmp_path, exams="annotate"),
        settings(tmp_path, personal_data="mask"),
        settings(tmp_path, rules="drop"),
        Examination(**{**vars(settings(tmp_path)), "cleaning": CleaningConfig(rules=RulesConfig(too_short=3))}),
        Examination(**{**vars(settings(tmp_path, exams="drop")), "exam_key": "two questions"}),
    ):
        before = part.read
        look(tmp_path, part, changed)
        assert part.read == before + 1


def test_a_part_that_is_damaged_is_looked_at_again_and_comes_out_the_same(tmp_path, contents):
    part = Fake([Document("a", PROSE), Document("b", PROSE + "More.")])
    _, _, _, folder = look(tmp_path, part, settings(tmp_path))
    good = contents(folder)
    assert len(good) == 14, "documents, ledger, ten arrays, facts and the seal"
    for number, name in enumerate(good):
        damaged = bytearray(good[name])
        damaged[len(damaged) // 2] ^= 4
        (folder / name).write_bytes(damaged)
        look(tmp_path, part, settings(tmp_path))
        assert part.read == number + 2, name
        assert contents(folder) == good
    (folder / "facts.json").unlink()
    look(tmp_path, part, settings(tmp_path))
    assert contents(folder) == good


def test_questions_of_another_exam_are_another_index(tmp_path):
    """Regression guard: the index is kept between parts, and must not be that of other questions."""
    items = [Document("leak", PROSE + QUESTION)]
    assert look(tmp_path, Fake(items), settings(tmp_path, exams="annotate"))[2]["contamination"]
    other = settings(tmp_path, exams="annotate")
    item = ExamItem("finals", "q2", "How many words has a question that nobody has ever asked anybody before this one?")
    (tmp_path / "exams.json").write_text(json.dumps([vars(item)]))
    changed = Examination(**{**vars(other), "exam_key": "another question"})
    assert look(tmp_path, Fake(items), changed)[2]["contamination"] == []
