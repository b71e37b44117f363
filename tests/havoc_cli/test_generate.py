"""`havoc generate`, and where `havoc chat` opens its model as it does."""

from __future__ import annotations

import pytest


def test_generate_continues_a_text_and_says_that_the_model_learnt_from_random_words(havoc, finished_run):
    said = havoc("generate", finished_run, "--prompt", "abc ab", "--max-new-tokens", "12")
    assert said.code == 0
    assert said.out.startswith("abc ab")
    assert len(said.out) > len("abc ab\n")
    assert said.err == "DUMMY DATA: this model learnt from random words.\n"


def test_the_same_seed_writes_the_same_text_and_another_one_another(havoc, finished_run):
    def text(seed):
        return havoc("generate", finished_run, "--max-new-tokens", "30", "--seed", seed).out

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_a_run_in_the_current_folder_needs_no_argument(havoc, finished_run, monkeypatch):
    monkeypatch.chdir(finished_run)
    assert havoc("generate", "--max-new-tokens", "1").code == 0


@pytest.mark.parametrize(
    "flags",
    [["--temperature", "-1"], ["--top-p", "0"], ["--top-p", "1.5"], ["--top-k", "0"], ["--max-new-tokens", "0"]],
)
def test_a_number_out_of_range_is_one_message_before_anything_is_read(flags, havoc):
    said = havoc("generate", "nowhere", *flags)
    assert said.code == 2
    assert said.message.startswith("ConfigError  ")
    assert flags[0].removeprefix("--").replace("-", "_") in said.message


def test_no_filter_at_all_can_be_asked_for(havoc, finished_run):
    said = havoc("generate", finished_run, "--top-k", "None", "--top-p", "None", "--max-new-tokens", "3")
    assert said.code == 0


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_a_folder_without_a_checkpoint_is_named(command, havoc, here):
    said = havoc(command, "nowhere")
    assert said.code == 1
    assert "nowhere: there is no such folder. `havoc checkpoint list` shows what there is." in said.message
