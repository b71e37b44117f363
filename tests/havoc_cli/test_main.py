"""`havoc`: help, misspelt commands, and the exit code of each kind of ending."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from havoc_cli import main as main_module
from havoc_cli import problems
from havoc_cli.main import COMMANDS, main
from havoc_core import errors


def test_help_lists_every_command_and_exits_with_0(havoc):
    for word in ("--help", "-h", "help"):
        said = havoc(word)
        assert (said.code, said.err) == (0, "")
        assert all(f"\n  {name}" in said.out for name in COMMANDS)
        assert "first_run.yaml" in said.out


def test_no_command_shows_the_help_and_exits_with_2(havoc):
    said = havoc()
    assert said.code == 2
    assert "usage: havoc COMMAND" in said.out


@pytest.mark.parametrize(
    ("word", "near"), [("trian", "train"), ("evalute", "evaluate"), ("reprot", "report"), ("dat", "data")]
)
def test_a_misspelt_command_is_answered_with_the_nearest(word, near, havoc):
    said = havoc(word)
    assert said.code == 2
    assert said.message == f"ConfigError  command: there is no '{word}'. Did you mean '{near}'?"


def test_a_command_like_no_other_is_answered_with_the_way_to_the_list(havoc):
    said = havoc("xyzzy")
    assert (said.code, said.message) == (
        2,
        "ConfigError  command: there is no 'xyzzy'. `havoc --help` lists them.",
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, havoc):
    said = havoc(name, "--help")
    assert said.code == 0
    assert f"havoc {name}" in said.out
    assert said.err == ""


def test_the_list_has_every_file_that_is_a_command_and_nothing_else():
    folder = Path(main_module.__file__).parent
    commands = {
        path.stem.removesuffix("_")
        for path in folder.glob("*.py")
        if "\ndef run(argv: Sequence[str]" in path.read_text("utf-8")
    }
    assert commands == set(COMMANDS)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError, 2),
        (errors.DataError, 2),
        (errors.MissingPackageError, 2),
        (errors.PlanError, 3),
        (errors.CheckpointError, 1),
        (errors.TrainingError, 1),
    ],
)
def test_an_error_is_one_message_with_its_exit_code(error, code, havoc, monkeypatch):
    def run(arguments):
        raise error("place", "something was found.", "Do something.")

    monkeypatch.setattr(problems, "run", run)
    said = havoc("problems")
    assert said.code == code
    assert said.message == f"{error.__name__}  place: something was found. Do something."
    assert said.out == ""


def test_ctrl_c_outside_of_training_exits_with_130_and_without_a_traceback(havoc, monkeypatch):
    def run(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(problems, "run", run)
    said = havoc("problems")
    assert (said.code, said.err) == (130, "\nStopped.\n")


def test_a_reader_that_has_left_is_no_traceback(monkeypatch):
    def run(arguments):
        raise BrokenPipeError

    monkeypatch.setattr(problems, "run", run)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main(["problems"]) == 1


def test_a_bug_of_ours_keeps_its_traceback(havoc, monkeypatch):
    def run(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(problems, "run", run)
    with pytest.raises(ZeroDivisionError):
        havoc("problems")


def test_a_full_disk_is_no_bug_of_ours(havoc, monkeypatch):
    """Regression: `havoc data build` on a full disk ended in a traceback."""

    def run(arguments):
        raise OSError(28, "No space left on device", "corpus/math.jsonl.zst")

    monkeypatch.setattr(problems, "run", run)
    said = havoc("problems")
    assert said.code == 1
    assert "corpus/math.jsonl.zst: cannot be written (No space left on device)." in said.message
    assert "Free some disk" in said.message
