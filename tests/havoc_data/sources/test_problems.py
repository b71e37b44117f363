from __future__ import annotations

import pickle

import pytest
from pydantic import ValidationError

from havoc_core.errors import ConfigError
from havoc_data.document import Document
from havoc_data.sources.problems import Options, build
from havoc_problems.catalog import family_names
from havoc_problems.splits import reserved_for_exam


def documents(**options: object) -> list[Document]:
    return [each for each in build(None, Options.model_validate(options)).documents() if isinstance(each, Document)]


def test_each_problem_is_a_dialog_of_a_question_and_a_worked_answer() -> None:
    made = documents(count=40)
    assert len(made) == 40
    for document in made:
        assert document.text == ""
        assert [role for role, _ in document.messages] == ["user", "assistant"]
        assert "\nAnswer: " in document.messages[1][1]


def test_origin_and_ordinal_name_the_problem_for_ever() -> None:
    made = documents(count=60)
    assert {document.origin for document in made} == {f"problems/{name}" for name in family_names()}
    assert len({(document.origin, document.ordinal) for document in made}) == 60
    assert documents(count=60) == made
    assert documents(count=10) == made[:10]


def test_no_statement_of_the_exam_is_learnt() -> None:
    assert not any(reserved_for_exam(document.messages[0][1]) for document in documents(count=300))


def test_families_can_be_chosen() -> None:
    assert {document.origin for document in documents(count=6, families=["derivative"])} == {"problems/derivative"}


def test_a_misspelt_family_is_answered_with_the_nearest_name_before_anything_is_made() -> None:
    with pytest.raises(
        ConfigError, match=r"family: 'derivativ' is not a family of problems here. Did you mean 'derivative'"
    ):
        build(None, Options(families=("derivativ",)))


def test_a_family_named_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"options.families: 'derivative' is named twice, .* Name each family once."):
        build(None, Options(families=("derivative", "derivative")))


def test_problems_are_made_and_not_read() -> None:
    with pytest.raises(
        ConfigError, match=r"data.sources.path: 'x' is given, but .*'problems' reads no files. Leave path"
    ):
        build("x", Options())
    with pytest.raises(ValidationError):
        Options(count=0)


def test_the_fingerprint_follows_the_count_and_the_families() -> None:
    prints = [
        build(None, options).fingerprint()
        for options in (Options(), Options(), Options(count=5), Options(families=("derivative",)))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_each_family_is_a_part_and_together_they_are_all_problems() -> None:
    source = build(None, Options(count=43))
    parts = source.parts()
    assert [part.count for part in parts] == [6, 6, 6, 5, 5, 5, 5, 5]
    made = [document for part in parts for document in part.documents()]
    assert sorted(made, key=str) == sorted(source.documents(), key=str)
    assert (source.rejected(), parts[0].sizes()) == ((), {})
    assert len(build(None, Options(count=3)).parts()) == 3


def test_the_key_of_a_part_follows_its_family_and_count_alone() -> None:
    keys = {part.family: part.key for part in build(None, Options(count=16)).parts()}
    assert len(set(keys.values())) == 8
    (alone,) = build(None, Options(count=2, families=("derivative",))).parts()
    assert alone.key == keys["derivative"]
    (more,) = build(None, Options(count=3, families=("derivative",))).parts()
    assert more.key != alone.key
    assert pickle.loads(pickle.dumps(more)) == more
