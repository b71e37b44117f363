"""Texts of like width go together, each once, and within the bound."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from havoc_inference.batching import Decoding, batches
from havoc_inference.load import LoadedModel


@given(st.lists(st.integers(0, 300)), st.integers(1, 1000))
def test_every_text_is_in_one_batch_and_every_batch_within_the_bound(widths: list[int], max_tokens: int) -> None:
    made = batches(widths, max_tokens=max_tokens)
    assert sorted(index for batch in made for index in batch) == list(range(len(widths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(widths[index] for index in batch) <= max_tokens


def test_the_widest_go_first_and_together() -> None:
    assert batches([1, 9, 2, 10], max_tokens=20) == [[3, 1], [2, 0]]


def test_dropping_rows_drops_the_columns_that_only_they_used(loaded: LoadedModel) -> None:
    """The long row ends; the short ones go on as if it had never been there, in the room that it left."""
    prompts = [[0, *range(300, 320)], [0, 400], [0, 401, 402]]
    together = Decoding(loaded.model, prompts, max_columns=22, max_step_tokens=7)
    apart = Decoding(loaded.model, prompts[1:], max_columns=22, max_step_tokens=7)
    together.read_prompts()
    apart.read_prompts()
    together.extend([310, 410, 411])
    assert together.is_full
    together.keep([1, 2])
    assert not together.is_full
    got, wanted = together.extend([420, 421]), (apart.extend([410, 411]), apart.extend([420, 421]))[1]
    # float32, other shapes of the same sums: logits are around 10
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    for token in range(430, 446):
        torch.testing.assert_close(together.extend([token, token]), apart.extend([token, token]), rtol=0, atol=1e-4)
