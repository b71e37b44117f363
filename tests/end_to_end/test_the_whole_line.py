"""`havoc run`, from a folder of text to the report: killed, called again, called once more, given other text."""

from __future__ import annotations

import json
import re
import signal

import pytest

STAGES = ["data", "tokenizer", "store", "train", "evaluate", "report"]


@pytest.fixture
def texts(here, book):
    """A data/ folder with a group of each kind, dialog as JSON lines."""
    for subject in ("math", "stats", "general"):
        folder = here / "data" / subject
        folder.mkdir(parents=True)
        for number in range(20):
            (folder / f"{number}.txt").write_text(book(subject, size=6000, seed=str(number)))
    rows = [
        {"messages": [
            {"role": "user", "content": "What is it? " + book("general", size=300, seed=f"q{number}")},
            {"role": "assistant", "content": book("general", size=900, seed=f"a{number}")},
        ]}
        for number in range(100)
    ]  # fmt: skip
    (here / "data" / "dialog").mkdir()
    (here / "data" / "dialog" / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return here / "data"


def done_before(said):
    return [line.split()[0] for line in said.out.splitlines() if line.endswith("done before")]


def seen_text(page):
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)).split())


@pytest.mark.slow
def test_the_whole_line_goes_on_after_a_kill_and_redoes_nothing_when_it_is_done(
    here, havoc, config, process, texts, contents
):
    path = config("run", max_steps=30, save_every_n_steps=6, eval_every_n_steps=10)
    first = process("run", "--config", path)
    for line in first.stdout:
        if line.startswith("step 15/"):
            break
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    stages = json.loads((here / "run" / "stages.json").read_text())
    assert stages["store"]["finished"] and not stages["train"]["finished"]

    second = havoc("run", "--config", path)
    assert second.code == 0, second.err
    assert done_before(second) == ["data", "tokenizer", "store"]
    assert re.search(r"Resuming from run/checkpoints/checkpoint_step_(12|18)\.", second.out)
    assert "Done: 30 steps" in second.out
    stages = json.loads((here / "run" / "stages.json").read_text())
    assert all(stages[name]["finished"] for name in STAGES)
    assert "\nA sample:\n    The mean" in second.out
    assert "Talk to it: havoc chat run" in second.out

    page = seen_text((here / "run" / "logs" / "report.html").read_text(encoding="utf-8"))
    evaluation = json.loads((here / "run" / "logs" / "evaluation.json").read_text())
    exam = next(result for result in evaluation["results"] if result["task"] == "exam")
    assert exam["scores"][-1]["counts"]["problems"] == 8
    assert exam["scores"][-1]["low"] <= exam["scores"][-1]["value"] <= exam["scores"][-1]["high"]
    assert exam["touched"] == []
    compressors = {score["compressor"] for score in evaluation["compression"]}
    assert len(compressors) >= 2
    for words in ("Exam", "95", "bits per byte", "The mean", "math", "stats", "general", "dialog", *compressors):
        assert words in page, words
    assert "DUMMY DATA" not in page
    sample = json.loads((here / "run" / "logs" / "samples.json").read_text())[0]
    assert sample["prompt"] == "The mean"

    before = contents(here / "run")
    third = havoc("run", "--config", path)
    assert third.code == 0
    assert done_before(third) == STAGES
    assert contents(here / "run") == before

    other_text(here, havoc, path, contents, before)


def other_text(here, havoc, path, contents, before):
    """Another text is refused, so that nothing is built anew under the checkpoints; elsewhere it is built and trained on."""
    extra = here / "data" / "math" / "extra.txt"
    extra.write_text("Something else entirely: a monoid in the category of endofunctors.\n" * 90)
    said = havoc("run", "--config", path)
    assert said.code == 2
    assert (
        "DataError  data: the text or its settings have changed, and run/checkpoints holds checkpoints" in said.message
    )
    assert "Start elsewhere: --run-dir NEW." in said.message
    after = contents(here / "run")
    assert {name for name in before if before[name] != after.get(name)} <= {"stages.json"}
    fresh = havoc("run", "--config", path, "--run-dir", "fresh", "--evaluation.exam-problems", "0", "--max-steps", "2")
    assert fresh.code == 0, fresh.err
    assert contents(here / "fresh")["store/manifest.json"][1] != before["store/manifest.json"][1]
    extra.unlink()
    back = havoc("run", "--config", path)
    assert back.code == 0, back.err
    restored = contents(here / "run")
    for name in before:
        if name.startswith(("checkpoints", "store")):
            assert restored[name] == before[name], name
