"""Norm, rotary positions, feed-forward, embedding, segments, cache: each against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from havoc_core.layers.attention import attend
from havoc_core.layers.embedding import Embedding
from havoc_core.layers.feed_forward import FeedForward
from havoc_core.layers.norm import RMSNorm
from havoc_core.layers.rope import rotary_table, rotate
from havoc_core.layers.segments import Segments


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_the_norm_divides_by_the_root_of_the_mean_square_plus_eps(eps):
    norm = RMSNorm(16, eps=eps)
    torch.nn.init.normal_(norm.weight)
    x = draw(3, 16)
    wanted = x.double() / (x.double().square().mean(-1, keepdim=True) + eps).sqrt() * norm.weight.double()
    torch.testing.assert_close(norm(x).double(), wanted, rtol=1e-6, atol=1e-6)


def test_the_norm_of_bfloat16_is_computed_in_float32():
    norm = RMSNorm(64, eps=1e-6)
    x = draw(5, 64, dtype=torch.bfloat16)
    wanted = functional.rms_norm(x.float(), (64,), norm.weight, 1e-6).to(torch.bfloat16)
    assert norm(x).dtype == torch.bfloat16
    assert torch.equal(norm(x), wanted)


def test_a_pair_of_channels_turns_by_position_times_its_frequency():
    cos, sin = rotary_table(10, 4, 100.0)
    x = torch.zeros(1, 10, 1, 6)
    x[..., 0] = 1.0  # first channel of pair 0, whose partner is channel 2
    x[..., 1] = 1.0  # first channel of pair 1, whose partner is channel 3
    x[..., 4:] = 7.0
    out = rotate(x, cos, sin)
    for position in range(10):
        slow = position * 100.0**-0.5  # theta^(-2i / rotary_dim) for i = 1
        wanted = [math.cos(position), math.cos(slow), math.sin(position), math.sin(slow), 7.0, 7.0]
        torch.testing.assert_close(out[0, position, 0], torch.tensor(wanted), rtol=0, atol=1e-6)


def test_rotated_scores_depend_on_the_difference_of_positions_alone():
    cos, sin = rotary_table(64, 8, 10_000.0)
    q, k = draw(1, 1, 1, 8, seed=1).double(), draw(1, 1, 1, 8, seed=2).double()

    def score(at_q, at_k):
        return (rotate(q, cos[at_q, None], sin[at_q, None]) * rotate(k, cos[at_k, None], sin[at_k, None])).sum()

    assert abs(score(5, 2) - score(60, 57)) < 1e-6
    assert abs(score(5, 2) - score(5, 3)) > 1e-4


@pytest.mark.parametrize(("activation", "gate"), [("swiglu", functional.silu), ("geglu", functional.gelu)])
def test_the_feed_forward_layer_is_down_of_gate_times_up(activation, gate):
    layer = FeedForward(8, hidden_dim=12, activation=activation)
    x = draw(2, 3, 8)
    wanted = (gate(x @ layer.gate_proj.weight.t()) * (x @ layer.up_proj.weight.t())) @ layer.down_proj.weight.t()
    torch.testing.assert_close(layer(x), wanted)


def test_the_embedding_and_its_gradient_are_those_of_torch():
    table = Embedding(10, 4)
    torch.nn.init.normal_(table.weight)
    tokens = torch.tensor([[1, 2, 1], [9, 1, 0]])
    weight = table.weight.detach().clone().requires_grad_()
    upstream = draw(2, 3, 4)
    (table(tokens) * upstream).sum().backward()
    (functional.embedding(tokens, weight) * upstream).sum().backward()
    torch.testing.assert_close(table.weight.grad, weight.grad)
    with torch.no_grad():
        assert torch.equal(table(tokens), functional.embedding(tokens, weight))


def test_the_gradient_of_a_frequent_token_does_not_stop_growing_in_bfloat16():
    table = Embedding(3, 1)
    table.weight = torch.nn.Parameter(torch.zeros(3, 1, dtype=torch.bfloat16))
    table(torch.full((1, 4096), 2)).sum().backward()
    assert table.weight.grad[2].item() == 4096.0  # summed in bfloat16 it would stop at 256
    assert table.weight.grad.dtype == torch.bfloat16


def test_the_mask_is_causal_inside_each_document_and_padding_is_alone():
    mask = Segments.of_lengths([[2, 1], [4]], 4).mask[:, 0].int().tolist()
    assert mask[0] == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert mask[1] == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_starts_say_where_each_document_begins():
    segments = Segments.of_lengths([[2, 3], []], 6)
    assert segments.starts.tolist() == [[0, 0, 2, 2, 2, 5], [0, 0, 0, 0, 0, 0]]
    assert torch.equal(Segments(segments.starts).mask, segments.mask)
    assert torch.equal(segments.to(torch.device("cpu")).mask, segments.mask)


def test_documents_longer_than_their_row_are_refused():
    with pytest.raises(ValueError, match="row 1 holds 5 tokens of documents, more than its 4"):
        Segments.of_lengths([[4], [3, 2]], 4)


def test_every_key_head_serves_its_own_query_heads():
    q, k, v = draw(1, 4, 5, 8, seed=1), draw(1, 2, 5, 8, seed=2), draw(1, 2, 5, 8, seed=3)
    out = attend(q, k, v, None)
    for head in range(4):
        scores = q[0, head] @ k[0, head // 2].t() / math.sqrt(8)
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        torch.testing.assert_close(out[0, head], scores.softmax(-1) @ v[0, head // 2])
