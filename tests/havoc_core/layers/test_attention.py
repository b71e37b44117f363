"""FlexAttention beside masked attention: values on a CPU, where it has no backward. On CUDA nothing of it has been run."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from havoc_core.config import ModelConfig
from havoc_core.layers.attention import Attention, Sight, attend, attend_in_blocks
from havoc_core.layers.rope import rotary_table
from havoc_core.layers.segments import Segments
from havoc_core.models.havoc import build

# Uncompiled, FlexAttention says that it is slow, and torch's tracing warns of itself.
quiet = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TOKENS = 200
SEGMENTS = Segments.of_lengths([[40, 60, 100], [TOKENS], [7]], TOKENS)


class TestFlexAttention:
    pytestmark = quiet

    def test_it_gives_what_masked_attention_gives(self):
        generator = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(3, heads, TOKENS, 16, generator=generator) for heads in (4, 2, 2))
        found, wanted = attend_in_blocks(q, k, v, SEGMENTS.blocks), attend(q, k, v, SEGMENTS.mask)
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()  # other order of sums in float32

    @torch.no_grad()
    def test_one_compiled_code_serves_every_batch(self):
        torch.manual_seed(0)
        layer = Attention(32, num_heads=2, num_kv_heads=1, head_dim=16, qk_norm=True, eps=1e-6)
        x, rotary = torch.randn(3, TOKENS, 32), rotary_table(TOKENS, 16, 10_000.0)
        batches = [SEGMENTS, Segments.of_lengths([[TOKENS], [100, 100], [1, 2, 3]], TOKENS)]
        wanted = [layer(x, rotary, Sight(mask=segments.mask)) for segments in batches]
        built = []

        def backend(graph, _):
            built.append(graph)
            return graph.forward

        torch._dynamo.reset()
        layer.compile(backend=backend, dynamic=False, fullgraph=True)
        for segments, expected in zip(batches, wanted, strict=True):
            found = layer(x, rotary, Sight(blocks=segments.blocks))
            assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert len(built) == 1


def tokens_on(device: str) -> torch.Tensor:
    with FakeTensorMode():
        return torch.zeros(3, TOKENS, dtype=torch.int64, device=device)


def chosen(sight: Sight) -> set[str]:
    return {name for name in ("mask", "starts", "blocks") if getattr(sight, name) is not None}


@pytest.fixture
def model():
    return build(ModelConfig(size="nano", num_layers=1))


def test_blocks_are_for_cuda_and_only_where_they_were_asked_for(model):
    assert chosen(model._sight(tokens_on("cuda:0"), SEGMENTS)) == {"mask"}
    model.use_block_masks()
    assert chosen(model._sight(tokens_on("cuda:0"), SEGMENTS)) == {"blocks"}
    assert chosen(model._sight(tokens_on("cpu"), SEGMENTS)) == {"mask"}


def test_rows_of_one_document_need_no_mask_on_cuda(model):
    model.use_block_masks()
    whole = Segments.of_lengths([[TOKENS]] * 3, TOKENS)
    assert chosen(model._sight(tokens_on("cuda:0"), whole)) == set()
    assert chosen(model._sight(tokens_on("cuda:0"), Segments(whole.starts))) == {"blocks"}
    assert chosen(model._sight(tokens_on("cpu"), whole)) == {"mask"}
    assert chosen(model._sight(tokens_on("cuda:0"), None)) == set()
