"""Planted questions are found, in whatever setting; the same question about other numbers is not."""

from __future__ import annotations

import pickle
import random
import re
from collections.abc import Sequence

import pytest

from havoc_data.prepare.exams import Contamination, ExamIndex, ExamItem, problem_items, touched_items
from havoc_problems.catalog import exam_problems, training_problems
from havoc_problems.problem import Problem

NAMES = ["Mara", "Tobias", "Ines", "Oskar", "Leila", "Bruno", "Ada", "Felix", "Nora", "Emil"]
THINGS = ["apples", "stamps", "marbles", "tickets", "pencils", "candles", "bricks", "ribbons", "bottles", "coins"]
STORIES = [
    "{a} and {b} collect {t} for the fair in their village. On Monday {a} finds {x} of them behind the old mill, and on "
    "Tuesday {b} brings {y} more from her aunt. They pack the {t} into boxes of {z}. How many boxes do they fill?",
    "A shop sells {t} in bags of {x}. {a} buys {y} bags for the school and gives {z} of the {t} to {b}, who shares them with "
    "a cousin. How many {t} does {a} keep at the end of the day?",
    "{a} walks {x} kilometres to the market every morning and returns by bus, which costs ${y}. If {a} goes there on {z} "
    "days of the month and buys {t} for {b} each time, what does the bus cost altogether in that month?",
    "The train from the harbour carries {x} crates of {t}. At the first stop {a} unloads {y} crates, at the second {b} loads "
    "{z} others. The driver then counts everything twice before the train leaves for the mountains, where the crates are "
    "weighed, stamped and stored in a cold hall. How many crates of {t} are on the train when it reaches the hall?",
]  # fmt: skip
FILLER = "The weather was fair and nobody spoke of numbers while the river went past the houses. "


def stories(count: int, *, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [
        draw.choice(STORIES).format(
            a=draw.choice(NAMES), b=draw.choice(NAMES), t=draw.choice(THINGS),
            x=draw.randrange(2, 99), y=draw.randrange(2, 99), z=draw.randrange(2, 99),
        )
        for _ in range(count)
    ]  # fmt: skip


def index_of(questions: Sequence[str], *, overlap: float = 0.8, answers: Sequence[str] | None = None) -> ExamIndex:
    pairs = zip(questions, answers or [""] * len(questions), strict=True)
    return ExamIndex.of([ExamItem("test", str(n), q, a) for n, (q, a) in enumerate(pairs)], overlap=overlap)


@pytest.fixture(scope="module")
def planted() -> list[str]:
    return list(dict.fromkeys(stories(200, seed=1)))


@pytest.fixture(scope="module")
def index(planted: list[str]) -> ExamIndex:
    return index_of(planted)


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return exam_problems(500)


@pytest.fixture(scope="module")
def exam(problems: list[Problem]) -> ExamIndex:
    return ExamIndex.of(problem_items(problems), overlap=0.8)


def page(question: str) -> str:
    return FILLER * 20 + "\n\n" + question + "\n\n" + FILLER * 20


SETTINGS = {
    "verbatim": str,
    "reflowed": lambda q: q.replace(" ", "\n   "),
    "in markdown": lambda q: "## Exercise 3\n\n> **" + q.replace(". ", ".**\n> ") + "\n",
    "in capitals": str.upper,
    "in latex": lambda q: re.sub(r"(\d+)", r"$\1$", q).replace(" ", "~").replace("~and~", "\\ and\\,"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_planted_question_is_found_where_it_lies(setting: str, planted: list[str], index: ExamIndex) -> None:
    for number, question in enumerate(planted):
        text = page(SETTINGS[setting](question))
        hits = {hit.item: hit for hit in index.find(text)}
        assert number in hits
        assert hits[number].overlap == 1.0
        assert abs(hits[number].start - len(FILLER) * 20) < 30
        assert abs(hits[number].end - (len(text) - len(FILLER) * 20)) < 10


def test_long_questions_are_found_with_one_word_in_twenty_changed(planted: list[str], index: ExamIndex) -> None:
    draw = random.Random(2)
    found = 0
    for number, question in enumerate(planted):
        words = question.split(" ")
        places = [n for n, word in enumerate(words) if word.isalpha()]
        for place in draw.sample(places, max(1, round(len(words) / 20))):
            words[place] = "sundry"
        found += number in {hit.item for hit in index.find(page(" ".join(words)))}
    assert found / len(planted) >= 0.95


def test_the_same_question_about_other_numbers_is_not_found(planted: list[str], index: ExamIndex) -> None:
    for question in planted:
        numbers = re.findall(r"\d+", question)
        for number in numbers:  # one of them is enough
            other = question.replace(number, str(int(number) + 100))
            assert index.find(page(other)) == ()


def test_other_questions_of_the_same_stories_are_not_found(planted: list[str], index: ExamIndex) -> None:
    others = [question for question in stories(1000, seed=3) if question not in planted]
    assert len(others) > 900
    assert [hits for hits in index.find_each(others) if hits] == []


def test_a_number_is_not_taken_from_the_next_sentence() -> None:
    """Regression: the 1 that the problem lacked was found in the worked solution."""
    question = "Find the slope of the tangent to y = x^3 - 7x^2 - 3x + 8 at x = -1."
    text = "Find the slope of the tangent to y = x^3 - 7x^2 - 3x + 8 at x = -3.\nThe derivative of c x^n is n c x^(n-1); c is"
    assert index_of([question]).find(text) == ()
    assert len(index_of([question]).find(text.replace("= -3", "= -1"))) == 1
    assert index_of([question]).find(text.replace("= -3", "= -1").replace("- 7", "+ 7")) == ()


def test_training_problems_of_the_same_families_touch_no_exam_problem(problems: list[Problem], exam: ExamIndex) -> None:
    texts = [f"{problem.statement}\n{problem.solution}" for problem in training_problems(500)]
    assert exam.find_each(texts) == [()] * 500
    together = "\n\n".join(texts[:60])
    assert exam.find(together) == ()


def test_every_exam_problem_is_found_in_a_page_of_training_problems(problems: list[Problem], exam: ExamIndex) -> None:
    around = [problem.statement for problem in training_problems(6)]
    for problem in problems:
        text = "\n\n".join([*around[:3], problem.statement.replace(" ", "  \n"), *around[3:]])
        found = [problems[hit.item].statement for hit in exam.find(text)]
        assert problem.statement in found
        # "at most" for "at least" and the like: another question about the same numbers is touched too.
        numbers = {tuple(sorted(re.findall(r"[\d.]+\d|\d", statement))) for statement in found}
        assert len(numbers) == 1
    assert exam.too_short == ()


def test_a_question_of_eight_words_or_more_must_be_held_whole() -> None:
    short = index_of(["Which of the two rivers is the longer one?"])
    assert short.find("Say: which of the two rivers is the *longer*\none? The first.") != ()
    assert short.find("Say: which of the two rivers is the shorter one?") == ()
    assert short.find("Which of the two rivers is the") == ()


def test_a_question_of_five_words_needs_its_answer_near_by() -> None:
    short = index_of(["Who wrote this long play?"], answers=["Henrik Ibsen"])
    assert short.find("Who wrote this long play? It was Henrik Ibsen.") != ()
    assert short.find("Who wrote this long play? It was Ibsen, Henrik") == ()
    assert short.find("Who wrote this long play? " + "well " * 60 + "Henrik Ibsen") == ()
    assert short.find("Who wrote this long play?") == ()


def test_what_is_too_short_is_not_looked_for_and_named() -> None:
    index = index_of(
        ["What is 2 + 2?", "What is 17 * 23?", "Why?", "", FILLER], answers=["4", "391", "because", "x", ""]
    )
    assert index.too_short == (0, 1, 2, 3)
    assert index.find("What is 2 + 2? 4. What is 17 * 23? 391. Why? because x") == ()
    assert [hit.item for hit in index.find(f"What is 2 + 2? 4 {FILLER}")] == [4]


def test_the_place_with_the_right_numbers_is_found_among_others_of_the_template(planted: list[str]) -> None:
    question = planted[0]
    index = index_of([question])
    others = [re.sub(r"\d+", str(n), question) for n in range(100, 103)]
    text = "\n".join([*others, question, *others])
    (hit,) = index.find(text)
    assert text[hit.start : hit.end] == question.rstrip("?")


def test_a_lower_share_is_enough_where_the_settings_say_so(planted: list[str]) -> None:
    half = planted[0].replace("who shares them with a cousin", "a man of whom we have heard nothing so far")
    assert half != planted[0]
    assert index_of([planted[0]], overlap=0.95).find(half) == ()
    (hit,) = index_of([planted[0]], overlap=0.5).find(half)
    assert 0.5 < hit.overlap < 0.95


def test_texts_together_give_what_each_gives_by_itself(planted: list[str], index: ExamIndex) -> None:
    middle = planted[5].split(" ")
    texts = ["", planted[3], " ".join(middle[:12]), " ".join(middle[12:]), page(planted[4]) * 2, "é", page("x") * 60]
    assert index.find_each(texts) == [index.find(text) for text in texts]
    assert [len(hits) for hits in index.find_each(texts)] == [0, 1, 0, 0, 1, 0, 0]
    assert index.find_each([]) == []


def test_touched_items_are_gathered_from_many_texts(planted: list[str], index: ExamIndex) -> None:
    texts = (page(planted[n]) if n in {2, 150} else page("") for n in range(len(planted)))
    assert touched_items(index, texts) == {2, 150}
    assert touched_items(index, []) == frozenset()


def test_an_index_survives_pickling_and_its_key_tells_everything_apart(planted: list[str], index: ExamIndex) -> None:
    again = pickle.loads(pickle.dumps(index))
    assert again.find(planted[7]) == index.find(planted[7]) != ()
    assert again.key == index.key == index_of(planted).key
    others = [index_of(planted[:-1]), index_of(planted, overlap=0.7), index_of(planted, answers=["x"] * len(planted))]
    assert len({index.key, *(other.key for other in others)}) == 4


def test_an_index_of_nothing_finds_nothing() -> None:
    assert index_of([]).find(FILLER * 3) == ()
    assert index_of([""]).find(FILLER * 3) == ()


def test_a_record_survives_the_way_through_plain_values() -> None:
    record = Contamination("gsm8k", "12", 0.93, "stats", "a/b.txt", "drop")
    assert Contamination.from_dict(record.to_dict()) == record


@pytest.mark.parametrize("change", [{"overlap": "1"}, {"name": None}, {"more": 1}])
def test_values_that_are_no_record_are_refused(change: dict[str, object]) -> None:
    values = Contamination("gsm8k", "12", 0.93, "stats", "a/b.txt", "drop").to_dict()
    with pytest.raises(TypeError):
        Contamination.from_dict(values | change)
