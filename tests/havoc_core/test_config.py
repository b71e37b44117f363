"""The page of knobs: names, defaults, ranges, shapes."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from havoc_core.config import MODEL_SIZES, ModelConfig, TrainingConfig

FOUNDING = {
    "batch_size": 2, "gradient_accumulation_steps": 16, "max_epochs": 1.0, "max_steps": None, "learning_rate": 3e-4,
    "min_learning_rate": 3e-5, "weight_decay": 0.1, "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0, "warmup_steps": 2000, "lr_scheduler_type": "cosine", "use_amp": True, "amp_dtype": "bfloat16",
    "checkpoint_dir": "checkpoints", "save_every_n_steps": 1000, "keep_last_n_checkpoints": 3,
    "resume_from_checkpoint": None, "eval_every_n_steps": 500, "eval_samples": 100, "log_every_n_steps": 10,
    "log_dir": "logs", "device": "auto", "seed": 42,
}  # fmt: skip


@pytest.mark.parametrize("name", FOUNDING)
def test_every_founding_name_is_there_with_its_default(name):
    value = getattr(TrainingConfig(), name)
    assert value == FOUNDING[name]
    assert type(value) is type(FOUNDING[name])


def test_the_founding_sections_have_their_names():
    config = TrainingConfig()
    assert {
        "vocab_size", "d_model", "num_layers", "max_seq_len", "dropout", "layer_norm_eps", "initializer_range", "attention",
        "mlp", "tie_embeddings",
    } <= set(config.model.model_dump())  # fmt: skip
    assert {"num_heads", "head_dim", "num_kv_heads", "rotary_dim", "rope_theta", "qk_norm"} == set(
        config.model.attention.model_dump()
    )
    assert {"hidden_dim", "activation"} == set(config.model.mlp.model_dump())
    assert config.data.ratios == {"domain": 0.6, "general": 0.3, "dialog": 0.1}


def test_the_default_model_is_the_7b():
    assert TrainingConfig().model == ModelConfig.model_validate("havoc_7b")
    assert ModelConfig() == ModelConfig.model_validate("havoc_7b")


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_a_named_size_can_be_written_as_one_word_and_survives_a_round_trip(size):
    model = ModelConfig.model_validate(size)
    assert model.size == size
    assert ModelConfig.model_validate(model.model_dump(mode="json")) == model


def test_what_is_given_wins_over_the_named_size():
    model = ModelConfig.model_validate({"size": "nano", "num_layers": 2, "mlp": {"activation": "geglu"}})
    assert (model.num_layers, model.d_model, model.mlp.hidden_dim, model.mlp.activation) == (2, 192, 512, "geglu")


def test_another_number_of_heads_shares_the_width_anew():
    model = ModelConfig.model_validate({"size": "nano", "attention": {"num_heads": 4, "num_kv_heads": 2}})
    assert model.head_dim == 192 // 4


def test_an_unrelated_setting_of_attention_does_not_change_the_width_of_a_head():
    """Regression: with d_model given, `attention: {qk_norm: false}` made the heads twice as wide."""
    plain = ModelConfig.model_validate({"size": "nano", "d_model": 384})
    other = ModelConfig.model_validate({"size": "nano", "d_model": 384, "attention": {"qk_norm": False}})
    assert plain.head_dim == other.head_dim == 32


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"attention": {"num_heads": 6, "num_kv_heads": 4}}, "num_heads 6 is not a multiple of num_kv_heads 4"),
        ({"attention": {"rotary_dim": 5}}, "rotary_dim 5 is odd"),
        ({"attention": {"rotary_dim": 64, "head_dim": 32}}, "rotary_dim 64 is larger than head_dim 32"),
        ({"attention": {"rotary_dim": 64}}, "rotary_dim 64 is larger than head_dim 32"),
        (
            {"d_model": 100, "attention": {"num_heads": 8, "num_kv_heads": 2}},
            "d_model 100 is not a multiple of num_heads 8",
        ),
        ({"attention": {"head_dim": 5}}, "head_dim 5 is odd"),
        ({"vocab_size": 511}, "512"),
        ({"dropout": 1.0}, "less than 1"),
        ({"layer_norm_eps": 0.0}, "greater than 0"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(values, says):
    with pytest.raises(ValidationError, match=says):
        ModelConfig.model_validate({"size": "nano", **values})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"min_learning_rate": 1e-3}, "min_learning_rate 0.001 is above learning_rate 0.0003"),
        ({"model": "nano", "data": {"max_sequence_length": 8192}}, "8192 is above model.max_seq_len 4096"),
        (
            {"model": "nano", "tokenizer": {"vocab_size": 5000}},
            "tokenizer.vocab_size 5000 is above model.vocab_size 4096",
        ),
        ({"data": {"domain_ratio": 0.5}}, "is 0.9, and shares must add up to 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, says):
    with pytest.raises(ValidationError, match=says):
        TrainingConfig.model_validate(values)


def test_a_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        TrainingConfig().seed = 1


@pytest.mark.parametrize(
    "name", ["max_epochs", "max_grad_norm", "learning_rate", "weight_decay", "z_loss_weight", "adam_epsilon"]
)
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_no_setting_is_infinite_or_not_a_number(name, value):
    """Regression: max_epochs: .inf ended in an OverflowError."""
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate({name: value})


@pytest.mark.parametrize("name", ["batch_size", "seed", "max_steps", "warmup_steps"])
def test_true_is_no_whole_number(name):
    """Regression: `batch_size: yes` was a batch of one."""
    with pytest.raises(ValidationError, match="whole number"):
        TrainingConfig.model_validate({name: True})


@pytest.mark.parametrize(
    ("written", "meant"), [(True, "on"), (False, "off"), ("on", "on"), ("off", "off"), ("auto", "auto")]
)
def test_a_bare_on_means_on(written, meant):
    """Regression: YAML 1.1 reads `compile: on` as true, which was refused as none of auto, on, off."""
    assert TrainingConfig.model_validate({"compile": written}).compile == meant
