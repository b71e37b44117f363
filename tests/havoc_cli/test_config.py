"""`havoc config show | check | schema`, and what is said of files that hold no settings."""

from __future__ import annotations

import json
import shutil

import pytest

from havoc_core.config_files import setting_docs


def test_show_prints_every_setting_with_its_value_and_its_origin(havoc, here):
    (here / "a.yaml").write_text("seed: 7\nmodel: {size: nano, num_layers: 3}\n")
    said = havoc("config", "show", "--config", "a.yaml", "--batch-size", "5", "--model.mlp.hidden-dim", "64")
    assert said.code == 0
    rows = {line.split()[0]: line.split() for line in said.out.splitlines()}
    assert rows["seed"] == ["seed", "7", "a.yaml"]
    assert rows["model.num_layers"] == ["model.num_layers", "3", "a.yaml"]
    assert rows["batch_size"] == ["batch_size", "5", "command", "line"]
    assert rows["model.mlp.hidden_dim"] == ["model.mlp.hidden_dim", "64", "command", "line"]
    assert rows["device"] == ["device", '"auto"']
    assert rows["max_steps"] == ["max_steps", "null"]
    assert {path for path, *_ in setting_docs()} <= set(rows)


def test_check_says_that_all_is_right_and_starts_nothing(havoc, here):
    (here / "a.yaml").write_text("model: nano\n")
    said = havoc("config", "check", "--config", "a.yaml", "--batch-size", "8")
    assert (said.code, said.out) == (0, "All settings are right.\n")
    assert [path.name for path in here.iterdir()] == ["a.yaml"]


def test_schema_is_json_with_the_docstring_of_every_setting(havoc):
    said = havoc("config", "schema")
    schema = json.loads(said.out)
    assert said.code == 0
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    sections = [schema, *schema["$defs"].values()]
    described = {
        name for section in sections for name, field in section["properties"].items() if "description" in field
    }
    assert {path.rsplit(".", 1)[-1] for path, *_ in setting_docs()} <= described
    assert schema["properties"]["learning_rate"]["exclusiveMinimum"] == 0.0
    assert schema["properties"]["device"]["enum"] == ["auto", "cuda", "mps", "cpu"]


BAD_FILES = {
    "misspelt key": (b"optimiser: adamw\n", ["optimiser: there is no such setting.", "Did you mean 'optimizer'?"]),
    "key of another section": (b"num_layers: 8\n", ["num_layers: there is no such setting.", "'model.num_layers'?"]),
    "misspelt in a section": (
        b"model: {num_layer: 8}\n",
        ["model.num_layer: there is no", "Did you mean 'num_layers'?"],
    ),
    "wrong type": (b"max_steps: many\n", ["max_steps: 'many' should be", "Updates in the whole run"]),
    "a value for a section": (b"data: 7\n", ["data: 7 is one value, but this is a group of settings.", "Write `data:"]),
    "out of range": (b"learning_rate: 2\n", ["learning_rate: 2 should be less than 1.", "Peak, reached"]),
    "shares": (b"data: {domain_ratio: 0.9}\n", ["is 1.3, and shares must add up to 1.", "Change one of the two."]),
    "two that do not fit": (b"data: {max_sequence_length: 9000}\n", ["9000 is above model.max_seq_len 4096."]),
    "no YAML": (b"model:\n  size: nano\n bad: 1\n", [":3:", "this is no YAML:", "Check the indentation"]),
    "unclosed": (b"batch_size: [1\n", ["this is no YAML:", "Check the indentation"]),
    "given twice": (b"seed: 1\nseed: 2\n", [":2:1:", "the key 'seed' is given twice."]),
    "a list": (b"- seed\n- 3\n", ["holds a list, not settings.", "Write one `name: value` on each line."]),
    "one word": (b"hello\n", ["holds a str, not settings."]),
    "a tab": (b"model:\n\tsize: nano\n", [":2:1:", "this is no YAML:"]),
    "no UTF-8": (b"seed: 1\n# \xff\xfe\n", ["is not UTF-8 text (byte 10).", "Save it as UTF-8."]),
    "NUL bytes": (b"seed: 1\x00\n", ["this is no YAML:", "Save it as plain UTF-8 text."]),
    "a program": (b"\x7fELF\x02\x01\x01\x00\x00", ["this is no YAML:", "Save it as plain UTF-8 text."]),
    "month 13": (b"run_dir: 2026-13-01\n", ["a value cannot be read:", "Put quotes around it if it is text."]),
    "a tag that runs code": (b"seed: !!python/object/apply:os.getpid []\n", ["this is no YAML:"]),
    "a number as key": (b"1: 2\n", ["1: "]),
    "a list as key": (b"? [a, b]\n: 1\n", ["this is no YAML:"]),
    "an endless alias": (b"model: &a {attention: *a}\n", ["model"]),
    "very deep": (b"model: " + b"[" * 1500, ["this is no YAML:"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_holds_no_settings_is_one_message_and_nothing_is_started(case, havoc, here):
    content, wanted = BAD_FILES[case]
    (here / "bad.yaml").write_bytes(content)
    said = havoc("train", "--config", "bad.yaml")
    assert said.code == 2
    assert said.message.startswith("ConfigError  ")
    for words in wanted:
        assert words in said.message
    assert [path.name for path in here.iterdir()] == ["bad.yaml"]


def test_every_mistake_in_a_file_is_named_at_once(havoc, here):
    (here / "bad.yaml").write_text("optimiser: adamw\nbatch_size: 0\nmodel: {num_layer: 1}\n")
    said = havoc("config", "check", "--config", "bad.yaml")
    assert said.code == 2
    for name in ("optimiser", "batch_size", "model.num_layer"):
        assert f"{name}: " in said.message
    assert said.message.count("also ") == 2


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_config_that_cannot_be_read_is_named(kind, havoc, here):
    (here / "folder").mkdir()
    said = havoc("train", "--config", kind)
    assert said.code == 2
    assert f"ConfigError  {kind}: cannot be read (" in said.message
    assert "Check the path given to --config." in said.message


def test_an_empty_file_gives_the_defaults(havoc, here):
    (here / "empty.yaml").write_text("# nothing\n")
    assert havoc("config", "check", "--config", "empty.yaml").code == 0


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"{ half", "this is no JSON: "),
        (b"\xff\xfe\x00 no text", "this is no JSON: "),
        (b"[1]", "holds no settings."),
        (b'{"no_such_setting": 1}', "no_such_setting: there is no such setting."),
    ],
    ids=["cut short", "no text", "a list", "a key of another version"],
)
def test_a_checkpoint_whose_config_is_damaged_is_refused_with_one_message(content, wanted, havoc, run_copy, here):
    """Regression: one that was no UTF-8 ended in a traceback."""
    shutil.rmtree(run_copy / "store")
    folder = run_copy / "checkpoints" / "checkpoint_step_6"
    (folder / "config.json").write_bytes(content)
    said = havoc("train", "--resume", folder)
    assert said.code == 2
    assert wanted in said.message
    if "JSON" in wanted or "holds" in wanted:
        assert "config.json: " in said.message
        assert "Take the config.json of another checkpoint." in said.message
