"""Parameters, operations, bytes: closed forms against the models themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from havoc_core.config import MODEL_SIZES, ModelConfig
from havoc_core.costs import (
    activation_bytes,
    hardware_flops_per_token,
    num_parameters,
    state_bytes,
    training_flops_per_token,
)
from havoc_core.model import count_parameters, first_weights, place_weights
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


def test_the_7b_takes_42_1_billion_operations_a_token_at_2048():
    """By hand: 6 * (32 * 202,375,168 + 268,435,456) + 6 * 32 * 32 * 128 * 2048."""
    assert training_flops_per_token(ModelConfig(), 2048) == 6 * (32 * 202_375_168 + 268_435_456) + 6 * 32 * 4096 * 2048


def test_full_recompute_adds_a_forward_of_the_blocks_and_selective_no_product():
    config = ModelConfig.model_validate("nano")
    block = 2 * 192 * 32 * (6 + 2) + 3 * 192 * 512
    model = training_flops_per_token(config, 256)
    assert hardware_flops_per_token(config, 256, "full") == model + 2 * 4 * block + 2 * 4 * 6 * 32 * 256
    assert hardware_flops_per_token(config, 256, "none") == hardware_flops_per_token(config, 256, "selective") == model


def counted_flops(config, *, rows, length, recompute):
    """Operations of the products in forward and backward, as torch counts them."""
    model = havoc.build(config)
    place_weights(model, first_weights(model, seed=0), dtype=torch.float32, device=torch.device("cpu"))
    if recompute:

        def recomputed(blocks, x, rotary, sight):
            for block in blocks:
                x = checkpoint(block, x, rotary, sight, use_reentrant=False)
            return x

        model.run_blocks_with(recomputed)
    tokens = torch.zeros(rows, length, dtype=torch.int64)
    # torch would leave out the last product of a recomputed block, whose result the backward pass does not need.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), set_checkpoint_early_stop(False):
        nn.functional.cross_entropy(model.logits(model(tokens)).flatten(0, 1), tokens.flatten()).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("tied", [False, True])
def test_operations_are_those_that_torch_counts_less_the_half_behind_the_causal_mask(recompute, tied):
    """torch counts every score of the square [T, T], and half of them lie behind the mask: attention counts half here."""
    config = ModelConfig.model_validate({"size": "nano", "vocab_size": 1024, "num_layers": 2, "tie_embeddings": tied})
    rows, length = 2, 64
    passes = 4 if recompute == "full" else 3  # forward, two gradients of each product, and the forward once more
    behind_the_mask = passes * 2 * 2 * 6 * 32 * length  # passes * 2 operations * layers * heads * width * T, a token
    counted = counted_flops(config, rows=rows, length=length, recompute=recompute == "full")
    assert counted == rows * length * (hardware_flops_per_token(config, length, recompute) + behind_the_mask)


def test_bytes_of_the_state():
    nano = ModelConfig.model_validate("nano")
    n = num_parameters(nano)
    assert state_bytes(nano, working_bytes=4) == n * (4 + 4 + 4 + 8)  # weight, gradient, their sum, moments
    assert state_bytes(nano, working_bytes=2) == n * (2 + 2 + 4 + 4 + 8)  # and the master


def test_bytes_of_activations_grow_with_rows_and_length():
    nano = ModelConfig.model_validate("nano")
    one = activation_bytes(nano, rows=1, sequence_length=128, working_bytes=4)
    assert activation_bytes(nano, rows=3, sequence_length=256, working_bytes=2) == 3 * one
