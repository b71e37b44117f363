"""Values and gradients against a float64 formula: tests/numerics/test_attention_kernel.py."""

from __future__ import annotations

import pytest
import torch

from havoc_core.config import ModelConfig
from havoc_core.layers import attention_kernel
from havoc_core.layers.segments import Segments
from havoc_core.loss import cross_entropy_sum
from havoc_core.model import first_weights, place_weights
from havoc_core.models.havoc import HavocModel, build

needs_kernel = pytest.mark.skipif(
    attention_kernel.load() is None, reason="this machine has no C++ compiler or no AVX512-BF16: SDPA does the work"
)


@needs_kernel
def test_the_result_does_not_depend_on_the_number_of_threads():
    q, k, v = (torch.randn(4, 128, heads, 32).bfloat16() for heads in (4, 2, 2))
    starts = Segments.of_lengths([[128]] * 4, 128).starts
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = attention_kernel.document_attention(q, k, v, starts)
        torch.set_num_threads(2)
        assert torch.equal(attention_kernel.document_attention(q, k, v, starts), alone)
    finally:
        torch.set_num_threads(before)


def tiny(head_dim: int = 32) -> HavocModel:
    config = ModelConfig(
        size="nano",
        vocab_size=512,
        d_model=64,
        num_layers=2,
        attention={"num_heads": 2, "num_kv_heads": 1, "head_dim": head_dim},
    )
    model = build(config)
    place_weights(model, first_weights(model, seed=3), dtype=torch.float32, device=torch.device("cpu"))
    return model


@needs_kernel
def test_a_model_with_the_kernel_learns_the_same_as_one_without():
    tokens = torch.randint(0, 512, (2, 128), generator=torch.Generator().manual_seed(0))
    segments = Segments.of_lengths([[40, 60], [128]], 128)
    gradients = []
    for with_kernel in (False, True):
        model = tiny()
        if with_kernel:
            model.use_cpu_kernel()
        cross_entropy_sum(model(tokens, segments=segments), model.head, tokens).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, expected in gradients[0].items():
        assert (gradients[1][name] - expected).abs().max() <= 1e-5 * expected.abs().max(), name


@needs_kernel
@pytest.mark.parametrize(("num_tokens", "head_dim"), [(100, 32), (128, 16)], ids=["tokens", "head width"])
def test_shapes_that_the_kernel_cannot_take_are_left_to_masked_attention(num_tokens, head_dim):
    tokens = torch.randint(0, 512, (1, num_tokens), generator=torch.Generator().manual_seed(0))
    segments = Segments.of_lengths([[num_tokens]], num_tokens)
    model = tiny(head_dim)
    expected = model(tokens, segments=segments)
    model.use_cpu_kernel()
    assert torch.equal(model(tokens, segments=segments), expected)
