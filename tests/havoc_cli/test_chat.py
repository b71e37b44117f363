"""`havoc chat`."""

from __future__ import annotations

import io
import json
import sys

import pytest


@pytest.fixture
def chat(havoc, finished_run, monkeypatch):
    """What is on the screen after somebody typed these lines."""

    def talk(typed, *flags):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        said = havoc("chat", finished_run, "--max-new-tokens", "5", *flags)
        assert said.code == 0
        head, _, talked = said.out.partition("check every number it gives.\n")
        assert "step 6. /help shows what can be typed" in head
        return talked

    return talk


def test_chat_answers_and_quits(chat):
    said = chat("what is\\\nthe mean?\n\nand now?\n/quit\nnever asked\n", "--system", "Be brief.")
    assert said.count("> ") == 4
    assert said.count("... ") == 1


def test_chat_ends_where_the_input_ends(chat):
    assert chat("hello\n").count("> ") == 2


def test_what_was_said_before_is_remembered_until_new(chat):
    first = chat("abc\n", "--max-new-tokens", "20").removeprefix("> ").split("\n> ")[0]
    again = chat("abc\n/new\nabc\n", "--max-new-tokens", "20").replace("> ", "")
    assert again == f"{first}\n{first}\n"


def test_retry_answers_the_last_question_anew_and_undo_takes_it_back(chat, here):
    said = chat("/retry\nabc\n/retry\n/save a.jsonl\n/undo\n/undo\n")
    assert "There is no question yet." in said
    assert "2 messages are in a.jsonl." in said
    assert "Taken back: abc\n> There is nothing to take back." in said
    (line,) = (here / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert [message["role"] for message in json.loads(line)["messages"]] == ["user", "assistant"]


def test_a_system_message_is_part_of_what_is_saved_and_nothing_is_overwritten(chat, here):
    said = chat("/save a.md\n/system Be brief.\nabc\n/save a.md\n/system\n/save a.md\n/save\n")
    text = (here / "a.md").read_text(encoding="utf-8")
    assert text.startswith("**system**\n\nBe brief.\n\n**user**\n\nabc\n\n**assistant**\n\n")
    assert "/save: a.md was not written: File exists. Name another file." in said
    assert "/save: nothing was said yet. Ask something first." in said
    assert "/save: it names no file. Write /save FILE." in said


def test_a_message_that_is_too_long_is_said_and_the_conversation_goes_on(chat):
    said = chat("abc " * 200 + "\n/undo\n/help\n/nonsense\n")
    assert "message: it makes a prompt of" in said
    assert "There is nothing to take back." in said
    assert "/retry         another answer" in said
    assert "There is no /nonsense; /help shows what there is." in said
