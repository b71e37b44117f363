"""Messages of several lines, and the history of lines at a real terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from havoc_cli.chat_input import history_file, read_message


def typed(*lines):
    """(messages, prompts that were shown)."""
    waiting, prompts = list(lines), []

    def read_line(prompt):
        prompts.append(prompt)
        if not waiting:
            raise EOFError
        return waiting.pop(0)

    messages = list(iter(lambda: read_message(read_line), None))
    return messages, prompts


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], "one"),
        (["one\\", "two"], "one\ntwo"),
        (
            ["What does this do?\\", "```python", "x = [\\", "", "]", "```"],
            "What does this do?\n```python\nx = [\\\n\n]\n```",
        ),
        (["```x``` is code"], "```x``` is code"),
        (['"""', "a", "", 'b"""'], "a\n\nb"),
        (['"""a\\', "b", '"""'], "a\\\nb"),
        (['"""a"""'], "a"),
    ],
)
def test_a_message_has_as_many_lines_as_its_marks_say(lines, message):
    messages, prompts = typed(*lines)
    assert messages == [message]
    assert prompts == ["> ", *["... "] * (len(lines) - 1), "> "]


def test_what_was_never_closed_was_never_said():
    assert typed("one", "```", "x")[0] == ["one"]


def test_the_history_lies_in_the_users_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "havoc" / "chat_history"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert history_file() == Path.home() / ".local" / "state" / "havoc" / "chat_history"


SCRIPT = """
from havoc_cli.chat_input import line_editing, read_message
with line_editing():
    while (message := read_message()) is not None:
        print("SAID", repr(message), flush=True)
"""


def at_a_terminal(keys, environment):
    """The screen of a terminal where somebody waits for a prompt, presses these keys, and ends at the next prompt."""
    pytest.importorskip("readline", reason="this Python has no readline")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        try:
            screen = until_prompt(ours)
            os.write(ours, keys)
            screen += until_prompt(ours)
            os.write(ours, b"\x04")
            assert process.wait(20) == 0
        finally:
            process.kill()
            os.close(ours)
    return screen


def until_prompt(terminal):
    screen = b""
    while not screen.endswith(b"> "):
        ready, _, _ = select.select([terminal], [], [], 20)
        assert ready, screen
        screen += os.read(terminal, 1024)
    return screen.decode()


def test_lines_of_the_last_conversation_come_back_with_an_arrow_and_only_the_user_may_read_them(tmp_path):
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "vt100"}
    assert "SAID 'the mean'" in at_a_terminal(b"the mean\n", environment)
    kept = tmp_path / "havoc" / "chat_history"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "SAID 'the mean of x'" in at_a_terminal(b"\x1b[A of x\n", environment)


def test_nothing_is_kept_of_what_no_person_typed(tmp_path):
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT], input="one\n", env=environment, capture_output=True, text=True
    )
    assert "SAID 'one'" in said.stdout
    assert list(tmp_path.iterdir()) == []
