"""Torch as the runner: pages give what the whole text gives, one by one and together."""

from __future__ import annotations

import pytest
import torch

from havoc_inference.load import LoadedModel
from havoc_inference.runner import Chunk, TorchRunner

TEXTS = [[0, *range(300, 370)], [0, 400], [0, *range(260, 283)]]
PAGES = [[9, 2, 14, 7, 1], [4], [11, 3]]


def whole(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model.logits(loaded.model(torch.tensor([ids])))[0]


@pytest.mark.parametrize("together", [False, True])
def test_tokens_that_come_one_by_one_get_the_logits_of_the_whole_text(loaded: LoadedModel, together: bool) -> None:
    runner = TorchRunner(loaded.model, loaded.config, num_pages=16, together=together)
    first = runner.logits([Chunk(ids[:-1], 0, pages, []) for ids, pages in zip(TEXTS, PAGES, strict=True)])
    assert first.shape == (0, 640)
    last = runner.logits([Chunk(ids[-1:], len(ids) - 1, pages, [0]) for ids, pages in zip(TEXTS, PAGES, strict=True)])
    wanted = torch.stack([whole(loaded, ids)[-1] for ids in TEXTS])
    # float32, other shapes of the same sums
    assert (last - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_what_a_damaged_text_has_left_in_its_pages_does_not_reach_the_next(poisoned: LoadedModel) -> None:
    """Regression: the columns beyond a shorter text's end weigh nothing, and NaN times nothing is NaN."""
    texts, pages = TEXTS[:2], [PAGES[0], [4]]
    out = []
    for damaged in ([], [Chunk([600] * 16, 0, [page], []) for page in (0, 4)]):
        runner = TorchRunner(poisoned.model, poisoned.config, num_pages=16, together=True)
        if damaged:
            runner.logits(damaged)
        runner.logits([Chunk(ids[:-1], 0, held, []) for ids, held in zip(texts, pages, strict=True)])
        last = [Chunk(ids[-1:], len(ids) - 1, held, [0]) for ids, held in zip(texts, pages, strict=True)]
        out.append(runner.logits(last))
    assert out[0].isfinite().all()
    assert torch.equal(out[0], out[1])


def test_prompts_and_growing_texts_share_a_step(loaded: LoadedModel) -> None:
    runner = TorchRunner(loaded.model, loaded.config, num_pages=16, together=True)
    runner.logits([Chunk(TEXTS[1][:1], 0, PAGES[1], [0]), Chunk(TEXTS[2][:-1], 0, PAGES[2], [])])
    chunks = [
        Chunk(TEXTS[1][1:], 1, PAGES[1], [0]),
        Chunk(TEXTS[0], 0, PAGES[0], [5, 66, 70]),
        Chunk(TEXTS[2][-1:], len(TEXTS[2]) - 1, PAGES[2], [0]),
    ]
    got = runner.logits(chunks)
    long = whole(loaded, TEXTS[0])
    wanted = torch.stack([whole(loaded, TEXTS[1])[-1], long[5], long[66], long[70], whole(loaded, TEXTS[2])[-1]])
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()
