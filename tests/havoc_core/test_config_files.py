"""YAML and flags -> one checked config; every complaint names path, value and remedy."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.config_files import (
    config_hash,
    from_json,
    leaves,
    merge,
    parse_yaml,
    read_yaml,
    resolve,
    setting_docs,
    to_json,
)
from havoc_core.errors import ConfigError

# The hardware section of the founding guide, as it stands there.
FOUNDING_CPU = "batch_size: 1\ngradient_accumulation_steps: 1\nuse_amp: false\ndevice: cpu\n"
FOUNDING_24GB = "batch_size: 2\ngradient_accumulation_steps: 16\nuse_amp: true\namp_dtype: bfloat16\n"


def of(text, flags=None):
    return resolve(parse_yaml(text, where="run.yaml"), flags or {}, file_name="run.yaml")


def refused(text, flags=None):
    with pytest.raises(ConfigError) as caught:
        of(text, flags)
    return caught.value


def test_a_config_error_is_no_value_error():
    assert not issubclass(ConfigError, ValueError)


@pytest.mark.parametrize("text", [FOUNDING_CPU, FOUNDING_24GB])
def test_a_founding_snippet_is_accepted_as_it_stands(text):
    config = of(text).config
    assert {key: getattr(config, key) for key in parse_yaml(text, where="")} == parse_yaml(text, where="")


@pytest.mark.parametrize("spelled", ["3e-4", "3.0e-4", "0.0003", "3E-4", "+3e-4", ".0003", "3.e-4", "0.3e-3"])
def test_every_spelling_of_a_number_means_the_same(spelled):
    assert of(f"learning_rate: {spelled}").config.learning_rate == 3e-4
    assert parse_yaml(spelled, where="") == 3e-4


@pytest.mark.parametrize(
    ("spelled", "value"), [("1e5", 1e5), ("1_000", 1000), ("-2e3", -2000.0), ("7", 7), ("1.5", 1.5)]
)
def test_numbers_are_numbers(spelled, value):
    assert parse_yaml(spelled, where="") == value


@pytest.mark.parametrize("text", ["e5", "1e", "abc", "1.2.3", "v1e5", "1-2", "."])
def test_what_only_looks_like_a_number_stays_text(text):
    assert parse_yaml(text, where="") == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_that_python_writes_is_read_back(value):
    assert parse_yaml(f"[{value!r}]", where="") == [value]


def test_steps_can_be_written_with_an_exponent():
    assert of("max_steps: 1e5").config.max_steps == 100_000


def test_a_flag_beats_the_file_and_the_file_beats_the_default_and_origins_say_so():
    resolved = of("seed: 1\nbatch_size: 4\nmodel: {size: nano, num_layers: 3}", {"seed": 2, "model": {"dropout": 0.1}})
    config = resolved.config
    assert (config.seed, config.batch_size, config.log_dir) == (2, 4, "logs")
    assert (config.model.num_layers, config.model.dropout) == (3, 0.1)
    origins = resolved.origins
    assert (origins["seed"], origins["batch_size"], origins["log_dir"]) == ("command line", "run.yaml", "default")
    assert (origins["model.num_layers"], origins["model.dropout"]) == ("run.yaml", "command line")


def test_a_model_that_is_one_word_has_its_size_from_the_file():
    """Regression: the origin of model.size was "default", and a path `model` was listed that is no setting."""
    resolved = of("model: nano", {"model": {"num_layers": 2}})
    assert resolved.origins["model.size"] == "run.yaml"
    assert "model" not in resolved.origins
    assert (resolved.config.model.size, resolved.config.model.num_layers) == ("nano", 2)


def test_every_setting_has_an_origin_and_every_origin_is_a_setting():
    resolved = of("model: nano\ndata: {weights: {a: 1.0}}")
    assert {path for path, _ in leaves(resolved.config.model_dump())} <= set(resolved.origins)


def test_a_flag_can_mend_a_file():
    assert of("batch_size: 0", {"batch_size": 3}).config.batch_size == 3


@pytest.mark.parametrize(
    ("text", "where", "found", "remedy"),
    [
        ("optimzer: adamw", "optimzer", "no such setting", "Did you mean 'optimizer'?"),
        ("model: {dmodel: 3}", "model.dmodel", "no such setting", "Did you mean 'd_model'?"),
        (
            "model: {attention: {num_head: 3}}",
            "model.attention.num_head",
            "no such setting",
            "Did you mean 'num_heads'?",
        ),
        ("num_layers: 3", "num_layers", "no such setting", "Did you mean 'model.num_layers'?"),
        ("qqqq: 3", "qqqq", "no such setting", "havoc config show"),
        (
            "data: {sources: [{kind: dummy, gruop: x}]}",
            "data.sources.0.gruop",
            "no such setting",
            "Did you mean 'group'?",
        ),
        ("batch_size: two", "batch_size", "'two'", "Rows per device"),
        ("batch_size: 2.5", "batch_size", "2.5", "Rows per device"),
        ("batch_size: yes", "batch_size", "whole number", "Rows per device"),
        ("batch_size: 0", "batch_size", "0 should be greater than or equal to 1", "Rows per device"),
        ("learning_rate: 3", "learning_rate", "less than 1", "Peak"),
        ("max_epochs: .inf", "max_epochs", "finite", "Passes over"),
        (
            "lr_scheduler_type: cosin",
            "lr_scheduler_type",
            "none of cosine, linear, constant, wsd",
            "Did you mean 'cosine'?",
        ),
        ("use_amp: maybe", "use_amp", "none of true, false, auto", "Use one of them."),
        ("device: gpu", "device", "none of auto, cuda, mps, cpu", ""),
        ("model: 3", "model", "group of settings", "Write `model:"),
        ("data: null", "data", "group of settings", "Write `data:"),
        ("model: {size: [1]}", "model.size", "none of havoc_7b", ""),
        ("model: 2b", "model.size", "'2b' is none of havoc_7b", ""),
        ("min_learning_rate: 0.01", "config", "min_learning_rate 0.01 is above", "Change one of the two."),
        ("1: 2", "1", "strings", "havoc config show"),
    ],
)
def test_a_wrong_setting_is_answered_with_path_value_and_remedy(text, where, found, remedy):
    error = refused(text)
    assert error.where == where
    assert found in error.found
    assert remedy in error.remedy
    assert "pydantic" not in str(error)
    assert "http" not in str(error)


def test_every_wrong_setting_is_named_at_once():
    error = refused("optimzer: x\nbatch_size: 0\nmodel: {layers: 2}")
    assert all(path in str(error) for path in ("optimzer", "batch_size", "model.layers"))


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: 1\nb: [", "run.yaml:2:5", "no YAML"),
        ("a: 1\n  b: 2\n", "run.yaml:2:4", "mapping values are not allowed"),
        ("seed: 1\nseed: 2\n", "run.yaml:2:1", "the key 'seed' is given twice"),
        ("model:\n  size: nano\n  size: 1b\n", "run.yaml:3:3", "the key 'size' is given twice"),
        ("? [a]\n: 1\n", "run.yaml:1:3", "unhashable"),
        ("x: !!python/object/apply:os.getcwd []\n", "run.yaml:1:4", "could not determine a constructor"),
        ("x: \0", "run.yaml", "no YAML"),
        ("x: 2024-13-45", "run.yaml", "month must be in 1..12"),
    ],
)
def test_yaml_that_does_not_parse_is_answered_with_line_and_column(text, place, says):
    error = refused(text)
    assert error.where == place
    assert says in error.found
    assert error.remedy


def test_the_same_key_in_two_sections_is_no_duplicate():
    assert parse_yaml("a: {x: 1}\nb: {x: 2}", where="") == {"a": {"x": 1}, "b": {"x": 2}}


def test_a_file_is_read(tmp_path):
    (tmp_path / "a.yaml").write_text("seed: 3 # Ω\n", encoding="utf-8")
    (tmp_path / "empty.yaml").write_text("# nothing\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"seed": 3}
    assert read_yaml(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("content", "found", "remedy"),
    [
        (None, "cannot be read (No such file", "--config"),
        (b"a: \xff", "is not UTF-8 text (byte 3)", "UTF-8"),
        (b"- 1\n- 2\n", "holds a list, not settings", "name: value"),
        (b"only words", "holds a str, not settings", "name: value"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(tmp_path, content, found, remedy):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert caught.value.where == str(path)
    assert found in caught.value.found
    assert remedy in caught.value.remedy


def test_merging_replaces_lists_and_joins_mappings():
    assert merge({"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"y": 3}, "b": [2]}) == {"a": {"x": 1, "y": 3}, "b": [2]}


@pytest.mark.parametrize(
    "text", ["{}", "model: nano", "learning_rate: 2.7182818284590452e-4\ndata: {weights: {ä: 0.1}}"]
)
def test_json_restores_the_config_exactly(text):
    config = of(text).config
    assert from_json(to_json(config), where="config.json") == config
    assert config_hash(config) == config_hash(from_json(to_json(config), where=""))


def test_another_setting_is_another_hash():
    assert config_hash(TrainingConfig()) != config_hash(TrainingConfig(seed=1))


@pytest.mark.parametrize(
    ("text", "found"), [("{", "no JSON"), ("[]", "holds no settings"), ('{"sed": 1}', "no such setting")]
)
def test_a_damaged_config_json_is_refused(text, found):
    with pytest.raises(ConfigError) as caught:
        from_json(text, where="checkpoint/config.json")
    assert found in caught.value.found
    assert caught.value.remedy


def test_every_setting_has_a_docstring():
    listed = list(setting_docs())
    assert len(listed) > 60
    assert [path for path, *_, doc in listed if not doc] == []
    assert {path for path, *_ in listed} >= {"batch_size", "model.attention.num_heads", "data.domain_ratio"}


def test_the_json_is_canonical():
    assert list(json.loads(to_json(TrainingConfig()))) == sorted(TrainingConfig.model_fields)
    assert to_json(ModelConfig.model_validate("nano")) == to_json(
        ModelConfig.model_validate({"size": "nano", "num_layers": 4})
    )
