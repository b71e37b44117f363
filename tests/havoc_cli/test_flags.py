"""Every setting is a flag; a flag and a line of a file mean the same."""

from __future__ import annotations

import json

import pytest
import yaml

from havoc_cli.flags import ConfigFlags, load_config, parse_with_settings
from havoc_cli.train import TrainFlags
from havoc_core.config import TrainingConfig
from havoc_core.config_files import setting_docs
from havoc_core.errors import ConfigError

SETTINGS = {path: (default, text) for path, _, default, text in setting_docs()}
OTHER_VALUES = {
    "device": "cpu", "lr_scheduler_type": "linear", "amp_dtype": "float16", "compile": "off", "optimizer": "muon", "memory": "stream", "recompute": "full", "fp8": True,
    "memory_options.moments": "int8", "memory_options.gradients": "bfloat16", "memory_options.gradients_on": "host",
    "memory_options.master": "none", "memory_options.rounding": "nearest", "memory_options.offload_activations": True,
    "model.size": "nano", "model.mlp.activation": "geglu", "data.fallback": "package_docs", "data.packing": "concatenate",
    "data.missing_group": "error", "data.rebuild": "never", "tokenizer.kind": "huggingface", "learning_rate": 1e-3,
    "min_learning_rate": 1e-6, "data.domain_ratio": 0.6, "data.general_ratio": 0.3, "data.dialog_ratio": 0.1,
    "model.attention.num_heads": 64, "model.attention.num_kv_heads": 4, "model.attention.head_dim": 64,
    "model.attention.rotary_dim": 64, "model.vocab_size": 131072, "model.max_seq_len": 8192,
    "data.max_sequence_length": 1024, "data.sources": [{"kind": "dummy", "group": "general"}], "data.weights": {"math": 0.5},
    "data.exclude": ["**/a_*", "b"], "tokenizer.vocab_size": 1024, "tokenizer.sample_bytes": 4096,
    "optimizer_options": {"momentum": 0.9}, "tracking.trackers": [], "evaluation.sample_prompts": ["a: b", "c"],
    "max_epochs": 2.5, "rows_per_step": 8, "max_steps": 7, "threads": 3, "data.num_workers": 2,
    "data.cleaning.domain": "drop", "data.cleaning.general": "annotate", "data.cleaning.dialog": "off",
    "data.cleaning.languages": ["en", "de"], "data.cleaning.personal_data": "mask", "data.deduplication.domain": "annotate",
    "data.deduplication.general": "annotate", "data.deduplication.dialog": "drop", "data.deduplication.jaccard": 0.9,
    "data.deduplication.paragraphs": "drop", "data.decontamination.action": "annotate", "data.runner": "inline",
    "data.decontamination.exams": ["a.jsonl"], "data.decontamination.overlap": 0.9, "data.runner_options": {"a": 1},
    "data.cleaning.rules.links": 0.5, "data.cleaning.rules.repeated_lines": 0.5, "data.cleaning.rules.menu_lines": 0.5,
    "data.cleaning.rules.repeated_paragraphs": 0.5, "data.cleaning.rules.repeated_phrases": 0.5,
    "data.cleaning.rules.few_letters": 0.5, "data.cleaning.rules.bullet_lines": 0.5,
    "model.dropout": 0.1, "adam_beta1": 0.8, "adam_beta2": 0.9, "decay_fraction": 0.4, "data.validation_fraction": 0.1,
}  # fmt: skip
"""Another valid value than the default; what is missing here is made from the default."""


def another(path):
    default = SETTINGS[path][0]
    if path in OTHER_VALUES:
        return OTHER_VALUES[path]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default * 2 or 1
    return "some text"


def flag_of(path):
    return "--" + path.replace("_", "-")


def given(*arguments, flags=ConfigFlags):
    return parse_with_settings(flags, [str(a) for a in arguments], prog="havoc config show", description="")[1]


def at(values, path):
    for part in path.split("."):
        values = values[part]
    return values


def as_text(wanted):
    return (
        wanted if isinstance(wanted, str) else yaml.safe_dump(wanted, default_flow_style=True).split("\n...")[0].strip()
    )


def test_every_setting_is_a_flag_that_takes_a_line_of_yaml():
    wanted = {path: another(path) for path in SETTINGS}
    assert [path for path in SETTINGS if wanted[path] == SETTINGS[path][0] and not path.endswith("_ratio")] == []
    arguments = [word for path, value in wanted.items() for word in (flag_of(path), as_text(value))]
    values = given(*arguments)
    config = load_config(ConfigFlags(), values).config.model_dump(exclude_unset=True)
    for path, value in wanted.items():
        assert at(config, path) == value, path


def test_help_explains_every_setting_with_its_reason_and_its_default(havoc):
    said = havoc("train", "--help")
    words = " ".join(said.out.replace("│", " ").split())
    for path, (_, text) in SETTINGS.items():
        assert flag_of(path) in words, path
        assert " ".join(text.split())[:30] in words, path
    assert "(default: 0.0003)" in words
    assert "--resume" in words and "--fine-tune" in words


@pytest.mark.parametrize("spelling", ["3e-4", "3.0e-4", "0.0003", "3E-04", ".0003"])
def test_a_small_number_means_the_same_however_it_is_spelt(spelling):
    assert given("--learning-rate", spelling) == {"learning_rate": 3e-4}


def test_the_founding_flags_are_there():
    flags, values = parse_with_settings(
        TrainFlags,
        [
            "--config",
            "x.yaml",
            "--resume",
            "checkpoints/checkpoint_step_5000",
            "--batch-size",
            "2",
            "--learning-rate",
            "2e-4",
            "--max-steps",
            "10000",
            "--device",
            "cuda",
        ],
        prog="havoc train",
        description="",
    )
    assert (flags.config, flags.resume) == ("x.yaml", "checkpoints/checkpoint_step_5000")
    assert values == {"batch_size": 2, "learning_rate": 2e-4, "max_steps": 10000, "device": "cuda"}


def test_flags_are_taken_with_an_equals_sign_and_with_underscores_too():
    assert given("--model.num-layers=8", "--batch_size", "4") == {"model": {"num_layers": 8}, "batch_size": 4}


def test_null_true_and_lists_are_yaml_and_text_stays_text():
    assert given("--max-steps", "null", "--run-dir", "true", "--use-amp", "auto", "--compile", "off") == {
        "max_steps": None, "run_dir": "true", "use_amp": "auto", "compile": False,
    }  # fmt: skip
    assert load_config(ConfigFlags(), given("--compile", "off")).config.compile == "off"
    assert given("--threads", "null", "--tokenizer.path", "null", "--tokenizer.vocab-size", "null") == {
        "threads": None, "tokenizer": {"path": None, "vocab_size": None},
    }  # fmt: skip
    assert given("--data.exclude", '["**/a", b]') == {"data": {"exclude": ["**/a", "b"]}}
    assert given("--run-dir", "3") == {"run_dir": "3"}


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["--learning-rat", "1e-3"], "--learning-rate"),
        (["--model.num-layer", "8"], "--model.num-layers"),
        (["--resum", "auto"], "--resume"),
        (["--num-layers", "8"], "--model.num-layers"),
    ],
)
def test_a_misspelt_flag_exits_with_2_and_names_the_nearest(arguments, near, havoc):
    said = havoc("train", *arguments)
    assert said.code == 2
    assert near in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_flag_without_its_value_exits_with_2(havoc):
    said = havoc("train", "--batch-size")
    assert (said.code, "--batch-size" in said.err, "Traceback" in said.err) == (2, True, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "two"], "batch_size: 'two' should be"),
        (["--batch-size", "0"], "batch_size: 0 should be greater than or equal to 1."),
        (["--batch-size", "true"], "batch_size: True should be a whole number."),
        (["--batch-size", "2.5"], "batch_size: 2.5 should be"),
        (["--use-amp", "maybe"], "use_amp: 'maybe' is none of true, false, auto."),
        (["--device", "gpu"], "device: 'gpu' is none of auto, cuda, mps, cpu."),
        (["--lr-scheduler-type", "cosin"], "Did you mean 'cosine'?"),
        (["--data.exclude", "draft"], "data.exclude: 'draft' should be"),
        (["--data.weights", "[1]"], "data.weights: [1]"),
        (["--model.size", "7b"], "model.size: '7b' is none of"),
        (["--learning-rate", "[1"], "--learning-rate:"),
        (["--learning-rate", "nan"], "learning_rate: 'nan' should be a finite number."),
        (["--max-steps", "1e3x"], "max_steps: '1e3x' should be"),
        (["--run-dir", "null"], "run_dir: None should be"),
        (["--run-dir", "null", "--resume", "auto"], "run_dir: None should be"),
        (["--checkpoint-dir", "null", "--resume", "auto"], "checkpoint_dir: None should be"),
    ],
)
def test_a_wrong_value_is_one_message_with_the_setting_in_front(arguments, message, havoc):
    said = havoc("train", *arguments)
    assert said.code == 2
    assert message in said.message
    assert said.message.startswith("ConfigError  ")


def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(here):
    (here / "a.yaml").write_text("batch_size: 3\nseed: 7\nmodel: nano\n")
    resolved = load_config(
        ConfigFlags(config="a.yaml"),
        given("--batch-size", "5", "--model.num-layers", "8", "--model.mlp.hidden-dim", "7"),
    )
    config = resolved.config
    assert (config.batch_size, config.seed, config.max_grad_norm) == (5, 7, 1.0)
    assert (config.model.num_layers, config.model.d_model, config.model.mlp.hidden_dim) == (8, 192, 7)
    origins = {name: resolved.origins[name] for name in ("batch_size", "seed", "max_grad_norm", "model.num_layers")}
    assert origins == {
        "batch_size": "command line", "seed": "a.yaml", "max_grad_norm": "default", "model.num_layers": "command line",
    }  # fmt: skip


def test_a_flag_mends_a_file(here):
    (here / "a.yaml").write_text("learning_rate: 1.0e-5\n")  # below the default of min_learning_rate
    config = load_config(ConfigFlags(config="a.yaml"), given("--min-learning-rate", "0")).config
    assert (config.learning_rate, config.min_learning_rate) == (1e-5, 0.0)


def test_dummy_data_replaces_every_source():
    config = load_config(ConfigFlags(dummy_data=True), given("--data.max-sequence-length", "128")).config
    assert [source.kind for source in config.data.sources] == ["dummy"] * 3
    assert config.data.max_sequence_length == 128


def test_what_config_show_prints_can_be_given_back(havoc):
    """Each value that is shown, as a flag, gives the same config."""
    said = havoc("config", "show")
    arguments = []
    for line in said.out.splitlines():
        path, value = line.split(maxsplit=1)
        if path != "data.sources":
            arguments += [flag_of(path), json.loads(value) if value.startswith('"') else value.strip()]
    assert load_config(ConfigFlags(), given(*arguments)).config == TrainingConfig()


def test_a_size_on_the_command_line_replaces_the_shape_in_the_file(here):
    """Regression: 'use --model.size 300m', said of default_training.yaml, changed nothing: the file's widths won."""
    (here / "a.yaml").write_text(
        "model: {size: havoc_7b, d_model: 4096, num_layers: 32, vocab_size: 65536, max_seq_len: 4096, "
        "attention: {num_heads: 32, head_dim: 128, num_kv_heads: 8, qk_norm: false}, mlp: {hidden_dim: 13056}}\n"
    )
    resolved = load_config(ConfigFlags(config="a.yaml"), given("--model.size", "300m", "--model.num-layers", "5"))
    model = resolved.config.model
    assert (model.d_model, model.num_layers, model.mlp.hidden_dim, model.vocab_size) == (1024, 5, 2816, 32768)
    assert (model.attention.num_heads, model.attention.head_dim) == (16, 64)
    assert (model.max_seq_len, model.attention.qk_norm) == (4096, False), "these are no part of a size"
    assert resolved.origins["model.num_layers"] == "command line"
    assert resolved.origins["model.max_seq_len"] == "a.yaml"
    # Another mistake in the file's model is still found.
    (here / "b.yaml").write_text("model: {d_modl: 4}\n")
    with pytest.raises(ConfigError, match="model.d_modl: there is no such setting"):
        load_config(ConfigFlags(config="b.yaml"), given("--model.size", "300m"))
