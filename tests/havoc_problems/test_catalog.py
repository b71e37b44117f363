from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import pytest

from havoc_core.errors import ConfigError
from havoc_problems.catalog import build_family, exam_problems, family_names, training_problems
from havoc_problems.families import linear_system
from havoc_problems.problem import Answer, Problem
from havoc_problems.splits import reserved_for_exam, split_of

EIGHT = [
    "beam_deflection",
    "binomial_probability",
    "confidence_interval",
    "derivative",
    "factorial_effect",
    "linear_system",
    "simple_regression",
    "xbar_limits",
]


class Counting:
    """A family of one's own: "What is <n> + 1?" for n below `size`, so that it runs out of statements."""

    name = "counting"
    field = "math"
    version = 1

    def __init__(self, size: int) -> None:
        self.size = size

    def build(self, seed: int) -> Problem:
        number = seed % self.size
        answer = Answer(kind="numeric", text=str(number + 1), value=number + 1.0)
        return Problem(
            family=self.name,
            seed=seed,
            field="math",
            statement=f"What is {number} + 1?",
            solution=f"{number} + 1 = {number + 1}",
            answer=answer,
            guess_rate=1 / self.size,
        )


def test_eight_families_cover_five_subjects():
    assert family_names() == EIGHT
    fields = Counter(build_family(name).field for name in EIGHT)
    assert fields == {"math": 2, "stats": 3, "spc": 1, "doe": 1, "engineering": 1}


def test_a_misspelt_family_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"family: 'linear_sistem' is not a family.*Did you mean 'linear_system'\?"):
        build_family("linear_sistem")


def test_an_unknown_option_is_refused_with_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"family_options\.max_trial: .*Options of 'binomial_probability': max_trials"
    ):
        build_family("binomial_probability", {"max_trial": 4})


def test_an_option_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"family_options\.max_solution: .*found 1"):
        build_family("linear_system", {"max_solution": 1})


def test_options_reach_the_problems():
    family = build_family("linear_system", {"max_solution": 2})
    answers = {family.build(seed).answer.text for seed in range(60)}
    assert answers == {"-2", "-1", "0", "1", "2"}
    assert family.build(0).guess_rate == 0.2


def test_a_module_of_the_users_own_is_a_family():
    family = build_family("havoc_problems.families.linear_system")
    assert family.build(3) == linear_system.build(3)


@pytest.mark.parametrize("constants", ["VERSION = 1", "FIELD, VERSION = 'alchemy', 1", "FIELD = 'math'"])
def test_a_module_without_subject_or_version_is_refused(tmp_path, monkeypatch, constants: str):
    lab = f"lab_{abs(hash(constants))}"  # a name of its own, since Python keeps what it has imported
    (tmp_path / lab).mkdir()
    lines = ("from havoc_problems.families.linear_system import Options, build", constants)
    (tmp_path / lab / "family.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ConfigError, match=rf"family: module '{lab}\.family' has FIELD = .*VERSION = .*Give it a FIELD out"
    ):
        build_family(f"{lab}.family")


def test_thousands_of_training_problems_and_the_exam_never_meet():
    exam = exam_problems(400)
    training = list(training_problems(3000))
    assert not {p.statement for p in exam} & {p.statement for p in training}
    assert all(reserved_for_exam(p.statement) and split_of(p.seed) == "exam" for p in exam)
    assert not any(reserved_for_exam(p.statement) or split_of(p.seed) == "exam" for p in training)


def test_equal_statements_from_seeds_of_both_sides_still_never_meet():
    """Seeds alone would not do: this family has 600 statements and every one comes from odd and from even seeds."""
    family = Counting(601)  # odd, so that even seeds reach every number as well
    training = {p.statement for p in training_problems(5000, families=[family])}
    exam = {p.statement for p in exam_problems(20, families=[family])}
    built = {family.build(seed).statement for seed in range(0, 2000, 2)}
    assert exam < built  # training seeds do give exam statements, and only the reserve keeps them out
    assert not exam & training


def test_the_exam_is_balanced_and_says_nothing_twice():
    exam = exam_problems(100)
    assert len({p.statement for p in exam}) == 100
    counts = Counter(p.family for p in exam)
    assert set(counts) == set(EIGHT)
    assert set(counts.values()) == {12, 13}


def test_a_shorter_exam_is_the_beginning_of_a_longer_one():
    assert exam_problems(40)[:11] == exam_problems(11)


def test_a_family_named_twice_still_gives_no_statement_twice():
    exam = exam_problems(30, families=["derivative", "derivative"])
    assert len({p.statement for p in exam}) == 30


def test_families_are_chosen_by_name_or_given_with_their_options():
    family = build_family("linear_system", {"max_solution": 3})
    names = [p.family for p in training_problems(4, families=["derivative", family])]
    assert names == ["derivative", "linear_system"] * 2
    assert {p.family for p in exam_problems(3, families="derivative")} == {"derivative"}


def test_training_problems_without_a_count_go_on():
    stream = training_problems(families=["derivative"])
    assert list(itertools.islice(stream, 50)) == list(training_problems(50, families=["derivative"]))


def test_training_can_start_later():
    early = [p for p in training_problems(60, families=["derivative"]) if p.seed >= 40]
    assert len(early) > 30
    assert list(training_problems(len(early), families=["derivative"], first=20)) == early


def test_no_problems_are_asked_for_and_none_come():
    assert exam_problems(0) == []
    assert list(training_problems(0)) == []


def test_no_family_at_all_is_refused():
    with pytest.raises(ConfigError, match=r"families: no family of problems is named\. Name some of: beam_deflection"):
        exam_problems(3, families=[])


def test_an_exam_larger_than_its_family_is_refused_with_the_number_there_is():
    with pytest.raises(ConfigError, match=r"family 'counting': it has 2 different problems.*Ask for a smaller exam"):
        exam_problems(30, families=[Counting(31)])


def test_a_family_whose_statements_all_belong_to_the_exam_is_refused_in_training():
    class Reserved(Counting):
        def build(self, seed: int) -> Problem:
            return super().build(13)  # "What is 13 + 1?" is reserved: test_splits.py pins it

    with pytest.raises(
        ConfigError, match=r"family 'counting': all of 2,000 statements.*leave the family out of training"
    ):
        list(training_problems(1, families=[Reserved(60)]))


def test_negative_counts_are_refused():
    with pytest.raises(ValueError, match="found -1"):
        exam_problems(-1)
    with pytest.raises(ValueError, match="found -1 and 0"):
        training_problems(-1)
    with pytest.raises(ValueError, match="found 5 and -2"):
        training_problems(5, first=-2)


def test_the_version_of_a_family_is_read_without_importing_what_it_computes_with():
    """Regression: training on a finished store loaded SciPy and SymPy, only to see that nothing had changed."""
    code = (
        "import sys; from havoc_problems.catalog import family_names, family_version;"
        "print(*[family_version(n) for n in family_names()]);"
        "print(sorted({'scipy', 'sympy', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[0].split() == [str(build_family(name).version) for name in family_names()]
    assert out[1] == "[]"
