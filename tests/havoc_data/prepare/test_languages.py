from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("py3langid")

from havoc_data.prepare.languages import identify

SENTENCES = {
    "en": "The mean of a sample is the sum of its values divided by how many there are of them.",
    "de": "Der Mittelwert einer Stichprobe ist die Summe ihrer Werte geteilt durch deren Anzahl.",
    "fr": "La moyenne d'un échantillon est la somme de ses valeurs divisée par leur nombre.",
    "es": "La media de una muestra es la suma de sus valores dividida por el número de ellos.",
    "it": "La media di un campione è la somma dei suoi valori divisa per il loro numero.",
    "ru": "Среднее выборки равно сумме её значений, делённой на их количество.",
    "zh": "样本的平均值是其数值之和除以数值的个数，这个定义十分常见。",
}


@pytest.mark.parametrize("language", SENTENCES)
def test_a_sentence_is_enough(language: str) -> None:
    found, probability = identify(SENTENCES[language])
    assert found == language
    assert 0.5 < probability <= 1.0


@pytest.mark.parametrize(
    "text", ["", " \n", "12 + 7 = 19", "x", "$\\alpha + \\beta$ $$\\int_a^b f(x) dx$$", "\ud800", "0" * 9999]
)
def test_too_little_text_has_no_language(text: str) -> None:
    assert identify(text) == ("und", 0.0)


@pytest.mark.parametrize(
    "wrapping",
    [
        "```python\nfor value in the_list_of_values: print(value) # the code is here\n```\n{} ",
        "{} $$\\text{{for all of the}} \\sum_{{i=1}}^n x_i$$ {} ",
        "\\begin{{equation}} \\text{{where this is the mean of the}} \\end{{equation}} {}",
        '<p class="the content of the page">{}</p>',
        "\\textbf{{}} https://www.example.com/this-is-the-address-of-the-page {}",
    ],
)
def test_formulas_code_and_markup_do_not_tell_the_language(wrapping: str) -> None:
    german = SENTENCES["de"]
    assert identify(wrapping.format(german, german) * 3)[0] == "de"


def test_only_the_beginning_is_read() -> None:
    beginning = SENTENCES["fr"] + " "
    assert identify(beginning * 40 + SENTENCES["en"] * 10_000) == identify(beginning * 40)


def test_the_answer_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = f"from havoc_data.prepare.languages import identify; print(identify({SENTENCES['it']!r}))"
    output = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output == f"{identify(SENTENCES['it'])}\n"


def test_a_missing_package_is_an_error_with_the_command_that_installs_it() -> None:
    code = (
        "import sys; sys.modules['py3langid'] = None\n"
        "from havoc_core.errors import MissingPackageError\n"
        "from havoc_data.prepare.languages import identify\n"
        "try:\n    identify('The mean of a sample is the sum of its values.')\n"
        "except MissingPackageError as error:\n    print(error.where, '|', error.found, '|', error.remedy)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True
    ).stdout
    where, found, remedy = output.split(" | ")
    assert where == "data.cleaning.languages"
    assert "py3langid" in found and "not installed" in found
    assert "pip install 'havoc[formats]'" in remedy


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_every_text_has_an_answer(text: str) -> None:
    language, probability = identify(text)
    assert language and 0.0 <= probability <= 1.0
    assert identify(text) == (language, probability)


@pytest.mark.parametrize("piece", ["$", "`", "\\begin{equation}", "<", "\\[", "```", "a@", "a" * 1000, "\n"])
def test_a_megabyte_of_openings_is_read_at_once(piece: str) -> None:
    assert identify(piece * (1_000_000 // len(piece))) is not None
