"""What the first training guide promised still holds: its fragments bind, its values are the defaults."""

from __future__ import annotations

import pytest

from havoc_cli import train
from havoc_cli.flags import parse_with_settings
from havoc_core.config import TrainingConfig
from havoc_core.config_files import parse_yaml, resolve

HARDWARE = {
    "RTX 3090 / RTX 4090 (24GB)": """
batch_size: 2
gradient_accumulation_steps: 16
use_amp: true
amp_dtype: bfloat16
""",
    "A100 40GB": """
batch_size: 4
gradient_accumulation_steps: 8
use_amp: true
amp_dtype: bfloat16
""",
    "A100 80GB": """
batch_size: 8
gradient_accumulation_steps: 4
use_amp: true
amp_dtype: bfloat16
""",
    "CPU (testing only)": """
batch_size: 1
gradient_accumulation_steps: 1
use_amp: false
device: cpu
""",
}

COMMANDS = [
    ([], {}),
    (["--config", "configs/training/default_training.yaml"], {}),
    (
        ["--batch-size", "2", "--learning-rate", "2e-4", "--max-steps", "10000", "--device", "cuda"],
        {"batch_size": 2, "learning_rate": 2e-4, "max_steps": 10000, "device": "cuda"},
    ),
    (["--resume", "checkpoints/checkpoint_step_5000"], {}),
    (["--resume", "checkpoints/checkpoint_interrupted"], {}),
]

DEFAULTS = {
    "learning_rate": 3e-4,
    "min_learning_rate": 3e-5,
    "weight_decay": 0.1,
    "warmup_steps": 2000,
    "max_grad_norm": 1.0,
    "lr_scheduler_type": "cosine",
    "optimizer": "adamw",
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "use_amp": True,
    "amp_dtype": "bfloat16",
    "save_every_n_steps": 1000,
    "keep_last_n_checkpoints": 3,
    "eval_every_n_steps": 500,
    "eval_samples": 100,
    "log_every_n_steps": 10,
    "checkpoint_dir": "checkpoints",
    "log_dir": "logs",
}


@pytest.mark.parametrize("hardware", HARDWARE)
def test_every_row_of_the_hardware_table_binds_and_learns_from_32_rows_a_step_on_a_gpu(hardware):
    values = parse_yaml(HARDWARE[hardware], where=hardware)
    config = resolve(values, {}).config
    assert {name: getattr(config, name) for name in values} == values
    assert config.batch_size * config.gradient_accumulation_steps == (1 if config.device == "cpu" else 32)


@pytest.mark.parametrize(("arguments", "settings"), COMMANDS)
def test_every_command_of_the_guide_is_understood(arguments, settings):
    _, given = parse_with_settings(train.TrainFlags, arguments, prog="havoc train", description="")
    assert given == settings
    assert resolve({}, given).config


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_recommended_value_is_the_default(name):
    assert TrainingConfig.model_fields[name].default == DEFAULTS[name]


def test_the_mixture_is_60_30_10():
    assert TrainingConfig().data.ratios == {"domain": 0.6, "general": 0.3, "dialog": 0.1}


def test_a_warm_up_and_a_shape_can_be_changed_as_the_guide_says():
    text = "model: {max_seq_len: 2048}\nuse_amp: true\nlearning_rate: 3e-4"
    assert resolve(parse_yaml(text, where="text"), {}).config.model.max_seq_len == 2048
