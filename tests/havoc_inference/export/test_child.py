"""What other software says, and its end over a broken file, are answers."""

from __future__ import annotations

import pytest

from havoc_core.errors import CheckpointError
from havoc_inference.export import child


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program of the test's own in place of those beside the module."""

    def write(text):
        (tmp_path / "ask.py").write_text(text)
        monkeypatch.setattr(child, "__file__", str(tmp_path / "child.py"))

    return write


def test_answers_come_back_as_plain_values_and_arrays(program):
    program(
        "import json, sys, numpy as np\n"
        "request = json.load(open(sys.argv[1]))\n"
        "with open(sys.argv[2], 'wb') as file:\n"
        "    np.savez(file, twice=np.array(request['x']) * 2, answers=json.dumps({'said': request['word']}))\n"
    )
    answers = child.ask("ask", {"x": [1, 2], "word": "Größe"}, runtime="x")
    assert answers.plain == {"said": "Größe"}
    assert answers.arrays["twice"].tolist() == [2, 4]


def test_packages_of_a_named_folder_come_first(program, tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "made_up.py").write_text("NAME = 'here'")
    program(
        "import json, sys, numpy as np, made_up\n"
        "with open(sys.argv[2], 'wb') as file:\n"
        "    np.savez(file, answers=json.dumps(made_up.NAME))\n"
    )
    assert child.ask("ask", {}, runtime="x", python_path=tmp_path / "packages").plain == "here"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ValueError('no such rope')", "ValueError: no such rope"),
        ("import os; os.abort()", "exit code -6"),
        ("pass", "exit code 0"),
    ],
)
def test_where_it_cannot_load_the_export_its_last_words_are_quoted(program, text, reason):
    program(text)
    with pytest.raises(
        CheckpointError, match=rf"could not load what was exported \({reason}\)\. No export was written"
    ):
        child.ask("ask", {}, runtime="x")


def test_whether_a_package_is_there_is_known_without_importing_it():
    assert child.is_installed("json") and not child.is_installed("no_such_package_at_all")
