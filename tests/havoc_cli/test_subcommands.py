"""Commands with a second word."""

from __future__ import annotations

import pytest

WORDS = {
    "data": ["card", "build", "look", "replay", "sample", "export", "import"],
    "tokenizer": ["train", "report"],
    "checkpoint": ["list", "verify"],
    "config": ["show", "check", "schema"],
    "problems": ["show"],
}


@pytest.mark.parametrize("command", WORDS)
def test_a_missing_second_word_shows_the_choices_and_exits_with_2(command, havoc):
    said = havoc(command)
    assert said.code == 2
    assert f"usage: havoc {command} {' | '.join(WORDS[command])}" in said.out


@pytest.mark.parametrize("command", WORDS)
def test_every_second_word_explains_itself(command, havoc):
    for word in WORDS[command]:
        said = havoc(command, word, "--help")
        assert said.code == 0
        assert f"havoc {command} {word}" in said.out


def test_a_misspelt_second_word_is_answered_with_the_nearest(havoc):
    said = havoc("checkpoint", "lst")
    assert (said.code, said.message) == (2, "ConfigError  havoc checkpoint: there is no 'lst'. Did you mean 'list'?")


def test_a_second_word_like_no_other_is_answered_with_all_of_them(havoc):
    said = havoc("config", "xyzzy")
    assert said.code == 2
    assert "there is no 'xyzzy'. There are: show | check | schema." in said.message
