"""Documents as blocks for FlexAttention: against torch's own way, which holds the whole mask. Masks: test_layers.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from havoc_core.layers.segments import Segments


def some_documents(num_tokens: int, seed: int = 0) -> list[int]:
    generator, lengths = torch.Generator().manual_seed(seed), []
    while (left := num_tokens - sum(lengths)) > 0:
        lengths.append(min(left, int(torch.randint(1, num_tokens // 2, (1,), generator=generator))))
    return lengths


@pytest.mark.parametrize("num_tokens", [60, 128, 200, 512, 700])
def test_the_blocks_are_those_that_the_whole_mask_gives(num_tokens):
    rows = [some_documents(num_tokens, seed=1), [num_tokens], some_documents(num_tokens, seed=2), [num_tokens // 3]]
    rows.append([1] * num_tokens)
    segments = Segments.of_lengths(rows, num_tokens)
    mask, blocks = segments.mask, segments.blocks
    wanted = create_block_mask(
        lambda b, _, q, k: mask[b, 0, q, k], len(rows), None, num_tokens, num_tokens, device="cpu"
    )
    assert blocks.seq_lengths == wanted.seq_lengths
    assert blocks.BLOCK_SIZE == wanted.BLOCK_SIZE
    for name in ("kv_num_blocks", "kv_indices", "q_num_blocks", "q_indices"):
        for whole in ("", "full_"):
            found, expected = getattr(blocks, whole + name), getattr(wanted, whole + name)
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected), whole + name
    at = torch.arange(num_tokens)
    for row in range(len(rows)):
        seen = blocks.mask_mod(torch.tensor(row), torch.tensor(0), at[:, None], at[None, :])
        assert torch.equal(seen, mask[row, 0])


class _Watched(TorchDispatchMode):
    """Notes the operators that run and the most values that one of them gives."""

    def __init__(self) -> None:
        super().__init__()
        self.operators, self.most_values = set(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operators.add(func.overloadpacket.__name__)
        self.most_values = max(
            [self.most_values, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))]
        )
        return out


def test_blocks_are_made_without_a_whole_mask_and_without_asking_the_device():
    num_rows, num_tokens = 4, 4096
    segments = Segments.of_lengths([some_documents(num_tokens, seed) for seed in range(num_rows)], num_tokens)
    with _Watched() as watched:
        assert segments.blocks is not None
    assert watched.most_values <= num_rows * num_tokens
    assert watched.operators.isdisjoint(
        {"_local_scalar_dense", "nonzero", "equal", "masked_select", "unique_consecutive"}
    )
    with _Watched() as watched:
        assert segments.mask is not None
    assert watched.most_values == num_rows * num_tokens**2, "the watch sees a whole mask"


def test_rows_of_one_document_are_known_to_be_so_wherever_they_go():
    cpu = torch.device("cpu")
    whole = Segments.of_lengths([[64], [64]], 64)
    assert whole.one_each and whole.to(cpu).one_each
    for others in ([[64], [32, 32]], [[64], [63]], [[64], []]):
        assert not Segments.of_lengths(others, 64).one_each
    assert not Segments(whole.starts).one_each, "nobody asked the device"
