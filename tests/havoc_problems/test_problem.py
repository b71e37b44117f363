from __future__ import annotations

from typing import Any

import pytest

from havoc_problems.problem import Answer, Problem, family_random


def test_a_problem_becomes_a_dialog_that_ends_in_its_answer():
    problem = Problem(
        family="sum",
        seed=1,
        field="math",
        statement="What is 2 + 3?",
        solution="2 + 3 = 5",
        answer=Answer(kind="numeric", text="5", value=5.0),
        guess_rate=0.1,
    )
    assert problem.messages() == [
        {"role": "user", "content": "What is 2 + 3?"},
        {"role": "assistant", "content": "2 + 3 = 5\nAnswer: 5"},
    ]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"kind": "numeric", "text": "5"}, "has a value when it is numeric"),
        ({"kind": "symbolic", "text": "2x", "value": 2.0}, "has a value when it is numeric"),
        ({"kind": "numeric", "text": "inf", "value": float("inf")}, "is finite"),
        ({"kind": "numeric", "text": "5", "value": 5.0, "tolerance": 1.0}, r"lies in \[0, 1\)"),
        ({"kind": "choice", "text": "C", "choices": ("yes", "no")}, "one of the letters 'AB'"),
        ({"kind": "choice", "text": "AB", "choices": ("yes", "no")}, "one of the letters 'AB'"),
        ({"kind": "symbolic", "text": ""}, "one line of text"),
        ({"kind": "symbolic", "text": "x\n+ 1"}, "one line of text"),
    ],
)
def test_an_answer_with_parts_of_another_kind_is_refused(parts: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Answer(**parts)


def test_the_stream_of_a_seed_is_pinned_to_its_name_version_and_seed():
    # A literal: another value here means every problem of every family changed, and VERSION with it.
    assert family_random("derivative", version=1, seed=0).randint(0, 10**6) == 994239
    streams = {family_random(n, version=v, seed=s).random() for n in "ab" for v in (1, 2) for s in (0, 1)}
    assert len(streams) == 8
