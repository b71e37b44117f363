"""A conversation remembers what fits, and forgets the oldest turns first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from havoc_core import chat_format
from havoc_core.errors import ConfigError
from havoc_inference.chat import Chat
from havoc_inference.engine import Engine
from havoc_inference.sampling import GREEDY, SamplingOptions

SHORT = replace(GREEDY, max_new_tokens=5)


def test_an_answer_is_that_of_the_whole_dialog(engine: Engine) -> None:
    chat = Chat(engine, options=SHORT, system="Be brief.")
    first = "".join(chat.say("What is a mean?"))
    second = "".join(chat.say("Why?"))
    dialog = [("system", "Be brief."), ("user", "What is a mean?"), ("assistant", first), ("user", "Why?")]
    assert second == engine.answer([dialog], max_new_tokens=5)[0]
    assert chat.history == (*dialog, ("assistant", second))


def test_a_chat_repeats_with_its_seed_and_differs_between_turns(engine: Engine) -> None:
    options = SamplingOptions(temperature=2.0, max_new_tokens=8)
    first, again = Chat(engine, options=options), Chat(engine, options=options)
    assert ["".join(first.say("a")) for _ in range(2)] == ["".join(again.say("a")) for _ in range(2)]
    prompt = chat_format.prompt(engine.tokenizer, (*first.history, ("user", "a")))
    assert "".join(first.say("a")) == "".join(engine.stream(prompt, replace(options, seed=2)))


def test_the_oldest_turns_are_forgotten_and_the_system_message_is_not(engine: Engine) -> None:
    chat = Chat(engine, options=SHORT, system="Be brief.")
    for turn in range(12):
        "".join(chat.say(f"The mean of a sample is {turn}"))
    said = [content for role, content in chat.history if role == "user"]
    assert chat.history[0] == ("system", "Be brief.")
    assert chat.history[1][0] == "user"
    assert 1 < len(said) < 12
    assert said == [f"The mean of a sample is {turn}" for turn in range(12)][-len(said) :]


def test_an_answer_that_nobody_reads_to_its_end_is_remembered_as_far_as_it_came(engine: Engine) -> None:
    chat = Chat(engine, options=replace(GREEDY, max_new_tokens=20))
    pieces = chat.say("hello")
    heard = next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert chat.history == (("user", "hello"), ("assistant", heard))


def test_a_message_that_no_context_holds_is_refused_and_nothing_is_forgotten(engine: Engine) -> None:
    chat = Chat(engine, options=SHORT)
    "".join(chat.say("hello"))
    before = chat.history
    with pytest.raises(ConfigError, match=r"message: it makes a prompt of \d+ tokens; .*96 leaves 91\. Shorten it"):
        chat.say("温" * 100)
    assert chat.history == before


def test_a_system_message_that_no_context_holds_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(ConfigError, match=r"system message: it makes a prompt of \d+ tokens.*Shorten it"):
        Chat(engine, options=SHORT, system="温" * 100)


def test_a_turn_that_is_taken_back_can_be_said_again_and_draws_from_another_seed(engine: Engine) -> None:
    options = SamplingOptions(temperature=2.0, max_new_tokens=8)
    chat = Chat(engine, options=options)
    "".join(chat.say("hello"))
    before = chat.history
    first = "".join(chat.say("again?"))
    assert chat.undo() == "again?"
    assert chat.history == before
    assert "".join(chat.say("again?")) != first
    assert [chat.undo(), chat.undo(), chat.undo()] == ["again?", "hello", None]


def test_the_transcript_holds_what_the_context_does_not(engine: Engine) -> None:
    chat = Chat(engine, options=SHORT, system="Be brief.")
    for turn in range(12):
        "".join(chat.say(f"The mean of a sample is {turn}"))
    said = [content for role, content in chat.transcript if role == "user"]
    assert said == [f"The mean of a sample is {turn}" for turn in range(12)]
    assert chat.transcript[-len(chat.history) + 1 :] == chat.history[1:]
    assert chat.transcript[0] == ("system", "Be brief.")


def test_a_chat_that_forgets_begins_as_a_new_one_does(engine: Engine) -> None:
    options = SamplingOptions(temperature=2.0, max_new_tokens=8)
    chat = Chat(engine, options=options, system="Be brief.")
    first = "".join(chat.say("hello"))
    chat.forget()
    assert chat.transcript == (("system", "Be brief."),)
    assert "".join(chat.say("hello")) == first


def test_a_system_message_can_be_changed_and_one_that_is_too_long_changes_nothing(engine: Engine) -> None:
    chat = Chat(engine, options=SHORT)
    "".join(chat.say("hello"))
    chat.instruct("Be brief.")
    assert chat.history[:2] == (("system", "Be brief."), ("user", "hello"))
    with pytest.raises(ConfigError, match="system message: it makes a prompt of"):
        chat.instruct("温" * 100)
    assert chat.history[0] == ("system", "Be brief.")
    chat.instruct(None)
    assert chat.history[0] == ("user", "hello")
