"""`havoc data replay`: the batch of a step, its documents and their bytes, checked by its hash."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil

import pytest

from havoc_cli.data_replay import replay_step
from havoc_cli.main import main
from havoc_core.errors import ConfigError, DataError
from havoc_core.log import LOGGER

WORDS = [
    "integral",
    "derivative",
    "matrix",
    "vector",
    "limit",
    "series",
    "größe",
    "∑",
    "xᵢ²",
    "温度",
    "proof",
    "lemma",
    "kernel",
    "rank",
    "prime",
    "field",
]


def book(seed, size=5000):
    draw = random.Random(seed)
    lines = []
    while sum(map(len, lines)) < size:
        lines.append(
            f"The {' of '.join(draw.choices(WORDS, k=3))} is {draw.randint(2, 9999)}.\n" + "\n" * draw.randint(0, 1)
        )
    return "".join(lines)


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    """A folder of text and a run of 4 steps on it, with validations between. Not to be changed."""
    import yaml

    folder = tmp_path_factory.mktemp("trained")
    (folder / "data" / "math").mkdir(parents=True)
    for number in range(20):
        (folder / "data" / "math" / f"{number:02}.txt").write_text(book(number), encoding="utf-8")
    settings = {
        "run_dir": "run",
        "model": {
            "size": "nano", "vocab_size": 520, "num_layers": 1, "d_model": 32, "max_seq_len": 64,
            "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 16}, "mlp": {"hidden_dim": 48},
        },
        "data": {"max_sequence_length": 64, "num_workers": 1},
        "batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4, "warmup_steps": 1, "learning_rate": 1e-3,
        "eval_every_n_steps": 2, "eval_samples": 2, "save_every_n_steps": 4, "threads": 1, "device": "cpu", "use_amp": False,
        "compile": "off", "tracking": {"trackers": []},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["train", "--config", "config.yaml"]) == 0, said.getvalue()
    LOGGER.handlers.clear()
    return folder


@pytest.fixture
def trained(trained_folder, here):
    """A copy, as the current folder."""
    shutil.copytree(trained_folder, here, dirs_exist_ok=True)
    return here


@pytest.fixture
def said(capsys):
    """What `havoc data replay` says."""

    def call(*arguments):
        capsys.readouterr()
        assert replay_step(["--config", "config.yaml", *map(str, arguments)]) == 0
        return capsys.readouterr().out

    return call


def metrics(folder):
    path = folder / "run" / "logs" / "metrics.jsonl"
    return path, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("step", [1, 2, 4])
def test_every_row_of_a_step_is_shown_with_its_documents_and_the_hash_is_the_one_of_the_run(trained, said, step):
    out = said("--step", step)
    (line,) = [each for each in metrics(trained)[1] if each["kind"] == "train" and each["step"] == step]
    rows = [each for each in out.splitlines() if each.startswith("slot ")]
    assert [int(each.split()[1]) for each in rows] == list(range(*line["slots"]))
    assert line["slots"] == [4 * step - 4, 4 * step]
    assert (
        out.splitlines()[-1]
        == f"step {step}: 4 rows, hash {line['batch_hash']}: the very batch that the run learnt from"
    )
    shown = [each for each in out.splitlines() if each.startswith("  ")]
    assert len(shown) == sum(int(each.split()[-4]) for each in rows)
    assert all(" tokens  " in each and ".txt bytes " in each and "licence unknown" in each for each in shown)


def test_the_named_bytes_of_the_files_are_the_text_that_was_learnt(trained, said):
    """Regression: the text was that of the inputs, which for a stretch inside a document lags a token behind its bytes."""
    inside = 0
    for step in (1, 2, 3, 4):
        for row in map(json.loads, said("--step", step, "--json").splitlines()):
            assert row["fragments"]
            for fragment in row["fragments"]:
                assert fragment["exact"]
                ((origin, start, end),) = fragment["spans"]
                content = (trained / "data" / "math" / origin).read_bytes()[start:end]
                assert content.decode("utf-8", errors="replace") == fragment["text"]
                inside += fragment["tokens"][0] > 0
    assert inside > 4


def test_json_has_one_line_a_row_with_all_that_is_known(trained, said):
    rows = [json.loads(line) for line in said("--step", 2, "--json").splitlines()]
    assert [row["slot"] for row in rows] == [4, 5, 6, 7]
    for row in rows:
        assert set(row) == {"slot", "source", "epoch", "row", "hash", "fragments"}
        assert (row["source"], row["epoch"], len(row["hash"])) == ("math", 0, 32)
        assert sum(fragment["pairs"] for fragment in row["fragments"]) <= 64
        for fragment in row["fragments"]:
            assert set(fragment) == {"document", "origin", "spans", "exact", "tokens", "pairs", "licence", "text"}


CHANGES = [("--seed", "7"), ("--data.max-sequence-length", "32"), ("--data.packing", "concatenate")]


@pytest.mark.parametrize("change", CHANGES, ids=[each[0] for each in CHANGES])
def test_settings_that_are_not_those_of_the_run_are_told_before_a_wrong_row_is_shown(trained, change, capsys):
    """Regression: rows that the run never saw were printed first."""
    with pytest.raises(
        DataError,
        match=r"step 2: these rows have the hash [0-9a-f]{32}, the run learnt from [0-9a-f]{32}\. Store, mixture, seed",
    ) as caught:
        replay_step(["--config", "config.yaml", "--step", "2", *change])
    assert "give its settings with --config; if the text has grown since," in caught.value.remedy
    assert capsys.readouterr().out == ""


def test_another_store_is_told(trained, capsys):
    (trained / "data" / "math" / "20.txt").write_text(book("new"), encoding="utf-8")
    shutil.rmtree(trained / "run" / "checkpoints")
    assert main(["data", "build", "--config", "config.yaml"]) == 0
    LOGGER.handlers.clear()
    with pytest.raises(DataError, match="Store, mixture, seed or sequence length are not those that the run had then"):
        replay_step(["--config", "config.yaml", "--step", "1"])


def test_a_step_after_the_text_has_grown_is_replayed_from_the_new_store(trained, said):
    """Regression: its rows were looked for as if the run had begun with the new store."""
    (trained / "data" / "math" / "20.txt").write_text(book("new"), encoding="utf-8")
    flags = ["--resume", "auto", "--max-steps", "6", "--data.growing", "true"]
    assert main(["train", "--config", "config.yaml", *flags]) == 0
    LOGGER.handlers.clear()
    assert "the very batch that the run learnt from" in said("--step", 6)
    with pytest.raises(DataError, match="Store, mixture, seed or sequence length are not those that the run had then"):
        replay_step(["--config", "config.yaml", "--step", "1"])


def test_a_run_of_before_growing_was_known_is_replayed(trained, said):
    path, lines = metrics(trained)
    for line in lines:
        line.pop("first_slot", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "the very batch" in said("--step", 3)


def test_a_step_that_was_made_twice_is_the_last_one(trained, said):
    path, lines = metrics(trained)
    wrong = {**next(line for line in lines if line["kind"] == "train"), "batch_hash": "00"}
    path.write_text("".join(json.dumps(line) + "\n" for line in [wrong, *lines]))
    assert "the very batch" in said("--step", 1)


def test_an_unknown_step_is_answered_with_those_that_there_are(trained):
    for step in ("0", "5"):
        with pytest.raises(
            ConfigError,
            match=rf"--step: run/logs/metrics\.jsonl knows no step {step}; it has steps 1 to 4\. Name one of these",
        ):
            replay_step(["--config", "config.yaml", "--step", step])


def test_a_file_of_before_slots_were_written_has_nothing_to_replay(trained):
    path, lines = metrics(trained)
    for line in lines:
        line.pop("slots", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match="knows no step 1; it has none that can be replayed"):
        replay_step(["--config", "config.yaml", "--step", "1"])


def test_a_missing_file_of_metrics_is_answered_with_how_to_name_a_run(here):
    with pytest.raises(
        ConfigError,
        match=r"nowhere/logs/metrics\.jsonl: cannot be read \(No such file or directory\)\. Name the run: --run-dir",
    ):
        replay_step(["--run-dir", "nowhere"])


@pytest.mark.parametrize("line", ['{"kind": "train", "step"', "", "3", "[]", "\udcff"])
def test_a_broken_line_is_named_with_its_number(trained, line):
    """Regression: a line that is JSON and no object ended in a traceback."""
    path, lines = metrics(trained)
    text = json.dumps(lines[0]) + "\n" + line + "\n" + json.dumps(lines[1]) + "\n"
    path.write_bytes(text.encode("utf-8", errors="surrogateescape"))
    with pytest.raises(
        DataError, match=r"metrics\.jsonl:2: is no JSON object\. Remove the line, or restore the file\."
    ):
        replay_step(["--config", "config.yaml", "--step", "1"])


def test_without_a_config_the_settings_are_those_of_the_run(trained, capsys):
    """Regression: the defaults were taken, and every step was said to be another."""
    assert replay_step(["--run-dir", "run", "--step", "2"]) == 0
    assert "the very batch that the run learnt from" in capsys.readouterr().out
