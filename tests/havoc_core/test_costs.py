"""Parameters, operations, bytes: closed forms against the models themselves."""

from __future__ import annotations

import pytest

from havoc_core.config import MODEL_SIZES, ModelConfig
from havoc_core.costs import activation_bytes, num_parameters, state_bytes, training_flops_per_token
from havoc_core.model import count_parameters
from havoc_core.models import havoc

# Counted by hand: layers * (2 d E (H + K) + 3 d F + 2 d + 2 E) + d + 2 V d.
IN_BILLIONS = {"havoc_7b": 7.01, "1b": 0.98, "300m": 0.30, "100m": 0.094, "30m": 0.027, "nano": 0.0031}


@pytest.mark.parametrize("size", MODEL_SIZES)
def test_a_named_size_has_the_parameters_that_its_name_promises(size):
    counted = num_parameters(ModelConfig.model_validate(size)) / 1e9
    digits = len(str(IN_BILLIONS[size]).split(".")[1])
    assert round(counted, digits) == IN_BILLIONS[size]


def test_the_7b_has_exactly_7_013_150_720_parameters():
    assert (
        num_parameters(ModelConfig())
        == 7_013_150_720
        == 32 * (2 * 4096 * 128 * 40 + 3 * 4096 * 13056 + 2 * 4096 + 256) + 4096 + 2 * 65536 * 4096
    )


@pytest.mark.parametrize("size", MODEL_SIZES)
@pytest.mark.parametrize("change", [{}, {"tie_embeddings": True}, {"attention": {"qk_norm": False}}])
def test_the_closed_form_is_the_models_own_count(size, change):
    config = ModelConfig.model_validate({"size": size, **change})
    assert num_parameters(config) == count_parameters(havoc.build(config).parameters())


def test_operations_are_six_per_matrix_weight_and_the_causal_half_of_attention():
    config = ModelConfig.model_validate("nano")
    block = 2 * 192 * 32 * (6 + 2) + 3 * 192 * 512
    assert training_flops_per_token(config, 256) == 6 * (4 * block + 4096 * 192) + 6 * 4 * 6 * 32 * 256


def test_bytes_of_the_state():
    nano = ModelConfig.model_validate("nano")
    n = num_parameters(nano)
    assert state_bytes(nano, working_bytes=4) == n * (4 + 4 + 4 + 8)  # weight, gradient, their sum, moments
    assert state_bytes(nano, working_bytes=2) == n * (2 + 2 + 4 + 4 + 8)  # and the master


def test_bytes_of_activations_grow_with_rows_and_length():
    nano = ModelConfig.model_validate("nano")
    one = activation_bytes(nano, rows=1, sequence_length=128, working_bytes=4)
    assert activation_bytes(nano, rows=3, sequence_length=256, working_bytes=2) == 3 * one
