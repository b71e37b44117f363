"""Validation numbers against a computation by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from havoc_core.config import ModelConfig
from havoc_core.distributed import World
from havoc_core.layers.segments import Segments
from havoc_core.loss import IGNORE_INDEX
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_data.loading.loader import Batch
from havoc_training.validation import Score, validate

T, V = 12, 512
EOS = 1


@pytest.fixture(scope="module")
def model():
    config = {
        "size": "nano", "vocab_size": V, "d_model": 16, "num_layers": 1, "max_seq_len": T, "initializer_range": 0.5, "dropout": 0.5,
        "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8}, "mlp": {"hidden_dim": 24},
    }  # fmt: skip
    model = havoc.build(ModelConfig.model_validate(config))
    place_weights(model, first_weights(model, seed=3), dtype=torch.float32, device=torch.device("cpu"))
    return model


def batch_of(seed, lengths):
    draw = np.random.default_rng(seed)
    inputs, labels = draw.integers(256, V, (len(lengths), T)), draw.integers(256, V, (len(lengths), T))
    for row, parts in enumerate(lengths):
        for end in np.cumsum(parts):
            labels[row, end - 1] = EOS
        labels[row, sum(parts) :] = IGNORE_INDEX
    return Batch(inputs, labels, tuple(map(tuple, lengths)))


BATCHES = {"domain": [batch_of(0, [[5, 4], [12]]), batch_of(1, [[2]])], "dialog": [batch_of(2, [[7], [3, 3]])]}
LENGTHS = torch.tensor([0] * 256 + [1 + i % 4 for i in range(256)], dtype=torch.int32)
RATIOS = {"domain": 0.6, "general": 0.3, "dialog": 0.1}


@torch.no_grad()
def by_hand(model, batches):
    """(nats per token, bits per byte) from log_softmax in float64, token by token."""
    nats, tokens, text_nats, text_bytes = 0.0, 0, 0.0, 0
    model.eval()
    for batch in batches:
        hidden = model(torch.from_numpy(batch.inputs), segments=Segments.of_lengths(batch.lengths, T))
        log_probs = (hidden.double() @ model.head.double().t()).log_softmax(-1)
        for row in range(len(batch.labels)):
            for at, label in enumerate(batch.labels[row].tolist()):
                if label == IGNORE_INDEX:
                    continue
                cost = -float(log_probs[row, at, label])
                nats, tokens = nats + cost, tokens + 1
                if label != EOS:
                    text_nats, text_bytes = text_nats + cost, text_bytes + int(LENGTHS[label])
    return nats / tokens, text_nats / math.log(2) / text_bytes


def score(model, world=None):
    return validate(model, BATCHES, ratios=RATIOS, token_lengths=LENGTHS, world=world or World())


def test_every_group_has_the_numbers_that_a_hand_would_find(model):
    result = score(model)
    for group, batches in BATCHES.items():
        loss, bits_per_byte = by_hand(model, batches)
        assert result.groups[group].loss == pytest.approx(loss, rel=1e-6)
        assert result.groups[group].bits_per_byte == pytest.approx(bits_per_byte, rel=1e-6)
        assert result.groups[group].perplexity == pytest.approx(math.exp(loss), rel=1e-5)


def test_the_total_is_weighted_by_the_mixture_of_the_groups_that_are_there(model):
    result = score(model)
    domain, dialog = result.groups["domain"], result.groups["dialog"]
    assert result.total.loss == pytest.approx((0.6 * domain.loss + 0.1 * dialog.loss) / 0.7)
    assert result.total.bits_per_byte == pytest.approx((0.6 * domain.bits_per_byte + 0.1 * dialog.bits_per_byte) / 0.7)
    assert result.total.perplexity == pytest.approx(math.exp(result.total.loss))


def test_validating_draws_no_random_number_and_changes_nothing(model):
    model.train()
    before, state = {n: p.clone() for n, p in model.named_parameters()}, torch.get_rng_state()
    one, two = score(model), score(model)
    assert one == two
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in model.named_parameters())


def test_a_hopeless_loss_has_a_finite_perplexity():
    assert math.isfinite(Score(1e6, 1.0).perplexity)
